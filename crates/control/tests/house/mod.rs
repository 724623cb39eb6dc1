//! The server of the scenario, on a fake engine behind a recorder: its callers, its kills, and what its log says.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use audit::{AuditConfig, AuditError, AuditLog, IdentityKey, Phase};
use control::{Control, KeeperSettings, KeyRing, Parts, Road, TokenRights, TurnAudit};
use model::{
    Action, Awaited, Call, ClientInfo, ConversationChoice, CreateSession, Credentials,
    ExecuteCommand, ExecutePrompt, ExecutionId, ExecutionView, GetExecution, Outcome, OwnerId,
    PromptOptions, Refusal, RootFileSystem, Secret, SessionId, Source, WhenBusy,
};
use sandbox::{
    Backend, HostView,
    fake::{Fake, FakeOptions},
};
use session::{Backends, ReapRequest, Sessions, Setup};
use store::{Pepper, Store};
use tokio::{
    runtime::{Handle, Runtime},
    sync::mpsc,
};

use crate::{
    BACKGROUND, LONG,
    operations::{self, Background, Verdict, judge},
    recorder::{Recorder, Tape},
    support::{self, facts, network, policy, session_on, uid},
};

pub const PATIENCE: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_secs(3600);

/// A server on a fake engine behind a recorder.
pub struct House {
    pub base: tempfile::TempDir,
    pub fake: Fake,
    pub tape: Tape,
    pub recorder: Arc<Recorder<Fake>>,
    pub audit: AuditLog,
    pub control: Control,
    pub reap: Option<mpsc::UnboundedReceiver<ReapRequest>>,
    tasks: Tasks,
    /// How long the log was when a caller handed in a call.
    pub handed_in: Mutex<BTreeSet<u64>>,
}

/// What a server does by itself. It ends when this is dropped, as by a kill; what runs in the fake's sandboxes goes on.
struct Tasks(Option<Runtime>);

impl Tasks {
    pub fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build();
        Tasks(Some(runtime.expect("a runtime")))
    }

    pub fn handle(&self) -> &Handle {
        self.0.as_ref().expect("until it is dropped").handle()
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl House {
    pub async fn new(lease: Duration) -> Self {
        let base = directories();
        let tape = Tape::beside(base.path().join("state/audit.jsonl"));
        let fake = Fake::with_options(FakeOptions {
            has_claude_code: true,
            ..FakeOptions::default()
        });
        let mut house = House::on(base, fake, tape, lease);
        house.keep().await;
        house
    }

    /// A server that does not look after itself yet.
    pub fn on(base: tempfile::TempDir, fake: Fake, tape: Tape, lease: Duration) -> Self {
        let path = base.path().canonicalize().expect("a path");
        let tasks = Tasks::new();
        let in_tasks = tasks.handle().enter();
        let (store, _) = Store::open(&path.join("state/state.db")).expect("a store");
        let audit = open_log(&path).expect("a log");
        let recorder = Arc::new(Recorder {
            backend: fake.clone(),
            tape: tape.clone(),
        });
        let (reap_sender, reap) = mpsc::unbounded_channel();
        let sessions = Sessions::new(Setup {
            agent: Arc::new(|| Ok(None)),
            store: store.clone(),
            backends: Backends::new([(
                recorder.clone() as Arc<dyn Backend>,
                RootFileSystem::HostSystem,
            )]),
            policy: Arc::new(policy(&path, |config| {
                config.default_ttl = NEVER;
                config.max_ttl = NEVER * 2;
                config.default_idle = NEVER;
                config.lease = lease;
                config.network.allow = vec!["*.example.com".parse().expect("a rule")];
            })),
            host_view: HostView::default(),
            allow_protected_changes: false,
            egress: session::Egress::none().expect("no way to a provider"),
            network: network(),
            turns: Arc::new(TurnAudit::new(audit.clone())),
            transcripts: path.join("transcripts"),
            reap: reap_sender,
        });
        let pepper = Pepper::open(&path.join("state/keys.pepper")).expect("a pepper");
        let control = Control::new(Parts {
            audit: audit.clone(),
            sessions,
            server: facts(),
            keys: KeyRing::open(store, pepper).expect("keys"),
            tokens: TokenRights::default(),
        });
        drop(in_tasks);
        House {
            base,
            fake,
            tape,
            recorder,
            audit,
            control,
            reap: Some(reap),
            tasks,
            handed_in: Mutex::default(),
        }
    }

    /// From now on it does, and has looked what there is.
    pub async fn keep(&mut self) {
        let settings = KeeperSettings {
            // Once, at the start.
            reconcile_every: NEVER,
            remember_ended: NEVER,
        };
        let reap = self.reap.take().expect("once");
        let from = self.tape.calls().len();
        let keeping = control::keep(self.control.clone(), reap, settings);
        self.tasks.handle().spawn(keeping);
        until("a first look", || self.tape.heard("list", from)).await;
    }

    /// The server is killed. What it held is free when this returns.
    pub async fn kill(self) -> Remains {
        drop((self.tasks, self.control, self.audit, self.recorder));
        let path = self.base.path().canonicalize().expect("a path");
        until("the log is free", || open_log(&path).is_ok()).await;
        Remains {
            base: self.base,
            fake: self.fake,
            tape: self.tape,
            handed_in: self.handed_in,
        }
    }

    pub fn project(&self) -> PathBuf {
        self.base
            .path()
            .canonicalize()
            .expect("a path")
            .join("project")
    }

    pub async fn handle(&self, action: Action) -> Result<Outcome, Refusal> {
        // Reads are written behind: those before this one.
        self.audit.flush().await;
        let at = self.tape.position();
        self.handed_in.lock().expect("no panic").insert(at);
        let credentials = Credentials::LocalPeer {
            uid: uid(),
            pid: 1,
            roots: vec![self.project()],
        };
        let call = Call {
            credentials,
            source: Source::LOCAL,
            client: ClientInfo {
                name: "tests".into(),
                version: "1".into(),
            },
            action,
        };
        let control = self.control.clone();
        let work = async move { control.handle(call).await };
        let answer = self.tasks.handle().spawn(work).await;
        self.audit.flush().await;
        answer.expect("no panic")
    }

    pub async fn create(
        &self,
        change: impl FnOnce(&mut CreateSession),
    ) -> Result<SessionId, Refusal> {
        let mut asked = create(self.project());
        change(&mut asked);
        match self.handle(Action::CreateSession(Box::new(asked))).await {
            Ok(Outcome::Session(session)) => Ok(session.id),
            Err(refusal) => Err(refusal),
            Ok(other) => panic!("no session: {other:?}"),
        }
    }

    pub async fn run(
        &self,
        session: SessionId,
        line: &str,
        change: impl FnOnce(&mut ExecuteCommand),
    ) -> ExecutionId {
        let mut asked = command(session, line);
        change(&mut asked);
        match self.handle(Action::ExecuteCommand(asked)).await {
            Ok(Outcome::Execution(execution)) => execution.id,
            other => panic!("no execution: {other:?}"),
        }
    }

    /// Gives Claude Code a prompt, and waits no longer than until that is taken.
    pub async fn prompt(
        &self,
        session: SessionId,
        words: &str,
        change: impl FnOnce(&mut ExecutePrompt),
    ) -> ExecutionView {
        let mut asked = ExecutePrompt {
            session,
            prompt: Secret::new(words.to_owned()),
            conversation: ConversationChoice::Latest,
            options: PromptOptions::default(),
            when_busy: WhenBusy::Queue,
            timeout: None,
            wait: Duration::ZERO,
        };
        change(&mut asked);
        match self.handle(Action::ExecutePrompt(asked)).await {
            Ok(Outcome::Execution(execution)) => *execution,
            other => panic!("no prompt: {other:?}"),
        }
    }

    pub async fn read(
        &self,
        execution: ExecutionId,
        wait: Duration,
        awaited: Awaited,
    ) -> ExecutionView {
        let asked = GetExecution {
            execution,
            stdout_cursor: 0,
            stderr_cursor: 0,
            wait,
            awaited,
        };
        match self.handle(Action::GetExecution(asked)).await {
            Ok(Outcome::Execution(execution)) => *execution,
            other => panic!("no execution: {other:?}"),
        }
    }

    /// Waits until the log has the result of that action on that session.
    pub async fn until_done(&self, action: &str, session: SessionId) {
        self.until_done_times(1, action, session).await;
    }

    pub async fn until_done_times(&self, times: usize, action: &str, session: SessionId) {
        let log = self.base.path().join("state/audit.jsonl");
        until(action, || {
            let records = audit::read(&log).expect("the log");
            // The last line may be half written.
            let done = records.filter_map(Result::ok).filter(|record| {
                record.body.action == action
                    && record.body.session_id == Some(session)
                    && record.body.phase == Phase::Result
            });
            done.count() >= times
        })
        .await;
    }

    /// What the log says of all that was recorded.
    pub async fn verdict(&self) -> Verdict {
        self.verdict_by(BACKGROUND).await
    }

    pub async fn verdict_by(&self, background: &[Background]) -> Verdict {
        self.audit.flush().await;
        let handed_in = self.handed_in.lock().expect("no panic").clone();
        let records = operations::records(&self.base.path().join("state/audit.jsonl"));
        let operations = operations::operations(records, &handed_in);
        judge(&self.tape.calls(), &operations, background)
    }
}

/// What is left of a server.
pub struct Remains {
    pub base: tempfile::TempDir,
    pub fake: Fake,
    pub tape: Tape,
    pub handed_in: Mutex<BTreeSet<u64>>,
}

impl Remains {
    /// The next server.
    pub async fn restart(self, lease: Duration) -> House {
        let mut house = House::on(self.base, self.fake, self.tape, lease);
        house.handed_in = self.handed_in;
        house.keep().await;
        house
    }
}

/// Where a server stands.
pub fn directories() -> tempfile::TempDir {
    let base = tempfile::tempdir().expect("a directory");
    let path = base.path();
    for directory in ["project", "state"] {
        std::fs::create_dir(path.join(directory)).expect("a directory");
    }
    std::fs::set_permissions(path.join("state"), std::fs::Permissions::from_mode(0o700))
        .expect("a mode");
    std::fs::write(path.join("project/in.txt"), "in").expect("a file");
    base
}

pub fn open_log(base: &Path) -> Result<AuditLog, AuditError> {
    AuditLog::open(AuditConfig::new(
        base.join("state/audit.jsonl"),
        OwnerId::from_bytes([1; 8]),
        IdentityKey::from_bytes(&[1; 32]),
    ))
}

pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "never came true: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn create(project_path: PathBuf) -> CreateSession {
    CreateSession {
        env: BTreeMap::from([("NAME".to_owned(), Secret::new("value".to_owned()))]),
        ..session_on(project_path)
    }
}

pub fn command(session: SessionId, line: &str) -> ExecuteCommand {
    support::command(session, line, LONG)
}
