//! How Claude Code is started in a sandbox.

use std::time::Duration;

use model::{ConversationId, PromptOptions, WORKSPACE_PATH};
use serde_json::{Map, Value, json};

use crate::host_tools;

/// What of a session Claude Code's processes are started with.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program inside, or a name that is looked up there.
    pub path: String,
    /// Variables beside the session's.
    pub env: Vec<(String, String)>,
    /// Nothing is allowed but what a person or a rule allows; else the sandbox is the wall.
    pub strict: bool,
    /// Further MCP servers, which run inside: `mcpServers` of Claude Code's configuration.
    pub mcp_servers: Map<String, Value>,
    /// Rules for permissions, as Claude Code's settings have them; the operator's.
    pub permissions: Value,
    /// The project's own settings, hooks and MCP servers count. Never in a strict session: what runs inside can write
    /// them, and with them its own permissions.
    pub trust_project: bool,
}

/// How long what is waited for may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Nothing of an answer comes, though it has begun.
    pub stream: Duration,
    /// An answer does not begin. Longer than Claude Code's own patience with a request (ten minutes).
    pub model: Duration,
    /// Nobody answers a question; then it is denied.
    pub permission: Duration,
    /// An interrupted prompt does not end; then its process is killed.
    pub interrupt: Duration,
    /// A process without a prompt; then it is ended, and the next prompt starts another.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            stream: Duration::from_secs(120),
            model: Duration::from_secs(660),
            permission: Duration::from_secs(300),
            interrupt: Duration::from_secs(5),
            idle: Duration::from_secs(600),
        }
    }
}

impl Program {
    /// Arguments of a process of that conversation, the program first.
    pub(crate) fn arguments(
        &self,
        conversation: ConversationId,
        resume: bool,
        options: &PromptOptions,
    ) -> Vec<Vec<u8>> {
        let mut arguments: Vec<String> = vec![self.path.clone()];
        let mut add =
            |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
        add(&["-p", "--verbose", "--include-partial-messages"]);
        add(&[
            "--input-format",
            "stream-json",
            "--output-format",
            "stream-json",
        ]);
        let conversation = conversation.to_string();
        add(&[
            if resume { "--resume" } else { "--session-id" },
            &conversation,
        ]);
        add(&["--mcp-config", &self.mcp_config()]);
        if !self.trust_project || self.strict {
            // No settings of the project or of an earlier process count: no hooks, no helpers, no servers, no rules. The
            // project's CLAUDE.md comes in as that of an additional directory (see ENVIRONMENT).
            add(&[
                "--setting-sources",
                "",
                "--strict-mcp-config",
                "--add-dir",
                WORKSPACE_PATH,
            ]);
        }
        add(&["--settings", &self.settings()]);
        let mut disallowed = options.disallowed_tools.clone();
        if self.strict {
            add(&[
                "--permission-mode",
                "default",
                "--permission-prompt-tool",
                "stdio",
            ]);
            // A person at a terminal would be asked; here `ask_caller` does that.
            disallowed.push("AskUserQuestion".to_owned());
        } else {
            add(&["--permission-mode", "bypassPermissions"]);
        }
        let disallowed = (!disallowed.is_empty()).then(|| disallowed.join(","));
        for (flag, value) in [
            ("--disallowedTools", disallowed),
            (
                "--tools",
                options.tools.as_ref().map(|tools| tools.join(",")),
            ),
            ("--model", options.model.clone()),
            (
                "--max-turns",
                options.max_turns.map(|turns| turns.to_string()),
            ),
            (
                "--max-budget-usd",
                options.max_budget_micro_usd.map(dollars),
            ),
            (
                "--append-system-prompt",
                options.append_system_prompt.clone(),
            ),
            ("--json-schema", options.output_schema.clone()),
        ] {
            // One word, so that no value passes for a flag.
            if let Some(value) = value {
                add(&[&format!("{flag}={value}")]);
            }
        }
        arguments.into_iter().map(String::into_bytes).collect()
    }

    /// Rules of the operator; and in a strict session nothing leads out of asking. It cannot stand in managed settings,
    /// which hold for sessions that are not strict, too.
    fn settings(&self) -> String {
        let mut permissions = self.permissions.clone();
        if let (true, Some(rules)) = (self.strict, permissions.as_object_mut()) {
            rules.insert("disableBypassPermissionsMode".to_owned(), json!("disable"));
        }
        json!({ "permissions": permissions }).to_string()
    }

    fn mcp_config(&self) -> String {
        let mut servers = self.mcp_servers.clone();
        let own = json!({"type": "sdk", "name": host_tools::SERVER});
        servers.insert(host_tools::SERVER.to_owned(), own);
        json!({ "mcpServers": servers }).to_string()
    }

    /// Variables of a process, `NAME=value` each.
    pub(crate) fn environment(&self) -> Vec<Vec<u8>> {
        let fixed = ENVIRONMENT.iter().map(|(name, value, _)| (*name, *value));
        let own = self
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        fixed
            .chain(own)
            .map(|(name, value)| format!("{name}={value}").into_bytes())
            .collect()
    }
}

/// What every process gets, and why. Later ones win, so a session's own come last.
const ENVIRONMENT: &[(&str, &str, &str)] = &[
    (
        "CLAUDE_CONFIG_DIR",
        "/state/claude",
        "conversations live on the session's own disk",
    ),
    (
        "CLAUDE_CODE_TMPDIR",
        "/tmp",
        "the one place for temporary files that is certain",
    ),
    (
        "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS",
        "1",
        "tells when all of a prompt has ended",
    ),
    (
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        "1",
        "the model is all that can be reached",
    ),
    (
        "CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST",
        "1",
        "no settings can send requests elsewhere",
    ),
    (
        "CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD",
        "1",
        "CLAUDE.md counts where the project's settings do not",
    ),
    ("DISABLE_AUTOUPDATER", "1", "the program is read-only"),
    (
        "API_TIMEOUT_MS",
        "600000",
        "a request waits for the server through a restart",
    ),
    (
        "IS_SANDBOX",
        "1",
        "on an engine that maps the user to root inside",
    ),
];

fn dollars(micro: u64) -> String {
    format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(strict: bool) -> Program {
        Program {
            path: "claude".to_owned(),
            env: vec![("A".to_owned(), "1".to_owned())],
            strict,
            mcp_servers: Map::new(),
            permissions: json!({}),
            trust_project: false,
        }
    }

    fn shown(program: &Program, options: &PromptOptions, resume: bool) -> String {
        let conversation = "6f1f9a52-5e8d-4c37-9b0e-0a4cf2b7d911".parse().unwrap();
        let arguments = program.arguments(conversation, resume, options);
        let words: Vec<_> = arguments
            .iter()
            .map(|word| String::from_utf8_lossy(word))
            .collect();
        words.join(" ")
    }

    #[test]
    fn a_strict_session_asks_and_another_one_does_not() {
        let strict = shown(&program(true), &PromptOptions::default(), false);
        assert!(
            strict.contains("--permission-mode default --permission-prompt-tool stdio"),
            "{strict}"
        );
        assert!(!strict.contains("bypassPermissions "), "{strict}");
        assert!(
            strict.contains(r#"{"permissions":{"disableBypassPermissionsMode":"disable"}}"#),
            "{strict}"
        );
        let open = shown(&program(false), &PromptOptions::default(), true);
        assert!(
            open.contains("--permission-mode bypassPermissions"),
            "{open}"
        );
        assert!(!open.contains("disableBypass"), "{open}");
        assert!(open.contains("--resume 6f1f9a52"), "{open}");
    }

    #[test]
    fn a_strict_session_trusts_no_project() {
        let mut program = program(false);
        program.trust_project = true;
        let open = shown(&program, &PromptOptions::default(), false);
        assert!(!open.contains("--setting-sources"), "{open}");
        program.strict = true;
        let strict = shown(&program, &PromptOptions::default(), false);
        assert!(
            strict.contains("--setting-sources  --strict-mcp-config"),
            "{strict}"
        );
    }

    #[test]
    fn options_become_flags() {
        let options = PromptOptions {
            model: Some("m".to_owned()),
            max_turns: Some(3),
            max_budget_micro_usd: Some(1_050_000),
            tools: Some(vec!["Read".to_owned(), "Bash".to_owned()]),
            disallowed_tools: vec!["Write".to_owned()],
            append_system_prompt: Some("brief".to_owned()),
            output_schema: Some("{}".to_owned()),
        };
        let shown = shown(&program(false), &options, false);
        let due = "--disallowedTools=Write --tools=Read,Bash --model=m --max-turns=3 --max-budget-usd=1.050000 \
                   --append-system-prompt=brief --json-schema={}";
        assert!(shown.ends_with(due), "{shown}");
    }

    #[test]
    fn the_hosts_own_server_cannot_be_replaced() {
        let mut program = program(false);
        program
            .mcp_servers
            .insert("host".to_owned(), json!({"command": "evil"}));
        assert!(!shown(&program, &PromptOptions::default(), false).contains("evil"));
    }
}
