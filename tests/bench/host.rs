//! What the machine says about itself and about processes.

use std::{fs, path::Path};

use crate::support::Machine;

/// First line of a file that starts with a name, without the name.
fn field(path: &str, name: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(|rest| rest.trim_matches([' ', '\t', ':', '=', '"']).to_owned())
}

/// A size of `/proc`, KiB.
fn kib(path: &str, name: &str) -> u64 {
    field(path, name)
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or_default()
}

/// Resident memory of a process, KiB.
pub fn resident_kib(pid: i32) -> u64 {
    kib(&format!("/proc/{pid}/status"), "VmRSS")
}

/// The kernel's estimate of memory that can still be had, KiB: the median of a second's readings.
pub fn available_kib() -> u64 {
    let mut readings: Vec<u64> = (0..20)
        .map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            kib("/proc/meminfo", "MemAvailable")
        })
        .collect();
    readings.sort_unstable();
    readings[readings.len() / 2]
}

/// Pid on the host of the sandboxes' pid 1.
pub fn supervisors(machine: &Machine) -> Vec<i32> {
    machine
        .sandbox_pids()
        .into_iter()
        .filter(|pid| {
            field(&format!("/proc/{pid}/status"), "NSpid")
                .is_some_and(|ids| ids.split_whitespace().last() == Some("1"))
        })
        .collect()
}

/// Load averages over 1, 5 and 15 minutes.
pub fn load() -> String {
    fs::read_to_string("/proc/loadavg")
        .unwrap_or_default()
        .split(' ')
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Processors, memory, system and kernel in one line.
pub fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "?".to_owned());
    let memory = kib("/proc/meminfo", "MemTotal") >> 20;
    let system = field("/etc/os-release", "PRETTY_NAME").unwrap_or_else(|| "?".to_owned());
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel: Vec<_> = release.split('.').take(2).collect();
    let cgroups = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "cgroup v2"
    } else {
        "cgroup v1"
    };
    format!(
        "{cpus} × {processor}, {memory} GiB, {system}, kernel {}, {cgroups}",
        kernel.join(".")
    )
}
