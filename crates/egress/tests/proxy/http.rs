//! CONNECT to ports that are not those of TLS, and plain HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use egress::proxy::{Ending, ProxyLimits, ProxyPort, Way};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\nX-Kept: a\r\n\
    Keep-Alive: timeout=5\r\nAlt-Svc: h3=\":443\"\r\nX-Egress-Denied: forged\r\n\r\nhello";

fn get(host: &str, port: u16) -> String {
    format!("GET http://{host}:{port}/a?b=c HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n")
}

#[tokio::test]
async fn a_tunnel_passes_both_ways_to_its_end_and_is_recorded() {
    let server = Server::echo(b"SSH-2.0-server\r\n").await;
    let session = Session::new(private(&[&format!("git.example:{}", server.port)]));
    let mut tunnel = session
        .connect(&format!("git.example:{}", server.port))
        .await
        .unwrap();
    // The server speaks first.
    let mut greeting = [0; 16];
    tunnel.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"SSH-2.0-server\r\n");
    tunnel.write_all(b"SSH-2.0-client\r\n").await.unwrap();
    tunnel.shutdown().await.unwrap();
    assert_eq!(all(&mut tunnel).await, "SSH-2.0-client\r\n");
    let end = session.record.ended(1).await[0];
    assert_eq!(
        (end.bytes_up, end.bytes_down, end.ending),
        (16, 32, Ending::Complete)
    );
    let decisions = session.record.allowed();
    assert_eq!(decisions.len(), 1);
    assert_eq!(
        (decisions[0].way, decisions[0].host.as_str()),
        (Way::Connect, "git.example")
    );
    assert_eq!(decisions[0].rule.as_deref(), Some("allow/1"));
    assert!(session.record.denied().is_empty());
}

#[tokio::test]
async fn megabytes_pass_unchanged_while_the_other_side_is_slow() {
    let server = Server::echo(b"").await;
    let target = format!("a.example:{}", server.port);
    let session = Session::new(private(&[&target]));
    let tunnel = session.connect(&target).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(tunnel);
    let sent: Vec<u8> = (0..8_000_000_u32).map(|at| (at % 251) as u8).collect();
    let copy = sent.clone();
    tokio::spawn(async move {
        writer.write_all(&copy).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    let mut piece = vec![0; 100_000];
    loop {
        match reader.read(&mut piece).await.unwrap() {
            0 => break,
            count => received.extend_from_slice(&piece[..count]),
        }
        if received.len() % 7 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(received == sent);
}

#[tokio::test]
async fn what_no_rule_allows_is_refused_with_its_reason() {
    let server = Server::echo(b"").await;
    let allowed = format!("a.example:{}", server.port);
    let session = Session::new(private(&[&allowed]));
    assert!(session.connect(&allowed).await.is_ok(), "the control");
    let port = server.port;
    for (target, status, code) in [
        (format!("b.example:{port}"), 403, "host_not_allowed"),
        (
            format!("a.example.evil.org:{port}"),
            403,
            "host_not_allowed",
        ),
        (format!("x.a.example:{port}"), 403, "host_not_allowed"),
        ("a.example:22".to_owned(), 403, "port_not_allowed"),
        ("a.example:25".to_owned(), 403, "port_not_allowed"),
        ("a.example:2375".to_owned(), 403, "port_not_allowed"),
        (format!("127.0.0.1:{port}"), 403, "raw_address"),
        (format!("2130706433:{port}"), 403, "raw_address"),
        (format!("0x7f.1:{port}"), 403, "raw_address"),
        (format!("[::1]:{port}"), 403, "raw_address"),
        (format!("[::ffff:127.0.0.1]:{port}"), 403, "raw_address"),
        (format!("user@a.example:{port}"), 403, "bad_name"),
        (format!("a.example%00.evil.org:{port}"), 403, "bad_name"),
        ("a.example".to_owned(), 400, "bad_request"),
        ("a.example:0".to_owned(), 400, "bad_request"),
    ] {
        let answer = session.connect(&target).await.unwrap_err();
        assert_eq!(refusal(&answer), (status, code.to_owned()), "{target}");
        assert_eq!(session.record.denied().last(), Some(&code), "{target}");
    }
}

#[tokio::test]
async fn spellings_of_an_allowed_name_are_that_name() {
    let server = Server::echo(b"").await;
    let session = Session::new(private(&[&format!("a.example:{}", server.port)]));
    for host in ["A.Example", "a.example."] {
        let tunnel = session.connect(&format!("{host}:{}", server.port)).await;
        assert!(tunnel.is_ok(), "{host}");
    }
    assert!(
        session
            .record
            .allowed()
            .iter()
            .all(|decision| decision.host == "a.example")
    );
}

#[tokio::test]
async fn a_session_without_rules_reaches_nothing() {
    let session = Session::new(private(&[]));
    let answer = session.connect("a.example:443").await.unwrap_err();
    assert_eq!(refusal(&answer), (403, "network_off".to_owned()));
    let answer = session.say(get("a.example", 80)).await;
    assert_eq!(refusal(&answer), (403, "network_off".to_owned()));
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused() {
    let server = Server::echo(b"").await;
    let target = format!("a.example:{}", server.port);
    let session = Session::new(rule_set(&[&target], false));
    for addresses in [
        &["127.0.0.1"][..],
        &["10.0.0.1"],
        &["169.254.169.254"],
        &["::ffff:127.0.0.1"],
        &["93.184.215.14", "127.0.0.1"],
    ] {
        session.names.say("a.example", addresses);
        let answer = session.connect(&target).await.unwrap_err();
        assert_eq!(refusal(&answer).1, "private_address", "{addresses:?}");
    }
    // An allowed one that never was used, and then the refusal.
    assert_eq!(session.record.ended(5).await[0].ending, Ending::Unused);
    assert_eq!(session.record.denied(), ["private_address"; 5]);
    let control = Session::new(private(&[&target]));
    assert!(control.connect(&target).await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_connected() {
    let server = Server::http(OK).await;
    let session = Session::new(private(&[&format!("a.example:{}", server.port)]));
    session.record.is_full.store(true, SeqCst);
    let target = format!("a.example:{}", server.port);
    let answer = session.connect(&target).await.unwrap_err();
    assert_eq!(refusal(&answer), (503, "audit_unavailable".to_owned()));
    let answer = session.say(get("a.example", server.port)).await;
    assert_eq!(refusal(&answer), (503, "audit_unavailable".to_owned()));
    assert!(server.received().is_empty());
    session.record.is_full.store(false, SeqCst);
    assert!(session.connect(&target).await.is_ok(), "the control");
}

#[tokio::test]
async fn a_session_that_connects_too_often_is_told_so_and_not_that_the_record_is_broken() {
    let server = Server::http(OK).await;
    let session = Session::new(private(&[&format!("a.example:{}", server.port)]));
    session.record.is_crowded.store(true, SeqCst);
    let target = format!("a.example:{}", server.port);
    let answer = session.connect(&target).await.unwrap_err();
    assert_eq!(refusal(&answer), (429, "rate_limited".to_owned()));
    assert!(server.received().is_empty());
    assert_eq!(session.record.denied(), ["rate_limited"]);
    session.record.is_crowded.store(false, SeqCst);
    assert!(session.connect(&target).await.is_ok(), "the control");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_502() {
    let free = Server::echo(b"").await.port;
    // A port that nobody listens at: one that was just given back.
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let session = Session::new(private(&[&format!("a.example:{free},{gone}")]));
    let answer = session
        .connect(&format!("a.example:{gone}"))
        .await
        .unwrap_err();
    assert_eq!(refusal(&answer), (502, "connection_failed".to_owned()));
    assert!(session.connect(&format!("a.example:{free}")).await.is_ok());
}

#[tokio::test]
async fn plain_http_goes_out_as_it_was_judged() {
    let server = Server::http(OK).await;
    let session = Session::new(private(&[&format!("a.example:{}", server.port)]));
    let host = format!("a.example:{}", server.port);
    let request = format!(
        "POST http://{host}/p?q=secret HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Basic x\r\n\
         Proxy-Connection: keep-alive\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nX-Kept: 1\r\n\
         Content-Length: 4\r\n\r\nbody"
    );
    let answer = session.say(request).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"),
        "{answer}"
    );
    let lower = answer.to_lowercase();
    assert!(lower.contains("x-kept: a"), "{answer}");
    for header in ["keep-alive", "alt-svc", "x-egress-denied"] {
        assert!(!lower.contains(header), "{answer}");
    }
    let received = server.received().pop().unwrap().to_lowercase();
    assert!(
        received.starts_with("post /p?q=secret http/1.1\r\n"),
        "{received}"
    );
    assert!(received.contains(&format!("host: {host}\r\n")) && received.ends_with("body"));
    assert!(received.contains("x-kept: 1"));
    for header in ["proxy-", "x-hop", "keep-alive"] {
        assert!(!received.contains(header), "{received}");
    }
    let decision = session.record.allowed().pop().unwrap();
    assert_eq!((decision.way, decision.method), (Way::Http, Some("POST")));
    assert!(!format!("{decision:?}").contains("secret"));
    assert_eq!(session.record.ending().await, Ending::Complete);
}

#[tokio::test]
async fn each_request_of_a_connection_is_judged_on_its_own() {
    let server = Server::http("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    let port = server.port;
    let session = Session::new(private(&[
        &format!("a.example:{port}"),
        &format!("b.example:{port}"),
    ]));
    let requests = [
        get("a.example", port),
        get("b.example", port),
        get("c.example", port),
    ];
    let mut client = session.dial(ProxyPort::Http);
    // The third one in the same write: what was allowed before opens nothing for it.
    client
        .write_all(requests.concat().as_bytes())
        .await
        .unwrap();
    let answer = all(&mut client).await;
    assert_eq!(answer.matches("hello").count(), 2, "{answer}");
    assert_eq!(
        answer.matches("x-egress-denied: host_not_allowed").count(),
        1,
        "{answer}"
    );
    assert_eq!(server.received().len(), 2);
    let hosts: Vec<_> = session
        .record
        .allowed()
        .into_iter()
        .map(|found| found.host)
        .collect();
    assert_eq!(hosts, ["a.example", "b.example"]);
}

#[tokio::test]
async fn a_body_in_chunks_and_an_answer_without_length_pass() {
    let server = Server::http("HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
    let host = format!("a.example:{}", server.port);
    let session = Session::new(private(&[&host]));
    let request = format!(
        "PUT http://{host}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n4\r\nGET \r\n3\r\nabc\r\n0\r\n\r\n"
    );
    let answer = session.say(request).await;
    assert!(answer.contains("until the end"), "{answer}");
    let received = server.received().pop().unwrap();
    assert!(
        received.contains("GET ") && received.contains("abc"),
        "{received}"
    );
}

#[tokio::test]
async fn other_ways_of_asking_are_refused() {
    let server = Server::http(OK).await;
    let host = format!("a.example:{}", server.port);
    let session = Session::new(private(&[&host]));
    let line = format!("GET http://{host}/ HTTP/1.1\r\n");
    assert!(
        session
            .say(format!("{line}Host: {host}\r\nConnection: close\r\n\r\n"))
            .await
            .contains("hello")
    );
    for (head, status, code) in [
        (
            format!("{line}Host: b.example\r\n\r\n"),
            400,
            "host_mismatch",
        ),
        (
            format!("{line}Host: a.example\r\n\r\n"),
            400,
            "host_mismatch",
        ),
        (format!("{line}\r\n"), 400, "bad_request"),
        (
            format!("{line}Host: {host}\r\nHost: {host}\r\n\r\n"),
            400,
            "bad_request",
        ),
        (
            format!("{line}Host: {host}\r\nUpgrade: h2c\r\n\r\n"),
            403,
            "upgrade",
        ),
        (
            format!("{line}Host: {host}\r\nUpgrade: websocket\r\n\r\n"),
            403,
            "upgrade",
        ),
        (
            format!(
                "{line}Host: {host}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
            400,
            "bad_request",
        ),
        (
            format!("{line}Host: {host}\r\nA: b\r\n c\r\n\r\n"),
            400,
            "bad_request",
        ),
        (format!("{line}Host: {host}\n\n"), 400, "bad_request"),
        (
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            400,
            "bad_request",
        ),
        (
            format!(
                "GET http://127.0.0.1:{}/ HTTP/1.1\r\nHost: 127.0.0.1:{0}\r\n\r\n",
                server.port
            ),
            403,
            "raw_address",
        ),
        (
            format!("GET http://u:p@{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            403,
            "bad_name",
        ),
        (
            format!("GET https://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            400,
            "bad_request",
        ),
        (
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            400,
            "bad_request",
        ),
        (
            format!("CONNECT {host} HTTP/1.1\r\nHost: b.example\r\n\r\n"),
            400,
            "host_mismatch",
        ),
        (
            format!("GET http://a.example/{} HTTP/1.1\r\n", "a".repeat(40_000)),
            400,
            "bad_request",
        ),
    ] {
        let answer = session.say(&head).await;
        assert_eq!(refusal(&answer), (status, code.to_owned()), "{head:.200}");
        assert_eq!(session.record.denied().last(), Some(&code));
    }
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn a_tunnel_through_a_request_is_none() {
    let server = Server::http(OK).await;
    let host = format!("a.example:{}", server.port);
    let session = Session::new(private(&[&host]));
    let both = format!(
        "GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\nCONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"
    );
    let answer = session.say(both).await;
    assert!(
        answer.contains("hello") && answer.contains("x-egress-denied: bad_request"),
        "{answer}"
    );
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    let server = Server::http(OK).await;
    let host = format!("a.example:{}", server.port);
    let session = Session::with(private(&[&host]), quick());
    let mut silent = session.dial(ProxyPort::Http);
    let mut slow = session.dial(ProxyPort::Http);
    slow.write_all(b"GET http://a.exam").await.unwrap();
    assert_eq!(all(&mut silent).await, "");
    assert_eq!(all(&mut slow).await, "");
    // The same between requests.
    let mut idle = session.dial(ProxyPort::Http);
    idle.write_all(get("a.example", server.port).as_bytes())
        .await
        .unwrap();
    assert!(all(&mut idle).await.ends_with("hello"));
}

#[tokio::test]
async fn tunnels_are_counted_and_given_back() {
    let server = Server::echo(b"").await;
    let target = format!("a.example:{}", server.port);
    let limits = ProxyLimits {
        max_tunnels: 2,
        max_connections: 4,
        ..ProxyLimits::default()
    };
    let session = Session::with(private(&[&target]), limits);
    let first = session.connect(&target).await.unwrap();
    let _second = session.connect(&target).await.unwrap();
    let answer = session.connect(&target).await.unwrap_err();
    assert_eq!(refusal(&answer), (429, "too_many".to_owned()));
    assert_eq!(session.egress.counts().open, 2);
    drop(first);
    session.record.ended(1).await;
    let _third = session.connect(&target).await.unwrap();
    // Connections that ask for nothing yet count as well.
    let _waiting = [session.dial(ProxyPort::Http), session.dial(ProxyPort::Http)];
    tokio::time::sleep(Duration::from_millis(50)).await;
    let answer = session.say("").await;
    assert_eq!(refusal(&answer), (429, "too_many".to_owned()));
}
