//! The scripted API over a socket, as a client without any library sees it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{net::SocketAddr, process::Stdio, time::Duration};

use scripted_api::{
    Accept, Block, Fault, Options, Outcome, Purpose, Script, ScriptedApi, Turn, Verdict, scenario,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::Command,
    time::{sleep, timeout},
};

const MESSAGES: &str = "POST /v1/messages";
const LIMIT: Duration = Duration::from_secs(10);

/// What came back before the connection ended.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }
}

async fn sent(address: SocketAddr, line: &str, headers: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nanthropic-version: 2023-06-01\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn read(mut stream: TcpStream) -> Answer {
    let mut all = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut all))
        .await
        .unwrap()
        .unwrap();
    let all = String::from_utf8_lossy(&all).into_owned();
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Answer {
        status: status.unwrap_or_default(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

async fn ask(api: &ScriptedApi, line: &str, headers: &str, body: &Value) -> Answer {
    read(sent(api.address(), line, headers, &body.to_string()).await).await
}

fn question(stream: bool) -> Value {
    json!({"model": "claude-x", "max_tokens": 100, "stream": stream, "anthropic_version": "x",
        "messages": [{"role": "user", "content": "hello"}]})
}

async fn api(name: &str) -> ScriptedApi {
    ScriptedApi::start(scenario(name).unwrap()).await.unwrap()
}

#[tokio::test]
async fn answers_are_labelled_and_recorded() {
    let api = api("text").await;
    let whole = ask(&api, MESSAGES, "x-api-key: made-up\r\n", &question(false)).await;
    assert_eq!(whole.status, 200);
    assert!(
        whole.head.contains("x-scripted-api: true")
            && whole.head.contains("request-id: req_scripted")
    );
    assert_eq!(
        whole.json()["content"][0]["text"],
        "Hello from the scripted API."
    );
    assert_eq!(whole.json()["usage"]["input_tokens"], 100);

    let streamed = ask(&api, MESSAGES, "", &question(true)).await;
    assert!(streamed.head.contains("content-type: text/event-stream"));
    assert!(streamed.body.contains("event: message_stop"));

    let requests = api.requests();
    assert_eq!(requests[0].credential.api_key.as_deref(), Some("made-up"));
    assert_eq!(
        (requests[0].method.as_str(), requests[0].path.as_str()),
        ("POST", "/v1/messages")
    );
    assert_eq!(requests[0].body, question(false));
    assert_eq!(requests[1].purpose, Some(Purpose::Main));
    assert!(
        !format!("{requests:?}").contains("made-up"),
        "credentials do not print"
    );
}

#[tokio::test]
async fn every_path_of_the_providers_answers() {
    let api = api("text").await;
    let vertex = "POST /v1/projects/p/locations/l/publishers/anthropic/models";
    for (line, part) in [
        ("HEAD /api/hello", ""),
        ("POST /v1/messages/count_tokens?beta=true", "input_tokens"),
        (
            "GET /inference-profiles?type=SYSTEM_DEFINED",
            "inferenceProfileSummaries",
        ),
        ("POST /model/m-v1:0/invoke", "Hello from"),
        (
            "POST /model/m-v1:0/invoke-with-response-stream",
            ":event-type",
        ),
        ("POST /model/m-v1:0/count-tokens", "inputTokens"),
        (&format!("{vertex}/m:rawPredict"), "Hello from"),
        (
            &format!("{vertex}/m:streamRawPredict"),
            "event: message_stop",
        ),
        (&format!("{vertex}/count-tokens:rawPredict"), "input_tokens"),
    ] {
        let answer = ask(&api, line, "", &question(false)).await;
        assert_eq!(answer.status, 200, "{line}: {}", answer.body);
        assert!(answer.body.contains(part), "{line}: {}", answer.body);
    }
    let answer = ask(&api, "POST /v1/complete", "", &question(false)).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["type"]),
        (404, &json!("not_found_error"))
    );
}

#[tokio::test]
async fn errors_have_the_providers_shapes_and_a_retry_after() {
    let api = api("status-429").await;
    let answer = ask(&api, MESSAGES, "", &question(true)).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["type"]),
        (429, &json!("rate_limit_error"))
    );
    assert!(answer.head.contains("retry-after: 1"));
    let answer = ask(&api, "POST /model/m/invoke", "", &question(true)).await;
    assert!(
        answer
            .head
            .contains("x-amzn-errortype: ThrottlingException")
    );
}

#[tokio::test]
async fn a_used_up_script_says_so() {
    let script = Script::in_order([Turn::say([Block::text("once")])]);
    let api = ScriptedApi::start(script).await.unwrap();
    assert_eq!(ask(&api, MESSAGES, "", &question(false)).await.status, 200);
    let answer = ask(&api, MESSAGES, "", &question(false)).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.body.contains("no turn of the script"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn a_cut_stream_keeps_what_was_said_before_and_has_no_end() {
    let api = api("cut").await;
    let answer = ask(&api, MESSAGES, "", &question(true)).await;
    assert_eq!(answer.body.matches("event: ").count(), 5, "{}", answer.body);
    assert!(
        !answer.body.ends_with("0\r\n\r\n"),
        "the end of the body is missing"
    );
    assert_eq!(api.requests()[0].outcome, Outcome::Cut);
}

#[tokio::test]
async fn a_stall_and_a_hang_last_until_the_client_leaves() {
    for (name, said) in [("stall", 5), ("hang", 0)] {
        let api = api(name).await;
        let mut stream = sent(api.address(), MESSAGES, "", &question(true).to_string()).await;
        let mut all = Vec::new();
        let reading = timeout(Duration::from_millis(500), stream.read_to_end(&mut all));
        assert!(reading.await.is_err(), "{name}: the connection stays open");
        assert_eq!(
            String::from_utf8_lossy(&all).matches("event: ").count(),
            said,
            "{name}"
        );
        assert_eq!(api.requests()[0].outcome, Outcome::Open, "{name}");
        drop(stream);
        let left = api.until(LIMIT, |requests| requests[0].outcome == Outcome::ClientLeft);
        assert!(left.await, "{name}");
    }
}

#[tokio::test]
async fn a_hang_up_sends_nothing() {
    let api = api("hang-up").await;
    let answer = ask(&api, MESSAGES, "", &question(true)).await;
    assert!(answer.head.is_empty(), "{}", answer.head);
}

#[tokio::test]
async fn pace_and_delay_take_their_time() {
    let mut turn = Turn::say([Block::text("one two three")]).pace_ms(50);
    turn.delay_ms = 300;
    let api = ScriptedApi::start(Script::of([turn])).await.unwrap();
    let started = std::time::Instant::now();
    ask(&api, MESSAGES, "", &question(true)).await;
    // Nine events, eight pauses.
    assert!(
        started.elapsed() >= Duration::from_millis(700),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn without_an_accepted_credential_nothing_is_answered() {
    let options = Options {
        accept: vec![
            Accept::ApiKey("right".to_owned()),
            Accept::Bearer("also".to_owned()),
        ],
        ..Options::default()
    };
    let api = ScriptedApi::start_with(scenario("text").unwrap(), options)
        .await
        .unwrap();
    for (headers, status) in [
        ("x-api-key: right\r\n", 200),
        ("authorization: Bearer also\r\n", 200),
        ("x-api-key: wrong\r\n", 401),
        ("authorization: Basic also\r\n", 401),
        ("", 401),
    ] {
        let answer = ask(&api, MESSAGES, headers, &question(false)).await;
        assert_eq!(answer.status, status, "{headers}");
    }
    let requests = api.requests();
    assert_eq!(requests[0].credential.verdict, Verdict::Accepted);
    assert!(matches!(
        requests[2].credential.verdict,
        Verdict::Refused(_)
    ));
    assert!(
        requests[2].turn.is_none(),
        "a refused request uses up no turn"
    );
    let bedrock = ask(&api, "POST /model/m/invoke", "", &question(false)).await;
    assert_eq!(bedrock.status, 403);
}

#[tokio::test]
async fn dropping_it_ends_its_connections_and_its_listener() {
    let api = api("stall").await;
    let address = api.address();
    let mut stream = sent(address, MESSAGES, "", &question(true).to_string()).await;
    assert!(
        api.until(LIMIT, |requests| requests
            .iter()
            .any(|one| one.status.is_some()))
            .await
    );
    drop(api);
    let mut all = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut all))
        .await
        .expect("the connection ends");
    sleep(Duration::from_millis(50)).await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_script_that_cannot_be_played_does_not_start() {
    let script = Script::of([Turn::fault(Fault::status(200))]);
    assert!(ScriptedApi::start(script).await.is_err());
    let good = Script::of([Turn::fault(Fault::status(400))]);
    assert!(ScriptedApi::start(good).await.is_ok());
}

#[tokio::test]
async fn the_program_lists_scenarios_and_prints_its_address() {
    let program = env!("CARGO_BIN_EXE_scripted-api");
    let list = Command::new(program).arg("--list").output().await.unwrap();
    assert!(String::from_utf8_lossy(&list.stdout).contains("write-test"));

    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("own.json");
    std::fs::write(&own, r#"{"turn": [{"say": [{"text": "mine"}]}]}"#).unwrap();
    let mut child = Command::new(program)
        .arg("--script")
        .arg(&own)
        .args(["--accept-bearer", "made-up"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    timeout(LIMIT, out.read_line(&mut line))
        .await
        .unwrap()
        .unwrap();
    let address = line
        .trim()
        .strip_prefix("http://")
        .unwrap()
        .parse()
        .unwrap();
    let body = question(false).to_string();
    let answer = read(
        sent(
            address,
            MESSAGES,
            "authorization: Bearer made-up\r\n",
            &body,
        )
        .await,
    )
    .await;
    assert_eq!(answer.json()["content"][0]["text"], "[scripted] mine");

    let bad = Command::new(program)
        .args(["--scenario", "nonsense"])
        .output()
        .await
        .unwrap();
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&bad.stderr).contains("--list"),
        "it says what to do"
    );
}
