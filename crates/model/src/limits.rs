//! Resource limits, and how strongly each is enforced.

use serde::{Deserialize, Serialize};

/// The resources that a session is limited in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LimitName {
    /// Memory and swap together, bytes.
    MemoryBytes,
    /// CPU time, thousandths of one CPU.
    CpuMillis,
    /// Processes and threads.
    Pids,
    /// Open files of one process (`RLIMIT_NOFILE`).
    OpenFiles,
    /// Size of a single file, bytes (`RLIMIT_FSIZE`).
    FileBytes,
    /// `/tmp`, home, `/run` and `/dev/shm` together, bytes (they live in memory).
    TemporaryBytes,
    /// The session's durable `/state`, bytes.
    StateBytes,
}

impl LimitName {
    /// Every limit, in the order in which replies list them.
    pub const ALL: [LimitName; 7] = [
        LimitName::MemoryBytes,
        LimitName::CpuMillis,
        LimitName::Pids,
        LimitName::OpenFiles,
        LimitName::FileBytes,
        LimitName::TemporaryBytes,
        LimitName::StateBytes,
    ];

    /// The name as it stands in replies and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            LimitName::MemoryBytes => "memoryBytes",
            LimitName::CpuMillis => "cpuMillis",
            LimitName::Pids => "pids",
            LimitName::OpenFiles => "openFiles",
            LimitName::FileBytes => "fileBytes",
            LimitName::TemporaryBytes => "temporaryBytes",
            LimitName::StateBytes => "stateBytes",
        }
    }
}

/// One limit of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The value, in the unit of its [`LimitName`].
    pub value: u64,
    /// The caller asked for this value by name, so it must be `hard` or the session is refused (unless the operator
    /// configured `dangerously_accept_soft_limits`).
    pub named: bool,
}

impl Limit {
    /// A limit that comes from the profile, not from the caller.
    pub const fn default_of(value: u64) -> Self {
        Limit {
            value,
            named: false,
        }
    }
}

/// All limits of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// See [`LimitName::MemoryBytes`].
    pub memory_bytes: Limit,
    /// See [`LimitName::CpuMillis`].
    pub cpu_millis: Limit,
    /// See [`LimitName::Pids`].
    pub pids: Limit,
    /// See [`LimitName::OpenFiles`].
    pub open_files: Limit,
    /// See [`LimitName::FileBytes`].
    pub file_bytes: Limit,
    /// See [`LimitName::TemporaryBytes`].
    pub temporary_bytes: Limit,
    /// See [`LimitName::StateBytes`].
    pub state_bytes: Limit,
}

impl Limits {
    /// The limit of that name.
    pub const fn get(&self, name: LimitName) -> Limit {
        match name {
            LimitName::MemoryBytes => self.memory_bytes,
            LimitName::CpuMillis => self.cpu_millis,
            LimitName::Pids => self.pids,
            LimitName::OpenFiles => self.open_files,
            LimitName::FileBytes => self.file_bytes,
            LimitName::TemporaryBytes => self.temporary_bytes,
            LimitName::StateBytes => self.state_bytes,
        }
    }

    /// Sets the limit of that name.
    pub const fn set(&mut self, name: LimitName, limit: Limit) {
        match name {
            LimitName::MemoryBytes => self.memory_bytes = limit,
            LimitName::CpuMillis => self.cpu_millis = limit,
            LimitName::Pids => self.pids = limit,
            LimitName::OpenFiles => self.open_files = limit,
            LimitName::FileBytes => self.file_bytes = limit,
            LimitName::TemporaryBytes => self.temporary_bytes = limit,
            LimitName::StateBytes => self.state_bytes = limit,
        }
    }
}

/// How strongly a limit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Enforcement {
    /// Nothing enforces it.
    None,
    /// The supervisor watches and kills; a burst can pass it for the length of one look.
    Soft,
    /// The kernel refuses to go beyond.
    Hard,
}

/// One limit, as asked and as read back after start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitInForce {
    /// Which limit.
    pub limit: LimitName,
    /// The value that the session asked for.
    pub asked: u64,
    /// The value read back from the kernel, if any is in force.
    pub in_force: Option<u64>,
    /// How strongly it holds.
    pub enforcement: Enforcement,
    /// What holds it: `cgroup v1 memory`, `RLIMIT_NPROC`, …
    pub mechanism: String,
}
