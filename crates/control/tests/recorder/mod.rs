//! A backend between the server and another one, and a tap on every connection of a sandbox: each call is noted with how long the
//! audit log was before it left and after its answer came.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use model::{BackendName, SandboxSpec, SessionId, UsageView};
use sandbox::{
    Backend, BackendError, Capability, Connection, Inspection, Link, Listed,
    wire::{Decoder, MAX_TO_HOST_BYTES, MAX_TO_SUPERVISOR_BYTES, Request, ToHost, ToSupervisor},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};

use crate::operations::{Effect, EngineCall, execution_of, of_request};

/// Connections that may wait to be taken by the server, as a backend's own link has them.
const LINK_CONNECTIONS: usize = 8;

/// All calls that were made, in order. Clones are the same tape.
#[derive(Clone)]
pub struct Tape(Arc<Recording>);

struct Recording {
    log: PathBuf,
    calls: Mutex<Vec<EngineCall>>,
    /// What the transfers of a session that are open do.
    transfers: Mutex<BTreeMap<(SessionId, u64), Effect>>,
}

impl Tape {
    pub fn beside(log: PathBuf) -> Self {
        Tape(Arc::new(Recording {
            log,
            calls: Mutex::default(),
            transfers: Mutex::default(),
        }))
    }

    /// How long the log is now. It is only ever appended to.
    pub fn position(&self) -> u64 {
        std::fs::metadata(&self.0.log).map_or(0, |found| found.len())
    }

    pub fn calls(&self) -> Vec<EngineCall> {
        self.0.calls.lock().expect("no panic").clone()
    }

    /// Whether such a call was begun, from the `from`th one on.
    pub fn heard(&self, name: &str, from: usize) -> bool {
        self.calls()[from..].iter().any(|call| call.name == name)
    }

    fn begin(&self, name: &str, effect: Effect, session: Option<SessionId>, begun: u64) -> usize {
        self.push(EngineCall {
            name: name.to_owned(),
            effect,
            session,
            execution: None,
            begun,
            ended: None,
        })
    }

    fn push(&self, call: EngineCall) -> usize {
        let mut calls = self.0.calls.lock().expect("no panic");
        calls.push(call);
        calls.len() - 1
    }

    fn end(&self, call: usize) {
        let ended = self.position();
        self.0.calls.lock().expect("no panic")[call].ended = Some(ended);
    }

    async fn verb<T>(
        &self,
        name: &str,
        effect: Effect,
        session: Option<SessionId>,
        verb: impl Future<Output = T>,
    ) -> T {
        let call = self.begin(name, effect, session, self.position());
        let answer = verb.await;
        self.end(call);
        answer
    }
}

/// See the module.
pub struct Recorder<B> {
    pub backend: B,
    pub tape: Tape,
}

impl<B> Recorder<B> {
    /// The link of that session, with every connection tapped.
    fn tapped(&self, session: SessionId, mut link: Link) -> Link {
        let (sender, connections) = mpsc::channel::<Connection>(LINK_CONNECTIONS);
        let tape = self.tape.clone();
        tokio::spawn(async move {
            loop {
                let connection = tokio::select! {
                    connection = link.connections.recv() => connection,
                    // Nobody listens any more, so the backend's own link ends, too.
                    () = sender.closed() => return,
                };
                let Some(connection) = connection else { return };
                let tapped = Tapped::new(connection, session, tape.clone());
                if sender.send(Box::new(tapped)).await.is_err() {
                    return;
                }
            }
        });
        Link { connections }
    }
}

#[async_trait]
impl<B: Backend> Backend for Recorder<B> {
    fn name(&self) -> BackendName {
        self.backend.name()
    }

    async fn capability(&self) -> Result<Capability, BackendError> {
        let asked = self.backend.capability();
        self.tape
            .verb("capability", Effect::Observes, None, asked)
            .await
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<Link, BackendError> {
        let session = spec.session;
        let made = self.backend.create(spec);
        let made = self
            .tape
            .verb("create", Effect::Changes, Some(session), made);
        Ok(self.tapped(session, made.await?))
    }

    async fn connect(&self, session: SessionId) -> Result<Link, BackendError> {
        let made = self.backend.connect(session);
        let made = self
            .tape
            .verb("connect", Effect::Changes, Some(session), made);
        Ok(self.tapped(session, made.await?))
    }

    async fn inspect(&self, session: SessionId) -> Result<Inspection, BackendError> {
        let asked = self.backend.inspect(session);
        self.tape
            .verb("inspect", Effect::Observes, Some(session), asked)
            .await
    }

    async fn list(&self) -> Result<Vec<Listed>, BackendError> {
        let asked = self.backend.list();
        self.tape.verb("list", Effect::Observes, None, asked).await
    }

    async fn stats(&self, session: SessionId) -> Result<UsageView, BackendError> {
        let asked = self.backend.stats(session);
        self.tape
            .verb("stats", Effect::Observes, Some(session), asked)
            .await
    }

    async fn pause(&self, session: SessionId) -> Result<(), BackendError> {
        let told = self.backend.pause(session);
        self.tape
            .verb("pause", Effect::Changes, Some(session), told)
            .await
    }

    async fn resume(&self, session: SessionId) -> Result<(), BackendError> {
        let told = self.backend.resume(session);
        self.tape
            .verb("resume", Effect::Changes, Some(session), told)
            .await
    }

    async fn destroy(&self, session: SessionId) -> Result<(), BackendError> {
        let told = self.backend.destroy(session);
        self.tape
            .verb("destroy", Effect::Changes, Some(session), told)
            .await
    }
}

/// What a connection turned out to carry.
enum Carries {
    /// Its first frame has not come.
    Unknown,
    /// Requests and their answers.
    Requests(BTreeMap<u64, usize>),
    /// The content of a transfer, which is one call from its first byte to its last.
    Content(usize),
    /// What goes from inside to the network: each destination has a decision on the log of its own.
    Traffic,
}

/// One connection of a sandbox. Its two directions are driven by one task or two, which tokio's halves keep apart.
struct Tapped {
    connection: Connection,
    session: SessionId,
    tape: Tape,
    carries: Carries,
    to_host: Decoder,
    to_supervisor: Decoder,
    /// How long the log was before the first byte of the frame that is being written.
    frame_begun: Option<u64>,
}

impl Tapped {
    fn new(connection: Connection, session: SessionId, tape: Tape) -> Self {
        Tapped {
            connection,
            session,
            tape,
            carries: Carries::Unknown,
            to_host: Decoder::new(MAX_TO_HOST_BYTES),
            to_supervisor: Decoder::new(MAX_TO_SUPERVISOR_BYTES),
            frame_begun: None,
        }
    }

    fn heard(&mut self, bytes: &[u8]) {
        match self.carries {
            Carries::Traffic => return,
            Carries::Content(call) => return self.tape.end(call),
            Carries::Unknown | Carries::Requests(_) => self.to_host.push(bytes),
        }
        while let Ok(Some(frame)) = self.to_host.next::<ToHost>() {
            match (frame, &mut self.carries) {
                (ToHost::Hello(_), carries) => *carries = Carries::Requests(BTreeMap::new()),
                (ToHost::RelayHello { .. }, carries) => {
                    *carries = Carries::Traffic;
                    return;
                }
                (ToHost::TransferHello { transfer }, carries) => {
                    let transfers = self.tape.0.transfers.lock().expect("no panic");
                    let effect = transfers.get(&(self.session, transfer)).copied();
                    drop(transfers);
                    let effect = effect.expect("a transfer that was asked for");
                    let begun = self.tape.position();
                    let call = self
                        .tape
                        .begin("content", effect, Some(self.session), begun);
                    self.tape.end(call);
                    *carries = Carries::Content(call);
                    return;
                }
                (ToHost::Reply { id, .. }, Carries::Requests(open)) => {
                    if let Some(call) = open.remove(&id) {
                        self.tape.end(call);
                    }
                }
                (ToHost::Reply { .. } | ToHost::Transfer(_), _) => {}
            }
        }
    }

    fn said(&mut self, bytes: &[u8], begun: u64) {
        match self.carries {
            Carries::Traffic => return,
            Carries::Content(call) => return self.tape.end(call),
            Carries::Unknown | Carries::Requests(_) => self.to_supervisor.push(bytes),
        }
        let begun = self.frame_begun.take().unwrap_or(begun);
        while let Ok(Some(frame)) = self.to_supervisor.next::<ToSupervisor>() {
            let session = Some(self.session);
            match frame {
                ToSupervisor::Welcome(_) => {
                    let call = self.tape.begin("Welcome", Effect::Changes, session, begun);
                    self.tape.end(call);
                }
                ToSupervisor::Request { id, request } => {
                    let (name, effect) = of_request(&request);
                    if let Request::OpenTransfer(spec) = &request {
                        let mut transfers = self.tape.0.transfers.lock().expect("no panic");
                        transfers.insert((self.session, spec.transfer), effect);
                    }
                    let call = self.tape.push(EngineCall {
                        name: name.to_owned(),
                        effect,
                        session,
                        execution: execution_of(&request),
                        begun,
                        ended: None,
                    });
                    if let Carries::Requests(open) = &mut self.carries {
                        open.insert(id, call);
                    }
                }
                ToSupervisor::Transfer(_) => {}
            }
        }
        if self.to_supervisor.pending() > 0 {
            self.frame_begun = Some(begun);
        }
    }
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.connection).poll_read(context, buffer));
        let bytes = &buffer.filled()[before..];
        if !bytes.is_empty() {
            self.heard(bytes);
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Before the first byte leaves.
        let begun = self.tape.position();
        let written = ready!(Pin::new(&mut self.connection).poll_write(context, bytes));
        if let Ok(count) = &written {
            self.said(&bytes[..*count], begun);
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

/// A request that was open when its connection ended has no answer any more.
impl Drop for Tapped {
    fn drop(&mut self) {
        if let Carries::Requests(open) = &self.carries {
            open.values().for_each(|call| self.tape.end(*call));
        }
    }
}
