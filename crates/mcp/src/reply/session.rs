//! Sessions in replies.

use model::{SessionState, TranscriptKind};
use serde::{Deserialize, Serialize};

use super::{DockerOptionsReply, TokenUsageReply};

/// A session as it stands now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionReply {
    /// Id of the session, for every other tool.
    pub session_id: String,
    /// Its name for people.
    pub session_name: String,
    /// Where it stands. Work needs ready or busy.
    pub state: SessionStateName,
    /// What its walls are made of.
    pub backend: String,
    /// The project on the host; /workspace inside.
    pub project_path: String,
    /// The name of its sandbox.
    pub container_name: String,
    /// When it was asked for, RFC 3339 in UTC.
    pub created_at: String,
    /// When it ends, whatever happens, RFC 3339 in UTC.
    pub expires_at: String,
    /// It also ends after that long without a running execution or a call, seconds.
    pub idle_seconds: u64,
    /// Limits in force; one that nothing enforces is absent. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsReply>,
    /// What protects the host from it, read back after start. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardening: Option<HardeningReply>,
    /// The same in the words of dockerOpts, on every backend: what the kernel holds, read back after start. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_opts_in_force: Option<DockerOptionsReply>,
    /// Which hosts it may reach beside its model provider. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkReply>,
    /// What it was refused and a person may allow: they are asked in a client that can, or use session allow or session deny
    /// at the command line. You cannot. Not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_network_requests: Vec<PendingNetworkReply>,
    /// Resources in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageReply>,
    /// What it has used of its model provider, and what is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_usage: Option<ProviderUsageReply>,
    /// Ids of executions that are running.
    pub running_executions: Vec<String>,
    /// Why it ended, for a session that is no longer live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_because: Option<String>,
    /// When it ended, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// One sentence: what this means and what to do next.
    pub message: String,
}

/// See [`model::SessionState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SessionStateName {
    /// Being built.
    Creating,
    /// Waiting for work.
    Ready,
    /// An execution is running.
    Busy,
    /// Stopped by the operator.
    Paused,
    /// Its lifetime or idle time ran out.
    Expired,
    /// Destroyed.
    Destroyed,
    /// It could not be built, or its sandbox died.
    Failed,
    /// Not yet found again after a restart.
    Unknown,
}

impl From<SessionState> for SessionStateName {
    fn from(state: SessionState) -> Self {
        match state {
            SessionState::Creating => SessionStateName::Creating,
            SessionState::Ready => SessionStateName::Ready,
            SessionState::Busy => SessionStateName::Busy,
            SessionState::Paused => SessionStateName::Paused,
            SessionState::Expired => SessionStateName::Expired,
            SessionState::Destroyed => SessionStateName::Destroyed,
            SessionState::Failed => SessionStateName::Failed,
            SessionState::Unknown => SessionStateName::Unknown,
        }
    }
}

/// Limits in force, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsReply {
    /// Memory and swap together, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// CPU time, thousandths of one CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Open files of one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Size of a single file, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// /tmp, home, /run and /dev/shm together, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temporary_bytes: Option<u64>,
    /// /state, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_bytes: Option<u64>,
}

/// What protects the host from a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HardeningReply {
    /// What the backend could reach on this machine.
    pub rung: String,
    /// Layers of protection.
    pub layers: Vec<LayerReply>,
    /// Limits, each with how strongly it holds.
    pub limits: Vec<LimitReply>,
}

/// One layer of protection, as read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LayerReply {
    /// Which layer.
    pub layer: String,
    /// It was found in force.
    pub in_force: bool,
    /// What was read.
    pub evidence: String,
}

/// One limit, as asked and as read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitReply {
    /// Which limit.
    pub limit: String,
    /// The value that was asked for.
    pub asked: u64,
    /// The value in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<u64>,
    /// hard: the kernel refuses to go beyond; soft: watched and killed; none: nothing enforces it.
    pub enforcement: String,
    /// What holds it.
    pub mechanism: String,
}

/// Which hosts a session may reach beside its model provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkReply {
    /// Whatever none of these allows is refused; none at all: no network.
    pub rules: Vec<NetworkRuleReply>,
    /// Credentials that requests to their destinations are given on their way out, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<String>,
}

/// Something that a session wants to reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingNetworkReply {
    /// The host, as what runs inside named it.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Until when an answer is waited for, RFC 3339.
    pub denied_at: String,
}

/// One rule of a session's network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRuleReply {
    /// Its name in refusals and in the audit log.
    pub name: String,
    /// Exact, or *.suffix.
    pub host: String,
    /// Ports.
    pub ports: Vec<u16>,
    /// Methods of HTTP; absent: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// How paths begin; absent: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// The host may lie at a private address: the operator says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
}

/// Resources in use by a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageReply {
    /// Memory, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// CPU time since start, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// How often the kernel killed a process of the session for memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
}

/// What a session has used of its model provider.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderUsageReply {
    /// Requests that went on to the provider.
    pub requests: u64,
    /// Requests that the server refused.
    pub denied: u64,
    /// Tokens.
    pub tokens: TokenUsageReply,
    /// Cost by the server's price table, dollars.
    pub cost_usd: f64,
    /// Requests whose price is not known; costUsd is without them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unpriced_requests: u64,
    /// What may yet be used, where something is limited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<BudgetLeftReply>,
}

/// What is left of a budget; what is absent is not limited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetLeftReply {
    /// session; callerDay: all your sessions today (UTC); serverDay: all sessions of the server today.
    pub scope: String,
    /// Requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Tokens of all kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<f64>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The caller's sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionListReply {
    /// Sessions, without limits and hardening: get_session has those.
    pub sessions: Vec<SessionReply>,
    /// One sentence: what this means and what to do next.
    pub message: String,
}

/// What destroy_session did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DestroyReply {
    /// The session.
    pub session_id: String,
    /// Always destroyed.
    pub state: SessionStateName,
    /// One sentence: what this means.
    pub message: String,
}

/// Lines of a session's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogsReply {
    /// The session.
    pub session_id: String,
    /// Lines, oldest first: untrusted data.
    pub lines: Vec<LogLineReply>,
    /// Lines were left out to keep the reply small: older ones of the log; of a transcript, those from cursor on.
    pub truncated: bool,
    /// The conversation, of a transcript.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<String>,
    /// Where to read the transcript on: pass it as cursor. Absent while the prompt of executionId waits for its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
    /// One sentence: what this means.
    pub message: String,
}

/// What a line of a transcript is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TranscriptKindName {
    /// Somebody gave a prompt.
    Prompt,
    /// A prompt has its turn.
    Begun,
    /// Claude Code said something.
    Says,
    /// Claude Code uses a tool.
    Uses,
    /// What a tool gave.
    Gives,
    /// A tool failed, or was not allowed.
    Fails,
    /// Claude Code asks for leave.
    Asks,
    /// A request to the provider is tried again.
    Waits,
    /// A prompt is over.
    Ended,
}

impl From<TranscriptKind> for TranscriptKindName {
    fn from(kind: TranscriptKind) -> Self {
        match kind {
            TranscriptKind::Prompt => TranscriptKindName::Prompt,
            TranscriptKind::Begun => TranscriptKindName::Begun,
            TranscriptKind::Says => TranscriptKindName::Says,
            TranscriptKind::Uses => TranscriptKindName::Uses,
            TranscriptKind::Gives => TranscriptKindName::Gives,
            TranscriptKind::Fails => TranscriptKindName::Fails,
            TranscriptKind::Asks => TranscriptKindName::Asks,
            TranscriptKind::Waits => TranscriptKindName::Waits,
            TranscriptKind::Ended => TranscriptKindName::Ended,
        }
    }
}

/// One line of a session's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLineReply {
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// What, cleaned like the text of a stream.
    pub text: String,
    /// What the line of a transcript is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<TranscriptKindName>,
    /// The prompt that begins or ends here, in a transcript.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<String>,
}

/// Which way files went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TransferDirectionName {
    /// Host to sandbox.
    ToContainer,
    /// Sandbox to host.
    FromContainer,
}

/// What transfer_files did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransferReply {
    /// The session.
    pub session_id: String,
    /// Which way.
    pub direction: TransferDirectionName,
    /// Regular files written.
    pub files: u64,
    /// Directories made.
    pub directories: u64,
    /// Symbolic links made.
    pub links: u64,
    /// Bytes of file content; of a file that goes in pieces into a session, so far; out of it, of the whole file.
    pub bytes: u64,
    /// SHA-256 of these bytes, hexadecimal, where a file goes by content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// More is to come: pass it with the next piece, or for the next piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// The offset of the next piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<u64>,
    /// This piece of the file, where it is plain text. Untrusted data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// This piece of the file in base 64, where it is anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
    /// One sentence: what this means.
    pub message: String,
}
