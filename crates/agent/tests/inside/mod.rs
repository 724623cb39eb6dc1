//! The inside of a sandbox, played: a supervisor that answers over real frames, and processes whose output a test writes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use sandbox::{
    Connection, Link, Supervisor,
    wire::{
        Attestation, Cause, Decoder, Ended, ExecutionKey, ExecutionStatus, Exit, Fault, FaultKind,
        Hello, MAX_TO_SUPERVISOR_BYTES, OutputChunk, PROTOCOL_VERSION, Reply, Request, Stream,
        StreamStatus, ToHost, ToSupervisor, encode,
    },
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{Notify, mpsc},
};

/// A process inside.
#[derive(Default)]
pub struct Process {
    output: Vec<u8>,
    /// Output before it was acknowledged.
    pub kept_from: usize,
    input: Vec<u8>,
    input_is_closed: bool,
    is_closed: bool,
    ended: Option<Ended>,
}

#[derive(Default)]
struct State {
    processes: HashMap<ExecutionKey, Process>,
    latest: Option<ExecutionKey>,
    /// Answers to starts that never come.
    lost_starts: usize,
    /// Processes that may be started; the others are not there.
    most: Option<usize>,
    cancelled: Vec<ExecutionKey>,
}

/// See the module. Clones are the same sandbox.
#[derive(Clone, Default)]
pub struct Inside {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

struct Parked {
    id: u64,
    key: ExecutionKey,
    offset: usize,
}

impl Inside {
    /// A client of its supervisor.
    pub async fn attach(&self) -> Supervisor {
        let (dial, connections) = mpsc::channel::<Connection>(8);
        tokio::spawn(self.clone().dial(dial));
        let link = Link { connections };
        let lease = Duration::from_secs(3600);
        Supervisor::attach(link, lease, Duration::from_secs(5))
            .await
            .unwrap()
            .0
    }

    pub fn lose_answers_to_starts(&self, count: usize) {
        self.state.lock().unwrap().lost_starts = count;
    }

    /// So many are started, and no more.
    pub fn refuse_starts_after(&self, most: usize) {
        self.state.lock().unwrap().most = Some(most);
    }

    /// As if an earlier server had started it.
    pub fn has_process(&self, key: ExecutionKey) {
        let mut state = self.state.lock().unwrap();
        state.processes.insert(key, Process::default());
        state.latest = Some(key);
    }

    /// The process says a line.
    pub fn say(&self, line: &str) {
        self.write(format!("{line}\n").as_bytes());
    }

    pub fn write(&self, bytes: &[u8]) {
        self.with(|process| process.output.extend_from_slice(bytes));
    }

    /// The process closes its output and runs on.
    pub fn close_output(&self) {
        self.with(|process| process.is_closed = true);
    }

    pub fn started(&self) -> usize {
        self.state.lock().unwrap().processes.len()
    }

    /// Whether the latest process has no more input to come.
    pub fn is_told_to_end(&self) -> bool {
        let state = self.state.lock().unwrap();
        let latest = state.latest.and_then(|latest| state.processes.get(&latest));
        latest.is_some_and(|process| process.input_is_closed)
    }

    pub fn cancelled(&self) -> usize {
        self.state.lock().unwrap().cancelled.len()
    }

    /// All lines that the process was told.
    pub fn told(&self) -> Vec<Value> {
        let input = self.with(|process| process.input.clone());
        let lines = input
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    /// Waits for a line that fits.
    pub async fn hears(&self, fits: impl Fn(&Value) -> bool) -> Value {
        self.until(|| self.started() > 0).await;
        self.until(|| self.told().iter().any(&fits)).await;
        self.told().into_iter().find(fits).unwrap()
    }

    /// Waits until all output was read and acknowledged.
    pub async fn is_acknowledged(&self) {
        self.until(|| self.with(|process| process.kept_from == process.output.len()))
            .await;
    }

    pub async fn until(&self, is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(100), waiting)
            .await
            .unwrap();
    }

    fn with<T>(&self, act: impl FnOnce(&mut Process) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        let latest = state.latest.unwrap();
        let result = act(state.processes.get_mut(&latest).unwrap());
        self.changed.notify_one();
        result
    }

    async fn dial(self, dial: mpsc::Sender<Connection>) {
        loop {
            let (mut ours, theirs) = duplex(1 << 20);
            if dial.send(Box::new(theirs)).await.is_err() {
                return;
            }
            let hello = Hello {
                protocol: PROTOCOL_VERSION,
                epoch: [1; 16],
                attestation: Attestation::default(),
            };
            say(&mut ours, &ToHost::Hello(Box::new(hello))).await;
            self.serve(ours).await;
        }
    }

    /// Answers until the connection is lost.
    async fn serve(&self, mut stream: DuplexStream) {
        let mut decoder = Decoder::new(MAX_TO_SUPERVISOR_BYTES);
        let (mut parked, mut buffer) = (Vec::new(), vec![0; 65536]);
        loop {
            while let Some(message) = decoder.next().unwrap() {
                let ToSupervisor::Request { id, request } = message else {
                    continue;
                };
                if let Some(result) = self.answer(id, request, &mut parked) {
                    say(&mut stream, &ToHost::Reply { id, result }).await;
                }
            }
            for (id, chunk) in self.due(&mut parked) {
                let result = Ok(Reply::Output(chunk));
                say(&mut stream, &ToHost::Reply { id, result }).await;
            }
            tokio::select! {
                read = stream.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(count) => decoder.push(&buffer[..count]),
                },
                () = self.changed.notified() => {}
            }
        }
    }

    /// `None`: it is answered later, or never.
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "the rest is done by saying so"
    )]
    fn answer(
        &self,
        id: u64,
        request: Request,
        parked: &mut Vec<Parked>,
    ) -> Option<Result<Reply, Fault>> {
        let mut state = self.state.lock().unwrap();
        let reply = match request {
            Request::Start(spec) => {
                let key = spec.execution;
                if state.most.is_some_and(|most| state.processes.len() >= most) {
                    return Some(Err(unknown()));
                }
                state.processes.entry(key).or_default();
                state.latest = Some(key);
                if state.lost_starts > 0 {
                    state.lost_starts -= 1;
                    return None;
                }
                Reply::Status(status(key, &state.processes[&key]))
            }
            Request::WriteStdin {
                execution,
                data,
                close,
            } => {
                let Some(process) = state.processes.get_mut(&execution) else {
                    return Some(Err(unknown()));
                };
                process.input.extend_from_slice(&data);
                process.input_is_closed |= close;
                if close {
                    end(process, Exit::Code(0), Cause::Itself);
                }
                Reply::Accepted(data.len() as u32)
            }
            Request::Cancel { execution, .. } => {
                state.cancelled.push(execution);
                let Some(process) = state.processes.get_mut(&execution) else {
                    return Some(Err(unknown()));
                };
                end(process, Exit::Signal(15), Cause::Cancelled);
                Reply::Done
            }
            Request::Read {
                stream: Stream::Stderr,
                execution,
                offset,
                ..
            } => {
                let process = state.processes.get(&execution);
                if process.is_none_or(|process| process.ended.is_none()) {
                    return None;
                }
                Reply::Output(OutputChunk {
                    offset,
                    data: Vec::new(),
                    status: StreamStatus {
                        ended: true,
                        ..StreamStatus::default()
                    },
                })
            }
            Request::Read {
                execution, offset, ..
            } => {
                let Some(process) = state.processes.get_mut(&execution) else {
                    return Some(Err(unknown()));
                };
                process.kept_from = process.kept_from.max(offset as usize);
                parked.push(Parked {
                    id,
                    key: execution,
                    offset: offset as usize,
                });
                return None;
            }
            Request::Wait { execution, .. } => match state.processes.get(&execution) {
                Some(process) => Reply::Status(status(execution, process)),
                None => return Some(Err(unknown())),
            },
            _ => Reply::Done,
        };
        self.changed.notify_one();
        Some(Ok(reply))
    }

    fn due(&self, parked: &mut Vec<Parked>) -> Vec<(u64, OutputChunk)> {
        let state = self.state.lock().unwrap();
        let mut due = Vec::new();
        parked.retain(|read| {
            let process = &state.processes[&read.key];
            let from = read.offset.max(process.kept_from);
            if from == process.output.len() && !process.is_closed {
                return true;
            }
            let to = process.output.len().min(from + 100_000);
            let mut status = status(read.key, process).stdout;
            status.ended &= to == process.output.len();
            let chunk = OutputChunk {
                offset: from as u64,
                data: process.output[from..to].to_vec(),
                status,
            };
            due.push((read.id, chunk));
            false
        });
        due
    }
}

async fn say(stream: &mut DuplexStream, message: &ToHost) {
    // The host may have hung up.
    let _ = stream.write_all(&encode(message, 1 << 24).unwrap()).await;
}

fn end(process: &mut Process, exit: Exit, cause: Cause) {
    process.is_closed = true;
    process.ended = Some(Ended {
        exit,
        cause,
        swept: 0,
    });
}

fn status(execution: ExecutionKey, process: &Process) -> ExecutionStatus {
    ExecutionStatus {
        execution,
        ended: process.ended,
        duration_us: 1,
        stdout: StreamStatus {
            kept_from: process.kept_from as u64,
            total_bytes: process.output.len() as u64,
            ended: process.is_closed,
        },
        stderr: StreamStatus {
            ended: process.ended.is_some(),
            ..StreamStatus::default()
        },
    }
}

fn unknown() -> Fault {
    Fault {
        kind: FaultKind::UnknownExecution,
        errno: 0,
        step: "played".to_owned(),
    }
}
