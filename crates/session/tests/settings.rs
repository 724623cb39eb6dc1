//! Settings that are replaced while sessions live, on the fake backend (E1, E2): what runs never has more than the ceiling of
//! now, what comes has what the new one allows, and nothing that was decided before gets past it.

use std::{sync::Arc, time::Duration};

use crate::support::House;
use model::{AnsweredBy, NetworkRequest, Reason, SessionId, SessionView, WidenNetwork};
use sandbox::fake::Fake;
use session::Settings;
use tokio::sync::Notify;

fn rules(view: &SessionView) -> Vec<String> {
    let network = view.network.as_ref().expect("its network");
    let rules = network.rules.iter();
    rules.map(|named| named.rule.to_string()).collect()
}

/// The settings of a house with another ceiling.
fn settings(house: &House, ceiling: &[&str]) -> Settings {
    Settings {
        policy: Arc::new(house.policy_reaching(ceiling)),
        agent: Arc::new(|| Ok(None)),
        allow_protected_changes: false,
        providers: session::Egress::none().expect("none").providers,
        credentials: session::Credentials::default(),
    }
}

async fn created(house: &House, hosts: &[&str]) -> SessionId {
    let mut request = house.request();
    request.network = NetworkRequest {
        allow: hosts
            .iter()
            .map(|host| host.parse().expect("a rule"))
            .collect(),
        ..NetworkRequest::default()
    };
    house.create_with(request).await.expect("a session").id
}

#[tokio::test]
async fn a_narrower_ceiling_takes_from_what_runs_and_a_wider_one_gives_only_to_what_comes() {
    let mut house = House::reaching(Fake::new(), &["*.example.com"]);
    let both = created(&house, &["a.example.com", "b.example.com"]).await;
    let one = created(&house, &["a.example.com"]).await;
    let next = settings(&house, &["a.example.com", "c.example.org"]);
    let policy = Arc::clone(&next.policy);
    assert_eq!(house.sessions.reconfigure(next).await, 1);
    for session in [both, one] {
        let view = house.get(session).await.expect("it");
        assert_eq!(rules(&view), ["a.example.com"]);
    }
    // The second time there is nothing to take.
    let again = settings(&house, &["a.example.com", "c.example.org"]);
    assert_eq!(house.sessions.reconfigure(again).await, 0);
    // Back: a session that lost something does not get it again by itself.
    let back = settings(&house, &["*.example.com"]);
    assert_eq!(house.sessions.reconfigure(back).await, 0);
    assert_eq!(
        rules(&house.get(both).await.expect("it")),
        ["a.example.com"]
    );
    house.policy = policy;
    let next = created(&house, &["c.example.org"]).await;
    // It was decided by the ceiling in between, and made under another one.
    assert_eq!(
        rules(&house.get(next).await.expect("it")),
        Vec::<String>::new()
    );
    // What was taken is on record too: the next server does not find it.
    let house = house.restart();
    house.reconcile().await.expect("recovered");
    let view = house.get(both).await.expect("it");
    assert_eq!(rules(&view), ["a.example.com"]);
}

#[tokio::test]
async fn what_a_person_allowed_by_the_old_ceiling_does_not_get_past_the_new_one() {
    let house = House::reaching(Fake::new(), &["*.example.com"]);
    let session = created(&house, &["a.example.com"]).await;
    let widen = |host: &str| {
        let asked = WidenNetwork {
            session,
            allow: vec![host.parse().expect("a rule")],
            by: AnsweredBy::Person,
        };
        let owner = house.owner();
        house
            .policy
            .admit_widen(&owner, &asked, Some(&owner.name()))
            .expect("a permit")
    };
    let (late, in_time) = (widen("b.example.com"), widen("c.example.com"));
    let view = house.sessions.widen(in_time).await.expect("more");
    assert_eq!(rules(&view), ["a.example.com", "c.example.com"]);
    let next = settings(&house, &["a.example.com"]);
    assert_eq!(house.sessions.reconfigure(next).await, 1);
    let view = house.sessions.widen(late).await.expect("a view");
    assert_eq!(rules(&view), ["a.example.com"]);
}

#[tokio::test]
async fn fewer_sessions_and_shorter_lives_count_for_the_next_call() {
    let house = House::new();
    house.create().await.expect("a session");
    assert_eq!(house.sessions.policy().session_bounds().max_sessions, 3);
    let mut next = settings(&house, &[]);
    next.agent = Arc::new(|| {
        Err(model::Refusal::new(
            Reason::AgentUnavailable,
            "Gone.",
            "Wait.",
        ))
    });
    house.sessions.reconfigure(next).await;
    let refused = house.create().await.expect_err("no agent");
    assert_eq!(refused.reason, Reason::AgentUnavailable);
}

/// E1, D3: what waits for a place was decided by the settings of before: it gets none by them, and its caller calls again.
#[tokio::test]
async fn a_new_session_that_waits_while_the_settings_change_is_not_made_by_the_old_ones() {
    for is_changed in [true, false] {
        let house = Arc::new(House::configured(Fake::new(), &[], |config| {
            config.max_sessions = 1;
            config.callers.queue_wait = Duration::from_secs(20);
        }));
        let first = house.create().await.expect("a session").id;
        let in_line = Arc::new(Notify::new());
        let waits = tokio::spawn({
            let (house, in_line) = (Arc::clone(&house), Arc::clone(&in_line));
            // Whether its caller is still there is looked at in the line alone.
            let gone = async move {
                in_line.notify_one();
                std::future::pending().await
            };
            let request = house.request();
            async move { house.create_as(&house.owner(), request, &[], gone).await }
        });
        in_line.notified().await;
        if is_changed {
            let next = settings(&house, &["a.example.com"]);
            house.sessions.reconfigure(next).await;
        }
        house.destroy(first).await.expect("destroyed");
        let made = waits.await.expect("no panic");
        if is_changed {
            let refusal = made.expect_err("decided by what holds no longer");
            assert_eq!(refusal.reason, Reason::LimitReached);
            assert!(
                refusal.message.contains("configuration changed"),
                "{refusal:?}"
            );
            assert_eq!(house.sessions.count().await, Ok(0));
            house.create().await.expect("called again, it is made");
        } else {
            made.expect("the control: its place");
        }
    }
}
