//! The stub DNS, as a resolver inside sees it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::Ipv4Addr;

use egress::proxy::{ProxyLimits, ProxyPort, Way};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, RCODE, TYPE, rdata::RData};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::support::*;

async fn exchange(client: &mut DuplexStream, name: &str, kind: u16) -> (RCODE, Vec<Ipv4Addr>) {
    let mut packet = Packet::new_query(77);
    packet.questions.push(Question::new(
        Name::new_unchecked(name),
        QTYPE::TYPE(TYPE::from(kind)),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    let message = packet.build_bytes_vec().unwrap();
    client
        .write_u16(u16::try_from(message.len()).unwrap())
        .await
        .unwrap();
    client.write_all(&message).await.unwrap();
    let length = client.read_u16().await.unwrap();
    let mut answer = vec![0; usize::from(length)];
    client.read_exact(&mut answer).await.unwrap();
    let answer = Packet::parse(&answer).unwrap();
    assert_eq!(answer.id(), 77);
    let addresses = answer.answers.iter().map(|record| {
        let RData::A(a) = &record.rdata else {
            panic!("{record:?}");
        };
        Ipv4Addr::from_bits(a.address)
    });
    (answer.rcode(), addresses.collect())
}

pub async fn query(session: &Session, name: &str, kind: u16) -> (RCODE, Vec<Ipv4Addr>) {
    exchange(&mut session.dial(ProxyPort::Names), name, kind).await
}

#[tokio::test]
async fn names_of_rules_have_addresses_and_others_do_not_exist() {
    let session = Session::new(private(&["a.example", "*.b.example:80"]));
    let (code, first) = query(&session, "a.example", 1).await;
    assert_eq!(code, RCODE::NoError);
    assert!(matches!(first[0].octets(), [198, 18 | 19, ..]));
    assert_eq!(query(&session, "A.EXAMPLE", 1).await.1, first);
    let (_, second) = query(&session, "x.b.example", 1).await;
    assert_ne!(first, second);
    assert_eq!(
        query(&session, "a.example", 28).await,
        (RCODE::NoError, vec![])
    );
    for (name, kind) in [
        ("b.example", 1),
        ("c.example", 1),
        ("data.a.example", 1),
        ("a.example", 16),
        ("a.example", 10),
        ("a.example", 15),
        ("a.example", 255),
    ] {
        let (code, addresses) = query(&session, name, kind).await;
        assert!(
            code != RCODE::NoError && addresses.is_empty(),
            "{name} {kind}"
        );
    }
    let decisions = session.record.decisions.lock().unwrap();
    assert!(decisions.iter().all(|decision| decision.way == Way::Names));
    let hosts: Vec<_> = decisions
        .iter()
        .map(|decision| decision.host.as_str())
        .collect();
    // Repeated ones once.
    assert_eq!(
        hosts,
        ["b.example", "c.example", "data.a.example", "a.example"]
    );
}

#[tokio::test]
async fn many_questions_pass_on_one_connection_and_too_many_do_not() {
    let limits = ProxyLimits {
        names_per_second: 1,
        names_burst: 20,
        ..ProxyLimits::default()
    };
    let session = Session::with(private(&["*.a.example"]), limits);
    let mut client = session.dial(ProxyPort::Names);
    let mut answered = 0;
    for index in 0..40 {
        let (code, _) = exchange(&mut client, &format!("x{index}.a.example"), 1).await;
        answered += usize::from(code == RCODE::NoError);
    }
    assert!((20..=22).contains(&answered), "{answered}");
    assert_eq!(session.record.denied(), ["too_many"]);
}

#[tokio::test]
async fn garbage_ends_the_connection_or_is_told() {
    let session = Session::new(private(&["a.example"]));
    for bytes in [&[0xff, 0xff, 1][..], &[0, 3, 1, 2, 3], &[0, 0]] {
        let mut client = session.dial(ProxyPort::Names);
        client.write_all(bytes).await.unwrap();
        assert_eq!(all(&mut client).await, "", "{bytes:?}");
    }
    assert_eq!(
        query(&session, "a.example", 1).await.0,
        RCODE::NoError,
        "the control"
    );
}
