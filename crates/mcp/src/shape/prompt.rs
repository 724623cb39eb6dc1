//! Prompts in replies.

use std::time::{Duration, UNIX_EPOCH};

use model::{
    ExecutionState, ExecutionView, PendingKind, PendingPermission, PromptStop, PromptView,
    TokenUsage,
};

use serde_json::Value;

use super::{
    execution::{Observed, execution},
    session::timestamp,
};
use crate::{
    reply::{
        DenialReply, ExecutionKind, ExecutionReply, PendingKindName, PendingReply, PromptReply,
        ProviderErrorReply, SpendingLimitReply, TokenUsageReply,
    },
    text,
};

/// Longest answer in a reply, bytes; the transcript has all of it.
const MAX_RESULT_BYTES: usize = 64 * 1024;

/// Longest structured answer in a reply, bytes: half of one is none.
const MAX_STRUCTURED_BYTES: usize = 64 * 1024;

/// The reply for an execution of either kind.
pub(crate) fn of(observed: &Observed) -> ExecutionReply {
    let newest = observed.last.as_ref().unwrap_or(&observed.first);
    match newest.prompt {
        Some(_) => prompt(newest),
        None => execution(observed),
    }
}

/// The reply for an execution that is a prompt.
pub(crate) fn prompt(view: &ExecutionView) -> ExecutionReply {
    let mut reply = execution(&Observed {
        first: view.clone(),
        last: None,
        paged: false,
    });
    if let Some(prompt) = &view.prompt {
        reply.kind = ExecutionKind::Prompt;
        reply.message = message(view, prompt);
        reply.prompt = Some(details(prompt));
    }
    reply
}

fn details(view: &PromptView) -> PromptReply {
    let provider_error = match &view.stop {
        Some(PromptStop::Provider { kind, status }) => Some(ProviderErrorReply {
            kind: text::sentence(kind),
            status: *status,
        }),
        _ => None,
    };
    let spending_limit = match &view.stop {
        Some(PromptStop::SpendingLimit { code, why }) => Some(SpendingLimitReply {
            code: text::sentence(code),
            message: text::sentence(why),
        }),
        _ => None,
    };
    PromptReply {
        spending_limit,
        conversation_id: view.conversation.to_string(),
        doing: text::sentence(&view.doing),
        result: view
            .result
            .as_deref()
            .map(|result| block(result, MAX_RESULT_BYTES)),
        structured_output: view.structured_output.as_deref().and_then(structured),
        stop: view.stop.as_ref().map(|stop| stop.as_str().to_owned()),
        provider_error,
        turns: view.turns,
        tool_uses: view.tool_uses,
        usage: tokens(&view.usage),
        cost_usd: view.cost_micro_usd.map(|micro| micro as f64 / 1e6),
        model: view.model.as_deref().map(text::sentence),
        permission_denials: view
            .denials
            .iter()
            .map(|denial| DenialReply {
                tool: text::sentence(&denial.tool),
                summary: text::sentence(&denial.summary),
            })
            .collect(),
        pending_permissions: view.pending.iter().map(pending).collect(),
        changed_files: view
            .changed_files
            .iter()
            .map(|path| text::sentence(&path.to_string_lossy()))
            .collect(),
    }
}

pub(super) const fn tokens(usage: &TokenUsage) -> TokenUsageReply {
    TokenUsageReply {
        input: usage.input,
        output: usage.output,
        cache_read: usage.cache_read,
        cache_write: usage.cache_write,
    }
}

fn pending(pending: &PendingPermission) -> PendingReply {
    let denied_at = UNIX_EPOCH + Duration::from_millis(pending.denied_at_ms);
    PendingReply {
        permission_id: text::sentence(&pending.id),
        kind: match pending.kind {
            PendingKind::Permission => PendingKindName::Permission,
            PendingKind::Question => PendingKindName::Question,
        },
        tool: text::sentence(&pending.tool),
        summary: block(&pending.summary, model::MAX_PERMISSION_INPUT_BYTES),
        input: block(&pending.input, model::MAX_PERMISSION_INPUT_BYTES),
        denied_at: timestamp(denied_at),
    }
}

/// A structured answer whose texts are clean, unless it is too long.
fn structured(json: &str) -> Option<Value> {
    let is_short = json.len() <= MAX_STRUCTURED_BYTES;
    is_short.then(|| serde_json::from_str(json).ok().map(clean))?
}

/// As deep as the reader of JSON lets it be.
fn clean(value: Value) -> Value {
    let text = |text: &str| block(text, MAX_STRUCTURED_BYTES);
    match value {
        Value::String(words) => Value::String(text(&words)),
        Value::Array(items) => items.into_iter().map(clean).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (text(&name), clean(value)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// Clean text of several lines, cut.
fn block(text: &str, limit: usize) -> String {
    text::head(text.as_bytes(), limit, true).text
}

fn message(view: &ExecutionView, prompt: &PromptView) -> String {
    let id = view.id;
    let took = format!("after {:.1} s", view.duration_ms as f64 / 1000.0);
    let mut message = match (view.state, &prompt.stop) {
        (ExecutionState::Queued, _) => format!(
            "Another prompt has its turn; call get_execution with executionId {id} to go on waiting."
        ),
        (ExecutionState::Running, _) if !prompt.pending.is_empty() => {
            "Claude Code waits for an answer: see pendingPermissions, and tell your user."
                .to_owned()
        }
        (ExecutionState::Running, _) => format!(
            "Claude Code is at work {took}; call get_execution with executionId {id} to go on waiting, or cancel_execution to end it."
        ),
        (_, Some(PromptStop::Completed)) => format!("Claude Code was done {took}."),
        (_, Some(PromptStop::TurnLimit)) => {
            format!("It stopped {took}: maxTurns was reached. Another prompt goes on.")
        }
        (_, Some(PromptStop::BudgetLimit)) => {
            format!("It stopped {took}: maxBudgetUsd was reached. Another prompt goes on.")
        }
        (_, Some(PromptStop::SpendingLimit { why, .. })) => {
            format!("A budget of the server's stopped it {took}: {why}.")
        }
        (_, Some(PromptStop::Provider { kind, .. })) if kind == "authentication_failed" => format!(
            "The model provider refused the server's credential {took}: the operator corrects it where the server is \
             started (ANTHROPIC_API_KEY, api_key_file, or Bedrock's or Vertex's); nothing can be done inside the session."
        ),
        (_, Some(PromptStop::Provider { .. })) => format!(
            "The model provider refused or failed {took}; result has its words, providerError its kind."
        ),
        (_, Some(PromptStop::Refused)) => {
            format!("The model gave no answer {took}; result has its words.")
        }
        (_, Some(PromptStop::Interrupted)) => {
            format!("It was cancelled {took}; the conversation can be gone on with.")
        }
        (_, Some(PromptStop::TimedOut)) => {
            format!("It was ended {took} because its timeoutSeconds were over.")
        }
        (_, Some(PromptStop::Stalled)) => {
            format!("It was ended {took}: nothing came from the model for too long.")
        }
        (_, Some(PromptStop::AgentEnded) | None) => format!("It failed {took}; failure says why."),
    };
    let structured_bytes = prompt.structured_output.as_ref().map_or(0, String::len);
    if structured_bytes > MAX_STRUCTURED_BYTES {
        message.push_str(&format!(
            " Its structured answer is left out, being longer than {} KiB: ask for less, or for a file.",
            MAX_STRUCTURED_BYTES / 1024
        ));
    }
    let changes = view.protected_changes.len();
    if changes > 0 {
        message.push_str(&format!(
            " It touched {changes} paths that the host would execute or trust: see protectedChanges and tell the user."
        ));
    }
    message
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_structured_answer_is_clean_and_whole_or_absent() {
        let evil = json!({"a\u{1b}[2Jb": ["x\u{202e}y", 3, {"n": null}]});
        let shown = structured(&evil.to_string());
        assert_eq!(shown, Some(json!({"ab": ["x\\u{202e}y", 3, {"n": null}]})));
        let long = json!("x".repeat(MAX_STRUCTURED_BYTES)).to_string();
        assert_eq!(structured(&long), None);
    }
}
