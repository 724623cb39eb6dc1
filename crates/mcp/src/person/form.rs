//! One question as a form, and what the filled-in form says.
//!
//! Tool, summary and input come from inside the sandbox: they are cleaned, bounded, and marked as the model's words, so
//! that they cannot pass for ours. A form has no default, so accepting one unread allows nothing.

use std::time::{Duration, UNIX_EPOCH};

use model::{
    ExecutionId, MAX_PERMISSION_INPUT_BYTES, NetworkQuestion, PendingKind, PendingPermission,
    PermissionAnswer, SessionId,
};
use rmcp::model::{ElicitRequestParams, ElicitResult, ElicitationAction};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Question, Takes};
use crate::{shape::timestamp, text};

/// Longest input or question in a form, bytes of clean text; as much as a reply shows.
const MAX_SHOWN_BYTES: usize = MAX_PERMISSION_INPUT_BYTES;
/// Longest words of a person, characters; what is longer is cut.
const MAX_WORDS_CHARACTERS: usize = 8192;
/// What Claude Code is told where a person gave no words.
const NO: &str = "The user said no.";

const ALLOW: &str = "allow once";
const ALLOW_LASTING: &str = "allow for this session";
const DENY: &str = "deny";

/// What a person filled in.
#[derive(Deserialize)]
struct Filled {
    decision: Option<String>,
    reason: Option<String>,
    answer: Option<String>,
}

/// The form for a question.
pub(super) fn of(execution: ExecutionId, question: &Question) -> Option<ElicitRequestParams> {
    let (message, schema) = match question {
        Question::Prompt(asked) => match asked.kind {
            PendingKind::Permission => (permission(execution, asked), decision()),
            PendingKind::Question => (words(execution, asked), answer()),
        },
        Question::Network(session, asked) => (network(*session, asked), lasting()),
    };
    // Made of parts that are known to fit; a form that does not is not shown.
    serde_json::from_value(json!({"mode": "form", "message": message, "requestedSchema": schema}))
        .ok()
}

/// What the filled-in form says; `None` for what is no answer.
pub(super) fn read(takes: Takes, result: &ElicitResult) -> Option<PermissionAnswer> {
    match (&result.action, takes) {
        (ElicitationAction::Accept, takes) => {
            let filled = serde_json::from_value(result.content.clone()?).ok()?;
            accepted(takes, filled)
        }
        (ElicitationAction::Decline | ElicitationAction::Cancel, Takes::Once | Takes::Lasting) => {
            Some(PermissionAnswer::Deny(NO.to_owned()))
        }
        (ElicitationAction::Decline | ElicitationAction::Cancel, Takes::Words) => Some(
            PermissionAnswer::Deny("The user gave no answer.".to_owned()),
        ),
        // An action of a later revision.
        _ => None,
    }
}

fn accepted(takes: Takes, filled: Filled) -> Option<PermissionAnswer> {
    let bounded = |words: String| words.chars().take(MAX_WORDS_CHARACTERS).collect::<String>();
    match (takes, filled.decision.as_deref()) {
        (Takes::Words, _) => filled.answer.map(bounded).map(PermissionAnswer::Words),
        (Takes::Once, Some(ALLOW)) | (Takes::Lasting, Some(ALLOW_LASTING)) => {
            Some(PermissionAnswer::Allow)
        }
        (Takes::Once | Takes::Lasting, Some(DENY)) => {
            let reason = filled
                .reason
                .map(bounded)
                .filter(|reason| !reason.trim().is_empty());
            Some(PermissionAnswer::Deny(
                reason.unwrap_or_else(|| NO.to_owned()),
            ))
        }
        (Takes::Once | Takes::Lasting, _) => None,
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
        until = until(question.denied_at_ms),
    )
}

/// The host comes from inside, but is a name of letters, digits, hyphens and dots, and one that the operator's rules have.
fn network(session: SessionId, question: &NetworkQuestion) -> String {
    format!(
        "Something in the sandbox wants to reach {target}, which your operator lets you allow. Until the session ends, \
         everything in it could then send data there and get data from there.\n\n\
         What runs inside chose this name: allow it only if you know it and the work needs it. No is for as long as the session \
         lives.\n\n\
         No answer by {until} leaves it refused. (session {session})",
        target = text::sentence(&question.target.to_string()),
        until = until(question.denied_at_ms),
    )
}

fn words(execution: ExecutionId, question: &PendingPermission) -> String {
    format!(
        "Claude Code asks you a question, in the words of the model:\n{summary}\n\n\
         Tell it no secrets. No answer by {until} is told to it as such. (execution {execution})",
        summary = quoted(&question.summary),
        until = until(question.denied_at_ms),
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

fn until(denied_at_ms: u64) -> String {
    // Whole seconds: nobody reads more.
    timestamp(UNIX_EPOCH + Duration::from_secs(denied_at_ms / 1000))
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

fn lasting() -> Value {
    json!({
        "type": "object",
        "properties": {
            "decision": {"type": "string", "title": "Decision", "enum": [ALLOW_LASTING, DENY]},
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
    use model::NetworkTarget;

    use super::*;

    fn question(kind: PendingKind, summary: &str, input: &str) -> Question {
        Question::Prompt(PendingPermission {
            id: "q".to_owned(),
            kind,
            tool: "Bash".to_owned(),
            summary: summary.to_owned(),
            input: input.to_owned(),
            denied_at_ms: 1_790_000_000_123,
        })
    }

    fn shown(question: &Question) -> Value {
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
            assert_eq!(read(Takes::Once, &result(text)), due, "{text}");
        }
    }

    #[test]
    fn a_question_takes_words() {
        let accepted = result(r#"{"action":"accept","content":{"answer":"8080"}}"#);
        let due = Some(PermissionAnswer::Words("8080".to_owned()));
        assert_eq!(read(Takes::Words, &accepted), due);
        let declined = read(Takes::Words, &result(r#"{"action":"decline"}"#));
        assert!(matches!(declined, Some(PermissionAnswer::Deny(_))));
        let other = result(r#"{"action":"accept","content":{"decision":"allow once"}}"#);
        assert_eq!(read(Takes::Words, &other), None);
    }

    #[test]
    fn a_network_question_says_where_to_and_takes_its_own_yes_alone() {
        let target = NetworkTarget {
            host: "registry.example.com".to_owned(),
            port: 8443,
        };
        let asked = NetworkQuestion {
            target,
            denied_at_ms: 1_790_000_000_123,
        };
        let form = shown(&Question::Network(SessionId::from_bytes([7; 16]), asked));
        let message = form["message"].as_str().unwrap();
        assert!(
            message.contains("reach registry.example.com:8443,"),
            "{message}"
        );
        assert!(message.contains("2026-09-21T14:13:20Z"), "{message}");
        let choices = &form["requestedSchema"]["properties"]["decision"]["enum"];
        assert_eq!(*choices, json!([ALLOW_LASTING, DENY]));
        let no = Some(PermissionAnswer::Deny(NO.to_owned()));
        for (text, due) in [
            (
                r#"{"action":"accept","content":{"decision":"allow for this session"}}"#,
                Some(PermissionAnswer::Allow),
            ),
            (
                r#"{"action":"accept","content":{"decision":"deny"}}"#,
                no.clone(),
            ),
            (r#"{"action":"decline"}"#, no.clone()),
            (r#"{"action":"cancel"}"#, no),
            // The yes to another question is none to this.
            (
                r#"{"action":"accept","content":{"decision":"allow once"}}"#,
                None,
            ),
            (r#"{"action":"accept","content":{}}"#, None),
            (r#"{"action":"accept"}"#, None),
        ] {
            assert_eq!(read(Takes::Lasting, &result(text)), due, "{text}");
        }
        let other =
            result(r#"{"action":"accept","content":{"decision":"allow for this session"}}"#);
        assert_eq!(read(Takes::Once, &other), None);
    }
}
