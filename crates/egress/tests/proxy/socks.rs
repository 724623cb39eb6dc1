//! SOCKS5, by name and by the addresses that the stub DNS gave.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use egress::proxy::{ProxyPort, Way};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::{names::query, support::*};

/// The code of the reply, and the tunnel.
async fn ask(session: &Session, command: u8, address: &[u8], port: u16) -> (u8, DuplexStream) {
    let mut client = session.dial(ProxyPort::Socks);
    let request = [&[5, 1, 0, 5, command, 0][..], address, &port.to_be_bytes()].concat();
    client.write_all(&request).await.unwrap();
    let mut reply = [0; 12];
    client.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply[..3], [5, 0, 5]);
    (reply[3], client)
}

fn name(text: &[u8]) -> Vec<u8> {
    [&[3, u8::try_from(text.len()).unwrap()], text].concat()
}

#[tokio::test]
async fn a_name_that_a_rule_names_is_reached() {
    let server = Server::echo(b"hello").await;
    let session = Session::new(private(&[&format!("a.example:{}", server.port)]));
    let (code, mut tunnel) = ask(&session, 1, &name(b"A.example"), server.port).await;
    assert_eq!(code, 0);
    tunnel.write_all(b" you").await.unwrap();
    tunnel.shutdown().await.unwrap();
    assert_eq!(all(&mut tunnel).await, "hello you");
    assert_eq!(session.record.allowed()[0].way, Way::Socks);
}

#[tokio::test]
async fn everything_else_is_refused() {
    let server = Server::echo(b"").await;
    let session = Session::new(private(&[&format!("a.example:{}", server.port)]));
    let (control, _) = ask(&session, 1, &name(b"a.example"), server.port).await;
    assert_eq!(control, 0);
    let loopback = [&[1][..], &[127, 0, 0, 1]].concat();
    let six = [&[4][..], &[0; 15], &[1]].concat();
    let never_given = [&[1][..], &[198, 18, 0, 9]].concat();
    for (command, address, port, reply, denied) in [
        (1, name(b"b.example"), server.port, 2, "host_not_allowed"),
        (1, name(b"a.example\0.evil.org"), server.port, 2, "bad_name"),
        (1, name(b"a.example"), 22, 2, "port_not_allowed"),
        (1, name(b"127.0.0.1"), server.port, 2, "raw_address"),
        (1, loopback, server.port, 2, "raw_address"),
        (1, six, server.port, 2, "raw_address"),
        (1, never_given, server.port, 2, "raw_address"),
        (2, name(b"a.example"), server.port, 7, "unsupported"),
        (3, name(b"a.example"), server.port, 7, "unsupported"),
    ] {
        let (code, mut tunnel) = ask(&session, command, &address, port).await;
        assert_eq!(code, reply, "{address:?}");
        assert_eq!(all(&mut tunnel).await, "");
        assert_eq!(session.record.denied().last(), Some(&denied), "{address:?}");
    }
}

#[tokio::test]
async fn an_address_that_the_dns_gave_leads_to_its_name() {
    let server = Server::echo(b"hello").await;
    let session = Session::new(private(&[&format!("*.a.example:{}", server.port)]));
    let (_, addresses) = query(&session, "x.a.example", 1).await;
    let address = [&[1][..], &addresses[0].octets()].concat();
    let (code, mut tunnel) = ask(&session, 1, &address, server.port).await;
    assert_eq!(code, 0);
    tunnel.shutdown().await.unwrap();
    assert_eq!(all(&mut tunnel).await, "hello");
    assert_eq!(session.record.allowed()[0].host, "x.a.example");
    // It means nothing to another session, nor to this one once no rule names it.
    let other = Session::new(private(&[&format!("*.a.example:{}", server.port)]));
    assert_eq!(ask(&other, 1, &address, server.port).await.0, 2);
    session.egress.replace_rules(private(&["b.example:1"]));
    assert_eq!(ask(&session, 1, &address, server.port).await.0, 2);
}
