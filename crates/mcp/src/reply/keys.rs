//! Keys of remote callers in replies.

use serde::{Deserialize, Serialize};

/// A key: all but its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyReply {
    /// Which.
    pub key_id: String,
    /// What people call it.
    pub name: String,
    /// active, expired or revoked.
    pub state: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Directories below which its projects are; of a remote caller, by the names that it knows.
    pub roots: Vec<String>,
    /// Live sessions at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<u32>,
    /// Calls a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_minute: Option<u32>,
    /// The name under which its sessions are owned; it stays when the key is rotated.
    pub owner: String,
    /// When it was made.
    pub created_at: String,
    /// From when on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
    /// When it was last used, to a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<String>,
    /// The key that came in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
}

/// A key that was just made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewKeyReply {
    /// The key itself. It is shown this once and nowhere else.
    pub secret: String,
    /// The rest of it.
    pub key: KeyReply,
    /// The key in whose place it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<KeyReply>,
    /// One sentence: what this means.
    pub message: String,
}

/// A key that was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevokedKeyReply {
    /// As it stands now.
    pub key: KeyReply,
    /// Its sessions that were ended with it.
    pub destroyed_sessions: Vec<String>,
    /// Its sessions that live on, until their lifetime or idle time is over.
    pub sessions_left: u32,
    /// One sentence: what this means.
    pub message: String,
}

/// The keys on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyListReply {
    /// Oldest first, those that have ended included.
    pub keys: Vec<KeyReply>,
    /// One sentence: what this means.
    pub message: String,
}
