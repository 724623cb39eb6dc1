//! Bedrock and Vertex, as the CLI speaks them.

use scripted_api::{Accept, KeyPair, Options, Provider, ScriptedApi, Verdict, by_prompt, scenario};

use crate::cli::Cli;

/// The environment that leads to Bedrock, without `ANTHROPIC_BEDROCK_BASE_URL`.
const BEDROCK: [(&str, &str); 3] = [
    ("CLAUDE_CODE_USE_BEDROCK", "1"),
    ("AWS_REGION", "us-east-1"),
    ("CLAUDE_CODE_MAX_RETRIES", "0"),
];

#[tokio::test]
async fn bedrock_is_understood_streams_tools_and_errors() {
    let Some(cli) = Cli::new() else { return };
    let api = ScriptedApi::start(by_prompt().unwrap()).await.unwrap();
    let url = api.url();
    let more = [
        ("CLAUDE_CODE_SKIP_BEDROCK_AUTH", "1"),
        ("ANTHROPIC_BEDROCK_BASE_URL", url.as_str()),
    ];
    let environment = [&BEDROCK[..], &more[..]].concat();
    let run = cli
        .ask_with(&api, "[[write-test]]", &[], &environment)
        .await;
    run.assert_good();
    assert_eq!(run.text(), "Done: greet.sh is written and its test passed.");
    for request in api.main_requests() {
        assert!(
            request.path.ends_with("/invoke-with-response-stream"),
            "{request:?}"
        );
        assert_eq!(request.provider, Some(Provider::Bedrock));
        assert_eq!(request.credential.authorization, None);
    }
    for name in ["status-429", "status-529", "stream-error"] {
        let run = cli
            .ask_with(&api, &format!("[[{name}]]"), &[], &environment)
            .await;
        println!("{name}: {} {:?} {:?}", run.error(), run.text(), run.took);
        run.assert_failed();
    }
    let run = cli.ask_with(&api, "[[cut-once]]", &[], &environment).await;
    run.assert_good();
}

#[tokio::test]
async fn the_clis_own_signature_is_accepted_and_with_another_secret_refused() {
    let Some(cli) = Cli::new() else { return };
    for (secret, is_good) in [("made-up-secret", true), ("another-secret", false)] {
        let pair = KeyPair {
            access_key_id: "AKIAMADEUP".to_owned(),
            secret_access_key: "made-up-secret".to_owned(),
            session_token: None,
            region: Some("us-east-1".to_owned()),
        };
        let options = Options {
            accept: vec![Accept::Signature(pair)],
            ..Options::default()
        };
        let api = ScriptedApi::start_with(scenario("text").unwrap(), options)
            .await
            .unwrap();
        let url = api.url();
        let more = [
            ("AWS_ACCESS_KEY_ID", "AKIAMADEUP"),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("ANTHROPIC_BEDROCK_BASE_URL", url.as_str()),
        ];
        let run = cli
            .ask_with(&api, "hello", &[], &[&BEDROCK[..], &more[..]].concat())
            .await;
        let requests = api.requests();
        println!("{requests:#?}");
        assert!(
            requests.iter().any(|request| request.path.contains(":0/")),
            "a model with a colon was asked for"
        );
        if is_good {
            run.assert_good();
            for request in requests {
                assert_eq!(request.credential.verdict, Verdict::Accepted, "{request:?}");
            }
        } else {
            run.assert_failed();
            assert!(requests.iter().all(|request| request.status == Some(403)));
        }
    }
}

#[tokio::test]
async fn vertex_is_understood_and_wants_its_bearer() {
    let Some(cli) = Cli::new() else { return };
    for (token, is_good) in [("made-up-token", true), ("another-token", false)] {
        let options = Options {
            accept: vec![Accept::Bearer("made-up-token".to_owned())],
            ..Options::default()
        };
        let api = ScriptedApi::start_with(scenario("write-test").unwrap(), options)
            .await
            .unwrap();
        let url = format!("{}/v1", api.url());
        let environment = [
            ("CLAUDE_CODE_USE_VERTEX", "1"),
            ("CLOUD_ML_REGION", "us-east5"),
            ("ANTHROPIC_VERTEX_PROJECT_ID", "my-project"),
            ("CLAUDE_CODE_SKIP_VERTEX_AUTH", "1"),
            ("ANTHROPIC_VERTEX_BASE_URL", url.as_str()),
            ("ANTHROPIC_AUTH_TOKEN", token),
            ("CLAUDE_CODE_MAX_RETRIES", "0"),
        ];
        let run = cli
            .ask_with(&api, "write and test", &[], &environment)
            .await;
        println!("{:#?} {}", api.requests(), run.text());
        let first = &api.main_requests()[0];
        assert!(
            first.path.contains("/publishers/anthropic/models/"),
            "{first:?}"
        );
        assert!(first.path.ends_with(":streamRawPredict"), "{first:?}");
        if is_good {
            run.assert_good();
            assert_eq!(run.text(), "Done: greet.sh is written and its test passed.");
        } else {
            run.assert_failed();
            assert!(run.text().contains("401"), "{}", run.text());
        }
    }
}
