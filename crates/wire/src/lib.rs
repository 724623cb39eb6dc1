//! Frames between the host and the supervisor: pure, bounded, fuzzed. Knows no sockets.
//!
//! A frame is a little-endian `u32` length followed by that many bytes, which are one [`ToSupervisor`] or [`ToHost`] in
//! postcard's encoding. The supervisor speaks only when it is asked: after its [`Hello`], every frame it sends is the
//! reply to a request that is still open, so the host can bound everything it receives by what it asked for.
//!
//! Reading order: [`frame`](Decoder) for the envelope, `message` for what is said, `arguments` for how the supervisor
//! is started; `trial` stands apart: what a trial of the walls prints.

#![forbid(unsafe_code)]

mod arguments;
mod carrier;
mod frame;
mod message;
mod trial;

pub use arguments::{ArgumentError, SupervisorArguments};
pub use carrier::{
    CARRIER_WINDOW_BYTES, Carried, CarrierKey, MAX_CARRIED_BYTES, MAX_CHANNELS,
    MAX_RELAYED_CHANNELS, Nonce, Opener, Sealer, Sender, Splitter, attach_request,
};
pub use frame::{
    Decoder, MAX_CHUNK_BYTES, MAX_TO_HOST_BYTES, MAX_TO_SUPERVISOR_BYTES, WireError, encode,
};
pub use message::{
    Attestation, Cause, DATAGRAM_TIMEOUT_MS, Ended, Entry, EntryKind, ExecutionKey,
    ExecutionStatus, Exit, Fault, FaultKind, Hello, MAX_DATAGRAM_BYTES, MAX_ENVIRONMENT_BYTES,
    MAX_EXECUTIONS, MAX_MOUNT_FACTS, MAX_OPEN_DATAGRAMS, MAX_OPEN_REQUESTS, MAX_RELAY_PORTS,
    MAX_RELAYED, MAX_WAIT_MS, MountFact, OutputChunk, OutputMode, PROTOCOL_VERSION, RelayTakes,
    Reply, Request, SoftLimits, StartSpec, Stdin, Stream, StreamStatus, TerminalSize, ToHost,
    ToSupervisor, TransferEnd, TransferFrame, TransferKind, TransferSpec, Welcome,
};
pub use trial::{
    MAX_TRIAL_BYTES, MAX_TRIAL_DETAIL_BYTES, Probe, TRIAL_OPTION, TrialError, TrialFinding,
    TrialOutcome, read_trial,
};
