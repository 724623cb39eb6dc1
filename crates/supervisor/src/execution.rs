//! One execution, from its start to the end of its whole tree.
//!
//! ```text
//! Starting ──started──► Running ──deadline, cancel──► Terminating ──grace over──┐
//!    │                     │ main process ended            │ main process ended │
//!    │ failed              ▼                               ▼                    ▼
//!    ▼                  Sweeping ◄─────────────────────────┴────────────────────┘
//!  Failed                  │ nothing left, status known
//!                          ▼
//!                       Draining ──output complete──► Ended
//! ```
//! An execution is its whole tree: when the main process ends, the rest is killed. A stub that is killed from inside
//! leads to Sweeping too, with the escapees as the tree.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::{self, Errno},
    process::{Pid, Signal, kill_process},
};
use wire::{
    Cause, Ended, ExecutionKey, ExecutionStatus, Exit, Fault, FaultKind, StartSpec, Stream,
};

use crate::{
    clock::Moment,
    fault::failed,
    input::Input,
    output::Output,
    process_files::ProcessFiles,
    process_table::Tree,
    spawn::Spawned,
    stub::{REPORT_BYTES, Report, Step},
    sweep::{Progress, Sweep},
};

/// Time for the last output and for reaping what is gone of the tree, milliseconds. The end of a pipe comes at once; a
/// terminal hands its last bytes over from a kernel thread; and a pipe that was passed to another execution never ends.
const DRAIN_MS: u64 = 100;

/// What an execution needs of the supervisor while time goes on.
pub struct Surroundings<'a> {
    /// `/proc`.
    pub files: &'a ProcessFiles,
    /// Pid 1's stubs and workers.
    pub own: &'a BTreeSet<i32>,
    /// Where output is spooled.
    pub spool: Option<BorrowedFd<'a>>,
    /// For reading.
    pub buffer: &'a mut [u8],
}

/// An execution that is remembered.
pub struct Execution {
    /// The host's name for it.
    pub key: ExecutionKey,
    /// Its stub while that is not reaped.
    pub stub: Option<Pid>,
    /// Standard input.
    pub input: Input,
    /// Standard output.
    pub stdout: Output,
    /// Standard error.
    pub stderr: Output,
    /// A slave of its terminal.
    pub terminal: Option<OwnedFd>,
    has_terminal: bool,
    report: Option<OwnedFd>,
    main: Option<Pid>,
    started: Moment,
    deadline: Option<Moment>,
    grace_ms: u32,
    exit: Option<Exit>,
    cause: Cause,
    swept: u32,
    phase: Phase,
}

enum Phase {
    Starting,
    Running,
    Terminating { kill_at: Moment },
    Sweeping(Sweep),
    Draining { until: Moment },
    Ended { ended: Ended, duration_us: u64 },
    Failed(Fault),
}

impl Execution {
    /// An execution whose stub was just forked.
    pub fn new(spec: &StartSpec, spawned: Spawned, now: Moment) -> Self {
        Execution {
            key: spec.execution,
            stub: Some(spawned.stub),
            input: spawned.input,
            stdout: spawned.stdout,
            stderr: spawned.stderr,
            has_terminal: spawned.terminal.is_some(),
            terminal: spawned.terminal,
            report: Some(spawned.report),
            main: None,
            started: now,
            deadline: spec
                .deadline_ms
                .map(|milliseconds| now.after_ms(milliseconds)),
            grace_ms: spec.grace_ms,
            exit: None,
            cause: Cause::Itself,
            swept: 0,
            phase: Phase::Starting,
        }
    }

    /// Not yet known whether the program could be executed.
    pub const fn starting(&self) -> bool {
        matches!(self.phase, Phase::Starting)
    }

    /// Ended, tree and output complete.
    pub const fn ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// Why the start failed.
    pub const fn failure(&self) -> Option<&Fault> {
        match &self.phase {
            Phase::Failed(fault) => Some(fault),
            Phase::Starting
            | Phase::Running
            | Phase::Terminating { .. }
            | Phase::Sweeping(_)
            | Phase::Draining { .. }
            | Phase::Ended { .. } => None,
        }
    }

    /// It was started on a terminal.
    pub const fn has_terminal(&self) -> bool {
        self.has_terminal
    }

    /// The main process while it can be signalled.
    pub fn main(&self) -> Option<Pid> {
        self.main
            .filter(|_| self.exit.is_none() && self.stub.is_some())
    }

    /// Where its stub reports.
    pub fn report(&self) -> Option<BorrowedFd<'_>> {
        self.report.as_ref().map(AsFd::as_fd)
    }

    /// A stream.
    pub const fn stream(&mut self, stream: Stream) -> &mut Output {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Where it stands.
    pub fn status(&self, now: Moment) -> ExecutionStatus {
        let (ended, duration_us) = match self.phase {
            Phase::Ended { ended, duration_us } => (Some(ended), duration_us),
            Phase::Starting
            | Phase::Running
            | Phase::Terminating { .. }
            | Phase::Sweeping(_)
            | Phase::Draining { .. }
            | Phase::Failed(_) => (None, now.micros_since(self.started)),
        };
        let (stdout, stderr) = (self.stdout.status(), self.stderr.status());
        ExecutionStatus {
            execution: self.key,
            ended,
            duration_us,
            stdout,
            stderr,
        }
    }

    /// When time alone changes something.
    pub fn next_due(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Starting | Phase::Running => self.deadline,
            Phase::Terminating { kill_at } => Some(*kill_at),
            Phase::Sweeping(sweep) => Some(sweep.next()),
            Phase::Draining { until } => Some(*until),
            Phase::Ended { .. } | Phase::Failed(_) => None,
        }
    }

    /// Ends the tree: SIGTERM now and SIGKILL after the grace. The first cause stays.
    pub fn terminate(
        &mut self,
        cause: Cause,
        grace_ms: u32,
        now: Moment,
        around: &Surroundings<'_>,
    ) {
        let kill_at = now.after_ms(u64::from(grace_ms));
        match &mut self.phase {
            Phase::Starting | Phase::Running => {
                self.cause = cause;
                if grace_ms == 0 {
                    self.sweep(now);
                } else {
                    self.phase = Phase::Terminating { kill_at };
                    self.signal_tree(Signal::TERM, around);
                }
            }
            Phase::Terminating { kill_at: earlier } => *earlier = (*earlier).min(kill_at),
            Phase::Sweeping(_)
            | Phase::Draining { .. }
            | Phase::Ended { .. }
            | Phase::Failed(_) => {}
        }
    }

    /// Reads what the stub has to say.
    pub fn take_reports(&mut self, now: Moment, files: &ProcessFiles) {
        let mut message = [0u8; REPORT_BYTES];
        while let Some(socket) = &self.report {
            match io::read(socket, &mut message) {
                Ok(REPORT_BYTES) => match Report::decode(&message) {
                    Some(report) => self.take_report(report, now, files),
                    None => self.report = None,
                },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The stub is gone; its death is told by SIGCHLD.
                Ok(_) | Err(_) => self.report = None,
            }
        }
    }

    /// The stub has ended; all its reports are read.
    pub fn lost_stub(&mut self, now: Moment) {
        self.stub = None;
        match &mut self.phase {
            Phase::Starting | Phase::Running | Phase::Terminating { .. } => {
                if self.exit.is_none() {
                    self.exit = Some(Exit::Lost);
                    if self.cause == Cause::Itself {
                        self.cause = Cause::StubKilled;
                    }
                }
                self.phase = Phase::Sweeping(Sweep::new(Tree::Escapees, now));
            }
            Phase::Sweeping(sweep) => {
                if self.exit.is_none() {
                    self.exit = Some(Exit::Lost);
                }
                sweep.lost_stub(now);
            }
            // Killed by us, or after the end: nothing of the tree was left.
            Phase::Draining { .. } | Phase::Ended { .. } | Phase::Failed(_) => {}
        }
    }

    /// Does what is due. True when nothing short of ending everything helps.
    pub fn advance(&mut self, now: Moment, around: &mut Surroundings<'_>) -> bool {
        if self.next_due().is_some_and(|due| due <= now) {
            match &self.phase {
                Phase::Starting | Phase::Running => {
                    self.terminate(Cause::Deadline, self.grace_ms, now, around)
                }
                Phase::Terminating { .. } => self.sweep(now),
                Phase::Sweeping(_)
                | Phase::Draining { .. }
                | Phase::Ended { .. }
                | Phase::Failed(_) => {}
            }
        }
        let last_resort = self.advance_sweep(now, around);
        self.advance_drain(now, around);
        last_resort
    }

    fn take_report(&mut self, report: Report, now: Moment, files: &ProcessFiles) {
        match report {
            Report::Started(pid) => {
                self.main = Pid::from_raw(pid);
                if self.starting() {
                    self.phase = Phase::Running;
                }
            }
            Report::Failed(step, errno) => {
                let (kind, step) = match step {
                    Step::Prepare => (FaultKind::System, "prepare the process"),
                    Step::Cwd => (FaultKind::BadCwd, "enter the working directory"),
                    Step::Execute => (FaultKind::CannotExecute, "execute the program"),
                };
                if self.starting() {
                    self.phase = Phase::Failed(failed(kind, step, Errno::from_raw_os_error(errno)));
                } else {
                    // Cancelled before it ran: its start was answered already, so it ends like any other.
                    self.exit = Some(Exit::Lost);
                    self.drain(now);
                }
            }
            Report::Exited(status) => self.main_ended(status, now, files),
        }
    }

    fn main_ended(&mut self, status: i32, now: Moment, files: &ProcessFiles) {
        self.exit = Some(exit_of(status));
        let alone = self
            .stub
            .zip(self.main)
            .is_some_and(|(stub, main)| files.only_child(stub, main));
        match &self.phase {
            Phase::Starting | Phase::Running | Phase::Terminating { .. } if alone => {
                self.drain(now)
            }
            Phase::Starting | Phase::Running | Phase::Terminating { .. } => self.sweep(now),
            Phase::Sweeping(_)
            | Phase::Draining { .. }
            | Phase::Ended { .. }
            | Phase::Failed(_) => {}
        }
    }

    fn sweep(&mut self, now: Moment) {
        let tree = self.stub.map_or(Tree::Escapees, |stub| {
            Tree::OfStub(stub.as_raw_nonzero().get())
        });
        self.phase = Phase::Sweeping(Sweep::new(tree, now));
    }

    fn advance_sweep(&mut self, now: Moment, around: &Surroundings<'_>) -> bool {
        let Phase::Sweeping(sweep) = &mut self.phase else {
            return false;
        };
        if sweep.next() > now {
            return false;
        }
        let progress = sweep.round(around.files, self.main, around.own);
        self.swept = sweep.killed();
        match progress {
            Progress::Going => {}
            Progress::LastResort => return true,
            // The report of a main process that was killed just now may still be on its way.
            Progress::Gone if self.exit.is_some() || sweep.overdue() => self.drain(now),
            Progress::Gone => {}
        }
        false
    }

    fn drain(&mut self, now: Moment) {
        if let Some(stub) = self.stub {
            // Not reaped yet, so its id is still its own.
            let _ = kill_process(stub, Signal::KILL);
        }
        self.report = None;
        self.terminal = None;
        self.input.end();
        self.phase = Phase::Draining {
            until: now.after_ms(DRAIN_MS),
        };
    }

    fn advance_drain(&mut self, now: Moment, around: &mut Surroundings<'_>) {
        let Phase::Draining { until } = self.phase else {
            return;
        };
        let stdout = self.stdout.drain(around.buffer, around.spool);
        let stderr = self.stderr.drain(around.buffer, around.spool);
        // What was swept counts against the limit of processes until it is reaped, and that is when its stub is.
        let reaped = self.swept == 0 || self.stub.is_none();
        if (stdout && stderr && reaped) || until <= now {
            self.stdout.end();
            self.stderr.end();
            let exit = self.exit.unwrap_or(Exit::Lost);
            let ended = Ended {
                exit,
                cause: self.cause,
                swept: self.swept,
            };
            self.phase = Phase::Ended {
                ended,
                duration_us: now.micros_since(self.started),
            };
        }
    }

    fn signal_tree(&self, signal: Signal, around: &Surroundings<'_>) {
        let (Some(stub), Ok(table)) = (self.stub, around.files.table()) else {
            return;
        };
        for process in table.tree(Tree::OfStub(stub.as_raw_nonzero().get()), around.own) {
            around.files.signal(&process, signal);
        }
    }
}

/// A raw wait status, as wait(2) gives it.
const fn exit_of(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Code((status >> 8) & 0xff),
        signal => Exit::Signal(signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_status_is_a_code_or_a_signal() {
        assert_eq!(exit_of(0), Exit::Code(0));
        assert_eq!(exit_of(255 << 8), Exit::Code(255));
        assert_eq!(exit_of(9), Exit::Signal(9));
        assert_eq!(exit_of(11 | 0x80), Exit::Signal(11));
    }
}
