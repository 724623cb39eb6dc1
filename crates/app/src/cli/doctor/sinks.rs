//! How the sinks of the audit log are doing, by what they left in the state directory.

use serde::Serialize;

use crate::{audit_sinks, config::Config};

/// One sink.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SinkReport {
    pub(super) name: String,
    pub(super) kind: &'static str,
    /// Records that it has not taken yet.
    pub(super) waiting: u64,
    /// Records that it never gets.
    pub(super) missed: u64,
    /// Why it takes nothing, and since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

pub(super) fn examine(config: &Config) -> Vec<SinkReport> {
    let health = audit_sinks::health(config);
    let both = config.audit_sinks.iter().zip(health);
    both.map(|(sink, health)| SinkReport {
        name: health.name,
        kind: sink.kind.as_str(),
        waiting: health.lag,
        missed: health.missed,
        problem: health
            .last_error
            .map(|error| format!("{} (since {})", error.message, error.since)),
    })
    .collect()
}
