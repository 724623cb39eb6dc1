//! What the server tells the helper, and what the helper answers. JSON in one message each way; descriptors travel with
//! it.

use std::path::PathBuf;

use model::SandboxSpec;
use serde::{Deserialize, Serialize};

use sandbox_host::Owners;
pub(crate) use sandbox_host::{At, Failure, FailureKind, RANGE_IDS};

use crate::{cgroup::Hierarchy, seccomp::Filter};

/// Longest message between server and helper, bytes: protected paths and mounts dominate, a few hundred each.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Server to helper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Build a sandbox.
    Create(Box<Plan>),
    /// Build the smallest thing that has all namespaces, say how far it came, and remove it.
    Probe(Identity),
}

/// Everything that is needed to build one sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// What was asked.
    pub spec: SandboxSpec,
    /// The instance directory, which exists with `socket/` and `state/`.
    pub instance: PathBuf,
    /// Name of every object of the session.
    pub object_name: String,
    /// Whose ids stand behind those inside.
    pub identity: Identity,
    /// Where control groups are made.
    pub hierarchy: Hierarchy,
    /// Directories of the host that the operator offers, canonical.
    pub extra_read_only: Vec<PathBuf>,
    /// The supervisor's arguments.
    pub supervisor_arguments: Vec<String>,
    /// The system-call filter, compiled by the server.
    pub filter: Filter,
}

/// Whose ids stand behind those inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Identity {
    /// Root gives each sandbox a range of its own that belongs to no account.
    Range {
        /// First host id.
        base: u32,
    },
    /// An ordinary user: the agent is the user, the other ids come from the user's subordinate ranges.
    Subordinate {
        /// The user, and the agent inside.
        uid: u32,
        /// Its group.
        gid: u32,
        /// First subordinate uid; there are [`RANGE_IDS`].
        uid_start: u32,
        /// First subordinate gid; there are [`RANGE_IDS`].
        gid_start: u32,
    },
    /// An ordinary user without subordinate ranges: the agent is the user, and no other id exists inside.
    Single {
        /// The user, and the agent inside.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// Helper to server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The supervisor runs. Its pidfd comes along.
    Created {
        /// Pid of the sandbox's pid 1, as the server sees it.
        pid: i32,
    },
    /// The probe came to its end.
    Probed,
    /// It did not happen, and nothing of it is left.
    Failed(Failure),
}

impl Identity {
    /// How mounts show the owners of their files to it.
    pub fn owners(self) -> Owners {
        match self {
            Identity::Range { base } => Owners::Mapped { base },
            Identity::Subordinate { uid, .. } | Identity::Single { uid, .. } => {
                Owners::Caller { uid }
            }
        }
    }
}
