//! The backend's verbs.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use async_trait::async_trait;
use model::{BackendName, RootFileSystem, SandboxSpec, SessionId, UsageView};
use sandbox::{Backend, BackendError, Capability, Inspection, Link, Listed};
use sandbox_host::{ended, link, living, sealed_supervisor};

use crate::{
    busy::Busy,
    cgroup::Hierarchy,
    config::NativeConfig,
    creation::{self, Ground},
    helpers::Helpers,
    inspection,
    probe::{self, Machine},
    record::{Layout, Record},
    removal,
    seccomp::Filter,
};

/// The embedded runtime.
///
/// A caller that stops waiting for [`Backend::create`] does not stop the creation: the sandbox then exists, is listed, and
/// waits for [`Backend::connect`] or [`Backend::destroy`].
#[derive(Clone)]
pub struct Native {
    shared: Arc<Shared>,
}

struct Shared {
    config: NativeConfig,
    layout: Layout,
    program: OwnedFd,
    filter: Filter,
    helpers: Helpers,
    /// Those that this server created or found alive, for what is asked often.
    living: Mutex<BTreeMap<SessionId, Arc<Living>>>,
    machine: OnceLock<Machine>,
    busy: Busy,
}

/// Where a living sandbox's usage is read, without its record.
struct Living {
    hierarchy: Hierarchy,
    object_name: String,
    pidfd: OwnedFd,
}

impl Native {
    /// Prepares the state directory and clears what an earlier server was about to delete. Creates no sandbox and
    /// changes nothing outside of the state directory.
    ///
    /// # Errors
    /// When the directory cannot be used, or a directory that the operator offers does not exist.
    pub fn open(config: NativeConfig) -> Result<Native, BackendError> {
        let layout = Layout::prepare(&config.state_directory)
            .map_err(|e| step("prepare the state directory", e))?;
        layout
            .empty_trash()
            .map_err(|e| step("empty the trash of the state directory", e))?;
        layout
            .sweep_ranges()
            .map_err(|e| step("give back unused user ids", e))?;
        for path in &config.extra_read_only {
            let find = || format!("find {}, which `extra_read_only` offers", path.display());
            fs::metadata(path).map_err(|e| step(&find(), e))?;
        }
        let program = sealed_supervisor().map_err(|e| step("seal the supervisor", e))?;
        let filter = Filter::compile()
            .map_err(|e| step("compile the system-call profile", io::Error::other(e)))?;
        let helpers = Helpers::new(&config);
        let shared = Shared {
            config,
            layout,
            program,
            filter,
            helpers,
            living: Mutex::default(),
            machine: OnceLock::new(),
            busy: Busy::default(),
        };
        Ok(Native {
            shared: Arc::new(shared),
        })
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || work(&shared))
            .await
            .map_err(|error| step("finish a blocking step", io::Error::other(error)))?
    }
}

impl Shared {
    fn machine(&self) -> Result<&Machine, BackendError> {
        if let Some(machine) = self.machine.get() {
            return Ok(machine);
        }
        // Two at once probe twice and find the same.
        let found = probe::probe(&self.config, &self.helpers)?;
        Ok(self.machine.get_or_init(|| found))
    }

    fn check(&self, spec: &SandboxSpec) -> Result<(), BackendError> {
        if spec.owner != self.config.owner {
            return Err(BackendError::Unsupported(
                "sandboxes of another owner".to_owned(),
            ));
        }
        if matches!(spec.root, RootFileSystem::Image(_)) {
            return Err(BackendError::Unsupported(
                "an image as it is: the embedded runtime takes an unpacked one".to_owned(),
            ));
        }
        self.machine()?.capability.check(spec)
    }

    fn create(&self, spec: SandboxSpec) -> Result<creation::Created, BackendError> {
        self.check(&spec)?;
        let _busy = self.busy.enter(spec.session);
        let ground = Ground {
            config: &self.config,
            layout: &self.layout,
            machine: self.machine()?,
            program: &self.program,
            extra_read_only: &self.config.extra_read_only,
            filter: &self.filter,
            helpers: &self.helpers,
        };
        let session = spec.session;
        let created = creation::create(&ground, spec)?;
        self.remember(session, &ground.machine.hierarchy, &created.pidfd);
        Ok(created)
    }

    /// Only while the session is busy: what [`Backend::destroy`] forgets must not come back.
    fn remember(&self, session: SessionId, hierarchy: &Hierarchy, pidfd: &OwnedFd) {
        // Without another descriptor the record answers.
        let Ok(pidfd) = pidfd.try_clone() else { return };
        let living = Living {
            hierarchy: hierarchy.clone(),
            object_name: session.object_name(&self.config.owner),
            pidfd,
        };
        self.all_living().insert(session, Arc::new(living));
    }

    fn all_living(&self) -> MutexGuard<'_, BTreeMap<SessionId, Arc<Living>>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usage(&self, session: SessionId) -> Result<UsageView, BackendError> {
        let living = self.all_living().get(&session).cloned();
        match living {
            Some(living) if ended(&living.pidfd) => Err(BackendError::NotFound),
            Some(living) => Ok(living.hierarchy.usage(&living.object_name)),
            None => {
                let (record, ..) = self.running(session)?;
                Ok(record.hierarchy.usage(&record.object_name))
            }
        }
    }

    /// The record and a handle of pid 1 of a sandbox that lives.
    fn running(&self, session: SessionId) -> Result<(Record, i32, OwnedFd), BackendError> {
        let record =
            Record::read(&self.layout.instance(session)).map_err(|e| step("read the record", e))?;
        let record = record.ok_or(BackendError::NotFound)?;
        let process = record.process.clone().ok_or(BackendError::NotFound)?;
        let pidfd = living(&process).ok_or(BackendError::NotFound)?;
        Ok((record, process.pid, pidfd))
    }

    fn list(&self) -> Result<Vec<Listed>, BackendError> {
        let mut sessions = self.layout.list().map_err(|e| step("list sessions", e))?;
        let groups = self
            .machine()?
            .hierarchy
            .object_names()
            .map_err(|e| step("list control groups", e))?;
        sessions.extend(groups.iter().filter_map(|name| self.own_session(name)));
        sessions.sort_unstable();
        sessions.dedup();
        let listed = |session| Listed {
            session,
            running: self.running(session).is_ok(),
        };
        Ok(sessions.into_iter().map(listed).collect())
    }

    /// The session of a group's name, if the name is one of ours.
    fn own_session(&self, object_name: &str) -> Option<SessionId> {
        let (_, digits) = object_name.rsplit_once('-')?;
        let session: SessionId = format!("s-{digits}").parse().ok()?;
        (session.object_name(&self.config.owner) == object_name).then_some(session)
    }

    fn freeze(&self, session: SessionId, frozen: bool) -> Result<(), BackendError> {
        let (record, ..) = self.running(session)?;
        if !record.hierarchy.can_freeze() {
            return Err(BackendError::Unsupported(
                "pausing needs a control group with a freezer".to_owned(),
            ));
        }
        let verb = if frozen { "pause" } else { "resume" };
        record
            .hierarchy
            .freeze(&record.object_name, frozen)
            .map_err(|e| step(verb, e))
    }
}

#[async_trait]
impl Backend for Native {
    fn name(&self) -> BackendName {
        BackendName::Native
    }

    async fn capability(&self) -> Result<Capability, BackendError> {
        self.blocking(|shared| Ok(shared.machine()?.capability.clone()))
            .await
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<Link, BackendError> {
        let spec = spec.clone();
        let created = self.blocking(move |shared| shared.create(spec)).await?;
        link::serve(created.listener, created.pid, created.pidfd)
            .map_err(|e| step("listen for the supervisor", e))
    }

    async fn connect(&self, session: SessionId) -> Result<Link, BackendError> {
        let (listener, pid, pidfd) = self
            .blocking(move |shared| {
                let _busy = shared.busy.enter(session);
                let (record, pid, pidfd) = shared.running(session)?;
                shared.remember(session, &record.hierarchy, &pidfd);
                let listener = link::bind(&shared.layout.instance(session));
                Ok((
                    listener.map_err(|e| step("listen for the supervisor", e))?,
                    pid,
                    pidfd,
                ))
            })
            .await?;
        link::serve(listener, pid, pidfd).map_err(|e| step("listen for the supervisor", e))
    }

    async fn inspect(&self, session: SessionId) -> Result<Inspection, BackendError> {
        self.blocking(move |shared| {
            let (record, pid, pidfd) = shared.running(session)?;
            let rung = shared.machine()?.capability.rung.clone();
            let found = inspection::inspect(&record, pid, rung);
            // What was read is its own only if it lived to the end of the reading.
            if ended(&pidfd) {
                return Err(BackendError::NotFound);
            }
            found.map_err(|e| step("look at the sandbox", e))
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Listed>, BackendError> {
        self.blocking(Shared::list).await
    }

    async fn stats(&self, session: SessionId) -> Result<UsageView, BackendError> {
        self.blocking(move |shared| shared.usage(session)).await
    }

    async fn pause(&self, session: SessionId) -> Result<(), BackendError> {
        self.blocking(move |shared| shared.freeze(session, true))
            .await
    }

    async fn resume(&self, session: SessionId) -> Result<(), BackendError> {
        self.blocking(move |shared| shared.freeze(session, false))
            .await
    }

    async fn destroy(&self, session: SessionId) -> Result<(), BackendError> {
        self.blocking(move |shared| {
            let _busy = shared.busy.enter(session);
            shared.all_living().remove(&session);
            let hierarchy = match shared.machine() {
                Ok(machine) => machine.hierarchy.clone(),
                // Removing must work where creating no longer does; the record says where the groups are.
                Err(_) => crate::cgroup::detect(&shared.config.cgroup),
            };
            removal::remove(&shared.layout, &shared.config, &hierarchy, session)
                .map_err(|e| step("remove it", e))
        })
        .await
    }
}

fn step(step: &str, source: io::Error) -> BackendError {
    BackendError::Step {
        step: step.to_owned(),
        source,
    }
}
