//! Signals that ask this process to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::CliError;

/// From its making on they are heard here, and do not end the process.
pub(in crate::cli) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Interrupts {
    pub(in crate::cli) fn new() -> Result<Self, CliError> {
        let heard = |kind| signal(kind).map_err(CliError::Terminal);
        Ok(Interrupts {
            interrupt: heard(SignalKind::interrupt())?,
            terminate: heard(SignalKind::terminate())?,
            hang_up: heard(SignalKind::hangup())?,
        })
    }

    /// The next one. Nothing is lost when the wait is given up.
    pub(in crate::cli) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
