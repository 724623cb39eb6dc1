//! Records as their owner sees them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{ExecutionId, SessionState, SessionView, UsageView};
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
        usage,
        running_executions: running.unwrap_or_default(),
        ended_because: record.ended_because.clone(),
    }
}
