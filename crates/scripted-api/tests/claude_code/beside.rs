//! What the CLI asks beside the conversation uses up none of its turns.

use scripted_api::{Block, Purpose, Recorded, Script, ScriptedApi, Turn, When};
use serde_json::json;

use crate::cli::Cli;

fn purposes(requests: &[Recorded]) -> Vec<Purpose> {
    requests
        .iter()
        .filter_map(|request| request.purpose)
        .collect()
}

#[tokio::test]
async fn a_subagent_has_turns_of_its_own() {
    let Some(cli) = Cli::new() else { return };
    let input = json!({"description": "Look", "prompt": "Look around", "subagent_type": "Explore"});
    let mut script = Script::in_order([
        Turn::say([Block::tool("Agent", input)]),
        Turn::say([Block::text("I sent somebody.")]),
        Turn::say([Block::text("They are back.")]),
    ]);
    let when = When {
        purpose: Purpose::Subagent,
        ..When::default()
    };
    script
        .turns
        .push(Turn::say([Block::text("Nothing here.")]).when(when));
    let api = ScriptedApi::start(script).await.unwrap();
    let run = cli.ask(&api, "send somebody", &[]).await;
    run.assert_good();
    assert_eq!(run.text(), "They are back.");
    let by_subagents: Vec<_> = api
        .requests()
        .into_iter()
        .filter(|request| request.purpose == Some(Purpose::Subagent))
        .collect();
    assert_eq!(by_subagents.len(), 1);
    assert_eq!(by_subagents[0].turn, Some(3));
    assert_eq!(api.main_requests().len(), 3);
}

#[tokio::test]
async fn titles_questions_and_compactions_use_up_no_turn() {
    let Some(cli) = Cli::new() else { return };
    let script = Script::in_order(["First.", "Second."].map(|text| Turn::say([Block::text(text)])));
    let api = ScriptedApi::start(script).await.unwrap();
    let user = |text: &str| json!({"type": "user", "message": {"role": "user", "content": text}, "parent_tool_use_id": null});
    let control = |id: &str, request: serde_json::Value| json!({"type": "control_request", "request_id": id, "request": request});
    let first = cli.ask(&api, "hello", &[]).await;
    first.assert_good();
    let lines = [
        control("title", json!({"subtype": "generate_session_title", "description": "fix the bug in the parser of dates", "persist": false})),
        control("side", json!({"subtype": "side_question", "question": "how are you?"})),
        user("/compact"),
        user("hello again"),
    ]
    .map(|line| line.to_string() + "\n")
    .concat();
    let run = cli
        .tell(&api, &lines, &["--resume", &first.session()])
        .await;
    println!("{:#?}", api.requests());
    assert_eq!(run.text(), "Second.");
    let seen = purposes(&api.requests());
    for purpose in [Purpose::Title, Purpose::SideQuestion, Purpose::Compaction] {
        assert!(
            seen.contains(&purpose),
            "{purpose:?} was not asked for: {seen:?}"
        );
    }
    let title = run
        .events
        .iter()
        .find(|event| event["response"]["request_id"] == "title")
        .unwrap();
    assert_eq!(title["response"]["response"]["title"], "Scripted session");
}
