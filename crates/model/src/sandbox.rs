//! What a sandbox must be: decided by policy, carried out by a backend, never changed in between.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Layer, Limits, OwnerId, Requirement, SessionId};

/// The agent's uid inside every sandbox.
pub const AGENT_UID: u32 = 1000;
/// The agent's gid inside every sandbox.
pub const AGENT_GID: u32 = 1000;
/// Where the project stands inside.
pub const WORKSPACE_PATH: &str = "/workspace";
/// Where the session's durable state stands inside.
pub const STATE_PATH: &str = "/state";
/// Where the host's socket for the supervisor stands inside, mounted read-only.
pub const SUPERVISOR_DIRECTORY: &str = "/run/supervisor";
/// Where Claude Code stands inside, in a read-only directory of its own that sandboxes share.
pub const AGENT_DIRECTORY: &str = "/opt/claude-code";
/// Its program there.
pub const AGENT_PROGRAM_NAME: &str = "claude";
/// Where Claude Code looks for settings that no user and no project can override.
pub const MANAGED_SETTINGS_DIRECTORY: &str = "/etc/claude-code";
/// Their file there.
pub const MANAGED_SETTINGS_NAME: &str = "managed-settings.json";
/// Where the certificates stand inside that programs there trust, in a read-only directory of their own.
pub const CERTIFICATES_DIRECTORY: &str = "/etc/claude-code-mcp";
/// Their file there.
pub const CERTIFICATES_NAME: &str = "certificates.pem";
/// Most bytes of them: twice what distributions ship.
pub const MAX_CERTIFICATES_BYTES: usize = 512 * 1024;
/// What stands in `/etc/resolv.conf`. Where the session may use names, its supervisor listens there and the server answers;
/// where it may not, nobody does, and a question is refused at once. Either way there is nothing to wait for, and nothing
/// that a second server could add.
pub const RESOLVER_CONFIGURATION: &str = "nameserver 127.0.0.1\noptions timeout:2 attempts:2\n";
/// What stands in `/etc/hosts`.
pub const HOSTS: &str = "127.0.0.1 localhost sandbox\n::1 localhost\n";

/// The places that live in memory and share [`crate::LimitName::TemporaryBytes`], each with its sixteenths of it.
pub const TEMPORARY_PLACES: [(&str, u64); 4] = [
    ("/tmp", 8),
    ("/home/agent", 6),
    ("/run", 1),
    ("/dev/shm", 1),
];

/// Which walls a sandbox is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendName {
    /// The embedded runtime.
    Native,
    /// A Docker engine.
    Docker,
    /// The in-process fake of the tests.
    Fake,
}

impl BackendName {
    /// Every backend.
    pub const ALL: [BackendName; 3] = [BackendName::Native, BackendName::Docker, BackendName::Fake];

    /// The name in replies and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            BackendName::Native => "native",
            BackendName::Docker => "docker",
            BackendName::Fake => "fake",
        }
    }
}

/// A directory of the host that was looked at when the decision fell. Whoever opens it again must find the same inode,
/// without following any link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDirectory {
    /// Absolute and free of links (canonical) when it was looked at.
    pub path: PathBuf,
    /// `st_dev` then.
    pub device: u64,
    /// `st_ino` then.
    pub inode: u64,
    /// Owner then.
    pub uid: u32,
    /// Group then.
    pub gid: u32,
}

/// A host directory inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// The host's side.
    pub source: HostDirectory,
    /// Absolute path inside; never below a path that the sandbox builds itself.
    pub target: PathBuf,
    /// Mounted read-only, recursively.
    pub read_only: bool,
}

/// How a path of the workspace that the host would execute or trust is kept from the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Protection {
    /// It exists: mounted read-only over itself.
    ReadOnly,
    /// It does not exist: an empty, read-only placeholder stands there while the sandbox lives, and is removed from the
    /// host afterwards. `directory` says which kind.
    Masked {
        /// The placeholder is a directory, else a file.
        directory: bool,
    },
    /// A directory on the way to a protected path: mounted over itself, writable, so that it cannot be renamed away.
    Pinned,
}

/// A protected path of the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectedPath {
    /// Relative to the workspace; no `..`, no empty part. Parents come before children.
    pub relative: PathBuf,
    /// How it is protected.
    pub protection: Protection,
}

/// Whose kernel answers the system calls of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kernel {
    /// The host's: what keeps the sandbox in is namespaces and filters.
    Shared,
    /// One of the sandbox's own (gVisor, a virtual machine). No socket of the host can be mounted there.
    Guest,
}

/// How a container engine runs a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeClass {
    /// The name under which the engine knows the runtime: `runc`, `runsc`, …
    pub name: String,
    /// What it promises. The promise is checked in every sandbox.
    pub kernel: Kernel,
}

/// What the root file system is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RootFileSystem {
    /// The host's own system directories, read-only.
    HostSystem,
    /// An unpacked root file system, read-only.
    Directory(HostDirectory),
    /// An image of a container engine, by name or by id, read-only. What it says about users, programs, volumes and
    /// variables does not count.
    Image(String),
}

/// Everything a backend must know to build one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The session.
    pub session: SessionId,
    /// The installation that owns it.
    pub owner: OwnerId,
    /// Root file system.
    pub root: RootFileSystem,
    /// How an engine runs it; `None`: by the engine's own default, which shares the host's kernel. Of no meaning where
    /// there is no engine.
    #[serde(default)]
    pub runtime: Option<RuntimeClass>,
    /// What stands at [`WORKSPACE_PATH`]: written by the agent, comes back owned by its owner.
    pub workspace: HostDirectory,
    /// Protected paths of the workspace.
    pub protected: Vec<ProtectedPath>,
    /// Further mounts of the caller and the operator.
    pub mounts: Vec<BindMount>,
    /// The host's directory with Claude Code's program, mounted read-only at [`AGENT_DIRECTORY`]. `None`: what the root
    /// file system brings there, if anything.
    #[serde(default)]
    pub agent: Option<HostDirectory>,
    /// What stands in [`MANAGED_SETTINGS_NAME`] of [`MANAGED_SETTINGS_DIRECTORY`], read-only and alone: JSON. `None`:
    /// what the root file system brings there, if anything.
    #[serde(default)]
    pub managed_settings: Option<String>,
    /// What stands in [`CERTIFICATES_NAME`] of [`CERTIFICATES_DIRECTORY`], read-only and alone: certificates in PEM, at most
    /// [`MAX_CERTIFICATES_BYTES`]. Nothing inside looks there by itself: variables of the session name the file. `None`:
    /// what the root file system brings there, if anything.
    #[serde(default)]
    pub certificates: Option<String>,
    /// Resource limits.
    pub limits: Limits,
    /// A named limit that is only soft is accepted (`dangerously_accept_soft_limits`).
    pub accept_soft_limits: bool,
    /// Layers of protection, and how much each is insisted on.
    pub layers: Vec<(Layer, Requirement)>,
    /// How long the sandbox lives without a renewal, milliseconds.
    pub lease_ms: u32,
}

impl SandboxSpec {
    /// Whose kernel it is to have.
    pub fn kernel(&self) -> Kernel {
        self.runtime
            .as_ref()
            .map_or(Kernel::Shared, |class| class.kernel)
    }
}
