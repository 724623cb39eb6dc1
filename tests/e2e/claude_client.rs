//! Claude Code itself as the MCP client (S1), over stdio and over HTTP: it registers the server, creates a session, gives the Claude
//! Code in there a prompt, and tells the result. The models of both are scripted.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Stdio,
};

use scripted_api::{Block, Recorded, Script, Turn, When, by_prompt};
use serde_json::{Value, json};

use crate::{
    http::ALL,
    support::{
        Machine, alone, claude_code,
        door::{HttpServer, key},
        program,
        stage::Stage,
        users,
    },
};

/// What the outer one begins the names of the server's tools with.
const PREFIX: &str = "mcp__sandbox__";

/// The turns of the outer one: which tool of the server is called after so many results.
fn turns<const N: usize>(calls: [(&str, Value); N]) -> Vec<Turn> {
    let results = u32::try_from(N).expect("a few");
    let after = |results: u32| When {
        prompt_contains: vec!["DRIVE".to_owned()],
        tool_results: Some(results),
        ..When::default()
    };
    let calls = (0..).zip(calls).map(|(results, (name, input))| {
        let call = Block::Tool {
            name: format!("{PREFIX}{name}"),
            input,
        };
        Turn::say([call]).when(after(results))
    });
    calls
        .chain([Turn::say([Block::text("{{result}}")]).when(after(results))])
        .collect()
}

/// These turns, and whatever the inner one is asked.
fn script(turns: Vec<Turn>) -> Script {
    let mut script = by_prompt().expect("the scenarios");
    script.turns.splice(0..0, turns);
    script
}

/// The outer one.
struct Outer {
    stage: Stage,
    binary: PathBuf,
}

impl Outer {
    fn on(machine: Machine, script: Script) -> Option<Self> {
        let binary = claude_code::binary()?;
        let stage = Stage::of(machine, script)?;
        Some(Outer { stage, binary })
    }

    fn run(&self, arguments: &[&str]) -> String {
        let mut command = self.stage.machine.command(&self.binary);
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
    }

    /// Gives it a prompt; what it says at the end.
    fn prompt(&self, words: &str, more: &[&str]) -> String {
        let mut arguments = vec!["-p", words, "--output-format", "json"];
        arguments.push("--dangerously-skip-permissions");
        arguments.extend(more);
        let said = self.run(&arguments);
        let result: Value = serde_json::from_str(&said).expect("a result");
        assert_eq!(result["is_error"], json!(false), "{result:#}");
        result["result"].as_str().expect("words").to_owned()
    }

    /// What its model was asked for that prompt, after so many requests of anybody.
    fn asked(&self, words: &str, before: usize) -> Vec<Recorded> {
        let asked = self.stage.api.requests().split_off(before);
        let is_its = |request: &Recorded| {
            request.is_main() && request.body["messages"].to_string().contains(words)
        };
        asked.into_iter().filter(is_its).collect()
    }
}

#[test]
fn claude_code_as_the_client_creates_a_session_prompts_it_and_tells_the_result() {
    let _alone = alone();
    let mut machine = Machine::new(users()[0]);
    machine.set("CLAUDE_CODE_MCP_BACKEND", "native");
    let calls = [
        ("create_session", json!({ "projectPath": "{{cwd}}" })),
        (
            "execute_in_session",
            json!({ "sessionId": "{{word:s-}}", "prompt": "[[write-test]] go", "waitSeconds": 45 }),
        ),
    ];
    let Some(outer) = Outer::on(machine, script(turns(calls))) else {
        return;
    };
    let server = program().display().to_string();
    outer.run(&["mcp", "add", "sandbox", "--", &server]);
    let told = outer.prompt("DRIVE", &[]);
    assert!(
        told.contains("completed") && told.contains("greet.sh"),
        "{told}"
    );
    assert!(outer.stage.machine.project.join("greet.sh").is_file());
}

/// The server's tools that its model is told of with a prompt, before it has called one: by their definitions, or where there are many
/// by their names alone.
fn listed(asked: &[Recorded]) -> BTreeSet<String> {
    let told = asked.first().map(|request| request.body.to_string());
    let told = told.unwrap_or_default();
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let names = told.split(PREFIX).skip(1).map(|rest| {
        let end = rest.find(|letter| !is_name(letter));
        rest[..end.unwrap_or(rest.len())].to_owned()
    });
    names.collect()
}

/// Every result of a tool that its model got, as text.
fn results(asked: &[Recorded]) -> String {
    let messages = asked.last().map(|request| request.body["messages"].clone());
    messages.unwrap_or_default().to_string()
}

/// The records of the audit log with that action.
fn records(log: &Path, action: &str) -> Vec<Value> {
    let log = std::fs::read_to_string(log).expect("an audit log");
    let records = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a record"));
    records
        .filter(|record| record["action"] == action)
        .collect()
}

/// Registered as people do it, and by a configuration of the call alone, as CI does it; and after the key's end, when it gets
/// none of the tools.
#[test]
fn claude_code_as_the_client_over_http_lists_the_tools_and_works_with_them_until_its_key_is_revoked()
 {
    let _alone = alone();
    let machine = Machine::new(users()[0]);
    machine.write("app/hello.txt", "hello from the project");
    let calls = [
        ("create_session", json!({ "projectPath": "app" })),
        (
            "execute_command",
            json!({ "sessionId": "{{word:s-}}", "command": "cat hello.txt; echo made inside > made.txt" }),
        ),
        (
            "execute_in_session",
            json!({ "sessionId": "{{word:s-}}", "prompt": "[[write-test]] go", "waitSeconds": 45 }),
        ),
        ("destroy_session", json!({ "sessionId": "{{word:s-}}" })),
    ];
    let mut turns = turns(calls);
    turns.push(Turn::say([Block::text("seen")]).when(When {
        prompt_contains: vec!["LOOK".to_owned()],
        ..When::default()
    }));
    let Some(outer) = Outer::on(machine, script(turns)) else {
        return;
    };
    let machine = &outer.stage.machine;
    let server = HttpServer::start(machine, &[]);
    let key = key(machine, &ALL, &[]);
    let header = format!("Authorization: Bearer {key}");
    let add = [
        "mcp",
        "add",
        "--transport",
        "http",
        "sandbox",
        &server.url,
        "--header",
        &header,
    ];
    outer.run(&add);
    let servers = json!({ "mcpServers": { "sandbox": {
        "type": "http", "url": server.url, "headers": { "Authorization": format!("Bearer {key}") },
    } } })
    .to_string();
    let by_configuration = ["--strict-mcp-config", "--mcp-config", servers.as_str()];
    for (round, more) in [&[][..], &by_configuration].into_iter().enumerate() {
        let before = outer.stage.api.requests().len();
        let told = outer.prompt("DRIVE", more);
        assert!(told.contains("destroyed"), "{told}");
        let asked = outer.asked("DRIVE", before);
        assert_eq!(listed(&asked).len(), 13, "{:?}", listed(&asked));
        let results = results(&asked);
        for expected in ["hello from the project", "greet.sh", "completed"] {
            assert!(results.contains(expected), "{expected}: {results}");
        }
        for made in ["app/made.txt", "app/greet.sh"] {
            std::fs::remove_file(machine.project.join(made)).expect(made);
        }
        // An intent and a result each.
        let created = records(&machine.audit_log(), "session.create");
        assert_eq!(created.len(), 2 * (round + 1), "{created:#?}");
        for record in created {
            assert_eq!(record["source"]["transport"], "http", "{record:#}");
            assert_eq!(record["client"]["name"], "claude-code", "{record:#}");
        }
        if round == 0 {
            outer.run(&["mcp", "remove", "sandbox"]);
        }
    }
    let id = key.split('_').nth(1).expect("an id");
    assert!(machine.cli(&["keys", "revoke", id]).status.success());
    assert!(records(&machine.audit_log(), "auth.fail").is_empty());
    let before = outer.stage.api.requests().len();
    assert_eq!(outer.prompt("LOOK", &by_configuration), "seen");
    let asked = outer.asked("LOOK", before);
    assert!(!asked.is_empty(), "the control: its model was asked");
    assert_eq!(listed(&asked), BTreeSet::new());
    assert!(!records(&machine.audit_log(), "auth.fail").is_empty());
    let log = std::fs::read_to_string(machine.audit_log()).expect("the audit log");
    assert!(!log.contains(&key), "the key is on record");
}
