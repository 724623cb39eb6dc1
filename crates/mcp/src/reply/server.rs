//! The server in replies.

use serde::{Deserialize, Serialize};

use super::ErrorBody;

/// What the server is and can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerInfoReply {
    /// Version of the server.
    pub version: String,
    /// How the server stands towards the machine: embedded-root or embedded-rootless.
    pub posture: String,
    /// The backend that new sessions get.
    pub backend: String,
    /// What that backend reaches on this machine, and what it lacks.
    pub rung: String,
    /// Runtime classes that create_session takes on an engine, the default first; empty where there is no choice.
    pub runtime_classes: Vec<String>,
    /// The Claude Code that new sessions find at `/opt/claude-code/claude` and on their PATH; where there is none, why, and
    /// what the operator can do.
    pub claude_code: String,
    /// Live sessions.
    pub sessions: u32,
    /// Live sessions at most.
    pub max_sessions: u32,
    /// Your own live sessions.
    pub own_sessions: u32,
    /// Your own live sessions at most, where that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_own_sessions: Option<u32>,
    /// Live sessions on one project at most, where that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sessions_per_project: Option<u32>,
    /// Your calls a minute at most; rate_limited with retryAfterMs beyond. Ending things is never limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_calls_per_minute: Option<u32>,
    /// New sessions a minute at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_creates_per_minute: Option<u32>,
    /// How long create_session waits for a place when there is none, seconds.
    pub queue_wait_seconds: u64,
    /// Lifetime of a session that names none, seconds.
    pub default_session_timeout_seconds: u64,
    /// Longest lifetime that a session can be given or extended to, seconds.
    pub max_session_seconds: u64,
    /// Presets that create_session takes in network.
    pub network_presets: Vec<String>,
    /// What create_session takes in network.allow: these, and whatever is narrower.
    pub network_allow: Vec<String>,
    /// What every session reaches unasked.
    pub network_default: Vec<String>,
    /// Credentials that create_session takes in network.credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_credentials: Vec<String>,
    /// Why execute_in_session is refused in a session that brings no credential of a model provider; absent where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts_refused: Option<ErrorBody>,
    /// The audit log is in working order; nothing is changed while it is not.
    pub audit_ok: bool,
    /// What the operator should know, a sentence each.
    pub warnings: Vec<String>,
    /// One sentence: what this means.
    pub message: String,
}
