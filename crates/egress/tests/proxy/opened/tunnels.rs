//! What passes in a tunnel whose TLS is opened, and what does not (E4).

use super::*;

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

/// A server that answers each request of a connection, and closes it after so many; it counts connections.
async fn lasting(roots: &Roots, requests: usize) -> (Server, Arc<AtomicUsize>) {
    let acceptor = roots.acceptor(Flaw::None);
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let server = Server::start(move |stream, received| {
        let (acceptor, counted) = (acceptor.clone(), Arc::clone(&counted));
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            let Ok(mut tls) = acceptor.accept(stream).await else {
                return;
            };
            for _ in 0..requests {
                let request = head_of(&mut tls).await;
                if request.is_empty() {
                    return;
                }
                received.lock().unwrap().push(request.into_bytes());
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
                if tls.write_all(answer).await.is_err() {
                    return;
                }
            }
            let _ = tls.shutdown().await;
        }
    })
    .await;
    (server, connections)
}

#[tokio::test]
async fn requests_of_a_tunnel_share_a_connection_and_one_that_is_closed_is_dialed_again_once() {
    let roots = Roots::new();
    let installation = Installation::new(&roots);
    for (requests, expected) in [(3, 1), (1, 3)] {
        let (server, connections) = lasting(&roots, requests).await;
        let session = installation.session(
            rules(vec![rule(
                &format!("a.example:{}", server.port),
                &["GET"],
                &["/"],
            )]),
            Vec::new(),
        );
        let tunnel = session
            .connect(&format!("a.example:{}", server.port))
            .await
            .unwrap();
        let name = ServerName::try_from("a.example").unwrap();
        let connector = TlsConnector::from(Arc::new(installation.client()));
        let mut tls = connector.connect(name, tunnel).await.unwrap();
        for turn in 0..3 {
            let request = format!(
                "GET /{turn} HTTP/1.1\r\nHost: a.example:{}\r\n\r\n",
                server.port
            );
            tls.write_all(request.as_bytes()).await.unwrap();
            let head = head_of(&mut tls).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{turn}: {head}");
            let mut body = [0; 5];
            tls.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"hello");
        }
        assert_eq!(connections.load(Ordering::SeqCst), expected);
        // Each is on record by itself all the same.
        assert_eq!(session.record.allowed().len(), 3);
    }
}
