//! Each provider's wire: signatures, paths, frames, TLS. The scripted API checks signatures by code of its own.

use std::time::Duration;

use crate::support::*;
use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use egress::{AwsKeys, Caps, Credential, Ending, ModelList, Provider, Source, TokenCommand, Trust};
use scripted_api::{Accept, Block, Fault, KeyPair, Options, Script, ScriptedApi, Turn, Verdict};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

const BEDROCK_BODY: &str = r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}"#;

fn keys(secret_key: &str, session_token: Option<&str>) -> Credential {
    Credential::Aws(AwsKeys {
        access_key_id: secret("AKIDEXAMPLE"),
        secret_access_key: secret(secret_key),
        session_token: session_token.map(secret),
    })
}

async fn scripted(script: Script, accept: Accept) -> ScriptedApi {
    let options = Options {
        accept: vec![accept],
        ..Options::default()
    };
    ScriptedApi::start_with(script, options).await.unwrap()
}

fn hello() -> Script {
    Script::of([Turn::say([Block::text("hello")]).usage(1000, 50)])
}

fn pair(session_token: Option<&str>) -> Accept {
    Accept::Signature(KeyPair {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: SECRET_KEY.to_owned(),
        session_token: session_token.map(str::to_owned),
        region: Some("us-east-1".to_owned()),
    })
}

fn bedrock(url: &str, credential: Credential) -> Setting {
    let mut setting = Setting::first_party(url);
    setting.provider = Provider::bedrock("us-east-1", Some(url)).unwrap();
    setting.credential = Some(credential);
    setting
}

#[tokio::test]
async fn bedrock_takes_the_signature_of_each_shape_of_path() {
    for token in [None, Some("temporary/token+1=")] {
        let api = scripted(hello(), pair(token)).await;
        let bench = bedrock(&api.url(), keys(SECRET_KEY, token)).bench();
        for path in [
            "/model/us.anthropic.claude-opus-5-5/invoke-with-response-stream",
            "/model/anthropic.claude-sonnet-4-5-20250929-v1:0/invoke",
            "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke",
        ] {
            let headers = "X-Amz-Security-Token: theirs\r\nX-Amz-Date: 20200101T000000Z\r\nAccept-Encoding: br\r\n";
            let said = bench.send(&post_with(path, BEDROCK_BODY, headers)).await;
            assert_eq!(status(&said), 200, "{path}: {said}");
        }
        let requests = api.requests();
        assert_eq!(requests.len(), 3);
        for request in &requests {
            assert_eq!(request.credential.verdict, Verdict::Accepted);
            assert_eq!(request.header("accept-encoding"), None);
            assert!(!format!("{request:?}").contains(TOKEN));
        }
        assert_eq!(
            requests[1].path,
            "/model/anthropic.claude-sonnet-4-5-20250929-v1:0/invoke"
        );
        let usage = bench.session.usage();
        assert_eq!((usage.tokens.input, usage.tokens.output), (3000, 150));
        assert_eq!(
            usage.models["anthropic.claude-sonnet-4-5-20250929-v1:0"].requests,
            2
        );
        // The other key is refused, in the provider's own words.
        let bench = bedrock(&api.url(), keys("another", token)).bench();
        let said = bench.send(&post("/model/m/invoke", BEDROCK_BODY)).await;
        assert_eq!((status(&said), rule(&said)), (403, None), "{said}");
    }
}

#[tokio::test]
async fn bedrock_takes_a_bearer_token_too() {
    let api = scripted(hello(), Accept::Bearer(KEY.to_owned())).await;
    let bench = bedrock(&api.url(), Credential::Bearer(secret(KEY))).bench();
    let said = bench.send(&post("/model/m/invoke", BEDROCK_BODY)).await;
    assert_eq!(status(&said), 200, "{said}");
    assert_eq!(api.requests()[0].credential.api_key, None);
}

#[tokio::test]
async fn bedrock_hears_of_a_refusal_in_its_own_shape() {
    let api = scripted(hello(), pair(None)).await;
    let mut setting = bedrock(&api.url(), keys(SECRET_KEY, None));
    setting.models = ModelList::new(["us.anthropic.claude-*"]).unwrap();
    let bench = setting.bench();
    for (path, body, code, expected, error) in [
        (
            "/model/us.anthropic.claude-x/converse",
            BEDROCK_BODY,
            403,
            "path",
            "AccessDeniedException",
        ),
        ("/v1/messages", BODY, 403, "path", "AccessDeniedException"),
        (
            "/model/amazon.nova/invoke",
            BEDROCK_BODY,
            404,
            "model",
            "ResourceNotFoundException",
        ),
        (
            "/model/us.anthropic.claude-x/invoke",
            r#"{"model":"other"}"#,
            404,
            "model",
            "ResourceNotFoundException",
        ),
    ] {
        let said = bench.send(&post(path, body)).await;
        assert_eq!(
            (status(&said), rule(&said)),
            (code, Some(expected)),
            "{said}"
        );
        assert!(
            said.contains(&format!("x-amzn-errortype: {error}")),
            "{said}"
        );
        assert!(said.contains("{\"message\":\""), "{said}");
    }
    let said = bench
        .send(&post("/model/us.anthropic.claude-x/invoke", BEDROCK_BODY))
        .await;
    assert_eq!(status(&said), 200);
    assert_eq!(api.requests().len(), 1);
}

/// The frames of an answer: event type or exception type, and payload.
fn frames(answer: &[u8]) -> Vec<(String, String)> {
    let body = dechunk(answer);
    let mut rest = body.as_slice();
    let mut decoder = MessageFrameDecoder::new();
    let mut frames = Vec::new();
    while let Ok(DecodedFrame::Complete(message)) = decoder.decode_frame(&mut rest) {
        let kind = message.headers().iter().find_map(|header| {
            let wanted = [":event-type", ":exception-type"].contains(&header.name().as_str());
            wanted.then(|| header.value().as_string().unwrap().as_str().to_owned())
        });
        let payload = String::from_utf8_lossy(message.payload()).into_owned();
        frames.push((kind.unwrap_or_default(), payload));
    }
    assert!(rest.is_empty(), "{} bytes are no frame", rest.len());
    frames
}

#[tokio::test]
async fn a_stream_of_bedrock_is_ended_with_an_exception() {
    let path = "/model/m/invoke-with-response-stream";
    let stalls = Script::in_order([
        Turn::say([Block::text("hello")]).failing(Fault::Stall { after_events: 2 })
    ]);
    let long = Script::in_order([Turn::say([Block::text("long ".repeat(2000))]).usage(10, 3000)]);
    for (script, caps, ending) in [
        (stalls, Caps::default(), Ending::Stalled),
        (
            long,
            Caps {
                max_output_tokens: Some(20),
                ..Caps::default()
            },
            Ending::CapReached,
        ),
    ] {
        let api = scripted(script, pair(None)).await;
        let mut setting = bedrock(&api.url(), keys(SECRET_KEY, None));
        setting.limits.stall_timeout = Duration::from_millis(300);
        setting.caps = caps;
        let bench = setting.bench();
        let said = bench.send_for_bytes(&post(path, BEDROCK_BODY)).await;
        let frames = frames(&said);
        let (kind, payload) = frames.last().unwrap();
        assert_eq!(kind, "modelStreamErrorException", "{frames:?}");
        assert!(payload.contains("\"message\":"), "{payload}");
        assert_eq!(frames[0].0, "chunk");
        assert_eq!(bench.records(1).await[0].ending, ending);
    }
}

const VERTEX: &str = "/v1/projects/my-proj/locations/us-east5/publishers/anthropic/models";

#[tokio::test]
async fn vertex_gets_the_token_that_a_command_of_the_host_prints() {
    let api = scripted(hello(), Accept::Bearer("ya29.token".to_owned())).await;
    let mut setting = Setting::first_party(&api.url());
    setting.provider =
        Provider::vertex("my-proj", "us-east5", Some(&format!("{}/v1", api.url()))).unwrap();
    setting.credential = Some(Credential::Source(Source::command(TokenCommand {
        argv: ["/bin/echo", "ya29.token"].map(str::to_owned).to_vec(),
        timeout: TokenCommand::TIMEOUT,
        refresh_after: TokenCommand::REFRESH_AFTER,
    })));
    setting.models = ModelList::new(["claude-opus-*"]).unwrap();
    let bench = setting.bench();
    for (verb, body, code) in [
        ("claude-opus-5-5:streamRawPredict", BEDROCK_BODY, 200),
        ("claude-opus-5-5:rawPredict", BEDROCK_BODY, 200),
        (
            "count-tokens:rawPredict",
            r#"{"model":"claude-opus-5-5","messages":[{"role":"user","content":"hi"}]}"#,
            200,
        ),
        ("claude-fable-5-2:rawPredict", BEDROCK_BODY, 404),
        (
            "count-tokens:rawPredict",
            r#"{"model":"claude-fable-5-2"}"#,
            404,
        ),
        ("count-tokens:rawPredict", "{}", 400),
    ] {
        let headers = "X-Goog-User-Project: another\r\n";
        let said = bench
            .send(&post_with(&format!("{VERTEX}/{verb}"), body, headers))
            .await;
        assert_eq!(status(&said), code, "{verb}: {said}");
        if code == 404 {
            assert!(said.contains("NOT_FOUND"), "{said}");
        }
    }
    let requests = api.requests();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        assert_eq!(request.credential.verdict, Verdict::Accepted);
        assert_eq!(request.header("x-goog-user-project"), None);
    }
    let usage = bench.session.usage();
    assert_eq!((usage.tokens.input, usage.tokens.output), (2000, 100));
}

#[tokio::test]
async fn a_command_that_fails_is_told_without_what_it_printed() {
    let mut setting = Setting::first_party("http://127.0.0.1:9");
    setting.credential = Some(Credential::Source(Source::command(TokenCommand {
        argv: ["/bin/sh", "-c", "echo canary; echo canary >&2; exit 1"]
            .map(str::to_owned)
            .to_vec(),
        timeout: TokenCommand::TIMEOUT,
        refresh_after: TokenCommand::REFRESH_AFTER,
    })));
    let bench = setting.bench();
    let said = bench.ask(BODY).await;
    assert_eq!(
        (status(&said), rule(&said)),
        (503, Some("credential_command")),
        "{said}"
    );
    assert!(!said.contains("canary"), "{said}");
    assert_eq!(bench.session.usage().requests, 0);
}

/// A provider behind TLS, with a certificate for `name`; its own root in PEM.
async fn behind_tls(name: &str) -> (u16, Vec<u8>) {
    let certified = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let pem = certified.cert.pem().into_bytes();
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut request = vec![0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await;
            }
        }
    });
    (port, pem)
}

#[tokio::test]
async fn a_provider_is_believed_by_its_certificate_alone() {
    for (name, trusted, code) in [
        ("localhost", true, 200),
        ("localhost", false, 502),
        ("other.example", true, 502),
    ] {
        let (port, pem) = behind_tls(name).await;
        let mut setting = Setting::first_party(&format!("https://localhost:{port}"));
        setting.trust = Trust {
            machine: true,
            extra_pem: if trusted { pem } else { Vec::new() },
        };
        let said = setting.bench().ask(BODY).await;
        assert_eq!(status(&said), code, "{name} {trusted}: {said}");
    }
}

#[tokio::test]
async fn a_connection_without_an_end_of_its_handshake_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut setting = Setting::first_party(&format!("https://127.0.0.1:{port}"));
    setting.limits.connect_timeout = Duration::from_millis(300);
    let said = setting.bench().ask(BODY).await;
    assert_eq!(
        (status(&said), rule(&said)),
        (502, Some("connection_failed"))
    );
}
