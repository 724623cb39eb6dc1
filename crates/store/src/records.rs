//! The rows. Times are milliseconds since 1970-01-01 UTC.

use std::path::PathBuf;

use model::{BackendName, ExecutionId, ExecutionState, SessionId, SessionState};

/// A session, as it outlives the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// [`model::Principal::name`] of its owner.
    pub principal: String,
    /// Its name for people.
    pub name: String,
    /// Where it stands.
    pub state: SessionState,
    /// Its walls.
    pub backend: BackendName,
    /// The project on the host; any bytes that a path may have.
    pub project_path: PathBuf,
    /// When it was asked for.
    pub created_at_ms: u64,
    /// When its lifetime ends.
    pub expires_at_ms: u64,
    /// Idle time after which it ends, milliseconds.
    pub idle_ms: u64,
    /// When it was last used.
    pub last_used_at_ms: u64,
    /// The caller's key: two calls with the same one make one session.
    pub idempotency_key: Option<String>,
    /// Digest of the call's arguments, to tell a repeated call from another one with the same key.
    pub arguments_digest: [u8; 32],
    /// What its limits let it take of the machine.
    pub promise: Promise,
    /// JSON of the [`model::SandboxSpec`].
    pub spec: Option<Vec<u8>>,
    /// JSON of the [`model::Attestation`].
    pub attestation: Option<Vec<u8>>,
    /// JSON of what Claude Code is in it; no secrets.
    pub agent: Option<Vec<u8>>,
    /// JSON of what it may reach.
    pub network: Option<Vec<u8>>,
    /// Why it ended.
    pub ended_because: Option<String>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
}

/// What to change in a session; `None` leaves a column as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionChange {
    /// See [`SessionRecord::state`].
    pub state: Option<SessionState>,
    /// See [`SessionRecord::expires_at_ms`].
    pub expires_at_ms: Option<u64>,
    /// See [`SessionRecord::last_used_at_ms`].
    pub last_used_at_ms: Option<u64>,
    /// See [`SessionRecord::spec`].
    pub spec: Option<Vec<u8>>,
    /// See [`SessionRecord::attestation`].
    pub attestation: Option<Vec<u8>>,
    /// See [`SessionRecord::agent`].
    pub agent: Option<Vec<u8>>,
    /// See [`SessionRecord::network`].
    pub network: Option<Vec<u8>>,
    /// See [`SessionRecord::ended_because`].
    pub ended_because: Option<String>,
    /// See [`SessionRecord::ended_at_ms`].
    pub ended_at_ms: Option<u64>,
}

/// Which sessions to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter<'a> {
    /// Only those of this owner.
    pub principal: Option<&'a str>,
    /// Only those in a state that [`SessionState::is_live`].
    pub live_only: bool,
}

/// What a session may take of the machine: the sum over live sessions is what the machine has promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Promise {
    /// Memory and swap, bytes.
    pub memory_bytes: u64,
    /// CPU time, thousandths of one CPU.
    pub cpu_millis: u64,
    /// Space on the disk of the state directory, bytes.
    pub disk_bytes: u64,
}

/// What live sessions may not exceed, a new one included. `None`: not bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Live sessions of the server.
    pub sessions: u32,
    /// Live sessions of the same owner.
    pub sessions_of_caller: Option<u32>,
    /// Live sessions on the same project directory.
    pub sessions_of_project: Option<u32>,
    /// Sum of [`Promise::memory_bytes`].
    pub memory_bytes: Option<u64>,
    /// Sum of [`Promise::cpu_millis`].
    pub cpu_millis: Option<u64>,
    /// Sum of [`Promise::disk_bytes`].
    pub disk_bytes: Option<u64>,
}

impl Bounds {
    /// So many live sessions, and nothing else.
    pub const fn live(sessions: u32) -> Self {
        Bounds {
            sessions,
            sessions_of_caller: None,
            sessions_of_project: None,
            memory_bytes: None,
            cpu_millis: None,
            disk_bytes: None,
        }
    }
}

/// Whose sessions are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// All of the server.
    Server,
    /// Those of one owner.
    Caller,
    /// Those on one project directory.
    Project,
}

/// What of the machine is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// See [`Promise::memory_bytes`].
    Memory,
    /// See [`Promise::cpu_millis`].
    Cpu,
    /// See [`Promise::disk_bytes`].
    Disk,
}

/// Why there is no place for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shortage {
    /// As many live sessions as are allowed.
    Sessions {
        /// Of whom.
        of: Whose,
        /// How many are live.
        live: u32,
        /// How many may be.
        limit: u32,
    },
    /// More would be promised than may be.
    Resource {
        /// Of what.
        of: Resource,
        /// What the new session would be promised.
        asked: u64,
        /// What live sessions are promised.
        promised: u64,
        /// What may be promised in all.
        capacity: u64,
        /// What live sessions of the same owner are promised of it, the largest first.
        own: Vec<(SessionId, u64)>,
    },
}

/// What became of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// The row is in; the place is taken.
    New,
    /// The same principal made the same call with the same key before: this is its session, whatever became of it.
    Existing(Box<SessionRecord>),
    /// The same principal used the key with other arguments.
    Conflict,
    /// There is no place.
    Short(Shortage),
}

/// An execution, as it outlives the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionRecord {
    /// Its id.
    pub id: ExecutionId,
    /// Its session.
    pub session: SessionId,
    /// Where it stands.
    pub state: ExecutionState,
    /// When it was asked for.
    pub started_at_ms: u64,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// Its deadline, milliseconds from its start.
    pub timeout_ms: Option<u64>,
    /// Exit code, once exited.
    pub exit_code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed a process of the session for memory while it ran.
    pub oom_killed: bool,
    /// Running time, milliseconds.
    pub duration_ms: u64,
    /// Why it failed or was lost.
    pub failure: Option<String>,
    /// JSON of the list of [`model::ProtectedChange`].
    pub protected_changes: Option<Vec<u8>>,
    /// JSON of the [`model::PromptView`]; `None` for a command.
    pub prompt: Option<Vec<u8>>,
}

/// What to change in an execution; `None` leaves a column as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecutionChange {
    /// See [`ExecutionRecord::state`].
    pub state: Option<ExecutionState>,
    /// See [`ExecutionRecord::started_at_ms`].
    pub started_at_ms: Option<u64>,
    /// See [`ExecutionRecord::ended_at_ms`].
    pub ended_at_ms: Option<u64>,
    /// See [`ExecutionRecord::exit_code`].
    pub exit_code: Option<i32>,
    /// See [`ExecutionRecord::signal`].
    pub signal: Option<i32>,
    /// See [`ExecutionRecord::oom_killed`].
    pub oom_killed: Option<bool>,
    /// See [`ExecutionRecord::duration_ms`].
    pub duration_ms: Option<u64>,
    /// See [`ExecutionRecord::failure`].
    pub failure: Option<String>,
    /// See [`ExecutionRecord::protected_changes`].
    pub protected_changes: Option<Vec<u8>>,
    /// See [`ExecutionRecord::prompt`].
    pub prompt: Option<Vec<u8>>,
}

/// One line of a session's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// When.
    pub at_ms: u64,
    /// What.
    pub text: String,
}
