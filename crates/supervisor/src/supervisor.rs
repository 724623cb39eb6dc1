//! The loop: one thread, one `poll`, one timer.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{CWD, Mode, OFlags, openat},
    io::{self, Errno},
    process::{
        Pid, Resource, Rlimit, Signal, WaitOptions, getrlimit, kill_process, setrlimit, wait,
    },
    rand::{GetRandomFlags, getrandom},
};
use wire::{
    Attestation, Cause, ExecutionKey, Hello, PROTOCOL_VERSION, Stream, SupervisorArguments, ToHost,
    ToSupervisor, Welcome,
};

use crate::{
    clock::{Moment, Timer},
    environment::Environment,
    execution::{Execution, Surroundings},
    link::Link,
    parked::Parked,
    process_files::ProcessFiles,
    relay::{self, Relays},
    requests::Outcome,
    soft_limits::{Offence, SoftWatch},
    sys,
    transfer::Workers,
};

/// Bytes taken from a pipe, a connection from inside or the host at once: what a socket holds. With a quarter of it a sixth
/// more of a processor goes into what is relayed.
const READ_BYTES: usize = 256 * 1024;
/// Open files that pid 1 allows itself where the hard limit lets it: up to seven for each execution that is remembered.
/// What it starts gets back the soft limit that the sandbox was given.
const OPEN_FILES: u64 = 4096;

/// Pid 1.
pub struct Supervisor {
    hello: ToHost,
    timer: Timer,
    signals: OwnedFd,
    spool: Option<OwnedFd>,
    buffer: Vec<u8>,
    files: ProcessFiles,
    soft: SoftWatch,
    over: bool,
    /// When the sandbox ends.
    pub lease: Moment,
    /// The connection to the host.
    pub link: Link,
    /// Oldest first.
    pub executions: Vec<Execution>,
    /// What every execution gets beside its own variables.
    pub environment: Environment,
    /// Requests without a reply yet.
    pub parked: Vec<Parked>,
    /// Connections from inside to the host.
    pub relays: Relays,
    /// Transfers.
    pub workers: Workers,
    /// Stubs and workers that are not reaped yet: every other child of pid 1 is an escapee.
    pub own: BTreeSet<i32>,
    /// `RLIMIT_NOFILE` as the sandbox was given it.
    pub nofile: Rlimit,
}

#[derive(Clone, Copy)]
enum Source {
    Timer,
    Signals,
    Host,
    Carrier,
    Relay(relay::Ready),
    Report(usize),
    Output(usize, Stream),
    Input(usize),
}

impl Supervisor {
    /// Everything that is needed before the host is dialled. The lease runs from here.
    pub fn new(arguments: SupervisorArguments, attestation: Attestation) -> io::Result<Self> {
        let now = Moment::now();
        let mut epoch = [0; 16];
        getrandom(&mut epoch, GetRandomFlags::empty())?;
        let nofile = getrlimit(Resource::Nofile);
        let raised = nofile
            .maximum
            .map_or(OPEN_FILES, |hard| hard.min(OPEN_FILES));
        let raised = nofile.current.map(|soft| soft.max(raised));
        let open_files = raised.unwrap_or(OPEN_FILES);
        // A sandbox with few files still works, with fewer executions.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: raised,
                maximum: nofile.maximum,
            },
        );
        let spool = openat(
            CWD,
            arguments.spool.as_str(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        Ok(Supervisor {
            hello: ToHost::Hello(Box::new(Hello {
                protocol: PROTOCOL_VERSION,
                epoch,
                attestation,
            })),
            timer: Timer::new()?,
            signals: sys::child_signals()?,
            soft: SoftWatch::new(arguments.soft, &arguments.spool, now),
            // Without the directory output is kept in memory.
            spool: spool.ok(),
            buffer: vec![0; READ_BYTES],
            files: ProcessFiles::open()?,
            over: false,
            lease: now.after_ms(u64::from(arguments.lease_ms)),
            link: Link::new(arguments.socket.as_deref(), now)?,
            executions: Vec::new(),
            environment: Environment::default(),
            parked: Vec::new(),
            relays: Relays::new(open_files),
            workers: Workers::new(&epoch),
            own: BTreeSet::new(),
            nofile,
        })
    }

    /// Serves until the lease ends or the host says so, then kills everything. The kernel kills whatever is left when
    /// pid 1 returns.
    pub fn run(mut self) -> io::Result<()> {
        let result = self.serve();
        let _ = sys::signal_everything(libc::SIGKILL);
        result
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            self.advance();
            if self.over || self.lease <= Moment::now() {
                return Ok(());
            }
            self.timer.arm(self.next_due())?;
            for (source, flags) in self.wait()? {
                self.dispatch(source, flags);
            }
        }
    }

    /// Does what is due, as far as time and earlier events made it so.
    fn advance(&mut self) {
        let now = Moment::now();
        self.link.advance(now);
        if self.link.dial(&self.hello, now) {
            self.parked.clear();
        }
        self.take_messages(now);
        self.advance_executions(now);
        if let Some(offence) = self
            .soft
            .check(now, &self.files, &self.own, &self.executions)
        {
            let offends = |execution: &Execution| match offence {
                Offence::Execution(key) => execution.key == key,
                Offence::All => true,
            };
            self.terminate(offends, Cause::SoftLimit, 0, now);
            self.advance_executions(now);
        }
        self.answer_parked(now);
        self.relays.sweep(now);
        if !self.link.connected() {
            self.parked.clear();
        }
        let waiting: BTreeSet<ExecutionKey> = self.parked.iter().map(Parked::execution).collect();
        self.executions
            .retain(|execution| execution.failure().is_none() || waiting.contains(&execution.key));
    }

    fn next_due(&self) -> Moment {
        let executions = self.executions.iter().filter_map(Execution::next_due);
        // Answers that wait for room in the queue wait for the socket, not for the time.
        let parked = self
            .parked
            .iter()
            .filter(|_| self.link.room())
            .map(|parked| parked.until);
        let others = [
            self.link.next_due(),
            self.soft.next_due(&self.executions),
            self.relays.next_due(),
        ];
        let others = others.into_iter().flatten();
        executions
            .chain(parked)
            .chain(others)
            .fold(self.lease, Moment::min)
    }

    fn wait(&self) -> io::Result<Vec<(Source, PollFlags)>> {
        let mut sources = vec![Source::Timer, Source::Signals];
        let mut polled = vec![
            PollFd::new(&self.timer, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        let mut add = |source, descriptor, flags| {
            sources.push(source);
            polled.push(PollFd::from_borrowed_fd(descriptor, flags));
        };
        for (index, execution) in self.executions.iter().enumerate() {
            if let Some(report) = execution.report() {
                add(Source::Report(index), report, PollFlags::IN);
            }
            if let Some(descriptor) = execution.stdout.readable() {
                add(
                    Source::Output(index, Stream::Stdout),
                    descriptor,
                    PollFlags::IN,
                );
            }
            if let Some(descriptor) = execution.stderr.readable() {
                add(
                    Source::Output(index, Stream::Stderr),
                    descriptor,
                    PollFlags::IN,
                );
            }
            if let Some((descriptor, pending)) = execution.input.writable() {
                add(
                    Source::Input(index),
                    descriptor,
                    if pending {
                        PollFlags::OUT
                    } else {
                        PollFlags::empty()
                    },
                );
            }
        }
        if let Some((descriptor, incoming, outgoing)) = self.link.interest() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, incoming);
            flags.set(PollFlags::OUT, outgoing);
            add(Source::Host, descriptor, flags);
        }
        for (descriptor, flags) in self.link.carrier_interests() {
            add(Source::Carrier, descriptor, flags);
        }
        for (ready, descriptor, flags) in self.relays.interests(self.link.takes_relayed()) {
            add(Source::Relay(ready), descriptor, flags);
        }
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let ready = polled.iter().map(PollFd::revents).zip(sources);
        let ready = ready.filter(|(flags, _)| !flags.is_empty());
        let mut carrier_is_ready = false;
        Ok(ready
            // One turn moves all that the carrier has, whichever of its descriptors are ready.
            .filter(|(_, source)| {
                !matches!(source, Source::Carrier)
                    || !std::mem::replace(&mut carrier_is_ready, true)
            })
            .map(|(flags, source)| (source, flags))
            .collect())
    }

    fn dispatch(&mut self, source: Source, flags: PollFlags) {
        let now = Moment::now();
        let spool = self.spool.as_ref().map(AsFd::as_fd);
        match source {
            Source::Timer => self.timer.clear(),
            Source::Signals => self.reap(now),
            Source::Host => {
                self.link.flush(now);
                if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.link.receive(&mut self.buffer, now);
                }
            }
            Source::Carrier => self.link.pump_carrier(&mut self.buffer, now),
            Source::Relay(ready) => {
                self.relays
                    .advance(ready, flags, &mut self.link, &mut self.buffer);
            }
            Source::Report(index) => {
                if let Some(execution) = self.executions.get_mut(index) {
                    execution.take_reports(now, &self.files);
                }
            }
            Source::Output(index, stream) => {
                if let Some(execution) = self.executions.get_mut(index) {
                    execution.stream(stream).pump(&mut self.buffer, spool);
                }
            }
            Source::Input(index) => {
                if let Some(execution) = self.executions.get_mut(index) {
                    match flags.contains(PollFlags::ERR) {
                        true => execution.input.end(),
                        false => execution.input.pump(),
                    }
                }
            }
        }
    }

    fn take_messages(&mut self, now: Moment) {
        while let Some(message) = self.link.next(now) {
            match (message, self.link.up()) {
                (
                    ToSupervisor::Welcome(Welcome {
                        protocol: PROTOCOL_VERSION,
                        lease_ms,
                    }),
                    false,
                ) => {
                    self.lease = now.after_ms(u64::from(lease_ms));
                    self.link.welcomed();
                }
                (ToSupervisor::Request { id, request }, true) => match self.handle(request, now) {
                    Outcome::Reply(result) => self.link.send(&ToHost::Reply { id, result }, now),
                    Outcome::Park(wait, until) => self.parked.push(Parked { id, wait, until }),
                    Outcome::Shutdown => self.over = true,
                },
                // Another protocol, or words that do not belong here: nothing more of this is to be believed.
                (
                    ToSupervisor::Welcome(_)
                    | ToSupervisor::Request { .. }
                    | ToSupervisor::Transfer(_),
                    _,
                ) => {
                    self.link.lose(now);
                }
            }
        }
    }

    fn answer_parked(&mut self, now: Moment) {
        let mut index = 0;
        while self.link.room() {
            let Some(parked) = self.parked.get(index) else {
                break;
            };
            let execution = self
                .executions
                .iter_mut()
                .find(|execution| execution.key == parked.execution());
            match parked.answer(execution, now) {
                Some(result) => {
                    let id = self.parked.remove(index).id;
                    self.link.send(&ToHost::Reply { id, result }, now);
                }
                None => index += 1,
            }
        }
    }

    fn advance_executions(&mut self, now: Moment) {
        let spool = self.spool.as_ref().map(AsFd::as_fd);
        let mut around = Surroundings {
            files: &self.files,
            own: &self.own,
            spool,
            buffer: &mut self.buffer,
        };
        for execution in &mut self.executions {
            self.over |= execution.advance(now, &mut around);
        }
    }

    /// Ends those executions.
    pub fn terminate(
        &mut self,
        which: impl Fn(&Execution) -> bool,
        cause: Cause,
        grace_ms: u32,
        now: Moment,
    ) {
        let spool = self.spool.as_ref().map(AsFd::as_fd);
        let around = Surroundings {
            files: &self.files,
            own: &self.own,
            spool,
            buffer: &mut self.buffer,
        };
        for execution in self
            .executions
            .iter_mut()
            .filter(|execution| which(execution))
        {
            execution.terminate(cause, grace_ms, now, &around);
        }
    }

    /// Reads what an execution's stub has reported by now.
    pub fn refresh(&mut self, key: ExecutionKey) {
        let now = Moment::now();
        if let Some(execution) = self
            .executions
            .iter_mut()
            .find(|execution| execution.key == key)
        {
            execution.take_reports(now, &self.files);
        }
    }

    fn reap(&mut self, now: Moment) {
        let mut information = [0u8; 1024];
        while io::read(&self.signals, &mut information).is_ok() {}
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            if status.stopped() {
                self.unstop(pid);
                continue;
            }
            if self.own.remove(&pid.as_raw_nonzero().get()) {
                let stub = self
                    .executions
                    .iter_mut()
                    .find(|execution| execution.stub == Some(pid));
                if let Some(execution) = stub {
                    execution.take_reports(now, &self.files);
                    execution.lost_stub(now);
                }
                self.workers
                    .ended(pid, status.exit_status() == Some(0), &mut self.own);
            }
        }
    }

    /// A stub or worker has no business being stopped: whoever did that wanted an execution without an end.
    fn unstop(&self, pid: Pid) {
        if self.own.contains(&pid.as_raw_nonzero().get()) {
            let _ = kill_process(pid, Signal::CONT);
        }
    }
}
