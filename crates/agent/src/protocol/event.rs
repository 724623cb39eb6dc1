//! What Claude Code says. The sandbox writes it, so nothing that is taken from it is longer than what it is for: words are
//! cut, and what is compared or given back counts as absent where it is too long.

use model::TokenUsage;
use serde_json::{Map, Value};

/// Longest id, bytes: those of Claude Code are UUIDs and `toolu_` with 24 letters.
const MAX_ID_BYTES: usize = 256;
/// Longest name of a model, a tool, a kind or a status, bytes.
const MAX_NAME_BYTES: usize = 256;
/// Longest words of a failure, bytes.
const MAX_FAILURE_BYTES: usize = 4096;
/// Longest answer, in words or as JSON, bytes. A model writes at most 128,000 tokens at once.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Parts of one message or result that are looked at: blocks, results, denials, servers, models.
const MAX_PARTS: usize = 256;

/// One line of its output. Fields that are absent or of another type count as absent.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A turn begins.
    Init {
        /// The model that will be asked.
        model: Option<String>,
        /// The program's version.
        version: Option<String>,
        /// MCP servers and their status.
        mcp_servers: Vec<(String, String)>,
    },
    /// What the process as a whole does.
    State(State),
    /// What became of a user message.
    Lifecycle {
        /// The message's `uuid`.
        message: String,
        /// Where it stands.
        state: Lifecycle,
    },
    /// A piece of the model's answer as it comes.
    Delta(Delta),
    /// A part of the model's answer, complete.
    Assistant {
        /// What it holds.
        blocks: Vec<Block>,
        /// Which answer it is a part of.
        answer: Option<String>,
        /// It is a subagent's.
        of_subagent: bool,
        /// It is no answer but a failure of the provider.
        failure: Option<ApiFailure>,
    },
    /// Tools have ended.
    ToolResults(Vec<ToolResult>),
    /// A request to the provider failed and is tried again.
    Retry {
        /// Which attempt follows.
        attempt: u64,
        /// Of how many.
        most: u64,
        /// Pause before it, milliseconds.
        delay_ms: u64,
        /// The failure.
        failure: ApiFailure,
    },
    /// A turn, or a part of it, is over.
    Result(Box<TurnResult>),
    /// Claude Code asks something.
    Request {
        /// By which it is answered.
        id: String,
        /// What.
        ask: Ask,
    },
    /// Claude Code needs no answer to a request any more.
    Withdrawn {
        /// The request's id.
        id: String,
    },
    /// The answer to a request of ours; `Err` holds its words.
    Response {
        /// The request's id.
        id: String,
        /// The answer.
        result: Result<(), String>,
    },
    /// Anything else.
    Other,
    /// No JSON object.
    Garbage,
}

/// What the process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Works.
    Running,
    /// Waits for an answer of ours.
    RequiresAction,
    /// Waits for a message.
    Idle,
}

/// Where a user message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// Received.
    Queued,
    /// Its turn has begun.
    Started,
    /// Its turn is over.
    Completed,
    /// Its turn was interrupted.
    Cancelled,
}

/// A piece of the model's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// The answer begins.
    Begins,
    /// Words.
    Text(String),
    /// Anything in between: thinking, a tool's input.
    Goes,
    /// The answer has ended.
    Ends,
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// Words.
    Text(String),
    /// Thoughts.
    Thinking,
    /// A tool is used.
    ToolUse {
        /// Its id.
        id: String,
        /// The tool.
        name: String,
        /// Its input.
        input: Value,
    },
}

/// What a tool left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolResult {
    /// Which use of it.
    pub id: String,
    /// It failed, or was not allowed.
    pub is_error: bool,
}

/// A failure of the provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiFailure {
    /// Claude Code's name of it.
    pub kind: String,
    /// HTTP status.
    pub status: Option<u16>,
}

/// The end of a turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TurnResult {
    /// `success` also for failures of the provider.
    pub subtype: String,
    /// It failed.
    pub is_error: bool,
    /// The answer, or the words of a failure.
    pub text: Option<String>,
    /// Words of other failures.
    pub errors: Vec<String>,
    /// `completed`, `api_error`, `aborted_streaming`, `budget_exhausted`, …
    pub terminal_reason: Option<String>,
    /// Why the model's last answer ended: `end_turn`, `refusal`, …
    pub stop_reason: Option<String>,
    /// HTTP status of a failure of the provider.
    pub api_status: Option<u16>,
    /// Turns of the process so far.
    pub turns: u32,
    /// Cost of the conversation so far, dollars.
    pub total_cost_usd: Option<f64>,
    /// Tokens of this turn.
    pub usage: TokenUsage,
    /// The structured answer, JSON; `Err` for one over [`MAX_ANSWER_BYTES`].
    pub structured_output: Option<Result<String, TooLong>>,
    /// What was not allowed: tool and input.
    pub denials: Vec<(String, Value)>,
    /// Models that answered.
    pub models: Vec<String>,
}

/// It was longer than what is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// What Claude Code asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// May it use a tool?
    Permission {
        /// Which.
        tool: String,
        /// With which input.
        input: Value,
        /// Which use of it.
        tool_use: Option<String>,
    },
    /// A message for an MCP server of ours.
    Mcp {
        /// Which server.
        server: String,
        /// JSON-RPC.
        message: Value,
    },
    /// Something that this program does not serve.
    Other(String),
}

/// Reads one line.
pub fn parse(line: &[u8]) -> Event {
    let Ok(Value::Object(event)) = serde_json::from_slice(line) else {
        return Event::Garbage;
    };
    match text(&event, "type") {
        Some("system") => system(&event),
        Some("command_lifecycle") => lifecycle(&event).unwrap_or(Event::Other),
        Some("stream_event") => delta(&event).map_or(Event::Other, Event::Delta),
        Some("assistant") => assistant(&event),
        Some("user") => tool_results(&event),
        Some("result") => Event::Result(Box::new(result(&event))),
        Some("control_request") => request(&event).unwrap_or(Event::Other),
        Some("control_cancel_request") => {
            id(&event, "request_id").map_or(Event::Other, |id| Event::Withdrawn { id })
        }
        Some("control_response") => response(&event).unwrap_or(Event::Other),
        _ => Event::Other,
    }
}

fn system(event: &Map<String, Value>) -> Event {
    match text(event, "subtype") {
        Some("init") => Event::Init {
            model: name(event, "model"),
            version: name(event, "claude_code_version"),
            mcp_servers: list(event, "mcp_servers")
                .filter_map(Value::as_object)
                .filter_map(|server| Some((name(server, "name")?, name(server, "status")?)))
                .collect(),
        },
        Some("session_state_changed") => match text(event, "state") {
            Some("running") => Event::State(State::Running),
            Some("requires_action") => Event::State(State::RequiresAction),
            Some("idle") => Event::State(State::Idle),
            _ => Event::Other,
        },
        Some("api_retry") => Event::Retry {
            attempt: number(event, "attempt"),
            most: number(event, "max_retries"),
            delay_ms: number(event, "retry_delay_ms"),
            failure: ApiFailure {
                kind: name(event, "error").unwrap_or_default(),
                status: status(event, "error_status"),
            },
        },
        _ => Event::Other,
    }
}

fn lifecycle(event: &Map<String, Value>) -> Option<Event> {
    let state = match text(event, "state")? {
        "queued" => Lifecycle::Queued,
        "started" => Lifecycle::Started,
        "completed" => Lifecycle::Completed,
        "cancelled" => Lifecycle::Cancelled,
        _ => return None,
    };
    Some(Event::Lifecycle {
        message: id(event, "command_uuid")?,
        state,
    })
}

fn delta(event: &Map<String, Value>) -> Option<Delta> {
    let event = event.get("event")?.as_object()?;
    Some(match text(event, "type")? {
        "message_start" => Delta::Begins,
        "message_stop" => Delta::Ends,
        "content_block_delta" => {
            let delta = event.get("delta")?.as_object()?;
            match text(delta, "text") {
                Some(words) => Delta::Text(words.to_owned()),
                None => Delta::Goes,
            }
        }
        _ => Delta::Goes,
    })
}

fn assistant(event: &Map<String, Value>) -> Event {
    let message = event.get("message").and_then(Value::as_object);
    let blocks = message
        .into_iter()
        .flat_map(|message| list(message, "content"));
    let failure = name(event, "error").map(|kind| ApiFailure {
        kind,
        status: status(event, "api_error_status"),
    });
    Event::Assistant {
        answer: message.and_then(|message| id(message, "id")),
        blocks: blocks.filter_map(block).collect(),
        of_subagent: text(event, "parent_tool_use_id").is_some(),
        failure,
    }
}

fn block(block: &Value) -> Option<Block> {
    let block = block.as_object()?;
    Some(match text(block, "type")? {
        "text" => Block::Text(cut(text(block, "text")?, MAX_ANSWER_BYTES)),
        "thinking" | "redacted_thinking" => Block::Thinking,
        "tool_use" => Block::ToolUse {
            id: id(block, "id")?,
            name: name(block, "name")?,
            input: block.get("input").cloned().unwrap_or_default(),
        },
        _ => return None,
    })
}

fn tool_results(event: &Map<String, Value>) -> Event {
    let message = event.get("message").and_then(Value::as_object);
    let results: Vec<ToolResult> = message
        .into_iter()
        .flat_map(|message| list(message, "content"))
        .filter_map(Value::as_object)
        .filter_map(|block| {
            Some(ToolResult {
                id: id(block, "tool_use_id")?,
                is_error: flag(block, "is_error"),
            })
        })
        .collect();
    match results.is_empty() {
        true => Event::Other,
        false => Event::ToolResults(results),
    }
}

fn result(event: &Map<String, Value>) -> TurnResult {
    let usage = event.get("usage").and_then(Value::as_object);
    let models = event.get("modelUsage").and_then(Value::as_object);
    TurnResult {
        subtype: name(event, "subtype").unwrap_or_default(),
        is_error: flag(event, "is_error"),
        text: text(event, "result").map(|text| cut(text, MAX_ANSWER_BYTES)),
        errors: list(event, "errors")
            .filter_map(|error| error.as_str().map(|error| cut(error, MAX_FAILURE_BYTES)))
            .collect(),
        terminal_reason: name(event, "terminal_reason"),
        stop_reason: name(event, "stop_reason"),
        api_status: status(event, "api_error_status"),
        turns: u32::try_from(number(event, "num_turns")).unwrap_or(u32::MAX),
        total_cost_usd: event.get("total_cost_usd").and_then(Value::as_f64),
        usage: usage.map(tokens).unwrap_or_default(),
        structured_output: event
            .get("structured_output")
            .filter(|value| !value.is_null())
            .map(|value| {
                let json = value.to_string();
                (json.len() <= MAX_ANSWER_BYTES)
                    .then_some(json)
                    .ok_or(TooLong)
            }),
        denials: list(event, "permission_denials")
            .filter_map(Value::as_object)
            .filter_map(|denial| {
                let input = denial.get("tool_input").cloned().unwrap_or_default();
                Some((name(denial, "tool_name")?, input))
            })
            .collect(),
        models: models
            .into_iter()
            .flat_map(|models| models.keys().map(|model| cut(model, MAX_NAME_BYTES)))
            .take(MAX_PARTS)
            .collect(),
    }
}

fn tokens(usage: &Map<String, Value>) -> TokenUsage {
    TokenUsage {
        input: number(usage, "input_tokens"),
        output: number(usage, "output_tokens"),
        cache_read: number(usage, "cache_read_input_tokens"),
        cache_write: number(usage, "cache_creation_input_tokens"),
    }
}

fn request(event: &Map<String, Value>) -> Option<Event> {
    let request = event.get("request")?.as_object()?;
    let ask = match text(request, "subtype")? {
        "can_use_tool" => Ask::Permission {
            tool: name(request, "tool_name")?,
            input: request.get("input").cloned().unwrap_or_default(),
            tool_use: id(request, "tool_use_id"),
        },
        "mcp_message" => Ask::Mcp {
            server: name(request, "server_name")?,
            message: request.get("message")?.clone(),
        },
        other => Ask::Other(cut(other, MAX_NAME_BYTES)),
    };
    Some(Event::Request {
        id: id(event, "request_id")?,
        ask,
    })
}

fn response(event: &Map<String, Value>) -> Option<Event> {
    let response = event.get("response")?.as_object()?;
    let result = match text(response, "subtype")? {
        "success" => Ok(()),
        _ => Err(cut(
            text(response, "error").unwrap_or_default(),
            MAX_FAILURE_BYTES,
        )),
    };
    Some(Event::Response {
        id: id(response, "request_id")?,
        result,
    })
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

/// What is compared or given back: cut, it would be another one.
fn id(object: &Map<String, Value>, field: &str) -> Option<String> {
    text(object, field)
        .filter(|id| id.len() <= MAX_ID_BYTES)
        .map(str::to_owned)
}

fn name(object: &Map<String, Value>, field: &str) -> Option<String> {
    text(object, field).map(|name| cut(name, MAX_NAME_BYTES))
}

fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

fn flag(object: &Map<String, Value>, name: &str) -> bool {
    object
        .get(name)
        .and_then(Value::as_bool)
        .unwrap_or_default()
}

fn number(object: &Map<String, Value>, name: &str) -> u64 {
    object.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn status(object: &Map<String, Value>, name: &str) -> Option<u16> {
    u16::try_from(object.get(name)?.as_u64()?).ok()
}

fn list<'a>(object: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Value> {
    object
        .get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .take(MAX_PARTS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> Event {
        parse(line.as_bytes())
    }

    #[test]
    fn events_are_read_as_they_were_seen() {
        assert_eq!(
            read(
                r#"{"session_id":"s","type":"system","subtype":"session_state_changed","state":"idle"}"#
            ),
            Event::State(State::Idle)
        );
        assert_eq!(
            read(r#"{"type":"command_lifecycle","command_uuid":"u","state":"started"}"#),
            Event::Lifecycle {
                message: "u".to_owned(),
                state: Lifecycle::Started
            }
        );
        assert_eq!(
            read(
                r#"{"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}}"#
            ),
            Event::Delta(Delta::Text("hi".to_owned()))
        );
        let Event::Assistant {
            blocks, failure, ..
        } = read(
            r#"{"type":"assistant","message":{"content":[{"type":"text","text":"API Error"}]},"error":"rate_limit","api_error_status":429,"parent_tool_use_id":null}"#,
        )
        else {
            panic!("not an answer");
        };
        assert_eq!(blocks, [Block::Text("API Error".to_owned())]);
        assert_eq!(
            failure,
            Some(ApiFailure {
                kind: "rate_limit".to_owned(),
                status: Some(429)
            })
        );
    }

    #[test]
    fn a_result_is_read_with_its_money_and_its_denials() {
        let Event::Result(result) = read(
            r#"{"type":"result","subtype":"success","is_error":false,"result":"done","num_turns":2,"total_cost_usd":0.0016,"terminal_reason":"completed","usage":{"input_tokens":200,"output_tokens":40,"cache_read_input_tokens":3,"cache_creation_input_tokens":4},"modelUsage":{"claude-opus-5-5":{}},"permission_denials":[{"tool_name":"Write","tool_use_id":"t","tool_input":{"file_path":"/etc/x"}}]}"#,
        ) else {
            panic!("not a result");
        };
        assert_eq!((result.text.as_deref(), result.turns), (Some("done"), 2));
        assert_eq!(result.usage.cache_write, 4);
        assert_eq!(result.denials[0].0, "Write");
        assert_eq!(result.models, ["claude-opus-5-5"]);
    }

    #[test]
    fn words_are_cut_and_ids_are_whole_or_absent() {
        let long = "ä".repeat(2 << 20);
        let Event::Result(result) = read(&format!(
            r#"{{"type":"result","result":"{long}","errors":["{long}"],"subtype":"{long}","structured_output":"{long}"}}"#
        )) else {
            panic!("not a result");
        };
        assert_eq!(result.text.map(|text| text.len()), Some(MAX_ANSWER_BYTES));
        assert_eq!(result.errors[0].len(), MAX_FAILURE_BYTES);
        assert_eq!(result.subtype.len(), MAX_NAME_BYTES);
        assert_eq!(result.structured_output, Some(Err(TooLong)));
        let request = |id: &str| {
            read(&format!(
                r#"{{"type":"control_request","request_id":"{id}","request":{{"subtype":"x"}}}}"#
            ))
        };
        assert!(matches!(request("r"), Event::Request { .. }));
        assert_eq!(request(&long), Event::Other);
    }

    #[test]
    fn a_request_can_be_withdrawn() {
        assert_eq!(
            read(r#"{"type":"control_cancel_request","request_id":"r"}"#),
            Event::Withdrawn { id: "r".to_owned() }
        );
    }

    #[test]
    fn what_is_unknown_or_of_another_type_is_not_an_error() {
        for line in [
            r#"{"type":"new_thing"}"#,
            r#"{"type":7}"#,
            r#"{"type":"system","subtype":{}}"#,
            r#"{"type":"stream_event","event":[]}"#,
            r#"{"type":"control_request","request_id":"r","request":"x"}"#,
            r#"{}"#,
        ] {
            assert_eq!(read(line), Event::Other, "{line}");
        }
        for line in [
            "",
            "null",
            "[]",
            "{",
            "\u{0}",
            "{\"type\":\"result\"} trailing",
        ] {
            assert_eq!(read(line), Event::Garbage, "{line}");
        }
        assert_eq!(parse(&[0xff, 0xfe]), Event::Garbage);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(kind in "system|result|assistant|user|stream_event|control_request|control_response|command_lifecycle", field in "[a-z_]{1,12}", value in "[\\PC]{0,30}") {
            let line = format!("{{\"type\":\"{kind}\",\"{field}\":{value}}}");
            let _ = parse(line.as_bytes());
            let line = serde_json::json!({"type": kind, field: value, "message": {"content": [value]}, "request": {"subtype": value}});
            let _ = parse(line.to_string().as_bytes());
        }
    }
}
