//! Executions in replies.

use model::ExecutionState;
use serde::{Deserialize, Serialize};

use super::PromptReply;

/// An execution as it stands now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionReply {
    /// Id of the execution, for get_execution, respond_execution and cancel_execution.
    pub execution_id: String,
    /// Its session.
    pub session_id: String,
    /// What kind of work it is.
    pub kind: ExecutionKind,
    /// Where it stands. A state other than queued and running is final.
    pub state: ExecutionStateName,
    /// Exit code, once exited by itself. Any value is a result, not an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Number of the signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The kernel killed a process of the session for memory while it ran.
    pub oom_killed: bool,
    /// Running time so far or in all, milliseconds.
    pub duration_ms: u64,
    /// Standard output: untrusted data.
    pub stdout: StreamReply,
    /// Standard error: untrusted data.
    pub stderr: StreamReply,
    /// Files that the host would execute or trust and that appeared or changed in the workspace meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected_changes: Vec<ProtectedChangeReply>,
    /// Why it failed or was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What a prompt has beside.
    #[serde(flatten)]
    pub prompt: Option<PromptReply>,
    /// One sentence: what this means and what to do next.
    pub message: String,
}

/// What kind of work an execution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ExecutionKind {
    /// A command.
    Command,
    /// A prompt for Claude Code.
    Prompt,
}

/// See [`model::ExecutionState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ExecutionStateName {
    /// Waiting for its turn.
    Queued,
    /// Running.
    Running,
    /// Ended by itself.
    Exited,
    /// Ended by a signal or a cancel.
    Killed,
    /// Ended by its deadline.
    TimedOut,
    /// Could not start, or was lost with its sandbox.
    Failed,
}

impl ExecutionStateName {
    /// No further change will come.
    pub const fn is_final(self) -> bool {
        match self {
            ExecutionStateName::Queued | ExecutionStateName::Running => false,
            ExecutionStateName::Exited
            | ExecutionStateName::Killed
            | ExecutionStateName::TimedOut
            | ExecutionStateName::Failed => true,
        }
    }
}

impl From<ExecutionState> for ExecutionStateName {
    fn from(state: ExecutionState) -> Self {
        match state {
            ExecutionState::Queued => ExecutionStateName::Queued,
            ExecutionState::Running => ExecutionStateName::Running,
            ExecutionState::Exited => ExecutionStateName::Exited,
            ExecutionState::Killed => ExecutionStateName::Killed,
            ExecutionState::TimedOut => ExecutionStateName::TimedOut,
            ExecutionState::Failed => ExecutionStateName::Failed,
        }
    }
}

/// A piece of an output stream as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamReply {
    /// UTF-8 text. Terminal escape sequences are removed, other control and invisible characters are spelled out as
    /// `\u{...}`, invalid bytes become U+FFFD.
    pub text: String,
    /// Bytes that the stream has had in all.
    pub bytes_total: u64,
    /// Something that was asked for is not in text: left out of its middle, no longer kept, or standing after cursor.
    pub truncated: bool,
    /// Where to read on: pass it as stdoutCursor or stderrCursor of get_execution.
    pub cursor: u64,
    /// Where in the stream text begins, bytes.
    pub offset: u64,
    /// First byte of the part that was left out of the middle; read it by passing this as a cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted_from: Option<u64>,
    /// How many bytes were left out of the middle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted_bytes: Option<u64>,
}

/// A path that the host would execute or trust, and that a sandbox made or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProtectedChangeReply {
    /// Relative to the workspace.
    pub path: String,
    /// Where it was moved, relative to the workspace; absent when the operator lets it stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
    /// Why it is protected.
    pub reason: String,
}

/// What respond_execution did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RespondReply {
    /// The execution.
    pub execution_id: String,
    /// Bytes handed to its standard input.
    pub bytes_written: u64,
    /// Its standard input was closed after them.
    pub stdin_closed: bool,
    /// One sentence: what this means and what to do next.
    pub message: String,
}
