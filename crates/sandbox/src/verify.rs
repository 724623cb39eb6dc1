//! Is a running sandbox as strong as its spec asks?

use std::fmt;
use std::{fs, io, os::unix::fs::MetadataExt};

use model::{Attestation, Enforcement, LayerInForce, LimitName, SandboxSpec};

use crate::Inspection;

/// What the host knows of itself, for comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostView {
    /// Inodes of the host's `/proc/self/ns/{user,mnt,pid,net,ipc,uts,cgroup}`; 0 where unknown.
    pub namespaces: [u64; 7],
}

impl HostView {
    /// The view of this process.
    ///
    /// # Errors
    /// When `/proc/self/ns` cannot be read.
    pub fn read() -> io::Result<Self> {
        let mut namespaces = [0; 7];
        for (inode, name) in namespaces
            .iter_mut()
            .zip(["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"])
        {
            *inode = match fs::metadata(format!("/proc/self/ns/{name}")) {
                Ok(found) => found.ino(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(error),
            };
        }
        Ok(HostView { namespaces })
    }
}

/// A limit that does not hold as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeakLimit {
    /// Which.
    pub limit: LimitName,
    /// What was asked.
    pub asked: u64,
    /// What was found, if anything.
    pub in_force: Option<u64>,
    /// How strongly it holds.
    pub enforcement: Enforcement,
}

/// A mount that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlaw {
    /// Mount point inside.
    pub target: String,
    /// What is wrong with it.
    pub flaw: &'static str,
}

/// All that makes a sandbox weaker than its spec.
#[derive(Debug, Clone, PartialEq, Eq, Default, thiserror::Error)]
pub struct Weakness {
    /// Required layers that were not found in force.
    pub layers: Vec<LayerInForce>,
    /// Limits that do not hold as asked.
    pub limits: Vec<WeakLimit>,
    /// Mounts that are not as they must be.
    pub mounts: Vec<MountFlaw>,
    /// What is wrong with the supervisor itself.
    pub supervisor: Vec<&'static str>,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sandbox is weaker than its profile")
    }
}

/// Combines what the supervisor reads inside with what the backend reads outside.
///
/// # Errors
/// [`Weakness`] with everything that is missing.
pub fn verify(
    _spec: &SandboxSpec,
    _inside: &wire::Attestation,
    _outside: &Inspection,
    _host: &HostView,
) -> Result<Attestation, Weakness> {
    Err(Weakness::default())
}
