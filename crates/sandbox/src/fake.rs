//! A test double of a backend, in process: real wire frames over in-memory connections, simulated programs and files.
//! It isolates nothing and must never be selectable in a production configuration; it is public because the tests of
//! other crates build on it.
//!
//! The programs that it knows: `true`, `false`, `echo`, `printf` (`%s`, `\n`), `cat` (input or one file), `sleep`,
//! `head -c N /dev/zero`, `seq A B`, `yes`, `pwd`, `env`, and `sh -c` with `;`, `&`, `>&2`, `> FILE`, `exec`, `exit N`
//! and `trap '' TERM`; and `claude`, where it is told to have it. Everything else cannot be executed (`ENOENT`).

mod broken;
mod execution;
mod files;
mod honest;
mod output;
mod requests;
mod sandbox;
mod script;
mod transfer;

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use model::{
    BackendName, Enforcement, Layer, LimitName, ProtectedPath, Protection, SandboxSpec, SessionId,
    UsageView,
};

pub use broken::Break;
use sandbox::Sandbox;
use tokio::runtime::Handle;

use crate::{Backend, BackendError, Capability, Inspection, Link, Listed};

/// The verbs of [`Backend`] that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// [`Backend::capability`].
    Capability,
    /// [`Backend::create`].
    Create,
    /// [`Backend::connect`].
    Connect,
    /// [`Backend::inspect`].
    Inspect,
    /// [`Backend::list`].
    List,
    /// [`Backend::stats`].
    Stats,
    /// [`Backend::pause`].
    Pause,
    /// [`Backend::resume`].
    Resume,
    /// [`Backend::destroy`].
    Destroy,
}

/// How a [`Fake`] differs from an honest, fully capable backend.
#[derive(Debug, Clone, Default)]
pub struct FakeOptions {
    /// Limits that this "machine" enforces less than hard.
    pub enforcement: Vec<(LimitName, Enforcement)>,
    /// Layers that turn out to be absent although the spec asks for them.
    pub absent_layers: Vec<Layer>,
    /// Limits that are in force with this value instead of the one asked.
    pub weakened_limits: Vec<(LimitName, u64)>,
    /// Protected paths that are gone whenever a sandbox is made.
    pub gone_paths: Vec<PathBuf>,
    /// The supervisor dials and greets, then never answers anything.
    pub hanging_supervisor: bool,
    /// The supervisor never dials.
    pub silent_supervisor: bool,
    /// Claude Code is there. It takes each message and answers it at once or, to `wait for FILE`, when there is that file.
    pub has_claude_code: bool,
    /// The contract is broken in this way.
    pub broken: Option<Break>,
}

/// The in-process backend. Clones share their sandboxes.
#[derive(Clone)]
pub struct Fake {
    inner: Arc<Inner>,
}

type MakeError = Box<dyn Fn() -> BackendError + Send + Sync>;

struct Inner {
    options: Arc<FakeOptions>,
    next_epoch: AtomicU64,
    /// Where it was made, if that was in one: sandboxes outlive the runtime of who has them made.
    runtime: Option<Handle>,
    failures: Mutex<BTreeMap<Verb, MakeError>>,
    sandboxes: Mutex<BTreeMap<SessionId, Arc<Sandbox>>>,
    /// What a broken fake forgot to take down.
    leaked: Mutex<Vec<Arc<Sandbox>>>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fake")
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fake {
    /// An honest, fully capable fake.
    pub fn new() -> Self {
        Self::with_options(FakeOptions::default())
    }

    /// A fake that differs as told.
    pub fn with_options(options: FakeOptions) -> Self {
        Fake {
            inner: Arc::new(Inner {
                options: Arc::new(options),
                next_epoch: AtomicU64::new(1),
                runtime: Handle::try_current().ok(),
                failures: Mutex::default(),
                sandboxes: Mutex::default(),
                leaked: Mutex::default(),
            }),
        }
    }

    /// From now on that verb fails with what `error` makes, before it does anything.
    pub fn fail(&self, verb: Verb, error: impl Fn() -> BackendError + Send + Sync + 'static) {
        lock(&self.inner.failures).insert(verb, Box::new(error));
    }

    /// The verb works again.
    pub fn heal(&self, verb: Verb) {
        lock(&self.inner.failures).remove(&verb);
    }

    /// The sandbox's pid 1 dies, as if the kernel had killed it. Its remains stay listed until destroyed.
    pub fn kill(&self, session: SessionId) {
        if let Some(sandbox) = self.known(session) {
            sandbox.kill(true);
        }
    }

    /// Drops the supervisor's connection; it dials again at once.
    pub fn disconnect(&self, session: SessionId) {
        if let Some(sandbox) = self.known(session) {
            sandbox.disconnect();
        }
    }

    /// Content of a regular file inside.
    pub fn file(&self, session: SessionId, path: &str) -> Option<Vec<u8>> {
        self.known(session)?.file(path.as_bytes())
    }

    /// Puts a regular file inside, with its parent directories.
    pub fn put_file(&self, session: SessionId, path: &str, content: &[u8]) {
        if let Some(sandbox) = self.known(session) {
            sandbox.with_files(|files| {
                files.remove(path.as_bytes());
                files.append(path.as_bytes(), content);
            });
            sandbox.changed.send_replace(());
        }
    }

    fn known(&self, session: SessionId) -> Option<Arc<Sandbox>> {
        lock(&self.inner.sandboxes).get(&session).cloned()
    }

    fn running(&self, session: SessionId) -> Result<Arc<Sandbox>, BackendError> {
        self.known(session)
            .filter(|sandbox| sandbox.is_alive())
            .ok_or(BackendError::NotFound)
    }

    fn broken(&self) -> Option<Break> {
        self.inner.options.broken
    }

    fn may(&self, verb: Verb) -> Result<(), BackendError> {
        match lock(&self.inner.failures).get(&verb) {
            Some(error) => Err(error()),
            None => Ok(()),
        }
    }

    fn refuse_unenforceable(&self, spec: &SandboxSpec) -> Result<(), BackendError> {
        let unenforceable = |limit: &LimitName| match self.inner.options.enforcement(*limit) {
            Enforcement::Hard => false,
            Enforcement::Soft => spec.limits.get(*limit).named && !spec.accept_soft_limits,
            Enforcement::None => spec.limits.get(*limit).named,
        };
        match LimitName::ALL.into_iter().find(unenforceable) {
            Some(limit) if self.broken() != Some(Break::AcceptsWhatItCannotEnforce) => {
                Err(BackendError::LimitUnenforceable {
                    limit,
                    why: "this fake was told so".to_owned(),
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn refuse_gone(&self, spec: &SandboxSpec) -> Result<(), BackendError> {
        let gone = |path: &&ProtectedPath| {
            path.protection == Protection::ReadOnly
                && self.inner.options.gone_paths.contains(&path.relative)
        };
        let gone = spec.protected.iter().filter(gone);
        let paths: Vec<PathBuf> = gone.map(|path| path.relative.clone()).collect();
        if paths.is_empty() {
            return Ok(());
        }
        Err(BackendError::ProtectedGone { paths })
    }

    fn epoch(&self, session: SessionId) -> [u8; 16] {
        let number = self.inner.next_epoch.fetch_add(1, Ordering::Relaxed);
        (u128::from_le_bytes(*session.as_bytes()) ^ u128::from(number)).to_le_bytes()
    }
}

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Backend for Fake {
    fn name(&self) -> BackendName {
        BackendName::Fake
    }

    async fn capability(&self) -> Result<Capability, BackendError> {
        self.may(Verb::Capability)?;
        Ok(honest::capability(&self.inner.options))
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<Link, BackendError> {
        self.may(Verb::Create)?;
        self.refuse_unenforceable(spec)?;
        self.refuse_gone(spec)?;
        let mut sandboxes = lock(&self.inner.sandboxes);
        if sandboxes.contains_key(&spec.session) && self.broken() != Some(Break::CreatesTwice) {
            return Err(BackendError::AlreadyExists);
        }
        let options = Arc::clone(&self.inner.options);
        let runtime = self.inner.runtime.clone().unwrap_or_else(Handle::current);
        let epoch = self.epoch(spec.session);
        let (sandbox, link) = Sandbox::boot(spec.clone(), options, epoch, runtime);
        sandboxes.insert(spec.session, sandbox);
        Ok(link)
    }

    async fn connect(&self, session: SessionId) -> Result<Link, BackendError> {
        self.may(Verb::Connect)?;
        Ok(self.running(session)?.listen())
    }

    async fn inspect(&self, session: SessionId) -> Result<Inspection, BackendError> {
        self.may(Verb::Inspect)?;
        let sandbox = self.known(session).ok_or(BackendError::NotFound)?;
        Ok(honest::inspection(
            &sandbox.spec,
            &self.inner.options,
            sandbox.is_alive(),
        ))
    }

    async fn list(&self) -> Result<Vec<Listed>, BackendError> {
        self.may(Verb::List)?;
        if self.broken() == Some(Break::ListsNothing) {
            return Ok(Vec::new());
        }
        let sandboxes = lock(&self.inner.sandboxes);
        let listed = |(session, sandbox): (&SessionId, &Arc<Sandbox>)| Listed {
            session: *session,
            running: sandbox.is_alive(),
        };
        Ok(sandboxes.iter().map(listed).collect())
    }

    async fn stats(&self, session: SessionId) -> Result<UsageView, BackendError> {
        self.may(Verb::Stats)?;
        if self.broken() == Some(Break::InventsSessions) {
            return Ok(UsageView::default());
        }
        self.running(session)?;
        if self.broken() == Some(Break::KnowsNoUsage) {
            return Err(BackendError::Unsupported("a broken fake".to_owned()));
        }
        Ok(UsageView {
            memory_bytes: Some(1 << 20),
            cpu_us: Some(1000),
            pids: Some(1),
            oom_kills: Some(0),
        })
    }

    async fn pause(&self, session: SessionId) -> Result<(), BackendError> {
        self.may(Verb::Pause)?;
        self.running(session)?
            .set_paused(self.broken() != Some(Break::NeverPauses));
        Ok(())
    }

    async fn resume(&self, session: SessionId) -> Result<(), BackendError> {
        self.may(Verb::Resume)?;
        self.running(session)?.set_paused(false);
        Ok(())
    }

    async fn destroy(&self, session: SessionId) -> Result<(), BackendError> {
        self.may(Verb::Destroy)?;
        let found = match self.broken() {
            Some(Break::DestroyLeavesRemains) => self.known(session),
            _ => lock(&self.inner.sandboxes).remove(&session),
        };
        match found {
            Some(sandbox) if self.broken() == Some(Break::DestroyKeepsTheLink) => {
                sandbox.kill(false);
                lock(&self.inner.leaked).push(sandbox);
            }
            Some(sandbox) => sandbox.kill(true),
            None if self.broken() == Some(Break::DestroysOnce) => {
                return Err(BackendError::NotFound);
            }
            None => {}
        }
        Ok(())
    }
}
