//! Rules that change while something is open, and time that passes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use egress::proxy::{Ending, ProxyLimits, ProxyPort};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::support::*;

async fn echoes(tunnel: &mut DuplexStream) -> bool {
    let mut byte = [0];
    let passes = async {
        tunnel.write_all(b"x").await?;
        tunnel.read_exact(&mut byte).await
    };
    tokio::time::timeout(SOON, passes).await.unwrap().is_ok()
}

#[tokio::test]
async fn a_tunnel_ends_when_no_rule_allows_it_any_more() {
    let server = Server::echo(b"").await;
    let [a, b] = ["a", "b"].map(|name| format!("{name}.example:{}", server.port));
    let session = Session::new(private(&[&a, &b]));
    let mut kept = session.connect(&a).await.unwrap();
    let mut cut = session.connect(&b).await.unwrap();
    assert!(echoes(&mut kept).await && echoes(&mut cut).await);
    session.egress.replace_rules(private(&[&a]));
    assert_eq!(all(&mut cut).await, "");
    assert_eq!(session.record.ending().await, Ending::RuleGone);
    assert!(echoes(&mut kept).await);
    // A rule that must look inside is not met by what nobody looks into.
    let looking = model::NetworkPolicy {
        rules: vec![model::NamedRule {
            name: "allow/1".to_owned(),
            rule: model::EgressRule {
                methods: vec!["GET".to_owned()],
                private: true,
                ..a.parse().unwrap()
            },
        }],
        ..model::NetworkPolicy::default()
    };
    session
        .egress
        .replace_rules(egress::destination::RuleSet::new(looking));
    assert_eq!(all(&mut kept).await, "");
    assert!(session.connect(&b).await.is_err());
}

#[tokio::test]
async fn a_tunnel_to_a_private_address_ends_with_the_rule_that_was_private() {
    let server = Server::echo(b"").await;
    let target = format!("a.example:{}", server.port);
    let session = Session::new(private(&[&target]));
    let mut tunnel = session.connect(&target).await.unwrap();
    assert!(echoes(&mut tunnel).await);
    session.egress.replace_rules(rule_set(&[&target], false));
    assert_eq!(all(&mut tunnel).await, "");
}

#[tokio::test]
async fn an_answer_under_way_ends_with_its_rule() {
    let server = Server::start(|mut stream, _| async move {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin";
        stream.write_all(head).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let host = format!("a.example:{}", server.port);
    let session = Session::new(private(&[&host]));
    let mut client = session.dial(ProxyPort::Http);
    let request = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    assert!(head_of(&mut client).await.contains("200 OK"));
    session.egress.replace_rules(private(&["b.example:1"]));
    all(&mut client).await;
    assert_eq!(session.record.ending().await, Ending::RuleGone);
}

#[tokio::test]
async fn silence_ends_a_tunnel_and_an_answer() {
    let server = Server::start(|stream, _| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let host = format!("a.example:{}", server.port);
    let session = Session::with(private(&[&host]), quick());
    let mut tunnel = session.connect(&host).await.unwrap();
    assert_eq!(all(&mut tunnel).await, "");
    assert_eq!(session.record.ending().await, Ending::Idle);
    let answer = session
        .say(format!(
            "GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"
        ))
        .await;
    assert_eq!(refusal(&answer), (502, "connection_failed".to_owned()));
    assert_eq!(session.record.ended(2).await[1].ending, Ending::Idle);
}

#[tokio::test]
async fn traffic_keeps_a_tunnel_open() {
    let server = Server::echo(b"").await;
    let host = format!("a.example:{}", server.port);
    let session = Session::with(private(&[&host]), quick());
    let mut tunnel = session.connect(&host).await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(echoes(&mut tunnel).await);
    }
}

#[tokio::test]
async fn the_end_of_a_session_is_the_end_of_its_tunnels_on_record() {
    let server = Server::echo(b"").await;
    let target = format!("a.example:{}", server.port);
    let session = Session::with(private(&[&target]), ProxyLimits::default());
    let (mut client, far) = tokio::io::duplex(1024);
    let (proxy, egress) = (session.proxy.clone(), session.egress.clone());
    let serving = tokio::spawn(async move { proxy.serve(far, ProxyPort::Http, egress).await });
    client
        .write_all(format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes())
        .await
        .unwrap();
    assert!(head_of(&mut client).await.contains(" 200 "));
    assert!(echoes(&mut client).await);
    serving.abort();
    let end = session.record.ended(1).await[0];
    assert_eq!(
        (end.ending, end.bytes_up, end.bytes_down),
        (Ending::Cut, 1, 1)
    );
}
