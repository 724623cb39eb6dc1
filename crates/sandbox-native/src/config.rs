//! What the application decides about the backend.

use std::path::PathBuf;

use model::OwnerId;

use crate::HELPER_ARGUMENT;

/// First host uid (and gid) of the sandboxes' ranges: far above what directories and container engines hand out.
pub const DEFAULT_UID_RANGE_BASE: u32 = 2_000_000_000;
/// Ranges of 65,536 ids after [`DEFAULT_UID_RANGE_BASE`]; one for each living sandbox. 2,048 of them end below 2³¹, where
/// some file systems stop.
pub const DEFAULT_UID_RANGE_COUNT: u32 = 2_048;

/// How the backend is set up. The same for its whole life.
#[derive(Debug, Clone)]
pub struct NativeConfig {
    /// The server's state directory, mode 0700. The backend owns `native/` in it and nothing else.
    pub state_directory: PathBuf,
    /// The installation: part of every object's name.
    pub owner: OwnerId,
    /// The program that is executed again as helper; its `main` calls [`crate::helper_main`].
    pub helper: PathBuf,
    /// Its arguments.
    pub helper_arguments: Vec<String>,
    /// Further directories of the host, visible read-only at the same path inside: toolchains under a home, say. Without links:
    /// none is followed.
    pub extra_read_only: Vec<PathBuf>,
    /// First host id of the ranges that a root server gives to its sandboxes.
    pub uid_range_base: u32,
    /// How many ranges of 65,536 ids there are, which is also the most sandboxes a root server can run at once.
    pub uid_range_count: u32,
    /// Where limits are enforced.
    pub cgroup: CgroupChoice,
}

/// Where the sandboxes' control groups are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupChoice {
    /// The best place that this process can use: version 2 at its own group or the root, else version 1.
    Automatic,
    /// Below this directory of a version 2 hierarchy, delegated to this user.
    Below(PathBuf),
    /// Nowhere: what then cannot be enforced is reported as soft or none.
    Disabled,
}

impl NativeConfig {
    /// The usual setup: this very program is the helper.
    pub fn new(state_directory: PathBuf, owner: OwnerId) -> Self {
        NativeConfig {
            state_directory,
            owner,
            helper: PathBuf::from("/proc/self/exe"),
            helper_arguments: vec![HELPER_ARGUMENT.to_owned()],
            extra_read_only: Vec::new(),
            uid_range_base: DEFAULT_UID_RANGE_BASE,
            uid_range_count: DEFAULT_UID_RANGE_COUNT,
            cgroup: CgroupChoice::Automatic,
        }
    }
}
