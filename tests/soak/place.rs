//! A machine with the census of everything that its sessions can leave, and what to do to it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::ffi::OsStrExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Machine, PATIENCE, User, census::Census, walk};

/// A machine, and what was there before its first session.
pub struct Place {
    pub machine: Machine,
    before: Everything,
}

/// More than the tests' census: also what the backend writes down, sockets, and processes by their environment or cgroup.
#[derive(Debug, PartialEq, Eq)]
struct Everything {
    census: Census,
    records: BTreeSet<String>,
    sockets: usize,
    strangers: BTreeSet<i32>,
}

impl Place {
    pub fn new(user: User, settings: &[(&str, &str)]) -> Self {
        let mut machine = Machine::new(user);
        machine.set("CLAUDE_CODE_MCP_IDLE_EXIT_SECONDS", "600");
        // Nobody calls as often as these.
        for kind in [
            "CALLS",
            "CREATES",
            "EXECUTIONS",
            "TRANSFERS",
            "SESSION_CALLS",
        ] {
            machine.set(&format!("CLAUDE_CODE_MCP_RATE_{kind}_PER_MINUTE"), "0");
        }
        for (name, value) in settings {
            machine.set(name, value);
        }
        machine.write("README.md", "a project");
        // A first session makes what stays: the owner, the database, the socket, empty directories.
        let mut client = machine.client();
        let session = client.create(&machine.project);
        client.output(&session, "true");
        client.destroy(&session);
        let before = Everything::count(&machine);
        Place { machine, before }
    }

    /// Waits until everything is as it was before.
    pub fn settled(&self) -> Result<(), String> {
        self.settled_within(PATIENCE)
    }

    pub fn settled_within(&self, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        loop {
            let now = Everything::count(&self.machine);
            if now == self.before {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "the census differs.\nbefore: {:#?}\nafter: {now:#?}\n{}",
                    self.before,
                    self.log()
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the server where one runs; waits until it is dead.
    pub fn kill_server(&self) -> bool {
        let Some(pid) = self.machine.server_pid() else {
            return false;
        };
        if !belongs(pid, &self.machine) {
            return false;
        }
        kill(pid);
        true
    }

    /// Ends the server as an operator does.
    pub fn stop_server(&self) {
        let _ = self.machine.cli(&["server", "stop"]);
        let deadline = Instant::now() + PATIENCE;
        while self.machine.server_pid().is_some() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn check_audit(&self) -> Result<(), String> {
        let verified = self.machine.cli(&["audit", "verify"]);
        if verified.status.success() {
            return Ok(());
        }
        Err(format!(
            "the audit log does not verify: {}",
            String::from_utf8_lossy(&verified.stderr)
        ))
    }

    /// The last words of the server.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.machine.state().join("server.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(25)..];
        format!("end of server.log:\n{}", last.join("\n"))
    }
}

impl Everything {
    fn count(machine: &Machine) -> Self {
        let native = machine.state().join("native");
        // Of a record only that it is there; ranges and sessions alike.
        let records = walk(&native)
            .iter()
            .filter_map(|path| Some(path.strip_prefix(&native).ok()?.display().to_string()))
            .collect();
        let sockets = walk(&machine.base().join("run"))
            .into_iter()
            .chain(walk(&machine.state()))
            .filter(|path| is_socket(path))
            .count();
        Everything {
            census: machine.census(),
            records,
            sockets,
            strangers: strangers(machine),
        }
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// Processes that know this machine's directories, without its server and its fronts.
fn strangers(machine: &Machine) -> BTreeSet<i32> {
    let server = machine.server_pid();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| Some(*pid) != server && belongs(*pid, machine) && !is_front(*pid))
        .collect()
}

/// Whether a process was started on this machine: what it was started with says so.
fn belongs(pid: i32, machine: &Machine) -> bool {
    let base = machine.base().as_os_str().as_bytes();
    ["environ", "cmdline"].iter().any(|file| {
        fs::read(format!("/proc/{pid}/{file}"))
            .is_ok_and(|content| content.windows(base.len()).any(|window| window == base))
    })
}

/// A front is a child of this program.
fn is_front(pid: i32) -> bool {
    let own = std::process::id().to_string();
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("PPid:"))
            .is_some_and(|parent| parent.trim() == own)
    })
}

/// Kills a process and waits until it is gone or a zombie.
pub fn kill(pid: i32) {
    let Some(target) = Pid::from_raw(pid) else {
        return;
    };
    let _ = kill_process(target, Signal::KILL);
    let deadline = Instant::now() + PATIENCE;
    while is_alive(pid) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| !rest.trim_start().starts_with('Z'))
    })
}
