//! What goes well: texts, tools, memory, cost.

use scripted_api::{Block, Outcome, Script, ScriptedApi, Turn, by_prompt, scenario};
use serde_json::Value;

use crate::cli::{Cli, KEY};

#[tokio::test]
async fn a_text_comes_through_labelled_and_with_its_cost() {
    let Some(cli) = Cli::new() else { return };
    let script = Script::of([Turn::say([Block::text("Hello.")]).usage(1_000_000, 10_000)]);
    let api = ScriptedApi::start(script.label("[scripted] "))
        .await
        .unwrap();
    let run = cli
        .ask(&api, "hello", &["--model", "claude-opus-5-5"])
        .await;
    run.assert_good();
    assert_eq!(run.text(), "[scripted] Hello.");
    // 4 USD for a million tokens in, 20 USD for a million out: the CLI's own table.
    let cost = run.result()["total_cost_usd"].as_f64().unwrap();
    assert!((cost - 4.2).abs() < 0.001, "{cost}");

    let requests = api.requests();
    let [request] = &requests[..] else {
        panic!("more than one request: {requests:?}")
    };
    assert!(request.is_main() && request.path.starts_with("/v1/messages"));
    assert_eq!(request.credential.api_key.as_deref(), Some(KEY));
    assert_eq!(
        request.header("x-claude-code-session-id"),
        Some(run.session().as_str())
    );
    assert_eq!(
        (request.turn, request.outcome),
        (Some(0), Outcome::Complete)
    );
}

#[tokio::test]
async fn a_file_is_written_and_tested_by_the_real_tools() {
    let Some(cli) = Cli::new() else { return };
    let api = ScriptedApi::start(scenario("write-test").unwrap())
        .await
        .unwrap();
    let run = cli.ask(&api, "write and test a program", &[]).await;
    run.assert_good();
    assert_eq!(run.text(), "Done: greet.sh is written and its test passed.");
    let written = std::fs::read_to_string(cli.work().join("greet.sh")).unwrap();
    assert_eq!(written, "#!/bin/sh\necho \"hello, $1\"\n");
    let turns: Vec<_> = api
        .main_requests()
        .iter()
        .map(|request| request.turn)
        .collect();
    assert_eq!(turns, [Some(0), Some(1), Some(2)]);
}

#[tokio::test]
async fn a_command_is_taken_from_the_prompt_and_its_result_told() {
    let Some(cli) = Cli::new() else { return };
    let api = ScriptedApi::start(by_prompt().unwrap()).await.unwrap();
    let run = cli.ask(&api, "[[run]]\nRUN: echo $((6 * 7))", &[]).await;
    run.assert_good();
    assert_eq!(run.text(), "It said: 42");
}

#[tokio::test]
async fn a_resumed_conversation_remembers_and_a_new_one_does_not() {
    let Some(cli) = Cli::new() else { return };
    let api = ScriptedApi::start(scenario("memory").unwrap())
        .await
        .unwrap();
    let first = cli
        .ask(&api, "Remember: the heron flies at noon", &[])
        .await;
    first.assert_good();
    let session = first.session();
    let resumed = cli
        .ask(&api, "What did I tell you?", &["--resume", &session])
        .await;
    resumed.assert_good();
    assert_eq!(resumed.text(), "You told me: the heron flies at noon");
    assert_eq!(resumed.session(), session);
    let fresh = cli.ask(&api, "What did I tell you?", &[]).await;
    assert_eq!(fresh.text(), "You told me: nothing");
}

#[tokio::test]
async fn a_conversation_may_be_resumed_with_another_api() {
    let Some(cli) = Cli::new() else { return };
    let first = ScriptedApi::start(scenario("write-test").unwrap())
        .await
        .unwrap();
    let session = cli.ask(&first, "write and test", &[]).await.session();
    drop(first);
    let second = ScriptedApi::start(scenario("write-test").unwrap())
        .await
        .unwrap();
    let resumed = cli.ask(&second, "once more", &["--resume", &session]).await;
    resumed.assert_good();
    assert_eq!(
        second.main_requests().len(),
        3,
        "the same steps from the new prompt on"
    );
}

#[tokio::test]
async fn thoughts_come_through() {
    let Some(cli) = Cli::new() else { return };
    let api = ScriptedApi::start(scenario("thinking").unwrap())
        .await
        .unwrap();
    let run = cli.ask(&api, "think", &[]).await;
    run.assert_good();
    let thought = run
        .events
        .iter()
        .find_map(|event| event["message"]["content"][0]["thinking"].as_str());
    assert_eq!(thought, Some("Let me see what that means."));
}

#[tokio::test]
async fn turns_and_budgets_have_limits() {
    let Some(cli) = Cli::new() else { return };
    let api = ScriptedApi::start(by_prompt().unwrap()).await.unwrap();
    let run = cli.ask(&api, "[[loop]]", &["--max-turns", "3"]).await;
    assert_eq!(
        (run.code, &run.result()["subtype"]),
        (Some(1), &Value::from("error_max_turns"))
    );
    // Each answer costs 2.004 USD.
    let run = cli
        .ask(&api, "[[dear-loop]]", &["--max-budget-usd", "3"])
        .await;
    assert_eq!(
        (run.code, &run.result()["subtype"]),
        (Some(1), &Value::from("error_max_budget_usd"))
    );
    assert_eq!(api.main_requests().len(), 3 + 2);
}
