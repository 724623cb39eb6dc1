//! Callers from elsewhere on the road, over the fake backend (P2a, S1): who is let in and until when, what is theirs, and that no
//! reply names a path of the host.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod heard;
mod let_in;
#[path = "../support/mod.rs"]
mod support;

use std::{
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use audit::{AuditConfig, AuditLog, IdentityKey, Record};
use control::{Control, KeeperSettings, KeyRing, Parts, Road, ServerFacts, TokenRights};
use model::{
    AccessToken, Action, Call, ClientInfo, CreateKey, CreateSession, Credentials, KeyId, Outcome,
    OwnerId, ReadFile, Reason, Refusal, RootFileSystem, Scopes, Secret, SessionId, Source,
    Transport, UploadId, WriteFile,
};
use sandbox::{Backend, HostView, fake::Fake};
use session::{Backends, ReapRequest, Sessions, Setup};
use store::{Pepper, Store};
use support::{NoTurns, command, facts, network, policy, session_on, uid};
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
            turns: Arc::new(NoTurns),
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
        idempotency_key: idempotency_key.map(str::to_owned),
        ..session_on(project.into())
    }))
}

fn run(session: SessionId, line: &str, wait: Duration) -> Action {
    Action::ExecuteCommand(command(session, line, wait))
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

/// The server's user, who works below the same directory.
fn local_within(house: &House) -> Credentials {
    Credentials::LocalPeer {
        uid: uid(),
        pid: 1,
        roots: vec![house.root()],
    }
}
