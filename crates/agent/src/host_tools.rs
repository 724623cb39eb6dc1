//! Tools of the host that Claude Code finds in every session, over the pipe that it is driven by: a small MCP server, since
//! a session has no network to reach one by. Pure.

use serde_json::{Value, json};

/// The server's name; its tools are `mcp__host__…` for Claude Code.
pub(crate) const SERVER: &str = "host";
/// Revision that is spoken when the client names none.
const REVISION: &str = "2025-11-25";
/// JSON-RPC: no such method, and invalid parameters.
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;

/// What becomes of a message.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// It is answered with this.
    Now(Value),
    /// The words are shown, then it is answered.
    Progress(String, Value),
    /// Somebody must answer first.
    Question(String),
}

/// Answers a JSON-RPC message; notifications, too, since the pipe wants an answer for each.
pub(crate) fn answer(message: &Value) -> Answer {
    let method = message["method"].as_str().unwrap_or_default();
    match method {
        "initialize" => Answer::Now(result(
            message,
            json!({
                "protocolVersion": message["params"]["protocolVersion"].as_str().unwrap_or(REVISION),
                "capabilities": {"tools": {}},
                "serverInfo": {"name": SERVER, "version": env!("CARGO_PKG_VERSION")},
            }),
        )),
        "tools/list" => Answer::Now(result(message, json!({ "tools": tools() }))),
        "tools/call" => call(message),
        "ping" => Answer::Now(result(message, json!({}))),
        _ if message.get("id").is_none() => {
            Answer::Now(json!({"jsonrpc": "2.0", "id": 0, "result": {}}))
        }
        _ => Answer::Now(failure(message, METHOD_NOT_FOUND, "no such method")),
    }
}

/// The answer to a call whose question was answered; `Err` holds why it was not.
pub(crate) fn answered(message: &Value, words: Result<&str, &str>) -> Value {
    let (text, is_error) = match words {
        Ok(words) => (words, false),
        Err(why) => (why, true),
    };
    result(
        message,
        json!({"content": [{"type": "text", "text": text}], "isError": is_error}),
    )
}

fn call(message: &Value) -> Answer {
    let words = |field: &str| {
        message["params"]["arguments"][field]
            .as_str()
            .map(str::to_owned)
    };
    let missing = || Answer::Now(failure(message, INVALID_PARAMS, "an argument is missing"));
    match message["params"]["name"].as_str() {
        Some("report_progress") => match words("text") {
            Some(text) => Answer::Progress(text, answered(message, Ok("shown"))),
            None => missing(),
        },
        Some("ask_caller") => words("question").map_or_else(missing, Answer::Question),
        _ => Answer::Now(failure(message, INVALID_PARAMS, "no such tool")),
    }
}

fn tools() -> Value {
    let tool = |name: &str, description: &str, field: &str, about: &str| {
        json!({
            "name": name,
            "description": description,
            "inputSchema": {
                "type": "object",
                "properties": {field: {"type": "string", "description": about}},
                "required": [field],
                "additionalProperties": false,
            },
        })
    };
    json!([
        tool(
            "report_progress",
            "Tells whoever waits for this work what you are doing, in one short sentence. Returns at once.",
            "text",
            "One sentence.",
        ),
        tool(
            "ask_caller",
            "Asks whoever gave you this work a question and waits for the answer. Ask only what you cannot find out or decide \
             yourself; nobody may be there, then the call fails after some minutes and you go on by your own judgement.",
            "question",
            "The question, with all that is needed to answer it.",
        ),
    ])
}

fn result(message: &Value, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": message["id"], "result": result})
}

fn failure(message: &Value, code: i64, words: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": code, "message": words}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call_of(name: &str, arguments: Value) -> Value {
        json!({"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {"name": name, "arguments": arguments}})
    }

    #[test]
    fn every_listed_tool_can_be_called() {
        let Answer::Now(listed) = answer(&json!({"id": 1, "method": "tools/list"})) else {
            panic!("not answered");
        };
        for tool in listed["result"]["tools"].as_array().unwrap() {
            let field = tool["inputSchema"]["required"][0].as_str().unwrap();
            let called = answer(&call_of(
                tool["name"].as_str().unwrap(),
                json!({field: "words"}),
            ));
            match called {
                Answer::Progress(words, reply) => {
                    assert_eq!((words.as_str(), &reply["id"]), ("words", &json!(4)));
                }
                Answer::Question(words) => assert_eq!(words, "words"),
                Answer::Now(reply) => panic!("{reply}"),
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_an_error_of_the_protocol() {
        for message in [
            call_of("rm_rf", json!({})),
            call_of("ask_caller", json!({"question": 7})),
            json!({"id": 9, "method": "resources/list"}),
        ] {
            let Answer::Now(reply) = answer(&message) else {
                panic!("served: {message}");
            };
            assert!(reply["error"]["code"].is_i64(), "{reply}");
            assert_eq!(reply["id"], message["id"]);
        }
    }
}
