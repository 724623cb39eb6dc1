//! What is put into the requests of opened tunnels, and what of it comes back (E5).

use super::*;

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
