//! Records as their owner sees them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use egress::{Allowance, SessionRelay, Tokens, Used};
use model::{
    BudgetLeft, BudgetScope, ExecutionId, ProviderUsageView, SessionState, SessionView, TokenUsage,
    UsageView,
};
use store::SessionRecord;

use crate::network::NetworkRecord;

pub(crate) fn time(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(milliseconds)
}

pub(crate) fn milliseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// `running`: the executions of a session whose supervisor is at hand; `None` when it is not.
pub(crate) fn session(
    record: &SessionRecord,
    container_name: String,
    usage: Option<UsageView>,
    running: Option<Vec<ExecutionId>>,
) -> SessionView {
    let state = match (record.state, &running) {
        (SessionState::Ready, Some(running)) if !running.is_empty() => SessionState::Busy,
        (SessionState::Ready | SessionState::Busy, None) => SessionState::Unknown,
        (state, _) => state,
    };
    SessionView {
        id: record.id,
        name: record.name.clone(),
        state,
        backend: record.backend,
        project_path: record.project_path.clone(),
        container_name,
        created_at: time(record.created_at_ms),
        expires_at: time(record.expires_at_ms),
        idle_seconds: record.idle_ms / 1000,
        attestation: record
            .attestation
            .as_deref()
            .and_then(|json| serde_json::from_slice(json).ok()),
        network: NetworkRecord::of(record).map(|network| network.policy),
        network_questions: Vec::new(),
        usage,
        provider_usage: None,
        running_executions: running.unwrap_or_default(),
        ended_because: record.ended_because.clone(),
        ended_at: record.ended_at_ms.map(time),
    }
}

/// What a session has used of its provider until now, and what it may yet use.
pub(crate) fn provider_usage(relay: &SessionRelay) -> ProviderUsageView {
    let usage = relay.usage();
    let today = relay.left_today();
    let left = [
        (BudgetScope::Session, relay.left()),
        (BudgetScope::CallerDay, today.caller),
        (BudgetScope::ServerDay, today.server),
    ];
    ProviderUsageView {
        requests: usage.requests,
        denied: usage.denied,
        tokens: tokens(&usage.tokens),
        cost_micro_usd: usage.cost.micro_rounded_up(),
        unpriced_requests: usage.unpriced,
        left: left
            .into_iter()
            .filter(|(_, left)| left.is_limited())
            .map(|(scope, left)| budget_left(scope, &left))
            .collect(),
    }
}

/// What a session had used that is not at hand.
pub(crate) fn recorded_usage(used: &Used) -> ProviderUsageView {
    ProviderUsageView {
        requests: used.requests,
        denied: used.denied,
        tokens: tokens(&used.tokens),
        cost_micro_usd: used.cost.micro_rounded_up(),
        unpriced_requests: used.unpriced,
        left: Vec::new(),
    }
}

fn budget_left(scope: BudgetScope, left: &Allowance) -> BudgetLeft {
    BudgetLeft {
        scope,
        requests: left.requests,
        tokens: left.tokens,
        micro_usd: left.cost.map(|cost| cost.micro_rounded_down()),
    }
}

const fn tokens(tokens: &Tokens) -> TokenUsage {
    TokenUsage {
        input: tokens.input,
        output: tokens.output,
        cache_read: tokens.cache_read,
        cache_write: tokens.cache_creation,
    }
}
