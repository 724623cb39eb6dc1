//! How a prompt ended: the answer on standard output, what it took on standard error, and an exit code.

use std::fmt::Write as _;

use mcp::reply::{ExecutionReply, PromptReply};

use super::{Ended, of_prompt};
use crate::cli::{
    CliError, Context, EXIT_AGENT_ENDED, EXIT_BUDGET_LIMIT, EXIT_MODEL_REFUSED, EXIT_OK,
    EXIT_PROVIDER_ERROR, EXIT_SIGNAL_BASE, EXIT_STALLED, EXIT_TIMED_OUT, EXIT_TURN_LIMIT,
    door::worded, output::note,
};
use crate::config::units::counted;

/// Changed files that are listed; `--json` has all.
const MAX_LISTED_FILES: usize = 50;
/// Signal that a cancel stands for, as Ctrl-C sends it.
const SIGINT: u8 = 2;

/// The exit code for that end; the table stands in the help.
pub(in crate::cli) fn exit_code(prompt: &PromptReply) -> u8 {
    match prompt.stop.as_deref() {
        Some("completed") => EXIT_OK,
        Some("providerError") => EXIT_PROVIDER_ERROR,
        Some("refused") => EXIT_MODEL_REFUSED,
        Some("turnLimit") => EXIT_TURN_LIMIT,
        Some("budgetLimit" | "spendingLimit") => EXIT_BUDGET_LIMIT,
        Some("stalled") => EXIT_STALLED,
        Some("timedOut") => EXIT_TIMED_OUT,
        Some("interrupted") => EXIT_SIGNAL_BASE + SIGINT,
        // `agentEnded`, and what a newer server may say.
        Some(_) | None => EXIT_AGENT_ENDED,
    }
}

/// Prints it, and gives the exit code.
pub(in crate::cli) fn report(context: &Context, ended: &Ended) -> Result<u8, CliError> {
    let prompt = of_prompt(&ended.reply)?;
    let code = exit_code(prompt);
    if context.output.json {
        context.output.json(&ended.content)?;
        return Ok(code);
    }
    let has_answer = matches!(
        prompt.stop.as_deref(),
        Some("completed" | "turnLimit" | "budgetLimit")
    );
    match (&prompt.result, has_answer) {
        (Some(answer), true) => context.output.line(answer)?,
        (Some(words), false) => note(words),
        (None, _) => {}
    }
    for line in notes(&ended.reply, prompt) {
        note(&worded(&line));
    }
    Ok(code)
}

fn notes(reply: &ExecutionReply, prompt: &PromptReply) -> Vec<String> {
    let mut notes = vec![reply.message.clone()];
    notes.extend(reply.failure.clone());
    if let Some(error) = &prompt.provider_error {
        let status = error.status.map(|status| format!(", HTTP {status}"));
        notes.push(format!(
            "provider: {}{}",
            error.kind,
            status.unwrap_or_default()
        ));
    }
    notes.push(spent(prompt));
    for denial in &prompt.permission_denials {
        notes.push(format!("not allowed: {}: {}", denial.tool, denial.summary));
    }
    let files = &prompt.changed_files;
    if !files.is_empty() {
        let listed = files.iter().take(MAX_LISTED_FILES);
        let mut text = "changed files:".to_owned();
        for file in listed {
            // Writing to a string does not fail.
            let _ = write!(text, "\n  {file}");
        }
        if files.len() > MAX_LISTED_FILES {
            let _ = write!(text, "\n  and {} more", files.len() - MAX_LISTED_FILES);
        }
        notes.push(text);
    }
    for change in &reply.protected_changes {
        let moved = change
            .moved_to
            .as_ref()
            .map(|to| format!(", moved to {to}"));
        notes.push(format!(
            "your machine would execute or trust {}: {}{}",
            change.path,
            change.reason,
            moved.unwrap_or_default()
        ));
    }
    notes
}

/// What it took. Where Claude Code was ended from outside it has not told its tokens, and zeros would be untrue.
fn spent(prompt: &PromptReply) -> String {
    let usage = &prompt.usage;
    let is_told = usage.input + usage.output + usage.cache_read + usage.cache_write > 0;
    let mut text = format!(
        "{} to {}, {} of tools",
        counted(prompt.turns.into(), "request"),
        prompt.model.as_deref().unwrap_or("the model"),
        counted(prompt.tool_uses.into(), "use"),
    );
    if is_told {
        let _ = write!(
            text,
            ", {} in ({} from the cache, {} into it), {} out",
            counted(usage.input + usage.cache_read + usage.cache_write, "token"),
            usage.cache_read,
            usage.cache_write,
            usage.output
        );
    }
    if let Some(cost) = prompt.cost_usd {
        let _ = write!(text, ", ${cost:.4}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_exit_code_and_none_but_success_is_zero() {
        let code = |stop: Option<&str>| {
            exit_code(&PromptReply {
                conversation_id: String::new(),
                doing: String::new(),
                result: None,
                structured_output: None,
                stop: stop.map(str::to_owned),
                provider_error: None,
                spending_limit: None,
                turns: 0,
                tool_uses: 0,
                usage: mcp::reply::TokenUsageReply {
                    input: 0,
                    output: 0,
                    cache_read: 0,
                    cache_write: 0,
                },
                cost_usd: None,
                model: None,
                permission_denials: Vec::new(),
                pending_permissions: Vec::new(),
                changed_files: Vec::new(),
            })
        };
        let ends = [
            ("completed", 0),
            ("providerError", 3),
            ("refused", 4),
            ("turnLimit", 5),
            ("budgetLimit", 6),
            ("spendingLimit", 6),
            ("stalled", 7),
            ("timedOut", 124),
            ("agentEnded", 125),
            ("interrupted", 130),
            ("of a newer server", 125),
        ];
        for (stop, expected) in ends {
            assert_eq!(code(Some(stop)), expected, "{stop}");
        }
        assert_eq!(code(None), 125);
    }
}
