//! Control groups as they are read: which limits the kernel holds, and what is in use. Who made them does not matter.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use model::{LimitName, UsageView};

/// The directories of one sandbox's groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Groups {
    /// Version 1: one for each controller that is there.
    Version1 {
        /// `memory`.
        memory: Option<PathBuf>,
        /// `pids`.
        pids: Option<PathBuf>,
        /// `cpu`.
        cpu: Option<PathBuf>,
        /// `cpuacct`.
        cpuacct: Option<PathBuf>,
    },
    /// Version 2: a single one.
    Version2(PathBuf),
}

impl Groups {
    /// The groups that a process is in, as far as they can be seen from here.
    ///
    /// # Errors
    /// When the process is gone, or `/proc` cannot be read.
    pub fn of_process(pid: i32) -> io::Result<Self> {
        let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self::find(&memberships, &mounts))
    }

    fn find(memberships: &str, mounts: &str) -> Self {
        let version_1 = |controller: &str| {
            let path = memberships.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                controllers
                    .split(',')
                    .any(|name| name == controller)
                    .then_some(path)
            })?;
            let (point, _) = mount_points(mounts, "cgroup")
                .find(|(_, options)| options.split(',').any(|option| option == controller))?;
            Some(point.join(path.strip_prefix('/')?))
        };
        let memory = version_1("memory");
        let (pids, cpu, cpuacct) = (version_1("pids"), version_1("cpu"), version_1("cpuacct"));
        let unified = memberships
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .and_then(|path| Some(mount_points(mounts, "cgroup2").next()?.0.join(path)));
        match unified {
            Some(group)
                if [&memory, &pids, &cpu, &cpuacct]
                    .iter()
                    .all(|it| it.is_none()) =>
            {
                Groups::Version2(group)
            }
            Some(_) | None => Groups::Version1 {
                memory,
                pids,
                cpu,
                cpuacct,
            },
        }
    }

    /// What holds that limit, where a group does.
    pub fn mechanism(&self, limit: LimitName) -> Option<&'static str> {
        let one = matches!(self, Groups::Version1 { .. });
        match limit {
            LimitName::MemoryBytes if one => Some("cgroup v1 memory"),
            LimitName::CpuMillis if one => Some("cgroup v1 cpu"),
            LimitName::Pids if one => Some("cgroup v1 pids"),
            LimitName::MemoryBytes => Some("cgroup v2 memory"),
            LimitName::CpuMillis => Some("cgroup v2 cpu"),
            LimitName::Pids => Some("cgroup v2 pids"),
            LimitName::OpenFiles
            | LimitName::FileBytes
            | LimitName::TemporaryBytes
            | LimitName::StateBytes => None,
        }
    }

    /// The limit that the kernel holds, in the limit's own unit.
    pub fn read_back(&self, limit: LimitName) -> Option<u64> {
        match limit {
            LimitName::MemoryBytes => self.memory_limit(),
            LimitName::Pids => match self {
                Groups::Version1 { pids, .. } => number(pids.as_ref()?, "pids.max"),
                Groups::Version2(group) => number(group, "pids.max"),
            },
            LimitName::CpuMillis => self.cpu_limit(),
            LimitName::OpenFiles
            | LimitName::FileBytes
            | LimitName::TemporaryBytes
            | LimitName::StateBytes => None,
        }
    }

    fn memory_limit(&self) -> Option<u64> {
        match self {
            Groups::Version1 { memory, .. } => number(memory.as_ref()?, "memory.limit_in_bytes"),
            Groups::Version2(group) => number(group, "memory.max"),
        }
    }

    fn cpu_limit(&self) -> Option<u64> {
        match self {
            Groups::Version1 { cpu, .. } => {
                let group = cpu.as_ref()?;
                cpu_millis(
                    number(group, "cpu.cfs_quota_us")?,
                    number(group, "cpu.cfs_period_us")?,
                )
            }
            Groups::Version2(group) => {
                let line = read(&group.join("cpu.max"))?;
                let (quota, period) = line.split_once(' ')?;
                cpu_millis(quota.parse().ok()?, period.parse().ok()?)
            }
        }
    }

    /// Memory and swap together, bytes, or swap alone in version 2: what a sandbox may use beyond its memory.
    pub fn swap_beyond_memory(&self) -> Option<u64> {
        match self {
            Groups::Version1 { memory, .. } => {
                let group = memory.as_ref()?;
                let both = number(group, "memory.memsw.limit_in_bytes")?;
                Some(both.saturating_sub(number(group, "memory.limit_in_bytes")?))
            }
            Groups::Version2(group) => number(group, "memory.swap.max"),
        }
    }

    /// Whether a sandbox gets more than its memory by swapping: an engine whose kernel does not account for swap drops that
    /// part of what it is asked, with a warning. `host_has_swap` says whether there is anything to swap to.
    pub fn can_swap(&self, host_has_swap: bool) -> bool {
        match (self.swap_beyond_memory(), self) {
            (Some(beyond), _) => beyond > 0 && host_has_swap,
            (None, Groups::Version1 { memory, .. }) => {
                // The kernel swaps nothing of such a group (memory.txt of cgroup-v1, section 5.3).
                let never = memory
                    .as_ref()
                    .and_then(|group| number(group, "memory.swappiness"));
                never != Some(0) && host_has_swap
            }
            (None, Groups::Version2(_)) => host_has_swap,
        }
    }

    /// Resources in use.
    pub fn usage(&self) -> UsageView {
        match self {
            Groups::Version2(group) => UsageView {
                memory_bytes: number(group, "memory.current"),
                cpu_us: field(&group.join("cpu.stat"), "usage_usec"),
                pids: number(group, "pids.current"),
                oom_kills: field(&group.join("memory.events"), "oom_kill"),
            },
            Groups::Version1 {
                memory,
                pids,
                cpuacct,
                ..
            } => UsageView {
                memory_bytes: memory
                    .as_ref()
                    .and_then(|group| number(group, "memory.usage_in_bytes")),
                cpu_us: cpuacct
                    .as_ref()
                    .and_then(|group| Some(number(group, "cpuacct.usage")? / 1000)),
                pids: pids
                    .as_ref()
                    .and_then(|group| number(group, "pids.current")),
                oom_kills: memory
                    .as_ref()
                    .and_then(|group| field(&group.join("memory.oom_control"), "oom_kill")),
            },
        }
    }
}

/// Whether this machine swaps at all; where that cannot be read, it may.
pub fn host_has_swap() -> bool {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory
        .lines()
        .find_map(|line| line.strip_prefix("SwapTotal:"));
    total.is_none_or(|total| total.trim() != "0 kB")
}

/// Mount points and super-block options of that file system type, from the lines of `mountinfo`.
pub fn mount_points<'text>(
    mounts: &'text str,
    kind: &'text str,
) -> impl Iterator<Item = (PathBuf, &'text str)> {
    mounts.lines().filter_map(move |line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let found = after.next()? == kind;
        let options = after.nth(1)?;
        found.then_some((PathBuf::from(before.split(' ').nth(4)?), options))
    })
}

fn number(group: &Path, file: &str) -> Option<u64> {
    read(&group.join(file))?.parse().ok()
}

fn cpu_millis(quota_us: u64, period_us: u64) -> Option<u64> {
    quota_us.checked_mul(1000)?.checked_div(period_us)
}

fn read(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim_end().to_owned())
}

fn field(path: &Path, name: &str) -> Option<u64> {
    read(path)?
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_without_a_bound_on_swap_is_told_from_memory_alone() {
        let check = |version_1: bool, files: &[(&str, &str)]| {
            let group = tempfile::tempdir().unwrap();
            for (name, content) in files {
                fs::write(group.path().join(name), format!("{content}\n")).unwrap();
            }
            let memory = group.path().to_owned();
            let groups = match version_1 {
                true => Groups::Version1 {
                    memory: Some(memory),
                    pids: None,
                    cpu: None,
                    cpuacct: None,
                },
                false => Groups::Version2(memory),
            };
            assert!(!groups.can_swap(false), "there is nothing to swap to");
            groups.can_swap(true)
        };
        let limit = ("memory.limit_in_bytes", "4096");
        let both = |bytes| ("memory.memsw.limit_in_bytes", bytes);
        assert!(!check(true, &[limit, both("4096")]));
        assert!(check(true, &[limit, both("8192")]));
        assert!(!check(true, &[limit, ("memory.swappiness", "0")]));
        assert!(check(true, &[limit, ("memory.swappiness", "60")]));
        assert!(!check(false, &[("memory.swap.max", "0")]));
        assert!(check(false, &[("memory.swap.max", "max")]));
        assert!(check(false, &[]), "not accounted for");
    }

    #[test]
    fn a_process_is_found_in_every_controllers_group() {
        let mounts = "31 30 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      33 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = Groups::find(
            "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n",
            mounts,
        );
        let cpu = Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/docker/abc"));
        let wanted = Groups::Version1 {
            memory: Some("/sys/fs/cgroup/memory/docker/abc".into()),
            pids: None,
            cpu: cpu.clone(),
            cpuacct: cpu,
        };
        assert_eq!(found, wanted);
        let unified = Groups::find(
            "0::/system.slice/docker-abc.scope\n",
            "33 30 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        );
        assert_eq!(
            unified,
            Groups::Version2("/sys/fs/cgroup/system.slice/docker-abc.scope".into())
        );
    }
}
