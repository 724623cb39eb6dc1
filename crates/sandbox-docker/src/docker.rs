//! The backend's verbs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use model::{BackendName, Kernel, SandboxSpec, SessionId, UsageView};
use sandbox::{
    Backend, BackendError, Capability, Inspection, Link, Listed,
    carrier::{self, Key, Streams},
};
use sandbox_host::{Groups, Layout, ended, kernel, link, supervisor_binary};
use tokio::{
    io::unix::AsyncFd,
    sync::OnceCell,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    config::DockerConfig,
    creation::{self, Created, Ground, Road, blocking, step},
    engine::Engine,
    inspection::{self, Asked, Live, live},
    machine::{self, Machine, Server},
    place,
    record::{OWNER_LABEL, Record, SESSION_LABEL},
    removal,
    seccomp::Profiles,
    turns::{Turn, Turns},
};

/// What a verb takes at most with an engine that is silent: one call's limit.
const VERB_LIMIT: Duration = Duration::from_secs(5);
/// When to look for a container that an engine made after nobody waited for it any more: pauses.
const LATE_LOOKS: [Duration; 3] = [
    Duration::from_secs(2),
    Duration::from_secs(8),
    Duration::from_secs(60),
];

/// Sandboxes from a Docker engine.
///
/// A caller that stops waiting for [`Backend::create`] does not stop the creation: the sandbox then exists, is listed, and
/// waits for [`Backend::connect`] or [`Backend::destroy`].
#[derive(Clone)]
pub struct Docker {
    shared: Arc<Shared>,
}

struct Shared {
    config: DockerConfig,
    layout: Layout,
    engine: Engine,
    profiles: Profiles,
    program: PathBuf,
    machine: OnceCell<Machine>,
    turns: Turns,
    /// Those that this server created or found alive, for what is asked often.
    living: Mutex<BTreeMap<SessionId, Arc<Living>>>,
}

/// How a creation failed, as far as it matters to what is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    /// There was a container of the name.
    NameTaken,
    /// The engine gave no answer: what it was asked may still happen.
    Unanswered,
    Otherwise,
}

impl Failed {
    const fn by(error: &BackendError) -> Self {
        if matches!(error, BackendError::AlreadyExists) {
            Failed::NameTaken
        } else if matches!(error, BackendError::Unavailable { .. }) {
            Failed::Unanswered
        } else {
            Failed::Otherwise
        }
    }
}

/// Where a living sandbox's usage is read, without asking the engine.
struct Living {
    groups: Groups,
    pidfd: OwnedFd,
}

impl Docker {
    /// Prepares the state directory and clears what an earlier server was about to delete. Asks the engine nothing: it
    /// may be missing now and there later.
    ///
    /// # Errors
    /// When the directory cannot be used, or the engine is of a kind that cannot be.
    pub fn open(config: DockerConfig) -> Result<Docker, BackendError> {
        let engine = Engine::new(config.address()?);
        let layout = Layout::prepare(&config.state_directory, "docker")
            .map_err(|e| step("prepare the state directory", e))?;
        layout
            .empty_trash()
            .map_err(|e| step("empty the trash of the state directory", e))?;
        place::clear(&layout).map_err(|e| step("clear the state directory", e))?;
        let program = layout.root().join("supervisor");
        lay_program(&program).map_err(|e| step("write the supervisor's program", e))?;
        let profiles = Profiles::shipped()
            .map_err(|e| step("translate the system-call profile", io::Error::other(e)))?;
        let shared = Shared {
            config,
            layout,
            engine,
            profiles,
            program,
            machine: OnceCell::new(),
            turns: Turns::default(),
            living: Mutex::default(),
        };
        Ok(Docker {
            shared: Arc::new(shared),
        })
    }

    /// Why no session can be made from that image right now, if none can: the engine cannot carry any, or the image is not
    /// there or not allowed.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn obstacle(&self, image: &str) -> Result<Option<BackendError>, BackendError> {
        match self.engine_obstacle().await? {
            Some(obstacle) => Ok(Some(obstacle)),
            None => self.image_obstacle(image).await,
        }
    }

    /// Why this engine carries no sessions, whatever their image, if it does not.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn engine_obstacle(&self) -> Result<Option<BackendError>, BackendError> {
        let obstacle = self.shared.machine().await?.obstacle_to(Kernel::Shared);
        Ok(obstacle.map(|obstacle| obstacle.refusal()))
    }

    /// Why no session can be made from that image, if none can.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn image_obstacle(&self, name: &str) -> Result<Option<BackendError>, BackendError> {
        let rules = &self.shared.config.image_rules;
        match creation::admitted(&self.shared.engine, rules, name).await {
            Ok(_) => Ok(None),
            Err(refused @ BackendError::ImageRefused { .. }) => Ok(Some(refused)),
            Err(BackendError::NotFound) => Ok(Some(creation::no_image(name))),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn config(&self) -> &DockerConfig {
        &self.shared.config
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// Goes on when the caller has stopped waiting: half a creation must not stay.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, BackendError>> + Send + 'static,
    ) -> Result<T, BackendError> {
        tokio::spawn(work)
            .await
            .map_err(|error| step("finish a change", io::Error::other(error)))?
    }
}

/// The program as a file that all containers of this server share. Replaced as a whole: containers of an earlier server
/// keep theirs.
fn lay_program(path: &Path) -> io::Result<()> {
    if fs::read(path).is_ok_and(|found| found == supervisor_binary()) {
        return Ok(());
    }
    let new = path.with_extension("new");
    fs::write(&new, supervisor_binary())?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o555))?;
    fs::rename(new, path)
}

impl Shared {
    async fn machine(&self) -> Result<&Machine, BackendError> {
        self.machine
            .get_or_try_init(|| async {
                let info = self.engine.info().await?;
                let server = Server {
                    is_root: rustix::process::geteuid().is_root(),
                    place: place::find(&self.engine, &self.layout).await?,
                    transport: self.engine.transport(),
                };
                machine::describe(&info, &server)
            })
            .await
    }

    /// Refuses a runtime that the engine does not know, or knows no longer.
    async fn check_runtime(&self, spec: &SandboxSpec) -> Result<(), BackendError> {
        let Some(class) = &spec.runtime else {
            return Ok(());
        };
        let known = machine::runtimes(&self.engine.info().await?);
        if known.contains(&class.name) {
            return Ok(());
        }
        Err(BackendError::RuntimeUnknown {
            name: class.name.clone(),
            known,
        })
    }

    async fn create(self: &Arc<Self>, spec: &SandboxSpec) -> Result<Created, BackendError> {
        let until = Instant::now() + VERB_LIMIT;
        if spec.owner != self.config.owner {
            return Err(BackendError::Unsupported(
                "sandboxes of another owner".to_owned(),
            ));
        }
        let machine = self.machine().await?;
        // What no other spec would change comes first.
        if let Some(obstacle) = machine.obstacle_to(spec.kernel()) {
            return Err(obstacle.refusal());
        }
        machine.capability(spec.kernel()).check(spec)?;
        self.check_runtime(spec).await?;
        let turn = self.turns.take(spec.session).await;
        let ground = Ground {
            engine: &self.engine,
            layout: &self.layout,
            machine,
            image_rules: &self.config.image_rules,
            seccomp: self.profiles.of(spec.kernel()),
            attached_streams: self.config.attached_streams,
            program: &self.program,
        };
        let begun = creation::begin(&ground, spec).await?;
        match creation::build(&ground, &begun, spec).await {
            Ok(created) => {
                self.remember(spec.session, &created.live);
                Ok(created)
            }
            Err(error) => {
                let undoing = Arc::clone(self).undo(spec.session, Failed::by(&error), turn);
                // What takes longer goes on without the caller, and the turn lasts until then.
                let _ = timeout_at(until, tokio::spawn(undoing)).await;
                Err(error)
            }
        }
    }

    async fn undo(self: Arc<Self>, session: SessionId, failed: Failed, turn: Turn) {
        // A container of that name that was there before is not ours to remove.
        let engine = (failed != Failed::NameTaken).then_some(&self.engine);
        self.remove_remains(engine, session).await;
        drop(turn);
        if failed == Failed::Unanswered {
            tokio::spawn(self.remove_late(session));
        }
    }

    /// An engine that gave no answer may make the container yet.
    async fn remove_late(self: Arc<Self>, session: SessionId) {
        for pause in LATE_LOOKS {
            sleep(pause).await;
            let _turn = self.turns.take(session).await;
            self.remove_remains(Some(&self.engine), session).await;
        }
    }

    async fn remove_remains(&self, engine: Option<&Engine>, session: SessionId) {
        let removed = removal::remove(engine, &self.layout, &self.config.owner, session);
        if let Err(error) = removed.await {
            tracing::error!(%session, %error, "remains of a failed creation stay until the next start");
        }
    }

    /// Only in the session's turn: what [`Backend::destroy`] forgets must not come back.
    fn remember(&self, session: SessionId, live: &Live) {
        // Without another descriptor the engine answers.
        let Ok(pidfd) = live.pidfd.try_clone() else {
            return;
        };
        let groups = live.groups.clone();
        self.all_living()
            .insert(session, Arc::new(Living { groups, pidfd }));
    }

    fn all_living(&self) -> MutexGuard<'_, BTreeMap<SessionId, Arc<Living>>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn live(&self, session: SessionId) -> Result<Live, BackendError> {
        let found = live(&self.engine, &self.config.owner, session).await?;
        found.ok_or(BackendError::NotFound)
    }

    async fn list(&self) -> Result<Vec<Listed>, BackendError> {
        let label = format!("{OWNER_LABEL}={}", self.config.owner);
        let containers = self.engine.containers(&label).await?;
        let layout = self.layout.clone();
        let listed = blocking(move || layout.list().map_err(|e| step("list sessions", e)));
        let mut sessions: BTreeSet<SessionId> = listed.await?.into_iter().collect();
        let mut running = BTreeSet::new();
        for container in &containers {
            let Some(session) = session_of(container) else {
                tracing::warn!(id = ?container.id, "a container with our label is of no session, and left alone");
                continue;
            };
            sessions.insert(session);
            if matches!(
                container.state,
                Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED)
            ) {
                running.insert(session);
            }
        }
        let listed = |session| Listed {
            session,
            running: running.contains(&session),
        };
        Ok(sessions.into_iter().map(listed).collect())
    }

    async fn connect(self: &Arc<Self>, session: SessionId) -> Result<Created, BackendError> {
        let _turn = self.turns.take(session).await;
        let live = self.live(session).await?;
        let instance = self.layout.instance(session);
        let shared = Arc::clone(self);
        let record = blocking(move || shared.record(session)).await?;
        let road = match record.carrier_key {
            Some(key) => Road::Streams(Key::Known(key), None),
            None => Road::Socket(creation::listen(instance).await?),
        };
        self.remember(session, &live);
        Ok(Created { live, road })
    }

    fn record(&self, session: SessionId) -> Result<Record, BackendError> {
        Record::read(&self.layout.instance(session))
            .map_err(|e| step("read the record", e))?
            .ok_or(BackendError::NotFound)
    }

    async fn destroy(&self, session: SessionId) -> Result<(), BackendError> {
        let _turn = self.turns.take(session).await;
        self.all_living().remove(&session);
        removal::remove(
            Some(&self.engine),
            &self.layout,
            &self.config.owner,
            session,
        )
        .await
    }
}

fn session_of(container: &ContainerSummary) -> Option<SessionId> {
    container.labels.as_ref()?.get(SESSION_LABEL)?.parse().ok()
}

impl Docker {
    fn serve(&self, session: SessionId, created: Created) -> Result<Link, BackendError> {
        let Created { live, road } = created;
        let failed = |error| step("listen for the supervisor", error);
        match road {
            Road::Socket(listener) => link::serve(listener, live.pid, live.pidfd).map_err(failed),
            Road::Streams(key, first) => {
                let pidfd = kernel::watch(live.pidfd).map_err(failed)?;
                let again = Again {
                    shared: Arc::clone(&self.shared),
                    session,
                    pidfd,
                };
                Ok(carrier::serve(key, first, again))
            }
        }
    }
}

/// The standard streams of a sandbox, again.
struct Again {
    shared: Arc<Shared>,
    session: SessionId,
    pidfd: AsyncFd<OwnedFd>,
}

#[async_trait]
impl carrier::Attach for Again {
    async fn attach(&self) -> Result<Option<Streams>, BackendError> {
        let (engine, owner) = (&self.shared.engine, &self.shared.config.owner);
        match live(engine, owner, self.session).await? {
            Some(live) => Ok(Some(engine.attach(&live.id).await?)),
            None => Ok(None),
        }
    }

    async fn ended(&self) {
        let _ = self.pidfd.readable().await;
    }
}

#[async_trait]
impl Backend for Docker {
    fn name(&self) -> BackendName {
        BackendName::Docker
    }

    async fn capability(&self) -> Result<Capability, BackendError> {
        Ok(self.shared.machine().await?.capability(Kernel::Shared))
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<Link, BackendError> {
        let (shared, spec) = (Arc::clone(&self.shared), spec.clone());
        let session = spec.session;
        let created = self
            .to_the_end(async move { shared.create(&spec).await })
            .await?;
        self.serve(session, created)
    }

    async fn connect(&self, session: SessionId) -> Result<Link, BackendError> {
        let created = self.shared.connect(session).await?;
        self.serve(session, created)
    }

    async fn inspect(&self, session: SessionId) -> Result<Inspection, BackendError> {
        let live = self.shared.live(session).await?;
        let rung = self.shared.machine().await?.rung.clone();
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let record = shared.record(session)?;
            let kernel = record.kernel();
            let rung = match &record.runtime {
                Some(class) => format!("{rung}, {}", class.name),
                None => rung,
            };
            let asked = Asked {
                limits: &record.limits,
                runtime: record.runtime.as_ref(),
                seccomp: shared.profiles.of(kernel),
            };
            inspection::inspect(&live, &asked, rung)
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Listed>, BackendError> {
        self.shared.list().await
    }

    async fn stats(&self, session: SessionId) -> Result<UsageView, BackendError> {
        let living = self.shared.all_living().get(&session).cloned();
        match living {
            Some(living) if ended(&living.pidfd) => Err(BackendError::NotFound),
            Some(living) => blocking(move || Ok(living.groups.usage())).await,
            None => {
                let live = self.shared.live(session).await?;
                blocking(move || Ok(live.groups.usage())).await
            }
        }
    }

    async fn pause(&self, session: SessionId) -> Result<(), BackendError> {
        let _turn = self.shared.turns.take(session).await;
        let live = self.shared.live(session).await?;
        if live.paused {
            return Ok(());
        }
        self.shared.engine.pause(&live.id).await
    }

    async fn resume(&self, session: SessionId) -> Result<(), BackendError> {
        let _turn = self.shared.turns.take(session).await;
        let live = self.shared.live(session).await?;
        if !live.paused {
            return Ok(());
        }
        self.shared.engine.resume(&live.id).await
    }

    async fn destroy(&self, session: SessionId) -> Result<(), BackendError> {
        let shared = Arc::clone(&self.shared);
        self.to_the_end(async move { shared.destroy(session).await })
            .await
    }
}
