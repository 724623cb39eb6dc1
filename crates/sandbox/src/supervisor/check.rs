//! What a reply must look like, given what was asked. The supervisor stands next to untrusted code and may have been
//! taken over, so nothing that it says is taken on its word: a reply that an honest supervisor cannot send marks the
//! sandbox as broken.

use std::collections::{HashMap, HashSet, VecDeque};

use wire::{
    Ended, ExecutionKey, ExecutionStatus, Exit, Fault, MAX_EXECUTIONS, OutputChunk, Reply, Request,
    Stream, StreamStatus,
};

/// Longest name of a failed step, bytes; from the documentation of [`wire::Fault::step`].
pub(super) const MAX_STEP_BYTES: usize = 256;
/// Executions whose progress is remembered for comparison: twice what a supervisor remembers, so that an honest one
/// never makes us forget a live one.
const MAX_REMEMBERED: usize = 2 * MAX_EXECUTIONS;
/// Highest signal number on Linux (`SIGRTMAX`).
const MAX_SIGNAL: i32 = 64;

/// What was heard of each execution so far.
#[derive(Default)]
pub(super) struct Heard {
    executions: HashMap<ExecutionKey, Progress>,
    order: VecDeque<ExecutionKey>,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    ended: Option<Ended>,
    stdout: StreamStatus,
    stderr: StreamStatus,
}

type Checked = Result<(), &'static str>;

fn ensure(holds: bool, violation: &'static str) -> Checked {
    if holds { Ok(()) } else { Err(violation) }
}

impl Heard {
    /// Checks a reply against its request and remembers what it says.
    pub(super) fn check(&mut self, request: &Request, result: &Result<Reply, Fault>) -> Checked {
        match result {
            Err(fault) => ensure(
                fault.step.len() <= MAX_STEP_BYTES,
                "a fault names too long a step",
            ),
            Ok(reply) => self.check_reply(request, reply),
        }
    }

    fn check_reply(&mut self, request: &Request, reply: &Reply) -> Checked {
        match (request, reply) {
            (Request::Forget { execution }, Reply::Done) => {
                self.forget(execution);
                Ok(())
            }
            (
                Request::RenewLease { .. }
                | Request::SetEnvironment { .. }
                | Request::Signal { .. }
                | Request::Resize { .. }
                | Request::Cancel { .. }
                | Request::OpenTransfer(_)
                | Request::OpenRelay { .. },
                Reply::Done,
            ) => Ok(()),
            (Request::Start(spec), Reply::Status(status)) => {
                self.check_status(&spec.execution, status)
            }
            (Request::Wait { execution, .. }, Reply::Status(status)) => {
                self.check_status(execution, status)
            }
            (Request::WriteStdin { data, .. }, Reply::Accepted(count)) => ensure(
                *count as usize <= data.len(),
                "more input was accepted than given",
            ),
            (Request::List, Reply::Executions(list)) => self.check_list(list),
            (
                Request::Read {
                    execution,
                    stream,
                    offset,
                    max_bytes,
                    ..
                },
                Reply::Output(chunk),
            ) => {
                check_chunk(*offset, *max_bytes, chunk)?;
                self.advance_stream(execution, *stream, chunk.status)
            }
            _ => Err("a reply is of the wrong kind"),
        }
    }

    fn check_list(&mut self, list: &[ExecutionStatus]) -> Checked {
        ensure(
            list.len() <= MAX_EXECUTIONS,
            "more executions are listed than there may be",
        )?;
        let mut keys = HashSet::with_capacity(list.len());
        for status in list {
            ensure(
                keys.insert(status.execution),
                "an execution is listed twice",
            )?;
            self.check_status(&status.execution, status)?;
        }
        Ok(())
    }

    fn check_status(&mut self, asked: &ExecutionKey, status: &ExecutionStatus) -> Checked {
        ensure(
            status.execution == *asked,
            "a reply is about another execution",
        )?;
        if let Some(ended) = status.ended {
            check_exit(ended.exit)?;
        }
        let progress = self.progress(asked);
        ensure(
            progress.ended.is_none() || progress.ended == status.ended,
            "an execution ended twice",
        )?;
        advance(&mut progress.stdout, status.stdout)?;
        advance(&mut progress.stderr, status.stderr)?;
        progress.ended = status.ended;
        Ok(())
    }

    fn advance_stream(
        &mut self,
        execution: &ExecutionKey,
        stream: Stream,
        status: StreamStatus,
    ) -> Checked {
        let progress = self.progress(execution);
        match stream {
            Stream::Stdout => advance(&mut progress.stdout, status),
            Stream::Stderr => advance(&mut progress.stderr, status),
        }
    }

    fn progress(&mut self, execution: &ExecutionKey) -> &mut Progress {
        if !self.executions.contains_key(execution) {
            self.order.push_back(*execution);
            if self.order.len() > MAX_REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.executions.remove(&oldest);
            }
        }
        self.executions.entry(*execution).or_default()
    }

    fn forget(&mut self, execution: &ExecutionKey) {
        self.executions.remove(execution);
        self.order.retain(|known| known != execution);
    }
}

fn check_exit(exit: Exit) -> Checked {
    match exit {
        Exit::Code(code) => ensure((0..=255).contains(&code), "an exit code is out of range"),
        Exit::Signal(signal) => ensure(
            (1..=MAX_SIGNAL).contains(&signal),
            "a signal is out of range",
        ),
        Exit::Lost => Ok(()),
    }
}

fn check_chunk(asked: u64, max_bytes: u32, chunk: &OutputChunk) -> Checked {
    let StreamStatus {
        kept_from,
        total_bytes,
        ..
    } = chunk.status;
    if asked > total_bytes {
        // A question beyond the end is answered with the end.
        return ensure(
            chunk.data.is_empty() && chunk.offset == total_bytes,
            "output came from behind the end",
        );
    }
    ensure(
        chunk.data.len() <= max_bytes as usize,
        "more output came than asked",
    )?;
    ensure(chunk.offset >= asked, "output came from before the offset")?;
    ensure(
        chunk.offset == asked || chunk.offset <= kept_from,
        "output was skipped that is still kept",
    )?;
    let end = chunk.offset.checked_add(chunk.data.len() as u64);
    ensure(
        end.is_some_and(|end| end <= total_bytes),
        "output came from behind the end",
    )
}

/// A stream only ever grows, and stands still once it ended.
fn advance(known: &mut StreamStatus, now: StreamStatus) -> Checked {
    ensure(
        now.kept_from <= now.total_bytes,
        "a stream keeps more than it has",
    )?;
    ensure(
        now.total_bytes >= known.total_bytes && now.kept_from >= known.kept_from,
        "a stream shrank",
    )?;
    ensure(
        !known.ended || (now.ended && now.total_bytes == known.total_bytes),
        "a stream went on after its end",
    )?;
    *known = now;
    Ok(())
}
