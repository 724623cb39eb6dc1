//! One simulated execution: its state, and the task that plays its program.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::{
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use wire::{
    Cause, Ended, ExecutionKey, ExecutionStatus, Exit, MAX_TO_HOST_BYTES, StartSpec, Stdin, Stream,
    ToHost, encode,
};

use super::{
    Break,
    output::Output,
    sandbox::Sandbox,
    script::{self, Message, Program, ShellAction, Statement, Talk, Target, Transport},
};

/// What one write of a program carries, as a pipe's buffer does.
const WRITE_BYTES: usize = 64 * 1024;
/// Input that a program has not read yet, bytes (a pipe's buffer on Linux).
const INPUT_BYTES: usize = 64 * 1024;
/// Orders that may be on their way to one program.
pub(super) const MAX_ORDERS: usize = 64;

/// What Claude Code says when it is done with a message, and when it has nothing else to do.
const RESULT: &[u8] = b"{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"done\",\"terminal_reason\":\"completed\"}\n";
const IDLE: &[u8] =
    b"{\"type\":\"system\",\"subtype\":\"session_state_changed\",\"state\":\"idle\"}\n";

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// Signals that a program ignores unless it asks for them: `SIGCHLD`, `SIGCONT`, `SIGURG`, `SIGWINCH`.
const IGNORED_SIGNALS: [i32; 4] = [17, 18, 23, 28];

/// What is known of an execution.
pub(super) struct Execution {
    pub(super) key: ExecutionKey,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    pub(super) input: VecDeque<u8>,
    pub(super) input_closed: bool,
    pub(super) has_terminal: bool,
    pub(super) ended: Option<Ended>,
    pub(super) orders: mpsc::Sender<Order>,
    started: Instant,
    duration: Duration,
}

/// What is asked of a running program.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Signal(i32),
    Cancel(Duration),
}

impl Execution {
    pub(super) fn new(
        spec: &StartSpec,
        orders: mpsc::Sender<Order>,
        broken: Option<Break>,
    ) -> Self {
        Execution {
            key: spec.execution,
            stdout: Output::new(spec.output, broken),
            stderr: Output::new(spec.output, broken),
            input: VecDeque::new(),
            input_closed: spec.stdin == Stdin::Null,
            has_terminal: spec.terminal.is_some(),
            ended: None,
            orders,
            started: Instant::now(),
            duration: Duration::ZERO,
        }
    }

    pub(super) fn status(&self) -> ExecutionStatus {
        let duration = if self.ended.is_some() {
            self.duration
        } else {
            self.started.elapsed()
        };
        ExecutionStatus {
            execution: self.key,
            ended: self.ended,
            duration_us: duration.as_micros() as u64,
            stdout: self.stdout.status(),
            stderr: self.stderr.status(),
        }
    }

    pub(super) fn stream(&mut self, stream: Stream) -> &mut Output {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Takes what fits of some input.
    pub(super) fn feed(&mut self, data: &[u8], close: bool) -> usize {
        let taken = data.len().min(INPUT_BYTES.saturating_sub(self.input.len()));
        self.input.extend(&data[..taken]);
        self.input_closed |= close && taken == data.len();
        taken
    }

    pub(super) fn finish(&mut self, ended: Ended, output_ends: bool) {
        self.duration = self.started.elapsed();
        self.ended = Some(ended);
        if output_ends {
            self.stdout.end();
            self.stderr.end();
        }
    }
}

/// A running program's view of its sandbox.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) spec: Arc<StartSpec>,
    /// SIGTERM is ignored from now on.
    pub(super) stubborn: Arc<AtomicBool>,
    /// Background processes alive.
    pub(super) others: Arc<AtomicU32>,
}

impl Process {
    /// Plays the program to its end, whoever brings it about.
    pub(super) async fn play(self, program: Program, mut orders: mpsc::Receiver<Order>) {
        let broken = self.sandbox.broken();
        let mut running = self.run(program, Target::Stdout);
        let mut deadline = self.deadline(broken);
        let mut kill_at: Option<Instant> = None;
        let mut cause = Cause::Itself;
        let exit = loop {
            tokio::select! {
                biased;
                code = &mut running => break Exit::Code(code),
                () = at(kill_at) => break Exit::Signal(SIGKILL),
                () = at(deadline.filter(|_| kill_at.is_none())) => {
                    deadline = None;
                    cause = Cause::Deadline;
                    kill_at = Some(Instant::now() + grace(self.spec.grace_ms));
                    if !self.stubborn.load(Ordering::Relaxed) && self.spec.grace_ms > 0 {
                        break Exit::Signal(SIGTERM);
                    }
                }
                Some(order) = orders.recv() => match order {
                    Order::Signal(_) if broken == Some(Break::IgnoresSignals) => {}
                    Order::Signal(signal) if self.dies_of(signal) => break Exit::Signal(signal),
                    Order::Signal(_) => {}
                    Order::Cancel(_) if broken == Some(Break::IgnoresCancel) => {}
                    Order::Cancel(grace) => {
                        cause = Cause::Cancelled;
                        kill_at = Some(Instant::now() + grace);
                        if !self.stubborn.load(Ordering::Relaxed) && !grace.is_zero() {
                            break Exit::Signal(SIGTERM);
                        }
                    }
                },
            }
        };
        drop(running);
        let exit = match exit {
            Exit::Code(_) if broken == Some(Break::LosesExitCodes) => Exit::Code(0),
            Exit::Code(_) | Exit::Signal(_) | Exit::Lost => exit,
        };
        let swept = self.others.load(Ordering::Relaxed);
        let leaves_tree = broken == Some(Break::LeavesTheTree) && swept > 0;
        self.sandbox.finish(
            self.spec.execution,
            Ended { exit, cause, swept },
            !leaves_tree,
        );
    }

    fn deadline(&self, broken: Option<Break>) -> Option<Instant> {
        let deadline_ms = self
            .spec
            .deadline_ms
            .filter(|_| broken != Some(Break::IgnoresDeadlines))?;
        Some(Instant::now() + Duration::from_millis(deadline_ms))
    }

    fn dies_of(&self, signal: i32) -> bool {
        !(IGNORED_SIGNALS.contains(&signal)
            || (signal == SIGTERM && self.stubborn.load(Ordering::Relaxed)))
    }

    fn run(&self, program: Program, target: Target) -> BoxFuture<'static, i32> {
        let process = self.clone();
        Box::pin(async move { process.run_program(program, &target).await })
    }

    async fn run_program(&self, program: Program, target: &Target) -> i32 {
        match program {
            Program::Exit(code) => return code,
            Program::Print(bytes) => self.write(target, &bytes).await,
            Program::CopyInput => self.copy_input(target).await,
            Program::ShowFile(path) => match self.sandbox.file(&path) {
                Some(content) => self.write(target, &content).await,
                None => {
                    self.write(&Target::Stderr, b"cat: No such file or directory\n")
                        .await;
                    return 1;
                }
            },
            Program::Sleep(milliseconds) => sleep(Duration::from_millis(milliseconds)).await,
            Program::Zeros(mut count) => {
                while count > 0 {
                    let piece = count.min(WRITE_BYTES as u64);
                    self.write(target, &vec![0; piece as usize]).await;
                    count -= piece;
                }
            }
            Program::Count(first, last) => {
                let numbers: String = (first..=last).map(|number| format!("{number}\n")).collect();
                self.write(target, numbers.as_bytes()).await;
            }
            Program::Flood => loop {
                self.write(target, &b"y\n".repeat(WRITE_BYTES / 2)).await;
                // Gives way, also to a clock that only moves while nothing runs.
                sleep(Duration::from_millis(1)).await;
            },
            Program::ShowDirectory => {
                let directory: &[u8] = match self.sandbox.broken() {
                    Some(Break::IgnoresDirectory) => b"/",
                    _ => &self.spec.cwd,
                };
                self.write(target, &[directory, b"\n"].concat()).await;
            }
            Program::ShowEnvironment => self.show_environment(target).await,
            Program::Talk(talk) => return self.talk(&talk, target).await,
            Program::Shell(statements) => return self.run_shell(statements).await,
            Program::ClaudeCode => self.answer_messages(target).await,
        }
        0
    }

    async fn talk(&self, talk: &Talk, target: &Target) -> i32 {
        let (to, said) = ((talk.transport, talk.port), &talk.said);
        let is_open = self.sandbox.state().relays.contains(&to)
            || self.sandbox.broken() == Some(Break::RelaysEverything);
        let connection = match is_open {
            true => self.sandbox.dial().await,
            false => None,
        };
        let (transport, port) = to;
        let hello = encode(&ToHost::RelayHello { port }, MAX_TO_HOST_BYTES);
        let (Some(mut connection), Ok(hello)) = (connection, hello) else {
            self.write(&Target::Stderr, b"bash: connect: Connection refused\n")
                .await;
            return 1;
        };
        let mut heard = Vec::new();
        let talked = async {
            connection.write_all(&hello).await?;
            if transport == Transport::Datagram {
                connection.write_u16(said.len() as u16).await?;
            }
            if talk.said_last {
                connection.read_to_end(&mut heard).await?;
            }
            connection.write_all(said).await?;
            match transport {
                Transport::Stream => connection.read_to_end(&mut heard).await,
                Transport::Datagram => {
                    heard.resize(usize::from(connection.read_u16().await?), 0);
                    connection.read_exact(&mut heard).await
                }
            }
        };
        let code = i32::from(talked.await.is_err());
        self.write(target, &heard).await;
        code
    }

    async fn show_environment(&self, target: &Target) {
        for variable in &self.spec.env {
            self.write(target, &[variable, &b"\n"[..]].concat()).await;
        }
        if self.sandbox.broken() == Some(Break::LeaksEnvironment) {
            self.write(target, b"HOST_SECRET=1\n").await;
        }
    }

    async fn run_shell(&self, statements: Vec<Statement>) -> i32 {
        let mut background = FuturesUnordered::new();
        let mut code = 0;
        for Statement {
            action,
            target,
            in_background,
        } in statements
        {
            let program = match action {
                ShellAction::Run(program) => program,
                ShellAction::Exit(code) => return code,
                ShellAction::IgnoreTerminate => {
                    self.stubborn.store(true, Ordering::Relaxed);
                    continue;
                }
                ShellAction::NotFound(name) => {
                    self.write(
                        &Target::Stderr,
                        format!("sh: {name}: not found\n").as_bytes(),
                    )
                    .await;
                    code = 127;
                    continue;
                }
            };
            if let Target::File(path) = &target
                && !self.sandbox.empty_file(&self.spec.cwd, path)
            {
                let said = b"sh: cannot create: Read-only file system\n";
                self.write(&Target::Stderr, said).await;
                code = 2;
                continue;
            }
            let mut running = self.run(program, target);
            if in_background {
                self.others.fetch_add(1, Ordering::Relaxed);
                background.push(running);
                continue;
            }
            code = loop {
                tokio::select! {
                    code = &mut running => break code,
                    Some(_) = background.next() => { self.others.fetch_sub(1, Ordering::Relaxed); }
                }
            };
        }
        code
    }

    async fn answer_messages(&self, target: &Target) {
        let (mut changes, mut heard) = (self.sandbox.changes(), Vec::new());
        while let Some(input) = self.sandbox.take_input(&self.spec.execution) {
            heard.extend(input);
            while let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = heard.drain(..=end).collect();
                if let Some(message) = script::message(&line) {
                    self.answer_message(&message, target).await;
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn answer_message(&self, message: &Message, target: &Target) {
        let lifecycle = |state: &str| {
            let uuid = &message.uuid;
            format!(
                "{{\"type\":\"command_lifecycle\",\"command_uuid\":\"{uuid}\",\"state\":\"{state}\"}}\n"
            )
        };
        self.write(target, lifecycle("started").as_bytes()).await;
        let mut changes = self.sandbox.changes();
        while let Some(path) = &message.awaited
            && self.sandbox.file(path).is_none()
        {
            if changes.changed().await.is_err() {
                return;
            }
        }
        self.write(target, RESULT).await;
        self.write(target, lifecycle("completed").as_bytes()).await;
        self.write(target, IDLE).await;
    }

    async fn copy_input(&self, target: &Target) {
        let mut changes = self.sandbox.changes();
        loop {
            match self.sandbox.take_input(&self.spec.execution) {
                Some(input) if input.is_empty() => {
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
                Some(input) => self.write(target, &input).await,
                None => return,
            }
        }
    }

    async fn write(&self, target: &Target, mut data: &[u8]) {
        let stream = match (target, self.sandbox.broken()) {
            (Target::File(path), _) => return self.sandbox.append_file(&self.spec.cwd, path, data),
            (Target::Stderr, broken)
                if broken != Some(Break::MixesStreams) && self.spec.terminal.is_none() =>
            {
                Stream::Stderr
            }
            (Target::Stdout | Target::Stderr, _) => Stream::Stdout,
        };
        let mut changes = self.sandbox.changes();
        while !data.is_empty() {
            let taken = self
                .sandbox
                .write_output(&self.spec.execution, stream, data);
            data = &data[taken..];
            if !data.is_empty() && changes.changed().await.is_err() {
                return;
            }
        }
    }
}

fn grace(milliseconds: u32) -> Duration {
    Duration::from_millis(u64::from(milliseconds))
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}
