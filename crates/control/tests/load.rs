//! The road under load, over the fake backend (P2c, D3, S1): many callers with mixed rights at the same time, limits exact, nobody
//! sees what is another's; far too many calls are shed with a typed refusal while memory and log stay bounded and things still end.
//! `SOAK=1` makes ten times as many calls (`scripts/soak limits`).
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking and tells by standard error"
)]

mod support;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use audit::{AuditConfig, AuditLog, IdentityKey};
use control::{Control, KeyRing, Parts, Road, TokenRights};
use model::{
    Action, Call, ClientInfo, CreateKey, Credentials, Outcome, OwnerId, Reason, Refusal,
    RootFileSystem, SessionId, Source, Transport,
};
use policy::{CallerLimits, Rate, RateLimits};
use sandbox::{Backend, HostView, fake::Fake};
use session::{Backends, Sessions, Setup};
use store::{Pepper, Store};
use support::{NoTurns, command, facts, network, policy, session_on, uid};
use tokio::{sync::mpsc, task::JoinSet};

/// Live sessions of the server, and of one caller.
const MAX_SESSIONS: u32 = 20;
const MAX_OWN: u32 = 2;
const CALLERS: usize = 16;

struct House {
    _base: tempfile::TempDir,
    root: PathBuf,
    log: PathBuf,
    control: Control,
}

impl House {
    fn new(callers: CallerLimits) -> Self {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().canonicalize().expect("a path");
        for directory in ["root/app", "state"] {
            std::fs::create_dir_all(path.join(directory)).expect("a directory");
        }
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(path.join("state"), mode).expect("a mode");
        let (store, _) = Store::open(&path.join("state/state.db")).expect("a store");
        let log = path.join("state/audit.jsonl");
        let audit = AuditLog::open(AuditConfig::new(
            log.clone(),
            OwnerId::from_bytes([1; 8]),
            IdentityKey::from_bytes(&[1; 32]),
        ))
        .expect("a log");
        let pepper = Pepper::open(&path.join("state/keys.pepper")).expect("a pepper");
        let keys = KeyRing::open(store.clone(), pepper).expect("keys");
        let backend = Arc::new(Fake::new()) as Arc<dyn Backend>;
        let sessions = Sessions::new(Setup {
            agent: Arc::new(|| Ok(None)),
            store,
            backends: Backends::new([(backend, RootFileSystem::HostSystem)]),
            policy: Arc::new(policy(&path, |config| {
                config.max_sessions = MAX_SESSIONS;
                config.callers = callers;
            })),
            host_view: HostView::default(),
            allow_protected_changes: false,
            egress: session::Egress::none().expect("no way to a provider"),
            network: network(),
            turns: Arc::new(NoTurns),
            transcripts: path.join("state/transcripts"),
            reap: mpsc::unbounded_channel().0,
        });
        let control = Control::new(Parts {
            audit,
            sessions,
            server: facts(),
            keys,
            tokens: TokenRights::default(),
        });
        House {
            _base: base,
            root: path.join("root"),
            log,
            control,
        }
    }

    async fn call(&self, who: &Credentials, action: Action) -> Result<Outcome, Refusal> {
        let source = match who {
            Credentials::LocalPeer { .. } | Credentials::System => Source::LOCAL,
            Credentials::ApiKey(_) | Credentials::AccessToken(_) => Source {
                transport: Transport::Http,
                address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            },
        };
        let call = Call {
            credentials: who.clone(),
            client: ClientInfo::default(),
            source,
            action,
        };
        self.control.handle(call).await
    }

    async fn key(&self, scopes: &str, calls_per_minute: Option<u32>) -> Credentials {
        let owner = Credentials::LocalPeer {
            uid: uid(),
            pid: 1,
            roots: Vec::new(),
        };
        let action = Action::CreateKey(Box::new(CreateKey {
            name: "load".to_owned(),
            scopes: scopes.parse().expect("scopes"),
            roots: vec![self.root.clone()],
            max_sessions: Some(MAX_OWN),
            calls_per_minute,
            valid_for: None,
        }));
        match self.call(&owner, action).await {
            Ok(Outcome::KeyMade(made)) => Credentials::ApiKey(made.text),
            other => panic!("no key: {other:?}"),
        }
    }
}

fn create() -> Action {
    Action::CreateSession(Box::new(session_on("app".into())))
}

fn execute(session: SessionId) -> Action {
    Action::ExecuteCommand(command(session, "true", Duration::from_secs(20)))
}

fn factor() -> usize {
    if std::env::var_os("SOAK").is_some() {
        10
    } else {
        1
    }
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .expect("a field")
        .parse()
        .expect("a number");
    pages * 4096
}

/// One caller: its key, what it may do, and the sessions that were made for it.
struct Caller {
    key: Credentials,
    may_run: bool,
    calls_per_minute: Option<u32>,
    own: Mutex<HashSet<SessionId>>,
    /// Of those, how many live.
    live: AtomicU32,
}

/// All sessions of all callers, for those who would look at others'.
struct World {
    house: House,
    callers: Vec<Caller>,
    all: Mutex<Vec<SessionId>>,
}

impl World {
    fn mine(&self, caller: usize, dice: u64) -> Option<SessionId> {
        let own = self.callers[caller].own.lock().unwrap();
        own.iter().nth(dice as usize % own.len().max(1)).copied()
    }

    fn anybodys(&self, dice: u64) -> Option<SessionId> {
        let all = self.all.lock().unwrap();
        all.get(dice as usize % all.len().max(1)).copied()
    }

    /// One call, and whether it was let onto the road.
    async fn one(&self, caller: usize, dice: u64) -> bool {
        let me = &self.callers[caller];
        let (kind, dice) = (dice % 20, dice >> 8);
        let (action, target) = match kind {
            0 | 1 => (create(), None),
            2..=4 => match self.mine(caller, dice) {
                Some(own) => (execute(own), Some(own)),
                None => (create(), None),
            },
            5 => match self.mine(caller, dice) {
                Some(own) => (Action::DestroySession(own), Some(own)),
                None => (Action::GetServerInfo, None),
            },
            6..=10 => match self.anybodys(dice) {
                Some(some) if kind == 6 => (Action::DestroySession(some), Some(some)),
                Some(some) if kind == 7 => (execute(some), Some(some)),
                Some(some) => (Action::GetSession(some), Some(some)),
                None => (Action::GetServerInfo, None),
            },
            _ => (Action::ListSessions { ended: false }, None),
        };
        let is_mine = |session| me.own.lock().unwrap().contains(&session);
        let is_create = matches!(action, Action::CreateSession(_));
        let is_destroy = matches!(action, Action::DestroySession(_));
        let was_mine = target.map(is_mine);
        match self.house.call(&me.key, action).await {
            Ok(Outcome::Session(view)) if is_create => {
                assert!(me.may_run);
                me.own.lock().unwrap().insert(view.id);
                self.all.lock().unwrap().push(view.id);
                let live = me.live.fetch_add(1, SeqCst) + 1;
                // A destroyed one counts here until its answer is here.
                assert!(live <= MAX_OWN + 64, "{live} live");
            }
            Ok(Outcome::Sessions(views)) => {
                assert!(views.len() <= MAX_OWN as usize, "{views:?}");
                // One that is being made is listed before its maker knows it.
                let strange = |view: &&model::SessionView| {
                    self.all.lock().unwrap().contains(&view.id) && !is_mine(view.id)
                };
                assert!(
                    !views.iter().any(|view| strange(&view)),
                    "another's session is listed"
                );
            }
            Ok(Outcome::Destroyed(session)) => {
                assert!(is_destroy && is_mine(session));
            }
            Ok(Outcome::Session(view)) => assert!(is_mine(view.id), "another's session is shown"),
            Ok(Outcome::Execution(view)) => assert!(is_mine(view.session) && me.may_run),
            Ok(Outcome::ServerInfo(info)) => assert!(info.sessions <= MAX_OWN),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => return self.refused(me, was_mine, &refusal),
        }
        true
    }

    fn refused(&self, me: &Caller, was_mine: Option<bool>, refusal: &Refusal) -> bool {
        match refusal.reason {
            Reason::RateLimited => {
                assert!(refusal.retry_after_ms.is_some(), "{refusal:?}");
                return false;
            }
            Reason::InsufficientScope => assert!(!me.may_run, "{refusal:?}"),
            Reason::SessionNotFound => assert_ne!(was_mine, Some(true), "{refusal:?}"),
            Reason::LimitReached => assert_ne!(was_mine, Some(false), "{refusal:?}"),
            Reason::SessionDestroyed | Reason::SessionNotReady | Reason::SessionFailed => {
                assert_eq!(was_mine, Some(true), "{refusal:?}");
            }
            other => panic!("{other}: {refusal:?}"),
        }
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_callers_with_mixed_rights_stay_within_their_limits_and_see_only_their_own() {
    let house = House::new(CallerLimits {
        max_sessions: NonZeroU32::new(MAX_OWN),
        ..CallerLimits::default()
    });
    let mut callers = Vec::new();
    for number in 0..CALLERS {
        let (scopes, may_run) = match number % 4 {
            0 => ("sessions:read", false),
            1 => ("sessions:read sessions:run files network", true),
            _ => ("sessions:read sessions:run", true),
        };
        let calls_per_minute = (number % 3 == 0).then_some(120);
        callers.push(Caller {
            key: house.key(scopes, calls_per_minute).await,
            may_run,
            calls_per_minute,
            own: Mutex::default(),
            live: AtomicU32::new(0),
        });
    }
    let world = Arc::new(World {
        house,
        callers,
        all: Mutex::default(),
    });
    let over = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn({
        let (world, over) = (Arc::clone(&world), Arc::clone(&over));
        async move {
            let mut most = 0;
            while !over.load(SeqCst) {
                let live = world
                    .house
                    .control
                    .sessions()
                    .count()
                    .await
                    .expect("a count");
                assert!(live <= MAX_SESSIONS, "{live} live");
                most = most.max(live);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            most
        }
    });
    let began = Instant::now();
    let calls = 1_000 * factor();
    let mut work = JoinSet::new();
    for caller in 0..CALLERS {
        let world = Arc::clone(&world);
        work.spawn(async move {
            let mut admitted = 0_u64;
            let mut dice = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(caller as u64 + 1) | 1;
            for _ in 0..calls / 8 {
                // Eight at a time.
                let mut some = Vec::new();
                for _ in 0..8 {
                    dice ^= dice << 13;
                    dice ^= dice >> 7;
                    dice ^= dice << 17;
                    some.push(world.one(caller, dice >> 3));
                }
                let let_on = futures::future::join_all(some).await;
                admitted += let_on.into_iter().filter(|it| *it).count() as u64;
            }
            (caller, admitted)
        });
    }
    for (caller, admitted) in work.join_all().await {
        if let Some(per_minute) = world.callers[caller].calls_per_minute {
            let per_minute = u64::from(per_minute);
            let refilled = per_minute * began.elapsed().as_millis() as u64 / 60_000 + 1;
            // What ends things is not limited: one call in ten at most.
            let ending = calls as u64 / 5;
            assert!(
                admitted <= per_minute + refilled + ending,
                "{admitted} of {caller}"
            );
            assert!(
                admitted >= per_minute.min(calls as u64),
                "{admitted}: none is shed too early"
            );
        }
    }
    over.store(true, SeqCst);
    let most = watch.await.expect("never more than allowed");
    assert!(most >= MAX_OWN, "the control: some did live");
    eprintln!(
        "{CALLERS} callers x {calls} calls in {:?}, {most} live at most",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_times_too_many_calls_are_answered_or_shed_and_things_still_end() {
    let allowed = 200;
    let house = Arc::new(House::new(CallerLimits {
        rates: RateLimits {
            calls: Rate::new(allowed, allowed),
            ..RateLimits::NONE
        },
        ..CallerLimits::default()
    }));
    let who = house.key("sessions:read sessions:run", None).await;
    let Ok(Outcome::Session(view)) = house.call(&who, create()).await else {
        panic!("no session")
    };
    let session = view.id;
    let (began, memory) = (Instant::now(), resident());
    let calls = 50 * allowed as usize * factor();
    let (mut answered, mut shed) = (0, 0);
    let mut ended = false;
    for round in 0..10 {
        let mut flood = JoinSet::new();
        for _ in 0..calls / 10 {
            let (house, who) = (Arc::clone(&house), who.clone());
            flood.spawn(async move { house.call(&who, Action::GetSession(session)).await });
        }
        if round == 5 {
            let destroyed = house.call(&who, Action::DestroySession(session)).await;
            ended = matches!(destroyed, Ok(Outcome::Destroyed(_)));
        }
        for answer in flood.join_all().await {
            match answer {
                Ok(Outcome::Session(_)) => answered += 1,
                Err(refusal) if refusal.reason == Reason::RateLimited => {
                    assert!(refusal.retry_after_ms.is_some(), "{refusal:?}");
                    shed += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(ended, "destroyed in the middle of the flood");
    assert_eq!(answered + shed, calls, "every call has an answer");
    let refilled = u64::from(allowed) * began.elapsed().as_millis() as u64 / 60_000 + 1;
    assert!(
        answered as u64 <= u64::from(allowed) + refilled,
        "{answered} of {allowed}"
    );
    assert!(
        answered >= allowed as usize - 1,
        "{answered}: none is shed too early"
    );
    let grown = resident().saturating_sub(memory) >> 20;
    assert!(grown < 100, "{grown} MiB more than before");
    // What was shed does not fill the log: thirty refusals, and later a number.
    let lines = std::fs::read_to_string(&house.log).expect("the log");
    let limited = lines
        .lines()
        .filter(|line| line.contains("rate_limited"))
        .count();
    assert!((1..=2 * 31).contains(&limited), "{limited} lines");
    eprintln!(
        "{calls} calls: {answered} answered, {shed} shed in {:?}, {grown} MiB",
        began.elapsed()
    );
}
