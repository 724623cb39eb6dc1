//! What goes to the provider is on record before, and what cannot be put there does not go.

use crate::support::{BODY, Records, Setting, Upstream, bytes, rule, status};
use egress::Ticket;

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";

#[tokio::test]
async fn a_request_is_announced_and_its_end_is_known_by_the_same_ticket() {
    let upstream = Upstream::saying(vec![bytes(ANSWER)]).await;
    let bench = Setting::first_party(&upstream.url).bench();
    assert_eq!(status(&bench.ask(BODY).await), 200);
    assert_eq!(status(&bench.ask("not JSON").await), 400);
    let begun = bench.records.begun.lock().unwrap().clone();
    assert_eq!(begun, [Some("claude-opus-5-5".to_owned())]);
    let told = bench.told(2).await;
    assert_eq!((told[0].0, told[0].1.status), (Some(Ticket(1)), Some(200)));
    assert_eq!((told[1].0, told[1].1.denied), (None, Some("body_not_json")));
}

#[tokio::test]
async fn a_request_that_cannot_be_recorded_never_reaches_the_provider() {
    let upstream = Upstream::saying(vec![bytes(ANSWER)]).await;
    let full = Records {
        is_full: true,
        ..Records::default()
    };
    let bench = Setting::first_party(&upstream.url).bench_with(full);
    let answer = bench.ask(BODY).await;
    assert_eq!(
        (status(&answer), rule(&answer)),
        (503, Some("audit_unavailable"))
    );
    assert!(upstream.asked().is_empty());
    let told = bench.told(1).await;
    assert_eq!((told[0].0, told[0].1.tokens.total()), (None, 0));
}

#[tokio::test]
async fn a_session_that_asks_too_often_is_told_so_and_not_that_the_record_is_broken() {
    let upstream = Upstream::saying(vec![bytes(ANSWER)]).await;
    let crowded = Records {
        is_crowded: true,
        ..Records::default()
    };
    let bench = Setting::first_party(&upstream.url).bench_with(crowded);
    let answer = bench.ask(BODY).await;
    assert_eq!(
        (status(&answer), rule(&answer)),
        (429, Some("rate_limited"))
    );
    assert!(upstream.asked().is_empty());
}
