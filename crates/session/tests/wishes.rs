//! What a session was refused and a person may allow, on the fake backend: a yes counts while the question is open, a no stands,
//! and what was said is what the next server finds.

use std::time::{Duration, Instant};

use crate::support::House;
use model::{
    AnswerNetwork, AnsweredBy, Awaited, ExecutionView, GetExecution, NetworkTarget, Reason,
    Refusal, SessionId, SessionView, WidenNetwork,
};
use policy::ExecutionVerb;
use sandbox::fake::Fake;

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(100);

fn house() -> House {
    House::reaching(Fake::new(), &["*.example.com"])
}

fn target(host: &str) -> NetworkTarget {
    NetworkTarget {
        host: host.to_owned(),
        port: 443,
    }
}

/// Asks the proxy for a tunnel, and gives what it said.
async fn tunnel(house: &House, session: SessionId, host: &str) -> (ExecutionView, String) {
    let place = target(host);
    let line = format!(
        "exec 3<>/dev/tcp/127.0.0.1/3128; echo CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r >&3; cat <&3"
    );
    let ran = house.run(session, &["bash", "-c", &line], LONG).await;
    let ran = ran.expect("an execution");
    let said = String::from_utf8_lossy(&ran.stdout.bytes).into_owned();
    assert!(said.starts_with("HTTP/1.1 "), "{ran:?}");
    (ran, said)
}

async fn answer(
    house: &House,
    session: SessionId,
    host: &str,
    allow: bool,
) -> Result<SessionView, Refusal> {
    let asked = AnswerNetwork {
        session,
        target: target(host),
        allow,
        by: AnsweredBy::Person,
    };
    let owner = house.sessions.owner(session).await?;
    let permit = house
        .policy
        .admit_network_answer(&house.owner(), &asked, owner.as_deref())?;
    house.sessions.answer_network(permit).await
}

async fn widen(house: &House, session: SessionId, rule: &str) -> Result<SessionView, Refusal> {
    let asked = WidenNetwork {
        session,
        allow: vec![rule.parse().expect("a rule")],
        by: AnsweredBy::Person,
    };
    let owner = house.sessions.owner(session).await?;
    let permit = house
        .policy
        .admit_widen(&house.owner(), &asked, owner.as_deref())?;
    house.sessions.widen(permit).await
}

fn rules(view: &SessionView) -> Vec<String> {
    let network = view.network.as_ref().expect("its network");
    let rules = network.rules.iter();
    rules
        .map(|named| format!("{} {}", named.name, named.rule))
        .collect()
}

fn open(view: &SessionView) -> Vec<String> {
    let questions = view.network_questions.iter();
    questions
        .map(|question| question.target.host.clone())
        .collect()
}

fn reason(answered: Result<SessionView, Refusal>) -> Reason {
    answered.expect_err("a refusal").reason
}

#[tokio::test]
async fn a_yes_counts_once_and_only_while_the_question_is_open() {
    let house = house();
    let session = house.create().await.expect("a session").id;
    let unasked = answer(&house, session, "a.example.com", true).await;
    assert_eq!(reason(unasked), Reason::QuestionNotFound);
    assert_eq!(
        rules(&house.get(session).await.expect("it")),
        Vec::<String>::new()
    );
    let (ran, said) = tunnel(&house, session, "a.example.com").await;
    assert!(said.contains("try again in a minute"), "{said}");
    assert_eq!(ran.network_questions.len(), 1);
    // Another host's question is none of this one.
    let other = answer(&house, session, "b.example.com", true).await;
    assert_eq!(reason(other), Reason::QuestionNotFound);
    let view = answer(&house, session, "a.example.com", true)
        .await
        .expect("a yes");
    assert_eq!(
        (rules(&view), open(&view)),
        (vec!["person/1 a.example.com".to_owned()], Vec::new())
    );
    for allow in [true, false] {
        let again = answer(&house, session, "a.example.com", allow).await;
        assert_eq!(reason(again), Reason::QuestionNotFound);
    }
    let (_, said) = tunnel(&house, session, "a.example.com").await;
    assert!(!said.contains("person"), "{said}");
}

#[tokio::test]
async fn a_no_stands_for_the_next_server_too_until_a_person_allows_it_by_themselves() {
    let house = house();
    let session = house.create().await.expect("a session").id;
    tunnel(&house, session, "a.example.com").await;
    let view = answer(&house, session, "a.example.com", false)
        .await
        .expect("a no");
    assert_eq!((rules(&view), open(&view)), (Vec::new(), Vec::new()));
    // Also before anything is asked.
    answer(&house, session, "b.example.com", false)
        .await
        .expect("a no");
    let house = house.restart();
    house.reconcile().await.expect("recovered");
    for host in ["a.example.com", "b.example.com"] {
        let (ran, said) = tunnel(&house, session, host).await;
        assert!(said.contains("a person said no"), "{said}");
        assert_eq!(ran.network_questions, []);
        let late = answer(&house, session, host, true).await;
        assert_eq!(reason(late), Reason::QuestionNotFound);
    }
    widen(&house, session, "a.example.com")
        .await
        .expect("a yes");
    let house = house.restart();
    house.reconcile().await.expect("recovered");
    let view = house.get(session).await.expect("it");
    assert_eq!(rules(&view), ["person/1 a.example.com"]);
    let (_, said) = tunnel(&house, session, "b.example.com").await;
    assert!(said.contains("a person said no"), "{said}");
}

#[tokio::test]
async fn what_a_person_allows_by_themselves_is_no_question_any_more() {
    let house = house();
    let session = house.create().await.expect("a session").id;
    for host in ["a.example.com", "b.example.com"] {
        tunnel(&house, session, host).await;
    }
    let view = house.get(session).await.expect("it");
    assert_eq!(open(&view), ["a.example.com", "b.example.com"]);
    let view = widen(&house, session, "*.example.com")
        .await
        .expect("a yes");
    assert_eq!(open(&view), Vec::<String>::new());
}

#[tokio::test]
async fn who_waits_for_an_end_or_a_wish_hears_of_the_wish_and_of_its_answer() {
    let house = house();
    let session = house.create().await.expect("a session").id;
    let sleeping = house.run(session, &["sleep", "600"], Duration::ZERO).await;
    let sleeping = sleeping.expect("an execution").id;
    let read = async |wait, awaited| {
        let get = GetExecution {
            execution: sleeping,
            stdout_cursor: 0,
            stderr_cursor: 0,
            wait,
            awaited,
        };
        let owner = house.sessions.owner(session).await.expect("an owner");
        let permit = house.policy.admit_execution(
            &house.owner(),
            ExecutionVerb::Read,
            sleeping,
            owner.as_deref(),
        );
        let permit = permit.expect("a permit");
        house
            .sessions
            .read_execution(permit, &get)
            .await
            .expect("it")
    };
    // The control: nothing is asked, so it waits.
    let began = Instant::now();
    let view = read(SHORT, Awaited::EndOrWish).await;
    assert!(began.elapsed() >= SHORT && view.network_questions.is_empty());
    let (view, _) = tokio::join!(
        read(LONG * 6, Awaited::EndOrWish),
        tunnel(&house, session, "a.example.com")
    );
    assert_eq!(view.network_questions.len(), 1);
    // Who does not ask for wishes is not woken by one.
    let began = Instant::now();
    read(SHORT, Awaited::End).await;
    assert!(began.elapsed() >= SHORT);
    let answered = Awaited::NetworkAnswered(target("a.example.com"));
    let (view, _) = tokio::join!(
        read(LONG * 6, answered),
        answer(&house, session, "a.example.com", false)
    );
    assert!(view.network_questions.is_empty());
    assert!(began.elapsed() < LONG);
}

#[tokio::test]
async fn a_session_without_ways_out_asks_nothing_and_takes_no_answer() {
    let house = House::new();
    let session = house.create().await.expect("a session").id;
    let answered = answer(&house, session, "a.example.com", false).await;
    assert_eq!(reason(answered), Reason::NetworkNotAllowed);
}
