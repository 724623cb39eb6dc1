//! What a prompt is, and what its reader gets to see of it.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Secret, SessionId};

/// A conversation with Claude Code: a UUID of version 4, in the usual form with hyphens, as Claude Code itself names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConversationId([u8; 16]);

/// A text that is no conversation id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a valid conversation id: expected a UUID such as 6f1f9a52-5e8d-4c37-9b0e-0a4cf2b7d911"
)]
pub struct ConversationIdError;

/// Where the hyphens stand: before these bytes.
const HYPHENS: [usize; 4] = [4, 6, 8, 10];

impl ConversationId {
    /// A new random one.
    ///
    /// # Errors
    /// When the kernel gives no random bytes (it does, once booted).
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        // RFC 9562, section 5.4.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(ConversationId(bytes))
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if HYPHENS.contains(&index) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ConversationId {
    type Err = ConversationIdError;

    fn from_str(text: &str) -> Result<Self, ConversationIdError> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        let mut bytes = [0; 16];
        if digits.len() != 32 {
            return Err(ConversationIdError);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| ConversationIdError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| ConversationIdError)?;
        }
        let id = ConversationId(bytes);
        // One text for one conversation: no other place of hyphens, no capitals, no sign that a number may have.
        (id.to_string() == text)
            .then_some(id)
            .ok_or(ConversationIdError)
    }
}

impl TryFrom<String> for ConversationId {
    type Error = ConversationIdError;

    fn try_from(text: String) -> Result<Self, ConversationIdError> {
        text.parse()
    }
}

impl From<ConversationId> for String {
    fn from(id: ConversationId) -> String {
        id.to_string()
    }
}

/// What Claude Code is to be in a session.
#[derive(Debug, Clone, Default)]
pub struct AgentRequest {
    /// Nothing is allowed to Claude Code but what a person or a rule of the operator allows. Otherwise all is, and the
    /// sandbox is the wall.
    pub strict_permissions: bool,
    /// Further MCP servers, which run inside: a JSON object of Claude Code's `mcpServers`.
    pub mcp_servers: Option<String>,
    /// Which model provider, and as whom.
    pub provider: ProviderRequest,
}

/// What a caller says about the model provider; what is absent is the server's.
#[derive(Debug, Clone, Default)]
pub struct ProviderRequest {
    /// A key of the first party.
    pub api_key: Option<Secret<String>>,
    /// Amazon Bedrock instead.
    pub use_bedrock: Option<bool>,
    /// Its region.
    pub aws_region: Option<String>,
    /// Keys for it.
    pub aws_access_key_id: Option<Secret<String>>,
    /// Keys for it.
    pub aws_secret_access_key: Option<Secret<String>>,
    /// Of temporary keys.
    pub aws_session_token: Option<Secret<String>>,
    /// The model to ask there.
    pub bedrock_model: Option<String>,
    /// The model for small work there.
    pub bedrock_small_model: Option<String>,
}

impl ProviderRequest {
    /// It holds a secret, which lives in the server's memory alone.
    pub const fn has_secret(&self) -> bool {
        self.api_key.is_some() || self.aws_secret_access_key.is_some()
    }
}

/// See [`crate::Action::ExecutePrompt`].
#[derive(Debug, Clone)]
pub struct ExecutePrompt {
    /// In which session.
    pub session: SessionId,
    /// What Claude Code is asked to do.
    pub prompt: Secret<String>,
    /// In which conversation.
    pub conversation: ConversationChoice,
    /// How.
    pub options: PromptOptions,
    /// What to do while the conversation is busy with another prompt.
    pub when_busy: WhenBusy,
    /// End the prompt after that long.
    pub timeout: Option<Duration>,
    /// Answer after at most that long; the prompt goes on.
    pub wait: Duration,
}

/// In which conversation a prompt goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversationChoice {
    /// The session's latest one; a new one when there is none yet.
    Latest,
    /// A new one.
    New,
    /// That one, which must be the session's.
    Named(ConversationId),
}

/// What a prompt does while its conversation is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenBusy {
    /// It waits for its turn.
    Queue,
    /// It is refused.
    Refuse,
}

/// How Claude Code is to work on a prompt. What is absent stays as the session and Claude Code have it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PromptOptions {
    /// Which model.
    pub model: Option<String>,
    /// Turns (requests to the model) at most.
    pub max_turns: Option<u32>,
    /// Cost at most, millionths of a dollar, by Claude Code's own price list; checked after each reply of the model.
    pub max_budget_micro_usd: Option<u64>,
    /// The only tools that there are.
    pub tools: Option<Vec<String>>,
    /// Tools that there are not.
    pub disallowed_tools: Vec<String>,
    /// Words after Claude Code's own system prompt; they count from the conversation's first prompt on.
    pub append_system_prompt: Option<String>,
    /// JSON schema of a structured answer, as JSON.
    pub output_schema: Option<String>,
}

/// A prompt, as its owner sees it beside what every execution has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptView {
    /// Its conversation.
    pub conversation: ConversationId,
    /// What Claude Code is doing, or did last, in words.
    pub doing: String,
    /// Claude Code's answer, once it ended; of a prompt that runs, what it said last.
    pub result: Option<String>,
    /// The structured answer as JSON, where one was asked for and given.
    pub structured_output: Option<String>,
    /// Requests to the model so far.
    pub turns: u32,
    /// Tools used so far.
    pub tool_uses: u32,
    /// Tokens so far.
    pub usage: TokenUsage,
    /// Cost by Claude Code's own price list, millionths of a dollar; known at the end.
    pub cost_micro_usd: Option<u64>,
    /// The model that answered.
    pub model: Option<String>,
    /// What Claude Code was not allowed to do.
    pub denials: Vec<PermissionDenial>,
    /// What waits for somebody's permission.
    pub pending: Vec<PendingPermission>,
    /// Files that changed in the workspace while it ran, relative to it; at most [`MAX_CHANGED_FILES`].
    pub changed_files: Vec<PathBuf>,
    /// Why it ended, once it did.
    pub stop: Option<PromptStop>,
}

/// Changed files that a view lists.
pub const MAX_CHANGED_FILES: usize = 200;

impl PromptView {
    /// A prompt of which nothing is known yet.
    pub fn new(conversation: ConversationId) -> Self {
        PromptView {
            conversation,
            doing: "waiting for its turn".to_owned(),
            result: None,
            structured_output: None,
            turns: 0,
            tool_uses: 0,
            usage: TokenUsage::default(),
            cost_micro_usd: None,
            model: None,
            denials: Vec::new(),
            pending: Vec::new(),
            changed_files: Vec::new(),
            stop: None,
        }
    }
}

/// Tokens, as the provider counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionDenial {
    /// With which tool.
    pub tool: String,
    /// What, in short.
    pub summary: String,
}

/// Something that Claude Code asks and waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingPermission {
    /// By which it is answered.
    pub id: String,
    /// What kind of answer it waits for.
    pub kind: PendingKind,
    /// With which tool.
    pub tool: String,
    /// What, in short.
    pub summary: String,
    /// The tool's input as JSON, cut to [`MAX_PERMISSION_INPUT_BYTES`].
    pub input: String,
    /// When nobody has answered by then, it is denied. Milliseconds since 1970.
    pub denied_at_ms: u64,
}

/// What kind of answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PendingKind {
    /// Yes or no, to the use of a tool.
    Permission,
    /// Words.
    Question,
}

/// Longest input of a tool that a permission request shows, bytes.
pub const MAX_PERMISSION_INPUT_BYTES: usize = 8 * 1024;

/// An answer to a [`PendingPermission`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PermissionAnswer {
    /// It may be done, this once.
    Allow,
    /// It may not be done; the words are for Claude Code.
    Deny(String),
    /// The answer to a question.
    Words(String),
}

/// Who answers what Claude Code asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnsweredBy {
    /// A person, at a client that asked them or at the command line.
    Person,
    /// The calling model.
    Caller,
}

impl AnsweredBy {
    /// The name in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            AnsweredBy::Person => "person",
            AnsweredBy::Caller => "caller",
        }
    }
}

/// Why a prompt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PromptStop {
    /// Claude Code was done.
    Completed,
    /// It was cancelled.
    Interrupted,
    /// Its time was over.
    TimedOut,
    /// It had as many turns as it might.
    TurnLimit,
    /// It cost as much as it might.
    BudgetLimit,
    /// A budget of the server's was used up: the session's, its caller's of the day, or the server's.
    SpendingLimit {
        /// The stable name of the limit: `max_usd_per_session`, `max_tokens_per_caller_per_day`, …
        code: String,
        /// Whose it is, how much, and what to do next.
        why: String,
    },
    /// The provider refused or failed.
    Provider {
        /// Claude Code's name of the failure: `authentication_failed`, `rate_limit`, `server_error`, `connection_failed`, …
        kind: String,
        /// The HTTP status, where there was one.
        status: Option<u16>,
    },
    /// The model refused to answer, or could not end.
    Refused,
    /// Nothing came for too long.
    Stalled,
    /// Claude Code ended in the middle.
    AgentEnded,
}

impl PromptStop {
    /// Its name in replies.
    pub const fn as_str(&self) -> &'static str {
        match self {
            PromptStop::Completed => "completed",
            PromptStop::Interrupted => "interrupted",
            PromptStop::TimedOut => "timedOut",
            PromptStop::TurnLimit => "turnLimit",
            PromptStop::BudgetLimit => "budgetLimit",
            PromptStop::SpendingLimit { .. } => "spendingLimit",
            PromptStop::Provider { .. } => "providerError",
            PromptStop::Refused => "refused",
            PromptStop::Stalled => "stalled",
            PromptStop::AgentEnded => "agentEnded",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_id_is_a_uuid_of_version_4_and_reads_back() {
        let id = ConversationId::random().unwrap();
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert_eq!((text.len(), &text[14..15]), (36, "4"));
        assert!("89ab".contains(&text[19..20]));
    }

    #[test]
    fn no_other_form_is_a_conversation_id() {
        let right = "6f1f9a52-5e8d-4c37-9b0e-0a4cf2b7d911";
        assert!(right.parse::<ConversationId>().is_ok());
        let wrong = [
            right.to_uppercase(),
            right.replace('-', ""),
            format!("{right}0"),
            format!("-{right}"),
            right.replace("6f1f", "+f1f"),
            "../../etc/passwd".to_owned(),
            String::new(),
        ];
        for wrong in wrong {
            assert!(wrong.parse::<ConversationId>().is_err(), "{wrong}");
        }
    }
}
