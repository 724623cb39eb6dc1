//! A simulated sandbox: its pid 1, its executions and files.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::stream::{FuturesUnordered, StreamExt};
use model::{CERTIFICATES_DIRECTORY, SandboxSpec};
use tokio::{
    io::{AsyncWriteExt, duplex, split},
    runtime::Handle,
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep_until},
};
use wire::{
    Ended, ExecutionKey, Fault, FaultKind, Hello, MAX_EXECUTIONS, MAX_TO_HOST_BYTES,
    MAX_TO_SUPERVISOR_BYTES, PROTOCOL_VERSION, Request, Stream, ToHost, ToSupervisor, encode,
};

use super::{Break, FakeOptions, execution::Execution, files::Files, honest, script::Transport};
use crate::{Connection, Link, supervisor::channel::FrameReader};

/// Connections that may wait to be taken by the host.
const LINK_CONNECTIONS: usize = 8;
/// Bytes on their way in each direction of a connection, as a socket's buffer has them.
const CONNECTION_BYTES: usize = 256 * 1024;

/// One simulated sandbox. It lives in its tasks until it is killed.
pub(super) struct Sandbox {
    pub(super) spec: SandboxSpec,
    options: Arc<FakeOptions>,
    epoch: [u8; 16],
    state: Mutex<State>,
    pub(super) changed: watch::Sender<()>,
    lease_until: watch::Sender<Instant>,
    paused: watch::Sender<bool>,
    redial: watch::Sender<u64>,
    host: watch::Sender<Option<mpsc::Sender<Connection>>>,
    runtime: Handle,
    tasks: Mutex<Vec<AbortHandle>>,
    alive: AtomicBool,
}

/// What its executions and files are.
pub(super) struct State {
    pub(super) executions: BTreeMap<ExecutionKey, Execution>,
    pub(super) order: Vec<ExecutionKey>,
    pub(super) files: Files,
    pub(super) environment: Vec<Vec<u8>>,
    pub(super) relays: BTreeSet<(Transport, u16)>,
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
        runtime: Handle,
    ) -> (Arc<Self>, Link) {
        let (sender, connections) = mpsc::channel(LINK_CONNECTIONS);
        let lease_until = Instant::now() + Duration::from_millis(u64::from(spec.lease_ms));
        let files = Files::of(&spec, options.broken);
        let sandbox = Arc::new(Sandbox {
            spec,
            options,
            epoch,
            state: Mutex::new(State {
                executions: BTreeMap::new(),
                order: Vec::new(),
                files,
                environment: Vec::new(),
                relays: BTreeSet::new(),
            }),
            changed: watch::Sender::new(()),
            lease_until: watch::Sender::new(lease_until),
            paused: watch::Sender::new(false),
            redial: watch::Sender::new(0),
            host: watch::Sender::new(Some(sender)),
            runtime,
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
        self.alive.load(Ordering::Relaxed)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// Ends it: every process, every connection.
    pub(super) fn kill(&self, close_link: bool) {
        self.alive.store(false, Ordering::Relaxed);
        if close_link {
            self.host.send_replace(None);
        }
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(AbortHandle::abort);
    }

    pub(super) fn broken(&self) -> Option<Break> {
        self.options.broken
    }

    pub(super) fn has_claude_code(&self) -> bool {
        self.options.has_claude_code
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

    /// False where the agent writes nothing.
    pub(super) fn empty_file(&self, directory: &[u8], path: &[u8]) -> bool {
        let path = absolute(directory, path);
        if !self.may_write(&path) {
            return false;
        }
        self.with_files(|files| {
            files.remove(&path);
            files.append(&path, b"");
        });
        true
    }

    fn may_write(&self, path: &[u8]) -> bool {
        let own = CERTIFICATES_DIRECTORY.as_bytes();
        match self.broken() {
            Some(Break::LetsTheResolverBeChanged) if path == b"/etc/resolv.conf" => true,
            Some(Break::LetsCertificatesBeReplaced) if path.starts_with(own) => true,
            Some(_) | None => !path.starts_with(b"/etc/"),
        }
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
        tasks.push(self.runtime.spawn(task).abort_handle());
    }

    /// A new connection to the host, if one listens.
    pub(super) async fn dial(&self) -> Option<Connection> {
        let host = self.host.borrow().clone()?;
        let (ours, theirs) = duplex(CONNECTION_BYTES);
        host.send(Box::new(theirs)).await.ok()?;
        Some(Box::new(ours))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
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

    pub(super) fn extend_lease(&self, lease_ms: u32) {
        self.lease_until
            .send_replace(Instant::now() + Duration::from_millis(u64::from(lease_ms)));
    }
}

impl State {
    pub(super) fn known(&mut self, key: ExecutionKey) -> Result<&mut Execution, Fault> {
        self.executions
            .get_mut(&key)
            .ok_or_else(|| fault(FaultKind::UnknownExecution, "find the execution"))
    }

    pub(super) fn running(&mut self, key: ExecutionKey) -> Result<&mut Execution, Fault> {
        let execution = self.known(key)?;
        match execution.ended {
            None => Ok(execution),
            Some(_) => Err(fault(FaultKind::Ended, "find it running")),
        }
    }

    /// The oldest ended execution makes place.
    pub(super) fn make_room(&mut self) -> Result<(), Fault> {
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
