//! Every call to an engine lies inside exactly one audited operation: a full scenario on the road, over a fake engine behind a
//! recorder, held against the log that the road wrote (A1). `tests/e2e/operations.rs` does the same with real engines.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../../../tests/support/operations.rs"]
mod operations;
mod recorder;
mod support;

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
    Action, AnsweredBy, Awaited, Call, ClientInfo, ConversationChoice, CreateSession, Credentials,
    ExecuteCommand, ExecutePrompt, ExecutionId, ExecutionState, ExecutionView, GetExecution,
    Outcome, OwnerId, PromptOptions, ReadFile, Refusal, RootFileSystem, Secret, SessionId, Source,
    Terminal, TransferDirection, TransferFiles, WhenBusy, WidenNetwork, WriteFile,
};
use operations::{Background, Effect, EngineCall, Operation, Verdict, judge};
use recorder::{Recorder, Tape};
use sandbox::{
    Backend, BackendError, HostView,
    fake::{Fake, FakeOptions, Verb},
    wire::MAX_CHUNK_BYTES,
};
use session::{Backends, ReapRequest, Sessions, Setup};
use store::{Pepper, Store};
use support::{facts, network, policy, session_on, uid};
use tokio::{
    runtime::{Handle, Runtime},
    sync::mpsc,
};

/// What also comes between operations. A kind that is not among these is a finding, and so is one here that never comes.
const BACKGROUND: &[Background] = &[
    Background::new(
        "list",
        "the reconciler looks what there is; each thing that it does about it is an operation",
    ),
    Background::new(
        "stats",
        "looks whether the kernel killed for memory, at the end of an execution whose caller no longer waits",
    ),
    Background::new(
        "Wait",
        "one question for the end of an execution stays open as long as that runs",
    ),
    Background::new(
        "Read",
        "a question for more output stays open after the caller who waited for it has left",
    ),
    Background::new(
        "RenewLease",
        "lets go on what an operation began, no longer than that allowed; a record three times in each lease would tell nothing",
    ),
    Background::new(
        "Welcome",
        "the greeting of a supervisor that dials again: the same connection to the same sandbox goes on",
    ),
];

/// What comes besides where a command brings more input than its program reads.
const CARRIED_ON: Background = Background::carrying_on(
    "WriteStdin",
    "the rest of the input that came with a command, of which the intent has the digest, as the program reads it",
);

const PATIENCE: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_secs(3600);

/// A server on a fake engine behind a recorder.
struct House {
    base: tempfile::TempDir,
    fake: Fake,
    tape: Tape,
    recorder: Arc<Recorder<Fake>>,
    audit: AuditLog,
    control: Control,
    reap: Option<mpsc::UnboundedReceiver<ReapRequest>>,
    tasks: Tasks,
    /// How long the log was when a caller handed in a call.
    handed_in: Mutex<BTreeSet<u64>>,
}

/// What a server does by itself. It ends when this is dropped, as by a kill; what runs in the fake's sandboxes goes on.
struct Tasks(Option<Runtime>);

impl Tasks {
    fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build();
        Tasks(Some(runtime.expect("a runtime")))
    }

    fn handle(&self) -> &Handle {
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
    async fn new(lease: Duration) -> Self {
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
    fn on(base: tempfile::TempDir, fake: Fake, tape: Tape, lease: Duration) -> Self {
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
    async fn keep(&mut self) {
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
    async fn kill(self) -> Remains {
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

    fn project(&self) -> PathBuf {
        self.base
            .path()
            .canonicalize()
            .expect("a path")
            .join("project")
    }

    async fn handle(&self, action: Action) -> Result<Outcome, Refusal> {
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

    async fn create(&self, change: impl FnOnce(&mut CreateSession)) -> Result<SessionId, Refusal> {
        let mut asked = create(self.project());
        change(&mut asked);
        match self.handle(Action::CreateSession(Box::new(asked))).await {
            Ok(Outcome::Session(session)) => Ok(session.id),
            Err(refusal) => Err(refusal),
            Ok(other) => panic!("no session: {other:?}"),
        }
    }

    async fn run(
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
    async fn prompt(
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

    async fn read(
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
    async fn until_done(&self, action: &str, session: SessionId) {
        self.until_done_times(1, action, session).await;
    }

    async fn until_done_times(&self, times: usize, action: &str, session: SessionId) {
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
    async fn verdict(&self) -> Verdict {
        self.verdict_by(BACKGROUND).await
    }

    async fn verdict_by(&self, background: &[Background]) -> Verdict {
        self.audit.flush().await;
        let handed_in = self.handed_in.lock().expect("no panic").clone();
        let records = operations::records(&self.base.path().join("state/audit.jsonl"));
        let operations = operations::operations(records, &handed_in);
        judge(&self.tape.calls(), &operations, background)
    }
}

/// What is left of a server.
struct Remains {
    base: tempfile::TempDir,
    fake: Fake,
    tape: Tape,
    handed_in: Mutex<BTreeSet<u64>>,
}

impl Remains {
    /// The next server.
    async fn restart(self, lease: Duration) -> House {
        let mut house = House::on(self.base, self.fake, self.tape, lease);
        house.handed_in = self.handed_in;
        house.keep().await;
        house
    }
}

/// Where a server stands.
fn directories() -> tempfile::TempDir {
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

fn open_log(base: &Path) -> Result<AuditLog, AuditError> {
    AuditLog::open(AuditConfig::new(
        base.join("state/audit.jsonl"),
        OwnerId::from_bytes([1; 8]),
        IdentityKey::from_bytes(&[1; 32]),
    ))
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "never came true: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn create(project_path: PathBuf) -> CreateSession {
    CreateSession {
        env: BTreeMap::from([("NAME".to_owned(), Secret::new("value".to_owned()))]),
        ..session_on(project_path)
    }
}

fn command(session: SessionId, line: &str) -> ExecuteCommand {
    support::command(session, line, LONG)
}

/// The lease of a scenario in which nothing is to happen by time alone.
const QUIET: Duration = Duration::from_secs(600);

/// A session from its making to its end, by everything that a caller can do with it.
async fn whole_life(house: &House) {
    let session = house.create(|_| {}).await.expect("a session");
    house.run(session, "echo hi", |_| {}).await;
    let fed = house
        .run(session, "cat", |asked| {
            asked.stdin = Some(Secret::new(b"in".to_vec()));
            asked.wait = Duration::ZERO;
        })
        .await;
    house.read(fed, LONG, Awaited::End).await;
    let open = house
        .run(session, "cat", |asked| {
            asked.keep_stdin_open = true;
            asked.terminal = Some(Terminal {
                rows: 24,
                columns: 80,
            });
            asked.wait = Duration::ZERO;
        })
        .await;
    let terminal = Terminal {
        rows: 50,
        columns: 80,
    };
    let resize = Action::ResizeTerminal {
        execution: open,
        terminal,
    };
    house.handle(resize).await.expect("resized");
    let respond = Action::RespondExecution {
        execution: open,
        data: Secret::new(b"more".to_vec()),
        close: true,
    };
    house.handle(respond).await.expect("taken");
    house.read(open, LONG, Awaited::End).await;
    let long = house
        .run(session, "sleep 600", |asked| asked.wait = Duration::ZERO)
        .await;
    house.read(long, Duration::ZERO, Awaited::News).await;
    let cancelled = house.handle(Action::CancelExecution(long)).await;
    cancelled.expect("cancelled");
    files(house, session).await;
    for action in [
        Action::WidenNetwork(WidenNetwork {
            session,
            allow: vec!["a.example.com".parse().expect("a rule")],
            by: AnsweredBy::Person,
        }),
        Action::ExtendSession {
            session,
            by: Duration::from_secs(60),
        },
        Action::GetSession(session),
        Action::ListSessions { ended: false },
        Action::GetSessionLogs { session, tail: 10 },
        Action::GetServerInfo,
        Action::DestroySession(session),
    ] {
        let name = action.name();
        let done = house.handle(action).await;
        done.unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
    }
}

async fn files(house: &House, session: SessionId) {
    let project = house.project();
    for action in [
        Action::TransferFiles(TransferFiles {
            session,
            direction: TransferDirection::ToContainer,
            source: project.join("in.txt"),
            destination: "/workspace/copy.txt".into(),
        }),
        Action::TransferFiles(TransferFiles {
            session,
            direction: TransferDirection::FromContainer,
            source: "/workspace/copy.txt".into(),
            destination: project.join("out.txt"),
        }),
        Action::WriteFile(WriteFile {
            session,
            destination: "/workspace/written.txt".into(),
            content: Secret::new(b"written".to_vec()),
            upload: None,
            offset: 0,
            is_last: true,
        }),
        Action::ReadFile(ReadFile {
            session,
            source: "/workspace/written.txt".into(),
            download: None,
            offset: 0,
            length: 100,
        }),
    ] {
        let name = action.name();
        let done = house.handle(action).await;
        done.unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
    }
}

/// A session that may have a provider.
fn for_prompts(asked: &mut CreateSession) {
    asked.agent.provider.api_key = Some(Secret::new("key".to_owned()));
}

/// No process that runs fits it.
fn with_others(asked: &mut ExecutePrompt) {
    asked.options.model = Some("other".to_owned());
}

/// Prompts that begin at once and that wait for their turn, each on the process that is there and on another one.
async fn prompts(house: &House) {
    let session = house.create(for_prompts).await.expect("a session");
    house
        .prompt(session, "wait for /workspace/go", |_| {})
        .await;
    for with in [|_: &mut ExecutePrompt| {}, with_others] {
        let queued = house.prompt(session, "next", with).await;
        assert_eq!(queued.state, ExecutionState::Queued);
    }
    house.fake.put_file(session, "/workspace/go", b"");
    // No call waits for them: it would hold what is done for them as well.
    house.until_done_times(2, "prompt.begin", session).await;
    let from = house.tape.calls().len();
    // On an idle process that does not fit: the call waits until there is another.
    let last = house.prompt(session, "last", |_| {}).await;
    assert!(house.tape.heard("Start", from));
    let last = house.read(last.id, LONG, Awaited::End).await;
    assert_eq!(last.state, ExecutionState::Exited, "{last:?}");
    let destroyed = house.handle(Action::DestroySession(session)).await;
    destroyed.expect("destroyed");
}

/// Sessions that end without a caller, and some that never come to be.
async fn ends_without_a_caller(house: &House) {
    let killed = house.create(|_| {}).await.expect("a session");
    house.fake.kill(killed);
    house.until_done("session.reap", killed).await;
    let expires = |asked: &mut CreateSession| asked.ttl = Some(Duration::from_secs(1));
    let expired = house.create(expires).await.expect("a session");
    house.until_done("session.reap", expired).await;
    house.fake.fail(Verb::Inspect, || {
        BackendError::Unsupported("a test".to_owned())
    });
    house.create(|_| {}).await.expect_err("it is not verified");
    house.fake.heal(Verb::Inspect);
}

/// A server that is killed, and what the next one finds: sessions that go on, one that is gone, and what is nobody's.
async fn restart(house: House) -> House {
    let goes_on = house.create(|_| {}).await.expect("a session");
    let also = house.create(|_| {}).await.expect("a session");
    let gone = house.create(|_| {}).await.expect("a session");
    let prompted = house.create(for_prompts).await.expect("a session");
    house
        .prompt(prompted, "wait for /workspace/go", |_| {})
        .await;
    let waits = house.prompt(prompted, "next", with_others).await;
    // Of the same engine, and on nobody's record.
    let unseen = Tape::beside("/nowhere".into());
    let other = House::on(directories(), house.fake.clone(), unseen, QUIET);
    let nobodys = other.create(|_| {}).await.expect("a session");
    drop(other.kill().await);
    let remains = house.kill().await;
    remains.fake.kill(gone);
    let house = remains.restart(QUIET).await;
    for (action, session) in [
        ("session.adopt", goes_on),
        ("session.adopt", also),
        ("session.adopt", prompted),
        ("session.reap", gone),
        ("session.remove_remains", nobodys),
    ] {
        house.until_done(action, session).await;
    }
    house.run(goes_on, "echo still", |_| {}).await;
    house.fake.put_file(prompted, "/workspace/go", b"");
    house.until_done("prompt.begin", prompted).await;
    let waited = house.read(waits.id, LONG, Awaited::End).await;
    assert_eq!(waited.state, ExecutionState::Exited, "{waited:?}");
    for session in [goes_on, also, prompted] {
        let ended = house.handle(Action::DestroySession(session)).await;
        ended.expect("destroyed");
    }
    house
}

/// What a scenario must have shown, or else it proves nothing: an action, and a call that lies inside it.
const SHOWN: &[(&str, &str)] = &[
    ("session.create", "create"),
    ("session.create", "Welcome"),
    ("session.create", "inspect"),
    ("session.create", "SetEnvironment"),
    ("session.create", "OpenRelay"),
    ("session.create", "destroy"),
    ("execution.start", "Start"),
    ("execution.start", "WriteStdin"),
    ("execution.stdin", "WriteStdin"),
    ("execution.resize", "Resize"),
    ("execution.read", "Read"),
    ("execution.cancel", "Cancel"),
    ("files.transfer", "Import"),
    ("files.transfer", "Export"),
    ("files.transfer", "content"),
    ("files.write", "Import"),
    ("files.write", "content"),
    ("files.read", "Export"),
    ("files.read", "content"),
    ("session.read", "stats"),
    ("session.list", "stats"),
    ("session.destroy", "destroy"),
    ("session.reap", "destroy"),
    ("session.adopt", "connect"),
    ("session.adopt", "Welcome"),
    ("session.adopt", "OpenRelay"),
    ("session.adopt", "List"),
    ("session.remove_remains", "destroy"),
    ("prompt.start", "Start"),
    ("prompt.start", "WriteStdin"),
    ("prompt.begin", "Start"),
    ("prompt.begin", "WriteStdin"),
    ("prompt.begin", "Forget"),
];

#[tokio::test]
async fn every_call_of_a_full_scenario_lies_inside_exactly_one_audited_operation() {
    let house = House::new(QUIET).await;
    whole_life(&house).await;
    prompts(&house).await;
    ends_without_a_caller(&house).await;
    let house = restart(house).await;
    let verdict = house.verdict().await;
    assert_eq!(verdict.findings, Vec::<String>::new());
    let missing: Vec<_> = SHOWN
        .iter()
        .filter(|(action, call)| {
            let shown = ((*action).to_owned(), (*call).to_owned());
            !verdict.held.contains(&shown)
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}: {:?}", verdict.held);
}

/// Starts executions that nobody waits for until such a call has come after the operation of one.
async fn until_outside(house: &House, session: SessionId, name: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !house.verdict().await.outside.contains(name) {
        assert!(tokio::time::Instant::now() < deadline, "{name} never came");
        let from = house.tape.calls().len();
        house
            .run(session, "sleep 0.1", |asked| asked.wait = Duration::ZERO)
            .await;
        until(name, || house.tape.heard(name, from)).await;
    }
}

#[tokio::test]
async fn what_comes_between_operations_is_told_by_name_and_all_of_it_comes() {
    // Renewed three times in each.
    let house = House::new(Duration::from_secs(6)).await;
    let session = house.create(|_| {}).await.expect("a session");
    // Until one has ended after its operation.
    until_outside(&house, session, "stats").await;
    // Longer than the caller waits, who leaves a question open.
    let longer = house
        .run(session, "sleep 600", |asked| asked.wait = Duration::ZERO)
        .await;
    house
        .read(longer, Duration::from_millis(50), Awaited::News)
        .await;
    // More than is taken by a program that does not read.
    house
        .run(session, "sleep 600", |asked| {
            asked.stdin = Some(Secret::new(vec![0; 2 * MAX_CHUNK_BYTES]));
            asked.wait = Duration::ZERO;
        })
        .await;
    let from = house.tape.calls().len();
    until("it is offered again", || {
        house.tape.heard("WriteStdin", from)
    })
    .await;
    let from = house.tape.calls().len();
    house.fake.disconnect(session);
    until("it dials again", || house.tape.heard("Welcome", from)).await;
    until("its lease is renewed", || {
        house.tape.heard("RenewLease", from)
    })
    .await;
    let all = [BACKGROUND, &[CARRIED_ON]].concat();
    let verdict = house.verdict_by(&all).await;
    assert_eq!(verdict.findings, Vec::<String>::new());
    let known: BTreeSet<_> = all.iter().map(|known| known.name).collect();
    assert_eq!(verdict.outside, known);
    assert!(all.iter().all(|known| !known.because.is_empty()));
    assert!(
        !house.verdict().await.findings.is_empty(),
        "the control: what carries on is a finding where that is not listed"
    );
}

#[tokio::test]
async fn a_prompt_that_waited_began_though_the_log_could_not_be_written() {
    let house = House::new(QUIET).await;
    let session = house.create(for_prompts).await.expect("a session");
    house
        .prompt(session, "wait for /workspace/go", |_| {})
        .await;
    let control = house
        .prompt(session, "wait for /workspace/on", |_| {})
        .await;
    let refused = house.prompt(session, "next", with_others).await;
    house.fake.put_file(session, "/workspace/go", b"");
    house.until_done("prompt.begin", session).await;
    // A log that somebody else writes to takes no more records.
    let log = house.base.path().join("state/audit.jsonl");
    let other = std::fs::OpenOptions::new().append(true).open(log);
    std::io::Write::write_all(&mut other.expect("the log"), b"x").expect("written");
    let from = house.tape.calls().len();
    house.fake.put_file(session, "/workspace/on", b"");
    let control = house.read(control.id, LONG, Awaited::End).await;
    assert_eq!(control.state, ExecutionState::Exited, "it had begun");
    let refused = house.read(refused.id, LONG, Awaited::End).await;
    assert_eq!(refused.state, ExecutionState::Failed, "{refused:?}");
    let why = refused.failure.expect("why");
    assert!(why.starts_with("audit_unavailable: "), "{why}");
    assert!(!house.tape.heard("Start", from) && !house.tape.heard("WriteStdin", from));
}

#[tokio::test]
async fn a_call_beside_the_road_is_found() {
    let house = House::new(QUIET).await;
    let session = house.create(|_| {}).await.expect("a session");
    house.run(session, "true", |_| {}).await;
    assert_eq!(
        house.verdict().await.findings,
        Vec::<String>::new(),
        "the control"
    );
    house.recorder.destroy(session).await.expect("destroyed");
    let findings = house.verdict().await.findings;
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let found = &findings[0];
    assert!(
        found.starts_with("outside of every operation") && found.contains("\"destroy\""),
        "{found}"
    );
}

#[tokio::test]
async fn a_call_that_two_operations_on_one_session_claim_is_found() {
    let house = House::new(QUIET).await;
    let session = house.create(|_| {}).await.expect("a session");
    let from = house.tape.calls().len();
    // Open for as long as its command runs.
    let waits = house.run(session, "sleep 600", |_| {});
    let other = async {
        until("the first one has begun", || house.tape.heard("Wait", from)).await;
        house
            .run(session, "true", |asked| asked.wait = Duration::ZERO)
            .await;
        house.handle(Action::DestroySession(session)).await
    };
    let (_, destroyed) = tokio::join!(waits, other);
    destroyed.expect("destroyed");
    let findings = house.verdict().await.findings;
    let twice = |name: &str| {
        let name = format!("{name:?}");
        findings
            .iter()
            .any(|found| found.starts_with("in several operations") && found.contains(&name))
    };
    assert!(twice("Start") && twice("destroy"), "{findings:#?}");
}

fn operation(id: &str, session: u8, from: u64, to: u64) -> Operation {
    Operation {
        id: id.to_owned(),
        action: "action".to_owned(),
        session: Some(SessionId::from_bytes([session; 16])),
        has_intent: true,
        from,
        to,
    }
}

fn call(name: &str, session: u8, begun: u64, ended: Option<u64>) -> EngineCall {
    EngineCall {
        name: name.to_owned(),
        effect: Effect::Changes,
        session: Some(SessionId::from_bytes([session; 16])),
        execution: None,
        begun,
        ended,
    }
}

#[test]
fn what_holds_a_call_is_one_operation_of_its_session_from_before_it_to_after_it() {
    let operations = [operation("a", 1, 10, 20), operation("b", 2, 15, 30)];
    let read = Operation {
        has_intent: false,
        ..operation("c", 3, 40, 50)
    };
    let operations = [operations.as_slice(), &[read]].concat();
    let found = |call: EngineCall| judge(&[call], &operations, BACKGROUND).findings.len();
    assert_eq!(found(call("destroy", 1, 10, Some(20))), 0, "the control");
    for (call, why) in [
        (
            call("destroy", 1, 9, Some(20)),
            "before the intent was durable",
        ),
        (
            call("destroy", 1, 10, Some(21)),
            "after the result was written",
        ),
        (call("destroy", 1, 10, None), "and never ended"),
        (call("destroy", 2, 10, Some(20)), "of another session"),
        (
            call("destroy", 3, 41, Some(42)),
            "a change in what only reads",
        ),
        (
            call("unheard of", 1, 50, Some(60)),
            "a kind that nobody listed",
        ),
    ] {
        assert_eq!(found(call), 1, "{why}");
    }
    assert_eq!(
        found(call("RenewLease", 1, 50, Some(60))),
        0,
        "a kind that is listed"
    );
    let [start, carried_on] = [("Start", 12), ("WriteStdin", 50)].map(|(name, at)| EngineCall {
        execution: Some([7; 16]),
        ..call(name, 1, at, Some(at))
    });
    let carried = |calls: &[EngineCall]| judge(calls, &operations, &[CARRIED_ON]).findings.len();
    assert_eq!(carried(&[start.clone(), carried_on.clone()]), 0);
    assert_eq!(
        carried(std::slice::from_ref(&carried_on)),
        1,
        "nothing began it"
    );
    let other = EngineCall {
        execution: Some([8; 16]),
        ..carried_on
    };
    assert_eq!(carried(&[start, other]), 1, "another execution's");
    let looks = |session| EngineCall {
        effect: Effect::Observes,
        ..call("inspect", session, 41, Some(42))
    };
    assert_eq!(
        (found(looks(3)), found(looks(1))),
        (0, 1),
        "what only reads may look"
    );
    let twice = [operation("a", 1, 10, 20), operation("b", 1, 15, 30)];
    let judged = judge(&[call("destroy", 1, 16, Some(18))], &twice, BACKGROUND);
    assert_eq!(judged.findings.len(), 1, "two claim it");
}
