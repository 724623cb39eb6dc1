//! Resolvers that lie, change their answers or say nothing, and a dialer that remembers where it was sent.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ways;

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tokio::net::TcpListener;

use super::*;

const PUBLIC: &str = "93.184.216.34";
const PUBLIC_V6: &str = "2606:2800:21f:cb07:6820:80da:af6b:8b2c";

/// Each look-up takes the next answer; the last one stays.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<io::Result<Vec<IpAddr>>>>,
    asked: AtomicUsize,
}

impl Scripted {
    fn new(answers: &[&[&str]]) -> Arc<Scripted> {
        let parsed = |answer: &&[&str]| Ok(answer.iter().map(|ip| ip.parse().unwrap()).collect());
        Arc::new(Scripted {
            answers: Mutex::new(answers.iter().map(parsed).collect()),
            asked: AtomicUsize::new(0),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Resolve for Scripted {
    async fn resolve(&self, _: &HostName) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let last = answers.len() == 1;
        match answers.front().unwrap() {
            Ok(answer) if last => Ok(answer.clone()),
            Ok(_) | Err(_) => answers.pop_front().unwrap(),
        }
    }
}

/// Says nothing, and counts who waits.
#[derive(Default)]
struct Silent {
    asked: AtomicUsize,
}

#[async_trait]
impl Resolve for Silent {
    async fn resolve(&self, _: &HostName) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

/// Remembers where it was sent; every connection leads to a listener of the test.
#[derive(Clone, Default)]
struct Dialer {
    dialed: Arc<Mutex<Vec<SocketAddr>>>,
    silent: Vec<IpAddr>,
    refusing: Vec<IpAddr>,
}

impl Dialer {
    fn dialed(&self) -> Vec<String> {
        let dialed = self.dialed.lock().unwrap();
        dialed
            .iter()
            .map(|address| address.ip().to_string())
            .collect()
    }

    async fn into_reach(self, resolver: Arc<dyn Resolve>, limits: ReachLimits) -> Reach {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let connect = move |address: SocketAddr| -> Pin {
            self.dialed.lock().unwrap().push(address);
            let silent = self.silent.contains(&address.ip());
            let refusing = self.refusing.contains(&address.ip());
            Box::pin(async move {
                match (silent, refusing) {
                    (true, _) => std::future::pending().await,
                    (_, true) => Err(io::ErrorKind::ConnectionRefused.into()),
                    (false, false) => TcpStream::connect(there).await,
                }
            })
        };
        Reach {
            connect: Arc::new(connect),
            own_addresses: OwnAddresses::read_by(|| Ok(Vec::new())),
            ..Reach::new(resolver, limits)
        }
    }
}

type Pin = std::pin::Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

fn host(text: &str) -> HostName {
    HostName::parse(text.as_bytes()).unwrap()
}

fn rule(text: &str) -> NamedRule {
    NamedRule {
        name: "allow/1".to_owned(),
        rule: text.parse().unwrap(),
    }
}

fn private(text: &str) -> NamedRule {
    let mut named = rule(text);
    named.rule.private = true;
    named
}

/// What a name with these answers comes to, and where connections went.
async fn outcome(answers: &[&str], rule: &NamedRule) -> (Result<String, Denial>, Vec<String>) {
    let dialer = Dialer::default();
    let reach = dialer
        .clone()
        .into_reach(Scripted::new(&[answers]), ReachLimits::default())
        .await;
    let dialed = reach.dial(&host("example.com"), 443, rule).await;
    (
        dialed.map(|dialled| dialled.address.ip().to_string()),
        dialer.dialed(),
    )
}

#[tokio::test]
async fn a_public_address_is_dialed_and_told() {
    for address in [PUBLIC, PUBLIC_V6, "1.1.1.1"] {
        let (dialed, went) = outcome(&[address], &rule("example.com")).await;
        assert_eq!(dialed.as_deref(), Ok(address));
        assert_eq!(went, [address]);
    }
}

#[tokio::test]
async fn an_address_that_is_no_public_one_is_refused_alone_or_among_others() {
    for (address, class) in [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("10.0.0.1", "private"),
        ("172.17.0.1", "private"),
        ("192.168.65.254", "private"),
        ("100.64.0.1", "cgnat"),
        ("169.254.1.1", "link_local"),
        ("169.254.169.254", "metadata"),
        ("169.254.170.2", "metadata"),
        ("100.100.100.200", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("fd12::1", "ula"),
        ("fe80::1", "link_local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("198.18.0.1", "benchmarking"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "metadata"),
        ("::ffff:8.8.8.8", "mapped"),
        ("64:ff9b::a00:1", "private"),
        ("64:ff9b::8.8.8.8", "nat64"),
        ("2002:7f00:1::1", "loopback"),
        ("2001:0:4136:e378::1", "teredo"),
    ] {
        for answers in [
            vec![address],
            vec![PUBLIC, address],
            vec![address, PUBLIC],
            vec![
                PUBLIC, PUBLIC_V6, "1.1.1.1", "1.0.0.1", "8.8.8.8", "8.8.4.4", "9.9.9.9",
                "9.9.9.10", address,
            ],
        ] {
            let (dialed, went) = outcome(&answers, &rule("example.com")).await;
            let denial = dialed.unwrap_err();
            assert_eq!(denial.code(), "private_address", "{answers:?}");
            let Denial::PrivateAddress {
                class: found,
                address: told,
                ..
            } = denial
            else {
                unreachable!()
            };
            assert_eq!(
                (found.name(), told),
                (class, address.parse().unwrap()),
                "{answers:?}"
            );
            assert!(went.is_empty(), "{answers:?}: {went:?}");
        }
    }
    let (dialed, _) = outcome(&[PUBLIC, PUBLIC_V6], &rule("example.com")).await;
    assert_eq!(dialed.as_deref(), Ok(PUBLIC));
}

#[tokio::test]
async fn a_private_rule_reaches_private_networks_but_no_metadata() {
    let rule = private("example.com");
    for address in [
        "127.0.0.1",
        "::1",
        "10.0.0.1",
        "100.64.0.1",
        "fd12::1",
        PUBLIC,
    ] {
        let (dialed, _) = outcome(&[address], &rule).await;
        assert_eq!(dialed.as_deref(), Ok(address));
    }
    for address in [
        "169.254.169.254",
        "fd00:ec2::254",
        "169.254.7.7",
        "fe80::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "::ffff:169.254.169.254",
    ] {
        for answers in [vec![address], vec!["10.0.0.1", address]] {
            let (dialed, went) = outcome(&answers, &rule).await;
            assert_eq!(dialed.unwrap_err().code(), "private_address", "{answers:?}");
            assert!(went.is_empty());
        }
    }
}

#[tokio::test]
async fn a_name_that_changes_its_answers_is_held_to_the_first_and_judged_anew_later() {
    let resolver = Scripted::new(&[&[PUBLIC], &["127.0.0.1"]]);
    let dialer = Dialer::default();
    let limits = ReachLimits {
        pin: Duration::from_millis(300),
        ..ReachLimits::default()
    };
    let reach = dialer.clone().into_reach(resolver.clone(), limits).await;
    let (name, rule) = (host("example.com"), rule("example.com"));
    for _ in 0..3 {
        let dialled = reach.dial(&name, 443, &rule).await.unwrap();
        assert_eq!(
            dialled.address,
            SocketAddr::new(PUBLIC.parse().unwrap(), 443)
        );
    }
    assert_eq!(resolver.asked(), 1);
    tokio::time::sleep(Duration::from_millis(320)).await;
    let denial = reach.dial(&name, 443, &rule).await.unwrap_err();
    assert_eq!((denial.code(), resolver.asked()), ("private_address", 2));
    // A refused answer is not kept: were the name repaired, it would be seen.
    reach.dial(&name, 443, &rule).await.unwrap_err();
    assert_eq!(resolver.asked(), 3);
    assert_eq!(dialer.dialed(), [PUBLIC; 3]);
}

#[tokio::test]
async fn a_pinned_address_is_judged_by_the_rule_of_each_connection() {
    let dialer = Dialer::default();
    let reach = dialer
        .clone()
        .into_reach(Scripted::new(&[&["10.0.0.1"]]), ReachLimits::default())
        .await;
    let name = host("example.com");
    reach
        .dial(&name, 443, &private("example.com"))
        .await
        .unwrap();
    let denial = reach
        .dial(&name, 443, &rule("example.com"))
        .await
        .unwrap_err();
    assert_eq!(denial.code(), "private_address");
    assert_eq!(dialer.dialed(), ["10.0.0.1"]);
}

#[tokio::test]
async fn the_machines_own_addresses_are_refused_like_its_loopback() {
    let dialer = Dialer::default();
    let mut reach = dialer
        .clone()
        .into_reach(
            Scripted::new(&[&["1.1.1.1", PUBLIC]]),
            ReachLimits::default(),
        )
        .await;
    let name = host("example.com");
    reach.dial(&name, 443, &rule("example.com")).await.unwrap();
    reach.own_addresses = OwnAddresses::read_by(|| Ok(vec![PUBLIC.parse().unwrap()]));
    let denial = reach
        .dial(&name, 443, &rule("example.com"))
        .await
        .unwrap_err();
    assert!(matches!(
        denial,
        Denial::PrivateAddress {
            class: AddressClass::OwnMachine,
            ..
        }
    ));
    reach
        .dial(&name, 443, &private("example.com"))
        .await
        .unwrap();
    reach.own_addresses = OwnAddresses::read_by(|| Err(io::ErrorKind::OutOfMemory.into()));
    let denial = reach
        .dial(&name, 443, &rule("example.com"))
        .await
        .unwrap_err();
    assert_eq!(denial.code(), "internal");
    assert_eq!(dialer.dialed().len(), 2);
}

#[tokio::test]
async fn a_rule_for_something_else_opens_nothing() {
    let resolver = Scripted::new(&[&[PUBLIC]]);
    let reach = Dialer::default()
        .into_reach(resolver.clone(), ReachLimits::default())
        .await;
    let name = host("example.com");
    for (text, port, code) in [
        ("example.org", 443, "host_not_allowed"),
        ("*.example.com", 443, "host_not_allowed"),
        ("example.com", 80, "port_not_allowed"),
        ("example.com:2375", 2375, "port_not_allowed"),
        ("example.com:25", 25, "port_not_allowed"),
    ] {
        let denial = reach.dial(&name, port, &rule(text)).await.unwrap_err();
        assert_eq!(denial.code(), code, "{text}");
    }
    assert_eq!(resolver.asked(), 0);
    reach
        .dial(&name, 2375, &private("example.com:2375"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_name_without_an_address_is_told_as_such() {
    let (dialed, went) = outcome(&[], &rule("example.com")).await;
    let why = Unresolved::NoSuchName;
    assert_eq!(
        dialed,
        Err(Denial::ResolutionFailed {
            host: host("example.com"),
            why
        })
    );
    assert!(went.is_empty());
    let failing = Arc::new(Scripted::default());
    let refused = Err(io::ErrorKind::HostUnreachable.into());
    failing.answers.lock().unwrap().push_back(refused);
    let reach = Dialer::default()
        .into_reach(failing, ReachLimits::default())
        .await;
    let denial = reach
        .dial(&host("example.com"), 443, &rule("example.com"))
        .await
        .unwrap_err();
    assert_eq!(denial.code(), "resolution_failed");
    assert!(denial.to_string().contains("the resolver"), "{denial}");
}
