//! A test double of a backend, in process: real wire frames, simulated programs. It isolates nothing and must never be
//! selectable in a production configuration; it is public because the tests of other crates build on it.

use std::sync::Arc;

use async_trait::async_trait;
use model::{BackendName, Enforcement, Layer, LimitName, SandboxSpec, SessionId, UsageView};

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
    /// Layers that the supervisor attests as absent although the spec asks for them.
    pub absent_layers: Vec<Layer>,
    /// Limits that are in force with this value instead of the one asked.
    pub weakened_limits: Vec<(LimitName, u64)>,
    /// The supervisor dials and greets, then never answers anything.
    pub hanging_supervisor: bool,
    /// The supervisor never dials.
    pub silent_supervisor: bool,
}

/// The in-process backend. Clones share their sandboxes.
#[derive(Clone)]
pub struct Fake {
    _inner: Arc<()>,
}

impl Fake {
    /// An honest, fully capable fake.
    pub fn new() -> Self {
        Self::with_options(FakeOptions::default())
    }

    /// A fake that differs as told.
    pub fn with_options(_options: FakeOptions) -> Self {
        Fake {
            _inner: Arc::new(()),
        }
    }

    /// From now on that verb fails with what `error` makes, before it does anything.
    pub fn fail(&self, _verb: Verb, _error: impl Fn() -> BackendError + Send + Sync + 'static) {}

    /// The verb works again.
    pub fn heal(&self, _verb: Verb) {}

    /// The sandbox's pid 1 dies, as if the kernel had killed it. Its remains stay listed until destroyed.
    pub fn kill(&self, _session: SessionId) {}

    /// Drops the supervisor's connections; it dials again at once.
    pub fn disconnect(&self, _session: SessionId) {}

    /// Content of a regular file inside.
    pub fn file(&self, _session: SessionId, _path: &str) -> Option<Vec<u8>> {
        None
    }

    /// Puts a regular file inside, with its parent directories.
    pub fn put_file(&self, _session: SessionId, _path: &str, _content: &[u8]) {}
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
        Err(BackendError::NotFound)
    }
    async fn create(&self, _spec: &SandboxSpec) -> Result<Link, BackendError> {
        Err(BackendError::NotFound)
    }
    async fn connect(&self, _session: SessionId) -> Result<Link, BackendError> {
        Err(BackendError::NotFound)
    }
    async fn inspect(&self, _session: SessionId) -> Result<Inspection, BackendError> {
        Err(BackendError::NotFound)
    }
    async fn list(&self) -> Result<Vec<Listed>, BackendError> {
        Err(BackendError::NotFound)
    }
    async fn stats(&self, _session: SessionId) -> Result<UsageView, BackendError> {
        Err(BackendError::NotFound)
    }
    async fn pause(&self, _session: SessionId) -> Result<(), BackendError> {
        Err(BackendError::NotFound)
    }
    async fn resume(&self, _session: SessionId) -> Result<(), BackendError> {
        Err(BackendError::NotFound)
    }
    async fn destroy(&self, _session: SessionId) -> Result<(), BackendError> {
        Err(BackendError::NotFound)
    }
}
