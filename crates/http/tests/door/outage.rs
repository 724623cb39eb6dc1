//! For how long an issuer's keys are good (S1): while it answers, while it is down, and what comes when it is back. Tokens live by the clock of the
//! machine, which goes on as ever, so none of them expires here.

use std::{
    sync::mpsc::{Sender, channel},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::{
    issuer::Issuer,
    support::{Answer, LIST_SESSIONS, Open, PATIENCE, open},
    tokens::{AUDIENCE, present, settings},
};

/// One question that is answered: metadata, and keys.
const ANSWERED: usize = 2;
/// One that is not: each of the three places where metadata may stand.
const UNANSWERED: usize = 3;
const SECOND: Duration = Duration::from_secs(1);
/// Requests that would be noticed if each of them left something behind.
const MANY: usize = 200;
const HOUR: Duration = Duration::from_secs(3600);
/// Until keys are asked for again.
const FRESH: Duration = Duration::from_secs(600);

/// The time of tokio, which stands still but when it is set forward. Dropped, it lets the test end.
struct Time(#[expect(dead_code, reason = "what waits for it is held back by it")] Sender<()>);

impl Time {
    fn stop() -> Self {
        tokio::time::pause();
        let (held, waiting) = channel::<()>();
        // While something blocks, tokio does not skip the time in which everything waits for a socket.
        tokio::task::spawn_blocking(move || waiting.recv());
        Time(held)
    }

    async fn passes(&self, time: Duration) {
        tokio::time::advance(time).await;
    }
}

/// A door that has the keys of its issuer, and the issuer, which is down by now.
async fn left_alone() -> (Issuer, Open) {
    let issuer = Issuer::start();
    let door = open(settings(&issuer)).await;
    assert_eq!(ask(&door, &issuer, "ES256").await.status, 200);
    assert_eq!(issuer.questions(), ANSWERED);
    issuer.go_down();
    (issuer, door)
}

/// A good token of that algorithm.
async fn ask(door: &Open, issuer: &Issuer, algorithm: &str) -> Answer {
    let claims = issuer.claims(AUDIENCE, "sessions:read");
    present(door, &issuer.token(algorithm, &claims), LIST_SESSIONS).await
}

/// Until it was asked so often in all; no time passes meanwhile but that of the machine.
async fn is_asked(issuer: &Issuer, questions: usize) {
    let deadline = Instant::now() + PATIENCE;
    while issuer.questions() != questions {
        assert!(Instant::now() < deadline, "{}", issuer.questions());
        std::thread::sleep(Duration::from_millis(1));
        tokio::task::yield_now().await;
    }
}

/// A token by a key that the issuer has never published. Its answer comes after that to every question that is under way.
async fn ask_by_unknown_key(door: &Open, issuer: &Issuer) -> Answer {
    let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": "unheard" });
    let claims = issuer.claims(AUDIENCE, "sessions:read");
    present(door, &issuer.sign(&header, &claims), LIST_SESSIONS).await
}

fn is_refused_for_its_key(answer: &Answer) {
    assert_eq!(answer.status, 401, "{answer:?}");
    assert!(answer.body.contains("does not publish"), "{answer:?}");
}

fn is_told_to_come_again(answer: &Answer) {
    let told = (answer.status, answer.code());
    assert_eq!(told, (503, "issuer_unreachable".to_owned()), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("5"), "{answer:?}");
}

async fn all_are_good(door: &Open, issuer: &Issuer) {
    for algorithm in ["ES256", "RS256", "PS256", "EdDSA"] {
        let answer = ask(door, issuer, algorithm).await;
        assert_eq!(answer.status, 200, "{algorithm}: {answer:?}");
    }
}

/// Its keys but that one.
fn without(issuer: &Issuer, id: &str) -> Value {
    let mut keys = issuer.keys();
    let all = keys["keys"].as_array_mut().expect("keys");
    all.retain(|key| key["kid"] != id);
    keys
}

/// Also where no token comes for hours.
#[tokio::test]
async fn a_key_that_was_withdrawn_is_good_for_ten_minutes_however_seldom_it_is_used() {
    let time = Time::stop();
    for idle in [SECOND, 20 * HOUR] {
        let issuer = Issuer::start();
        let door = open(settings(&issuer)).await;
        all_are_good(&door, &issuer).await;
        issuer.publish(&issuer.metadata(), &without(&issuer, "p256"));
        time.passes(FRESH).await;
        assert_eq!(ask(&door, &issuer, "ES256").await.status, 200);
        time.passes(idle).await;
        is_refused_for_its_key(&ask(&door, &issuer, "ES256").await);
        assert_eq!(ask(&door, &issuer, "EdDSA").await.status, 200);
        assert_eq!(issuer.questions(), 2 * ANSWERED);
    }
}

#[tokio::test]
async fn keys_are_good_for_a_day_without_their_issuer_and_no_second_longer() {
    let time = Time::stop();
    let (issuer, door) = left_alone().await;
    // Fresh: nobody is asked.
    time.passes(FRESH).await;
    all_are_good(&door, &issuer).await;
    assert_eq!(issuer.questions(), ANSWERED);
    // Asked beside, once for all of them.
    time.passes(SECOND).await;
    all_are_good(&door, &issuer).await;
    is_refused_for_its_key(&ask_by_unknown_key(&door, &issuer).await);
    assert_eq!(issuer.questions(), ANSWERED + UNANSWERED);
    // Whatever the age of the keys, they are good, and no others are.
    for past in [HOUR, 22 * HOUR, HOUR - FRESH - SECOND] {
        time.passes(past).await;
        all_are_good(&door, &issuer).await;
        is_refused_for_its_key(&ask_by_unknown_key(&door, &issuer).await);
    }
    assert_eq!(issuer.questions(), ANSWERED + 4 * UNANSWERED);
    let failures = |door: &Open| {
        let good = door.road.calls.lock().unwrap().len();
        door.road.sources.lock().unwrap().len() - good
    };
    assert_eq!(failures(&door), 4, "the unknown keys");
    // A day and a second.
    time.passes(SECOND).await;
    for algorithm in ["ES256", "RS256", "PS256", "EdDSA"] {
        is_told_to_come_again(&ask(&door, &issuer, algorithm).await);
    }
    is_told_to_come_again(&ask_by_unknown_key(&door, &issuer).await);
    assert_eq!(failures(&door), 4, "no fault of who brings a token");
}

#[tokio::test]
async fn an_issuer_that_is_back_is_asked_after_the_time_that_callers_were_told() {
    let time = Time::stop();
    let (issuer, door) = left_alone().await;
    time.passes(25 * HOUR).await;
    is_told_to_come_again(&ask(&door, &issuer, "ES256").await);
    issuer.come_back();
    time.passes(4 * SECOND).await;
    let asked = ANSWERED + UNANSWERED;
    for _ in 0..5 {
        is_told_to_come_again(&ask(&door, &issuer, "ES256").await);
    }
    assert_eq!(issuer.questions(), asked, "not before its time");
    time.passes(SECOND).await;
    all_are_good(&door, &issuer).await;
    assert_eq!(issuer.questions(), asked + ANSWERED);
    // A key that is not among them leads to another question, half a minute later.
    for (past, questions) in [(0, 1), (29, 1), (1, 2), (29, 2), (1, 3)] {
        time.passes(past * SECOND).await;
        is_refused_for_its_key(&ask_by_unknown_key(&door, &issuer).await);
        assert_eq!(issuer.questions(), asked + questions * ANSWERED, "{past}");
    }
    time.passes(FRESH).await;
    all_are_good(&door, &issuer).await;
    assert_eq!(issuer.questions(), asked + 3 * ANSWERED, "fresh again");
}

/// What an issuer withdrew while it could not be reached is no longer good once it is, and what it added is.
#[tokio::test]
async fn what_an_issuer_changed_while_it_was_down_holds_when_it_is_back() {
    let time = Time::stop();
    let issuer = Issuer::start();
    issuer.publish(&issuer.metadata(), &without(&issuer, "ed25519"));
    let door = open(settings(&issuer)).await;
    assert_eq!(ask(&door, &issuer, "ES256").await.status, 200);
    is_refused_for_its_key(&ask(&door, &issuer, "EdDSA").await);
    issuer.go_down();
    time.passes(FRESH + SECOND).await;
    assert_eq!(ask(&door, &issuer, "ES256").await.status, 200);
    is_refused_for_its_key(&ask_by_unknown_key(&door, &issuer).await);
    assert_eq!(issuer.questions(), ANSWERED + UNANSWERED);

    issuer.publish(&issuer.metadata(), &without(&issuer, "p256"));
    issuer.come_back();
    time.passes(5 * SECOND).await;
    // The last one by the old keys, beside which the new ones are asked for.
    assert_eq!(ask(&door, &issuer, "ES256").await.status, 200);
    is_refused_for_its_key(&ask_by_unknown_key(&door, &issuer).await);
    is_refused_for_its_key(&ask(&door, &issuer, "ES256").await);
    for algorithm in ["EdDSA", "RS256"] {
        let answer = ask(&door, &issuer, algorithm).await;
        assert_eq!(answer.status, 200, "{algorithm}: {answer:?}");
    }
    assert_eq!(issuer.questions(), 2 * ANSWERED + UNANSWERED);
}

/// That it failed once does not make a withdrawn key good for longer than a minute.
#[tokio::test]
async fn an_issuer_that_failed_a_while_ago_is_waited_for() {
    let time = Time::stop();
    let (issuer, door) = left_alone().await;
    time.passes(FRESH + SECOND).await;
    assert_eq!(ask(&door, &issuer, "ES256").await.status, 200);
    issuer.publish(&issuer.metadata(), &without(&issuer, "p256"));
    issuer.come_back();
    time.passes(60 * SECOND).await;
    is_refused_for_its_key(&ask(&door, &issuer, "ES256").await);
    assert_eq!(ask(&door, &issuer, "EdDSA").await.status, 200);
}

/// The first one waits for an issuer that says nothing; then one asks beside, and whoever has a key that is good leaves nothing behind.
#[tokio::test]
async fn an_issuer_that_says_nothing_is_waited_for_once() {
    let time = Time::stop();
    let (issuer, door) = left_alone().await;
    issuer.hang();
    time.passes(FRESH + SECOND).await;
    let gives_up = async {
        for question in 1..=UNANSWERED {
            is_asked(&issuer, ANSWERED + question).await;
            // More than it is waited for at each place.
            time.passes(6 * SECOND).await;
        }
    };
    let (first, ()) = tokio::join!(ask(&door, &issuer, "ES256"), gives_up);
    assert_eq!(first.status, 200, "{first:?}");
    time.passes(5 * SECOND).await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..MANY {
        assert_eq!(ask(&door, &issuer, "ES256").await.status, 200);
    }
    // The one that asks, and connections that are about to end.
    let more = tasks().saturating_sub(before);
    assert!(
        (1..MANY / 4).contains(&more),
        "{more} of {MANY} left something"
    );
    is_asked(&issuer, ANSWERED + UNANSWERED + 1).await;
}
