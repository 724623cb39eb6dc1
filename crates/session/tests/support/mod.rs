//! A small house on the fake backend: store, policy, sessions.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::{
    BackendName, CommandLine, CreateSession, ExecuteCommand, ExecutionView, HostDirectory, Limits,
    Principal, Refusal, RootFileSystem, SessionId, SessionView,
};
use policy::{
    CreateFacts, EntryKind, ExecutionVerb, PathFacts, Policy, PolicyConfig, SessionVerb, SystemVerb,
};
use sandbox::{Backend, HostView, fake::Fake};
use session::{Backends, Beginning, ReapRequest, Sessions, Setup, Survey, TurnLog, Turns};
use store::Store;
use tokio::sync::mpsc;

/// No wait to speak of.
pub const SHORT: Duration = Duration::from_millis(50);
/// Longer than what is waited for takes.
pub const LONG: Duration = Duration::from_secs(10);

/// What every session of the tests fits on.
const MACHINE: policy::MachineFacts = policy::MachineFacts {
    memory_bytes: 64 << 30,
    cpu_millis: 8_000,
    disk_bytes: 100 << 30,
};

/// Where nothing can be put on record: prompts that waited do not begin.
struct NoTurns;

impl TurnLog for NoTurns {
    fn of(&self, _session: SessionId, _owner: &str) -> Arc<dyn Turns> {
        Arc::new(NoTurns)
    }
}

impl Turns for NoTurns {
    fn begin(&self, _prompt: model::ExecutionId) -> Beginning<'_> {
        let refusal = Refusal::new(model::Reason::AuditUnavailable, "There is no log.", "");
        Box::pin(std::future::ready(Err(refusal)))
    }
}

pub struct House {
    pub fake: Fake,
    pub policy: Arc<Policy>,
    pub sessions: Sessions,
    pub reap: mpsc::UnboundedReceiver<ReapRequest>,
    pub base: tempfile::TempDir,
    pub store: Store,
}

impl House {
    pub fn new() -> Self {
        Self::on(Fake::new())
    }

    pub fn on(fake: Fake) -> Self {
        Self::reaching(fake, &[])
    }

    /// Whose operator lets sessions reach these.
    pub fn reaching(fake: Fake, ceiling: &[&str]) -> Self {
        Self::configured(fake, ceiling, |_| {})
    }

    /// Whose operator has changed something.
    pub fn configured(
        fake: Fake,
        ceiling: &[&str],
        change: impl FnOnce(&mut PolicyConfig),
    ) -> Self {
        let base = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(base.path().join("project")).expect("a project");
        std::fs::create_dir(base.path().join("state")).expect("a state directory");
        let (store, _) = Store::open(&base.path().join("state/state.db")).expect("a store");
        let mut config = config(base.path(), ceiling);
        change(&mut config);
        let policy = Arc::new(Policy::new(config).expect("a policy"));
        let (sessions, reap) = sessions(&store, &fake, &policy, base.path());
        House {
            fake,
            policy,
            sessions,
            reap,
            base,
            store,
        }
    }

    /// The decisions of an operator that lets sessions reach these.
    pub fn policy_reaching(&self, ceiling: &[&str]) -> Policy {
        Policy::new(config(self.base.path(), ceiling)).expect("a policy")
    }

    /// Another server on the same store and machine; the old one is forgotten, as by kill -9.
    pub fn restart(mut self) -> Self {
        let base = self.base.path();
        let (sessions, reap) = sessions(&self.store, &self.fake, &self.policy, base);
        self.sessions = sessions;
        self.reap = reap;
        self
    }

    pub fn project(&self) -> PathBuf {
        self.base
            .path()
            .canonicalize()
            .expect("a path")
            .join("project")
    }

    pub fn owner(&self) -> Principal {
        Principal::LocalUser {
            uid: uid(),
            roots: vec![self.project()],
        }
    }

    pub fn request(&self) -> CreateSession {
        CreateSession {
            agent: model::AgentRequest::default(),
            network: model::NetworkRequest::default(),
            project_path: self.project(),
            name: None,
            backend: None,
            runtime_class: None,
            mounts: Vec::new(),
            limits: Vec::new(),
            docker_options: model::DockerOptions::default(),
            ttl: None,
            idle: None,
            env: BTreeMap::new(),
            idempotency_key: None,
        }
    }

    pub async fn create(&self) -> Result<SessionView, Refusal> {
        self.create_with(self.request()).await
    }

    pub async fn create_with(&self, request: CreateSession) -> Result<SessionView, Refusal> {
        self.create_where(request, &[]).await
    }

    /// Where these files of the project exist when the decision falls.
    pub async fn create_where(
        &self,
        request: CreateSession,
        files: &[&str],
    ) -> Result<SessionView, Refusal> {
        self.create_as(&self.owner(), request, files, std::future::pending())
            .await
    }

    /// For that caller, who may go away.
    pub async fn create_as(
        &self,
        caller: &Principal,
        request: CreateSession,
        files: &[&str],
        gone: impl Future<Output = ()> + Send,
    ) -> Result<SessionView, Refusal> {
        let found = |path: &PathBuf| match files.iter().any(|file| path == Path::new(file)) {
            true => EntryKind::File,
            false => EntryKind::Missing,
        };
        let facts = CreateFacts {
            project: PathFacts::Directory(directory(&self.project().join(&request.project_path))),
            mounts: Vec::new(),
            existing: self
                .policy
                .protected_candidates()
                .iter()
                .map(|path| (path.clone(), found(path)))
                .collect(),
            machine: MACHINE,
        };
        let permit = self.policy.admit_create(caller, &request, facts)?;
        self.sessions
            .create(SessionId::random().expect("an id"), permit, gone)
            .await
    }

    pub async fn run(
        &self,
        session: SessionId,
        argv: &[&str],
        wait: Duration,
    ) -> Result<ExecutionView, Refusal> {
        self.run_for(session, argv, wait, None).await
    }

    pub async fn run_for(
        &self,
        session: SessionId,
        argv: &[&str],
        wait: Duration,
        timeout: Option<Duration>,
    ) -> Result<ExecutionView, Refusal> {
        let request = ExecuteCommand {
            session,
            command: CommandLine::Argv(argv.iter().map(|&word| word.to_owned()).collect()),
            cwd: None,
            env: BTreeMap::new(),
            stdin: None,
            keep_stdin_open: false,
            terminal: None,
            timeout,
            wait,
        };
        let owner = self.sessions.owner(session).await?;
        self.sessions
            .execute(
                self.policy
                    .admit_command(&self.owner(), &request, owner.as_deref())?,
            )
            .await
    }

    /// Gives Claude Code a prompt in a new conversation; there is none in these sandboxes, so it fails soon.
    pub async fn prompt(&self, session: SessionId) -> Result<ExecutionView, Refusal> {
        let request = model::ExecutePrompt {
            session,
            prompt: model::Secret::new("work".to_owned()),
            conversation: model::ConversationChoice::New,
            options: model::PromptOptions::default(),
            when_busy: model::WhenBusy::Refuse,
            timeout: None,
            wait: Duration::from_secs(10),
        };
        let owner = self.sessions.owner(session).await?;
        let permit = self
            .policy
            .admit_prompt(&self.owner(), &request, owner.as_deref())?;
        self.sessions.prompt(permit).await
    }

    /// Files of a session's conversations, by name.
    pub fn transcripts(&self, session: SessionId) -> BTreeMap<String, String> {
        let directory = self
            .base
            .path()
            .join("state/transcripts")
            .join(session.to_string());
        let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
        files
            .map(|file| {
                let name = file.file_name().to_string_lossy().into_owned();
                (name, std::fs::read_to_string(file.path()).expect("a text"))
            })
            .collect()
    }

    pub async fn read(
        &self,
        execution: model::ExecutionId,
        wait: Duration,
    ) -> Result<ExecutionView, Refusal> {
        self.read_from(execution, 0, wait).await
    }

    pub async fn read_from(
        &self,
        execution: model::ExecutionId,
        stdout_cursor: u64,
        wait: Duration,
    ) -> Result<ExecutionView, Refusal> {
        let found = self.sessions.execution_owner(execution).await?;
        let owner = found.as_ref().map(|(_, owner)| owner.as_str());
        let permit =
            self.policy
                .admit_execution(&self.owner(), ExecutionVerb::Read, execution, owner)?;
        let request = model::GetExecution {
            execution,
            stdout_cursor,
            stderr_cursor: 0,
            wait,
            awaited: model::Awaited::News,
        };
        self.sessions.read_execution(permit, &request).await
    }

    /// Reads an execution until it has ended.
    pub async fn read_to_end(&self, execution: model::ExecutionId) -> ExecutionView {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let view = self
                .read(execution, Duration::ZERO)
                .await
                .expect("the execution");
            if view.state.is_final() {
                return view;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "it never ended: {view:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn get(&self, session: SessionId) -> Result<SessionView, Refusal> {
        let owner = self.sessions.owner(session).await?;
        let permit = self.policy.admit_session(
            &self.owner(),
            SessionVerb::Read,
            session,
            owner.as_deref(),
        )?;
        self.sessions.get(permit).await
    }

    pub async fn destroy(&self, session: SessionId) -> Result<SessionId, Refusal> {
        let owner = self.sessions.owner(session).await?;
        let permit = self.policy.admit_session(
            &self.owner(),
            SessionVerb::Destroy,
            session,
            owner.as_deref(),
        )?;
        self.sessions.destroy(permit).await
    }

    fn permit(&self, verb: SystemVerb) -> policy::SystemPermit {
        self.policy
            .admit_system(&Principal::System, verb)
            .expect("a permit")
    }

    /// Surveys, and does what was found, as the keeper does over the road.
    pub async fn reconcile(&self) -> Result<Survey, Refusal> {
        let survey = self
            .sessions
            .survey(self.permit(SystemVerb::Survey), BackendName::Fake)
            .await?;
        for session in &survey.lost {
            self.sessions
                .adopt(self.permit(SystemVerb::Adopt(*session)))
                .await?;
        }
        for session in &survey.orphaned {
            self.sessions.report_orphan(*session);
        }
        for remains in &survey.remains {
            let permit = self.permit(SystemVerb::RemoveRemains(remains.session));
            self.sessions
                .remove_remains(permit, remains.backend)
                .await?;
        }
        Ok(survey)
    }

    /// Ends what was reported for it, as the road does.
    pub async fn reap_next(&mut self) -> ReapRequest {
        let request = tokio::time::timeout(Duration::from_secs(10), self.reap.recv()).await;
        let request = request.expect("a report in time").expect("a report");
        self.sessions
            .reap(
                self.permit(SystemVerb::Reap(request.session)),
                request.because,
            )
            .await
            .expect("ended");
        request
    }

    pub async fn sandboxes(&self) -> usize {
        self.fake.list().await.expect("a list").len()
    }
}

fn sessions(
    store: &Store,
    fake: &Fake,
    policy: &Arc<Policy>,
    base: &Path,
) -> (Sessions, mpsc::UnboundedReceiver<ReapRequest>) {
    let (reap, requests) = mpsc::unbounded_channel();
    let sessions = Sessions::new(Setup {
        agent: Arc::new(|| Ok(None)),
        store: store.clone(),
        backends: Backends::new([(
            Arc::new(fake.clone()) as Arc<dyn Backend>,
            RootFileSystem::HostSystem,
        )]),
        policy: policy.clone(),
        host_view: HostView::default(),
        allow_protected_changes: false,
        egress: session::Egress::none().expect("no way to a provider"),
        network: network(),
        turns: Arc::new(NoTurns),
        transcripts: base.join("state/transcripts"),
        reap,
    });
    (sessions, requests)
}

fn config(base: &Path, ceiling: &[&str]) -> PolicyConfig {
    let base = base.canonicalize().expect("a path");
    PolicyConfig {
        caller_may_answer: false,
        permissions: None,
        dangerously_trust_project_settings: false,
        permission_timeout: std::time::Duration::from_secs(300),
        project_roots: Vec::new(),
        home: base.join("home"),
        state_directory: base.join("state"),
        server_uid: uid(),
        limits: limits(),
        max_sessions: 3,
        callers: policy::CallerLimits::default(),
        default_ttl: Duration::from_secs(3600),
        max_ttl: Duration::from_secs(7200),
        default_idle: Duration::from_secs(1800),
        max_execution_timeout: Duration::from_secs(600),
        max_running_executions: 2,
        lease: Duration::from_secs(60),
        allow_protected_changes: false,
        dangerously_accept_soft_limits: false,
        operator_mounts: Vec::new(),
        backends: vec![BackendName::Fake],
        runtime_classes: Vec::new(),
        network: policy::NetworkConfig {
            allow: ceiling
                .iter()
                .map(|rule| rule.parse().expect("a rule"))
                .collect(),
            ..policy::NetworkConfig::default()
        },
    }
}

fn limits() -> Limits {
    Policy::default_limits().expect("the profile")
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn directory(path: &Path) -> HostDirectory {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).expect("a directory");
    HostDirectory {
        path: path.canonicalize().expect("a path"),
        device: found.dev(),
        inode: found.ino(),
        uid: found.uid(),
        gid: found.gid(),
    }
}

/// The way to hosts of a server.
fn network() -> session::Network {
    session::Network {
        proxy: egress::proxy::Proxy::new(egress::proxy::ProxyLimits::default()),
        resolver: Arc::new(egress::destination::SystemResolver::default()),
        credentials: session::Credentials::default(),
    }
}
