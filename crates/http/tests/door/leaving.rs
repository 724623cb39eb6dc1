//! Who leaves first: the client, or the server.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Answer, PATIENCE, WAIT, exchange, loopback, open, request, until};

/// A call that waits when the server leaves is told so, in time; nobody is let in any more.
#[tokio::test]
async fn waiting_calls_are_answered_when_the_server_leaves() {
    let door = open(loopback()).await;
    let mut waiting = door.connect().await;
    let text = request(
        "POST",
        "/mcp",
        door.port(),
        &[("Connection", "keep-alive")],
        WAIT,
    );
    waiting.write_all(text.as_bytes()).await.unwrap();
    let idle = door.connect().await;
    let road = &door.road;
    until("the call waits", || road.calls.lock().unwrap().len() == 1).await;
    let started = Instant::now();
    door.stop.cancel();
    let answer = Answer::of(&exchange(&mut waiting, b"").await);
    let result = &answer.json()["result"];
    assert_eq!(
        result["structuredContent"]["error"]["code"], "shutting_down",
        "{answer:?}"
    );
    tokio::time::timeout(PATIENCE, door.serving)
        .await
        .expect("in time")
        .expect("no panic");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(
        tokio::net::TcpStream::connect(door.address.unwrap())
            .await
            .is_err()
    );
    drop(idle);
}

/// A client that is in the middle of a request when the server leaves does not keep it.
#[tokio::test]
async fn a_client_that_does_not_finish_does_not_keep_the_server() {
    let mut settings = loopback();
    settings.limits.drain_time = Duration::from_millis(300);
    let door = open(settings).await;
    let mut half = door.connect().await;
    let text = request(
        "POST",
        "/mcp",
        door.port(),
        &[("Content-Length", "1000")],
        "{",
    );
    half.write_all(text.as_bytes()).await.unwrap();
    let road = &door.road;
    until("it is let in", || road.sources.lock().unwrap().len() == 1).await;
    door.stop.cancel();
    tokio::time::timeout(PATIENCE, door.serving)
        .await
        .expect("in time")
        .expect("no panic");
    assert_eq!(half.read(&mut [0; 16]).await.unwrap_or(0), 0);
}

/// A client that goes away ends its wait, never the work: the road is told by the future that is dropped.
#[tokio::test]
async fn a_disconnect_ends_the_wait() {
    let door = open(loopback()).await;
    let modern = WAIT.replace(
        r#""params":{"#,
        r#""params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}},"#,
    );
    let headers = [
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", "tools/call"),
        ("Mcp-Name", "get_execution"),
    ];
    let road = &door.road;
    for (index, (message, headers)) in [(WAIT, &[][..]), (&modern, &headers)]
        .into_iter()
        .enumerate()
    {
        let mut stream = door.connect().await;
        let text = request("POST", "/mcp", door.port(), headers, message);
        stream.write_all(text.as_bytes()).await.unwrap();
        until("the call waits", || {
            road.calls.lock().unwrap().len() == index + 1
        })
        .await;
        assert_eq!(*road.dropped.lock().unwrap(), index);
        drop(stream);
        until("the wait ended", || {
            *road.dropped.lock().unwrap() == index + 1
        })
        .await;
    }
}
