//! Tunnels whose TLS is opened, and the credentials that are put into their requests: the stage of both.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod credentials;
mod tunnels;

use std::{
    io,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
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
