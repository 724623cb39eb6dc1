//! Tunnels whose TLS is opened, and the credentials that are put into their requests.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    io,
    os::unix::fs::PermissionsExt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use egress::{
    Credential, Form, Guard, Source, TokenCommand, Trust,
    destination::RuleSet,
    intercept::{Authority, Binding, Bound, Broker, Carrier, Interception},
    proxy::{Ending, Opening, ProxyLimits, ProxyPort, Way},
};
use model::{EgressRule, NamedRule, NetworkPolicy, Secret, SessionId};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::*;

const PLACEHOLDER: &str = "ccm-placeholder-0123456789abcdef";
const SECRET: &str = "real-token-of-the-host";
const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";

/// Somebody who vouches for servers.
struct Roots {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What is wrong with a server's certificate.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    Expired,
    OtherName,
    SelfSigned,
}

impl Roots {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "roots of the test");
        let pem = params.self_signed(&key).unwrap().pem();
        Roots {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn acceptor(&self, flaw: Flaw) -> TlsAcceptor {
        let name = if flaw == Flaw::OtherName {
            "other.example"
        } else {
            "a.example"
        };
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if flaw == Flaw::Expired {
            params.not_after = (SystemTime::now() - Duration::from_secs(60)).into();
        }
        let key = KeyPair::generate().unwrap();
        let certificate = match flaw {
            Flaw::SelfSigned => params.self_signed(&key).unwrap(),
            Flaw::None | Flaw::Expired | Flaw::OtherName => {
                params.signed_by(&key, &self.issuer).unwrap()
            }
        };
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// A server that keeps each request and answers it.
    async fn server(&self, flaw: Flaw, answer: impl Into<String>) -> Server {
        let (acceptor, answer) = (self.acceptor(flaw), answer.into());
        Server::start(move |stream, received| {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            async move {
                let Ok(mut tls) = acceptor.accept(stream).await else {
                    return;
                };
                let request = head_of(&mut tls).await;
                let answer = answer.replace("{request}", &request);
                received.lock().unwrap().push(request.into_bytes());
                let _ = tls.write_all(answer.as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        })
        .await
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// An installation, and what its sandboxes believe.
struct Installation {
    interception: Arc<Interception>,
    certificates: String,
    _directory: tempfile::TempDir,
}

impl Installation {
    fn new(roots: &Roots) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(&directory.path().join("ca")).unwrap();
        let trust = Trust {
            machine: false,
            extra_pem: roots.pem.clone().into_bytes(),
        };
        let interception = Interception::new(&authority, &trust).unwrap();
        Installation {
            certificates: interception.certificates().to_owned(),
            interception,
            _directory: directory,
        }
    }

    fn session(&self, rules: RuleSet, bindings: Vec<Binding>) -> Session {
        let session = SessionId::from_bytes([7; 16]);
        let bound = bindings
            .into_iter()
            .map(|binding| Bound::new(Arc::new(binding), PLACEHOLDER.to_owned(), session).unwrap())
            .collect();
        let opening = Opening {
            interception: Arc::clone(&self.interception),
            broker: Broker::new(bound),
        };
        Session::opening(rules, ProxyLimits::default(), Some(opening))
    }

    /// A client inside, which believes what stands there.
    fn client(&self) -> ClientConfig {
        client(&self.certificates)
    }
}

fn client(pem: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn rule(text: &str, methods: &[&str], paths: &[&str]) -> EgressRule {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    EgressRule {
        private: true,
        methods: owned(methods),
        paths: owned(paths),
        ..text.parse().unwrap()
    }
}

fn rules(rules: Vec<EgressRule>) -> RuleSet {
    let named = rules
        .into_iter()
        .enumerate()
        .map(|(index, rule)| NamedRule {
            name: format!("allow/{}", index + 1),
            rule,
        });
    RuleSet::new(NetworkPolicy {
        rules: named.collect(),
        ..NetworkPolicy::default()
    })
}

fn binding(destination: EgressRule, carrier: Carrier) -> Binding {
    Binding {
        name: "test".to_owned(),
        destinations: vec![destination],
        carrier,
        credential: Credential::Bearer(Secret::new(SECRET.to_owned())),
    }
}

async fn speak(
    config: ClientConfig,
    tunnel: DuplexStream,
    name: &str,
    text: &str,
) -> io::Result<String> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut tls = connector.connect(name, tunnel).await?;
    tls.write_all(text.as_bytes()).await?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Sends requests through one tunnel to `a.example`.
async fn ask(installation: &Installation, session: &Session, port: u16, text: &str) -> String {
    let tunnel = session.connect(&format!("a.example:{port}")).await.unwrap();
    let answer = speak(installation.client(), tunnel, "a.example", text).await;
    answer.unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn get(port: u16, path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.example:{port}\r\nConnection: close\r\n{more}\r\n")
}

#[tokio::test]
async fn methods_and_paths_are_held_in_opened_tls_and_each_request_is_on_record() {
    let roots = Roots::new();
    let server = roots.server(Flaw::None, HELLO).await;
    let port = server.port;
    let installation = Installation::new(&roots);
    let target = format!("a.example:{port}");
    let session = installation.session(rules(vec![rule(&target, &["GET"], &["/pub/"])]), vec![]);
    let answer = ask(
        &installation,
        &session,
        port,
        &get(port, "/pub/a?q=secret", ""),
    )
    .await;
    assert!(answer.ends_with("hello"), "{answer}");
    for (text, code) in [
        (get(port, "/private", ""), "path_not_allowed"),
        (get(port, "/pub/../private", ""), "path_not_allowed"),
        (get(port, "/pub/%2e%2e/private", ""), "path_not_allowed"),
        (get(port, "/pub/..;/private", ""), "path_not_allowed"),
        (get(port, "//pub/a", ""), "path_not_allowed"),
        (
            get(port, "/pub/a", "").replace("GET", "POST"),
            "method_not_allowed",
        ),
        (
            get(port, "/pub/a", "").replace("a.example:", "b.example:"),
            "host_mismatch",
        ),
        (get(port, "https://b.example/pub/a", ""), "bad_request"),
        (get(port, "/pub/a", "Host: b.example\r\n"), "bad_request"),
        (
            get(port, "/pub/a", "Content-Length: 1\r\nContent-Length: 2\r\n"),
            "bad_request",
        ),
        (
            get(
                port,
                "/pub/a",
                "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            ),
            "bad_request",
        ),
        (get(port, "/pub/a", "Upgrade: websocket\r\n"), "upgrade"),
        (
            get(port, "/pub/a", "").replace("GET /pub/a", "CONNECT b.example:443"),
            "bad_request",
        ),
        (
            get(port, "/pub/a", "").replace("GET", "TRACE"),
            "bad_request",
        ),
        (
            get(port, "/pub/a", "").replace("HTTP/1.1", "HTTP/1.0"),
            "bad_request",
        ),
        (
            get(port, "/pub/a", "Transfer-Encoding: chunked\r\n"),
            "bad_request",
        ),
        (
            get(port, "/pub/a", "X-HTTP-Method-Override: DELETE\r\n"),
            "bad_request",
        ),
        (
            get(port, "/pub/a", "X-Original-URL: /private\r\n"),
            "bad_request",
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "bad_request"),
    ] {
        let answer = ask(&installation, &session, port, &text).await;
        assert_eq!(refusal(&answer).1, code, "{text}");
        assert_eq!(session.record.denied().last(), Some(&code), "{text}");
    }
    let received = server.received();
    assert_eq!(received.len(), 1, "{received:?}");
    assert!(received[0].starts_with("GET /pub/a?q=secret HTTP/1.1\r\n"));
    let allowed = session.record.allowed();
    assert_eq!(
        allowed.len(),
        1,
        "the tunnel itself is nothing: {allowed:?}"
    );
    assert_eq!(allowed[0].way, Way::Https);
    assert_eq!(allowed[0].rule.as_deref(), Some("allow/1"));
    assert_eq!(session.record.ending().await, Ending::Complete);
}

#[tokio::test]
async fn requests_behind_each_other_are_judged_each_by_its_own_host_and_path() {
    let roots = Roots::new();
    let server = roots.server(Flaw::None, HELLO).await;
    let port = server.port;
    let installation = Installation::new(&roots);
    let target = format!("a.example:{port}");
    let session = installation.session(rules(vec![rule(&target, &[], &["/pub/"])]), vec![]);
    let first = format!("GET /pub/1 HTTP/1.1\r\nHost: {target}\r\n\r\n");
    for (second, code) in [
        (get(port, "/private", ""), "path_not_allowed"),
        (
            get(port, "/pub/2", "").replace("a.example", "b.example"),
            "host_mismatch",
        ),
    ] {
        let text = first.clone() + &second;
        let answer = ask(&installation, &session, port, &text).await;
        let (one, two) = answer.split_once("hello").unwrap();
        assert!(one.starts_with("HTTP/1.1 200"));
        assert_eq!(refusal(two).1, code);
    }
    assert_eq!(server.received().len(), 2);
    // What is taken from the session is refused in the tunnel that stands.
    let tunnel = session.connect(&target).await.unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    let connector = TlsConnector::from(Arc::new(installation.client()));
    let mut tls = connector.connect(name, tunnel).await.unwrap();
    tls.write_all(first.as_bytes()).await.unwrap();
    assert!(head_of(&mut tls).await.starts_with("HTTP/1.1 200"));
    tls.read_exact(&mut [0; 5]).await.unwrap();
    session
        .egress
        .replace_rules(rules(vec![rule(&target, &[], &["/other/"])]));
    tls.write_all(first.as_bytes()).await.unwrap();
    assert_eq!(refusal(&all(&mut tls).await).1, "path_not_allowed");
}

#[tokio::test]
async fn a_host_without_such_a_rule_is_not_opened() {
    let roots = Roots::new();
    let server = roots.server(Flaw::None, HELLO).await;
    let installation = Installation::new(&roots);
    let target = format!("a.example:{}", server.port);
    let closed = installation.session(rules(vec![rule(&target, &[], &[])]), vec![]);
    let opened = installation.session(rules(vec![rule(&target, &["GET"], &[])]), vec![]);
    // Believes the server alone, not the authority.
    for (session, is_opened) in [(closed, false), (opened, true)] {
        let tunnel = session.connect(&target).await.unwrap();
        let text = get(server.port, "/", "");
        let answer = speak(client(&roots.pem), tunnel, "a.example", &text).await;
        assert_eq!(answer.is_err(), is_opened, "{answer:?}");
        let due = &["certificate_not_taken"][..usize::from(is_opened)];
        session.record.has_denied(due).await;
    }
}

#[tokio::test]
async fn the_tunnel_says_one_host_and_speaks_tls() {
    let roots = Roots::new();
    let server = roots.server(Flaw::None, HELLO).await;
    let installation = Installation::new(&roots);
    let target = format!("a.example:{}", server.port);
    let session = installation.session(rules(vec![rule(&target, &["GET"], &[])]), vec![]);
    let tunnel = session.connect(&target).await.unwrap();
    let error = speak(installation.client(), tunnel, "b.example", "")
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .to_lowercase()
            .contains("unrecognisedname"),
        "{error}"
    );
    let mut nameless = installation.client();
    nameless.enable_sni = false;
    let tunnel = session.connect(&target).await.unwrap();
    assert!(speak(nameless, tunnel, "a.example", "").await.is_err());
    let mut tunnel = session.connect(&target).await.unwrap();
    tunnel
        .write_all(get(server.port, "/", "").as_bytes())
        .await
        .unwrap();
    assert_eq!(refusal(&all(&mut tunnel).await).1, "not_tls");
    let mut later = installation.client();
    later.alpn_protocols = vec![b"h2".to_vec()];
    let tunnel = session.connect(&target).await.unwrap();
    let error = speak(later, tunnel, "a.example", "").await.unwrap_err();
    assert!(
        error
            .to_string()
            .to_lowercase()
            .contains("applicationprotocol"),
        "{error}"
    );
    let due = [
        "sni_mismatch",
        "sni_missing",
        "not_tls",
        "certificate_not_taken",
    ];
    session.record.has_denied(&due).await;
    assert_eq!(server.received(), [""; 0]);
    // By SOCKS as well.
    let mut client = session.dial(ProxyPort::Socks);
    let mut request = b"\x05\x01\x00\x05\x01\x00\x03\x09a.example".to_vec();
    request.extend(server.port.to_be_bytes());
    client.write_all(&request).await.unwrap();
    client.read_exact(&mut [0; 12]).await.unwrap();
    let text = get(server.port, "/", "").replace("GET", "DELETE");
    let answer = speak(installation.client(), client, "a.example", &text)
        .await
        .unwrap();
    assert_eq!(refusal(&answer).1, "method_not_allowed");
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_not_spoken_to() {
    let roots = Roots::new();
    let installation = Installation::new(&roots);
    for (flaw, words) in [
        (Flaw::None, None),
        (Flaw::Expired, Some("has expired")),
        (Flaw::OtherName, Some("another name")),
        (Flaw::SelfSigned, Some("nobody")),
    ] {
        let server = roots.server(flaw, HELLO).await;
        let target = format!("a.example:{}", server.port);
        let session = installation.session(rules(vec![rule(&target, &["GET"], &[])]), vec![]);
        let text = get(server.port, "/", "");
        let answer = ask(&installation, &session, server.port, &text).await;
        match words {
            None => assert!(answer.ends_with("hello"), "{answer}"),
            Some(words) => {
                assert_eq!(refusal(&answer), (502, "certificate_refused".to_owned()));
                assert!(answer.contains(words), "{answer}");
                assert_eq!(server.received(), [""; 0]);
            }
        }
    }
}

#[tokio::test]
async fn a_placeholder_becomes_the_credential_where_it_is_bound_and_goes_nowhere_else() {
    let roots = Roots::new();
    let server = roots.server(Flaw::None, HELLO).await;
    let port = server.port;
    let installation = Installation::new(&roots);
    let target = format!("a.example:{port}");
    let open = || rules(vec![rule(&target, &[], &[])]);
    let bound = || rule(&target, &[], &["/repo/"]);
    let session = installation.session(open(), vec![binding(bound(), Carrier::Authorization)]);
    let basic = |secret: &str| format!("Basic {}", STANDARD.encode(format!("x:{secret}")));
    for (written, sent) in [
        (format!("Bearer {PLACEHOLDER}"), format!("Bearer {SECRET}")),
        (format!("token {PLACEHOLDER}"), format!("token {SECRET}")),
        (basic(PLACEHOLDER), basic(SECRET)),
        (
            "Bearer of-its-own".to_owned(),
            "Bearer of-its-own".to_owned(),
        ),
    ] {
        let text = get(port, "/repo/a", &format!("Authorization: {written}\r\n"));
        let answer = ask(&installation, &session, port, &text).await;
        assert!(answer.ends_with("hello"), "{answer}");
        let received = server.received().pop().unwrap();
        assert!(
            received.contains(&format!("authorization: {sent}\r\n")),
            "{received}"
        );
    }
    let named: Vec<_> = session
        .record
        .allowed()
        .into_iter()
        .map(|one| one.credential)
        .collect();
    let test = || Some("test".to_owned());
    assert_eq!(named, [test(), test(), test(), None]);
    let before = server.received().len();
    let authorization = format!("Authorization: Bearer {PLACEHOLDER}\r\n");
    let encoded = STANDARD.encode(format!("abc{PLACEHOLDER}"));
    for text in [
        get(port, "/other", &authorization),
        get(port, "/repo/../other", &authorization),
        get(port, "/repo/a", &format!("X-Other: {PLACEHOLDER}\r\n")),
        get(
            port,
            "/repo/a",
            &format!("X-Other: {encoded}\r\n{authorization}"),
        ),
        get(port, "/repo/a", &format!("{authorization}{authorization}")),
        get(port, &format!("/repo/{PLACEHOLDER}"), ""),
        get(
            port,
            &format!("/repo/?t={}", PLACEHOLDER.replace('-', "%2D")),
            "",
        ),
        get(
            port,
            &format!("/repo/?t={}", PLACEHOLDER.replace('-', "%252d")),
            "",
        ),
        get(port, &format!("/repo/?t={encoded}"), ""),
    ] {
        let answer = ask(&installation, &session, port, &text).await;
        assert_eq!(refusal(&answer).1, "placeholder_misplaced", "{text}");
    }
    let plain = Server::http(HELLO).await;
    let in_clear = installation.session(
        rules(vec![rule(&format!("a.example:{}", plain.port), &[], &[])]),
        vec![binding(
            rule(&format!("a.example:{}", plain.port), &[], &[]),
            Carrier::Authorization,
        )],
    );
    let text = get(
        plain.port,
        &format!("http://a.example:{}/", plain.port),
        &authorization,
    );
    assert_eq!(
        refusal(&in_clear.say(&text).await).1,
        "placeholder_misplaced"
    );
    assert_eq!(
        (server.received().len(), plain.received().len()),
        (before, 0)
    );
    // A header of its own.
    let carrier = Carrier::Header("private-token".parse().unwrap());
    let session = installation.session(open(), vec![binding(bound(), carrier)]);
    let text = get(
        port,
        "/repo/a",
        &format!("Private-Token: {PLACEHOLDER}\r\n"),
    );
    ask(&installation, &session, port, &text).await;
    let received = server.received().pop().unwrap();
    assert!(
        received.contains(&format!("private-token: {SECRET}\r\n")),
        "{received}"
    );
}

#[tokio::test]
async fn an_answer_does_not_tell_the_credential() {
    let roots = Roots::new();
    let installation = Installation::new(&roots);
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n";
    for (answer, is_head) in [
        (format!("{head}x-echo: {SECRET}\r\n\r\n"), true),
        (format!("{head}content-encoding: gzip\r\n\r\n"), true),
        (
            format!("{head}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            true,
        ),
        (
            format!("{head}\r\nbefore {}", &SECRET[..SECRET.len() - 1]),
            false,
        ),
        (format!("{head}\r\nbefore {{request}}"), false),
        (
            format!("{head}\r\nbefore {}", STANDARD.encode(format!("x{SECRET}"))),
            false,
        ),
    ] {
        let server = roots.server(Flaw::None, answer).await;
        let port = server.port;
        let target = rule(&format!("a.example:{port}"), &[], &[]);
        let bindings = vec![binding(target.clone(), Carrier::Authorization)];
        let session = installation.session(rules(vec![target]), bindings);
        let text = get(
            port,
            "/",
            &format!("Authorization: Bearer {PLACEHOLDER}\r\n"),
        );
        let tunnel = session.connect(&format!("a.example:{port}")).await.unwrap();
        let answer = speak(installation.client(), tunnel, "a.example", &text).await;
        assert!(server.received()[0].contains(SECRET), "the control");
        assert!(server.received()[0].contains("accept-encoding: identity\r\n"));
        session.record.has_denied(&["credential_echoed"]).await;
        match answer {
            Ok(answer) => {
                assert!(!answer.contains(&SECRET[..8]), "{answer}");
                if is_head {
                    assert_eq!(refusal(&answer), (502, "credential_echoed".to_owned()));
                }
            }
            Err(_) => assert!(!is_head),
        }
    }
}

#[tokio::test]
async fn a_credential_that_changes_is_used_as_it_is_now_and_asked_for_anew_when_it_is_refused() {
    let roots = Roots::new();
    let server = roots.server(Flaw::None, HELLO).await;
    let port = server.port;
    let installation = Installation::new(&roots);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let put = |text: &str| {
        let aside = directory.path().join("aside");
        std::fs::write(&aside, text).unwrap();
        std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(&aside, &path).unwrap();
    };
    put("first-version-1");
    let source = Source::file(path.clone(), Guard::OwnerOnly, Form::Bearer).unwrap();
    let target = rule(&format!("a.example:{port}"), &[], &[]);
    let changing = Binding {
        credential: Credential::Source(source),
        ..binding(target.clone(), Carrier::Authorization)
    };
    let session = installation.session(rules(vec![target]), vec![changing]);
    let text = get(
        port,
        "/",
        &format!("Authorization: Bearer {PLACEHOLDER}\r\n"),
    );
    for version in ["first-version-1", "second-version-2"] {
        put(version);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        ask(&installation, &session, port, &text).await;
        let received = server.received().pop().unwrap();
        assert!(
            received.contains(&format!("Bearer {version}\r\n")),
            "{received}"
        );
    }
    // One that is not to be had is no way around it.
    std::fs::remove_file(&path).unwrap();
    put("short");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let answer = ask(&installation, &session, port, &text).await;
    assert_eq!(refusal(&answer), (502, "credential_unavailable".to_owned()));
}

#[tokio::test]
async fn a_large_answer_passes_as_it_comes() {
    const BYTES: usize = 32 * 1024 * 1024;
    let roots = Roots::new();
    let acceptor = roots.acceptor(Flaw::None);
    let server = Server::start(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let mut tls = acceptor.accept(stream).await.unwrap();
            head_of(&mut tls).await;
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\nconnection: close\r\n\r\n");
            tls.write_all(head.as_bytes()).await.unwrap();
            let piece = vec![b'x'; 1024 * 1024];
            for _ in 0..BYTES / piece.len() {
                tls.write_all(&piece).await.unwrap();
            }
            let _ = tls.shutdown().await;
        }
    })
    .await;
    let installation = Installation::new(&roots);
    let target = rule(&format!("a.example:{}", server.port), &[], &[]);
    let bindings = vec![binding(target.clone(), Carrier::Authorization)];
    let session = installation.session(rules(vec![target]), bindings);
    let text = get(
        server.port,
        "/",
        &format!("Authorization: Bearer {PLACEHOLDER}\r\n"),
    );
    let answer = ask(&installation, &session, server.port, &text).await;
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), BYTES);
}

#[tokio::test]
async fn a_destination_that_refuses_everything_does_not_have_the_source_asked_all_the_time() {
    let roots = Roots::new();
    let refusal = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let server = roots.server(Flaw::None, refusal).await;
    let port = server.port;
    let installation = Installation::new(&roots);
    let directory = tempfile::tempdir().unwrap();
    let count = directory.path().join("count");
    let script = format!(
        "echo x >> {}; sleep 0.3; echo the-same-every-time",
        count.display()
    );
    let source = Source::command(TokenCommand {
        argv: ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(),
        timeout: Duration::from_secs(5),
        refresh_after: Duration::from_secs(180),
    });
    let target = rule(&format!("a.example:{port}"), &[], &[]);
    let asking = Binding {
        credential: Credential::Source(source),
        ..binding(target.clone(), Carrier::Authorization)
    };
    let session = installation.session(rules(vec![target]), vec![asking]);
    let text = get(
        port,
        "/",
        &format!("Authorization: Bearer {PLACEHOLDER}\r\n"),
    );
    let runs = || {
        std::fs::read_to_string(&count)
            .unwrap_or_default()
            .lines()
            .count()
    };
    // Clients that hang up do not end the command, nor have it run again.
    for _ in 0..5 {
        let tunnel = session.connect(&format!("a.example:{port}")).await.unwrap();
        let asked = speak(installation.client(), tunnel, "a.example", &text);
        assert!(
            tokio::time::timeout(Duration::from_millis(50), asked)
                .await
                .is_err()
        );
    }
    for round in 0..4 {
        let answer = ask(&installation, &session, port, &text).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        // The first refusal has it asked for anew, the others find the same.
        assert!(runs() <= 2, "round {round}: {}", runs());
        tokio::time::sleep(Duration::from_millis(1050)).await;
    }
    assert_eq!(
        runs(),
        2,
        "the control: once at first, once after a refusal"
    );
}
