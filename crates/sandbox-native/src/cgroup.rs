//! Control groups: where they can be made, limits, what is read back, removal. Version 2 first, version 1 for root.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use model::{LimitName, Limits, UsageView};
use rustix::{
    fs::{Mode, OFlags},
    process::Pid,
};
use sandbox_host::Groups;
use serde::{Deserialize, Serialize};

mod detect;

pub(crate) use detect::detect;

/// The group that holds the groups of all sandboxes.
const PARENT: &str = "claude-code-mcp";
/// Period of the CPU quota, microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// Smallest quota that the kernel takes, microseconds.
const CPU_QUOTA_MIN_US: u64 = 1_000;
/// Looks at a group that is still busy before giving up; with [`REMOVE_PAUSE`] between, half a second in all.
const REMOVE_ATTEMPTS: u32 = 250;
const REMOVE_PAUSE: Duration = Duration::from_millis(2);

/// Where groups are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Hierarchy {
    /// Nowhere.
    None,
    /// Version 1: mount points of the controllers, some of which may share one.
    Version1(Controllers),
    /// Version 2: the directory in which the sandboxes' groups are made, with its controllers switched on.
    Version2(PathBuf),
}

/// Mount points of version 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Controllers {
    /// `memory`.
    pub memory: Option<PathBuf>,
    /// `pids`.
    pub pids: Option<PathBuf>,
    /// `cpu`.
    pub cpu: Option<PathBuf>,
    /// `cpuacct`.
    pub cpuacct: Option<PathBuf>,
    /// `freezer`.
    pub freezer: Option<PathBuf>,
}

impl Controllers {
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        [
            &self.memory,
            &self.pids,
            &self.cpu,
            &self.cpuacct,
            &self.freezer,
        ]
        .into_iter()
        .flatten()
    }
}

/// What a process writes to a door to go through it.
pub(crate) const MYSELF: &[u8] = b"0";

impl Hierarchy {
    /// How that limit is held: `None` when not by a control group.
    pub fn holds(&self, limit: LimitName) -> Option<&'static str> {
        match (self, limit) {
            (Hierarchy::Version2(_), LimitName::MemoryBytes) => Some("cgroup v2 memory"),
            (Hierarchy::Version2(_), LimitName::Pids) => Some("cgroup v2 pids"),
            (Hierarchy::Version2(parent), LimitName::CpuMillis) => {
                let switched_on =
                    fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
                switched_on
                    .split_whitespace()
                    .any(|name| name == "cpu")
                    .then_some("cgroup v2 cpu")
            }
            (Hierarchy::Version1(found), LimitName::MemoryBytes) => {
                found.memory.as_ref().map(|_| "cgroup v1 memory")
            }
            (Hierarchy::Version1(found), LimitName::Pids) => {
                found.pids.as_ref().map(|_| "cgroup v1 pids")
            }
            (Hierarchy::Version1(found), LimitName::CpuMillis) => {
                found.cpu.as_ref().map(|_| "cgroup v1 cpu")
            }
            (
                _,
                LimitName::MemoryBytes
                | LimitName::Pids
                | LimitName::CpuMillis
                | LimitName::OpenFiles
                | LimitName::FileBytes
                | LimitName::TemporaryBytes
                | LimitName::StateBytes,
            ) => None,
        }
    }

    /// In one word for the rung's name.
    pub fn name(&self) -> &'static str {
        match self {
            Hierarchy::None => "no cgroup",
            Hierarchy::Version1(_) => "cgroup v1",
            Hierarchy::Version2(_) => "cgroup v2",
        }
    }

    /// A freezer is there.
    pub fn can_freeze(&self) -> bool {
        match self {
            Hierarchy::None => false,
            Hierarchy::Version1(found) => found.freezer.is_some(),
            Hierarchy::Version2(_) => true,
        }
    }

    /// The directories of one sandbox's groups.
    pub fn groups(&self, object_name: &str) -> Vec<PathBuf> {
        let mut groups = match self {
            Hierarchy::None => Vec::new(),
            Hierarchy::Version1(found) => found
                .all()
                .map(|point| point.join(PARENT).join(object_name))
                .collect(),
            Hierarchy::Version2(parent) => vec![parent.join(object_name)],
        };
        groups.dedup();
        groups
    }

    /// Names of all groups of sandboxes, of whichever owner.
    ///
    /// # Errors
    /// When a directory cannot be listed.
    pub fn object_names(&self) -> io::Result<Vec<String>> {
        let parents: Vec<PathBuf> = match self {
            Hierarchy::None => Vec::new(),
            Hierarchy::Version1(found) => found.all().map(|point| point.join(PARENT)).collect(),
            Hierarchy::Version2(parent) => vec![parent.clone()],
        };
        let mut names = Vec::new();
        for parent in parents {
            for entry in fs::read_dir(parent)? {
                names.extend(entry?.file_name().into_string().ok());
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Makes the groups and sets the limits.
    ///
    /// # Errors
    /// When a limit cannot be set. What was made stays, for [`Hierarchy::remove`].
    pub fn create(&self, object_name: &str, limits: &Limits) -> io::Result<()> {
        for group in self.groups(object_name) {
            match fs::create_dir(&group) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        let memory = limits.memory_bytes.value.to_string();
        let pids = limits.pids.value.to_string();
        let quota =
            (limits.cpu_millis.value.saturating_mul(CPU_PERIOD_US) / 1000).max(CPU_QUOTA_MIN_US);
        match self {
            Hierarchy::None => Ok(()),
            Hierarchy::Version2(parent) => {
                let group = parent.join(object_name);
                write(&group.join("memory.max"), &memory)?;
                write_if_there(&group.join("memory.swap.max"), "0")?;
                write(&group.join("pids.max"), &pids)?;
                write_if_there(&group.join("cpu.max"), &format!("{quota} {CPU_PERIOD_US}"))
            }
            Hierarchy::Version1(found) => {
                let group = |point: &PathBuf| point.join(PARENT).join(object_name);
                if let Some(group) = found.memory.as_ref().map(group) {
                    write(&group.join("memory.limit_in_bytes"), &memory)?;
                    write_if_there(&group.join("memory.memsw.limit_in_bytes"), &memory)?;
                }
                if let Some(group) = found.pids.as_ref().map(group) {
                    write(&group.join("pids.max"), &pids)?;
                }
                if let Some(group) = found.cpu.as_ref().map(group) {
                    write(&group.join("cpu.cfs_period_us"), &CPU_PERIOD_US.to_string())?;
                    write(&group.join("cpu.cfs_quota_us"), &quota.to_string())?;
                }
                Ok(())
            }
        }
    }

    /// The group that a process can be born in: version 2 only.
    ///
    /// # Errors
    /// When the group cannot be opened.
    pub fn birth_group(&self, object_name: &str) -> io::Result<Option<OwnedFd>> {
        match self {
            Hierarchy::None | Hierarchy::Version1(_) => Ok(None),
            Hierarchy::Version2(parent) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                Ok(Some(rustix::fs::open(
                    parent.join(object_name),
                    flags,
                    Mode::empty(),
                )?))
            }
        }
    }

    /// Ways into the groups that a process is not born in: whoever writes [`MYSELF`] to one of them is inside. Opened by
    /// the helper, since the kernel asks who opened it.
    ///
    /// A process that moves itself is moved at once. Moving another one stops every fork on the machine until all
    /// processors have passed by, some ten milliseconds.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn doors(&self, object_name: &str) -> io::Result<Vec<File>> {
        match self {
            Hierarchy::None | Hierarchy::Version2(_) => Ok(Vec::new()),
            Hierarchy::Version1(_) => self
                .groups(object_name)
                .iter()
                .map(|group| File::options().write(true).open(group.join("tasks")))
                .collect(),
        }
    }

    /// Whether that process is in every one of the groups, as the kernel tells.
    pub fn holds_process(&self, object_name: &str, pid: Pid) -> bool {
        let member = |group: &PathBuf| {
            let pid = pid.as_raw_nonzero().to_string();
            read(&group.join("cgroup.procs"))
                .is_some_and(|pids| pids.lines().any(|line| line == pid))
        };
        self.groups(object_name).iter().all(member)
    }

    /// Removes the groups; right after their last process ended the kernel is still busy with them.
    ///
    /// # Errors
    /// When one stays.
    pub fn remove(&self, object_name: &str) -> io::Result<()> {
        self.groups(object_name)
            .iter()
            .try_for_each(|group| remove_group(group))
    }

    /// The groups of one sandbox, to be read.
    pub fn reading(&self, object_name: &str) -> Option<Groups> {
        let group = |point: &Option<PathBuf>| Some(point.as_ref()?.join(PARENT).join(object_name));
        match self {
            Hierarchy::None => None,
            Hierarchy::Version2(parent) => Some(Groups::Version2(parent.join(object_name))),
            Hierarchy::Version1(found) => Some(Groups::Version1 {
                memory: group(&found.memory),
                pids: group(&found.pids),
                cpu: group(&found.cpu),
                cpuacct: group(&found.cpuacct),
            }),
        }
    }

    /// The limit that the kernel holds, in the limit's own unit.
    pub fn read_back(&self, object_name: &str, limit: LimitName) -> Option<u64> {
        self.reading(object_name)?.read_back(limit)
    }

    /// Resources in use.
    pub fn usage(&self, object_name: &str) -> UsageView {
        self.reading(object_name)
            .map_or_else(UsageView::default, |groups| groups.usage())
    }

    /// Stops or continues all processes of the group.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn freeze(&self, object_name: &str, frozen: bool) -> io::Result<()> {
        match self {
            Hierarchy::None => Err(io::ErrorKind::Unsupported.into()),
            Hierarchy::Version2(parent) => write(
                &parent.join(object_name).join("cgroup.freeze"),
                if frozen { "1" } else { "0" },
            ),
            Hierarchy::Version1(found) => {
                let point = found.freezer.as_ref().ok_or(io::ErrorKind::Unsupported)?;
                let state = if frozen { "FROZEN" } else { "THAWED" };
                write(
                    &point.join(PARENT).join(object_name).join("freezer.state"),
                    state,
                )
            }
        }
    }
}

fn remove_group(group: &Path) -> io::Result<()> {
    let mut attempt = 0;
    loop {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && attempt < REMOVE_ATTEMPTS =>
            {
                attempt += 1;
                thread::sleep(REMOVE_PAUSE);
            }
            other => return other,
        }
    }
}

fn write(path: &Path, content: &str) -> io::Result<()> {
    File::options()
        .write(true)
        .open(path)?
        .write_all(content.as_bytes())
}

fn write_if_there(path: &Path, content: &str) -> io::Result<()> {
    match write(path, content) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn read(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Limit;

    /// A directory with the files that the kernel would make.
    fn version_2_group(files: &[(&str, &str)]) -> (tempfile::TempDir, Hierarchy) {
        let directory = tempfile::tempdir().unwrap();
        let group = directory.path().join("sandbox");
        fs::create_dir(&group).unwrap();
        for (file, content) in files {
            fs::write(group.join(file), content).unwrap();
        }
        let hierarchy = Hierarchy::Version2(directory.path().to_owned());
        (directory, hierarchy)
    }

    fn limits() -> Limits {
        let limit = Limit::default_of;
        Limits {
            memory_bytes: limit(64 << 20),
            cpu_millis: limit(1_500),
            pids: limit(32),
            open_files: limit(1),
            file_bytes: limit(1),
            temporary_bytes: limit(1),
            state_bytes: limit(1),
        }
    }

    #[test]
    fn version_2_limits_are_written_in_the_kernels_form_and_read_back() {
        let empty = ["memory.max", "memory.swap.max", "pids.max", "cpu.max"].map(|file| (file, ""));
        let (directory, hierarchy) = version_2_group(&empty);
        hierarchy.create("sandbox", &limits()).unwrap();
        let content =
            |file: &str| fs::read_to_string(directory.path().join("sandbox").join(file)).unwrap();
        assert_eq!(content("cpu.max"), "150000 100000");
        assert_eq!(content("memory.swap.max"), "0");
        let read = |limit| hierarchy.read_back("sandbox", limit);
        assert_eq!(read(LimitName::MemoryBytes), Some(64 << 20));
        assert_eq!(read(LimitName::Pids), Some(32));
        assert_eq!(read(LimitName::CpuMillis), Some(1_500));
        assert_eq!(read(LimitName::OpenFiles), None);
    }

    #[test]
    fn a_version_2_limit_that_is_not_in_force_reads_as_none() {
        let (_directory, hierarchy) =
            version_2_group(&[("memory.max", "max\n"), ("cpu.max", "max 100000\n")]);
        assert_eq!(hierarchy.read_back("sandbox", LimitName::MemoryBytes), None);
        assert_eq!(hierarchy.read_back("sandbox", LimitName::CpuMillis), None);
    }

    #[test]
    fn a_missing_memory_file_fails_creation() {
        let (_directory, hierarchy) = version_2_group(&[("pids.max", "")]);
        assert!(hierarchy.create("sandbox", &limits()).is_err());
    }

    #[test]
    fn version_2_usage_comes_from_its_files() {
        let files = [
            ("memory.current", "4096\n"),
            ("cpu.stat", "usage_usec 77\nuser_usec 1\n"),
            ("pids.current", "3\n"),
            ("memory.events", "oom 2\noom_kill 1\n"),
        ];
        let (_directory, hierarchy) = version_2_group(&files);
        let wanted = UsageView {
            memory_bytes: Some(4096),
            cpu_us: Some(77),
            pids: Some(3),
            oom_kills: Some(1),
        };
        assert_eq!(hierarchy.usage("sandbox"), wanted);
    }
}
