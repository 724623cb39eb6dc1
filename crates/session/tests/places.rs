//! Places of sessions (D3): exact under a race, given back after failures and crashes, and waited for fairly.

use std::{
    future::pending,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::House;
use model::{
    Principal, Reason, Refusal, RemoteCaller, RemoteKind, Scope, Scopes, SessionId, SessionView,
};
use policy::{CallerLimits, Overcommit};
use sandbox::{
    BackendError,
    fake::{Fake, Verb},
};
use tokio::task::JoinSet;

/// Races of the limit; `scripts/soak` runs more.
fn rounds() -> usize {
    match std::env::var_os("SOAK") {
        Some(_) => 50,
        None => 3,
    }
}

fn house(sessions: u32, change: impl FnOnce(&mut CallerLimits)) -> House {
    House::configured(Fake::new(), &[], |config| {
        config.max_sessions = sessions;
        change(&mut config.callers);
    })
}

fn waiting(seconds: u64) -> impl FnOnce(&mut CallerLimits) {
    move |callers| callers.queue_wait = Duration::from_secs(seconds)
}

fn other(house: &House, name: &str) -> Principal {
    remote(house, name, Scopes::NONE.with(Scope::SessionsRun))
}

fn remote(house: &House, name: &str, scopes: Scopes) -> Principal {
    Principal::Remote(Box::new(RemoteCaller {
        name: name.to_owned(),
        kind: RemoteKind::AccessToken,
        scopes,
        roots: vec![house.project()],
        max_sessions: None,
        calls_per_minute: None,
    }))
}

/// For a remote caller, which names the project below its root.
async fn create_for(house: &House, caller: &Principal) -> Result<SessionView, Refusal> {
    let mut request = house.request();
    std::fs::create_dir_all(house.project().join("sub")).expect("a directory");
    request.project_path = "sub".into();
    house.create_as(caller, request, &[], pending()).await
}

async fn racing(house: &Arc<House>, racers: usize) -> Vec<Result<SessionId, Refusal>> {
    let mut race = JoinSet::new();
    for _ in 0..racers {
        let house = Arc::clone(house);
        race.spawn(async move { house.create().await.map(|view| view.id) });
    }
    race.join_all().await
}

fn refused(result: Result<SessionView, Refusal>) -> Refusal {
    let refusal = result.expect_err("no place");
    assert_eq!(refusal.reason, Reason::LimitReached, "{refusal:?}");
    refusal
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_parallel_creations_exactly_ten_live_and_the_others_are_refused() {
    for round in 0..rounds() {
        let house = Arc::new(house(10, |_| {}));
        let outcomes = racing(&house, 100).await;
        let made: Vec<_> = outcomes
            .iter()
            .filter_map(|made| made.as_ref().ok())
            .collect();
        assert_eq!(made.len(), 10, "round {round}: {outcomes:?}");
        for refusal in outcomes.iter().filter_map(|made| made.as_ref().err()) {
            assert_eq!(refusal.reason, Reason::LimitReached);
            assert!(refusal.retry_after_ms.is_some());
        }
        assert_eq!(
            (house.sandboxes().await, house.sessions.count().await),
            (10, Ok(10))
        );
        for session in made {
            house.destroy(*session).await.expect("destroyed");
        }
        assert_eq!(
            racing(&house, 12)
                .await
                .iter()
                .filter(|made| made.is_ok())
                .count(),
            10
        );
    }
}

#[tokio::test]
async fn what_is_promised_is_bounded_and_the_refusal_says_what_is_short_and_which_are_ones_own() {
    let mut house = house(10, |callers| {
        callers.overcommit = Overcommit {
            memory: Some(10),
            cpu: None,
            disk: None,
        };
    });
    // A tenth of the 64 GiB of the tests' machine: three of 2 GiB.
    let mut made = Vec::new();
    for _ in 0..2 {
        made.push(house.create().await.expect("a session").id);
    }
    let stranger = other(&house, "oauth:1");
    let foreign = create_for(&house, &stranger).await.expect("a session").id;
    let refusal = refused(house.create().await);
    let words = refusal.to_string();
    for part in ["memory", "6144 MiB of the 6554 MiB", "2048 MiB"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert!(
        made.iter().all(|own| words.contains(&own.to_string())),
        "{words}"
    );
    assert!(!words.contains(&foreign.to_string()), "{words}");
    assert!(
        refusal.hint.contains("overcommit_memory_percent"),
        "{refusal:?}"
    );
    // A crash gives it back.
    house.fake.kill(made[0]);
    house.reap_next().await;
    made.push(house.create().await.expect("a session").id);
    assert_eq!(refused(house.create().await).reason, Reason::LimitReached);
}

/// Whether a text tells how many of something there are: MiB, CPUs, sessions.
fn has_amount(words: &str, amount: &str) -> bool {
    words
        .split(|sign: char| !sign.is_ascii_digit())
        .any(|number| number == amount)
}

/// D3, P2a: how much others are promised is the operator's business. A remote caller hears what is short, what of it is its own, and
/// when to come back.
#[tokio::test]
async fn a_remote_caller_hears_of_no_sum_over_the_sessions_of_others() {
    let house = house(10, |callers| {
        callers.overcommit.memory = Some(10);
    });
    // Three of 2 GiB fit into the 6554 MiB that may be promised.
    let tenant = other(&house, "oauth:1");
    let own = create_for(&house, &tenant).await.expect("a session").id;
    for _ in 0..2 {
        house.create().await.expect("a session");
    }
    let refusal = refused(create_for(&house, &tenant).await);
    let words = format!("{} {}", refusal.message, refusal.hint);
    for told in ["short of memory", "2048 MiB", "5 s", &own.to_string()] {
        assert!(words.contains(told), "{told}: {words}");
    }
    // What is promised, what may be, what is left, and what others have. An id may have any digits.
    let words = words.replace(&own.to_string(), "");
    for sum in ["6144", "6554", "410", "4096"] {
        assert!(!has_amount(&words, sum), "{sum}: {words}");
    }
    assert!(!words.contains("overcommit"), "{words}");
    assert_eq!(refusal.retry_after_ms, Some(5_000));
    assert_eq!(refusal.field.as_deref(), Some("limits.memoryBytes"));
    // The control: the operator hears it, here, from elsewhere, and in the log.
    let admin = Scopes::NONE.with(Scope::SessionsRun).with(Scope::Admin);
    let admin = remote(&house, "oauth:admin", admin);
    for whole in [
        refused(house.create().await).message,
        refused(create_for(&house, &admin).await).message,
        refusal.detail.expect("for our log"),
    ] {
        assert!(
            has_amount(&whole, "6144") && has_amount(&whole, "6554"),
            "{whole}"
        );
    }
}

/// D3: the same for the number of live sessions.
#[tokio::test]
async fn a_remote_caller_hears_that_there_are_too_many_sessions_and_not_how_many() {
    let crowded = house(2, |_| {});
    let project = house(10, |callers| {
        callers.max_sessions_per_project = NonZeroU32::new(2);
    });
    for (house, field) in [(crowded, None), (project, Some("projectPath"))] {
        for holder in ["oauth:1", "oauth:2"] {
            create_for(&house, &other(&house, holder))
                .await
                .expect("a session");
        }
        let refusal = refused(create_for(&house, &other(&house, "oauth:3")).await);
        let words = format!("{} {}", refusal.message, refusal.hint);
        assert!(!has_amount(&words, "2"), "{words}");
        assert!(has_amount(&words, "5"), "when to come back: {words}");
        assert_eq!(refusal.retry_after_ms, Some(5_000));
        assert_eq!(refusal.field.as_deref(), field);
        // The control.
        let admin = Scopes::NONE.with(Scope::SessionsRun).with(Scope::Admin);
        let admin = remote(&house, "oauth:admin", admin);
        let told = refused(create_for(&house, &admin).await);
        assert!(told.message.contains("2 sessions are live"), "{told:?}");
    }
}

#[tokio::test]
async fn callers_and_projects_have_bounds_of_their_own() {
    let house = house(10, |callers| callers.max_sessions = NonZeroU32::new(2));
    for _ in 0..2 {
        house.create().await.expect("a session");
    }
    assert!(
        refused(house.create().await)
            .message
            .contains("2 of your sessions")
    );
    let stranger = other(&house, "oauth:1");
    create_for(&house, &stranger).await.expect("another caller");

    let house = self::house(10, |callers| {
        callers.max_sessions_per_project = NonZeroU32::new(1);
    });
    let (one, two) = (other(&house, "oauth:1"), other(&house, "oauth:2"));
    create_for(&house, &one).await.expect("a session");
    let refusal = refused(create_for(&house, &two).await);
    assert_eq!(refusal.field.as_deref(), Some("projectPath"));
    house.create().await.expect("another project");
}

#[tokio::test]
async fn a_place_comes_back_after_a_failed_creation() {
    let house = house(1, |_| {});
    house
        .fake
        .fail(Verb::Create, || BackendError::Timeout("create".to_owned()));
    for _ in 0..5 {
        let refusal = house.create().await.expect_err("a failure");
        assert_ne!(refusal.reason, Reason::LimitReached, "{refusal:?}");
    }
    house.fake.heal(Verb::Create);
    house.create().await.expect("the place is free");
    refused(house.create().await);
}

#[tokio::test]
async fn a_new_session_waits_for_a_place_and_lives_from_then_on() {
    let house = Arc::new(house(1, waiting(20)));
    let first = house.create().await.expect("a session");
    let waits = tokio::spawn({
        let house = Arc::clone(&house);
        async move { house.create().await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waits.is_finished());
    house.destroy(first.id).await.expect("destroyed");
    let second = waits.await.expect("no panic").expect("its place");
    let lifetime = second.expires_at.duration_since(second.created_at).unwrap();
    assert!(second.created_at > first.created_at + Duration::from_millis(200));
    assert_eq!(lifetime.as_secs(), 3_600);
}

#[tokio::test]
async fn one_that_waits_in_vain_is_told_how_long_and_where_it_stood() {
    let house = house(1, waiting(1));
    house.create().await.expect("a session");
    let began = Instant::now();
    let refusal = refused(house.create().await);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(
        refusal.message.contains("1 s") && refusal.message.contains("number 1"),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_line_and_makes_no_session() {
    let house = house(1, waiting(20));
    let first = house.create().await.expect("a session");
    let soon = tokio::time::sleep(Duration::from_millis(100));
    let began = Instant::now();
    let gone = house
        .create_as(&house.owner(), house.request(), &[], soon)
        .await;
    refused(gone);
    assert!(began.elapsed() < Duration::from_secs(10));
    house.destroy(first.id).await.expect("destroyed");
    assert_eq!(house.sessions.count().await, Ok(0));
    house.create().await.expect("the place is not lost");
}

#[tokio::test]
async fn callers_get_places_in_turn() {
    let house = Arc::new(house(1, waiting(30)));
    let mut holder = house.create().await.expect("a session").id;
    let (greedy, modest) = (other(&house, "oauth:greedy"), other(&house, "oauth:modest"));
    let (told, mut served) = tokio::sync::mpsc::unbounded_channel();
    let mut calls = JoinSet::new();
    for caller in [&greedy, &greedy, &greedy, &modest] {
        let (house, caller, told) = (Arc::clone(&house), caller.clone(), told.clone());
        calls.spawn(async move {
            let made = create_for(&house, &caller).await.expect("its turn");
            told.send((caller.name(), made.id)).expect("heard");
        });
        // In this order into the line.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut order = Vec::new();
    for _ in 0..4 {
        let permit = house.sessions.owner(holder).await.unwrap().unwrap();
        let caller = if permit.starts_with("uid") {
            house.owner()
        } else {
            other(&house, &permit)
        };
        let permit = house
            .policy
            .admit_session(&caller, policy::SessionVerb::Destroy, holder, Some(&permit))
            .expect("its own");
        house.sessions.destroy(permit).await.expect("destroyed");
        let served = tokio::time::timeout(Duration::from_secs(20), served.recv()).await;
        let (name, session) = served.expect("in time").expect("somebody");
        order.push(name);
        holder = session;
    }
    assert_eq!(
        order,
        [
            "oauth:greedy",
            "oauth:modest",
            "oauth:greedy",
            "oauth:greedy"
        ]
    );
}
