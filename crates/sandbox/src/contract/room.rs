//! A sandbox for one line of the contract: made, driven, and removed again whatever the line finds.

use std::{error::Error, future::Future, sync::Arc, time::Duration};

use model::{SandboxSpec, SessionId};
use wire::{
    ExecutionKey, ExecutionStatus, Fault, FaultKind, Hello, OutputMode, StartSpec, Stdin, Stream,
};

use super::{Harness, Verdict, within};
use crate::{Backend, Supervisor, SupervisorError};

/// Longest time that a line may use its sandbox; less than the whole line's, so that there is time to clean up.
const USE_TIMEOUT: Duration = Duration::from_secs(40);
/// Time for a supervisor to greet.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// Lease of a sandbox whose line is not about leases.
pub(super) const LEASE: Duration = Duration::from_secs(120);
/// What short programs may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// Output kept of each stream unless the line is about that.
const KEEP_BYTES: u64 = 1024 * 1024;
/// Search path of every program.
pub(super) const PATH: &str = "PATH=/usr/local/bin:/usr/bin:/bin";

/// What a line finds.
pub(super) type Found = Result<(), String>;

/// A running sandbox and its client.
#[derive(Clone)]
pub(super) struct Room {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) harness: Arc<dyn Harness>,
    pub(super) spec: SandboxSpec,
    pub(super) supervisor: Supervisor,
    pub(super) hello: Hello,
}

/// What a program left.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) status: ExecutionStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// Says in one sentence what failed and why, causes included.
pub(super) fn during<E: Error>(what: &str) -> impl Fn(E) -> String {
    move |error| {
        let mut text = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}

/// Fails with `found` unless it holds.
pub(super) fn expect(holds: bool, found: impl FnOnce() -> String) -> Found {
    if holds { Ok(()) } else { Err(found()) }
}

/// The request must be refused with that kind of fault.
pub(super) fn expect_fault<T>(
    result: Result<T, SupervisorError>,
    kind: FaultKind,
) -> Result<Fault, String> {
    match result {
        Err(SupervisorError::Fault(fault)) if fault.kind == kind => Ok(fault),
        Err(other) => Err(during(&format!("{kind:?} was due"))(other)),
        Ok(_) => Err(format!("it succeeded, though {kind:?} was due")),
    }
}

/// A new random key.
pub(super) fn new_key() -> Result<ExecutionKey, String> {
    Ok(*new_session()?.as_bytes())
}

/// A session that nobody knows.
pub(super) fn new_session() -> Result<SessionId, String> {
    SessionId::random().map_err(|error| format!("no random bytes: {error}"))
}

/// Attaches to the sandbox of a link.
pub(super) async fn attach(
    link: crate::Link,
    lease: Duration,
) -> Result<(Supervisor, Hello), String> {
    Supervisor::attach(link, lease, GREETING_TIMEOUT)
        .await
        .map_err(during("attaching"))
}

/// Gives the check a spec whose sandbox is destroyed afterwards.
pub(super) async fn in_session<F, Use>(
    harness: Arc<dyn Harness>,
    check: F,
) -> Result<Verdict, String>
where
    F: FnOnce(Arc<dyn Backend>, SandboxSpec) -> Use,
    Use: Future<Output = Result<Verdict, String>>,
{
    let (backend, spec) = (harness.backend(), harness.spec());
    let session = spec.session;
    let found = within(USE_TIMEOUT, check(Arc::clone(&backend), spec)).await;
    let destroyed = backend.destroy(session).await.map_err(during("destroying"));
    let verdict = found?;
    destroyed.map(|()| verdict)
}

/// Gives the check a running sandbox, which is destroyed afterwards.
pub(super) async fn in_room<F, Use, Kept>(
    harness: Arc<dyn Harness>,
    check: F,
) -> Result<Verdict, String>
where
    F: FnOnce(Room) -> Use,
    Use: Future<Output = Result<Kept, String>>,
    Kept: Into<Verdict>,
{
    let owner = Arc::clone(&harness);
    in_session(harness, |backend, spec| async move {
        let link = backend.create(&spec).await.map_err(during("creating"))?;
        let (supervisor, hello) = attach(link, LEASE).await?;
        let room = Room {
            backend,
            harness: owner,
            spec,
            supervisor,
            hello,
        };
        check(room).await.map(Into::into)
    })
    .await
}

impl From<()> for Verdict {
    fn from((): ()) -> Self {
        Verdict::Kept
    }
}

/// The start of a program that keeps all that these tests write.
pub(super) fn command<A: AsRef<[u8]>>(argv: &[A]) -> Result<StartSpec, String> {
    Ok(StartSpec {
        execution: new_key()?,
        argv: argv
            .iter()
            .map(|argument| argument.as_ref().to_vec())
            .collect(),
        cwd: b"/tmp".to_vec(),
        env: vec![PATH.as_bytes().to_vec()],
        stdin: Stdin::Null,
        terminal: None,
        deadline_ms: None,
        grace_ms: 0,
        output: OutputMode::DropOldest {
            keep_bytes: KEEP_BYTES,
        },
    })
}

/// The start of a script.
pub(super) fn script(text: &str) -> Result<StartSpec, String> {
    command(&["/bin/sh", "-c", text])
}

impl Room {
    pub(super) async fn start(&self, spec: StartSpec) -> Result<ExecutionStatus, String> {
        self.supervisor
            .start(spec)
            .await
            .map_err(during("starting"))
    }

    /// Runs a program to its end and takes all that is kept of its output.
    pub(super) async fn run(&self, spec: StartSpec) -> Result<Ran, String> {
        let key = spec.execution;
        self.start(spec).await?;
        let status = self.end_of(key, PATIENCE).await?;
        let stdout = self.all_of(key, Stream::Stdout).await?;
        let stderr = self.all_of(key, Stream::Stderr).await?;
        Ok(Ran {
            status,
            stdout,
            stderr,
        })
    }

    pub(super) async fn wait(
        &self,
        key: ExecutionKey,
        wait: Duration,
    ) -> Result<ExecutionStatus, String> {
        self.supervisor
            .wait(key, wait)
            .await
            .map_err(during("waiting"))
    }

    /// The status at the end, which must come in time and end the output too.
    pub(super) async fn end_of(
        &self,
        key: ExecutionKey,
        wait: Duration,
    ) -> Result<ExecutionStatus, String> {
        let status = self.wait(key, wait).await?;
        expect(status.ended.is_some(), || {
            format!("it still ran after {wait:?}")
        })?;
        expect(status.stdout.ended && status.stderr.ended, || {
            "it ended, but something holds its output open".to_owned()
        })?;
        Ok(status)
    }

    /// Reads from the first byte that is kept to the end of the stream.
    pub(super) async fn all_of(
        &self,
        key: ExecutionKey,
        stream: Stream,
    ) -> Result<Vec<u8>, String> {
        read_all(&self.supervisor, key, stream).await
    }

    /// Waits until a program has written that much.
    pub(super) async fn written(&self, key: ExecutionKey, text: &str) -> Found {
        let chunk = self
            .supervisor
            .read(key, Stream::Stdout, 0, 1024, PATIENCE)
            .await
            .map_err(during("reading"))?;
        expect(chunk.data.starts_with(text.as_bytes()), || {
            format!(
                "{text:?} was due, {:?} came",
                String::from_utf8_lossy(&chunk.data)
            )
        })
    }
}

pub(super) async fn read_all(
    supervisor: &Supervisor,
    key: ExecutionKey,
    stream: Stream,
) -> Result<Vec<u8>, String> {
    let (mut all, mut offset) = (Vec::new(), 0);
    loop {
        let chunk = supervisor
            .read(key, stream, offset, 100_000, PATIENCE)
            .await
            .map_err(during("reading"))?;
        offset = chunk.offset + chunk.data.len() as u64;
        all.extend(&chunk.data);
        if chunk.status.ended && offset >= chunk.status.total_bytes {
            return Ok(all);
        }
        expect(!chunk.data.is_empty(), || {
            format!("no output came within {PATIENCE:?}")
        })?;
    }
}
