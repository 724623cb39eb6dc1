//! What the host asks, one method for each request.

use rustix::termios::tcsetwinsize;
use wire::{
    Cause, ExecutionKey, Fault, FaultKind, MAX_CHUNK_BYTES, MAX_EXECUTIONS, MAX_OPEN_REQUESTS,
    MAX_WAIT_MS, Reply, Request, StartSpec, TerminalSize,
};

use crate::{
    clock::Moment,
    execution::Execution,
    fault::{fault, system},
    parked::{Wait, unknown},
    spawn::{self, window_size},
    supervisor::Supervisor,
    sys::signal_process,
};

/// Highest signal number.
const LAST_SIGNAL: i32 = 64;

/// What becomes of a request.
pub enum Outcome {
    /// It is answered.
    Reply(Result<Reply, Fault>),
    /// It waits.
    Park(Wait, Moment),
    /// The sandbox ends.
    Shutdown,
}

impl Supervisor {
    /// Carries out one request.
    pub fn handle(&mut self, request: Request, now: Moment) -> Outcome {
        match self.carry_out(request, now) {
            Ok(outcome) => outcome,
            Err(fault) => Outcome::Reply(Err(fault)),
        }
    }

    fn carry_out(&mut self, request: Request, now: Moment) -> Result<Outcome, Fault> {
        let done = Outcome::Reply(Ok(Reply::Done));
        match request {
            Request::RenewLease { lease_ms } => self.lease = now.after_ms(u64::from(lease_ms)),
            Request::SetEnvironment { env } => self.environment.set(env)?,
            Request::Start(spec) => return self.start(&spec, now),
            Request::WriteStdin {
                execution,
                data,
                close,
            } => {
                if data.len() > MAX_CHUNK_BYTES {
                    return Err(fault(FaultKind::Invalid, "too much input at once"));
                }
                let accepted = self.running(execution)?.input.write(&data, close)?;
                return Ok(Outcome::Reply(Ok(Reply::Accepted(accepted))));
            }
            Request::Signal { execution, signal } => self.signal(execution, signal)?,
            Request::Resize { execution, size } => self.resize(execution, size)?,
            Request::Cancel {
                execution,
                grace_ms,
            } => {
                self.running(execution)?;
                self.terminate(
                    |found| found.key == execution,
                    Cause::Cancelled,
                    grace_ms,
                    now,
                );
            }
            Request::Read {
                execution,
                stream,
                offset,
                max_bytes,
                wait_ms,
            } => {
                let max_bytes = usize::try_from(max_bytes)
                    .unwrap_or(usize::MAX)
                    .min(MAX_CHUNK_BYTES);
                // The window opens at once, not when the answer comes.
                self.find(execution)?.stream(stream).acknowledge(offset);
                return self.park(
                    Wait::Output {
                        execution,
                        stream,
                        offset,
                        max_bytes,
                    },
                    wait_ms,
                    now,
                );
            }
            Request::Wait { execution, wait_ms } => {
                self.find(execution)?;
                return self.park(Wait::Ended(execution), wait_ms, now);
            }
            Request::List => {
                let remembered = self
                    .executions
                    .iter()
                    .filter(|execution| execution.failure().is_none());
                let list = remembered.map(|execution| execution.status(now)).collect();
                return Ok(Outcome::Reply(Ok(Reply::Executions(list))));
            }
            Request::Forget { execution } => self.forget(execution)?,
            Request::OpenTransfer(spec) => {
                self.workers.open(spec, &mut self.link, &mut self.own)?
            }
            Request::OpenRelay { port, takes } => self.relays.open(port, takes)?,
            Request::Shutdown => return Ok(Outcome::Shutdown),
        }
        Ok(done)
    }

    fn park(&self, wait: Wait, wait_ms: u32, now: Moment) -> Result<Outcome, Fault> {
        if self.parked.len() >= MAX_OPEN_REQUESTS {
            return Err(fault(FaultKind::TooMany, "too many open requests"));
        }
        Ok(Outcome::Park(
            wait,
            now.after_ms(u64::from(wait_ms.min(MAX_WAIT_MS))),
        ))
    }

    fn start(&mut self, spec: &StartSpec, now: Moment) -> Result<Outcome, Fault> {
        let wait = Wait::Started(spec.execution);
        let known = self
            .executions
            .iter()
            .any(|found| found.key == spec.execution && found.failure().is_none());
        let outcome = self.park(wait, MAX_WAIT_MS, now)?;
        if known {
            return Ok(outcome);
        }
        self.make_place()?;
        let spawned = spawn::spawn(spec, &self.environment.merged(&spec.env), &self.nofile)?;
        self.own.insert(spawned.stub.as_raw_nonzero().get());
        self.executions.push(Execution::new(spec, spawned, now));
        Ok(outcome)
    }

    /// The oldest ended execution goes when there are as many as may be.
    fn make_place(&mut self) -> Result<(), Fault> {
        if self.executions.len() < MAX_EXECUTIONS {
            return Ok(());
        }
        let oldest = self.executions.iter().position(Execution::ended);
        let oldest =
            oldest.ok_or_else(|| fault(FaultKind::TooMany, "too many running executions"))?;
        drop(self.executions.remove(oldest));
        Ok(())
    }

    fn signal(&mut self, execution: ExecutionKey, signal: i32) -> Result<(), Fault> {
        if !(1..=LAST_SIGNAL).contains(&signal) {
            return Err(fault(FaultKind::Invalid, "no such signal"));
        }
        self.refresh(execution);
        let main = self.running(execution)?.main();
        let main = main.ok_or_else(|| fault(FaultKind::Ended, "the main process has ended"))?;
        signal_process(main, signal).map_err(system("signal the main process"))
    }

    fn resize(&mut self, execution: ExecutionKey, size: TerminalSize) -> Result<(), Fault> {
        let execution = self.running(execution)?;
        if !execution.has_terminal() {
            return Err(fault(FaultKind::NoTerminal, "it has no terminal"));
        }
        match &execution.terminal {
            Some(terminal) => {
                tcsetwinsize(terminal, window_size(size)).map_err(system("resize the terminal"))
            }
            None => Err(ended()),
        }
    }

    fn forget(&mut self, execution: ExecutionKey) -> Result<(), Fault> {
        if !self.find(execution)?.ended() {
            return Err(fault(FaultKind::Invalid, "it still runs"));
        }
        self.executions.retain(|found| found.key != execution);
        Ok(())
    }

    fn find(&mut self, key: ExecutionKey) -> Result<&mut Execution, Fault> {
        let known = |found: &&mut Execution| found.key == key && found.failure().is_none();
        self.executions.iter_mut().find(known).ok_or_else(unknown)
    }

    fn running(&mut self, key: ExecutionKey) -> Result<&mut Execution, Fault> {
        let execution = self.find(key)?;
        if execution.ended() {
            Err(ended())
        } else {
            Ok(execution)
        }
    }
}

fn ended() -> Fault {
    fault(FaultKind::Ended, "it has ended")
}
