//! Access tokens (S1): which are good, and what is said about those that are not.

use http_door::{OAuth, Settings};
use serde_json::{Value, json};

use crate::{
    issuer::{Issuer, b64},
    support::{Answer, LIST_SESSIONS, LIST_TOOLS, Open, loopback, open, request},
};

pub(crate) const AUDIENCE: &str = "https://mcp.example/mcp";
const CREATE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"create_session","arguments":{"projectPath":"p"}}}"#;

pub(crate) fn settings(issuer: &Issuer) -> Settings {
    let mut settings = loopback();
    settings.oauth = Some(OAuth {
        issuers: vec!["https://other.example".to_owned(), issuer.name()],
        audience: AUDIENCE.to_owned(),
    });
    settings
}

pub(crate) async fn present(door: &Open, token: &str, message: &str) -> Answer {
    door.post(message, &[("Authorization", &format!("Bearer {token}"))])
        .await
}

fn with(mut claims: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().expect("changes") {
        match value {
            Value::Null => claims.as_object_mut().expect("claims").remove(name),
            _ => claims
                .as_object_mut()
                .expect("claims")
                .insert(name.clone(), value.clone()),
        };
    }
    claims
}

#[tokio::test]
async fn a_good_token_of_each_algorithm_is_let_in_with_its_scopes() {
    let issuer = Issuer::start();
    let door = open(settings(&issuer)).await;
    for algorithm in ["RS256", "PS256", "ES256", "EdDSA"] {
        let claims = issuer.claims(AUDIENCE, "sessions:read openid");
        let answer = present(&door, &issuer.token(algorithm, &claims), LIST_SESSIONS).await;
        assert_eq!(answer.status, 200, "{algorithm}: {answer:?}");
    }
    let claims = issuer.claims(AUDIENCE, "");
    let more = json!({"aud": ["x", AUDIENCE], "scope": null, "scp": ["sessions:read"], "client_id": null, "azp": "c"});
    let answer = present(
        &door,
        &issuer.token("ES256", &with(claims, more)),
        LIST_SESSIONS,
    )
    .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let calls = door.road.calls.lock().unwrap();
    assert_eq!(calls.len(), 5);
    for call in calls.iter() {
        let model::Credentials::AccessToken(token) = &call.credentials else {
            panic!("{:?}", call.credentials)
        };
        assert_eq!(
            (token.subject.as_str(), &token.issuer),
            ("somebody", &issuer.name())
        );
        assert_eq!(token.scopes.to_string(), "sessions:read");
    }
    // Metadata and keys, once.
    assert_eq!(issuer.questions(), 2);
}

/// One change at a time to a token that is good, and what is said of it.
#[tokio::test]
async fn a_token_that_is_wrong_in_one_thing_is_refused_for_it() {
    let issuer = Issuer::start();
    let door = open(settings(&issuer)).await;
    let good = issuer.claims(AUDIENCE, "sessions:read");
    let now = good["iat"].as_u64().unwrap();
    let claims = |changes| issuer.token("ES256", &with(good.clone(), changes));
    let header = |changes| {
        let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": "p256"});
        issuer.sign(&with(header, changes), &good)
    };
    let (audience, expired, early) = ("for another server", "has expired", "not valid yet");
    let (kind, unread, key) = (
        "kind or its algorithm",
        "cannot be read",
        "does not publish",
    );
    let signature = "signature is wrong";
    let token = claims(json!({}));
    let part = |index: usize| token.split('.').nth(index).unwrap().to_owned();
    let forged = b64(with(good.clone(), json!({"scope": "admin"}))
        .to_string()
        .as_bytes());
    let cases = [
        (claims(json!({"aud": "https://mcp.example"})), audience),
        (claims(json!({"aud": "https://mcp.example/mcp/"})), audience),
        (
            claims(json!({"aud": ["https://other.example/mcp"]})),
            audience,
        ),
        (claims(json!({"aud": null})), unread),
        (claims(json!({"exp": now - 61})), expired),
        (claims(json!({"exp": null})), unread),
        (claims(json!({"exp": (now + 600).to_string()})), unread),
        (claims(json!({"exp": -1})), unread),
        (claims(json!({"exp": 1e300})), unread),
        (claims(json!({"nbf": now + 120})), early),
        (claims(json!({"nbf": "0"})), unread),
        (
            claims(json!({"iss": "https://evil.example"})),
            "issuer is not known",
        ),
        (
            claims(json!({"iss": format!("{}/", issuer.name())})),
            "issuer is not known",
        ),
        (claims(json!({"iss": null})), unread),
        (claims(json!({"sub": null})), unread),
        (claims(json!({"sub": ""})), unread),
        (claims(json!({"sub": "a\nb"})), unread),
        (claims(json!({"scope": 7})), unread),
        (header(json!({"alg": "none"})), kind),
        (header(json!({"alg": "HS256", "kid": "rsa"})), kind),
        (header(json!({"alg": "HS256", "kid": "secret"})), kind),
        (header(json!({"alg": "RS384", "kid": "rsa"})), kind),
        (header(json!({"alg": "es256"})), kind),
        (header(json!({"typ": "dpop+jwt"})), kind),
        (header(json!({"typ": "id+jwt"})), kind),
        (header(json!({"crit": ["exp"]})), kind),
        (header(json!({"kid": "rsa"})), key),
        (header(json!({"alg": "RS256"})), key),
        (header(json!({"kid": "secret"})), key),
        (header(json!({"kid": "unheard"})), key),
        (format!("{}.{}.{}", part(0), forged, part(2)), signature),
        (
            format!("{}.{}.{}", part(0), part(1), b64(&[1; 64])),
            signature,
        ),
        (
            format!("{}.{}.{}", part(0), part(1), b64(&[0; 64])),
            signature,
        ),
        (format!("{}.{}.AA", part(0), part(1)), signature),
        (format!("{}.{}.{}=", part(0), part(1), part(2)), unread),
        (format!("e30.{}.{}", part(1), part(2)), unread),
    ];
    for (token, why) in &cases {
        let answer = present(&door, token, LIST_SESSIONS).await;
        assert_eq!(answer.status, 401, "{why}: {answer:?}");
        assert!(answer.body.contains(why), "{why}: {answer:?}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(
            challenge.contains(r#"error="invalid_token""#),
            "{challenge}"
        );
        assert!(challenge.contains(r#"resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/mcp""#), "{challenge}");
        assert!(
            !answer.body.contains(&token[..20]),
            "the token is told back: {answer:?}"
        );
    }
    for token in [
        part(0),
        format!("{}.{}", part(0), part(1)),
        format!("{token}.x"),
        ".".to_owned(),
    ] {
        assert_eq!(
            present(&door, &token, LIST_SESSIONS).await.status,
            401,
            "{token}"
        );
    }
    assert!(door.road.calls.lock().unwrap().is_empty());
    // Each failure came to the road, where it is on record and counted.
    assert_eq!(door.road.sources.lock().unwrap().len(), cases.len() + 4);
    assert_eq!(present(&door, &token, LIST_SESSIONS).await.status, 200);
    for leeway in [json!({"exp": now - 50}), json!({"nbf": now + 50})] {
        let answer = present(&door, &claims(leeway), LIST_SESSIONS).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// Step-up: what a call needs beyond the token is named whole, once.
#[tokio::test]
async fn a_token_without_the_scope_is_told_all_that_it_needs() {
    let issuer = Issuer::start();
    let door = open(settings(&issuer)).await;
    let token = |scope| issuer.token("ES256", &issuer.claims(AUDIENCE, scope));
    let answer = present(&door, &token("sessions:read"), CREATE).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "insufficient_scope")
    );
    assert_eq!(
        answer.header("www-authenticate"),
        Some(
            r#"Bearer realm="claude-code-mcp", error="insufficient_scope", scope="sessions:run", resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/mcp""#
        )
    );
    let network = CREATE.replace(
        r#""projectPath":"p""#,
        r#""projectPath":"p","network":{"presets":["github"]}"#,
    );
    let answer = present(&door, &token("sessions:run"), &network).await;
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert!(
        challenge.contains(r#"scope="sessions:run network""#),
        "{answer:?}"
    );
    // Listing tools needs none, and a key reads what it lacks in the result.
    assert_eq!(present(&door, &token(""), LIST_TOOLS).await.status, 200);
    let key = door.post(CREATE, &[]).await;
    assert_eq!(key.status, 200);
    assert_eq!(
        key.json()["result"]["structuredContent"]["error"]["code"],
        "insufficient_scope"
    );
}

#[tokio::test]
async fn the_metadata_says_where_tokens_come_from() {
    let issuer = Issuer::start();
    let door = open(settings(&issuer)).await;
    for path in [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/mcp",
    ] {
        let answer = door
            .raw(request(
                "GET",
                path,
                door.port(),
                &[("Authorization", "")],
                "",
            ))
            .await;
        let document = Answer::of(&answer).json();
        assert_eq!(document["resource"], AUDIENCE);
        assert_eq!(
            document["authorization_servers"],
            json!(["https://other.example", issuer.name()])
        );
        assert_eq!(document["scopes_supported"], json!(["sessions:read"]));
        assert_eq!(document["bearer_methods_supported"], json!(["header"]));
    }
    let nobody = door.post(LIST_SESSIONS, &[("Authorization", "")]).await;
    assert_eq!(
        nobody.header("www-authenticate"),
        Some(
            r#"Bearer realm="claude-code-mcp", scope="sessions:read", resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/mcp""#
        )
    );
}

/// Made-up key ids lead to no more questions than one in half a minute, and an issuer that is silent to none for 5 s.
#[tokio::test]
async fn an_issuer_is_not_asked_at_the_pleasure_of_whoever_sends_tokens() {
    let issuer = Issuer::start();
    let door = open(settings(&issuer)).await;
    let claims = issuer.claims(AUDIENCE, "sessions:read");
    let made_up = |id: usize| {
        issuer.sign(
            &json!({"alg": "ES256", "kid": format!("made-up-{id}")}),
            &claims,
        )
    };
    for id in 0..50 {
        assert_eq!(
            present(&door, &made_up(id), LIST_SESSIONS).await.status,
            401
        );
    }
    assert_eq!(issuer.questions(), 2);
    assert_eq!(
        present(&door, &issuer.token("ES256", &claims), LIST_SESSIONS)
            .await
            .status,
        200
    );

    let silent = Issuer::start();
    silent.go_silent();
    let door = open(settings(&silent)).await;
    let token = silent.token("ES256", &silent.claims(AUDIENCE, "sessions:read"));
    for _ in 0..20 {
        let answer = present(&door, &token, LIST_SESSIONS).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "issuer_unreachable")
        );
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(silent.questions(), 3, "one look at each place for metadata");
}

/// Metadata of another issuer, keys in the clear or behind a redirect, and what is no set of keys are not believed.
#[tokio::test]
async fn keys_come_from_where_the_issuer_says_and_from_nowhere_else() {
    for (metadata, keys, status) in [
        (json!({"issuer": "https://other.example"}), json!({}), 503),
        (
            json!({"jwks_uri": "http://keys.example/keys"}),
            json!({}),
            503,
        ),
        (json!({"jwks_uri": "file:///etc/passwd"}), json!({}), 503),
        (json!({}), json!({"keys": "none"}), 503),
        (json!({}), json!({}), 200),
    ] {
        let issuer = Issuer::start();
        issuer.publish(
            &with(issuer.metadata(), metadata.clone()),
            &with(issuer.keys(), keys.clone()),
        );
        let door = open(settings(&issuer)).await;
        let token = issuer.token("ES256", &issuer.claims(AUDIENCE, "sessions:read"));
        let answer = present(&door, &token, LIST_SESSIONS).await;
        assert_eq!(answer.status, status, "{metadata} {keys}: {answer:?}");
    }
    let (issuer, elsewhere) = (Issuer::start(), Issuer::start());
    let redirect = format!("redirect http://{}/keys", elsewhere.address);
    issuer.publish(&issuer.metadata(), &Value::String(redirect));
    let door = open(settings(&issuer)).await;
    let token = issuer.token("ES256", &issuer.claims(AUDIENCE, "sessions:read"));
    assert_eq!(present(&door, &token, LIST_SESSIONS).await.status, 503);
    assert_eq!(elsewhere.questions(), 0);
    let long = json!({"keys": [], "padding": "x".repeat(300 * 1024)});
    let issuer = Issuer::start();
    issuer.publish(&issuer.metadata(), &long);
    let door = open(settings(&issuer)).await;
    let token = issuer.token("ES256", &issuer.claims(AUDIENCE, "sessions:read"));
    assert_eq!(present(&door, &token, LIST_SESSIONS).await.status, 503);
}
