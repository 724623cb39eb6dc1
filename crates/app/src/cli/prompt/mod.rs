//! One prompt on the command line: its words, what Claude Code does with it while it does it, what it asks, how it ended.
//! `run`, `session prompt`, `session attach` and `demo` are made of this.
//!
//! Reading order: [`Follower`] (from the start to the end), `teller` (what a person sees meanwhile), `questions` (what is
//! asked on a terminal), `report` (how it ended, and the exit code that says so), `words` (where a prompt comes from).

mod follow;
mod interrupts;
mod questions;
mod report;
mod teller;
mod words;

pub(super) use follow::{Follower, OnInterrupt};
pub(super) use interrupts::Interrupts;
pub(super) use questions::{Asking, Person, answer, describe};
pub(super) use report::report;
pub(super) use teller::{Look, Teller};
pub(super) use words::words;

use mcp::reply::{ExecutionReply, PromptReply};
use serde_json::{Value, json};

use super::{CliError, arguments::PromptArguments};

/// How a prompt ended, as `get_execution` says it.
pub(super) struct Ended {
    /// As it came.
    pub(super) content: Value,
    /// As it is read.
    pub(super) reply: ExecutionReply,
}

/// The arguments of `execute_in_session` that do not wait.
pub(super) fn order(session_id: &str, words: &str, arguments: &PromptArguments) -> Value {
    json!({
        "sessionId": session_id,
        "prompt": words,
        "model": arguments.model,
        "maxTurns": arguments.max_turns,
        "maxBudgetUsd": arguments.max_budget_usd,
        "timeoutSeconds": arguments.timeout.map(|timeout| timeout.as_secs().max(1)),
        "waitSeconds": 0,
    })
}

/// What an execution has that is a prompt.
pub(super) fn of_prompt(reply: &ExecutionReply) -> Result<&PromptReply, CliError> {
    reply.prompt.as_ref().ok_or_else(|| {
        CliError::Conversation(anyhow::anyhow!("{} is no prompt", reply.execution_id))
    })
}
