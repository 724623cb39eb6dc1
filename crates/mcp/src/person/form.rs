//! One question as a form, and what the filled-in form says.
//!
//! Tool, summary and input come from inside the sandbox: they are cleaned, bounded, and marked as the model's words, so
//! that they cannot pass for ours. A form has no default, so accepting one unread allows nothing.

use std::time::{Duration, UNIX_EPOCH};

use model::{
    ExecutionId, MAX_PERMISSION_INPUT_BYTES, PendingKind, PendingPermission, PermissionAnswer,
};
use rmcp::model::{ElicitRequestParams, ElicitResult, ElicitationAction};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{shape::timestamp, text};

/// Longest input or question in a form, bytes of clean text; as much as a reply shows.
const MAX_SHOWN_BYTES: usize = MAX_PERMISSION_INPUT_BYTES;
/// Longest words of a person, characters; what is longer is cut.
const MAX_WORDS_CHARACTERS: usize = 8192;
/// What Claude Code is told where a person gave no words.
const NO: &str = "The user said no.";

const ALLOW: &str = "allow once";
const DENY: &str = "deny";

/// What a person filled in.
#[derive(Deserialize)]
struct Filled {
    decision: Option<String>,
    reason: Option<String>,
    answer: Option<String>,
}

/// The form for a question.
pub(super) fn of(
    execution: ExecutionId,
    question: &PendingPermission,
) -> Option<ElicitRequestParams> {
    let (message, schema) = match question.kind {
        PendingKind::Permission => (permission(execution, question), decision()),
        PendingKind::Question => (words(execution, question), answer()),
    };
    // Made of parts that are known to fit; a form that does not is not shown.
    serde_json::from_value(json!({"mode": "form", "message": message, "requestedSchema": schema}))
        .ok()
}

/// What the filled-in form says; `None` for what is no answer.
pub(super) fn read(kind: PendingKind, result: &ElicitResult) -> Option<PermissionAnswer> {
    match (&result.action, kind) {
        (ElicitationAction::Accept, kind) => {
            let filled = serde_json::from_value(result.content.clone()?).ok()?;
            accepted(kind, filled)
        }
        (ElicitationAction::Decline | ElicitationAction::Cancel, PendingKind::Permission) => {
            Some(PermissionAnswer::Deny(NO.to_owned()))
        }
        (ElicitationAction::Decline | ElicitationAction::Cancel, PendingKind::Question) => Some(
            PermissionAnswer::Deny("The user gave no answer.".to_owned()),
        ),
        // An action of a later revision.
        _ => None,
    }
}

fn accepted(kind: PendingKind, filled: Filled) -> Option<PermissionAnswer> {
    let bounded = |words: String| words.chars().take(MAX_WORDS_CHARACTERS).collect::<String>();
    match (kind, filled.decision.as_deref()) {
        (PendingKind::Question, _) => filled.answer.map(bounded).map(PermissionAnswer::Words),
        (PendingKind::Permission, Some(ALLOW)) => Some(PermissionAnswer::Allow),
        (PendingKind::Permission, Some(DENY)) => {
            let reason = filled
                .reason
                .map(bounded)
                .filter(|reason| !reason.trim().is_empty());
            Some(PermissionAnswer::Deny(
                reason.unwrap_or_else(|| NO.to_owned()),
            ))
        }
        (PendingKind::Permission, _) => None,
    }
}

fn permission(execution: ExecutionId, question: &PendingPermission) -> String {
    format!(
        "Claude Code asks for your permission to use the tool {tool}, once, in its sandbox: {summary}\n\n\
         Input of the tool, in the words of the model:\n{input}\n\n\
         No answer by {until} denies it. (execution {execution})",
        tool = text::name(&question.tool),
        summary = text::sentence(&question.summary),
        input = quoted(&question.input),
        until = until(question),
    )
}

fn words(execution: ExecutionId, question: &PendingPermission) -> String {
    format!(
        "Claude Code asks you a question, in the words of the model:\n{summary}\n\n\
         Tell it no secrets. No answer by {until} is told to it as such. (execution {execution})",
        summary = quoted(&question.summary),
        until = until(question),
    )
}

/// Clean text, each line marked, and a word where it is not all.
fn quoted(words: &str) -> String {
    let shown = text::head(words.as_bytes(), MAX_SHOWN_BYTES, true);
    let mut quoted: String = shown
        .text
        .lines()
        .map(|line| format!("> {line}\n"))
        .collect();
    // What is as long as it may be was cut, but for at most three bytes of a character.
    if shown.full || words.len() + 4 > MAX_PERMISSION_INPUT_BYTES {
        quoted.push_str(
            "It is longer than what is shown here. Deny it when you need to see all of it.",
        );
    }
    quoted.trim_end().to_owned()
}

fn until(question: &PendingPermission) -> String {
    // Whole seconds: nobody reads more.
    timestamp(UNIX_EPOCH + Duration::from_secs(question.denied_at_ms / 1000))
}

fn decision() -> Value {
    json!({
        "type": "object",
        "properties": {
            "decision": {"type": "string", "title": "Decision", "enum": [ALLOW, DENY]},
            "reason": {
                "type": "string", "title": "Reason", "maxLength": MAX_WORDS_CHARACTERS,
                "description": "When you deny it: words for Claude Code, such as what to do instead",
            },
        },
        "required": ["decision"],
    })
}

fn answer() -> Value {
    json!({
        "type": "object",
        "properties": {"answer": {"type": "string", "title": "Answer", "maxLength": MAX_WORDS_CHARACTERS}},
        "required": ["answer"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(kind: PendingKind, summary: &str, input: &str) -> PendingPermission {
        PendingPermission {
            id: "q".to_owned(),
            kind,
            tool: "Bash".to_owned(),
            summary: summary.to_owned(),
            input: input.to_owned(),
            denied_at_ms: 1_790_000_000_123,
        }
    }

    fn shown(question: &PendingPermission) -> Value {
        let form = of(ExecutionId::from_bytes([0xcd; 16]), question).unwrap();
        serde_json::to_value(form).unwrap()
    }

    fn result(text: &str) -> ElicitResult {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_form_says_what_is_asked_and_until_when() {
        let form = shown(&question(
            PendingKind::Permission,
            "running make",
            r#"{"command":"make"}"#,
        ));
        let message = "Claude Code asks for your permission to use the tool Bash, once, in its sandbox: running make\n\n\
            Input of the tool, in the words of the model:\n> {\"command\":\"make\"}\n\n\
            No answer by 2026-09-21T14:13:20Z denies it. (execution x-cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd)";
        assert_eq!(form["message"], json!(message));
        assert_eq!(
            form["requestedSchema"]["properties"]["decision"]["enum"],
            json!([ALLOW, DENY])
        );
        assert_eq!(form["requestedSchema"]["required"], json!(["decision"]));
        let form = shown(&question(PendingKind::Question, "Which\nport?", "{}"));
        let message = form["message"].as_str().unwrap();
        assert!(message.contains("> Which\n> port?\n"), "{message}");
        assert_eq!(form["requestedSchema"]["required"], json!(["answer"]));
    }

    #[test]
    fn words_of_the_model_cannot_pass_for_ours_nor_be_endless() {
        let evil = "a\u{1b}[2J\u{202e}\n\nThis was approved.\u{0}";
        let form = shown(&question(PendingKind::Question, evil, "{}"));
        let message = form["message"].as_str().unwrap();
        assert!(
            message.contains("> a\\u{202e}\n> \n> This was approved.\\u{0}\n"),
            "{message}"
        );
        let long = shown(&question(
            PendingKind::Permission,
            "running x",
            &" ".repeat(MAX_PERMISSION_INPUT_BYTES),
        ));
        let message = long["message"].as_str().unwrap();
        assert!(message.contains("longer than what is shown"), "{message}");
        assert!(message.len() < MAX_PERMISSION_INPUT_BYTES + 1024);
    }

    #[test]
    fn only_a_clear_yes_allows() {
        let table = [
            (
                r#"{"action":"accept","content":{"decision":"allow once"}}"#,
                Some(PermissionAnswer::Allow),
            ),
            (
                r#"{"action":"accept","content":{"decision":"deny","reason":"use make"}}"#,
                Some(PermissionAnswer::Deny("use make".to_owned())),
            ),
            (
                r#"{"action":"accept","content":{"decision":"deny","reason":" "}}"#,
                Some(PermissionAnswer::Deny(NO.to_owned())),
            ),
            (
                r#"{"action":"decline"}"#,
                Some(PermissionAnswer::Deny(NO.to_owned())),
            ),
            (
                r#"{"action":"cancel","content":{"decision":"allow once"}}"#,
                Some(PermissionAnswer::Deny(NO.to_owned())),
            ),
            (r#"{"action":"accept"}"#, None),
            (r#"{"action":"accept","content":{}}"#, None),
            (r#"{"action":"accept","content":{"decision":true}}"#, None),
            (
                r#"{"action":"accept","content":{"decision":"allow"}}"#,
                None,
            ),
            (r#"{"action":"accept","content":{"answer":"yes"}}"#, None),
        ];
        for (text, due) in table {
            assert_eq!(read(PendingKind::Permission, &result(text)), due, "{text}");
        }
    }

    #[test]
    fn a_question_takes_words() {
        let accepted = result(r#"{"action":"accept","content":{"answer":"8080"}}"#);
        let due = Some(PermissionAnswer::Words("8080".to_owned()));
        assert_eq!(read(PendingKind::Question, &accepted), due);
        let declined = read(PendingKind::Question, &result(r#"{"action":"decline"}"#));
        assert!(matches!(declined, Some(PermissionAnswer::Deny(_))));
        let other = result(r#"{"action":"accept","content":{"decision":"allow once"}}"#);
        assert_eq!(read(PendingKind::Question, &other), None);
    }
}
