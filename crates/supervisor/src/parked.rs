//! Requests that wait for something to happen.

use wire::{ExecutionKey, Fault, FaultKind, Reply, Stream};

use crate::{
    clock::Moment,
    execution::Execution,
    fault::{fault, system},
};

/// A request without its reply yet.
pub struct Parked {
    /// The request's id.
    pub id: u64,
    /// What it waits for.
    pub wait: Wait,
    /// When it is answered in any case.
    pub until: Moment,
}

/// What a request waits for.
pub enum Wait {
    /// That the program runs, or cannot be executed.
    Started(ExecutionKey),
    /// The end of an execution.
    Ended(ExecutionKey),
    /// Output.
    Output {
        /// Of which execution.
        execution: ExecutionKey,
        /// Of which stream.
        stream: Stream,
        /// From where on.
        offset: u64,
        /// How much at most.
        max_bytes: usize,
    },
}

impl Parked {
    /// Which execution it is about.
    pub const fn execution(&self) -> ExecutionKey {
        match &self.wait {
            Wait::Started(execution) | Wait::Ended(execution) | Wait::Output { execution, .. } => {
                *execution
            }
        }
    }

    /// The answer, once there is one.
    pub fn answer(
        &self,
        execution: Option<&mut Execution>,
        now: Moment,
    ) -> Option<Result<Reply, Fault>> {
        let Some(execution) = execution else {
            return Some(Err(unknown()));
        };
        if let Some(failure) = execution.failure() {
            return Some(Err(failure.clone()));
        }
        let over = self.until <= now;
        match self.wait {
            Wait::Started(_) => {
                (!execution.starting() || over).then(|| Ok(Reply::Status(execution.status(now))))
            }
            Wait::Ended(_) => {
                (execution.ended() || over).then(|| Ok(Reply::Status(execution.status(now))))
            }
            Wait::Output {
                stream,
                offset,
                max_bytes,
                ..
            } => {
                let output = execution.stream(stream);
                let ready = output.has(offset) || max_bytes == 0 || over;
                ready.then(|| {
                    output
                        .read(offset, max_bytes)
                        .map(Reply::Output)
                        .map_err(system("read the spool"))
                })
            }
        }
    }
}

/// The fault of a name that is not known.
pub fn unknown() -> Fault {
    fault(FaultKind::UnknownExecution, "no such execution")
}
