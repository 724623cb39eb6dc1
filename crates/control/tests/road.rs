//! The road on the fake backend: every call is recorded, nothing changes without a durable intent, the server's own
//! calls pass the same way (A1, T1.3).
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    collections::BTreeMap, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc, time::Duration,
};

use audit::{AuditConfig, AuditLog, IdentityKey, Phase, Record};
use control::{Control, KeeperSettings, KeyRing, Parts, Road, TokenRights};
use model::{
    Action, BackendName, Call, ClientInfo, CreateSession, Credentials, Outcome, OwnerId, Reason,
    Refusal, RootFileSystem, SandboxSpec, SessionId, SessionState, Source, UsageView,
};
use sandbox::{Backend, BackendError, Capability, HostView, Inspection, Link, Listed, fake::Fake};
use session::{Backends, ReapRequest, Sessions, Setup};
use store::{Pepper, Store};
use support::{NoTurns, command, facts, network, policy, session_on, uid};
use tokio::sync::mpsc;

struct House {
    base: tempfile::TempDir,
    fake: Fake,
    control: Control,
    reap: Option<mpsc::UnboundedReceiver<ReapRequest>>,
}

impl House {
    fn new() -> Self {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().canonicalize().expect("a path");
        for directory in ["project", "state"] {
            std::fs::create_dir(path.join(directory)).expect("a directory");
        }
        std::fs::set_permissions(path.join("state"), std::fs::Permissions::from_mode(0o700))
            .expect("a mode");
        House::on(base, Fake::new())
    }

    /// A server on that directory, over these sandboxes.
    fn on(base: tempfile::TempDir, fake: Fake) -> Self {
        House::beside(base, fake, None)
    }

    /// With another backend beside the fake one.
    fn beside(base: tempfile::TempDir, fake: Fake, other: Option<Arc<dyn Backend>>) -> Self {
        let path = base.path().canonicalize().expect("a path");
        let (store, _) = Store::open(&path.join("state/state.db")).expect("a store");
        let owner = OwnerId::from_bytes([1; 8]);
        let audit = AuditLog::open(AuditConfig::new(
            path.join("state/audit.jsonl"),
            owner,
            IdentityKey::from_bytes(&[1; 32]),
        ))
        .expect("a log");
        let keys = store.clone();
        let (reap_sender, reap) = mpsc::unbounded_channel();
        let sessions = Sessions::new(Setup {
            agent: Arc::new(|| Ok(None)),
            store,
            backends: Backends::new(
                other
                    .into_iter()
                    .chain([Arc::new(fake.clone()) as Arc<dyn Backend>])
                    .map(|backend| (backend, RootFileSystem::HostSystem)),
            ),
            policy: Arc::new(policy(&path, |config| config.max_sessions = 3)),
            host_view: HostView::default(),
            allow_protected_changes: false,
            egress: session::Egress::none().expect("no way to a provider"),
            network: network(),
            turns: Arc::new(NoTurns),
            transcripts: path.join("transcripts"),
            reap: reap_sender,
        });
        let pepper = Pepper::open(&path.join("state/keys.pepper")).expect("a pepper");
        let control = Control::new(Parts {
            audit,
            sessions,
            server: facts(),
            keys: KeyRing::open(keys, pepper).expect("keys"),
            tokens: TokenRights::default(),
        });
        House {
            base,
            fake,
            control,
            reap: Some(reap),
        }
    }

    /// The next server on the same directory, over the same sandboxes.
    fn restart(self) -> Self {
        let House {
            base,
            fake,
            control,
            reap,
        } = self;
        drop((control, reap));
        House::on(base, fake)
    }

    fn project(&self) -> PathBuf {
        self.base
            .path()
            .canonicalize()
            .expect("a path")
            .join("project")
    }

    fn call(&self, action: Action) -> Call {
        self.call_as(uid(), action)
    }

    fn call_as(&self, uid: u32, action: Action) -> Call {
        let credentials = Credentials::LocalPeer {
            uid,
            pid: 1,
            roots: vec![self.project()],
        };
        Call {
            credentials,
            source: Source::LOCAL,
            client: ClientInfo {
                name: "tests".into(),
                version: "1".into(),
            },
            action,
        }
    }

    async fn handle(&self, action: Action) -> Result<Outcome, Refusal> {
        self.control.handle(self.call(action)).await
    }

    async fn create(&self) -> SessionId {
        match self.handle(create(self.project())).await {
            Ok(Outcome::Session(session)) => session.id,
            other => panic!("no session: {other:?}"),
        }
    }

    fn records(&self) -> Vec<Record> {
        let path = self.base.path().join("state/audit.jsonl");
        audit::read(&path)
            .expect("the log")
            .map(|record| record.expect("a record"))
            .collect()
    }
}

fn create(project_path: PathBuf) -> Action {
    let secret = model::Secret::new("canary-secret".to_owned());
    Action::CreateSession(Box::new(CreateSession {
        env: BTreeMap::from([("TOKEN".to_owned(), secret)]),
        ..session_on(project_path)
    }))
}

fn run(session: SessionId, line: &str) -> Action {
    Action::ExecuteCommand(command(session, line, Duration::from_secs(10)))
}

#[tokio::test]
async fn every_call_has_an_intent_and_a_result_and_content_stays_out_of_the_log() {
    let house = House::new();
    let session = house.create().await;
    house
        .handle(run(session, "echo canary-argument"))
        .await
        .expect("an execution");
    house
        .handle(Action::ListSessions { ended: false })
        .await
        .expect("a list");
    let unknown = SessionId::from_bytes([9; 16]);
    house
        .handle(Action::GetSession(unknown))
        .await
        .expect_err("a refusal");
    house
        .handle(Action::DestroySession(session))
        .await
        .expect("destroyed");
    let records = house.records();
    for action in ["session.create", "execution.start", "session.destroy"] {
        let of = |phase: Phase| {
            records
                .iter()
                .filter(|record| record.body.action == action && record.body.phase == phase)
                .count()
        };
        assert_eq!((of(Phase::Intent), of(Phase::Result)), (1, 1), "{action}");
    }
    let text =
        std::fs::read_to_string(house.base.path().join("state/audit.jsonl")).expect("the log");
    assert!(!text.contains("canary"), "{text}");
    assert!(
        text.contains("session_not_found"),
        "refusals are recorded with their code: {text}"
    );
    assert!(audit::verify(&house.base.path().join("state/audit.jsonl")).is_ok());
}

#[tokio::test]
async fn somebody_elses_session_looks_like_none_at_all() {
    let house = House::new();
    let session = house.create().await;
    let unknown = SessionId::from_bytes([9; 16]);
    for action in [Action::GetSession, Action::DestroySession] {
        // uid 0 passes the door of any server, and is still not the owner.
        let foreign = if uid() == 0 { 4_242 } else { 0 };
        let refused = house
            .control
            .handle(house.call_as(foreign, action(session)))
            .await
            .expect_err("foreign");
        let missing = house.handle(action(unknown)).await.expect_err("unknown");
        assert!(
            [Reason::SessionNotFound, Reason::PolicyDenied].contains(&refused.reason),
            "{refused:?} and {missing:?}"
        );
        assert_eq!(missing.reason, Reason::SessionNotFound);
    }
    assert!(
        matches!(
            house.handle(Action::GetSession(session)).await,
            Ok(Outcome::Session(_))
        ),
        "the control"
    );
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_its_wait_and_not_the_work() {
    let house = House::new();
    let session = house.create().await;
    let call = house.control.handle(house.call(run(session, "sleep 0.5")));
    tokio::time::timeout(Duration::from_millis(50), call)
        .await
        .expect_err("the caller leaves");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let records = house.records();
    let result = records.iter().find(|record| {
        record.body.action == "execution.start" && record.body.phase == Phase::Result
    });
    assert_eq!(
        result.map(|record| record.body.result.as_str()),
        Some("ok"),
        "{records:#?}"
    );
}

#[tokio::test]
async fn the_servers_own_calls_pass_the_same_road() {
    let mut house = House::new();
    let session = house.create().await;
    let settings = KeeperSettings {
        reconcile_every: Duration::from_secs(60),
        remember_ended: Duration::from_secs(60),
    };
    let keeper = tokio::spawn(control::keep(
        house.control.clone(),
        house.reap.take().expect("once"),
        settings,
    ));
    house.fake.kill(session);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok(Outcome::Session(view)) = house.handle(Action::GetSession(session)).await
            && view.state == SessionState::Failed
        {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "the session was never ended"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    keeper.abort();
    assert!(
        house
            .records()
            .iter()
            .any(|record| record.body.action == "session.reap")
    );
    assert_eq!(house.fake.list().await.expect("a list").len(), 0);
    let because = model::ReapCause::Idle;
    for forged in [
        Action::ReapSession { session, because },
        Action::AdoptSession(session),
        Action::RemoveRemains {
            session,
            backend: BackendName::Fake,
        },
    ] {
        let refused = house
            .handle(forged)
            .await
            .expect_err("only the server itself may");
        assert_eq!(refused.reason, Reason::PolicyDenied);
    }
}

#[tokio::test]
async fn the_reconciler_changes_nothing_beside_the_road() {
    let house = House::new();
    let session = house.create().await;
    let mut other = House::new();
    other.fake = house.fake.clone();
    let other = other.restart();
    let remains = other.create().await;
    let house = house.restart();
    house
        .control
        .reconcile(BackendName::Fake)
        .await
        .expect("reconciled");
    assert_eq!(house.fake.list().await.expect("a list").len(), 1);
    house
        .handle(run(session, "true"))
        .await
        .expect("the session was taken up");
    let records = house.records();
    for (action, session) in [
        ("session.adopt", session),
        ("session.remove_remains", remains),
    ] {
        let phases: Vec<_> = records
            .iter()
            .filter(|record| {
                record.body.action == action
                    && record.body.session_id == Some(session)
                    && record.body.client.name == "reconciler"
            })
            .map(|record| record.body.phase)
            .collect();
        assert_eq!(phases, [Phase::Intent, Phase::Result], "{action}");
    }
}

/// An engine that takes every question and answers none.
struct Hanging;

#[async_trait::async_trait]
impl Backend for Hanging {
    fn name(&self) -> BackendName {
        BackendName::Docker
    }
    async fn capability(&self) -> Result<Capability, BackendError> {
        std::future::pending().await
    }
    async fn create(&self, _: &SandboxSpec) -> Result<Link, BackendError> {
        std::future::pending().await
    }
    async fn connect(&self, _: SessionId) -> Result<Link, BackendError> {
        std::future::pending().await
    }
    async fn inspect(&self, _: SessionId) -> Result<Inspection, BackendError> {
        std::future::pending().await
    }
    async fn list(&self) -> Result<Vec<Listed>, BackendError> {
        std::future::pending().await
    }
    async fn stats(&self, _: SessionId) -> Result<UsageView, BackendError> {
        std::future::pending().await
    }
    async fn pause(&self, _: SessionId) -> Result<(), BackendError> {
        std::future::pending().await
    }
    async fn resume(&self, _: SessionId) -> Result<(), BackendError> {
        std::future::pending().await
    }
    async fn destroy(&self, _: SessionId) -> Result<(), BackendError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn an_engine_that_hangs_does_not_hold_up_the_sessions_of_another_backend() {
    let first = House::new();
    let session = first.create().await;
    let mut other = House::new();
    other.fake = first.fake.clone();
    let other = other.restart();
    other.create().await;
    let House {
        base,
        fake,
        control,
        reap,
    } = first;
    drop((control, reap));
    let mut house = House::beside(base, fake, Some(Arc::new(Hanging)));
    let settings = KeeperSettings {
        reconcile_every: Duration::from_millis(10),
        remember_ended: Duration::from_secs(60),
    };
    let reap = house.reap.take().expect("once");
    let keeper = tokio::spawn(control::keep(house.control.clone(), reap, settings));
    let patience = Duration::from_secs(10);
    tokio::time::timeout(patience, async {
        while house.fake.list().await.expect("a list").len() != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("remains are removed");
    let ran = house.handle(run(session, "true")).await;
    ran.expect("the session is taken up");
    // In a later round what is found then, and between rounds what must be ended.
    house.fake.kill(session);
    tokio::time::timeout(patience, async {
        while !house.fake.list().await.expect("a list").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("a session whose sandbox ended is ended");
    keeper.abort();
}

#[tokio::test]
async fn a_flood_of_calls_is_refused_on_the_record_and_does_not_keep_a_session_from_being_ended() {
    let house = House::new();
    let session = house.create().await;
    let mut running = run(session, "sleep 60");
    if let Action::ExecuteCommand(request) = &mut running {
        request.wait = Duration::ZERO;
    }
    let execution = match house.handle(running).await {
        Ok(Outcome::Execution(execution)) => execution.id,
        other => panic!("no execution: {other:?}"),
    };
    let waiting = || {
        Action::GetExecution(model::GetExecution {
            execution,
            stdout_cursor: 0,
            stderr_cursor: 0,
            wait: Duration::from_secs(40),
            awaited: model::Awaited::End,
        })
    };
    let mut refused = Vec::new();
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..1_200 {
        let (control, call) = (house.control.clone(), house.call(waiting()));
        flood.spawn(async move { control.handle(call).await });
    }
    // Half of all places but the last ones, which are for callers with few.
    while refused.len() < 1_200 - 512 {
        let answer = flood.join_next().await.expect("an answer");
        refused.push(answer.expect("no panic").expect_err("too many").reason);
    }
    assert!(refused.iter().all(|reason| *reason == Reason::RateLimited));
    house
        .handle(Action::DestroySession(session))
        .await
        .expect("destroyed in the middle of the flood");
    while let Some(answer) = flood.join_next().await {
        let ended = answer.expect("no panic");
        assert!(
            ended.is_ok() || ended.is_err_and(|refusal| refusal.reason != Reason::RateLimited),
            "as many as may wait did"
        );
    }
    let limited = |action: &str| -> Vec<Record> {
        let of = |record: &Record| {
            record.body.action == action && record.body.reason.as_deref() == Some("rate_limited")
        };
        house.records().into_iter().filter(of).collect()
    };
    let written = limited("execution.read").len();
    assert_eq!(written, 30, "the first of them, one by one");
    // The others are told as a number, at the latest when the server ends.
    let House { base, control, .. } = house;
    drop(control);
    let counted = async {
        loop {
            let records = audit::read(&base.path().join("state/audit.jsonl")).expect("the log");
            let mut records = records.filter_map(Result::ok);
            if let Some(told) = records.find(|record| record.body.action == "call.limited_more") {
                return told.body.parameters["count"].clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let counted = tokio::time::timeout(Duration::from_secs(10), counted).await;
    let count = counted.expect("a number");
    assert_eq!(count, refused.len() - written);
}

#[tokio::test]
async fn a_destroyed_session_is_listed_with_its_end_where_ended_ones_are_asked_for() {
    let house = House::new();
    let session = house.create().await;
    house
        .handle(Action::DestroySession(session))
        .await
        .expect("destroyed");
    let listed = async |ended| match house.handle(Action::ListSessions { ended }).await {
        Ok(Outcome::Sessions(views)) => views,
        other => panic!("{other:?}"),
    };
    assert!(listed(false).await.is_empty());
    let all = listed(true).await;
    assert_eq!((all.len(), all[0].id), (1, session));
    assert!(!all[0].state.is_live() && all[0].ended_at.is_some());
}

#[tokio::test]
async fn a_closed_road_refuses_everybody_but_the_server() {
    let house = House::new();
    let session = house.create().await;
    house.control.close();
    let refused = house
        .handle(Action::ListSessions { ended: false })
        .await
        .expect_err("closed");
    assert_eq!(refused.reason, Reason::ShuttingDown);
    let own = Call {
        credentials: Credentials::System,
        source: Source::SYSTEM,
        client: ClientInfo::default(),
        action: Action::ReapSession {
            session,
            because: model::ReapCause::Lifetime,
        },
    };
    house
        .control
        .handle(own)
        .await
        .expect("the server's own calls go on");
}
