//! Callers from elsewhere on the road, over the fake backend (P2a, S1): who is let in and until when, what is theirs, and that no
//! reply names a path of the host.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use audit::{AuditConfig, AuditLog, IdentityKey, Record};
use control::{Control, KeeperSettings, KeyRing, Parts, Road, ServerFacts, TokenRights};
use model::{
    AccessToken, Action, Call, ClientInfo, CommandLine, CreateKey, CreateSession, Credentials,
    ExecuteCommand, KeyId, Outcome, OwnerId, ReadFile, Reason, Refusal, RootFileSystem, Scopes,
    Secret, SessionId, Source, Transport, UploadId, WriteFile,
};
use sandbox::{
    Backend, BackendError, HostView,
    fake::{Fake, Verb},
};
use session::{Backends, ReapRequest, Sessions, Setup};
use store::{Pepper, Store};
use support::{facts, network, policy, uid};
use tokio::sync::mpsc;

/// From where remote callers call here.
const SOURCE: Source = Source {
    transport: Transport::Http,
    address: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))),
};

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
        for directory in [
            "roots-of-canary/app",
            "roots-of-canary/other",
            "more/both",
            "state",
        ] {
            std::fs::create_dir_all(path.join(directory)).expect("a directory");
        }
        std::fs::set_permissions(path.join("state"), std::fs::Permissions::from_mode(0o700))
            .expect("a mode");
        House::on(base, Fake::new())
    }

    fn on(base: tempfile::TempDir, fake: Fake) -> Self {
        let path = base.path().canonicalize().expect("a path");
        let (store, _) = Store::open(&path.join("state/state.db")).expect("a store");
        let audit = AuditLog::open(AuditConfig::new(
            path.join("state/audit.jsonl"),
            OwnerId::from_bytes([1; 8]),
            IdentityKey::from_bytes(&[1; 32]),
        ))
        .expect("a log");
        let pepper = Pepper::open(&path.join("state/keys.pepper")).expect("a pepper");
        let keys = KeyRing::open(store.clone(), pepper).expect("keys");
        let policy = Arc::new(policy(&path, |_| {}));
        let (reap_sender, reap) = mpsc::unbounded_channel();
        let backend = Arc::new(fake.clone()) as Arc<dyn Backend>;
        let sessions = Sessions::new(Setup {
            agent: Arc::new(|| Ok(None)),
            store,
            backends: Backends::new([(backend, RootFileSystem::HostSystem)]),
            policy,
            host_view: HostView::default(),
            allow_protected_changes: false,
            egress: session::Egress::none().expect("no way to a provider"),
            network: network(),
            transcripts: path.join("state/transcripts"),
            reap: reap_sender,
        });
        let control = Control::new(Parts {
            audit,
            sessions,
            server: ServerFacts {
                warnings: vec!["/somewhere/on/the/host is odd".to_owned()],
                ..facts()
            },
            keys,
            tokens: TokenRights {
                roots: vec![path.join("roots-of-canary")],
                max_sessions: None,
            },
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

    fn root(&self) -> PathBuf {
        let base = self.base.path().canonicalize().expect("a path");
        base.join("roots-of-canary")
    }

    async fn call(&self, credentials: &Credentials, action: Action) -> Result<Outcome, Refusal> {
        let source = match credentials {
            Credentials::LocalPeer { .. } => Source::LOCAL,
            Credentials::System => Source::SYSTEM,
            Credentials::ApiKey(_) | Credentials::AccessToken(_) => SOURCE,
        };
        let call = Call {
            credentials: credentials.clone(),
            client: ClientInfo::default(),
            source,
            action,
        };
        self.control.handle(call).await
    }

    /// Makes a key, as the server's user.
    async fn key(&self, scopes: &str, valid_for: Option<Duration>) -> (KeyId, Credentials) {
        let action = Action::CreateKey(Box::new(CreateKey {
            name: "canary".to_owned(),
            scopes: scopes.parse().expect("scopes"),
            roots: vec![self.root()],
            max_sessions: None,
            calls_per_minute: None,
            valid_for,
        }));
        match self.call(&local(), action).await {
            Ok(Outcome::KeyMade(made)) => (made.key.id, Credentials::ApiKey(made.text)),
            other => panic!("no key: {other:?}"),
        }
    }

    async fn create(&self, who: &Credentials, project: &str) -> Result<SessionId, Refusal> {
        let outcome = self.call(who, create(project, None)).await?;
        let Outcome::Session(view) = outcome else {
            panic!("no session: {outcome:?}")
        };
        Ok(view.id)
    }

    async fn list(&self, who: &Credentials) -> Vec<SessionId> {
        match self.call(who, Action::ListSessions { ended: false }).await {
            Ok(Outcome::Sessions(views)) => views.into_iter().map(|view| view.id).collect(),
            other => panic!("no list: {other:?}"),
        }
    }

    fn records(&self) -> Vec<Record> {
        let path = self.base.path().join("state/audit.jsonl");
        let records = audit::read(&path).expect("the log");
        // The last line may just be written.
        records.filter_map(Result::ok).collect()
    }

    /// Waits until the log has so many records of that action.
    async fn logged(&self, action: &str, count: usize) {
        let is_there = || {
            self.records()
                .iter()
                .filter(|r| r.body.action == action)
                .count()
                >= count
        };
        for _ in 0..1_000 {
            if is_there() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "{action} is not {count} times in the log: {:#?}",
            self.records()
        );
    }
}

fn local() -> Credentials {
    Credentials::LocalPeer {
        uid: uid(),
        pid: 1,
        roots: Vec::new(),
    }
}

fn token(subject: &str, scopes: &str, valid_for: Duration) -> Credentials {
    Credentials::AccessToken(Box::new(AccessToken {
        issuer: "https://issuer.example".to_owned(),
        subject: subject.to_owned(),
        client_id: None,
        scopes: Scopes::known_of(scopes),
        expires_at: SystemTime::now() + valid_for,
    }))
}

fn create(project: &str, idempotency_key: Option<&str>) -> Action {
    Action::CreateSession(Box::new(CreateSession {
        agent: model::AgentRequest::default(),
        network: model::NetworkRequest::default(),
        project_path: project.into(),
        name: None,
        backend: None,
        runtime_class: None,
        mounts: Vec::new(),
        limits: Vec::new(),
        docker_options: model::DockerOptions::default(),
        ttl: None,
        idle: None,
        env: BTreeMap::new(),
        idempotency_key: idempotency_key.map(str::to_owned),
    }))
}

fn run(session: SessionId, line: &str, wait: Duration) -> Action {
    Action::ExecuteCommand(ExecuteCommand {
        session,
        command: CommandLine::Argv(line.split(' ').map(str::to_owned).collect()),
        cwd: None,
        env: BTreeMap::new(),
        stdin: None,
        keep_stdin_open: false,
        terminal: None,
        timeout: None,
        wait,
    })
}

fn write(
    session: SessionId,
    destination: &str,
    content: &[u8],
    offset: u64,
    upload: Option<UploadId>,
    is_last: bool,
) -> Action {
    Action::WriteFile(WriteFile {
        session,
        destination: destination.into(),
        content: Secret::new(content.to_vec()),
        upload,
        offset,
        is_last,
    })
}

fn read(
    session: SessionId,
    source: &str,
    offset: u64,
    length: u64,
    download: Option<UploadId>,
) -> Action {
    Action::ReadFile(ReadFile {
        session,
        source: source.into(),
        download,
        offset,
        length,
    })
}

fn reason<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Reason {
    result.expect_err("a refusal").reason
}

const ALL: &str = "sessions:read sessions:run files network";

/// A key is one as long as it is whole, known, not over and not revoked, and whoever is not let in learns nothing.
#[tokio::test]
async fn a_key_is_let_in_until_it_ends_and_every_failure_is_alike_and_on_the_log() {
    let house = House::new();
    let (id, good) = house.key(ALL, None).await;
    let Credentials::ApiKey(text) = &good else {
        panic!("a key")
    };
    let known = house
        .control
        .authenticate(&good, &SOURCE)
        .await
        .expect("known");
    assert_eq!(known.name, format!("key:{id}"));
    assert_eq!(known.scopes.to_string(), ALL);
    // The same id with another secret; another key; half of one; nothing.
    let other = model::ApiKey {
        id,
        ..model::ApiKey::random().expect("random bytes")
    };
    let (short_id, short) = house.key(ALL, Some(Duration::from_secs(1))).await;
    let wrong = [
        other.text(),
        model::ApiKey::random().expect("random bytes").text(),
        Secret::new(text.expose()[..60].to_owned()),
        Secret::new(String::new()),
    ];
    let mut refusals = loop {
        match house.control.authenticate(&short, &SOURCE).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(refusal) => break vec![refusal],
        }
    };
    for text in wrong {
        let who = Credentials::ApiKey(text);
        refusals.push(
            house
                .control
                .authenticate(&who, &SOURCE)
                .await
                .expect_err("wrong"),
        );
        refusals.push(
            house
                .call(&who, Action::GetServerInfo)
                .await
                .expect_err("wrong"),
        );
    }
    assert!(
        refusals.iter().all(|refusal| *refusal == refusals[0]),
        "{refusals:?}"
    );
    assert_eq!(refusals[0].reason, Reason::Unauthenticated);
    house.logged("auth.fail", 9).await;
    house.logged("key.first_use", 1).await;
    house.control.tell_ended_keys().await;
    house.logged("key.expire", 1).await;
    let log =
        std::fs::read_to_string(house.base.path().join("state/audit.jsonl")).expect("the log");
    for why in [
        "unknown",
        "malformed",
        "expired",
        "192.0.2.7",
        short_id.as_str(),
    ] {
        assert!(log.contains(why), "{why}: {log}");
    }
    // Neither a key nor any part of its secret is anywhere on the disk.
    let secret = model::ApiKey::parse(text.expose()).expect("a key").secret;
    for file in [
        "state/audit.jsonl",
        "state/state.db",
        "state/state.db-wal",
        "state/keys.pepper",
    ] {
        let bytes = std::fs::read(house.base.path().join(file)).expect("a file");
        let has = |text: &str| {
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        assert!(!has(secret.expose()), "{file}");
        assert!(
            file != "state/state.db-wal" || has(id.as_str()),
            "the control: the id is on record"
        );
    }
}

/// A flood of strangers is counted, not written.
#[tokio::test]
async fn a_flood_of_failures_does_not_fill_the_log() {
    let house = House::new();
    for number in 0..500 {
        let who = Credentials::ApiKey(Secret::new("ccmcp_nothing".to_owned()));
        let source = Source {
            transport: Transport::Http,
            address: Some(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number))),
        };
        assert_eq!(
            reason(house.control.authenticate(&who, &source).await),
            Reason::Unauthenticated
        );
    }
    house.logged("auth.fail", 30).await;
    let written = house
        .records()
        .iter()
        .filter(|r| r.body.action == "auth.fail")
        .count();
    assert_eq!(written, 30);
}

/// P2c: failures are limited by where they come from, without a look at the keys; what was right there before goes on.
#[tokio::test]
async fn after_many_failures_an_address_is_not_listened_to_but_for_keys_that_were_right_there() {
    let house = House::new();
    let (_, known) = house.key(ALL, None).await;
    let (_, late) = house.key(ALL, None).await;
    let ask =
        async |who: &Credentials, source: &Source| house.control.authenticate(who, source).await;
    assert!(ask(&known, &SOURCE).await.is_ok());
    let guess = Credentials::ApiKey(Secret::new("ccmcp_guess".to_owned()));
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.push(reason(ask(&guess, &SOURCE).await));
    }
    let looked_at = seen
        .iter()
        .filter(|it| **it == Reason::Unauthenticated)
        .count();
    assert_eq!(looked_at, 11, "{seen:?}");
    let refused = ask(&late, &SOURCE).await.expect_err("not listened to");
    assert_eq!(refused.reason, Reason::RateLimited);
    assert!(
        refused.retry_after_ms.is_some_and(|told| told <= 1_000),
        "{refused:?}"
    );
    assert!(
        house.control.may_authenticate(&SOURCE).is_err(),
        "nor to tokens"
    );
    assert!(
        ask(&known, &SOURCE).await.is_ok(),
        "it was right there before"
    );
    let elsewhere = Source {
        transport: Transport::Http,
        address: Some(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1))),
    };
    assert!(ask(&late, &elsewhere).await.is_ok(), "another address");
    // What a door finds wrong counts as well.
    for _ in 0..11 {
        let answer = house.control.authentication_failed(&elsewhere, "signature");
        assert_eq!(answer.reason, Reason::Unauthenticated);
    }
    assert!(house.control.may_authenticate(&elsewhere).is_err());
}

/// Revocation holds at once, also for a call that waits; the sessions stay unless they are to end, too.
#[tokio::test]
async fn a_revoked_key_ends_waits_within_a_second_and_its_sessions_when_asked() {
    let house = House::new();
    let (id, who) = house.key(ALL, None).await;
    let session = house.create(&who, "app").await.expect("a session");
    let waiting = house.call(&who, run(session, "sleep 60", Duration::from_secs(40)));
    let revoking = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let revoke = |destroy_sessions| Action::RevokeKey {
            key: id,
            destroy_sessions,
        };
        let Ok(Outcome::KeyRevoked(first)) = house.call(&local(), revoke(false)).await else {
            panic!("not revoked")
        };
        (first, tokio::time::Instant::now(), revoke(true))
    };
    let (answer, (first, revoked_at, again)) = tokio::join!(
        async { (waiting.await, tokio::time::Instant::now()) },
        revoking
    );
    assert_eq!(reason(answer.0), Reason::Unauthenticated);
    assert!(answer.1.saturating_duration_since(revoked_at) < Duration::from_secs(1));
    assert_eq!((first.left, first.destroyed.len()), (1, 0));
    assert_eq!(
        reason(house.call(&who, Action::GetSession(session)).await),
        Reason::Unauthenticated
    );
    assert_eq!(
        house.fake.list().await.expect("a list").len(),
        1,
        "the session lives on"
    );
    let Ok(Outcome::KeyRevoked(second)) = house.call(&local(), again).await else {
        panic!("not revoked")
    };
    assert_eq!(
        (second.left, second.destroyed.as_slice()),
        (0, [session].as_slice())
    );
    assert!(house.fake.list().await.expect("a list").is_empty());
    house.logged("session.reap", 2).await;
    let house = house.restart();
    assert_eq!(
        reason(house.control.authenticate(&who, &SOURCE).await),
        Reason::Unauthenticated
    );
}

/// Sessions belong to the line of a key: they are there after a rotation and after a restart, and for nobody else.
#[tokio::test]
async fn sessions_belong_to_their_creator_through_rotation_and_restart() {
    let house = House::new();
    let (id, old) = house.key(ALL, None).await;
    let (_, stranger) = house.key(ALL, None).await;
    let holder = token("somebody", ALL, Duration::from_secs(600));
    let session = house.create(&old, "app").await.expect("a session");
    let tokens = house
        .create(&holder, "other")
        .await
        .expect("a session of a token's holder");
    let overlap = Duration::from_secs(600);
    let rotate = Action::RotateKey { key: id, overlap };
    let Ok(Outcome::KeyMade(made)) = house.call(&local(), rotate).await else {
        panic!("not rotated")
    };
    assert_eq!(
        (made.key.identity, made.replaces.map(|key| key.id)),
        (id, Some(id))
    );
    let new = Credentials::ApiKey(made.text);
    let mut house = house.restart();
    let reap = house.reap.take().expect("once");
    let settings = KeeperSettings {
        reconcile_every: Duration::from_millis(50),
        remember_ended: Duration::from_secs(3600),
    };
    let keeper = tokio::spawn(control::keep(house.control.clone(), reap, settings));
    for who in [&old, &new] {
        assert_eq!(house.list(who).await, [session]);
    }
    let ran = house
        .call(&new, run(session, "true", Duration::from_secs(10)))
        .await;
    ran.expect("the session is taken up, by its owner");
    assert_eq!(house.list(&holder).await, [tokens]);
    assert!(house.list(&stranger).await.is_empty());
    assert!(house.list(&local()).await.is_empty());
    let unknown = SessionId::from_bytes([9; 16]);
    let actions: [fn(SessionId) -> Action; 5] = [
        Action::GetSession,
        Action::DestroySession,
        |session| Action::GetSessionLogs { session, tail: 5 },
        |session| run(session, "true", Duration::ZERO),
        |session| read(session, "/workspace/x", 0, 1, None),
    ];
    for who in [&stranger, &holder, &local()] {
        for action in actions {
            let foreign = house.call(who, action(session)).await.expect_err("foreign");
            let missing = house.call(who, action(unknown)).await.expect_err("unknown");
            assert_eq!(foreign, missing, "foreign is unknown");
            assert_eq!(foreign.reason, Reason::SessionNotFound);
        }
    }
    let (_, admin) = house.key("admin", None).await;
    assert_eq!(house.list(&admin).await.len(), 2, "admin sees all");
    assert_eq!(
        reason(
            house
                .call(&admin, run(session, "true", Duration::ZERO))
                .await
        ),
        Reason::InsufficientScope
    );
    house
        .call(&admin, Action::DestroySession(session))
        .await
        .expect("and ends all");
    keeper.abort();
}

/// P2a, rotation under load: whoever calls with the old key or with the new one, no call fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_under_load_fails_no_call() {
    let house = Arc::new(House::new());
    let (id, old) = house.key(ALL, None).await;
    let session = house.create(&old, "app").await.expect("a session");
    let (sender, receiver) = tokio::sync::watch::channel(old);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (house, receiver) = (house.clone(), receiver.clone());
        callers.spawn(async move {
            for _ in 0..100 {
                let who = receiver.borrow().clone();
                let seen = house.call(&who, Action::GetSession(session)).await;
                seen.expect("no call fails");
                tokio::task::yield_now().await;
            }
        });
    }
    let mut current = id;
    for _ in 0..5 {
        let overlap = Duration::from_secs(600);
        let rotate = Action::RotateKey {
            key: current,
            overlap,
        };
        let Ok(Outcome::KeyMade(made)) = house.call(&local(), rotate).await else {
            panic!("not rotated")
        };
        current = made.key.id;
        sender.send_replace(Credentials::ApiKey(made.text));
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("no call fails");
    }
    // The control: without an overlap the old one ends at once.
    let last = receiver.borrow().clone();
    let rotate = Action::RotateKey {
        key: current,
        overlap: Duration::ZERO,
    };
    house.call(&local(), rotate).await.expect("rotated");
    let refused = house.call(&last, Action::GetSession(session)).await;
    assert_eq!(reason(refused), Reason::Unauthenticated);
}

/// An idempotency key is its caller's own.
#[tokio::test]
async fn two_callers_with_the_same_idempotency_key_have_two_sessions() {
    let house = House::new();
    let (_, one) = house.key(ALL, None).await;
    let (_, two) = house.key(ALL, None).await;
    let mut ids = Vec::new();
    for who in [&one, &two, &one] {
        let Ok(Outcome::Session(view)) = house.call(who, create("app", Some("same"))).await else {
            panic!("no session")
        };
        ids.push(view.id);
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[0], ids[2]);
}

/// No reply and no refusal to a remote caller names a directory of the host.
#[tokio::test]
async fn a_remote_caller_hears_no_path_of_the_host() {
    let house = House::new();
    let (id, who) = house.key(ALL, None).await;
    let (_, admin) = house.key("admin", None).await;
    let session = house.create(&who, "app").await.expect("a session");
    let Ok(Outcome::Session(view)) = house.call(&who, Action::GetSession(session)).await else {
        panic!("no session")
    };
    assert_eq!(view.project_path, Path::new("app"));
    let path = house.root().join("app").display().to_string();
    let long = Duration::from_secs(5);
    let actions = [
        create(&path, None),
        create("../more/both", None),
        create("nothing", None),
        create("app", Some("k")),
        create("other", Some("k")),
        run(session, "true", long),
        run(session, "no-such-program", long),
        Action::ListSessions { ended: true },
        Action::GetServerInfo,
        Action::GetSessionLogs { session, tail: 50 },
        write(session, "/workspace/a", b"x", 0, None, true),
        write(session, "/workspace/.git/hooks/a", b"x", 0, None, true),
        read(session, "/workspace/none", 0, 1, None),
        Action::TransferFiles(model::TransferFiles {
            session,
            direction: model::TransferDirection::ToContainer,
            source: path.clone().into(),
            destination: "/workspace/b".into(),
        }),
        Action::DestroySession(session),
        Action::GetSession(session),
        Action::ListKeys,
        Action::RevokeKey {
            key: id,
            destroy_sessions: false,
        },
    ];
    let base = house
        .base
        .path()
        .canonicalize()
        .expect("a path")
        .display()
        .to_string();
    let mut heard = String::new();
    for action in actions {
        for who in [&who, &admin] {
            let name = action.name();
            let said = match house.call(who, action.clone()).await {
                Ok(outcome) => format!("{outcome:?}"),
                Err(mut refusal) => {
                    refusal.detail = None;
                    format!("{refusal:?}")
                }
            };
            for hidden in [base.as_str(), "roots-of-canary", "/somewhere/on/the/host"] {
                assert!(!said.contains(hidden), "{name} tells {hidden}: {said}");
            }
            heard.push_str(&said);
        }
    }
    assert!(
        heard.contains("path_not_allowed") || heard.contains("PathNotAllowed"),
        "{heard}"
    );
    let Ok(Outcome::Keys(keys)) = house.call(&local(), Action::ListKeys).await else {
        panic!("no keys")
    };
    assert_eq!(
        keys[0].roots,
        [house.root()],
        "the control: whoever sits here sees it"
    );
}

/// Content goes in and out, in one piece and in several; a handle is its owner's, in its session, in its order.
#[tokio::test]
async fn files_go_by_content_in_pieces() {
    let house = House::new();
    let (_, who) = house.key(ALL, None).await;
    let session = house.create(&who, "app").await.expect("a session");
    let wrote = |outcome| match outcome {
        Ok(Outcome::FileWritten(written)) => written,
        other => panic!("not written: {other:?}"),
    };
    let chunk = |outcome| match outcome {
        Ok(Outcome::FileRead(chunk)) => chunk,
        other => panic!("not read: {other:?}"),
    };
    let whole = wrote(
        house
            .call(
                &who,
                write(session, "/workspace/small", b"hello", 0, None, true),
            )
            .await,
    );
    assert_eq!((whole.bytes, whole.upload), (5, None));
    let back = chunk(
        house
            .call(&who, read(session, "/workspace/small", 0, 100, None))
            .await,
    );
    assert_eq!(
        (back.content.as_slice(), back.download),
        (b"hello".as_slice(), None)
    );
    assert_eq!(back.sha256, whole.sha256);
    // 600 KiB in three pieces.
    let content: Vec<u8> = (0..600 * 1024_u32).map(|n| (n % 251) as u8).collect();
    let pieces: Vec<&[u8]> = content.chunks(model::MAX_INLINE_BYTES).collect();
    let first = wrote(
        house
            .call(
                &who,
                write(session, "/workspace/large", pieces[0], 0, None, false),
            )
            .await,
    );
    let handle = first.upload.expect("a handle");
    let large = |piece: &[u8], offset, last| {
        write(
            session,
            "/workspace/large",
            piece,
            offset,
            Some(handle),
            last,
        )
    };
    let (_, stranger) = house.key(ALL, None).await;
    let theirs = house.create(&stranger, "other").await.expect("a session");
    let foreign = write(
        theirs,
        "/workspace/large",
        pieces[1],
        first.bytes,
        Some(handle),
        true,
    );
    assert_eq!(
        reason(house.call(&stranger, foreign).await),
        Reason::InvalidArgument
    );
    assert_eq!(
        reason(house.call(&who, large(pieces[1], 1, false)).await),
        Reason::InvalidArgument
    );
    house
        .call(&who, read(session, "/workspace/large", 0, 1, None))
        .await
        .expect_err("it is not there before its last piece");
    let second = wrote(house.call(&who, large(pieces[1], first.bytes, false)).await);
    let third = wrote(house.call(&who, large(pieces[2], second.bytes, true)).await);
    assert_eq!((third.bytes, third.upload), (content.len() as u64, None));
    assert_eq!(
        reason(house.call(&who, large(b"x", third.bytes, true)).await),
        Reason::InvalidArgument
    );
    let (mut got, mut download) = (Vec::new(), None);
    loop {
        let offset = got.len() as u64;
        let piece = chunk(
            house
                .call(
                    &who,
                    read(session, "/workspace/large", offset, u64::MAX, download),
                )
                .await,
        );
        assert_eq!(
            (piece.total_bytes, piece.sha256),
            (content.len() as u64, third.sha256)
        );
        assert!(piece.content.len() <= model::MAX_INLINE_BYTES);
        got.extend_from_slice(&piece.content);
        download = piece.download;
        if download.is_none() {
            break;
        }
    }
    assert!(got == content);
    // Four under way, and no fifth.
    for n in 0..5 {
        let begun = house
            .call(&who, write(session, "/tmp/x", b"x", 0, None, false))
            .await;
        match n {
            0..4 => drop(wrote(begun)),
            _ => assert_eq!(reason(begun), Reason::LimitReached),
        }
    }
}

/// A token is refused when its time is over, also in a call that waits for longer.
#[tokio::test]
async fn a_token_ends_with_its_time() {
    let house = House::new();
    let who = token("somebody", ALL, Duration::from_secs(600));
    let known = house
        .control
        .authenticate(&who, &SOURCE)
        .await
        .expect("known");
    assert!(
        known.name.starts_with("oauth:") && known.name.len() == 22,
        "{}",
        known.name
    );
    let other = token("somebody else", ALL, Duration::from_secs(60));
    assert_ne!(
        house
            .control
            .authenticate(&other, &SOURCE)
            .await
            .expect("known")
            .name,
        known.name
    );
    let session = house.create(&who, "app").await.expect("a session");
    let short = token("somebody", ALL, Duration::from_secs(1));
    let waits = house.call(&short, run(session, "sleep 60", Duration::from_secs(40)));
    let answer = tokio::time::timeout(Duration::from_secs(20), waits)
        .await
        .expect("it waits no longer");
    assert_eq!(reason(answer), Reason::Unauthenticated);
    assert_eq!(
        house.list(&who).await,
        [session],
        "the same subject has the same sessions"
    );
}

/// P2a: whoever has the key that comes in another's place has its sessions, so that is for its holder and the server's user; and a
/// line that has ended, or goes on elsewhere, is not taken up again.
#[tokio::test]
async fn a_key_is_rotated_by_its_holder_once_and_not_after_its_end() {
    let house = House::new();
    let rotate = |key| Action::RotateKey {
        key,
        overlap: Duration::from_secs(600),
    };
    let (victim, _) = house.key(ALL, None).await;
    let (own, admin) = house.key(&format!("{ALL} admin"), None).await;
    let refused = house.call(&admin, rotate(victim)).await;
    assert_eq!(
        refused.expect_err("another's key").reason,
        Reason::PolicyDenied
    );
    // The control: its own, once.
    let Ok(Outcome::KeyMade(made)) = house.call(&admin, rotate(own)).await else {
        panic!("not rotated")
    };
    let again = house.call(&local(), rotate(own)).await;
    assert_eq!(
        again.expect_err("it has an heir").reason,
        Reason::KeyNotFound
    );
    let revoke = Action::RevokeKey {
        key: made.key.id,
        destroy_sessions: false,
    };
    house.call(&local(), revoke).await.expect("revoked");
    let ended = house.call(&local(), rotate(made.key.id)).await;
    assert_eq!(ended.expect_err("it has ended").reason, Reason::KeyNotFound);
    assert!(house.call(&local(), rotate(victim)).await.is_ok());
}

/// P2a, S6: a backend that fails names sockets, files and programs of the host: a remote caller learns that it fails, whoever sits
/// here learns why.
#[tokio::test]
async fn a_remote_caller_hears_that_a_backend_fails_and_not_what_it_says_of_the_host() {
    let house = House::new();
    let (_, who) = house.key(ALL, None).await;
    house.fake.fail(Verb::Create, || BackendError::Unavailable {
        why: "nothing listens at /run/user/7/docker.sock".to_owned(),
        remedy: "start it by /usr/lib/systemd/user/docker.service".to_owned(),
    });
    let refusal = house.create(&who, "app").await.expect_err("it fails");
    assert_eq!(refusal.reason, Reason::BackendUnavailable);
    let words = format!("{} {}", refusal.message, refusal.hint);
    assert!(!words.contains('/') && !words.contains("docker"), "{words}");
    let local = create(&house.root().join("app").display().to_string(), None);
    let told = house.call(&local_within(&house), local).await;
    let told = told.expect_err("it fails");
    let words = format!("{} {}", told.message, told.hint);
    assert!(
        words.contains("/run/user/7/docker.sock") && words.contains("docker.service"),
        "the control: {told:?}"
    );
    house.fake.heal(Verb::Create);
    house
        .create(&who, "app")
        .await
        .expect("the control: a session");
}

/// The server's user, who works below the same directory.
fn local_within(house: &House) -> Credentials {
    Credentials::LocalPeer {
        uid: uid(),
        pid: 1,
        roots: vec![house.root()],
    }
}
