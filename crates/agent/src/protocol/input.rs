//! What is said to Claude Code: complete lines, newline included.

use model::PermissionAnswer;
use serde_json::{Value, json};

/// What the person asks. Events about it carry the `uuid`.
pub fn user_message(uuid: &str, text: &str) -> Vec<u8> {
    line(&json!({
        "type": "user",
        "message": {"role": "user", "content": text},
        "parent_tool_use_id": null,
        "uuid": uuid,
    }))
}

/// The first request of a process: which MCP servers are served over the pipe.
pub fn initialize(request: &str, servers: &[&str]) -> Vec<u8> {
    request_line(
        request,
        &json!({"subtype": "initialize", "hooks": null, "sdkMcpServers": servers}),
    )
}

/// Ends the turn; the process goes on.
pub fn interrupt(request: &str) -> Vec<u8> {
    request_line(request, &json!({"subtype": "interrupt"}))
}

/// Answers a permission request. `input` is the tool's input as it was asked for.
pub fn answer_permission(request: &str, answer: &PermissionAnswer, input: &Value) -> Vec<u8> {
    let response = match answer {
        PermissionAnswer::Allow => json!({"behavior": "allow", "updatedInput": input}),
        PermissionAnswer::Deny(message) | PermissionAnswer::Words(message) => {
            json!({"behavior": "deny", "message": message})
        }
    };
    response_line(request, &response)
}

/// Answers a message of an MCP client with a JSON-RPC message.
pub fn answer_mcp(request: &str, message: &Value) -> Vec<u8> {
    response_line(request, &json!({"mcp_response": message}))
}

/// Answers a request that is not served.
pub fn refuse_request(request: &str, why: &str) -> Vec<u8> {
    line(&json!({
        "type": "control_response",
        "response": {"subtype": "error", "request_id": request, "error": why},
    }))
}

fn request_line(id: &str, request: &Value) -> Vec<u8> {
    line(&json!({"type": "control_request", "request_id": id, "request": request}))
}

fn response_line(id: &str, response: &Value) -> Vec<u8> {
    line(&json!({
        "type": "control_response",
        "response": {"subtype": "success", "request_id": id, "response": response},
    }))
}

/// JSON never holds a bare newline, so one object is one line.
fn line(message: &Value) -> Vec<u8> {
    let mut line = message.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_person_writes_is_one_line_of_json() {
        for text in ["", "a\nb\r\n\u{2028}\u{0}\"}\\", "\u{1b}[2J", "🦀"] {
            let said = user_message("u", text);
            assert_eq!(said.iter().filter(|byte| **byte == b'\n').count(), 1);
            let read: Value = serde_json::from_slice(&said).unwrap();
            assert_eq!(read["message"]["content"], text);
        }
    }
}
