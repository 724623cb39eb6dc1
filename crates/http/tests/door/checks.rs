//! What of a request is looked at, and what is said when it is refused.

use crate::support::{KEY, LIST_SESSIONS, LIST_TOOLS, WAIT, loopback, open, request};

/// S1: a page in a browser gets nowhere: not under another name for this machine, and not from another site.
#[tokio::test]
async fn a_page_of_another_site_or_under_another_name_is_refused() {
    let door = open(loopback()).await;
    let port = door.port();
    for (headers, status, code) in [
        (
            vec![("Host", "evil.example".to_owned())],
            403,
            "host_not_allowed",
        ),
        (
            vec![("Host", format!("evil.example:{port}"))],
            403,
            "host_not_allowed",
        ),
        (
            vec![("Host", format!("localhost:{port}.evil.example"))],
            403,
            "host_not_allowed",
        ),
        (
            vec![("Host", format!("127.0.0.1.evil.example:{port}"))],
            403,
            "host_not_allowed",
        ),
        (
            vec![("Host", "localhost:1".to_owned())],
            403,
            "host_not_allowed",
        ),
        (vec![("Host", String::new())], 400, "bad_request"),
        (
            vec![("Origin", "http://evil.example".to_owned())],
            403,
            "origin_not_allowed",
        ),
        (
            vec![("Origin", "null".to_owned())],
            403,
            "origin_not_allowed",
        ),
        (
            vec![("Origin", format!("https://localhost:{port}"))],
            403,
            "origin_not_allowed",
        ),
        (
            vec![("Origin", format!("http://localhost:{port}.evil.example"))],
            403,
            "origin_not_allowed",
        ),
    ] {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = door.post(LIST_SESSIONS, &headers).await;
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
        assert_eq!(answer.code(), code, "{headers:?}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    assert!(door.road.calls.lock().unwrap().is_empty());
    let own = format!("http://localhost:{port}");
    for headers in [
        vec![],
        vec![("Origin", own.as_str())],
        vec![("Host", &own[7..])],
    ] {
        assert_eq!(
            door.post(LIST_SESSIONS, &headers).await.status,
            200,
            "{headers:?}"
        );
    }
    assert_eq!(door.road.calls.lock().unwrap().len(), 3);
    let two = request("POST", "/mcp", port, &[], LIST_SESSIONS).replacen(
        "Host: ",
        "Host: evil.example\r\nHost: ",
        1,
    );
    assert!(door.raw(two).await.starts_with("HTTP/1.1 400"));
    let whole = format!("http://127.0.0.1:{port}/mcp");
    let whole = request("POST", &whole, port, &[], LIST_SESSIONS);
    assert!(door.raw(whole).await.starts_with("HTTP/1.1 400"));
}

/// An origin that the operator names may use the server from a browser, and sees what it is told.
#[tokio::test]
async fn a_named_origin_is_let_in_and_told_what_it_may() {
    let mut settings = loopback();
    settings.origins = vec!["https://app.example".to_owned()];
    let door = open(settings).await;
    let page = [("Origin", "https://app.example")];
    let answer = door.post(LIST_SESSIONS, &page).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    let refused = door
        .post(LIST_SESSIONS, &[page[0], ("Authorization", "")])
        .await;
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    let ask = |origin| request("OPTIONS", "/mcp", door.port(), &[("Origin", origin)], "");
    let asked = door.raw(ask("https://app.example")).await;
    assert!(asked.starts_with("HTTP/1.1 200"), "{asked}");
    assert!(
        asked.contains("access-control-allow-headers: Authorization"),
        "{asked}"
    );
    let other = door.raw(ask("https://other.example")).await;
    assert!(
        other.starts_with("HTTP/1.1 403") && !other.contains("access-control"),
        "{other}"
    );
    let none = door.raw(ask("")).await;
    assert!(none.starts_with("HTTP/1.1 405"), "{none}");
}

/// P2a: nobody comes in without a token, on a loopback address as anywhere; it stands in one place.
#[tokio::test]
async fn without_a_valid_token_nothing_is_done_or_even_read() {
    let door = open(loopback()).await;
    let nobody = door.post(LIST_SESSIONS, &[("Authorization", "")]).await;
    assert_eq!(
        (nobody.status, nobody.code().as_str()),
        (401, "unauthenticated")
    );
    assert_eq!(
        nobody.header("www-authenticate"),
        Some(r#"Bearer realm="claude-code-mcp", scope="sessions:read""#)
    );
    let wrong = door
        .post(LIST_SESSIONS, &[("Authorization", "Bearer ccmcp_wrong")])
        .await;
    assert_eq!(wrong.status, 401);
    assert_eq!(
        wrong.header("www-authenticate"),
        Some(r#"Bearer realm="claude-code-mcp", error="invalid_token""#)
    );
    let limited = door
        .post(LIST_SESSIONS, &[("Authorization", "Bearer ccmcp_limited")])
        .await;
    assert_eq!(
        (limited.status, limited.code().as_str()),
        (429, "rate_limited")
    );
    assert_eq!(limited.header("retry-after"), Some("2"));
    assert_eq!(limited.header("ratelimit"), Some(r#""requests";r=0;t=2"#));
    let basic = door
        .post(LIST_SESSIONS, &[("Authorization", "Basic YTpi")])
        .await;
    assert_eq!(basic.status, 400);
    let query = format!("/mcp?access_token={KEY}");
    let query = door
        .raw(request("POST", &query, door.port(), &[], LIST_SESSIONS))
        .await;
    assert!(
        query.starts_with("HTTP/1.1 400") && query.contains("a token stands in the URL"),
        "{query}"
    );
    // Its body never comes, and the answer does not wait for it.
    let early = request(
        "POST",
        "/mcp",
        door.port(),
        &[("Authorization", ""), ("Content-Length", "1000")],
        "",
    );
    assert!(door.raw(early).await.starts_with("HTTP/1.1 401"));
    assert!(door.road.calls.lock().unwrap().is_empty());
    let good = door.post(LIST_SESSIONS, &[]).await;
    assert_eq!(good.status, 200);
    for (name, value) in [
        ("ratelimit-policy", r#""calls";q=10;w=10"#),
        ("ratelimit", r#""calls";r=7;t=3"#),
    ] {
        assert_eq!(good.header(name), Some(value));
    }
    assert_eq!(
        good.json()["result"]["structuredContent"]["sessions"],
        serde_json::json!([])
    );
    let calls = door.road.calls.lock().unwrap();
    let source = calls[0].source;
    assert_eq!(source.transport, model::Transport::Http);
    assert_eq!(source.address, Some("127.0.0.1".parse().unwrap()));
    let sources = door.road.sources.lock().unwrap();
    assert!(sources.iter().all(|asked| *asked == source));
}

#[tokio::test]
async fn each_path_serves_its_methods_and_nothing_else_is_there() {
    let door = open(loopback()).await;
    for (method, path, status, headers) in [
        (
            "GET",
            "/health",
            200,
            &[("Host", "10.1.2.3"), ("Authorization", "")][..],
        ),
        ("POST", "/health", 405, &[]),
        ("GET", "/mcp", 405, &[]),
        ("DELETE", "/mcp", 405, &[]),
        ("PUT", "/mcp", 405, &[]),
        ("OPTIONS", "/mcp", 405, &[]),
        ("GET", "/", 404, &[]),
        ("POST", "/mcp/", 404, &[]),
        ("POST", "/MCP", 404, &[]),
        ("POST", "/../mcp", 404, &[]),
        ("GET", "/metrics", 404, &[]),
        ("GET", "/.well-known/oauth-protected-resource", 404, &[]),
    ] {
        let answer = door
            .raw(request(method, path, door.port(), headers, ""))
            .await;
        let found = crate::support::Answer::of(&answer);
        assert_eq!(found.status, status, "{method} {path}: {answer}");
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            (
                "content-security-policy",
                "default-src 'none'; frame-ancestors 'none'",
            ),
        ] {
            assert_eq!(found.header(name), Some(value), "{method} {path}");
        }
        assert_eq!(found.header("server"), None);
        if status == 405 {
            assert!(found.header("allow").is_some(), "{method} {path}");
        }
    }
    let health = door
        .raw(request("GET", "/health", door.port(), &[], ""))
        .await;
    assert!(health.ends_with(r#"{"status":"ok"}"#), "{health}");
}

/// A request ends where everybody thinks it does: what tells its length twice, or not at all, is refused, and the
/// connection closed, so that nothing behind it is taken for a request.
#[tokio::test]
async fn a_request_has_one_end() {
    let door = open(loopback()).await;
    let smuggled = request("POST", "/mcp", door.port(), &[], LIST_SESSIONS);
    let length = LIST_SESSIONS.len().to_string();
    for (headers, status) in [
        (vec![("Transfer-Encoding", "chunked")], "411"),
        (
            vec![("Transfer-Encoding", "chunked"), ("Content-Length", "")],
            "411",
        ),
        (vec![("Transfer-Encoding", "gzip, chunked")], "411"),
        (vec![("Transfer-Encoding", "identity")], "400"),
        (
            vec![
                ("Transfer-Encoding", "chunked"),
                ("Transfer-Encoding", "identity"),
            ],
            "400",
        ),
        (
            vec![("Content-Length", "4"), ("Content-Length", length.as_str())],
            "400",
        ),
        (vec![("Content-Length", "+4")], "400"),
        (vec![("Content-Length", "4, 4")], "400"),
        (vec![("Content-Length", "")], "411"),
    ] {
        let mut headers = headers;
        headers.push(("Connection", "keep-alive"));
        let text = request("POST", "/mcp", door.port(), &headers, "0\r\n\r\n") + &smuggled;
        let answer = door.raw(text).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{headers:?}: {answer}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1").count(),
            1,
            "{headers:?}: {answer}"
        );
    }
    assert!(door.road.calls.lock().unwrap().is_empty());
    // Two requests in one write are two requests, one after the other.
    let first = request(
        "POST",
        "/mcp",
        door.port(),
        &[("Connection", "keep-alive")],
        LIST_SESSIONS,
    );
    let both = door.raw(first + &smuggled).await;
    assert_eq!(both.matches("HTTP/1.1 200").count(), 2, "{both}");
    assert_eq!(door.road.calls.lock().unwrap().len(), 2);
}

/// What a message says twice is not chosen from: a proxy may have read the other one.
#[tokio::test]
async fn a_message_that_says_something_twice_is_refused() {
    let door = open(loopback()).await;
    for message in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call","params":{"name":"list_sessions"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"destroy_session","name":"list_sessions"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"},"params":{"name":"list_sessions"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_sessions","_meta":{"a":1,"a":2}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","par\u0061ms":{"name":"x"},"params":{"name":"list_sessions"}}"#,
    ] {
        let answer = door.post(message, &[]).await;
        assert_eq!(answer.status, 400, "{message}: {answer:?}");
        assert_eq!(answer.json()["error"]["code"], -32600, "{message}");
    }
    let argument = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_session_logs","arguments":{"sessionId":"s-1","tail":1,"tail":2}}}"#;
    let answer = door.post(argument, &[]).await;
    assert_eq!(
        answer.json()["result"]["structuredContent"]["error"]["code"],
        "invalid_argument"
    );
    assert!(door.road.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_message_is_told_so() {
    let door = open(loopback()).await;
    for body in [
        "",
        "{",
        "nonsense",
        "[]",
        "[1,2]",
        "{}",
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
    ] {
        let answer = door
            .post(body, &[("Content-Length", &body.len().to_string())])
            .await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert_eq!(answer.json()["error"]["code"], -32700, "{body}");
    }
    let text = door
        .post(LIST_TOOLS, &[("Content-Type", "text/plain")])
        .await;
    assert_eq!(
        (text.status, text.code().as_str()),
        (415, "unsupported_media_type")
    );
    assert_eq!(door.post(LIST_TOOLS, &[]).await.status, 200);
}

/// They were lines of text, which no client of MCP reads.
#[tokio::test]
async fn refusals_of_headers_were_bare_text_and_are_json_that_says_what_to_send() {
    let door = open(loopback()).await;
    for (header, value, status, advice) in [
        (
            "Accept",
            "text/html",
            406,
            "application/json, text/event-stream",
        ),
        (
            "Accept",
            "application/json",
            406,
            "application/json, text/event-stream",
        ),
        (
            "MCP-Protocol-Version",
            "1999-01-01",
            400,
            "2025-06-18, 2025-11-25, 2026-07-28",
        ),
        (
            "MCP-Protocol-Version",
            "n\u{f6}",
            400,
            "2025-06-18, 2025-11-25, 2026-07-28",
        ),
    ] {
        let answer = door.post(LIST_TOOLS, &[(header, value)]).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let error = &answer.json()["error"];
        assert_eq!(error["code"], -32600, "{answer:?}");
        assert!(
            error["message"].as_str().unwrap().contains(advice),
            "{error}"
        );
    }
    // The controls: the same headers, as they should be.
    for header in [
        ("Accept", "text/event-stream, application/json"),
        ("MCP-Protocol-Version", "2025-11-25"),
    ] {
        let answer = door.post(LIST_TOOLS, &[header]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.json()["result"]["tools"].is_array());
    }
}

/// They spoke of an absolute projectPath, which a caller from elsewhere may never name.
#[tokio::test]
async fn instructions_by_http_were_those_for_who_shares_the_servers_disk() {
    let door = open(loopback()).await;
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
    let discover = r#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"}}}}"#;
    let modern = [
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", "server/discover"),
    ];
    for (message, headers) in [(initialize, &[][..]), (discover, &modern[..])] {
        let answer = door.post(message, headers).await;
        assert_eq!(
            answer.json()["result"]["instructions"],
            mcp::REMOTE_INSTRUCTIONS,
            "{answer:?}"
        );
    }
}

/// Calls of one caller that are open at once are bounded over all of its connections.
#[tokio::test]
async fn one_caller_has_so_many_calls_open_and_no_more() {
    let mut settings = loopback();
    settings.limits.connections_of_one = 100;
    let door = open(settings).await;
    let text = request("POST", "/mcp", door.port(), &[], WAIT);
    let mut waiting = Vec::new();
    for _ in 0..64 {
        let mut stream = door.connect().await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes())
            .await
            .unwrap();
        waiting.push(stream);
    }
    let road = &door.road;
    crate::support::until("all wait", || road.calls.lock().unwrap().len() == 64).await;
    let more = door.post(LIST_SESSIONS, &[]).await;
    assert_eq!(
        more.json()["result"]["structuredContent"]["error"]["code"],
        "rate_limited"
    );
    // Clients that leave end their waits, and give their places back.
    drop(waiting);
    crate::support::until("none waits", || *road.dropped.lock().unwrap() == 64).await;
    assert_eq!(
        door.post(LIST_SESSIONS, &[]).await.json()["result"]["isError"],
        false
    );
}
