//! Prompts in tests: a machine with the real Claude Code, whose provider is the scripted Messages API.

use std::time::{Duration, Instant};

use scripted_api::{Accept, Options, Script, ScriptedApi, by_prompt};
use serde_json::{Value, json};

use super::{Client, Machine, User, agent::install, claude_code};

/// The key that the host has, and that must never be seen inside.
pub const CANARY: &str = "sk-ant-canary-7f3a9c51";

/// A machine with Claude Code, whose provider is the scripted API.
pub struct Stage {
    pub machine: Machine,
    pub api: ScriptedApi,
    /// The API lives in it.
    _runtime: tokio::runtime::Runtime,
}

impl Stage {
    /// `None`, said loudly, where there is no Claude Code.
    pub fn of(machine: Machine, script: Script) -> Option<Self> {
        // The key that the host has, and no other.
        Stage::with(machine, script, Accept::ApiKey(CANARY.to_owned()))
    }

    /// As [`Self::of`], with what the API accepts.
    pub fn with(mut machine: Machine, script: Script, accept: Accept) -> Option<Self> {
        let binary = claude_code::binary()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let options = Options {
            accept: vec![accept],
            ..Options::default()
        };
        let api = runtime
            .block_on(ScriptedApi::start_with(script, options))
            .expect("the scripted API");
        install(&machine, &binary);
        machine
            .set("ANTHROPIC_API_KEY", CANARY)
            .set("ANTHROPIC_BASE_URL", &api.url());
        Some(Stage {
            machine,
            api,
            _runtime: runtime,
        })
    }

    /// In an embedded sandbox, with all scenarios.
    pub fn native(user: User) -> Option<Self> {
        let mut machine = Machine::new(user);
        machine.set("CLAUDE_CODE_MCP_BACKEND", "native");
        Stage::of(machine, by_prompt().expect("the scenarios"))
    }
}

/// Gives a prompt and waits for its end.
pub fn prompt(client: &mut Client, session: &str, words: &str, more: Value) -> Value {
    let started = start(client, session, words, more);
    finish(client, started)
}

/// Gives a prompt and does not wait.
pub fn start(client: &mut Client, session: &str, words: &str, more: Value) -> Value {
    let mut arguments = json!({ "sessionId": session, "prompt": words, "waitSeconds": 0 });
    for (name, value) in more.as_object().into_iter().flatten() {
        arguments[name] = value.clone();
    }
    client
        .tool("execute_in_session", arguments)
        .expect("a prompt")
}

/// Waits for its end.
pub fn finish(client: &mut Client, mut execution: Value) -> Value {
    let deadline = Instant::now() + Duration::from_secs(120);
    while ["queued", "running"].contains(&execution["state"].as_str().expect("a state")) {
        assert!(Instant::now() < deadline, "it does not end: {execution:#}");
        let look = json!({ "executionId": execution["executionId"], "waitSeconds": 20 });
        execution = client.tool("get_execution", look).expect("the execution");
    }
    execution
}
