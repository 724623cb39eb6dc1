//! What Claude Code asks: shown, and on a terminal answered.

use std::io::{self, BufRead, IsTerminal, Write};

use mcp::reply::{PendingKindName, PendingReply, RespondReply};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::cli::{CliError, client::Client};

/// Longest input of a tool that is shown before a decision, characters; `session approve` shows all of it.
const MAX_SHOWN_CHARACTERS: usize = 600;

/// What a person typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Typed {
    /// An answer.
    Answer(Value),
    /// Nothing that can be taken for one.
    Unclear,
}

/// Lines that a person types, where there is one.
pub(super) struct Person {
    lines: Option<mpsc::UnboundedReceiver<String>>,
}

impl Person {
    /// Only a terminal on both sides is a person.
    pub(super) fn is_there() -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    pub(super) const fn new() -> Self {
        Person { lines: None }
    }

    /// Forgets what was typed before the question stood there: it cannot be meant for it.
    pub(super) fn forget_typed(&mut self) {
        // Only a terminal has such a queue.
        let _ = rustix::termios::tcflush(
            rustix::stdio::stdin(),
            rustix::termios::QueueSelector::IFlush,
        );
        while let Some(Ok(_)) = self.lines.as_mut().map(mpsc::UnboundedReceiver::try_recv) {}
    }

    /// The next line; never, when standard input has ended. Nothing is lost when the wait is given up.
    pub(super) async fn line(&mut self) -> String {
        let lines = self.lines.get_or_insert_with(read_lines);
        match lines.recv().await {
            Some(line) => line,
            None => std::future::pending().await,
        }
    }
}

/// The thread stays behind: nothing can interrupt its read.
fn read_lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// What waits, in words for a person.
pub(in crate::cli) fn describe(pending: &PendingReply) -> String {
    let mut shown: String = pending.input.chars().take(MAX_SHOWN_CHARACTERS).collect();
    if shown.len() < pending.input.len() {
        shown.push('…');
    }
    let what = match pending.kind {
        PendingKindName::Permission => "asks for leave to use",
        PendingKindName::Question => "asks, by",
    };
    format!(
        "Claude Code {what} {}: {}\n  {shown}\n  permission {}, denied when nobody has answered by {}",
        pending.tool, pending.summary, pending.permission_id, pending.denied_at
    )
}

/// Shows it to the person at the terminal.
pub(super) fn put(pending: &PendingReply) {
    let asked = match pending.kind {
        PendingKindName::Permission => "Allow it? [y/n] ",
        PendingKindName::Question => "Your answer: ",
    };
    let mut out = io::stderr();
    // Nobody to ask when standard error is closed.
    let _ = write!(out, "\n{}\n{asked}", describe(pending));
    let _ = out.flush();
}

/// Reads an answer to that.
pub(super) fn typed(pending: &PendingReply, line: &str) -> Typed {
    let line = line.trim();
    match (pending.kind, line.to_ascii_lowercase().as_str()) {
        (_, "") => Typed::Unclear,
        (PendingKindName::Question, _) => Typed::Answer(json!({ "answer": line })),
        (PendingKindName::Permission, "y" | "yes") => Typed::Answer(json!({ "allow": true })),
        (PendingKindName::Permission, "n" | "no") => Typed::Answer(json!({ "allow": false })),
        (PendingKindName::Permission, _) => Typed::Unclear,
    }
}

/// Hands an answer on: `allow`, `answer` or both in `answer`.
pub(in crate::cli) async fn answer(
    client: &Client,
    execution_id: &str,
    permission_id: &str,
    mut answer: Value,
) -> Result<RespondReply, CliError> {
    answer["executionId"] = json!(execution_id);
    answer["permissionId"] = json!(permission_id);
    client.ask("respond_execution", answer).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(kind: PendingKindName) -> PendingReply {
        PendingReply {
            permission_id: "p-1".to_owned(),
            kind,
            tool: "Bash".to_owned(),
            summary: "running rm -r build".to_owned(),
            input: "x".repeat(5000),
            denied_at: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    #[test]
    fn only_a_clear_yes_allows() {
        let permission = pending(PendingKindName::Permission);
        for yes in ["y", " Yes ", "YES"] {
            assert_eq!(
                typed(&permission, yes),
                Typed::Answer(json!({ "allow": true })),
                "{yes}"
            );
        }
        for no in ["n", "No"] {
            assert_eq!(
                typed(&permission, no),
                Typed::Answer(json!({ "allow": false })),
                "{no}"
            );
        }
        for unclear in ["", "  ", "yep", "ja", "y n", "true"] {
            assert_eq!(typed(&permission, unclear), Typed::Unclear, "{unclear:?}");
        }
        let question = pending(PendingKindName::Question);
        assert_eq!(
            typed(&question, " blue "),
            Typed::Answer(json!({ "answer": "blue" }))
        );
        assert_eq!(typed(&question, ""), Typed::Unclear);
        assert!(describe(&permission).len() < 1000);
    }
}
