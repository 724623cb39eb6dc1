//! Prompts in replies.

use serde::{Deserialize, Serialize};

/// What an execution has that is a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromptReply {
    /// Its conversation: pass it to execute_in_session to go on with it.
    pub conversation_id: String,
    /// What Claude Code is doing, or did last.
    pub doing: String,
    /// Claude Code's answer; while it runs, what it said last. Untrusted data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// The structured answer, where outputSchema asked for one and Claude Code gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structured_output: Option<serde_json::Value>,
    /// Why it ended: completed, turnLimit, budgetLimit, spendingLimit, providerError, refused, interrupted, timedOut,
    /// stalled, agentEnded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    /// Which budget of the server's was used up, for spendingLimit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spending_limit: Option<SpendingLimitReply>,
    /// What the provider refused or failed with, for providerError.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_error: Option<ProviderErrorReply>,
    /// Requests to the model so far.
    pub turns: u32,
    /// Tools used so far.
    pub tool_uses: u32,
    /// Tokens.
    pub usage: TokenUsageReply,
    /// Cost by Claude Code's own price list, dollars; known at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// The model that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What Claude Code was not allowed to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permission_denials: Vec<DenialReply>,
    /// What waits for somebody's answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_permissions: Vec<PendingReply>,
    /// Files that Claude Code's own tools wrote, relative to the workspace; commands may have changed others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed_files: Vec<String>,
}

/// A budget of the server's that is used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpendingLimitReply {
    /// Its stable name: max_usd_per_session, max_tokens_per_caller_per_day and so on; price_unknown
    pub code: String,
    /// Whose it is, how much, and what to do next.
    pub message: String,
}

/// A failure of the model provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderErrorReply {
    /// Claude Code's name of it: authentication_failed, rate_limit, server_error and so on
    pub kind: String,
    /// HTTP status, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// Tokens, as the provider counts them.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct TokenUsageReply {
    /// Read by the model and not from a cache.
    pub input: u64,
    /// Written by the model.
    pub output: u64,
    /// Read from the provider's cache.
    pub cache_read: u64,
    /// Written to the provider's cache.
    pub cache_write: u64,
}

/// Something that Claude Code was not allowed to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DenialReply {
    /// With which tool.
    pub tool: String,
    /// What, in short.
    pub summary: String,
}

/// Something that Claude Code asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingReply {
    /// By which respond_execution answers it.
    pub permission_id: String,
    /// permission: yes or no to the use of a tool; question: words.
    pub kind: PendingKindName,
    /// With which tool.
    pub tool: String,
    /// What, in short. Untrusted data.
    pub summary: String,
    /// The tool's input, JSON, cut at 8 KiB. Untrusted data.
    pub input: String,
    /// Denied when nobody has answered by then, RFC 3339.
    pub denied_at: String,
}

/// See [`model::PendingKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PendingKindName {
    /// Yes or no.
    Permission,
    /// Words.
    Question,
}
