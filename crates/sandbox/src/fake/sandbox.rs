//! A simulated sandbox: its pid 1, its executions and files.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32},
    },
    time::Duration,
};

use futures::stream::{FuturesUnordered, StreamExt};
use model::SandboxSpec;
use tokio::{
    io::{AsyncWriteExt, duplex, split},
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep_until},
};
use wire::{
    Ended, ExecutionKey, Fault, FaultKind, Hello, MAX_CHUNK_BYTES, MAX_EXECUTIONS,
    MAX_TO_HOST_BYTES, MAX_TO_SUPERVISOR_BYTES, MAX_WAIT_MS, PROTOCOL_VERSION, Reply, Request,
    StartSpec, Stream, ToHost, ToSupervisor, encode,
};

use super::{
    Break, FakeOptions,
    execution::{Execution, MAX_ORDERS, Order, Process},
    files::Files,
    honest, script, transfer,
};
use crate::{Connection, Link, supervisor::channel::FrameReader};

/// Connections that may wait to be taken by the host.
const LINK_CONNECTIONS: usize = 8;
/// Bytes on their way in each direction of a connection, as a socket's buffer has them.
const CONNECTION_BYTES: usize = 256 * 1024;
/// `ENOENT` of Linux.
const ENOENT: i32 = 2;

/// One simulated sandbox. It lives in its tasks until it is killed.
pub(super) struct Sandbox {
    pub(super) spec: SandboxSpec,
    options: Arc<FakeOptions>,
    epoch: [u8; 16],
    state: Mutex<State>,
    changed: watch::Sender<()>,
    lease_until: watch::Sender<Instant>,
    paused: watch::Sender<bool>,
    redial: watch::Sender<u64>,
    host: watch::Sender<Option<mpsc::Sender<Connection>>>,
    tasks: Mutex<Vec<AbortHandle>>,
    alive: AtomicBool,
}

struct State {
    executions: BTreeMap<ExecutionKey, Execution>,
    order: Vec<ExecutionKey>,
    files: Files,
}

pub(super) fn fault(kind: FaultKind, step: &str) -> Fault {
    Fault {
        kind,
        errno: 0,
        step: step.to_owned(),
    }
}

fn absolute(directory: &[u8], path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"/") {
        path.to_vec()
    } else {
        [directory, b"/", path].concat()
    }
}

impl Sandbox {
    /// Boots a sandbox whose supervisor dials at once.
    pub(super) fn boot(
        spec: SandboxSpec,
        options: Arc<FakeOptions>,
        epoch: [u8; 16],
    ) -> (Arc<Self>, Link) {
        let (sender, connections) = mpsc::channel(LINK_CONNECTIONS);
        let lease_until = Instant::now() + Duration::from_millis(u64::from(spec.lease_ms));
        let files = Files::new();
        let sandbox = Arc::new(Sandbox {
            spec,
            options,
            epoch,
            state: Mutex::new(State {
                executions: BTreeMap::new(),
                order: Vec::new(),
                files,
            }),
            changed: watch::Sender::new(()),
            lease_until: watch::Sender::new(lease_until),
            paused: watch::Sender::new(false),
            redial: watch::Sender::new(0),
            host: watch::Sender::new(Some(sender)),
            tasks: Mutex::new(Vec::new()),
            alive: AtomicBool::new(true),
        });
        let (keeper, dialler) = (Arc::clone(&sandbox), Arc::clone(&sandbox));
        sandbox.spawn(async move { keeper.keep_lease().await });
        if !sandbox.options.silent_supervisor && sandbox.broken() != Some(Break::NeverGreets) {
            sandbox.spawn(async move { dialler.dial_forever().await });
        }
        (sandbox, Link { connections })
    }

    /// The host listens again, at another socket.
    pub(super) fn listen(&self) -> Link {
        let (sender, connections) = mpsc::channel(LINK_CONNECTIONS);
        if self.broken() == Some(Break::ForgetsAtReconnect) {
            self.state().executions.clear();
        }
        self.host.send_replace(Some(sender));
        Link { connections }
    }

    /// Drops the control connection; the supervisor dials again at once.
    pub(super) fn disconnect(&self) {
        self.redial.send_modify(|count| *count += 1);
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// Ends it: every process, every connection.
    pub(super) fn kill(&self, close_link: bool) {
        self.alive
            .store(false, std::sync::atomic::Ordering::Relaxed);
        if close_link {
            self.host.send_replace(None);
        }
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(AbortHandle::abort);
    }

    pub(super) fn broken(&self) -> Option<Break> {
        self.options.broken
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn with_files<T>(&self, change: impl FnOnce(&mut Files) -> T) -> T {
        change(&mut self.state().files)
    }

    pub(super) fn file(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.with_files(|files| files.content(path))
    }

    pub(super) fn append_file(&self, directory: &[u8], path: &[u8], data: &[u8]) {
        let path = absolute(directory, path);
        self.with_files(|files| files.append(&path, data));
    }

    pub(super) fn empty_file(&self, directory: &[u8], path: &[u8]) {
        let path = absolute(directory, path);
        self.with_files(|files| {
            files.remove(&path);
            files.append(&path, b"");
        });
    }

    /// What a program may read now: empty when it must wait, `None` at the end.
    pub(super) fn take_input(&self, key: &ExecutionKey) -> Option<Vec<u8>> {
        let mut state = self.state();
        let execution = state.executions.get_mut(key)?;
        if execution.input.is_empty() && execution.input_closed {
            return None;
        }
        Some(execution.input.drain(..).collect())
    }

    pub(super) fn write_output(&self, key: &ExecutionKey, stream: Stream, data: &[u8]) -> usize {
        let mut state = self.state();
        let Some(execution) = state.executions.get_mut(key) else {
            return data.len();
        };
        let taken = execution.stream(stream).append(data);
        drop(state);
        if taken > 0 {
            self.changed.send_replace(());
        }
        taken
    }

    pub(super) fn finish(&self, key: ExecutionKey, ended: Ended, output_ends: bool) {
        if let Some(execution) = self.state().executions.get_mut(&key) {
            execution.finish(ended, output_ends);
        }
        self.changed.send_replace(());
    }

    /// Runs a task that ends with the sandbox.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|known| !known.is_finished());
        tasks.push(tokio::spawn(task).abort_handle());
    }

    /// A new connection to the host, if one listens.
    pub(super) async fn dial(&self) -> Option<Connection> {
        let host = self.host.borrow().clone()?;
        let (ours, theirs) = duplex(CONNECTION_BYTES);
        host.send(Box::new(theirs)).await.ok()?;
        Some(Box::new(ours))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep_lease(&self) {
        let mut lease = self.lease_until.subscribe();
        loop {
            let until = *lease.borrow_and_update();
            tokio::select! {
                () = sleep_until(until) => if self.broken() == Some(Break::IgnoresLease) {
                    return;
                } else {
                    break;
                },
                _ = lease.changed() => {}
            }
        }
        self.kill(true);
    }

    async fn dial_forever(self: Arc<Self>) {
        let mut host = self.host.subscribe();
        let mut redial = self.redial.subscribe();
        loop {
            host.borrow_and_update();
            redial.borrow_and_update();
            match self.dial().await {
                Some(connection) => {
                    tokio::select! {
                        _ = self.serve(connection) => {}
                        _ = redial.changed() => {}
                    }
                }
                None if host.changed().await.is_err() => return,
                None => {}
            }
        }
    }

    async fn serve(self: &Arc<Self>, connection: Connection) -> Option<()> {
        let (reader, mut writer) = split(connection);
        let mut reader = FrameReader::new(reader, MAX_TO_SUPERVISOR_BYTES);
        let attestation = honest::attestation(&self.spec, &self.options);
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            epoch: self.epoch,
            attestation,
        };
        writer
            .write_all(&encode(&ToHost::Hello(Box::new(hello)), MAX_TO_HOST_BYTES).ok()?)
            .await
            .ok()?;
        let ToSupervisor::Welcome(welcome) = reader.next().await.ok()? else {
            return None;
        };
        self.extend_lease(welcome.lease_ms);
        let mut answers = FuturesUnordered::new();
        let mut paused = self.paused.subscribe();
        loop {
            let frame = tokio::select! {
                biased;
                Some((id, result)) = answers.next() => {
                    let reply = encode(&ToHost::Reply { id, result }, MAX_TO_HOST_BYTES).ok()?;
                    paused.wait_for(|paused| !paused).await.ok()?;
                    writer.write_all(&reply).await.ok()?;
                    continue;
                }
                frame = reader.next() => frame.ok()?,
            };
            paused.wait_for(|paused| !paused).await.ok()?;
            let ToSupervisor::Request { id, request } = frame else {
                return None;
            };
            if let Request::Shutdown = request {
                if self.broken() != Some(Break::IgnoresShutdown) {
                    self.kill(true);
                }
            } else if !self.options.hanging_supervisor {
                let sandbox = Arc::clone(self);
                answers.push(Box::pin(async move { (id, sandbox.answer(request).await) }));
            }
        }
    }

    fn extend_lease(&self, lease_ms: u32) {
        self.lease_until
            .send_replace(Instant::now() + Duration::from_millis(u64::from(lease_ms)));
    }

    async fn answer(self: Arc<Self>, request: Request) -> Result<Reply, Fault> {
        match request {
            Request::RenewLease { lease_ms } => {
                if self.broken() != Some(Break::IgnoresRenewal) {
                    self.extend_lease(lease_ms);
                }
            }
            Request::Start(spec) => return self.start(*spec),
            Request::WriteStdin {
                execution,
                data,
                close,
            } => return self.write_stdin(execution, &data, close),
            Request::Signal { execution, signal } => {
                self.order(execution, Order::Signal(signal))?
            }
            Request::Resize { execution, .. } => self.resize(execution)?,
            Request::Cancel {
                execution,
                grace_ms,
            } => {
                self.order(
                    execution,
                    Order::Cancel(Duration::from_millis(u64::from(grace_ms))),
                )?;
            }
            Request::Read {
                execution,
                stream,
                offset,
                max_bytes,
                wait_ms,
            } => {
                let max_bytes = (max_bytes as usize).min(MAX_CHUNK_BYTES);
                return self
                    .read(execution, stream, offset, max_bytes, wait_ms)
                    .await;
            }
            Request::Wait { execution, wait_ms } => return self.wait(execution, wait_ms).await,
            Request::List => return Ok(Reply::Executions(self.list())),
            Request::Forget { execution } => self.forget(execution)?,
            Request::OpenTransfer(spec) => transfer::open(&self, spec).await?,
            Request::Shutdown => {}
        }
        Ok(Reply::Done)
    }

    fn start(self: &Arc<Self>, mut spec: StartSpec) -> Result<Reply, Fault> {
        if spec.argv.is_empty() {
            return Err(fault(FaultKind::Invalid, "read the arguments"));
        }
        if self.broken() == Some(Break::SplitsArguments) && spec.argv[0] == b"printf" {
            spec.argv = spec
                .argv
                .join(&b' ')
                .split(|byte| *byte == b' ')
                .map(<[u8]>::to_vec)
                .collect();
        }
        let mut state = self.state();
        if let Some(known) = state.executions.get(&spec.execution)
            && self.broken() != Some(Break::StartsAgain)
        {
            return Ok(Reply::Status(known.status()));
        }
        if !state.files.is_directory(&spec.cwd) && self.broken() != Some(Break::IgnoresDirectory) {
            return Err(fault(FaultKind::BadCwd, "enter the working directory"));
        }
        let program = match script::parse(&spec.argv) {
            Some(program) => program,
            None if self.broken() == Some(Break::RunsAnything) => script::Program::Exit(127),
            None => {
                return Err(Fault {
                    errno: ENOENT,
                    ..fault(FaultKind::CannotExecute, "execute the program")
                });
            }
        };
        state.make_room()?;
        let (orders, receiver) = mpsc::channel(MAX_ORDERS);
        let mut execution = Execution::new(&spec, orders, self.broken());
        if let Some(earlier) = state.executions.remove(&spec.execution) {
            execution.stdout = earlier.stdout;
        }
        let status = execution.status();
        state.order.push(spec.execution);
        state.executions.insert(spec.execution, execution);
        drop(state);
        let process = Process {
            sandbox: Arc::clone(self),
            spec: Arc::new(spec),
            stubborn: Arc::new(AtomicBool::new(false)),
            others: Arc::new(AtomicU32::new(0)),
        };
        self.spawn(process.play(program, receiver));
        Ok(Reply::Status(status))
    }

    fn write_stdin(&self, key: ExecutionKey, data: &[u8], close: bool) -> Result<Reply, Fault> {
        let mut state = self.state();
        let execution = state.running(key)?;
        if execution.input_closed {
            return Err(fault(FaultKind::StdinClosed, "write to standard input"));
        }
        let accepted = match self.broken() {
            Some(Break::DropsInput) => execution.feed(&[], close).max(data.len()),
            _ => execution.feed(data, close),
        };
        drop(state);
        self.changed.send_replace(());
        Ok(Reply::Accepted(u32::try_from(accepted).unwrap_or(u32::MAX)))
    }

    fn order(&self, key: ExecutionKey, order: Order) -> Result<(), Fault> {
        let orders = self.state().running(key)?.orders.clone();
        // A program that has just ended takes no more orders.
        let _ = orders.try_send(order);
        Ok(())
    }

    fn resize(&self, key: ExecutionKey) -> Result<(), Fault> {
        match self.state().running(key)?.has_terminal {
            true => Ok(()),
            false => Err(fault(FaultKind::NoTerminal, "resize the terminal")),
        }
    }

    async fn read(
        &self,
        key: ExecutionKey,
        stream: Stream,
        offset: u64,
        max_bytes: usize,
        wait_ms: u32,
    ) -> Result<Reply, Fault> {
        self.state()
            .known(key)?
            .stream(stream)
            .acknowledge_if_lossless(offset);
        self.changed.send_replace(());
        let wait_ms = if self.broken() == Some(Break::ReadNeverWaits) {
            0
        } else {
            wait_ms
        };
        self.until(wait_ms, || {
            Ok(self.state().known(key)?.stream(stream).has(offset))
        })
        .await?;
        let chunk = self
            .state()
            .known(key)?
            .stream(stream)
            .read(offset, max_bytes);
        Ok(Reply::Output(chunk))
    }

    async fn wait(&self, key: ExecutionKey, wait_ms: u32) -> Result<Reply, Fault> {
        let wait_ms = if self.broken() == Some(Break::WaitNeverWaits) {
            0
        } else {
            wait_ms
        };
        self.until(wait_ms, || Ok(self.state().known(key)?.ended.is_some()))
            .await?;
        let status = self.state().known(key)?.status();
        Ok(Reply::Status(status))
    }

    /// Waits until it holds, or the time is over.
    async fn until(
        &self,
        wait_ms: u32,
        holds: impl Fn() -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let over = Instant::now() + Duration::from_millis(u64::from(wait_ms.min(MAX_WAIT_MS)));
        let mut changes = self.changes();
        while !holds()? {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { break },
                () = sleep_until(over) => break,
            }
        }
        Ok(())
    }

    fn list(&self) -> Vec<wire::ExecutionStatus> {
        self.state()
            .executions
            .values()
            .map(Execution::status)
            .collect()
    }

    fn forget(&self, key: ExecutionKey) -> Result<(), Fault> {
        let mut state = self.state();
        if state.known(key)?.ended.is_none() {
            return Err(fault(FaultKind::Invalid, "forget a running execution"));
        }
        if self.broken() != Some(Break::NeverForgets) {
            state.executions.remove(&key);
            state.order.retain(|known| *known != key);
        }
        Ok(())
    }
}

impl State {
    fn known(&mut self, key: ExecutionKey) -> Result<&mut Execution, Fault> {
        self.executions
            .get_mut(&key)
            .ok_or_else(|| fault(FaultKind::UnknownExecution, "find the execution"))
    }

    fn running(&mut self, key: ExecutionKey) -> Result<&mut Execution, Fault> {
        let execution = self.known(key)?;
        match execution.ended {
            None => Ok(execution),
            Some(_) => Err(fault(FaultKind::Ended, "find it running")),
        }
    }

    /// The oldest ended execution makes place.
    fn make_room(&mut self) -> Result<(), Fault> {
        if self.executions.len() < MAX_EXECUTIONS {
            return Ok(());
        }
        let has_ended = |key: &ExecutionKey| {
            self.executions
                .get(key)
                .is_none_or(|known| known.ended.is_some())
        };
        let oldest = self.order.iter().position(has_ended);
        let oldest =
            oldest.ok_or_else(|| fault(FaultKind::TooMany, "remember another execution"))?;
        let key = self.order.remove(oldest);
        self.executions.remove(&key);
        Ok(())
    }
}
