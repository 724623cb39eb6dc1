//! How connections come about: time limits, several addresses, real sockets.

use std::time::Instant;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};

use super::*;
use crate::destination::SystemResolver;

#[tokio::test]
async fn nobody_waits_longer_than_the_limits() {
    let limits = ReachLimits {
        resolve: Duration::from_millis(200),
        connect: Duration::from_millis(300),
        ..ReachLimits::default()
    };
    let (name, rule) = (host("example.com"), rule("example.com"));
    let begun = Instant::now();
    let reach = Dialer::default()
        .into_reach(Arc::new(Silent::default()), limits)
        .await;
    assert_eq!(
        reach.dial(&name, 443, &rule).await.unwrap_err(),
        Denial::ResolutionFailed {
            host: name.clone(),
            why: Unresolved::NoAnswer
        }
    );
    let dialer = Dialer {
        silent: vec![PUBLIC.parse().unwrap()],
        ..Dialer::default()
    };
    let reach = dialer.into_reach(Scripted::new(&[&[PUBLIC]]), limits).await;
    assert_eq!(
        reach.dial(&name, 443, &rule).await.unwrap_err(),
        Denial::ConnectionFailed {
            host: name,
            port: 443,
            why: io::ErrorKind::TimedOut
        }
    );
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(500) && took < Duration::from_secs(5),
        "{took:?}"
    );
}

#[tokio::test]
async fn an_address_that_is_silent_or_refuses_leaves_the_way_to_the_next() {
    let answers: &[&str] = &[PUBLIC_V6, "2606:4700::1111", PUBLIC];
    let dialer = Dialer {
        silent: vec![PUBLIC_V6.parse().unwrap()],
        ..Dialer::default()
    };
    let reach = dialer
        .clone()
        .into_reach(Scripted::new(&[answers]), ReachLimits::default())
        .await;
    let begun = Instant::now();
    let dialled = reach
        .dial(&host("example.com"), 443, &rule("example.com"))
        .await
        .unwrap();
    assert_eq!(dialled.address.ip().to_string(), PUBLIC);
    assert!(
        begun.elapsed() >= Duration::from_millis(240) && begun.elapsed() < Duration::from_secs(5)
    );
    // The other family is tried before the second of the first.
    assert_eq!(dialer.dialed(), [PUBLIC_V6, PUBLIC]);

    let dialer = Dialer {
        refusing: vec![PUBLIC_V6.parse().unwrap(), PUBLIC.parse().unwrap()],
        ..Dialer::default()
    };
    let reach = dialer
        .clone()
        .into_reach(Scripted::new(&[answers]), ReachLimits::default())
        .await;
    let dialled = reach
        .dial(&host("example.com"), 443, &rule("example.com"))
        .await
        .unwrap();
    assert_eq!(dialled.address.ip().to_string(), "2606:4700::1111");
    assert_eq!(dialer.dialed(), [PUBLIC_V6, PUBLIC, "2606:4700::1111"]);
}

#[tokio::test]
async fn a_host_that_moved_is_looked_up_again_after_a_failure() {
    let resolver = Scripted::new(&[&[PUBLIC], &["1.1.1.1"]]);
    let dialer = Dialer {
        refusing: vec![PUBLIC.parse().unwrap()],
        ..Dialer::default()
    };
    let reach = dialer.into_reach(resolver, ReachLimits::default()).await;
    let (name, rule) = (host("example.com"), rule("example.com"));
    let denial = reach.dial(&name, 443, &rule).await.unwrap_err();
    assert_eq!(denial.code(), "connection_failed");
    let dialled = reach.dial(&name, 443, &rule).await.unwrap();
    assert_eq!(dialled.address.ip().to_string(), "1.1.1.1");
}

#[test]
fn no_more_addresses_are_tried_than_may_be() {
    let many: Vec<IpAddr> = (0..100_u8)
        .map(|last| IpAddr::from([93, 184, 216, last]))
        .collect();
    assert_eq!(in_turn(&many, 443).len(), MAX_DIALED);
}

/// With the sockets of this machine: the name leads to one of two listeners at the same port, and the connection arrives there.
#[tokio::test]
async fn the_connection_arrives_at_the_judged_address() {
    let there = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = there.local_addr().unwrap().port();
    let elsewhere = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let resolver = Scripted::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let reach = Reach::new(resolver, ReachLimits::default());
    let named = private(&format!("example.com:{port}"));
    let mut dialled = reach
        .dial(&host("example.com"), port, &named)
        .await
        .unwrap();
    assert_eq!(dialled.address, there.local_addr().unwrap());
    assert_eq!(dialled.stream.peer_addr().unwrap(), dialled.address);
    let (mut accepted, _) = there.accept().await.unwrap();
    accepted.write_all(b"here").await.unwrap();
    let mut read = [0; 4];
    dialled.stream.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"here");
    let nobody = timeout(Duration::from_millis(100), elsewhere.accept()).await;
    assert!(nobody.is_err());
}

#[tokio::test]
async fn the_machines_resolver_finds_localhost_and_it_is_loopback() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let reach = Reach::new(Arc::new(SystemResolver::default()), ReachLimits::default());
    let text = format!("localhost:{port}");
    let denial = reach
        .dial(&host("localhost"), port, &rule(&text))
        .await
        .unwrap_err();
    assert!(matches!(
        denial,
        Denial::PrivateAddress {
            class: AddressClass::Loopback,
            ..
        }
    ));
    let dialled = reach
        .dial(&host("localhost"), port, &private(&text))
        .await
        .unwrap();
    assert_eq!(dialled.address.port(), port);
}

#[tokio::test]
async fn a_connection_of_tcp_to_itself_is_none() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = unused.local_addr().unwrap().port();
    drop(unused);
    let itself = |address: SocketAddr| -> Pin {
        Box::pin(async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind(address)?;
            let stream = socket.connect(address).await?;
            assert_eq!(stream.local_addr()?, stream.peer_addr()?);
            Ok(stream)
        })
    };
    let reach = Reach {
        connect: Arc::new(itself),
        ..Reach::new(Scripted::new(&[&["127.0.0.1"]]), ReachLimits::default())
    };
    let named = private(&format!("example.com:{port}"));
    let denial = reach
        .dial(&host("example.com"), port, &named)
        .await
        .unwrap_err();
    assert_eq!(
        denial,
        Denial::ConnectionFailed {
            host: host("example.com"),
            port,
            why: io::ErrorKind::ConnectionRefused
        }
    );
}

#[tokio::test]
async fn a_session_looks_up_few_names_at_a_time() {
    let silent = Arc::new(Silent::default());
    let limits = ReachLimits {
        resolve: Duration::from_millis(300),
        ..ReachLimits::default()
    };
    let reach = Arc::new(Dialer::default().into_reach(silent.clone(), limits).await);
    let asking: Vec<_> = (0..3 * MAX_LOOKUPS)
        .map(|number| {
            let (reach, name) = (Arc::clone(&reach), format!("a{number}.example.com"));
            tokio::spawn(async move {
                let dialed = reach.dial(&host(&name), 443, &rule("*.example.com")).await;
                dialed.map(drop).unwrap_err()
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(silent.asked.load(Ordering::SeqCst), MAX_LOOKUPS);
    for asked in asking {
        assert_eq!(asked.await.unwrap().code(), "resolution_failed");
    }
    // Places are given back: another name is asked for.
    let before = silent.asked.load(Ordering::SeqCst);
    let dialed = reach
        .dial(&host("b.example.com"), 443, &rule("*.example.com"))
        .await;
    assert_eq!(dialed.map(drop).unwrap_err().code(), "resolution_failed");
    assert_eq!(silent.asked.load(Ordering::SeqCst), before + 1);
}
