//! The client of one sandbox's supervisor.

mod error;
mod transfer;

use std::time::Duration;

pub use error::{EndReason, SupervisorError, TransferError};
pub use transfer::{Export, ExportFrame, Import, TransferLimits};
use wire::{ExecutionKey, ExecutionStatus, Hello, OutputChunk, StartSpec, Stream, TerminalSize};

use crate::Link;

/// A handle to one sandbox's supervisor; clones drive the same one. Dropping the last one closes the connection and
/// stops listening; the sandbox then lives on until its lease ends.
#[derive(Clone)]
pub struct Supervisor {}

impl Supervisor {
    /// Takes the first control connection of the link, reads the supervisor's greeting and accepts it with a lease.
    ///
    /// # Errors
    /// [`SupervisorError::Timeout`] when none greets within `handshake_timeout`, [`SupervisorError::Version`] when it
    /// speaks another protocol, [`SupervisorError::Ended`] when the sandbox ended first.
    pub async fn attach(
        _link: Link,
        _lease: Duration,
        _handshake_timeout: Duration,
    ) -> Result<(Supervisor, Hello), SupervisorError> {
        Err(SupervisorError::Ended)
    }

    /// The sandbox lives that long from now.
    pub async fn renew_lease(&self, _lease: Duration) -> Result<(), SupervisorError> {
        Err(SupervisorError::Ended)
    }

    /// Starts an execution. Idempotent by key: a second start is answered with the first one's status.
    pub async fn start(&self, _spec: StartSpec) -> Result<ExecutionStatus, SupervisorError> {
        Err(SupervisorError::Ended)
    }

    /// Writes to standard input; tells how many bytes were taken.
    pub async fn write_stdin(
        &self,
        _execution: ExecutionKey,
        _data: &[u8],
        _close: bool,
    ) -> Result<usize, SupervisorError> {
        Err(SupervisorError::Ended)
    }

    /// Sends a signal to the main process.
    pub async fn signal(
        &self,
        _execution: ExecutionKey,
        _signal: i32,
    ) -> Result<(), SupervisorError> {
        Err(SupervisorError::Ended)
    }

    /// Resizes the terminal.
    pub async fn resize(
        &self,
        _execution: ExecutionKey,
        _size: TerminalSize,
    ) -> Result<(), SupervisorError> {
        Err(SupervisorError::Ended)
    }

    /// Ends the whole tree: SIGTERM, SIGKILL after the grace. Answers at once; [`Supervisor::wait`] for the end.
    pub async fn cancel(
        &self,
        _execution: ExecutionKey,
        _grace: Duration,
    ) -> Result<(), SupervisorError> {
        Err(SupervisorError::Ended)
    }

    /// Reads output from an offset on, waiting up to `wait` for the first byte.
    pub async fn read(
        &self,
        _execution: ExecutionKey,
        _stream: Stream,
        _offset: u64,
        _max_bytes: u32,
        _wait: Duration,
    ) -> Result<OutputChunk, SupervisorError> {
        Err(SupervisorError::Ended)
    }

    /// Waits for the end of an execution, up to `wait`.
    pub async fn wait(
        &self,
        _execution: ExecutionKey,
        _wait: Duration,
    ) -> Result<ExecutionStatus, SupervisorError> {
        Err(SupervisorError::Ended)
    }

    /// All executions that the supervisor remembers.
    pub async fn list(&self) -> Result<Vec<ExecutionStatus>, SupervisorError> {
        Err(SupervisorError::Ended)
    }

    /// Forgets an ended execution and its output.
    pub async fn forget(&self, _execution: ExecutionKey) -> Result<(), SupervisorError> {
        Err(SupervisorError::Ended)
    }

    /// Ends the sandbox; returns once it is gone.
    pub async fn shutdown(&self) -> Result<(), SupervisorError> {
        Err(SupervisorError::Ended)
    }

    /// Resolves once the sandbox is gone or broke its protocol.
    pub async fn ended(&self) -> EndReason {
        EndReason::Gone
    }

    /// A control connection stands at the moment.
    pub fn is_connected(&self) -> bool {
        false
    }

    /// Reads the tree or file at an absolute path inside.
    pub async fn export(
        &self,
        _path: &[u8],
        _limits: TransferLimits,
    ) -> Result<Export, SupervisorError> {
        Err(SupervisorError::Ended)
    }

    /// Writes a tree or file to an absolute path inside; `refuse` as in [`wire::TransferKind::Import`].
    pub async fn import(
        &self,
        _path: &[u8],
        _refuse: Vec<Vec<u8>>,
        _limits: TransferLimits,
    ) -> Result<Import, SupervisorError> {
        Err(SupervisorError::Ended)
    }
}
