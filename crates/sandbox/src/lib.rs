//! The walls, seen from the host: what a backend must do, the client of the supervisor inside, and the suite that
//! every backend passes.
//!
//! Reading order: [`Backend`] (its verbs), [`Link`] (how a supervisor's connections arrive), [`Supervisor`] (the client
//! that drives one sandbox and believes nothing it hears), [`verify`] (is the sandbox as strong as its spec), then [`carrier`] (a link without a socket),
//! [`contract`] (the suite for every backend) and [`fake`] (the test double).

#![forbid(unsafe_code)]

mod backend;
mod supervisor;
mod verify;

pub mod carrier;
pub mod contract;
pub mod fake;

pub use backend::{
    Advice, Backend, BackendError, Capability, Connection, Inspection, LimitCapability, Link,
    Listed, Stream,
};
pub use supervisor::{
    EndReason, Export, ExportFrame, Import, Relayed, Supervisor, SupervisorError, TransferError,
    TransferLimits,
};
pub use verify::{HostView, MASKED_PROC_FILES, MountFlaw, WeakLimit, Weakness, verify};
/// The words of the wire that callers of [`Supervisor`] use: start specs, statuses, entries.
pub use wire;
