//! Budgets in dollars, with the real Claude Code: what a session may cost is what it costs, and both the caller and Claude Code
//! are told why it ended. Every answer of a model here is scripted; prices are those of the built-in table.

use scripted_api::{Block, Script, Turn, When};
use serde_json::{Value, json};

use crate::support::{
    Client, Machine, alone,
    stage::{Stage, finish, prompt, start},
    users,
};

/// What a session may cost. The long answer costs more at any model's price; Claude Code's own request costs less.
const CAP_USD: &str = "0.05";
const LAST_WORD: &str = "word9999";
const CODE: &str = "max_usd_per_session";

fn stage(cap: Option<&str>, script: Script) -> Option<Stage> {
    let mut machine = Machine::new(users()[0]);
    machine.set("CLAUDE_CODE_MCP_BACKEND", "native");
    if let Some(cap) = cap {
        machine.set("CLAUDE_CODE_MCP_MAX_USD_PER_SESSION", cap);
    }
    Stage::of(machine, script)
}

/// One answer of 90 KB in a stream, whose usage is told at its end only.
fn long_answer() -> Script {
    let words: Vec<String> = (0..10_000).map(|number| format!("word{number}")).collect();
    Script::of([Turn::say([Block::text(words.join(" "))]).usage(1_000, 25_000)])
}

fn spent(client: &mut Client, session: &str) -> Value {
    let session = client.tool("get_session", json!({ "sessionId": session }));
    session.expect("the session")["providerUsage"].clone()
}

fn cost(usage: &Value) -> f64 {
    usage["costUsd"].as_f64().expect("a cost")
}

#[test]
fn a_stream_that_passes_the_dollars_of_its_session_is_ended_and_everybody_is_told_why() {
    let _alone = alone();
    let Some(control) = stage(None, long_answer()) else {
        return;
    };
    let mut client = control.machine.client();
    let session = client.create(&control.machine.project);
    let whole = prompt(&mut client, &session, "Go on.", json!({}));
    assert_eq!(whole["stop"], "completed", "{whole:#}");
    let whole_cost = cost(&spent(&mut client, &session));
    let cap: f64 = CAP_USD.parse().expect("a number");
    assert!(whole_cost > 2.0 * cap, "the long answer costs {whole_cost}");
    drop(client);

    let stage = stage(Some(CAP_USD), long_answer()).expect("Claude Code is there");
    let mut client = stage.machine.client();
    let session = client.create(&stage.machine.project);
    let done = prompt(&mut client, &session, "Go on.", json!({}));
    assert_eq!(
        (&done["stop"], &done["spendingLimit"]["code"]),
        (&json!("spendingLimit"), &json!(CODE)),
        "{done:#}"
    );
    assert_eq!(
        (&done["state"], &done["exitCode"]),
        (&json!("exited"), &json!(1))
    );
    let why = done["spendingLimit"]["message"]
        .as_str()
        .expect("a sentence");
    assert!(why.contains("$0.05"), "{why}");
    // Claude Code was told in the same words.
    let result = done["result"].as_str().unwrap_or_default();
    assert!(result.contains(why), "{done:#}");
    assert!(!result.contains(LAST_WORD), "the whole answer came through");
    // It was ended at the piece that passed the budget: a hundredth of it is more than a piece.
    let usage = spent(&mut client, &session);
    assert!(
        (cap..cap * 1.01).contains(&cost(&usage)),
        "it may cost {cap}: {usage:#}"
    );
    assert_eq!(usage["left"][0]["usd"], json!(0.0), "{usage:#}");
    // The next prompt reaches nobody.
    let asked = stage.api.requests().len();
    let next = prompt(
        &mut client,
        &session,
        "And now?",
        json!({ "newConversation": true }),
    );
    assert_eq!(next["spendingLimit"]["code"], CODE, "{next:#}");
    assert_eq!(stage.api.requests().len(), asked);
    assert_eq!(cost(&spent(&mut client, &session)), cost(&usage));
    let shown = stage.machine.cli(&["session", "list"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("SPENT") && shown.contains("$0.05"),
        "{shown}"
    );
    // Another session has its own.
    let other = client.create(&stage.machine.project);
    let usage = spent(&mut client, &other);
    assert!(usage.is_null() || cost(&usage) == 0.0, "{usage:#}");
    client.destroy(&session);
    client.destroy(&other);
}

#[test]
fn a_prompt_of_many_answers_passes_the_dollars_by_one_answer_at_most() {
    let _alone = alone();
    // Each answer tells at its end that it cost much: what comes in one piece cannot be cut.
    let step = || {
        let command = json!({ "command": "echo step", "description": "One more step" });
        Turn::say([Block::tool("Bash", command)]).usage(500, 500)
    };
    let script = Script::of([step().when(When::prompt(["loop"]))]);
    let Some(stage) = stage(Some(CAP_USD), script) else {
        return;
    };
    let mut client = stage.machine.client();
    let session = client.create(&stage.machine.project);
    let started = start(&mut client, &session, "loop", json!({ "maxTurns": 100 }));
    let done = finish(&mut client, started);
    assert_eq!(done["spendingLimit"]["code"], CODE, "{done:#}");
    let usage = spent(&mut client, &session);
    let requests = usage["requests"].as_f64().expect("a number");
    let cap: f64 = CAP_USD.parse().expect("a number");
    let all = cost(&usage);
    assert!(requests >= 2.0, "{usage:#}");
    assert!(
        all >= cap && all - all / requests < cap,
        "more than one answer beyond: {usage:#}"
    );
    assert!(done["turns"].as_u64() < Some(100), "{done:#}");
    client.destroy(&session);
}
