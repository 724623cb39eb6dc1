//! TLS in tunnels: a real client and a real server, and the name that they say to each other.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{sync::Arc, time::Duration};

use egress::proxy::{Ending, ProxyPort};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{PrivatePkcs8KeyDer, ServerName},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{skip::skip, support::*};

/// A server of TLS that answers one line with `secret hello`, and a client's configuration that believes it.
pub struct TlsServer {
    pub server: Server,
    pub certificate_pem: String,
    client: Arc<ClientConfig>,
}

impl TlsServer {
    pub async fn start() -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let names = ["a.example", "b.example"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let server = Server::start(move |stream, received| {
            let acceptor = acceptor.clone();
            async move {
                received.lock().unwrap().push(Vec::new());
                let Ok(mut tls) = acceptor.accept(stream).await else {
                    return;
                };
                let mut line = [0; 4096];
                let _ = tls.read(&mut line).await;
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 12\r\nconnection: close\r\n\r\nsecret hello";
                let _ = tls.write_all(answer.as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        })
        .await;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsServer {
            server,
            certificate_pem: made.cert.pem(),
            client: Arc::new(client),
        }
    }

    /// Speaks TLS in a tunnel. `None` as the name: says none.
    async fn speak(&self, tunnel: DuplexStream, name: Option<&str>) -> std::io::Result<String> {
        let mut config = (*self.client).clone();
        config.enable_sni = name.is_some();
        let name = ServerName::try_from(name.unwrap_or("a.example").to_owned()).unwrap();
        let mut tls = TlsConnector::from(Arc::new(config))
            .connect(name, tunnel)
            .await?;
        tls.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
        let mut answer = String::new();
        tls.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

#[tokio::test]
async fn tls_for_the_host_of_the_tunnel_passes_and_for_no_other() {
    let tls = TlsServer::start().await;
    let target = format!("a.example:{}", tls.server.port);
    let session = Session::new(private(&[
        &target,
        &format!("b.example:{}", tls.server.port),
    ]));
    let tunnel = session.connect(&target).await.unwrap();
    let answer = tls.speak(tunnel, Some("a.example")).await.unwrap();
    assert!(answer.ends_with("secret hello"));
    for (name, code) in [(Some("b.example"), "sni_mismatch"), (None, "sni_missing")] {
        let tunnel = session.connect(&target).await.unwrap();
        let error = tls.speak(tunnel, name).await.unwrap_err();
        assert!(
            error
                .to_string()
                .to_lowercase()
                .contains("unrecognisedname"),
            "{error}"
        );
        assert_eq!(session.record.denied().last(), Some(&code));
    }
    let ends = session.record.ended(3).await;
    assert_eq!(ends[0].ending, Ending::Complete);
    for refused in &ends[1..] {
        assert_eq!((refused.ending, refused.bytes_up), (Ending::Refused, 0));
    }
}

#[tokio::test]
async fn the_same_by_socks() {
    let tls = TlsServer::start().await;
    let session = Session::new(private(&[&format!("a.example:{}", tls.server.port)]));
    for (name, passes) in [("a.example", true), ("b.example", false)] {
        let mut client = session.dial(ProxyPort::Socks);
        let mut request = b"\x05\x01\x00\x05\x01\x00\x03\x09a.example".to_vec();
        request.extend(tls.server.port.to_be_bytes());
        client.write_all(&request).await.unwrap();
        let mut reply = [0; 12];
        client.read_exact(&mut reply).await.unwrap();
        assert_eq!(reply[3], 0);
        assert_eq!(
            tls.speak(client, Some(name)).await.is_ok(),
            passes,
            "{name}"
        );
    }
}

/// Port 443 of this machine's loopback, at an address of the test's own; nothing where it cannot be had.
async fn at_443(address: &str) -> Option<Arc<std::sync::Mutex<Vec<u8>>>> {
    let listener = tokio::net::TcpListener::bind((address, 443)).await.ok()?;
    let received = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"too early").await;
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut piece).await {
                kept.lock().unwrap().extend_from_slice(&piece[..count]);
            }
        }
    });
    Some(received)
}

#[tokio::test]
async fn at_port_443_nothing_but_tls_passes_in_either_direction() {
    let Some(received) = at_443("127.0.44.3").await else {
        skip("port-443", "it cannot be listened at here");
        return;
    };
    let session = Session::with(private(&["a.example"]), quick());
    session.names.say("a.example", &["127.0.44.3"]);
    let mut tunnel = session.connect("a.example:443").await.unwrap();
    tunnel.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let answer = all(&mut tunnel).await;
    assert_eq!(refusal(&answer), (403, "not_tls".to_owned()));
    assert!(!answer.contains("too early"));
    // Who says nothing hears nothing.
    let mut silent = session.connect("a.example:443").await.unwrap();
    assert_eq!(all(&mut silent).await, "");
    let mut halfway = session.connect("a.example:443").await.unwrap();
    halfway.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
    assert_eq!(refusal(&all(&mut halfway).await).1, "not_tls");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(received.lock().unwrap().is_empty());
    let plain = session
        .say("GET http://a.example:443/ HTTP/1.1\r\nHost: a.example:443\r\n\r\n")
        .await;
    assert_eq!(refusal(&plain).1, "not_tls");
}
