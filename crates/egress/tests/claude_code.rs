//! The real Claude Code CLI through the relay: each provider with nothing but the session's token, and how the CLI takes
//! the relay's refusals with its own retries on. Needs the CLI (leg `agent`): see `tests/support/claude_code.rs`.

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::*;
use egress::{AwsKeys, Caps, Credential, ModelList, Provider};
use scripted_api::{
    Accept, Block, Fault, KeyPair, Options, Script, ScriptedApi, Turn, Verdict, by_prompt,
};
use serde_json::Value;
use tokio::{net::TcpListener, process::Command, time::timeout};

/// A run that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// What the CLI's run came to.
struct Run {
    code: Option<i32>,
    result: Value,
    took: Duration,
}

impl Run {
    fn text(&self) -> &str {
        self.result["result"].as_str().unwrap_or_default()
    }

    #[track_caller]
    fn assert_good(&self) {
        assert_eq!(
            (self.code, &self.result["is_error"]),
            (Some(0), &Value::Bool(false)),
            "{}",
            self.result
        );
    }

    /// It failed, soon, although the CLI may retry as often as it does by itself.
    #[track_caller]
    fn assert_failed_soon(&self, saying: &str) {
        assert_eq!(
            self.result["is_error"],
            Value::Bool(true),
            "{}",
            self.result
        );
        assert!(self.text().contains(saying), "{}", self.result);
        assert!(self.took < Duration::from_secs(20), "{:?}", self.took);
    }
}

/// Serves a loopback port as a sandbox's relayed port is served. Gives back its URL.
async fn listen(bench: &Bench) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (relay, session) = (bench.relay.clone(), Arc::clone(&bench.session));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (relay, session) = (relay.clone(), Arc::clone(&session));
            tokio::spawn(async move { relay.serve(stream, session).await });
        }
    });
    url
}

/// One prompt, with no credential but the session's token. `None` where there is no CLI.
async fn run(prompt: &str, environment: &[(&str, &str)]) -> Option<Run> {
    let binary = crate::installed::binary()?;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let started = Instant::now();
    let mut command = Command::new(binary);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", place)
        .env("CLAUDE_CODE_TMPDIR", place)
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST", "1")
        .env("IS_SANDBOX", "1")
        .envs(environment.iter().copied())
        .args(["-p", prompt, "--output-format", "stream-json", "--verbose"])
        .arg("--dangerously-skip-permissions")
        .current_dir(place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = timeout(LIMIT, command.output())
        .await
        .expect("the run hangs")
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(!told.contains(KEY), "the key came inside");
    let result = told
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .rfind(|event| event["type"] == "result");
    let run = Run {
        code: output.status.code(),
        result: result
            .unwrap_or_else(|| panic!("no result: {}", String::from_utf8_lossy(&output.stderr))),
        took: started.elapsed(),
    };
    println!("{:?} {:?} {}", run.code, run.took, run.text());
    Some(run)
}

async fn scripted(script: Script, accept: Accept) -> ScriptedApi {
    let options = Options {
        accept: vec![accept],
        ..Options::default()
    };
    ScriptedApi::start_with(script, options).await.unwrap()
}

fn first_party_key() -> Accept {
    Accept::ApiKey(KEY.to_owned())
}

fn hello() -> Script {
    Script::of([Turn::say([Block::text("hello")]).usage(1000, 50)])
}

async fn ask_first_party(bench: &Bench, prompt: &str) -> Option<Run> {
    let url = listen(bench).await;
    run(
        prompt,
        &[
            ("ANTHROPIC_BASE_URL", &url),
            ("ANTHROPIC_AUTH_TOKEN", TOKEN),
        ],
    )
    .await
}

#[tokio::test]
async fn tools_are_used_through_the_relay() {
    let api = scripted(by_prompt().unwrap(), first_party_key()).await;
    let bench = Setting::first_party(&api.url()).bench();
    let Some(run) = ask_first_party(&bench, "[[write-test]]").await else {
        return;
    };
    run.assert_good();
    let requests = api.requests();
    assert!(requests.len() > 2);
    for request in &requests {
        assert_eq!(request.credential.verdict, Verdict::Accepted);
        assert!(!format!("{request:?}").contains(TOKEN));
        assert!(request.header("anthropic-beta").is_some());
    }
    let usage = bench.session.usage();
    assert_eq!((usage.requests, usage.denied), (requests.len() as u64, 0));
    assert!(usage.tokens.output > 0);
}

#[tokio::test]
async fn what_will_not_change_is_not_asked_again_for_minutes() {
    let api = scripted(hello(), first_party_key()).await;
    let mut setting = Setting::first_party(&api.url());
    setting.models = ModelList::new(["claude-haiku-*"]).unwrap();
    let Some(run) = ask_first_party(&setting.bench(), "hello").await else {
        return;
    };
    run.assert_failed_soon("you may not have access to it");
    for caps in [
        Caps {
            max_requests: Some(0),
            ..Caps::default()
        },
        Caps {
            max_output_tokens: Some(0),
            ..Caps::default()
        },
        Caps {
            max_total_tokens: Some(0),
            ..Caps::default()
        },
    ] {
        let mut setting = Setting::first_party(&api.url());
        setting.caps = caps;
        let run = ask_first_party(&setting.bench(), "hello").await.unwrap();
        run.assert_failed_soon("start a new session or have the limit raised");
    }
    assert_eq!(api.requests().len(), 0);
}

#[tokio::test]
async fn a_cap_passed_in_mid_stream_ends_the_turn() {
    let script = Script::of([Turn::say([Block::text("long ".repeat(5000))]).usage(10, 6000)]);
    let api = scripted(script, first_party_key()).await;
    let mut setting = Setting::first_party(&api.url());
    setting.caps = Caps {
        max_output_tokens: Some(20),
        ..Caps::default()
    };
    let bench = setting.bench();
    let Some(run) = ask_first_party(&bench, "hello").await else {
        return;
    };
    run.assert_failed_soon("max_output_tokens");
    assert_eq!(bench.session.usage().requests, 1);
}

#[tokio::test]
async fn a_stream_that_stalls_once_is_asked_for_again() {
    let script = Script::of([
        Turn::say([Block::text("hello")])
            .failing(Fault::Stall { after_events: 4 })
            .times(1),
        Turn::say([Block::text("second time")]),
    ]);
    let api = scripted(script, first_party_key()).await;
    let mut setting = Setting::first_party(&api.url());
    setting.limits.stall_timeout = Duration::from_secs(1);
    let bench = setting.bench();
    let Some(run) = ask_first_party(&bench, "hello").await else {
        return;
    };
    run.assert_good();
    assert_eq!(bench.records(1).await[0].denied, Some("response_stalled"));
}

#[tokio::test]
async fn a_credential_that_comes_later_is_waited_for() {
    let api = scripted(hello(), first_party_key()).await;
    let mut setting = Setting::first_party(&api.url());
    setting.credential = None;
    let bench = setting.bench();
    let session = Arc::clone(&bench.session);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        session
            .set_credential(Some(Credential::ApiKey(secret(KEY))))
            .unwrap();
    });
    let Some(run) = ask_first_party(&bench, "hello").await else {
        return;
    };
    run.assert_good();
    assert_eq!(bench.records(1).await[0].denied, Some("no_credential"));
}

fn used_up() -> Caps {
    Caps {
        max_output_tokens: Some(0),
        ..Caps::default()
    }
}

fn bedrock(api: &ScriptedApi, caps: Caps) -> Bench {
    let mut setting = Setting::first_party(&api.url());
    setting.provider = Provider::bedrock("us-east-1", Some(&api.url())).unwrap();
    setting.credential = Some(Credential::Aws(AwsKeys {
        access_key_id: secret("AKIDEXAMPLE"),
        secret_access_key: secret(KEY),
        session_token: None,
    }));
    setting.caps = caps;
    setting.bench()
}

async fn ask_bedrock(bench: &Bench) -> Option<Run> {
    let url = listen(bench).await;
    let environment = [
        ("CLAUDE_CODE_USE_BEDROCK", "1"),
        ("CLAUDE_CODE_SKIP_BEDROCK_AUTH", "1"),
        ("AWS_REGION", "us-east-1"),
        ("ANTHROPIC_BEDROCK_BASE_URL", url.as_str()),
        ("ANTHROPIC_AUTH_TOKEN", TOKEN),
    ];
    run("hello", &environment).await
}

#[tokio::test]
async fn bedrock_is_signed_for_a_client_without_keys() {
    let pair = KeyPair {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: KEY.to_owned(),
        session_token: None,
        region: Some("us-east-1".to_owned()),
    };
    let api = scripted(hello(), Accept::Signature(pair)).await;
    let bench = bedrock(&api, Caps::default());
    let Some(run) = ask_bedrock(&bench).await else {
        return;
    };
    run.assert_good();
    let usage = bench.session.usage();
    assert_eq!((usage.tokens.output, usage.denied), (50, 0));
    let requests = api.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.credential.verdict == Verdict::Accepted)
    );
    let run = ask_bedrock(&bedrock(&api, used_up())).await.unwrap();
    run.assert_failed_soon("start a new session or have the limit raised");
    assert_eq!(api.requests().len(), requests.len());
}

fn vertex(api: &ScriptedApi, caps: Caps) -> Bench {
    let mut setting = Setting::first_party(&api.url());
    setting.provider = Provider::vertex("my-proj", "us-east5", Some(&api.url())).unwrap();
    setting.credential = Some(Credential::Bearer(secret(KEY)));
    setting.caps = caps;
    setting.bench()
}

async fn ask_vertex(bench: &Bench) -> Option<Run> {
    let url = format!("{}/v1", listen(bench).await);
    let environment = [
        ("CLAUDE_CODE_USE_VERTEX", "1"),
        ("CLAUDE_CODE_SKIP_VERTEX_AUTH", "1"),
        ("CLOUD_ML_REGION", "us-east5"),
        ("ANTHROPIC_VERTEX_PROJECT_ID", "my-proj"),
        ("ANTHROPIC_VERTEX_BASE_URL", url.as_str()),
        ("ANTHROPIC_AUTH_TOKEN", TOKEN),
    ];
    run("hello", &environment).await
}

#[tokio::test]
async fn vertex_gets_its_token_for_a_client_without_one() {
    let api = scripted(hello(), Accept::Bearer(KEY.to_owned())).await;
    let bench = vertex(&api, Caps::default());
    let Some(run) = ask_vertex(&bench).await else {
        return;
    };
    run.assert_good();
    let usage = bench.session.usage();
    assert_eq!((usage.tokens.output, usage.denied), (50, 0));
    let run = ask_vertex(&vertex(&api, used_up())).await.unwrap();
    run.assert_failed_soon("start a new session or have the limit raised");
}
