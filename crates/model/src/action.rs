//! What a caller asks for, already parsed: a value of these types cannot be malformed, only refused.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::{
    AgentRequest, AnswerNetwork, AnsweredBy, BackendName, ConversationId, CreateKey, DockerOptions,
    ExecutePrompt, ExecutionId, KeyId, LimitName, NetworkRequest, NetworkTarget, PermissionAnswer,
    ReadFile, Scope, Scopes, Secret, SessionId, WidenNetwork, WriteFile,
};

/// Everything that can be asked of the server.
#[derive(Debug, Clone)]
pub enum Action {
    /// Create a session.
    CreateSession(Box<CreateSession>),
    /// Run a command in a session.
    ExecuteCommand(ExecuteCommand),
    /// Give Claude Code something to do in a session.
    ExecutePrompt(ExecutePrompt),
    /// Answer what Claude Code asks in the course of a prompt.
    AnswerExecution {
        /// Which prompt.
        execution: ExecutionId,
        /// Which of its questions.
        question: String,
        /// The answer.
        answer: PermissionAnswer,
        /// Whose it is.
        by: AnsweredBy,
    },
    /// Read an execution, waiting for news.
    GetExecution(GetExecution),
    /// End an execution and its whole process tree.
    CancelExecution(ExecutionId),
    /// Write to an execution's standard input.
    RespondExecution {
        /// Which execution.
        execution: ExecutionId,
        /// Bytes for its standard input; may be empty.
        data: Secret<Vec<u8>>,
        /// Close standard input afterwards.
        close: bool,
    },
    /// The window of an execution's terminal changed.
    ResizeTerminal {
        /// Which execution.
        execution: ExecutionId,
        /// Its new size.
        terminal: Terminal,
    },
    /// The caller's sessions.
    ListSessions {
        /// Also those that have ended and are on record.
        ended: bool,
    },
    /// One session.
    GetSession(SessionId),
    /// End a session and remove everything of it.
    DestroySession(SessionId),
    /// Lifecycle events of a session and tails of its executions.
    GetSessionLogs {
        /// Which session.
        session: SessionId,
        /// How many lines at most.
        tail: u32,
    },
    /// What was said and done in a conversation of a session.
    ReadTranscript(ReadTranscript),
    /// Copy files into or out of a session.
    TransferFiles(TransferFiles),
    /// Put a file into a session whose content comes with the call.
    WriteFile(WriteFile),
    /// Read a file of a session whose content goes back with the reply.
    ReadFile(ReadFile),
    /// Move a session's end of life.
    ExtendSession {
        /// Which session.
        session: SessionId,
        /// By how much; capped by the operator's maximum lifetime.
        by: Duration,
    },
    /// Let a session that runs reach more, never past the operator's ceiling.
    WidenNetwork(WidenNetwork),
    /// Answer whether a session that runs may reach what it asked for.
    AnswerNetwork(AnswerNetwork),
    /// What this server is and can do.
    GetServerInfo,
    /// Make a key for a remote caller.
    CreateKey(Box<CreateKey>),
    /// Make a key that takes the place of another, which stays valid for a while.
    RotateKey {
        /// Which key.
        key: KeyId,
        /// How long it stays valid beside the new one.
        overlap: Duration,
    },
    /// From now on a key is refused, also in calls that wait.
    RevokeKey {
        /// Which key.
        key: KeyId,
        /// End its sessions, too.
        destroy_sessions: bool,
    },
    /// The keys on record.
    ListKeys,
    /// End a session for a reason of the server's own: only [`crate::Principal::System`] may ask.
    ReapSession {
        /// Which session.
        session: SessionId,
        /// Why.
        because: ReapCause,
    },
    /// After a restart: take up again a session whose sandbox runs. Only [`crate::Principal::System`] may ask.
    AdoptSession(SessionId),
    /// Remove what exists of a sandbox that no live session owns. Only [`crate::Principal::System`] may ask.
    RemoveRemains {
        /// The session that it was made for.
        session: SessionId,
        /// The walls that it is made of.
        backend: BackendName,
    },
}

/// Why the server ends a session by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReapCause {
    /// Its lifetime is over.
    Lifetime,
    /// Nobody used it for its idle time.
    Idle,
    /// Its sandbox ended, or broke its protocol.
    SandboxEnded,
    /// Left over from an earlier server, and not to be found again.
    Orphaned,
    /// The key of its owner was revoked, with all that it had.
    KeyRevoked,
}

impl ReapCause {
    /// A sentence for the session's owner.
    pub const fn sentence(self) -> &'static str {
        match self {
            ReapCause::Lifetime => "its lifetime was over",
            ReapCause::Idle => "nobody used it for its idle time",
            ReapCause::SandboxEnded => "its sandbox ended",
            ReapCause::Orphaned => "its sandbox was gone when the server came back",
            ReapCause::KeyRevoked => "the key of its owner was revoked",
        }
    }
}

impl Action {
    /// The action's name in the audit log.
    pub const fn name(&self) -> &'static str {
        match self {
            Action::CreateSession(_) => "session.create",
            Action::ExecuteCommand(_) => "execution.start",
            Action::ExecutePrompt(_) => "prompt.start",
            Action::AnswerExecution { .. } => "prompt.answer",
            Action::GetExecution(_) => "execution.read",
            Action::CancelExecution(_) => "execution.cancel",
            Action::RespondExecution { .. } => "execution.stdin",
            Action::ResizeTerminal { .. } => "execution.resize",
            Action::ListSessions { .. } => "session.list",
            Action::GetSession(_) => "session.read",
            Action::DestroySession(_) => "session.destroy",
            Action::GetSessionLogs { .. } => "session.logs",
            Action::ReadTranscript(_) => "session.transcript",
            Action::TransferFiles(_) => "files.transfer",
            Action::ExtendSession { .. } => "session.extend",
            Action::WidenNetwork(_) => "session.widen_network",
            Action::AnswerNetwork(_) => "session.answer_network",
            Action::WriteFile(_) => "files.write",
            Action::ReadFile(_) => "files.read",
            Action::GetServerInfo => "server.read",
            Action::CreateKey(_) => "key.create",
            Action::RotateKey { .. } => "key.rotate",
            Action::RevokeKey { .. } => "key.revoke",
            Action::ListKeys => "key.list",
            Action::ReapSession { .. } => "session.reap",
            Action::AdoptSession(_) => "session.adopt",
            Action::RemoveRemains { .. } => "session.remove_remains",
        }
    }

    /// Whether the action changes anything: those are durable in the audit log before they start.
    pub const fn changes_state(&self) -> bool {
        match self {
            Action::CreateSession(_)
            | Action::ExecuteCommand(_)
            | Action::ExecutePrompt(_)
            | Action::AnswerExecution { .. }
            | Action::CancelExecution(_)
            | Action::RespondExecution { .. }
            | Action::DestroySession(_)
            | Action::TransferFiles(_)
            | Action::WriteFile(_)
            | Action::ExtendSession { .. }
            | Action::WidenNetwork(_)
            | Action::AnswerNetwork(_)
            | Action::CreateKey(_)
            | Action::RotateKey { .. }
            | Action::RevokeKey { .. }
            | Action::ReapSession { .. }
            | Action::AdoptSession(_)
            | Action::RemoveRemains { .. } => true,
            Action::GetExecution(_)
            | Action::ResizeTerminal { .. }
            | Action::ListSessions { .. }
            | Action::GetSession(_)
            | Action::GetSessionLogs { .. }
            | Action::ReadTranscript(_)
            | Action::ReadFile(_)
            | Action::GetServerInfo
            | Action::ListKeys => false,
        }
    }

    /// The scope that a remote caller needs for it before all others; `None`: only the server itself does that.
    pub const fn scope(&self) -> Option<Scope> {
        match self {
            Action::CreateSession(_)
            | Action::ExecuteCommand(_)
            | Action::ExecutePrompt(_)
            | Action::AnswerExecution { .. }
            | Action::CancelExecution(_)
            | Action::RespondExecution { .. }
            | Action::ResizeTerminal { .. }
            | Action::DestroySession(_)
            | Action::ExtendSession { .. } => Some(Scope::SessionsRun),
            Action::GetExecution(_)
            | Action::ListSessions { .. }
            | Action::GetSession(_)
            | Action::GetSessionLogs { .. }
            | Action::ReadTranscript(_)
            | Action::GetServerInfo => Some(Scope::SessionsRead),
            Action::TransferFiles(_) | Action::WriteFile(_) | Action::ReadFile(_) => {
                Some(Scope::Files)
            }
            Action::WidenNetwork(_) | Action::AnswerNetwork(_) => Some(Scope::Network),
            Action::CreateKey(_)
            | Action::RotateKey { .. }
            | Action::RevokeKey { .. }
            | Action::ListKeys => Some(Scope::Admin),
            Action::ReapSession { .. } | Action::AdoptSession(_) | Action::RemoveRemains { .. } => {
                None
            }
        }
    }

    /// Every scope that a remote caller needs for it; `None`: only the server itself does that.
    pub fn scopes(&self) -> Option<Scopes> {
        let scopes = Scopes::NONE.with(self.scope()?);
        if let Action::CreateSession(request) = self
            && request.network.asks_for_something()
        {
            return Some(scopes.with(Scope::Network));
        }
        Some(scopes)
    }
}

/// See [`Action::ReadTranscript`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadTranscript {
    /// Of which session.
    pub session: SessionId,
    /// Which conversation; the one that was written to last otherwise.
    pub conversation: Option<ConversationId>,
    /// From where on.
    pub from: TranscriptStart,
    /// Lines at most, the page's own bounds apart.
    pub lines: u32,
}

/// Where a page of a transcript begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TranscriptStart {
    /// At a cursor that an earlier page gave; 0 is the beginning.
    Cursor(u64),
    /// Where that prompt has its turn; before, there is nothing.
    Prompt(ExecutionId),
}

/// See [`Action::CreateSession`].
#[derive(Debug, Clone)]
pub struct CreateSession {
    /// The project directory, which becomes `/workspace`: of a local caller an absolute path of the host; of a remote one a
    /// name relative to one of its roots.
    pub project_path: PathBuf,
    /// A name for people; the server makes one up otherwise.
    pub name: Option<String>,
    /// Which backend; the server's choice otherwise.
    pub backend: Option<BackendName>,
    /// By which of the operator's runtime classes an engine runs it; the operator's first otherwise.
    pub runtime_class: Option<String>,
    /// Further host directories.
    pub mounts: Vec<MountRequest>,
    /// Limits that the caller names.
    pub limits: Vec<LimitRequest>,
    /// What the caller asks for in the words of an engine.
    pub docker_options: DockerOptions,
    /// Lifetime from now; capped by the operator's maximum.
    pub ttl: Option<Duration>,
    /// End the session after that long without a running execution or a call.
    pub idle: Option<Duration>,
    /// Environment of every execution in the session.
    pub env: BTreeMap<String, Secret<String>>,
    /// What it may reach beside its model provider.
    pub network: NetworkRequest,
    /// What Claude Code is to be in it.
    pub agent: AgentRequest,
    /// Two calls with the same key make one session.
    pub idempotency_key: Option<String>,
}

/// One limit that the caller names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitRequest {
    /// Which limit.
    pub limit: LimitName,
    /// Its value in the unit of the name; only narrows the profile.
    pub value: u64,
}

/// A host directory that the caller wants inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRequest {
    /// Absolute path on the host.
    pub host_path: PathBuf,
    /// Absolute path inside.
    pub container_path: PathBuf,
    /// Mount read-only (the default of the door).
    pub read_only: bool,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// A line for `/bin/sh -c` inside the sandbox.
    Shell(String),
    /// Program and arguments, no shell.
    Argv(Vec<String>),
}

/// Size of a terminal, character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// See [`Action::ExecuteCommand`].
#[derive(Debug, Clone)]
pub struct ExecuteCommand {
    /// In which session.
    pub session: SessionId,
    /// What to run.
    pub command: CommandLine,
    /// Working directory inside; `/workspace` otherwise.
    pub cwd: Option<PathBuf>,
    /// Environment beside the session's.
    pub env: BTreeMap<String, Secret<String>>,
    /// Standard input, given at once and then closed. `None`: an input that stays open for
    /// [`Action::RespondExecution`] only where `keep_stdin_open` says so, else empty.
    pub stdin: Option<Secret<Vec<u8>>>,
    /// Leave standard input open after `stdin`.
    pub keep_stdin_open: bool,
    /// Run on a terminal of that size; standard error then joins standard output.
    pub terminal: Option<Terminal>,
    /// Kill the whole tree after that long.
    pub timeout: Option<Duration>,
    /// Answer after at most that long; the execution goes on.
    pub wait: Duration,
}

/// See [`Action::GetExecution`].
#[derive(Debug, Clone)]
pub struct GetExecution {
    /// Which execution.
    pub execution: ExecutionId,
    /// First byte of standard output that is wanted.
    pub stdout_cursor: u64,
    /// First byte of standard error that is wanted.
    pub stderr_cursor: u64,
    /// Answer after at most that long when what is awaited does not come.
    pub wait: Duration,
    /// What the answer waits for.
    pub awaited: Awaited,
}

/// What a reader of an execution waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaited {
    /// Output beyond one of the cursors, or the end; of a prompt, also a question.
    News,
    /// Of a prompt, a change of what it does, too.
    Progress,
    /// The end; of a prompt, also a question.
    End,
    /// As [`Awaited::End`], or something that was refused inside and that a person may allow.
    EndOrWish,
    /// That nobody waits for a person's word about this any more, however the execution stands.
    NetworkAnswered(NetworkTarget),
    /// Of a prompt, that nobody waits for the answer to that question any more; or the end.
    Answered {
        /// Which of its questions.
        question: String,
    },
}

/// Which way files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferDirection {
    /// Host to sandbox.
    ToContainer,
    /// Sandbox to host.
    FromContainer,
}

/// See [`Action::TransferFiles`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferFiles {
    /// Which session.
    pub session: SessionId,
    /// Which way.
    pub direction: TransferDirection,
    /// Where from: a host path for [`TransferDirection::ToContainer`], else a path inside.
    pub source: PathBuf,
    /// Where to.
    pub destination: PathBuf,
}
