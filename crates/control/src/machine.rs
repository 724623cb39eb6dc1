//! What the machine has that sessions are made on, looked up for each new one: disks fill, and control groups are changed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread::available_parallelism,
};

use model::BackendName;
use policy::MachineFacts;
use rustix::fs::statvfs;

/// Where control groups are mounted, version 2 or the tree of version 1's controllers.
const GROUPS: &str = "/sys/fs/cgroup";

/// Looks at the machine. Sessions of an engine do not stand in the server's control group, all others do.
///
/// # Errors
/// When the kernel does not tell: then no session is promised anything.
pub(crate) fn look(
    state_directory: &Path,
    backend: Option<BackendName>,
) -> io::Result<MachineFacts> {
    let is_engine = match backend {
        Some(BackendName::Docker) => true,
        Some(BackendName::Native | BackendName::Fake) | None => false,
    };
    let (memory, swap) = memory_and_swap(&fs::read_to_string("/proc/meminfo")?)?;
    let all = memory.saturating_add(swap);
    let group = match is_engine {
        true => None,
        false => group_limit(
            &fs::read_to_string("/proc/self/cgroup")?,
            Path::new(GROUPS),
            swap,
        ),
    };
    let processors = match is_engine {
        true => processors(&fs::read_to_string("/proc/stat")?)?,
        // What the kernel lets the server run on, its control group included.
        false => available_parallelism()?.get() as u64,
    };
    let disk = statvfs(state_directory)?;
    Ok(MachineFacts {
        memory_bytes: group.map_or(all, |group| group.min(all)),
        cpu_millis: processors.saturating_mul(1_000),
        disk_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
    })
}

/// Bytes of each, from `/proc/meminfo`.
fn memory_and_swap(meminfo: &str) -> io::Result<(u64, u64)> {
    let value = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kibibytes.saturating_mul(1024))
    };
    let memory = value("MemTotal:").ok_or_else(|| unreadable("/proc/meminfo"))?;
    Ok((memory, value("SwapTotal:").unwrap_or(0)))
}

/// Lines `cpu0`, `cpu1`, … of `/proc/stat`.
fn processors(stat: &str) -> io::Result<u64> {
    let is_one = |line: &&str| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    match stat.lines().filter(is_one).count() {
        0 => Err(unreadable("/proc/stat")),
        count => Ok(count as u64),
    }
}

fn unreadable(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{file} does not tell"))
}

/// The least limit of memory and swap of the process's control group and those above it; nothing where none is set.
fn group_limit(membership: &str, mounted: &Path, swap: u64) -> Option<u64> {
    let limits = membership.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let path = Path::new(path.trim_start_matches('/'));
        if controllers.is_empty() {
            least(mounted, path, |group| version_2(group, swap))
        } else if controllers.split(',').any(|name| name == "memory") {
            least(&mounted.join("memory"), path, |group| {
                version_1(group, swap)
            })
        } else {
            None
        }
    });
    limits.min()
}

/// Of a group and those above it, as far as they are in sight.
fn least(top: &Path, path: &Path, limit: impl Fn(&Path) -> Option<u64>) -> Option<u64> {
    let groups: Vec<PathBuf> = path.ancestors().map(|above| top.join(above)).collect();
    groups.iter().filter_map(|group| limit(group)).min()
}

/// A file that says `max` has no number.
fn number(group: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(group.join(file))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn version_2(group: &Path, swap: u64) -> Option<u64> {
    let swap = number(group, "memory.swap.max").map_or(swap, |limit| limit.min(swap));
    Some(number(group, "memory.max")?.saturating_add(swap))
}

fn version_1(group: &Path, swap: u64) -> Option<u64> {
    let memory = number(group, "memory.limit_in_bytes")?.saturating_add(swap);
    Some(number(group, "memory.memsw.limit_in_bytes").map_or(memory, |both| both.min(memory)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn this_machine_can_be_looked_at() {
        for backend in [None, Some(BackendName::Native), Some(BackendName::Docker)] {
            let found = look(Path::new("/"), backend).unwrap();
            assert!(
                found.memory_bytes > GIB / 8 && found.cpu_millis >= 1_000,
                "{found:?}"
            );
        }
        assert!(
            look(Path::new("/nowhere"), None).is_err(),
            "what is not told is no number"
        );
    }

    #[test]
    fn memory_and_processors_are_read_as_the_kernel_writes_them() {
        let meminfo = "MemTotal:        8000000 kB\nMemFree: 1 kB\nSwapTotal:       2000000 kB\n";
        assert_eq!(
            memory_and_swap(meminfo).unwrap(),
            (8_192_000_000, 2_048_000_000)
        );
        assert_eq!(memory_and_swap("MemTotal: 1 kB\n").unwrap(), (1024, 0));
        assert!(memory_and_swap("MemFree: 1 kB\n").is_err());
        assert_eq!(
            processors("cpu  1 2\ncpu0 1\ncpu1 1\ncpufreq 1\n").unwrap(),
            2
        );
        assert!(processors("intr 1\n").is_err());
    }

    #[test]
    fn the_least_limit_of_a_group_and_those_above_counts() {
        let base = tempfile::tempdir().unwrap();
        let write = |path: &str, text: String| {
            let path = base.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let limit = |membership| group_limit(membership, base.path(), GIB);
        write("a/b/memory.max", "max\n".to_owned());
        assert_eq!(limit("0::/a/b\n"), None, "nothing is set");
        write("a/memory.max", (4 * GIB).to_string());
        assert_eq!(
            limit("0::/a/b\n"),
            Some(5 * GIB),
            "the one above, with all swap"
        );
        write("a/memory.swap.max", "0\n".to_owned());
        assert_eq!(limit("0::/a/b\n"), Some(4 * GIB), "without any");
        assert_eq!(limit("0::/\n"), None, "another group");
        write("memory/c/memory.limit_in_bytes", (2 * GIB).to_string());
        assert_eq!(limit("5:cpu,cpuacct:/c\n4:memory:/c\n"), Some(3 * GIB));
        write(
            "memory/c/memory.memsw.limit_in_bytes",
            (2 * GIB).to_string(),
        );
        assert_eq!(limit("4:memory:/c\n0::/a/b\n"), Some(2 * GIB));
    }
}
