//! Bounds of connections, heads, bodies and time.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Answer, LIST_SESSIONS, WAIT, exchange, loopback, open, request, until};

/// A head that comes byte by byte, or never, ends with its connection; so does a connection that idles.
#[tokio::test]
async fn a_client_that_dawdles_with_its_head_is_cut_off() {
    let mut settings = loopback();
    settings.limits.head_time = Duration::from_millis(300);
    let door = open(settings).await;
    let started = Instant::now();
    let mut slow = door.connect().await;
    let dawdle = async {
        for byte in request("POST", "/mcp", door.port(), &[], LIST_SESSIONS).bytes() {
            if slow.write_all(&[byte]).await.is_err() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    };
    assert!(dawdle.await, "the whole head was taken");
    let silent = door.raw("").await;
    assert_eq!(Answer::of(&silent).body, "");
    let keep = request(
        "POST",
        "/mcp",
        door.port(),
        &[("Connection", "keep-alive")],
        LIST_SESSIONS,
    );
    let idle = door.raw(keep).await;
    assert!(idle.starts_with("HTTP/1.1 200"), "{idle}");
    assert!(started.elapsed() >= Duration::from_millis(900));
    assert_eq!(door.road.calls.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let mut settings = loopback();
    settings.limits.body_time = Duration::from_millis(200);
    let door = open(settings).await;
    let text = request(
        "POST",
        "/mcp",
        door.port(),
        &[("Content-Length", "1000")],
        "{",
    );
    let answer = Answer::of(&door.raw(text).await);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (408, "request_timeout")
    );
}

#[tokio::test]
async fn heads_are_bounded_in_length_and_number() {
    let door = open(loopback()).await;
    let long = "a".repeat(40 * 1024);
    let answer = door.post(LIST_SESSIONS, &[("X-Long", &long)]).await;
    assert_eq!(answer.status, 431, "{answer:?}");
    let names: Vec<String> = (0..100).map(|index| format!("X-{index}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(door.post(LIST_SESSIONS, &many).await.status, 431);
    let path = format!("/{}", "a".repeat(40 * 1024));
    let uri = door.raw(request("POST", &path, door.port(), &[], "")).await;
    assert!(
        uri.starts_with("HTTP/1.1 414") || uri.starts_with("HTTP/1.1 431"),
        "{uri:.100}"
    );
    assert_eq!(door.post(LIST_SESSIONS, &many[..40]).await.status, 200);
    let fits = "a".repeat(20 * 1024);
    assert_eq!(
        door.post(LIST_SESSIONS, &[("X-Long", &fits)]).await.status,
        200
    );
}

#[tokio::test]
async fn bodies_are_bounded_each_and_together() {
    let mut settings = loopback();
    settings.limits.body_bytes = 4096;
    settings.limits.bodies_bytes = 6 * 1024;
    let door = open(settings).await;
    let told = request(
        "POST",
        "/mcp",
        door.port(),
        &[("Content-Length", "4097")],
        "",
    );
    let answer = Answer::of(&door.raw(told).await);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "payload_too_large")
    );
    let padded =
        |bytes: usize| format!("{LIST_SESSIONS}{}", " ".repeat(bytes - LIST_SESSIONS.len()));
    assert_eq!(door.post(&padded(4096), &[]).await.status, 200);
    // Half of a large one is held; another does not fit beside it, a small one does.
    let whole = request("POST", "/mcp", door.port(), &[], &padded(4096));
    let (first, rest) = whole.split_at(whole.len() - 10);
    let mut held = door.connect().await;
    held.write_all(first.as_bytes()).await.unwrap();
    let mut refused = false;
    for _ in 0..200 {
        let answer = door.post(&padded(4096), &[]).await;
        refused = answer.status == 503 && answer.code() == "overloaded";
        if refused {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        refused,
        "two bodies are held where there is room for one and a half"
    );
    assert_eq!(door.post(LIST_SESSIONS, &[]).await.status, 200);
    let done = exchange(&mut held, rest.as_bytes()).await;
    assert!(done.starts_with("HTTP/1.1 200"), "{done}");
    assert_eq!(door.post(&padded(4096), &[]).await.status, 200);
}

/// Connections of one address are bounded, and come back.
#[tokio::test]
async fn one_address_has_so_many_connections_and_no_more() {
    let mut settings = loopback();
    settings.limits.connections_of_one = 3;
    let door = open(settings).await;
    let health = request(
        "GET",
        "/health",
        door.port(),
        &[("Connection", "keep-alive")],
        "",
    );
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = door.connect().await;
        stream.write_all(health.as_bytes()).await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        held.push(stream);
    }
    let refused = door
        .raw(request("GET", "/health", door.port(), &[], ""))
        .await;
    assert_eq!(refused, "");
    held.pop();
    let mut answer = String::new();
    for _ in 0..200 {
        answer = door
            .raw(request("GET", "/health", door.port(), &[], ""))
            .await;
        if !answer.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// P2c, T3.1: a body takes its room until its call is over, not only until it is read: else callers that wait would hold in memory
/// what nobody counts.
#[tokio::test]
async fn a_body_takes_its_room_for_as_long_as_its_call_runs() {
    let mut settings = loopback();
    (settings.limits.body_bytes, settings.limits.bodies_bytes) = (4096, 6 * 1024);
    let door = open(settings).await;
    // Two of them have no room at the same time.
    let long = |message: &str| format!("{message}{}", " ".repeat(4096 - message.len()));
    let mut waiting = door.connect().await;
    let text = request("POST", "/mcp", door.port(), &[], &long(WAIT));
    waiting.write_all(text.as_bytes()).await.unwrap();
    let road = &door.road;
    until("its call runs", || road.calls.lock().unwrap().len() == 1).await;
    let crowded = door.post(&long(LIST_SESSIONS), &[]).await;
    assert_eq!(
        (crowded.status, crowded.code().as_str()),
        (503, "overloaded")
    );
    assert_eq!(crowded.header("retry-after"), Some("1"));
    // The controls: a short one has room meanwhile, and a long one once the call is over.
    assert_eq!(door.post(LIST_SESSIONS, &[]).await.status, 200);
    drop(waiting);
    until("the wait ended", || *road.dropped.lock().unwrap() == 1).await;
    assert_eq!(door.post(&long(LIST_SESSIONS), &[]).await.status, 200);
}
