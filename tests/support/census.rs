//! What sessions leave on the host, counted.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{Machine, walk};

/// Everything that sessions of a machine make on the host.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Census {
    pub processes: BTreeSet<i32>,
    pub cgroups: BTreeSet<PathBuf>,
    pub containers: BTreeSet<String>,
    pub instances: BTreeSet<PathBuf>,
    pub project: BTreeSet<PathBuf>,
    pub mounts: BTreeSet<String>,
}

impl Machine {
    /// Pids of supervisors whose sandbox belongs to this machine: those that can be told by the mounted socket directory.
    pub fn sandbox_pids(&self) -> Vec<i32> {
        let markers = BACKENDS.map(|name| self.state().join(name).display().to_string());
        pids()
            .into_iter()
            .filter(|pid| {
                let mounts =
                    fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
                let own = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
                mounts != own && markers.iter().any(|marker| mounts.contains(marker))
            })
            .collect()
    }

    /// The directories of all sandboxes on record.
    fn instances(&self) -> BTreeSet<PathBuf> {
        let places = BACKENDS.map(|name| self.state().join(name).join("sessions"));
        places
            .iter()
            .filter_map(|place| fs::read_dir(place).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
            .filter(|path| is_instance(path))
            .collect()
    }

    pub fn census(&self) -> Census {
        Census {
            processes: self.sandbox_pids().into_iter().collect(),
            cgroups: object_prefix(&self.state())
                .map(|prefix| cgroups(&prefix))
                .unwrap_or_default(),
            containers: self.containers(),
            instances: self.instances(),
            project: walk(&self.project).into_iter().collect(),
            mounts: fs::read_to_string("/proc/self/mountinfo")
                .unwrap_or_default()
                .lines()
                .filter(|line| line.contains(&self.base.display().to_string()))
                .map(str::to_owned)
                .collect(),
        }
    }
}

/// What backends call their directory in the server's state.
const BACKENDS: [&str; 2] = ["native", "docker"];

/// Where something is mounted below that directory, the deepest first.
pub(super) fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let targets = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut found: Vec<_> = targets
        .map(PathBuf::from)
        .filter(|target| target.starts_with(directory))
        .collect();
    found.reverse();
    found
}

fn is_instance(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("s-"))
}

fn pids() -> Vec<i32> {
    fs::read_dir("/proc")
        .map(|entries| {
            entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .collect()
        })
        .unwrap_or_default()
}

/// Name prefix of this installation's objects; `None` as long as it has never had any.
pub(super) fn object_prefix(state: &Path) -> Option<String> {
    let owner = fs::read_to_string(state.join("state.db.owner")).ok()?;
    Some(format!(
        "claude-code-{}",
        owner.trim().strip_prefix("o-")?.get(..8)?
    ))
}

pub(super) fn cgroups(prefix: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(prefix) {
                    found.insert(entry.path());
                }
                open.push(entry.path());
            }
        }
    }
    found
}
