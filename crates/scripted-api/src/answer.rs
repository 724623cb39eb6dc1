//! From a request to what is sent: all decisions, no sockets.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    frames,
    message::{events, message},
    refusal::{Headers, Refusal},
    request::{Provider, Purpose, Request, header},
    script::{Block, Fault, Turn},
};

/// Before a cut, so that what was sent leaves the machine first.
const FLUSH: Duration = Duration::from_millis(20);

/// What is sent.
pub(crate) enum Answer {
    /// All at once.
    Whole {
        status: u16,
        headers: Headers,
        body: Bytes,
        delay: Duration,
    },
    /// Step by step.
    Stream {
        headers: Headers,
        steps: Vec<Step>,
        delay: Duration,
    },
    /// Nothing, ever.
    Hang,
    /// Nothing; the connection ends.
    HangUp,
}

/// One step of a stream.
pub(crate) enum Step {
    Send(Bytes),
    Wait(Duration),
    Stall,
    Cut,
}

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Hello,
    Message {
        provider: Provider,
        stream: Option<bool>,
        model: Option<String>,
    },
    Count(Provider),
    Profiles,
}

impl Route {
    /// What is asked for; nothing where no provider has such a path.
    pub(crate) fn of(method: &str, path: &str) -> Option<Self> {
        let path = path.split('?').next().unwrap_or_default();
        match (method, path) {
            ("HEAD" | "GET", "/api/hello") => Some(Self::Hello),
            ("GET", "/inference-profiles") => Some(Self::Profiles),
            ("POST", "/v1/messages") => Some(Self::message(Provider::Anthropic, None, None)),
            ("POST", "/v1/messages/count_tokens") => Some(Self::Count(Provider::Anthropic)),
            ("POST", path) => Self::bedrock(path).or_else(|| Self::vertex(path)),
            _ => None,
        }
    }

    fn message(provider: Provider, stream: Option<bool>, model: Option<&str>) -> Self {
        Self::Message {
            provider,
            stream,
            model: model.map(|model| model.replace("%3A", ":")),
        }
    }

    fn bedrock(path: &str) -> Option<Self> {
        let (model, verb) = path.strip_prefix("/model/")?.split_once('/')?;
        let message = |stream| Self::message(Provider::Bedrock, Some(stream), Some(model));
        match verb {
            "invoke" => Some(message(false)),
            "invoke-with-response-stream" => Some(message(true)),
            "count-tokens" => Some(Self::Count(Provider::Bedrock)),
            _ => None,
        }
    }

    fn vertex(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix("/v1/projects/")?.split('/').collect();
        let [_, "locations", _, "publishers", "anthropic", "models", call] = parts[..] else {
            return None;
        };
        let (model, verb) = call.rsplit_once(':')?;
        match (model, verb) {
            ("count-tokens", "rawPredict") => Some(Self::Count(Provider::Vertex)),
            (_, "rawPredict") => Some(Self::message(Provider::Vertex, Some(false), Some(model))),
            (_, "streamRawPredict") => {
                Some(Self::message(Provider::Vertex, Some(true), Some(model)))
            }
            _ => None,
        }
    }

    pub(crate) fn provider(&self) -> Provider {
        match self {
            Self::Hello => Provider::Anthropic,
            Self::Profiles => Provider::Bedrock,
            Self::Message { provider, .. } | Self::Count(provider) => *provider,
        }
    }
}

/// The answer to what is no message.
pub(crate) fn aside(route: &Route, body_bytes: usize) -> Value {
    // About four bytes make a token.
    let tokens = body_bytes.div_ceil(4);
    match route {
        Route::Count(Provider::Bedrock) => json!({"inputTokens": tokens}),
        Route::Count(_) => json!({"input_tokens": tokens}),
        Route::Profiles => json!({"inferenceProfileSummaries": []}),
        Route::Hello | Route::Message { .. } => json!({"message": "hello"}),
    }
}

/// What the real API would refuse in a body, in its words: so that a proxy that damages requests does not go unseen.
pub(crate) fn check_body(
    provider: Provider,
    headers: &[(String, String)],
    body: &Value,
) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(400, message));
    if !body.is_object() {
        return invalid("The request body is not valid JSON");
    }
    match provider {
        Provider::Anthropic if header(headers, "anthropic-version").is_none() => {
            return invalid("anthropic-version: header is required");
        }
        Provider::Anthropic if !body["model"].is_string() => {
            return invalid("model: Field required");
        }
        Provider::Bedrock | Provider::Vertex if !body["anthropic_version"].is_string() => {
            return invalid("anthropic_version: Field required");
        }
        Provider::Anthropic | Provider::Bedrock | Provider::Vertex => {}
    }
    if !body["max_tokens"].is_u64() {
        return invalid("max_tokens: Field required");
    }
    check_messages(&body["messages"]).or_else(|message| invalid(&message))
}

fn check_messages(messages: &Value) -> Result<(), String> {
    let messages = messages.as_array().filter(|messages| !messages.is_empty());
    let mut calls: Vec<&str> = Vec::new();
    for (index, message) in messages
        .ok_or("messages: at least one message is required")?
        .iter()
        .enumerate()
    {
        if !matches!(
            message["role"].as_str(),
            Some("user" | "assistant" | "system")
        ) {
            return Err(format!("messages.{index}.role: unexpected role"));
        }
        for block in message["content"].as_array().into_iter().flatten() {
            match block["type"].as_str() {
                Some("tool_use") => calls.extend(block["id"].as_str()),
                Some("tool_result") => {
                    let id = block["tool_use_id"].as_str().unwrap_or_default();
                    if !calls.contains(&id) {
                        return Err(format!(
                            "messages.{index}: unexpected `tool_use_id` found in `tool_result` blocks: {id}"
                        ));
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// What a turn that is in no script says to requests beside the conversation.
pub(crate) fn aside_turn(purpose: Purpose) -> Option<Turn> {
    let text = match purpose {
        Purpose::Main => return None,
        Purpose::Title => r#"{"title": "Scripted session"}"#,
        Purpose::Probe => "scripted",
        Purpose::Compaction => "<summary>scripted: a summary of the conversation</summary>",
        Purpose::Subagent | Purpose::SideQuestion | Purpose::Side => {
            "scripted: nothing was written down for this request"
        }
    };
    Some(Turn::say([Block::text(text)]))
}

/// Who is answered, and with which names.
pub(crate) struct Addressee<'a> {
    pub request: &'a Request,
    pub label: &'a str,
    pub id: &'a str,
}

/// What a turn sends.
pub(crate) fn play(turn: &Turn, to: &Addressee<'_>) -> Answer {
    let delay = Duration::from_millis(turn.delay_ms);
    match &turn.fault {
        Some(Fault::Hang) => Answer::Hang,
        Some(Fault::HangUp) => Answer::HangUp,
        Some(Fault::Status {
            status,
            message,
            retry_after_seconds,
        }) => {
            let refusal = match message {
                Some(message) => Refusal::new(*status, message),
                None => Refusal::usual(*status),
            };
            refused(&refusal.retry_after(*retry_after_seconds), to, delay)
        }
        fault if to.request.stream => stream(turn, fault.as_ref(), to, delay),
        Some(Fault::Stall { .. }) => Answer::Hang,
        Some(Fault::Cut { .. }) => Answer::HangUp,
        Some(Fault::StreamError {
            error_type,
            message,
            ..
        }) => refused(&Refusal::of_type(error_type, message), to, delay),
        None => Answer::Whole {
            status: 200,
            headers: vec![("content-type", "application/json".to_owned())],
            body: Bytes::from(message(turn, to.request, to.label, to.id).to_string()),
            delay,
        },
    }
}

fn refused(refusal: &Refusal, to: &Addressee<'_>, delay: Duration) -> Answer {
    let (status, headers, body) = refusal.answer(to.request.provider, &format!("req_{}", to.id));
    Answer::Whole {
        status,
        headers,
        body,
        delay,
    }
}

fn stream(turn: &Turn, fault: Option<&Fault>, to: &Addressee<'_>, delay: Duration) -> Answer {
    let provider = to.request.provider;
    let message = message(turn, to.request, to.label, to.id);
    let mut events = events(&message);
    if provider == Provider::Bedrock {
        add_metrics(&mut events, &message);
    }
    let kept = match fault {
        Some(
            Fault::Stall { after_events }
            | Fault::Cut { after_events }
            | Fault::StreamError { after_events, .. },
        ) => *after_events,
        Some(Fault::Status { .. } | Fault::Hang | Fault::HangUp) | None => events.len(),
    };
    let mut steps = Vec::new();
    for event in events.iter().take(kept) {
        if turn.pace_ms > 0 && !steps.is_empty() {
            steps.push(Step::Wait(Duration::from_millis(turn.pace_ms)));
        }
        steps.push(Step::Send(frames::event(provider, event)));
    }
    match fault {
        Some(Fault::Stall { .. }) => steps.push(Step::Stall),
        Some(Fault::Cut { .. }) => steps.extend([Step::Wait(FLUSH), Step::Cut]),
        Some(Fault::StreamError {
            error_type,
            message,
            ..
        }) => {
            steps.push(Step::Send(frames::stream_error(
                provider, error_type, message,
            )));
        }
        Some(Fault::Status { .. } | Fault::Hang | Fault::HangUp) | None => {}
    }
    Answer::Stream {
        headers: stream_headers(provider),
        steps,
        delay,
    }
}

fn stream_headers(provider: Provider) -> Headers {
    match provider {
        Provider::Anthropic | Provider::Vertex => vec![
            (
                "content-type",
                "text/event-stream; charset=utf-8".to_owned(),
            ),
            ("cache-control", "no-cache".to_owned()),
        ],
        Provider::Bedrock => vec![
            (
                "content-type",
                "application/vnd.amazon.eventstream".to_owned(),
            ),
            ("x-amzn-bedrock-content-type", "application/json".to_owned()),
        ],
    }
}

/// Bedrock tells its own count in the last event.
fn add_metrics(events: &mut [Value], message: &Value) {
    if let Some(last) = events.last_mut() {
        last["amazon-bedrock-invocationMetrics"] = json!({
            "inputTokenCount": message["usage"]["input_tokens"],
            "outputTokenCount": message["usage"]["output_tokens"],
            "invocationLatency": 1,
            "firstByteLatency": 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_providers() {
        let message = |provider, stream, model| Some(Route::message(provider, stream, model));
        for (path, route) in [
            (
                "/v1/messages?beta=true",
                message(Provider::Anthropic, None, None),
            ),
            (
                "/model/us.anthropic.claude-sonnet-4-5-20250929-v1:0/invoke",
                message(
                    Provider::Bedrock,
                    Some(false),
                    Some("us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
                ),
            ),
            (
                "/model/m%3A0/invoke-with-response-stream",
                message(Provider::Bedrock, Some(true), Some("m:0")),
            ),
            (
                "/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-opus-5-5:streamRawPredict",
                message(Provider::Vertex, Some(true), Some("claude-opus-5-5")),
            ),
            (
                "/v1/projects/p/locations/us-east5/publishers/anthropic/models/count-tokens:rawPredict",
                Some(Route::Count(Provider::Vertex)),
            ),
            (
                "/v1/projects/p/locations/l/publishers/google/models/m:rawPredict",
                None,
            ),
            ("/v1/files", None),
        ] {
            assert_eq!(Route::of("POST", path), route, "{path}");
        }
        assert_eq!(Route::of("HEAD", "/api/hello"), Some(Route::Hello));
        assert_eq!(Route::of("GET", "/v1/messages"), None);
    }

    #[test]
    fn a_damaged_body_is_refused_as_the_real_api_does() {
        let version = [("anthropic-version".to_owned(), "2023-06-01".to_owned())];
        let good = json!({"model": "m", "max_tokens": 5, "messages": [
            {"role": "user", "content": "hello"}, {"role": "system", "content": "x"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a"}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}]});
        let check =
            |headers: &[_], body: &Value| check_body(Provider::Anthropic, headers, body).is_ok();
        assert!(check(&version, &good));
        assert!(!check(&[], &good), "without a version");
        assert!(!check(&version, &Value::Null));
        for (name, value) in [
            ("model", Value::Null),
            ("max_tokens", json!("5")),
            ("messages", json!([])),
            ("messages", json!([{"role": "tool", "content": "x"}])),
            (
                "messages",
                json!([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "b"}]}]),
            ),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            assert!(!check(&version, &bad), "{bad}");
        }
    }
}
