//! What a caller gets back when the call was carried out.

use std::{path::PathBuf, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    Attestation, BackendName, ConversationId, ExecutionId, FileChunk, FileWritten, KeyView,
    NetworkOffer, NetworkPolicy, NetworkQuestion, NewKey, PromptView, Refusal, RevokedKey,
    SessionId, TokenUsage,
};

/// The answer to an [`crate::Action`].
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A session as it stands now.
    Session(Box<SessionView>),
    /// The caller's sessions.
    Sessions(Vec<SessionView>),
    /// A session is gone. Also when it was gone before.
    Destroyed(SessionId),
    /// An execution as it stands now.
    Execution(Box<ExecutionView>),
    /// Lines of a session's log, oldest first.
    Logs(SessionId, Vec<LogLine>),
    /// A page of a conversation's transcript.
    Transcript(TranscriptPage),
    /// What was transferred.
    Transferred(TransferReport),
    /// What the server is and can do.
    ServerInfo(Box<ServerInfo>),
    /// What was read of a file.
    FileRead(FileChunk),
    /// What was taken of a file.
    FileWritten(FileWritten),
    /// A key that was just made.
    KeyMade(Box<NewKey>),
    /// A key that was revoked.
    KeyRevoked(Box<RevokedKey>),
    /// Keys on record, oldest first.
    Keys(Vec<KeyView>),
    /// Done; nothing to tell.
    Done,
}

/// Where a session stands.
///
/// ```text
/// creating ──► ready ◄──► busy      (busy: an execution is running)
///     │          │          │
///     ▼          ▼          ▼
///   failed    expired   destroyed   (unknown: the server restarted and has not yet found the sandbox)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// Being built.
    Creating,
    /// Waiting for work.
    Ready,
    /// An execution is running.
    Busy,
    /// Stopped by the operator; nothing runs.
    Paused,
    /// Its lifetime or idle time ran out; everything of it is removed.
    Expired,
    /// Destroyed by a caller; everything of it is removed.
    Destroyed,
    /// It could not be built, or its sandbox died.
    Failed,
    /// Not yet found again after a restart.
    Unknown,
}

impl SessionState {
    /// Every state.
    pub const ALL: [SessionState; 8] = [
        SessionState::Creating,
        SessionState::Ready,
        SessionState::Busy,
        SessionState::Paused,
        SessionState::Expired,
        SessionState::Destroyed,
        SessionState::Failed,
        SessionState::Unknown,
    ];

    /// The name in replies and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            SessionState::Creating => "creating",
            SessionState::Ready => "ready",
            SessionState::Busy => "busy",
            SessionState::Paused => "paused",
            SessionState::Expired => "expired",
            SessionState::Destroyed => "destroyed",
            SessionState::Failed => "failed",
            SessionState::Unknown => "unknown",
        }
    }

    /// The session holds a place among `MAX_CONCURRENT_SESSIONS`.
    pub const fn is_live(self) -> bool {
        match self {
            SessionState::Creating
            | SessionState::Ready
            | SessionState::Busy
            | SessionState::Paused
            | SessionState::Unknown => true,
            SessionState::Expired | SessionState::Destroyed | SessionState::Failed => false,
        }
    }
}

/// A session, as its owner sees it.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Its id.
    pub id: SessionId,
    /// Its name for people.
    pub name: String,
    /// Where it stands.
    pub state: SessionState,
    /// Its walls.
    pub backend: BackendName,
    /// The project on the host.
    pub project_path: PathBuf,
    /// The deterministic name of its sandbox.
    pub container_name: String,
    /// When it was asked for.
    pub created_at: SystemTime,
    /// When its lifetime ends, whatever happens.
    pub expires_at: SystemTime,
    /// Idle time after which it ends, seconds.
    pub idle_seconds: u64,
    /// What protects it, read back after start. `None` until it is ready.
    pub attestation: Option<Attestation>,
    /// What it may reach beside its model provider. `None` until it is ready.
    pub network: Option<NetworkPolicy>,
    /// What it was refused and a person may allow, oldest first.
    pub network_questions: Vec<NetworkQuestion>,
    /// Resources in use. `None` when it is not live.
    pub usage: Option<UsageView>,
    /// What it has used of its model provider, and what is left. `None` where it has none.
    pub provider_usage: Option<ProviderUsageView>,
    /// Executions that are running.
    pub running_executions: Vec<ExecutionId>,
    /// Why it ended, for a session that is no longer live.
    pub ended_because: Option<String>,
    /// When it ended. `None` while it is live.
    pub ended_at: Option<SystemTime>,
}

/// Resources in use by a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageView {
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// CPU time since start, microseconds.
    pub cpu_us: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// How often the kernel killed a process of the session for memory.
    pub oom_kills: Option<u64>,
}

/// What a session has used of its model provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProviderUsageView {
    /// Requests that went on to the provider.
    pub requests: u64,
    /// Requests that the server refused.
    pub denied: u64,
    /// Tokens of all of them.
    pub tokens: TokenUsage,
    /// What they cost by the server's price table, millionths of a dollar, rounded up.
    pub cost_micro_usd: u64,
    /// Requests whose price is not known; they stand in the cost with nothing.
    pub unpriced_requests: u64,
    /// What may yet be used, where something is limited and the session is live.
    pub left: Vec<BudgetLeft>,
}

/// What is left of a budget; `None` where it is not limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetLeft {
    /// Whose budget.
    pub scope: BudgetScope,
    /// Requests.
    pub requests: Option<u64>,
    /// Tokens of all kinds.
    pub tokens: Option<u64>,
    /// Millionths of a dollar, rounded down.
    pub micro_usd: Option<u64>,
}

/// Whose budget it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetScope {
    /// The session's own.
    Session,
    /// That of all sessions of its caller, today (UTC).
    CallerDay,
    /// That of all sessions of the server, today (UTC).
    ServerDay,
}

/// Where an execution stands.
///
/// ```text
/// queued ──► running ──► exited     it ended by itself, whatever its exit code
///               ├──────► killed     by a signal, or by `cancel_execution`
///               ├──────► timedOut   by its deadline
///               └──────► failed     it could not start, or its sandbox ended first
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExecutionState {
    /// Waiting for its turn.
    Queued,
    /// Running.
    Running,
    /// Ended by itself with an exit code.
    Exited,
    /// Ended by a signal or by a cancel.
    Killed,
    /// Ended by its deadline.
    TimedOut,
    /// Could not start, or was lost with its sandbox.
    Failed,
}

impl ExecutionState {
    /// Every state.
    pub const ALL: [ExecutionState; 6] = [
        ExecutionState::Queued,
        ExecutionState::Running,
        ExecutionState::Exited,
        ExecutionState::Killed,
        ExecutionState::TimedOut,
        ExecutionState::Failed,
    ];

    /// The name in replies and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            ExecutionState::Queued => "queued",
            ExecutionState::Running => "running",
            ExecutionState::Exited => "exited",
            ExecutionState::Killed => "killed",
            ExecutionState::TimedOut => "timedOut",
            ExecutionState::Failed => "failed",
        }
    }

    /// No further change will come.
    pub const fn is_final(self) -> bool {
        match self {
            ExecutionState::Queued | ExecutionState::Running => false,
            ExecutionState::Exited
            | ExecutionState::Killed
            | ExecutionState::TimedOut
            | ExecutionState::Failed => true,
        }
    }
}

/// A piece of an output stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamView {
    /// The bytes from the asked cursor on (or the last ones kept, if those were dropped).
    pub bytes: Vec<u8>,
    /// Offset of the first byte in `bytes`.
    pub offset: u64,
    /// How many bytes the stream has had in all.
    pub total_bytes: u64,
    /// Where to read on.
    pub cursor: u64,
    /// Something before `offset` that was asked for is no longer kept, or more stands after `cursor`.
    pub truncated: bool,
}

/// An execution, as its owner sees it.
#[derive(Debug, Clone)]
pub struct ExecutionView {
    /// Its id.
    pub id: ExecutionId,
    /// Its session.
    pub session: SessionId,
    /// Where it stands.
    pub state: ExecutionState,
    /// Exit code, once exited.
    pub exit_code: Option<i32>,
    /// Signal number, if one ended it.
    pub signal: Option<i32>,
    /// The kernel killed a process of the session for memory while it ran.
    pub oom_killed: bool,
    /// Running time so far or in all, milliseconds.
    pub duration_ms: u64,
    /// Standard output (and error, on a terminal).
    pub stdout: StreamView,
    /// Standard error.
    pub stderr: StreamView,
    /// Protected paths that appeared or changed in a `direct` workspace while it ran.
    pub protected_changes: Vec<ProtectedChange>,
    /// Why it failed or was lost, in a sentence.
    pub failure: Option<String>,
    /// What there is to see of a prompt; `None` for a command.
    pub prompt: Option<Box<PromptView>>,
    /// There may have been output, and it is no longer kept: a sandbox keeps that of its latest executions, as long as it lives.
    pub output_lost: bool,
    /// What its session was refused and a person may allow, oldest first: of all that runs in the session.
    pub network_questions: Vec<NetworkQuestion>,
}

/// A path that the host would execute or trust, and that a sandbox made or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectedChange {
    /// Relative to the workspace.
    pub path: PathBuf,
    /// Where it was moved, relative to the workspace; `None` when the operator allows it to stay.
    pub moved_to: Option<PathBuf>,
    /// Why it is protected, from `profiles/`.
    pub reason: String,
}

/// One line of a session's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When.
    pub at: SystemTime,
    /// What: `session ready`, `execution x-… exited 0`, or a line of output.
    pub text: String,
}

/// A piece of what was said and done in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscriptPage {
    /// The session.
    pub session: SessionId,
    /// The conversation.
    pub conversation: ConversationId,
    /// What happened, oldest first.
    pub lines: Vec<TranscriptLine>,
    /// Where to read on; `None` while the prompt that was asked for has not had its turn.
    pub cursor: Option<u64>,
    /// There is more already.
    pub has_more: bool,
}

/// One thing that was said or done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscriptLine {
    /// When.
    pub at: SystemTime,
    /// What kind of thing.
    pub kind: TranscriptKind,
    /// Its words, as they came from inside the sandbox.
    pub text: String,
    /// Which prompt it is about, where that is said.
    pub execution: Option<ExecutionId>,
}

/// What a line of a transcript is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TranscriptKind {
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

/// What a transfer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferReport {
    /// Which session.
    pub session: SessionId,
    /// Regular files written.
    pub files: u64,
    /// Directories made.
    pub directories: u64,
    /// Symbolic links made (all stay inside the transferred tree).
    pub links: u64,
    /// Bytes of file content.
    pub bytes: u64,
}

/// What one caller may do at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallerBounds {
    /// Its live sessions.
    pub sessions: u32,
    /// Live sessions that it may have; `None`: as many as the server.
    pub max_sessions: Option<u32>,
    /// Live sessions on one project, whosever they are; `None`: as many as the server.
    pub max_sessions_per_project: Option<u32>,
    /// Calls a minute; `None`: no limit.
    pub calls_per_minute: Option<u32>,
    /// New sessions a minute; `None`: no limit.
    pub creates_per_minute: Option<u32>,
    /// How long a new session waits for a place, seconds.
    pub queue_wait_seconds: u64,
}

/// What the server is and can do.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    /// Version of the program.
    pub version: String,
    /// Posture towards the machine: `embedded-root`, `embedded-rootless`.
    pub posture: String,
    /// Backend that `auto` means, decided at start.
    pub backend: BackendName,
    /// What that backend reaches here, and what it lacks.
    pub rung: String,
    /// Runtime classes that a session on an engine can have, the default first; empty: the engine's own default alone.
    pub runtime_classes: Vec<String>,
    /// The Claude Code that new sessions find, or how to get one.
    pub claude_code: String,
    /// Live sessions.
    pub sessions: u32,
    /// `MAX_CONCURRENT_SESSIONS`.
    pub max_sessions: u32,
    /// `DEFAULT_SESSION_TIMEOUT`, seconds.
    pub default_session_timeout_seconds: u64,
    /// Longest lifetime that a session can be extended to, seconds.
    pub max_session_seconds: u64,
    /// What the one who asks may do at most.
    pub caller: CallerBounds,
    /// What sessions may reach beside their model provider.
    pub network: NetworkOffer,
    /// Why prompts are refused in a new session that brings no credential of a model provider; `None`: they are not.
    pub prompts_refused: Option<Refusal>,
    /// Whether the audit log is in working order.
    pub audit_ok: bool,
    /// Things that the operator should know, each a sentence.
    pub warnings: Vec<String>,
}
