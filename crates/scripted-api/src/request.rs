//! What is understood of a request: whose wire, what for, which prompt, which tool results.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Whose wire a request came over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// Anthropic's own API.
    #[default]
    Anthropic,
    /// Claude on AWS Bedrock.
    Bedrock,
    /// Claude on Google's Vertex AI.
    Vertex,
}

/// What a client wants an answer for. Only the main conversation uses up a script's turns, unless a turn names another.
///
/// Told apart by what Claude Code 2.1.330 sends (measured). It sends none of these by itself in a plain `-p` run against
/// Anthropic's wire; titles, side questions and compactions are asked for, and probes come with Bedrock's own signing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The conversation with the user.
    #[default]
    Main,
    /// A conversation of a subagent (header `x-claude-code-agent-id`).
    Subagent,
    /// A name for the session (an output schema with a `title`).
    Title,
    /// A question beside the conversation that should leave no trace in it.
    SideQuestion,
    /// A summary that replaces the conversation.
    Compaction,
    /// Whether a model answers at all (one token at most).
    Probe,
    /// Anything else without tools and thinking that Claude Code asks.
    Side,
}

/// How texts begin that Claude Code 2.1.330 itself puts in the user's mouth (measured): reminders, interrupts, and what it
/// says after `max_tokens`, after a stream that failed in the middle and after `refusal`. They are no new prompt.
const CLIENTS_WORDS: &[&str] = &[
    "<system-reminder>",
    "[Request interrupted by user",
    "Output token limit hit.",
    "Your response above was cut off mid-stream.",
    "Your response above was stopped by a safety classifier",
];

/// A request for a message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub provider: Provider,
    pub purpose: Purpose,
    pub stream: bool,
    pub model: String,
    pub conversation: String,
    pub working_directory: String,
    /// The user's own texts, one string for each message that has some; the last is the prompt.
    pub prompts: Vec<String>,
    /// Tool results since the prompt.
    pub results: Vec<String>,
}

impl Request {
    /// Understands a body. `model` comes from the path where the body has none.
    pub(crate) fn new(
        provider: Provider,
        stream: bool,
        path_model: Option<&str>,
        headers: &[(String, String)],
        body: &Value,
    ) -> Self {
        let mut request = Self {
            provider,
            stream,
            model: body["model"]
                .as_str()
                .or(path_model)
                .unwrap_or("scripted")
                .to_owned(),
            conversation: conversation(headers, body),
            ..Self::default()
        };
        for message in body["messages"].as_array().into_iter().flatten() {
            request.read(message);
        }
        request.purpose = purpose(headers, body, request.prompt());
        request
    }

    /// The user's last own text.
    pub(crate) fn prompt(&self) -> &str {
        self.prompts.last().map_or("", String::as_str)
    }

    /// The user's own texts before the prompt.
    pub(crate) fn earlier_prompts(&self) -> &[String] {
        self.prompts
            .split_last()
            .map_or(&[], |(_, earlier)| earlier)
    }

    fn read(&mut self, message: &Value) {
        let texts = texts(&message["content"]);
        if let Some(directory) = texts.iter().find_map(|text| working_directory(text)) {
            self.working_directory = directory;
        }
        if message["role"] != "user" {
            return;
        }
        let own: Vec<&str> = texts.into_iter().filter(|text| !is_clients(text)).collect();
        if !own.is_empty() {
            self.prompts.push(own.join("\n"));
            self.results.clear();
        }
        for block in message["content"].as_array().into_iter().flatten() {
            if block["type"] == "tool_result" {
                self.results
                    .push(crate::request::texts(&block["content"]).join("\n"));
            }
        }
    }
}

/// Texts of a content, which is a string or a list of blocks.
fn texts(content: &Value) -> Vec<&str> {
    match content {
        Value::String(text) => vec![text],
        Value::Array(blocks) => blocks
            .iter()
            .filter(|block| block["type"] == "text")
            .filter_map(|block| block["text"].as_str())
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

/// Whether the client put it in the user's mouth.
fn is_clients(text: &str) -> bool {
    let text = text.trim_start();
    CLIENTS_WORDS.iter().any(|words| text.starts_with(words))
}

/// Claude Code tells its working directory in a message of the role `system`.
fn working_directory(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("Primary working directory: ")?;
    Some(rest.lines().next()?.trim().to_owned())
}

fn conversation(headers: &[(String, String)], body: &Value) -> String {
    if let Some(session) = header(headers, "x-claude-code-session-id") {
        return session.to_owned();
    }
    let user = body["metadata"]["user_id"].as_str().unwrap_or_default();
    serde_json::from_str::<Value>(user)
        .ok()
        .and_then(|user| Some(user["session_id"].as_str()?.to_owned()))
        .unwrap_or_default()
}

fn purpose(headers: &[(String, String)], body: &Value, prompt: &str) -> Purpose {
    let system = texts(&body["system"]).join("\n");
    if body["max_tokens"] == 1 {
        return Purpose::Probe;
    }
    if header(headers, "x-claude-code-agent-id").is_some() || system.contains("cc_is_subagent=") {
        return Purpose::Subagent;
    }
    if body["output_config"]["format"]["schema"]["properties"]["title"].is_object()
        && system.contains("naming a coding session")
    {
        return Purpose::Title;
    }
    if prompt.starts_with("CRITICAL: Respond with TEXT ONLY.") {
        return Purpose::Compaction;
    }
    if last_user_text(body).contains("Simply answer the question with the information you have.") {
        return Purpose::SideQuestion;
    }
    let has_tools = body["tools"]
        .as_array()
        .is_some_and(|tools| !tools.is_empty());
    let thinks = body.get("thinking").is_some() || body.get("context_management").is_some();
    if system.contains("x-anthropic-billing-header") && !has_tools && !thinks {
        return Purpose::Side;
    }
    Purpose::Main
}

fn last_user_text(body: &Value) -> String {
    let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
    messages
        .iter()
        .rfind(|message| message["role"] == "user")
        .map(|message| texts(&message["content"]).join("\n"))
        .unwrap_or_default()
}

/// A header by its name in small letters.
pub(crate) fn header<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers
        .iter()
        .find(|(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn understood(body: &Value) -> Request {
        Request::new(Provider::Anthropic, true, None, &[], body)
    }

    #[test]
    fn the_prompt_is_the_users_last_own_text_and_results_count_from_there() {
        let request = understood(&json!({"model": "m", "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "<system-reminder>do not read me</system-reminder>"},
                {"type": "text", "text": "first"}]},
            {"role": "system", "content": "# Environment\n - Primary working directory: /workspace\n - Shell: bash"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "Bash", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "old"}]},
            {"role": "assistant", "content": "done"},
            {"role": "user", "content": "second"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "b", "name": "Bash", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "new"}]},
                {"type": "text", "text": "<system-reminder>nor me</system-reminder>"}]},
            {"role": "assistant", "content": "on and"},
            {"role": "user", "content": "Output token limit hit. Resume directly"},
        ]}));
        assert_eq!(request.prompts, ["first", "second"]);
        assert_eq!(request.results, ["new"]);
        assert_eq!(request.working_directory, "/workspace");
        assert_eq!(request.purpose, Purpose::Main);
    }

    #[test]
    fn side_requests_are_told_from_the_conversation() {
        let billing = "x-anthropic-billing-header: cc_version=2.1.330.d21; cc_entrypoint=sdk-cli;";
        let user = json!([{"role": "user", "content": "hello"}]);
        for (purpose, body) in [
            (
                Purpose::Main,
                json!({"messages": user, "system": billing, "tools": [{"name": "Bash"}]}),
            ),
            (
                Purpose::Main,
                json!({"messages": user, "system": billing, "thinking": {"type": "adaptive"}}),
            ),
            (Purpose::Main, json!({"messages": user})),
            (Purpose::Side, json!({"messages": user, "system": billing})),
            (
                Purpose::Probe,
                json!({"messages": user, "system": billing, "max_tokens": 1}),
            ),
            (
                Purpose::Subagent,
                json!({"messages": user, "system": format!("{billing} cc_is_subagent=1;")}),
            ),
            (
                Purpose::Title,
                json!({"messages": user, "system": "You are naming a coding session", "output_config":
                {"format": {"schema": {"properties": {"title": {"type": "string"}}}}}}),
            ),
            (
                Purpose::Compaction,
                json!({"messages": [{"role": "user", "content": "CRITICAL: Respond with TEXT ONLY. Do"}]}),
            ),
        ] {
            assert_eq!(understood(&body).purpose, purpose, "{body}");
        }
    }
}
