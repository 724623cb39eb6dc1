//! What can go wrong between host and supervisor.

use wire::{Fault, WireError};

/// Why a request to the supervisor was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SupervisorError {
    /// The supervisor answered that it did not do it. Its words are data for the log, not for trust.
    #[error("the supervisor refused: {kind:?} (errno {errno}) at {step:?}", kind = .0.kind, errno = .0.errno, step = .0.step)]
    Fault(Fault),
    /// No answer within the request's own wait and the margin on top of it.
    #[error("no answer in time while {0}")]
    Timeout(&'static str),
    /// The connection dropped between the request and its answer, and repeating it could do it twice. It may or may
    /// not have happened.
    #[error("the connection dropped while {0}")]
    Interrupted(&'static str),
    /// The sandbox has ended.
    #[error("the sandbox has ended")]
    Ended,
    /// The supervisor broke the protocol: the sandbox is not to be trusted any more.
    #[error("the supervisor broke the protocol: {0}")]
    Protocol(String),
    /// The supervisor speaks another version of the protocol: the server was updated under a running sandbox.
    #[error("the supervisor speaks protocol {theirs}, not {ours}")]
    Version {
        /// The supervisor's.
        theirs: u16,
        /// [`wire::PROTOCOL_VERSION`] of this host.
        ours: u16,
    },
    /// As many requests or transfers of this sandbox are open as may be.
    #[error("too many requests of this sandbox are open")]
    TooManyOpen,
    /// The request itself does not fit its frame.
    #[error("the request does not fit")]
    Unsendable(#[source] WireError),
}

/// Why a sandbox is over for its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndReason {
    /// It ended: its process is gone.
    Gone,
    /// Its supervisor broke the protocol, as told. The sandbox may still run: destroy it.
    Broken(String),
}

/// Why a transfer stopped. Nothing of it stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The supervisor stopped it.
    #[error("the supervisor refused {path:?}: {kind:?} (errno {errno}) at {step:?}",
        path = String::from_utf8_lossy(.path), kind = .fault.kind, errno = .fault.errno, step = .fault.step)]
    Refused {
        /// What kind.
        fault: Fault,
        /// The entry at fault, relative to the root of the transfer.
        path: Vec<u8>,
    },
    /// More entries than allowed.
    #[error("more than {0} entries")]
    TooManyEntries(u64),
    /// More bytes of content than allowed.
    #[error("more than {0} bytes of content")]
    TooManyBytes(u64),
    /// An entry or its content is not what a transfer may hold.
    #[error("a transfer may not hold that: {0}")]
    Invalid(String),
    /// A link whose target is absolute, climbs above the root of the transfer, or climbs after it descended (where a
    /// further link could carry it outside).
    #[error("the link {path:?} may lead out of the tree", path = String::from_utf8_lossy(.path))]
    LinkLeaves {
        /// The link, relative to the root of the transfer.
        path: Vec<u8>,
    },
    /// The peer broke the protocol of transfers.
    #[error("the supervisor broke the protocol of transfers: {0}")]
    Protocol(String),
    /// Nothing moved for too long.
    #[error("the transfer stood still for too long")]
    Stalled,
    /// The data connection dropped before the end.
    #[error("the data connection dropped before the end")]
    Dropped,
}
