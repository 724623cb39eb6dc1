//! What goes wrong, and what the CLI makes of it.

use std::time::Duration;

use scripted_api::{
    Accept, Block, Fault, Options, Outcome, Script, ScriptedApi, Turn, by_prompt, scenario,
};

use crate::cli::{Cli, KEY};

/// A 400 is asked again five times, each time with one feature less: `anthropic-beta` entries, how thoughts are shown, tools
/// that are loaded on demand. A 404 is asked again once.
#[tokio::test]
async fn each_status_is_told_as_what_it_is() {
    let Some(cli) = Cli::new() else { return };
    let api = ScriptedApi::start(by_prompt().unwrap()).await.unwrap();
    for (name, status, error, requests) in [
        ("status-400", 400, "unknown", 6),
        ("credit", 400, "billing_error", 1),
        ("status-401", 401, "authentication_failed", 1),
        ("status-403", 403, "authentication_failed", 1),
        ("status-404", 404, "model_not_found", 2),
        ("status-413", 413, "invalid_request", 1),
        ("status-429", 429, "rate_limit", 1),
        ("status-500", 500, "server_error", 1),
        ("status-529", 529, "server_error", 1),
    ] {
        let before = api.requests().len();
        let run = cli.ask(&api, &format!("[[{name}]]"), &[]).await;
        run.assert_failed();
        assert_eq!(
            run.result()["api_error_status"],
            status,
            "{name}: {}",
            run.result()
        );
        assert_eq!(run.error(), error, "{name}");
        assert_eq!(api.requests().len() - before, requests, "{name}");
    }
}

#[tokio::test]
async fn failures_are_retried_until_success() {
    let Some(cli) = Cli::new() else { return };
    let api = ScriptedApi::start(by_prompt().unwrap()).await.unwrap();
    let retries = [("CLAUDE_CODE_MAX_RETRIES", "3")];
    let run = cli.ask_with(&api, "[[flaky]]", &[], &retries).await;
    run.assert_good();
    assert_eq!(run.text(), "It worked in the end.");
    assert_eq!(api.requests().len(), 3);

    let run = cli.ask_with(&api, "[[limited-once]]", &[], &retries).await;
    run.assert_good();
    let requests = api.requests();
    let waited = requests[4].after - requests[3].after;
    assert!(
        waited >= Duration::from_secs(2),
        "retry-after is kept: {waited:?}"
    );
}

/// Without another model it gives up after the third, but not with `IS_SANDBOX=1`, as here: then 529 is retried like 500.
#[tokio::test]
async fn an_overloaded_model_is_asked_three_times_and_then_another() {
    let Some(cli) = Cli::new() else { return };
    let api = ScriptedApi::start(scenario("overloaded-opus").unwrap())
        .await
        .unwrap();
    let retries = [("CLAUDE_CODE_MAX_RETRIES", "3")];
    let opus = ["--model", "claude-opus-5-5"];
    let run = cli.ask_with(&api, "hello", &opus, &retries).await;
    run.assert_failed();
    assert_eq!(api.requests().len(), 4);

    let other = [&opus[..], &["--fallback-model", "claude-haiku-4-5"]].concat();
    let run = cli.ask_with(&api, "hello", &other, &retries).await;
    run.assert_good();
    assert_eq!(run.text(), "Another model answers.");
    assert_eq!(api.requests().len(), 4 + 4);
}

#[tokio::test]
async fn a_wrong_key_is_retried_too() {
    let Some(cli) = Cli::new() else { return };
    let api = ScriptedApi::start(scenario("status-401").unwrap())
        .await
        .unwrap();
    let once = [("CLAUDE_CODE_MAX_RETRIES", "1")];
    cli.ask_with(&api, "hello", &[], &once)
        .await
        .assert_failed();
    assert_eq!(api.requests().len(), 2);
}

#[tokio::test]
async fn a_cut_stream_is_asked_for_again_and_then_whole() {
    let Some(cli) = Cli::new() else { return };
    let api = ScriptedApi::start(by_prompt().unwrap()).await.unwrap();
    let retries = [("CLAUDE_CODE_MAX_RETRIES", "2")];
    let run = cli.ask_with(&api, "[[cut-once]]", &[], &retries).await;
    run.assert_good();
    assert_eq!(api.requests().len(), 2);
    assert_eq!(api.requests()[0].outcome, Outcome::Cut);

    let run = cli.ask_with(&api, "[[cut]]", &[], &retries).await;
    run.assert_good();
    assert_eq!(run.text(), "It worked in the end.");
    let last = api.requests().pop().unwrap();
    assert!(
        last.body["stream"] != true,
        "the last way is without a stream"
    );
}

/// Whether Claude Code has begun the tool before it notices the cut is a race of its own: it goes on with what the tool gave, or
/// that it was broken off, or asks again and has not run it. Never half of both.
#[tokio::test]
async fn a_stream_cut_after_a_whole_call_of_a_tool_is_an_answer_or_asked_again() {
    let Some(cli) = Cli::new() else { return };
    let call = Block::tool("Bash", serde_json::json!({"command": "echo ran > ran.txt"}));
    let api = ScriptedApi::start(Script::in_order([
        // Start, start and ping of the block, six pieces of its input, its end.
        Turn::say([call, Block::text("Never said.")]).failing(Fault::Cut { after_events: 10 }),
        Turn::say([Block::text("Went on.")]),
    ]))
    .await
    .unwrap();
    let run = cli.ask(&api, "go", &[]).await;
    run.assert_good();
    assert_eq!(run.text(), "Went on.");
    let requests = api.requests();
    let [first, second] = &requests[..] else {
        panic!("{} requests", requests.len());
    };
    let (first, second) = (&first.body["messages"], &second.body["messages"]);
    let has_run = cli.work().join("ran.txt").exists();
    let said = second.to_string();
    match said.contains("\"type\":\"tool_result\"") {
        // One that was broken off is told as failed.
        true => assert!(has_run || said.contains("\"is_error\":true"), "{said}"),
        false => assert!(!has_run && first == second, "{said}"),
    }
}

#[tokio::test]
async fn an_error_in_mid_stream_and_a_hang_up_end_the_run() {
    let Some(cli) = Cli::new() else { return };
    let api = ScriptedApi::start(by_prompt().unwrap()).await.unwrap();
    for name in ["stream-error", "hang-up", "refusal", "max-tokens"] {
        let run = cli.ask(&api, &format!("[[{name}]]"), &[]).await;
        println!(
            "{name}: {:?} {:?} {} {:?}",
            api.requests().len(),
            run.took,
            run.error(),
            run.text()
        );
        run.assert_failed();
    }
}

#[tokio::test]
async fn headers_that_never_come_are_waited_for_as_long_as_configured() {
    let Some(cli) = Cli::new() else { return };
    let api = ScriptedApi::start(scenario("hang").unwrap()).await.unwrap();
    let limit = [("API_TIMEOUT_MS", "2000"), ("CLAUDE_CODE_MAX_RETRIES", "0")];
    let run = cli.ask_with(&api, "hello", &[], &limit).await;
    run.assert_failed();
    assert!(run.took >= Duration::from_secs(2), "{:?}", run.took);
    assert_eq!(api.requests()[0].outcome, Outcome::ClientLeft);
}

#[tokio::test]
async fn a_stalled_stream_is_held_until_the_client_leaves() {
    let Some(cli) = Cli::new() else { return };
    let api = ScriptedApi::start(scenario("stall").unwrap())
        .await
        .unwrap();
    let limit = [("API_TIMEOUT_MS", "1000"), ("CLAUDE_CODE_MAX_RETRIES", "0")];
    let mut command = cli.command(&api, &limit);
    let mut child = command
        .args(["-p", "hello"])
        .stdin(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let asked = Duration::from_secs(20);
    assert!(
        api.until(asked, |requests| requests
            .iter()
            .any(|one| one.status.is_some()))
            .await
    );
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(
        child.try_wait().unwrap().is_none(),
        "the CLI has no limit of its own for this"
    );
    assert_eq!(api.requests()[0].outcome, Outcome::Open);
    child.kill().await.unwrap();
    let left = |requests: &[scripted_api::Recorded]| requests[0].outcome == Outcome::ClientLeft;
    assert!(api.until(Duration::from_secs(5), left).await);
}

#[tokio::test]
async fn only_the_accepted_key_is_answered() {
    let Some(cli) = Cli::new() else { return };
    for (accepted, is_good) in [(KEY, true), ("another", false)] {
        let options = Options {
            accept: vec![Accept::ApiKey(accepted.to_owned())],
            ..Options::default()
        };
        let api = ScriptedApi::start_with(scenario("text").unwrap(), options)
            .await
            .unwrap();
        let run = cli.ask(&api, "hello", &[]).await;
        if is_good {
            run.assert_good();
        } else {
            run.assert_failed();
            assert_eq!(run.error(), "authentication_failed");
        }
    }
}
