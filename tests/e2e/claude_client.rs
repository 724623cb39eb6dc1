//! Claude Code itself as the MCP client (S1): it registers the server, creates a session, gives the Claude Code in there a
//! prompt, and tells the result. The models of both are scripted.

use std::process::Stdio;

use scripted_api::{Block, Turn, When, by_prompt};
use serde_json::{Value, json};

use crate::support::{Machine, alone, claude_code, program, stage::Stage, users};

/// The turns of the outer one: which tool of the server is called after so many results.
fn turns() -> Vec<Turn> {
    let calls = [
        (
            "mcp__sandbox__create_session",
            json!({ "projectPath": "{{cwd}}" }),
        ),
        (
            "mcp__sandbox__execute_in_session",
            json!({ "sessionId": "{{word:s-}}", "prompt": "[[write-test]] go", "waitSeconds": 45 }),
        ),
    ];
    let after = |results: u32| When {
        prompt_contains: vec!["DRIVE".to_owned()],
        tool_results: Some(results),
        ..When::default()
    };
    let calls = (0..).zip(calls).map(|(results, (name, input))| {
        let call = Block::Tool {
            name: name.to_owned(),
            input,
        };
        Turn::say([call]).when(after(results))
    });
    calls
        .chain([Turn::say([Block::text("{{result}}")]).when(after(2))])
        .collect()
}

#[test]
fn claude_code_as_the_client_creates_a_session_prompts_it_and_tells_the_result() {
    let _alone = alone();
    let Some(binary) = claude_code::binary() else {
        return;
    };
    let mut script = by_prompt().expect("the scenarios");
    script.turns.splice(0..0, turns());
    let mut machine = Machine::new(users()[0]);
    machine.set("CLAUDE_CODE_MCP_BACKEND", "native");
    let Some(stage) = Stage::of(machine, script) else {
        return;
    };
    let claude = |arguments: &[&str]| {
        let mut command = stage.machine.command(&binary);
        let done = command
            .args(arguments)
            .env("IS_SANDBOX", "1")
            .env("DISABLE_AUTOUPDATER", "1")
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
            .stdin(Stdio::null())
            .output()
            .expect("Claude Code runs");
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            done.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        said
    };
    let server = program().display().to_string();
    claude(&["mcp", "add", "sandbox", "--", &server]);
    let said = claude(&[
        "-p",
        "DRIVE",
        "--output-format",
        "json",
        "--dangerously-skip-permissions",
    ]);
    let result: Value = serde_json::from_str(&said).expect("a result");
    assert_eq!(result["is_error"], json!(false), "{result:#}");
    let told = result["result"].as_str().expect("words");
    assert!(
        told.contains("completed") && told.contains("greet.sh"),
        "{told}"
    );
    assert!(stage.machine.project.join("greet.sh").is_file());
}
