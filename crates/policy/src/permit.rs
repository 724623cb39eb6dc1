//! Permits: proof that a decision was made. Private fields, no copies, consumed by the work they allow.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use model::{
    BackendName, BindMount, CommandLine, EgressRule, ExecutionId, HostDirectory, Layer, Limits,
    NetworkPolicy, NetworkTarget, ProtectedPath, Requirement, RuntimeClass, Secret, SessionId,
    Terminal, TransferDirection,
};

use crate::{AgentParts, ExecutionVerb, PlaceBounds, PromptParts, SessionVerb, SystemVerb};

/// A session may be created.
#[derive(Debug)]
#[must_use = "a permit that is dropped was a decision for nothing"]
pub struct CreatePermit {
    pub(crate) parts: CreateParts,
}

/// Everything of a sandbox that policy decides. The rest of a `SandboxSpec` (ids, root file system) is the session's.
#[derive(Debug)]
pub struct CreateParts {
    /// Who will own the session.
    pub owner: String,
    /// A name for people, if the caller gave one.
    pub name: Option<String>,
    /// The backend.
    pub backend: BackendName,
    /// How an engine runs it.
    pub runtime: Option<RuntimeClass>,
    /// What becomes `/workspace`.
    pub workspace: HostDirectory,
    /// How the protected paths of the workspace are kept from the agent; parents come before children.
    pub protected: Vec<ProtectedPath>,
    /// The operator's mounts, then the caller's.
    pub mounts: Vec<BindMount>,
    /// Settings of Claude Code that nobody inside can override: JSON.
    pub managed_settings: String,
    /// Limits; `named` where the caller asked by name.
    pub limits: Limits,
    /// A named limit that is only soft is accepted.
    pub accept_soft_limits: bool,
    /// Layers, and how much each is insisted on.
    pub layers: Vec<(Layer, Requirement)>,
    /// Lifetime from now.
    pub ttl: Duration,
    /// Idle time after which it ends.
    pub idle: Duration,
    /// How long the sandbox lives without a renewal.
    pub lease: Duration,
    /// What it may reach beside its model provider.
    pub network: NetworkPolicy,
    /// A person may let it reach more while it runs, since the operator's ceiling has something.
    pub may_widen: bool,
    /// Environment of every execution.
    pub env: BTreeMap<String, Secret<String>>,
    /// What Claude Code is in it.
    pub agent: AgentParts,
    /// What live sessions, this one included, must not exceed.
    pub bounds: PlaceBounds,
    /// What a refusal for want of a place says to whoever asked.
    pub hears: Hears,
    /// How long it waits for a place.
    pub queue_wait: Duration,
    /// Two calls with the same key make one session.
    pub idempotency_key: Option<String>,
    /// Protected paths that appear may stay; they are only reported.
    pub allow_protected_changes: bool,
}

/// Whose sessions a caller hears of when there is no place for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hears {
    /// What those of everybody come to: the operator's business.
    OfAll,
    /// Its own, and that there is no place.
    OfItsOwn,
}

impl CreatePermit {
    /// What was decided.
    pub fn into_parts(self) -> CreateParts {
        self.parts
    }

    /// What was decided, to look at.
    pub const fn parts(&self) -> &CreateParts {
        &self.parts
    }
}

/// One session may be read or ended.
#[derive(Debug)]
#[must_use = "a permit that is dropped was a decision for nothing"]
pub struct SessionPermit {
    pub(crate) session: SessionId,
    pub(crate) verb: SessionVerb,
}

impl SessionPermit {
    /// Which session.
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// What may be done.
    pub const fn verb(&self) -> SessionVerb {
        self.verb
    }

    /// Both.
    pub fn into_parts(self) -> (SessionId, SessionVerb) {
        (self.session, self.verb)
    }
}

/// One execution may be read, written to or ended.
#[derive(Debug)]
#[must_use = "a permit that is dropped was a decision for nothing"]
pub struct ExecutionPermit {
    pub(crate) execution: ExecutionId,
    pub(crate) verb: ExecutionVerb,
}

impl ExecutionPermit {
    /// Which execution.
    pub const fn execution(&self) -> ExecutionId {
        self.execution
    }

    /// What may be done.
    pub const fn verb(&self) -> ExecutionVerb {
        self.verb
    }

    /// Both.
    pub fn into_parts(self) -> (ExecutionId, ExecutionVerb) {
        (self.execution, self.verb)
    }
}

/// A command may run.
#[derive(Debug)]
#[must_use = "a permit that is dropped was a decision for nothing"]
pub struct CommandPermit {
    pub(crate) parts: CommandParts,
}

/// The command as it may run.
#[derive(Debug)]
pub struct CommandParts {
    /// In which session.
    pub session: SessionId,
    /// What to run.
    pub command: CommandLine,
    /// Working directory inside: absolute and clean.
    pub cwd: PathBuf,
    /// Environment beside the session's.
    pub env: BTreeMap<String, Secret<String>>,
    /// Standard input, given at once.
    pub stdin: Option<Secret<Vec<u8>>>,
    /// Leave standard input open after `stdin`.
    pub keep_stdin_open: bool,
    /// Run on a terminal.
    pub terminal: Option<Terminal>,
    /// Kill the whole tree after that long. Always set: the operator's maximum where the caller named none.
    pub deadline: Duration,
    /// Answer after at most that long.
    pub wait: Duration,
    /// Executions running in the session, this one included, must not exceed it.
    pub max_running_executions: u32,
}

impl CommandPermit {
    /// What was decided.
    pub fn into_parts(self) -> CommandParts {
        self.parts
    }

    /// What was decided, to look at.
    pub const fn parts(&self) -> &CommandParts {
        &self.parts
    }
}

/// Claude Code may be given something to do.
#[derive(Debug)]
#[must_use = "a permit that is dropped was a decision for nothing"]
pub struct PromptPermit {
    pub(crate) parts: PromptParts,
}

impl PromptPermit {
    /// What was decided.
    pub fn into_parts(self) -> PromptParts {
        self.parts
    }

    /// What was decided, to look at.
    pub const fn parts(&self) -> &PromptParts {
        &self.parts
    }
}

/// Files may be copied.
#[derive(Debug)]
#[must_use = "a permit that is dropped was a decision for nothing"]
pub struct TransferPermit {
    pub(crate) parts: TransferParts,
}

/// A transfer as it may happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferParts {
    /// Which session.
    pub session: SessionId,
    /// Which way.
    pub direction: TransferDirection,
    /// The directory of the host that the transfer must stay beneath: open it first, then `host_relative` below it
    /// without following links.
    pub host_root: PathBuf,
    /// The host's side, relative to `host_root`; empty for the root itself. No `..`.
    pub host_relative: PathBuf,
    /// The sandbox's side: absolute and clean.
    pub container: PathBuf,
    /// Paths relative to the destination that must not be written: `path` or `**/path`, `/` between parts.
    pub refuse: Vec<String>,
    /// Entries at most.
    pub max_entries: u64,
    /// Bytes of content at most.
    pub max_bytes: u64,
}

impl TransferPermit {
    /// What was decided.
    pub fn into_parts(self) -> TransferParts {
        self.parts
    }

    /// What was decided, to look at.
    pub const fn parts(&self) -> &TransferParts {
        &self.parts
    }
}

/// A session's end of life may move.
#[derive(Debug)]
#[must_use = "a permit that is dropped was a decision for nothing"]
pub struct ExtendPermit {
    pub(crate) session: SessionId,
    pub(crate) expires_at: SystemTime,
}

impl ExtendPermit {
    /// Which session.
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// Its new end of life: never before the old one, never beyond the operator's maximum.
    pub const fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Both.
    pub fn into_parts(self) -> (SessionId, SystemTime) {
        (self.session, self.expires_at)
    }
}

/// A session may reach more.
#[derive(Debug)]
#[must_use = "a permit that is dropped was a decision for nothing"]
pub struct WidenPermit {
    pub(crate) session: SessionId,
    pub(crate) rules: Vec<EgressRule>,
}

impl WidenPermit {
    /// Which session.
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// The rules that it gets beside its own; where they may lead to private addresses they say so.
    pub fn rules(&self) -> &[EgressRule] {
        &self.rules
    }

    /// Both.
    pub fn into_parts(self) -> (SessionId, Vec<EgressRule>) {
        (self.session, self.rules)
    }
}

/// What a person said about something that a session asked for counts.
#[derive(Debug)]
#[must_use = "a permit that is dropped was a decision for nothing"]
pub struct NetworkAnswerPermit {
    pub(crate) session: SessionId,
    pub(crate) target: NetworkTarget,
    pub(crate) rules: Option<Vec<EgressRule>>,
}

impl NetworkAnswerPermit {
    /// Which session.
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// What it asked for.
    pub const fn target(&self) -> &NetworkTarget {
        &self.target
    }

    /// The rules that it gets beside its own; `None` where the answer is no.
    pub fn rules(&self) -> Option<&[EgressRule]> {
        self.rules.as_deref()
    }

    /// All of it.
    pub fn into_parts(self) -> (SessionId, NetworkTarget, Option<Vec<EgressRule>>) {
        (self.session, self.target, self.rules)
    }
}

/// Sessions may be listed.
#[derive(Debug)]
#[must_use = "a permit that is dropped was a decision for nothing"]
pub struct ListingPermit {
    pub(crate) owner: Option<String>,
}

impl ListingPermit {
    /// Only sessions of this owner; `None`: all of them (the server itself).
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// See [`ListingPermit::owner`].
    pub fn into_parts(self) -> Option<String> {
        self.owner
    }
}

/// The server may look after itself.
#[derive(Debug)]
#[must_use = "a permit that is dropped was a decision for nothing"]
pub struct SystemPermit {
    pub(crate) verb: SystemVerb,
}

impl SystemPermit {
    /// What may be done.
    pub const fn verb(&self) -> SystemVerb {
        self.verb
    }

    /// See [`SystemPermit::verb`].
    pub fn into_parts(self) -> SystemVerb {
        self.verb
    }
}
