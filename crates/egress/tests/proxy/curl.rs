//! Journeys of the real curl.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::process::{Output, Stdio};

use egress::proxy::ProxyPort;

use crate::{skip::skip, support::*, tls::TlsServer};

async fn curl(arguments: &[&str]) -> Option<Output> {
    let run = tokio::process::Command::new("curl")
        .args(["-sS", "-m", "10", "--noproxy", ""])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await;
    match run {
        Ok(output) => Some(output),
        Err(_) => {
            skip("curl", "it is not installed");
            None
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn https_through_both_proxies() {
    let tls = TlsServer::start().await;
    let session = Session::new(private(&[&format!("a.example:{}", tls.server.port)]));
    let directory = tempfile::tempdir().unwrap();
    let roots = directory.path().join("roots.pem");
    std::fs::write(&roots, &tls.certificate_pem).unwrap();
    let roots = roots.to_str().unwrap();
    let http = format!("http://{}", session.listen(ProxyPort::Http).await);
    let socks = session.listen(ProxyPort::Socks).await.to_string();
    let url = |host: &str| format!("https://{host}:{}/", tls.server.port);
    for way in [["-x", http.as_str()], ["--socks5-hostname", socks.as_str()]] {
        let (allowed, refused) = (url("a.example"), url("b.example"));
        let allowed = [&way[..], &["--cacert", roots, &allowed]].concat();
        let Some(output) = curl(&allowed).await else {
            return;
        };
        assert_eq!(
            text(&output.stdout),
            "secret hello",
            "{}",
            text(&output.stderr)
        );
        let refused = [&way[..], &["--cacert", roots, &refused]].concat();
        let output = curl(&refused).await.unwrap();
        // CONNECT answered with an error: 56; SOCKS said no: 97.
        assert!(matches!(output.status.code(), Some(56 | 97)), "{output:?}");
    }
    // A name that stays with curl: only the address reaches the proxy, and an address is nothing that is allowed.
    let resolve = format!("a.example:{}:127.0.0.1", tls.server.port);
    let allowed = url("a.example");
    let raw = [
        "--socks5",
        socks.as_str(),
        "--resolve",
        &resolve,
        "--cacert",
        roots,
        &allowed,
    ];
    assert_eq!(curl(&raw).await.unwrap().status.code(), Some(97));
    assert_eq!(
        session.record.denied(),
        ["host_not_allowed", "host_not_allowed", "raw_address"]
    );
}

#[tokio::test]
async fn plain_http_and_the_sentence_of_a_refusal() {
    let server = Server::http("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    let session = Session::new(private(&[&format!("a.example:{}", server.port)]));
    let proxy = format!("http://{}", session.listen(ProxyPort::Http).await);
    let allowed = format!("http://a.example:{}/[1-3]", server.port);
    // Three requests on one connection.
    let Some(output) = curl(&["-x", &proxy, &allowed]).await else {
        return;
    };
    assert_eq!(text(&output.stdout), "hellohellohello");
    let target = format!("http://a.example:{}/", server.port);
    let posted = curl(&["-x", &proxy, "-d", "a=b", &target]).await.unwrap();
    assert_eq!(text(&posted.stdout), "hello");
    assert!(server.received().pop().unwrap().ends_with("a=b"));
    let refused = curl(&["-x", &proxy, "-i", "http://b.example/"])
        .await
        .unwrap();
    let answer = text(&refused.stdout);
    assert_eq!(refusal(&answer), (403, "host_not_allowed".to_owned()));
    assert!(answer.contains("network.allow"), "{answer}");
}
