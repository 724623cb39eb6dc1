//! The contract of a backend: *create, connect, inspect, list, stats, pause, resume, destroy*. Everything that happens
//! inside a sandbox goes through its supervisor instead.

use std::{io, path::PathBuf};

use async_trait::async_trait;
use model::{
    BackendName, Enforcement, Layer, LayerInForce, LimitInForce, LimitName, MAX_CERTIFICATES_BYTES,
    Requirement, SandboxSpec, SessionId, UsageView,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

/// A way to build sandboxes. Object-safe; every verb is idempotent or says otherwise.
///
/// A backend refuses rather than pretends: what it cannot enforce it reports in [`Capability`], and a spec that asks
/// for it is refused before anything is created.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Which backend this is.
    fn name(&self) -> BackendName;

    /// What this machine lets the backend enforce, found out by doing it.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] when it cannot build any sandbox here.
    async fn capability(&self) -> Result<Capability, BackendError>;

    /// Builds the sandbox and starts its supervisor. Either all of it exists afterwards or nothing.
    ///
    /// # Errors
    /// [`BackendError::AlreadyExists`] when a sandbox of that session exists; every other error leaves nothing behind.
    async fn create(&self, spec: &SandboxSpec) -> Result<Link, BackendError>;

    /// Listens again for the supervisor of a sandbox that an earlier server created.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] when it is gone.
    async fn connect(&self, session: SessionId) -> Result<Link, BackendError>;

    /// What is in force, read from outside (kernel files, the engine), never from what was asked.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] when it is gone.
    async fn inspect(&self, session: SessionId) -> Result<Inspection, BackendError>;

    /// Every sandbox that this owner ever created and of which anything is left, dead ones included.
    ///
    /// # Errors
    /// When the list cannot be read completely: a partial list would leak objects.
    async fn list(&self) -> Result<Vec<Listed>, BackendError>;

    /// Resources in use.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] when it is gone.
    async fn stats(&self, session: SessionId) -> Result<UsageView, BackendError>;

    /// Stops every process of the sandbox where it stands.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] where this machine has no freezer for us.
    async fn pause(&self, session: SessionId) -> Result<(), BackendError>;

    /// Lets a paused sandbox go on.
    ///
    /// # Errors
    /// As for [`Backend::pause`].
    async fn resume(&self, session: SessionId) -> Result<(), BackendError>;

    /// Removes the sandbox and every object of it. Success also when there was none.
    ///
    /// # Errors
    /// When something is left; a later call goes on.
    async fn destroy(&self, session: SessionId) -> Result<(), BackendError>;
}

/// A connection whose peer is the sandbox's pid 1, checked by the backend.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// See [`Stream`].
pub type Connection = Box<dyn Stream>;

/// Where the connections of one sandbox's supervisor arrive: a control connection first, again after each reconnect,
/// and a data connection for each transfer; the first frame tells which. Dropping it stops listening. The channel
/// closes when the sandbox has ended.
pub struct Link {
    /// Accepted connections. A bounded channel: the backend stops accepting while it is full.
    pub connections: mpsc::Receiver<Connection>,
}

/// What a backend can enforce on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// The rung of the ladder in one phrase: `root, cgroup v1`, `user with subordinate ids, no cgroup`, …
    pub rung: String,
    /// `embedded-root`, `embedded-rootless`, `docker-rootful`, …
    pub posture: String,
    /// Layers that will be in force.
    pub layers: Vec<Layer>,
    /// How each limit will be enforced.
    pub limits: Vec<LimitCapability>,
    /// What is missing and how to get it.
    pub advice: Vec<Advice>,
}

impl Capability {
    /// How that limit will be enforced.
    pub fn enforcement(&self, limit: LimitName) -> Enforcement {
        self.limits
            .iter()
            .find(|found| found.limit == limit)
            .map_or(Enforcement::None, |found| found.enforcement)
    }

    /// Refuses what this machine cannot enforce, before anything is made.
    ///
    /// # Errors
    /// [`BackendError::LayerUnavailable`] and [`BackendError::LimitUnenforceable`]; [`BackendError::Unsupported`] for more
    /// certificates than may be.
    pub fn check(&self, spec: &SandboxSpec) -> Result<(), BackendError> {
        let certificates = spec.certificates.as_ref().map_or(0, String::len);
        if certificates > MAX_CERTIFICATES_BYTES {
            return Err(BackendError::Unsupported(format!(
                "{certificates} bytes of certificates are more than {MAX_CERTIFICATES_BYTES}"
            )));
        }
        let missing = spec
            .layers
            .iter()
            .find(|(layer, need)| *need == Requirement::Required && !self.layers.contains(layer));
        if let Some((layer, _)) = missing {
            return Err(BackendError::LayerUnavailable {
                layer: *layer,
                why: format!("this machine does not offer it ({})", self.rung),
            });
        }
        for limit in LimitName::ALL {
            let how = match self.enforcement(limit) {
                Enforcement::None => "not at all",
                Enforcement::Soft => "only by watching",
                Enforcement::Hard => continue,
            };
            if spec.limits.get(limit).named && !spec.accept_soft_limits {
                return Err(BackendError::LimitUnenforceable {
                    limit,
                    why: format!("this machine enforces it {how} ({})", self.rung),
                });
            }
        }
        Ok(())
    }
}

/// How one limit is enforced on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitCapability {
    /// Which limit.
    pub limit: LimitName,
    /// How strongly.
    pub enforcement: Enforcement,
    /// By what.
    pub mechanism: String,
}

/// Something that this machine lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What is missing, and what it costs.
    pub missing: String,
    /// What to do to get it: a command or a setting.
    pub remedy: String,
}

/// What is in force in one sandbox, read from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Its pid 1 is alive.
    pub running: bool,
    /// See [`Capability::rung`].
    pub rung: String,
    /// Layers as seen from outside; those that only the inside can see are absent.
    pub layers: Vec<LayerInForce>,
    /// Limits as read back. Those that only the inside can see (rlimits, tmpfs sizes) are absent and come from the
    /// supervisor's attestation.
    pub limits: Vec<LimitInForce>,
}

/// A sandbox of this owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its session.
    pub session: SessionId,
    /// Its pid 1 is alive; else only remains are left.
    pub running: bool,
}

/// Why a backend did not do it.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The backend cannot work on this machine, or not now.
    #[error("the backend is unavailable: {why}")]
    Unavailable {
        /// Why, for people.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// The engine stands on another host, so no directory of this one can be mounted.
    #[error("the engine is not on this host: {why}")]
    EngineElsewhere {
        /// How that was found out, as a clause.
        why: String,
    },
    /// The engine answers and cannot carry sessions, whatever the project is.
    #[error("the engine cannot carry sessions: {why}")]
    EngineUnfit {
        /// Why, as a clause.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// No sandbox is made of that image, by what the operator asks of images.
    #[error("{why}")]
    ImageRefused {
        /// Why, as a clause.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// No sandbox of that session.
    #[error("no such sandbox")]
    NotFound,
    /// There is one already.
    #[error("the sandbox exists already")]
    AlreadyExists,
    /// A limit that was named cannot be enforced here.
    #[error("the limit {limit:?} cannot be enforced: {why}")]
    LimitUnenforceable {
        /// Which.
        limit: LimitName,
        /// Why.
        why: String,
    },
    /// A required layer cannot be had here.
    #[error("the layer {layer:?} cannot be had: {why}")]
    LayerUnavailable {
        /// Which.
        layer: Layer,
        /// Why.
        why: String,
    },
    /// The engine does not know that runtime.
    #[error("the engine knows no runtime {name:?}, but {}", known.join(", "))]
    RuntimeUnknown {
        /// Which.
        name: String,
        /// What it knows.
        known: Vec<String>,
    },
    /// The workspace cannot be mounted so that its files stay owned by their owner.
    #[error("the workspace cannot be mapped: {0}")]
    WorkspaceNotMappable(String),
    /// A host path is not what it was when the decision fell, or holds a link.
    #[error("the path {path:?} changed or holds a link", path = path.display().to_string())]
    PathChanged {
        /// Which.
        path: PathBuf,
    },
    /// Protected paths that existed when the decision fell are gone. A neighbor's placeholders go so, when its sandbox
    /// ends meanwhile: whoever decided may look and decide again.
    #[error("protected paths are gone: {paths:?}")]
    ProtectedGone {
        /// Which, relative to the workspace.
        paths: Vec<PathBuf>,
    },
    /// This machine cannot do that.
    #[error("not supported here: {0}")]
    Unsupported(String),
    /// A step failed; everything before it was undone.
    #[error("cannot {step}")]
    Step {
        /// Which, as a phrase after "cannot".
        step: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not happen in time.
    #[error("no answer in time while {0}")]
    Timeout(String),
}
