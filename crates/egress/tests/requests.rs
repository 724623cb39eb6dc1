//! What goes to the provider, what does not, and what the client is told.

use std::time::Duration;

use crate::support::*;
use egress::{Caps, Credential, Ending, ModelList, Provider, RelayLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn usual() -> (Upstream, Bench) {
    let upstream = Upstream::saying(json(&message(3, 4))).await;
    let bench = Setting::first_party(&upstream.url).bench();
    (upstream, bench)
}

#[tokio::test]
async fn the_key_is_put_in_on_the_way_and_nothing_else_is_changed() {
    let (upstream, bench) = usual().await;
    let headers = "anthropic-beta: a-1,b-2\r\nX-Api-Key: dummy\r\nCookie: c=1\r\nProxy-Authorization: Basic x\r\nX-Forwarded-For: 1.2.3.4\r\nAccept-Encoding: br\r\nX-App: cli\r\n";
    let body = "{ \"model\" : \"claude-opus-5-5\",\n\"messages\":[{\"role\":\"system\",\"content\":\"é\"}]}";
    let said = bench
        .send(&post_with("/v1/messages?beta=true", body, headers))
        .await;
    assert_eq!(status(&said), 200, "{said}");
    assert!(said.ends_with(&message(3, 4)), "{said}");
    let asked = &upstream.asked()[0];
    assert!(
        asked.starts_with("POST /v1/messages?beta=true HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(asked.ends_with(&format!("\r\n\r\n{body}")), "{asked}");
    let head = asked.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
    let host = upstream.url.strip_prefix("http://").unwrap();
    for present in [
        &format!("x-api-key: {KEY}"),
        &format!("host: {host}"),
        "anthropic-beta: a-1,b-2",
        "anthropic-version: 2023-06-01",
        "content-type: application/json",
        "x-app: cli",
    ] {
        assert!(
            head.lines().any(|line| line == present),
            "{present} in {head}"
        );
    }
    for absent in [
        TOKEN,
        "dummy",
        "cookie",
        "proxy-",
        "x-forwarded",
        "accept-encoding",
        "authorization",
    ] {
        assert!(!head.contains(absent), "{absent} in {head}");
    }
    assert!(!said.contains(KEY));
}

#[tokio::test]
async fn requests_follow_one_another_on_a_connection() {
    let (upstream, bench) = usual().await;
    let mut stream = bench.connect();
    for path in ["/v1/messages", "/v1/files", "/v1/messages/count_tokens"] {
        let request = post(path, BODY).replace("Connection: close\r\n", "");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut buffer = vec![0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        let said = String::from_utf8_lossy(&buffer[..count]).into_owned();
        let expected = if path == "/v1/files" { 403 } else { 200 };
        assert_eq!(status(&said), expected, "{said}");
    }
    assert_eq!(upstream.asked().len(), 2);
}

#[tokio::test]
async fn what_is_not_on_the_list_does_not_reach_the_provider() {
    let (upstream, bench) = usual().await;
    let wrong_token = post("/v1/messages", BODY).replace(TOKEN, "relay-token-of-the-sessioN");
    let no_token =
        post("/v1/messages", BODY).replace(&format!("Authorization: Bearer {TOKEN}\r\n"), "");
    let get = post("/v1/messages", "").replace("POST", "GET");
    for (request, code, expected) in [
        (wrong_token.clone(), 401, "token"),
        (no_token, 401, "token"),
        (
            wrong_token.replace("/v1/messages", "/v1/files"),
            401,
            "token",
        ),
        (get, 403, "path"),
        (post("/v1/files", BODY), 403, "path"),
        (post("/v1/messages/", BODY), 403, "path"),
        (post("/v1/messages?x=1", BODY), 403, "query"),
        (post("http://proxy/v1/messages", BODY), 400, "request_form"),
        (
            post("http://169.254.169.254/v1/messages", BODY),
            400,
            "request_form",
        ),
        (
            post_with("/v1/messages", BODY, "Upgrade: h2c\r\n"),
            400,
            "upgrade",
        ),
        (post("/v1/messages", "not json"), 400, "body_not_json"),
        (post("/v1/messages", "{}"), 400, "model_missing"),
        (
            post("/v1/messages", r#"{"model":"a","model":"b"}"#),
            400,
            "body_not_json",
        ),
    ] {
        let said = bench.send(&request).await;
        assert_eq!(
            (status(&said), rule(&said)),
            (code, Some(expected)),
            "{request}\n{said}"
        );
        let body = said.split_once("\r\n\r\n").unwrap().1;
        let error: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(error["type"], "error");
        assert!(
            error["error"]["message"].as_str().unwrap().len() > 20,
            "{body}"
        );
    }
    assert_eq!(upstream.asked(), Vec::<String>::new());
    let said = bench.ask(BODY).await;
    assert_eq!(status(&said), 200, "{said}");
    let records = bench.records(14).await;
    assert_eq!(records[0].denied, Some("token"));
    assert_eq!(records[3].shape, "other");
    assert_eq!(bench.session.usage().denied, 13);
    assert_eq!(bench.session.usage().requests, 1);
}

#[tokio::test]
async fn what_two_servers_could_read_differently_is_refused() {
    let (upstream, bench) = usual().await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    let both = post_with("/v1/messages", BODY, chunked);
    let alone = format!(
        "POST /v1/messages HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n{chunked}\r\n2\r\n{{}}\r\n0\r\n\r\n"
    );
    for request in [&both, &alone] {
        let said = bench.send(request).await;
        assert_eq!(
            (status(&said), rule(&said)),
            (411, Some("transfer_encoding")),
            "{said}"
        );
    }
    let two_lengths = post_with("/v1/messages", BODY, "Content-Length: 3\r\n");
    let folded = post_with("/v1/messages", BODY, "X-Folded: a\r\n b\r\n");
    let space = post_with("/v1/messages", BODY, "X-Api-Key : a\r\n");
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned();
    let tunnel = "CONNECT api.anthropic.com:443 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned();
    for request in [two_lengths, folded, space, preface, tunnel] {
        let said = bench.send(&request).await;
        assert!(said.is_empty() || status(&said) == 400, "{request}\n{said}");
    }
    // A request that is smuggled behind another one is one of its own, with a token of its own to bring.
    let smuggled = format!(
        "{}POST /v1/messages HTTP/1.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}",
        post("/v1/messages", BODY).replace("Connection: close\r\n", "")
    );
    let said = bench.send(&smuggled).await;
    assert!(
        said.contains("HTTP/1.1 200") && said.contains("HTTP/1.1 401"),
        "{said}"
    );
    assert_eq!(upstream.asked().len(), 1);
}

#[tokio::test]
async fn sizes_and_times_are_limited() {
    let upstream = Upstream::saying(json(&message(1, 1))).await;
    let mut setting = Setting::first_party(&upstream.url);
    setting.limits = RelayLimits {
        max_header_bytes: 8 * 1024,
        max_headers: 20,
        max_body_bytes: 1024,
        header_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        ..RelayLimits::default()
    };
    let bench = setting.bench();
    let fits = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(1000));
    assert_eq!(status(&bench.ask(&fits).await), 200);
    let larger = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(1100));
    let said = bench.ask(&larger).await;
    assert_eq!(
        (status(&said), rule(&said)),
        (413, Some("body_too_large")),
        "{said}"
    );
    let long = format!("X-Long: {}\r\n", "x".repeat(9 * 1024));
    assert_eq!(
        status(&bench.send(&post_with("/v1/messages", BODY, &long)).await),
        431
    );
    let many: String = (0..30).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(
        status(&bench.send(&post_with("/v1/messages", BODY, &many)).await),
        431
    );
    let half = post("/v1/messages", BODY);
    let said = bench.send(&half[..half.len() - 5]).await;
    assert_eq!(
        (status(&said), rule(&said)),
        (408, Some("body_timeout")),
        "{said}"
    );
    let said = bench.send("POST /v1/messages HTTP/1.1\r\nHost: ").await;
    assert!(said.is_empty() || status(&said) == 408, "{said}");
    assert_eq!(upstream.asked().len(), 1);
}

#[tokio::test]
async fn bodies_take_no_more_memory_than_they_may() {
    let upstream = Upstream::saying(json(&message(1, 1))).await;
    for (own, shared) in [(64 * 1024, usize::MAX), (usize::MAX, 64 * 1024)] {
        let mut setting = Setting::first_party(&upstream.url);
        setting.caps.max_buffered_bytes = own;
        setting.limits.max_buffered_bytes = shared;
        let bench = setting.bench();
        let body = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(40 * 1024));
        let half = post("/v1/messages", &body);
        let mut stream = bench.connect();
        stream
            .write_all(&half.as_bytes()[..half.len() - 1])
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let said = bench.ask(&body).await;
        assert_eq!(
            (status(&said), rule(&said)),
            (429, Some("max_buffered_bytes")),
            "{said}"
        );
        assert_eq!(
            status(&bench.ask(BODY).await),
            200,
            "a small one fits beside it"
        );
        drop(stream);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(
            status(&bench.ask(&body).await),
            200,
            "its place is free again"
        );
    }
}

#[tokio::test]
async fn a_model_that_is_not_configured_is_not_asked() {
    let upstream = Upstream::saying(json(&message(1, 1))).await;
    let mut setting = Setting::first_party(&upstream.url);
    setting.models = ModelList::new(["claude-opus-5-5", "claude-haiku-*"]).unwrap();
    let bench = setting.bench();
    for (model, code) in [
        ("claude-opus-5-5", 200),
        ("claude-haiku-5-5", 200),
        ("claude-fable-5-2", 404),
        ("claude-opus-5-5 ", 404),
    ] {
        for path in ["/v1/messages", "/v1/messages/count_tokens"] {
            let said = bench
                .send(&post(path, &format!(r#"{{"model":"{model}"}}"#)))
                .await;
            assert_eq!(status(&said), code, "{said}");
            assert_eq!(rule(&said), (code == 404).then_some("model"));
        }
    }
    assert_eq!(upstream.asked().len(), 4);
    let usage = bench.session.usage();
    assert_eq!(usage.models["claude-haiku-5-5"].requests, 2);
    // A count of tokens costs none.
    assert_eq!(usage.models["claude-haiku-5-5"].tokens.input, 1);
}

#[tokio::test]
async fn a_look_whether_anything_is_there_is_answered_here() {
    let (upstream, bench) = usual().await;
    let said = bench
        .send("HEAD /api/hello HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(status(&said), 200);
    assert!(upstream.asked().is_empty());
    let bedrock = Provider::bedrock("us-east-1", Some(&upstream.url)).unwrap();
    let mut setting = Setting::first_party(&upstream.url);
    setting.credential = Some(Credential::Bearer(secret(KEY)));
    setting.provider = bedrock;
    let said = setting
        .bench()
        .send("GET /inference-profiles?type=SYSTEM_DEFINED HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(status(&said), 404);
    assert!(upstream.asked().is_empty());
}

#[tokio::test]
async fn requests_are_capped_in_number_and_at_a_time() {
    let upstream = Upstream::start(|request| {
        let mut pieces = vec![];
        if request.contains("slow") {
            pieces.push(Piece::Wait(Duration::from_millis(400)));
        }
        pieces.extend(json(&message(1, 1)));
        pieces
    })
    .await;
    let mut setting = Setting::first_party(&upstream.url);
    setting.caps = Caps {
        max_requests: Some(3),
        max_concurrent: 1,
        max_connections: 2,
        ..Caps::default()
    };
    let bench = setting.bench();
    let (first, second) = tokio::join!(bench.ask(r#"{"model":"slow"}"#), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let second = bench.ask(BODY).await;
        let _held = bench.connect();
        tokio::task::yield_now().await;
        assert_eq!(
            bench.send(&post("/v1/messages", BODY)).await,
            "",
            "a third connection"
        );
        second
    });
    assert_eq!(status(&first), 200, "{first}");
    assert_eq!(
        (status(&second), rule(&second)),
        (429, Some("max_concurrent"))
    );
    assert!(second.contains("retry-after: 1"), "{second}");
    for _ in 0..2 {
        assert_eq!(status(&bench.ask(BODY).await), 200);
    }
    let said = bench.ask(BODY).await;
    assert_eq!(
        (status(&said), rule(&said)),
        (429, Some("max_requests")),
        "{said}"
    );
    assert!(
        said.contains("x-should-retry: false") && said.contains("the 3 requests"),
        "{said}"
    );
    assert_eq!(upstream.asked().len(), 3);
}

#[tokio::test]
async fn a_credential_is_changed_at_once_and_requests_under_way_keep_theirs() {
    let upstream = Upstream::start(|request| {
        let mut pieces = vec![];
        if request.contains("slow") {
            pieces.push(Piece::Wait(Duration::from_millis(300)));
        }
        pieces.extend(json(&message(1, 1)));
        pieces
    })
    .await;
    let mut setting = Setting::first_party(&upstream.url);
    setting.credential = None;
    let bench = setting.bench();
    let said = bench.ask(BODY).await;
    assert_eq!(
        (status(&said), rule(&said)),
        (503, Some("no_credential")),
        "{said}"
    );
    bench
        .session
        .set_credential(Some(Credential::ApiKey(secret("first-key"))))
        .unwrap();
    let (slow, _) = tokio::join!(bench.ask(r#"{"model":"slow"}"#), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let second = Credential::Bearer(secret("second-key"));
        bench.session.set_credential(Some(second)).unwrap();
    });
    assert_eq!(status(&slow), 200);
    assert_eq!(status(&bench.ask(BODY).await), 200);
    let refused = bench
        .session
        .set_credential(Some(Credential::ApiKey(secret("bad\nkey"))));
    assert!(refused.is_err());
    assert_eq!(status(&bench.ask(BODY).await), 200);
    bench.session.set_credential(None).unwrap();
    assert_eq!(status(&bench.ask(BODY).await), 503);
    let asked = upstream.asked();
    assert!(
        asked[0].contains("x-api-key: first-key\r\n"),
        "{}",
        asked[0]
    );
    assert!(
        asked[1].contains("authorization: Bearer second-key\r\n"),
        "{}",
        asked[1]
    );
    assert!(
        asked[2].contains("authorization: Bearer second-key\r\n"),
        "{}",
        asked[2]
    );
}

#[tokio::test]
async fn the_key_is_in_nothing_that_the_client_gets() {
    let upstream = Upstream::start(|request| {
        let headers = format!("content-type: application/json\r\nx-echo: {KEY}\r\nx-echo-more: Bearer {KEY}!\r\nset-cookie: s={KEY}\r\nrequest-id: req_1\r\n");
        let code = if request.contains("\"bad\"") { "401 Unauthorized" } else { "200 OK" };
        answer(code, &headers, "{}")
    })
    .await;
    for credential in [
        Credential::ApiKey(secret(KEY)),
        Credential::Bearer(secret(KEY)),
    ] {
        let mut setting = Setting::first_party(&upstream.url);
        setting.credential = Some(credential);
        let bench = setting.bench();
        for request in [
            post("/v1/messages", BODY),
            post("/v1/messages", r#"{"model":"bad"}"#),
            post("/v1/files", BODY),
            post("/v1/messages", "{"),
        ] {
            let said = bench.send(&request).await;
            assert!(!said.contains(KEY), "{said}");
        }
        assert!(bench.ask(BODY).await.contains("request-id: req_1"));
        assert!(!format!("{:?}", bench.session).contains(KEY));
        assert!(!format!("{:?}", bench.records(5).await).contains(KEY));
    }
    assert!(upstream.asked().iter().all(|asked| asked.contains(KEY)));
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_an_error_that_tells_no_address() {
    let gone = Upstream::saying(vec![]).await;
    let url = gone.url.clone();
    drop(gone);
    let silent = Upstream::saying(vec![Piece::Hang]).await;
    let hangs_up = Upstream::saying(vec![Piece::Close]).await;
    let garbage = Upstream::saying(vec![bytes("what?\r\n\r\n"), Piece::Close]).await;
    for (url, code, expected) in [
        (url.as_str(), 502, "connection_failed"),
        ("https://no-such-host.invalid", 502, "connection_failed"),
        (&silent.url, 504, "response_timeout"),
        (&hangs_up.url, 502, "connection_failed"),
        (&garbage.url, 502, "connection_failed"),
    ] {
        let mut setting = Setting::first_party(url);
        setting.limits.response_timeout = Duration::from_millis(500);
        setting.limits.connect_timeout = Duration::from_millis(400);
        let bench = setting.bench();
        let said = bench.ask(BODY).await;
        assert_eq!(
            (status(&said), rule(&said)),
            (code, Some(expected)),
            "{url}: {said}"
        );
        for hidden in [KEY, "127.0.0.1", "no-such-host"] {
            assert!(!said.contains(hidden), "{said}");
        }
        let record = &bench.records(1).await[0];
        assert_eq!((record.ending, record.tokens.total()), (Ending::Denied, 0));
        assert_eq!(bench.session.usage().tokens.total(), 0);
    }
}
