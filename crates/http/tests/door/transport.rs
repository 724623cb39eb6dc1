//! TLS, the unix socket, and proxies in front.

use std::{
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use http_door::{Door, DoorError, Settings, TlsFiles};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::support::{Answer, LIST_SESSIONS, exchange, loopback, open, request, until};

/// A certificate for `localhost` and its key, written there; what vouches for it.
fn certify(directory: &Path) -> RootCertStore {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = directory.join("key.pem");
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(directory.join("certificate.pem"), made.cert.pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    roots
}

fn files(directory: &Path) -> TlsFiles {
    TlsFiles {
        certificate: directory.join("certificate.pem"),
        key: directory.join("key.pem"),
    }
}

async fn over_tls(port: u16, roots: RootCertStore) -> Result<String, std::io::Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let text = request("POST", "/mcp", port, &[], LIST_SESSIONS);
    Ok(exchange(&mut stream, text.as_bytes()).await)
}

#[tokio::test]
async fn tls_is_spoken_with_the_certificate_that_stands_in_the_files_now() {
    let directory = tempfile::tempdir().unwrap();
    let roots = certify(directory.path());
    let mut settings = loopback();
    settings.tls = Some(files(directory.path()));
    settings.limits.tls_time = Duration::from_millis(300);
    let door = open(settings).await;
    let answer = over_tls(door.port(), roots.clone()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // In the clear nothing is said that could be read, and a client that says nothing is not waited for.
    let plain = door
        .raw(request("GET", "/health", door.port(), &[], ""))
        .await;
    assert!(!plain.contains("HTTP/1.1"), "{plain}");
    assert_eq!(door.raw("").await, "");
    assert!(over_tls(door.port(), RootCertStore::empty()).await.is_err());

    // Half of a new pair changes nothing; the whole is used for the next connection.
    let other = tempfile::tempdir().unwrap();
    let renewed = certify(other.path());
    let copy =
        |name: &str| std::fs::copy(other.path().join(name), directory.path().join(name)).unwrap();
    copy("certificate.pem");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(over_tls(door.port(), roots.clone()).await.is_ok());
    copy("key.pem");
    let mut is_new = false;
    for _ in 0..100 {
        is_new = over_tls(door.port(), renewed.clone()).await.is_ok();
        if is_new {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(is_new);
    assert!(over_tls(door.port(), roots).await.is_err());
}

#[tokio::test]
async fn a_key_that_others_can_read_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    certify(directory.path());
    let mut settings = loopback();
    settings.tls = Some(files(directory.path()));
    for mode in [0o640, 0o604, 0o666] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(directory.path().join("key.pem"), permissions).unwrap();
        let refused = Door::open(settings.clone(), true).await.err().unwrap();
        assert!(matches!(refused, DoorError::Tls(_)), "{mode:o}: {refused}");
    }
    for (certificate, key) in [
        ("key.pem", "key.pem"),
        ("certificate.pem", "certificate.pem"),
        ("none", "key.pem"),
    ] {
        let mut wrong = settings.clone();
        let permissions = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(directory.path().join("key.pem"), permissions.clone()).unwrap();
        std::fs::set_permissions(directory.path().join("certificate.pem"), permissions).unwrap();
        wrong.tls = Some(TlsFiles {
            certificate: directory.path().join(certificate),
            key: directory.path().join(key),
        });
        assert!(
            Door::open(wrong, true).await.is_err(),
            "{certificate} {key}"
        );
    }
    assert!(Door::open(settings, true).await.is_ok());
}

/// A socket for processes of this user; a token is asked for all the same.
#[tokio::test]
async fn a_unix_socket_is_private_asks_for_a_token_and_goes_with_the_door() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mcp.sock");
    let settings = Settings::new(format!("unix:{}", path.display()).parse().unwrap());
    // One that a killed server left is taken away, one that is in use is not, and no other file ever.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let door = open(settings.clone()).await;
    let found = std::fs::metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    let refused = Door::open(settings.clone(), true).await.err().unwrap();
    assert!(matches!(refused, DoorError::InTheWay(_)), "{refused}");
    let ask = async |headers: &[(&str, &str)]| {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let text = request("POST", "/mcp", 80, headers, LIST_SESSIONS);
        Answer::of(&exchange(&mut stream, text.as_bytes()).await)
    };
    let host = ("Host", "localhost");
    assert_eq!(ask(&[host]).await.status, 200);
    assert_eq!(ask(&[host, ("Authorization", "")]).await.status, 401);
    assert_eq!(ask(&[("Host", "evil.example")]).await.status, 403);
    assert_eq!(
        ask(&[host, ("X-Forwarded-For", "203.0.113.7")])
            .await
            .status,
        200
    );
    {
        let calls = door.road.calls.lock().unwrap();
        let seen: Vec<_> = calls.iter().map(|call| call.source).collect();
        assert!(
            seen.iter()
                .all(|source| source.transport == model::Transport::HttpUnix)
        );
        assert_eq!(seen[0].address, None);
        assert_eq!(seen[1].address, Some("203.0.113.7".parse().unwrap()));
    }
    door.stop.cancel();
    door.serving.await.unwrap();
    assert!(!path.exists());
    std::fs::write(&path, "a file").unwrap();
    assert!(Door::open(settings, true).await.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file");
}

/// A named proxy says whose request it is; anybody else's word about that is not heard.
#[tokio::test]
async fn only_a_named_proxy_says_who_calls() {
    for (proxies, seen) in [
        (vec![], "127.0.0.1"),
        (vec!["127.0.0.1".parse().unwrap()], "203.0.113.7"),
    ] {
        let mut settings = loopback();
        settings.proxies = proxies;
        settings.hosts = vec!["mcp.example".to_owned()];
        let door = open(settings).await;
        let forwarded = [("X-Forwarded-For", "10.0.0.1, 203.0.113.7")];
        assert_eq!(door.post(LIST_SESSIONS, &forwarded).await.status, 200);
        let road = &door.road;
        until("a call", || !road.calls.lock().unwrap().is_empty()).await;
        let source = road.calls.lock().unwrap()[0].source;
        assert_eq!(source.address, Some(seen.parse().unwrap()));
    }
}
