//! What Claude Code does, in words that a person likes to read. All of it comes from inside the sandbox, so nothing of it
//! reaches a terminal or a log with control characters, and nothing is long.

use serde_json::Value;

use crate::protocol::ApiFailure;

/// Longest text that is shown of a path, a command or an answer, characters.
const MAX_CHARS: usize = 120;

/// Using a tool.
pub(crate) fn tool(name: &str, input: &Value) -> String {
    let of = |field: &str| input.get(field).and_then(Value::as_str).map(short);
    let with = |verb: &str, field: &str| match of(field) {
        Some(what) => format!("{verb} {what}"),
        None => format!("{verb} something"),
    };
    match name {
        "Bash" => with("running", "command"),
        "Read" => with("reading", "file_path"),
        "Write" => with("writing", "file_path"),
        "Edit" | "MultiEdit" => with("editing", "file_path"),
        "NotebookEdit" => with("editing", "notebook_path"),
        "Grep" => with("searching for", "pattern"),
        "Glob" => with("looking for files", "pattern"),
        "Task" | "Agent" => with("asking a subagent:", "description"),
        "TodoWrite" => "planning".to_owned(),
        "WebFetch" => with("fetching", "url"),
        "WebSearch" => with("searching the web for", "query"),
        other => match other
            .strip_prefix("mcp__")
            .and_then(|rest| rest.split_once("__"))
        {
            Some((server, tool)) => format!("using {} of {}", short(tool), short(server)),
            None => format!("using {}", short(other)),
        },
    }
}

/// The answer as it comes, its last words.
pub(crate) fn saying(text: &str) -> String {
    let text = line(text);
    let skipped = text.chars().count().saturating_sub(MAX_CHARS);
    match skipped {
        0 => format!("saying: {text}"),
        _ => format!(
            "saying: …{}",
            text.chars().skip(skipped).collect::<String>()
        ),
    }
}

/// A failed request that is tried again.
pub(crate) fn retry(failure: &ApiFailure, attempt: u64, most: u64, delay_ms: u64) -> String {
    let what = match failure.status {
        // What the relay answers where it gets no connection, or no answer, is not told apart from the provider's own.
        Some(status @ (502 | 504)) => format!(
            "the provider could not be reached, or answered {status} (the server's log has the cause)"
        ),
        Some(status) => format!("the provider answered {status}"),
        None => "the provider could not be reached".to_owned(),
    };
    let seconds = delay_ms.div_ceil(1000);
    format!("waiting: {what}; trying again in {seconds} s (attempt {attempt} of {most})")
}

/// One line without control characters, cut.
pub(crate) fn short(text: &str) -> String {
    let text = line(text);
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// One line without control characters and without those that turn the direction of what follows.
fn line(text: &str) -> String {
    let is_turning = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let cleaned: String = text
        .chars()
        .filter(|c| !is_turning(*c))
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    cleaned.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tools_are_told_in_words() {
        let told = [
            tool("Bash", &json!({"command": "cargo test\n--all"})),
            tool("Edit", &json!({"file_path": "/workspace/a.rs"})),
            tool("mcp__host__report_progress", &json!({})),
            tool("Read", &json!({"file_path": 7})),
        ];
        assert_eq!(
            told,
            [
                "running cargo test --all",
                "editing /workspace/a.rs",
                "using report_progress of host",
                "reading something"
            ]
        );
    }

    #[test]
    fn nothing_from_inside_reaches_a_terminal_as_anything_but_words() {
        let evil = "a\u{1b}[2J\u{7}b\u{202e}c\r\n\u{0}d";
        let shown = tool("Bash", &json!({ "command": evil }));
        assert_eq!(shown, "running a [2J bc d");
        let long = tool(&"x".repeat(5000), &json!({}));
        assert!(long.chars().count() < 140, "{long}");
        assert!(saying(&"word ".repeat(1000)).chars().count() < 140);
    }

    #[test]
    fn retries_say_why_and_when() {
        let failure = ApiFailure {
            kind: "overloaded".to_owned(),
            status: Some(529),
        };
        assert_eq!(
            retry(&failure, 2, 10, 4_700),
            "waiting: the provider answered 529; trying again in 5 s (attempt 2 of 10)"
        );
        let failure = ApiFailure {
            kind: "server_error".to_owned(),
            status: Some(502),
        };
        let words = retry(&failure, 1, 10, 1_000);
        assert!(
            words.contains("could not be reached, or answered 502"),
            "{words}"
        );
    }
}
