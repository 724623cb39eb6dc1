//! A new session, step by step, each with its undo:
//!
//! ```text
//! reserve ──► create_sandbox ──► attach ──► verify_hardening ──► prepare_workspace ──► set_environment ──► ready
//!    │              │              │               │                    │                    │
//!    ▼              ▼              ▼               ▼                    ▼                    ▼
//!  failed  ◄── destroy the sandbox, whatever of it exists ◄─────────────┴────────────────────┘
//! ```
//!
//! A destroy in the middle wins: the last step finds the session no longer `creating` and unwinds.

use std::{
    collections::BTreeSet,
    future::Future,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use model::{
    Attestation, BackendName, Protection, Reason, Refusal, SandboxSpec, SessionId, SessionState,
    SessionView,
};
use policy::{CreateParts, CreatePermit};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use sandbox::{Backend, BackendError, Link, Supervisor};
use sha2::{Digest, Sha256};
use store::{Bounds, Promise, Reserved, SessionChange, SessionRecord};

use crate::{
    environment,
    live::{Live, Parts, ProtectedBy},
    network::{Credentials, NetworkRecord},
    place::Place,
    prompts::SessionAgent,
    protected::Scanner,
    refusals,
    sessions::{AgentProgram, Inner, Sessions, now_ms},
    view,
};

/// How long a new supervisor may take to dial and greet.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a repeated call waits for the session that the first one is making.
const TWIN_PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks.
const TWIN_INTERVAL: Duration = Duration::from_millis(20);

/// What the steps have made so far.
struct Made {
    supervisor: Supervisor,
    attestation: Attestation,
    scanner: Scanner,
}

impl Sessions {
    /// Creates a session, or finds the one that an earlier call with the same idempotency key made. Where there is no place for it
    /// and the permit lets it wait, it waits until there is, its time is over, or `gone` says that nobody wants it any more.
    ///
    /// # Errors
    /// Every step can fail; nothing is left then.
    pub async fn create(
        &self,
        id: SessionId,
        permit: CreatePermit,
        gone: impl Future<Output = ()> + Send,
    ) -> Result<SessionView, Refusal> {
        let parts = permit.into_parts();
        let mut record = new_record(id, &parts);
        let mut spec = self.spec(id, &parts)?;
        let _mark = self.0.creating(id);
        match self.0.place(&mut record, &parts, gone).await? {
            Place::Taken => {}
            Place::Existing(id) => return self.0.twin(id).await,
        }
        let created = match self.0.build(&mut spec, parts.backend).await {
            Ok(made) => self.0.ready_now(&record, &spec, parts, made).await,
            Err(refusal) => Err(refusal),
        };
        match created {
            Ok(view) => Ok(view),
            Err(refusal) => {
                self.0.unwind(&record, &refusal).await;
                Err(refusal)
            }
        }
    }

    /// The Claude Code of new sandboxes, looked for now.
    ///
    /// # Errors
    /// When there should be one that cannot be used.
    pub fn agent(&self) -> Result<Option<AgentProgram>, Refusal> {
        (self.0.settings().agent)()
    }

    fn spec(&self, id: SessionId, parts: &CreateParts) -> Result<SandboxSpec, Refusal> {
        let settings = self.0.settings();
        settings.credentials.check(&parts.network)?;
        Ok(SandboxSpec {
            session: id,
            owner: self.0.setup.store.owner(),
            root: self.0.setup.backends.root(parts.backend)?.clone(),
            runtime: parts.runtime.clone(),
            workspace: parts.workspace.clone(),
            protected: parts.protected.clone(),
            mounts: parts.mounts.clone(),
            agent: self.agent()?.map(|agent| agent.directory),
            managed_settings: Some(parts.managed_settings.clone()),
            certificates: settings.credentials.certificates(&parts.network)?,
            limits: parts.limits,
            accept_soft_limits: parts.accept_soft_limits,
            layers: parts.layers.clone(),
            lease_ms: u32::try_from(parts.lease.as_millis()).unwrap_or(u32::MAX),
        })
    }
}

impl Inner {
    pub(crate) async fn reserve(
        &self,
        record: &SessionRecord,
        bounds: Bounds,
    ) -> Result<Reserved, Refusal> {
        let record = record.clone();
        self.stored(move |store| store.reserve_session(&record, &bounds))
            .await
    }

    async fn build(&self, spec: &mut SandboxSpec, backend: BackendName) -> Result<Made, Refusal> {
        let backend = self.setup.backends.get(backend)?;
        let lease = Duration::from_millis(u64::from(spec.lease_ms));
        let link = self
            .create_sandbox(backend.as_ref(), spec)
            .await
            .map_err(|error| refusals::backend(&error))?;
        let spec = &*spec;
        let (attached, scanner) = tokio::join!(
            Supervisor::attach(link, lease, HANDSHAKE_TIMEOUT),
            self.scanner(spec, None)
        );
        let (supervisor, hello) = attached.map_err(|error| refusals::supervisor(&error))?;
        let outside = backend
            .inspect(spec.session)
            .await
            .map_err(|error| refusals::backend(&error))?;
        let attestation =
            sandbox::verify(spec, &hello.attestation, &outside, &self.setup.host_view)
                .map_err(|weakness| refusals::weakness(&weakness, spec.kernel()))?;
        Ok(Made {
            supervisor,
            attestation,
            scanner: scanner?,
        })
    }

    /// Decides once more where protected paths are gone since: another session's placeholders go when it ends.
    async fn create_sandbox(
        &self,
        backend: &dyn Backend,
        spec: &mut SandboxSpec,
    ) -> Result<Link, BackendError> {
        match backend.create(spec).await {
            Err(BackendError::ProtectedGone { paths }) => {
                let gone = paths.into_iter().collect();
                let policy = Arc::clone(&self.settings().policy);
                let rules = policy.protected();
                spec.protected = rules.plan_without(&spec.protected, &gone);
                backend.create(spec).await
            }
            created => created,
        }
    }

    /// What stands in the workspace before anything untrusted runs; or, where a session began unseen by this server,
    /// what stood there then.
    pub(crate) async fn scanner(
        &self,
        spec: &SandboxSpec,
        began: Option<SystemTime>,
    ) -> Result<Scanner, Refusal> {
        let (workspace, policy) = (spec.workspace.clone(), self.settings().policy.clone());
        let standing = spec
            .protected
            .iter()
            .filter(|path| matches!(path.protection, Protection::ReadOnly))
            .map(|path| path.relative.clone())
            .collect();
        let scanned = tokio::task::spawn_blocking(move || {
            let root = open_workspace(&workspace.path)?;
            let stat = rustix::fs::fstat(&root)?;
            if (stat.st_dev, stat.st_ino) != (workspace.device, workspace.inode) {
                return Err(std::io::Error::from(
                    std::io::ErrorKind::StaleNetworkFileHandle,
                ));
            }
            let rules = ProtectedBy(&policy);
            match began {
                None => Scanner::baseline(root, standing, &rules),
                Some(began) => Scanner::since(root, standing, &rules, began),
            }
        })
        .await;
        let refused = |error: &dyn std::error::Error| {
            Refusal::new(
                Reason::PathUnsafe,
                "The project could not be read for a first look at its protected paths.",
                "Check that every directory of the project can be read and does not change meanwhile.",
            )
            .in_field("projectPath")
            .with_cause(error)
        };
        match scanned {
            Ok(result) => result.map_err(|error| refused(&error)),
            Err(error) => Err(Refusal::internal(&error)),
        }
    }

    async fn ready_now(
        self: &Arc<Self>,
        record: &SessionRecord,
        spec: &SandboxSpec,
        parts: CreateParts,
        made: Made,
    ) -> Result<SessionView, Refusal> {
        let settings = self.settings();
        let about = SessionAgent::new(
            &parts.agent,
            spec.agent.is_some(),
            settings.providers.choose(&parts.agent.request.provider)?,
        );
        let network = NetworkRecord {
            is_open: parts.may_widen || !parts.network.rules.is_empty(),
            opens_tls: spec.certificates.is_some(),
            placeholders: Credentials::placeholders(&parts.network)?,
            policy: parts.network,
            declined: BTreeSet::new(),
        };
        let change = SessionChange {
            network: serde_json::to_vec(&network).ok(),
            state: Some(SessionState::Ready),
            agent: serde_json::to_vec(&about).ok(),
            spec: serde_json::to_vec(spec).ok(),
            attestation: serde_json::to_vec(&made.attestation).ok(),
            ..SessionChange::default()
        };
        let id = record.id;
        // Secrets go in only now that the walls are verified.
        made.supervisor
            .set_environment(environment::of_session(
                &parts.env,
                network.is_open,
                settings.credentials.variables(&network),
            ))
            .await
            .map_err(|error| refusals::supervisor(&error))?;
        let provider = &parts.agent.request.provider;
        let traffic = self.setup.egress.traffic.of(id, &parts.owner);
        let agent = self
            .live_agent(
                id,
                &parts.owner,
                &made.supervisor,
                about,
                Some(provider),
                Arc::clone(&traffic),
            )
            .await?;
        let kept = change.network.clone();
        let network = self
            .setup
            .network
            .open(
                id,
                network,
                &settings,
                agent.patience(),
                &made.supervisor,
                traffic,
            )
            .await?;
        let live = Live::new(
            Parts {
                id,
                agent,
                network,
                owner: parts.owner,
                backend: parts.backend,
                workspace: parts.workspace,
                idle: parts.idle,
                lease: parts.lease,
                expires_at: view::time(record.expires_at_ms),
                scanner: Some(made.scanner),
                policy: settings.policy.clone(),
                allow_protected_changes: parts.allow_protected_changes,
            },
            made.supervisor,
        );
        let won = self
            .stored(move |store| store.update_session(id, &[SessionState::Creating], &change))
            .await?;
        if !won {
            return Err(self.not_ready(id).await);
        }
        self.insert_live(live.clone());
        // Decided before other settings came, and among the live ones only now.
        let is_narrower = self.fit_network(&live).await;
        self.keep(&live);
        self.note(id, "session ready").await;
        let mut record = record.clone();
        record.state = SessionState::Ready;
        record.attestation = serde_json::to_vec(&made.attestation).ok();
        record.network = match is_narrower {
            true => self.record(id).await?.and_then(|record| record.network),
            false => kept,
        };
        Ok(self.view(&record).await)
    }

    /// Takes back every step of a session that did not come to be.
    async fn unwind(&self, record: &SessionRecord, refusal: &Refusal) {
        let id = record.id;
        if let Ok(backend) = self.setup.backends.get(record.backend)
            && let Err(error) = backend.destroy(id).await
        {
            // The reconciler finds what is left: the session is not live on record.
            tracing::warn!(session = %id, %error, "something of a failed session is left");
        }
        let change = SessionChange {
            state: Some(SessionState::Failed),
            ended_because: Some(refusal.message.clone()),
            ended_at_ms: Some(now_ms()),
            ..SessionChange::default()
        };
        let failed = self
            .stored(move |store| store.update_session(id, &[SessionState::Creating], &change))
            .await;
        self.queue.place_is_free();
        if let Err(refusal) = failed {
            tracing::error!(session = %id, detail = ?refusal.detail, "a failed session is still on record as creating");
        }
        self.note(id, format!("session failed: {}", refusal.message))
            .await;
    }

    /// The session that an earlier call with the same key made, or is making.
    async fn twin(&self, id: SessionId) -> Result<SessionView, Refusal> {
        let deadline = tokio::time::Instant::now() + TWIN_PATIENCE;
        loop {
            let record = self
                .record(id)
                .await?
                .ok_or_else(refusals::session_not_found)?;
            match record.state {
                SessionState::Creating if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(TWIN_INTERVAL).await;
                }
                SessionState::Creating => return Err(refusals::not_live(record.state, None)),
                SessionState::Failed | SessionState::Expired | SessionState::Destroyed => {
                    return Err(refusals::not_live(
                        record.state,
                        record.ended_because.as_deref(),
                    ));
                }
                SessionState::Ready
                | SessionState::Busy
                | SessionState::Paused
                | SessionState::Unknown => {
                    return Ok(self.view(&record).await);
                }
            }
        }
    }
}

/// Opens a workspace without following any link.
pub(crate) fn open_workspace(path: &std::path::Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(
        rustix::fs::CWD,
        path,
        flags,
        Mode::empty(),
        resolve,
    )?)
}

fn new_record(id: SessionId, parts: &CreateParts) -> SessionRecord {
    let now = SystemTime::now();
    let created_at_ms = view::milliseconds(now);
    let name = parts
        .name
        .clone()
        .unwrap_or_else(|| default_name(id, &parts.workspace.path));
    SessionRecord {
        id,
        principal: parts.owner.clone(),
        name,
        state: SessionState::Creating,
        backend: parts.backend,
        project_path: parts.workspace.path.clone(),
        created_at_ms,
        expires_at_ms: view::milliseconds(now + parts.ttl),
        idle_ms: u64::try_from(parts.idle.as_millis()).unwrap_or(u64::MAX),
        last_used_at_ms: created_at_ms,
        idempotency_key: parts.idempotency_key.clone(),
        arguments_digest: digest(parts),
        promise: Promise {
            memory_bytes: parts.limits.memory_bytes.value,
            cpu_millis: parts.limits.cpu_millis.value,
            disk_bytes: parts.limits.state_bytes.value,
        },
        spec: None,
        attestation: None,
        agent: None,
        network: None,
        ended_because: None,
        ended_at_ms: None,
    }
}

/// The project's name and the beginning of the id.
fn default_name(id: SessionId, project: &std::path::Path) -> String {
    let project: PathBuf = project.file_name().map(PathBuf::from).unwrap_or_default();
    let project: String = project
        .to_string_lossy()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
        .take(40)
        .collect();
    let id = id.to_string();
    format!(
        "{}-{}",
        if project.is_empty() {
            "session"
        } else {
            &project
        },
        &id[2..8]
    )
}

/// Digest of everything that makes two calls the same, but for the values of the environment: from a digest on disk a
/// weak secret could be guessed. Two calls with one key that differ in such values only are the same call.
fn digest(parts: &CreateParts) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    let shape = format!(
        "{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}",
        parts.name,
        parts.backend,
        parts.runtime,
        parts.workspace.path,
        parts.mounts,
        parts.limits,
        parts.ttl,
        parts.idle,
        parts.network,
        // Keys of a provider do not print.
        parts.agent.request
    );
    add(shape.as_bytes());
    for name in parts.env.keys() {
        add(name.as_bytes());
    }
    hash.finalize().into()
}
