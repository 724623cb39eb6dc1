//! A trial of the walls: the program run in a sandbox like any other, trying one after the other what has led out of
//! sandboxes before, and printing what became of each ([`wire::TrialFinding`], a line each).
//!
//! Nothing that is possible does harm: files are opened and never written, devices and mounts are taken away at once, what
//! changes a process happens in a child that ends. A call that the filter answers by killing ends that child alone.
//!
//! What this does not show: a way out that is not on the list.

use std::{
    ffi::CString,
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
};

use rustix::{
    fs::{AtFlags, CWD, Dev, FileType, Mode, OFlags, makedev, mknodat, open, openat, unlinkat},
    io::{self, Errno},
    mount::{MountFlags, UnmountFlags, mount, unmount},
    net::{AddressFamily, Protocol, SocketFlags, SocketType, netlink, socket_with},
    process::{Pid, Signal, WaitOptions, geteuid, getpid, kill_process, waitpid},
};
use wire::{Probe, TrialFinding, TrialOutcome};

use crate::{
    attestation::{interfaces, status_field},
    sys::{self, CStringArray, Forked, attempts},
};

/// The number of the machine's first pid namespace (`PROC_PID_INIT_INO` of the kernel): whoever is in it is in no sandbox.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Where what is made for a moment is made: the first that is there.
const SCRATCH: [&str; 3] = ["/tmp", "/dev/shm", "/"];
/// Steps up that are tried from an open directory: more than any path has.
const MAX_CLIMB: usize = 256;
/// Open descriptors that are looked at.
const MAX_DESCRIPTORS: usize = 256;
/// What `/proc` tells about the machine.
const HIDDEN_FILES: [&str; 4] = ["kcore", "keys", "timer_list", "interrupts"];
/// Programs that commonly have the set-user-ID bit, and print their version and end.
const SET_USER_ID_PROGRAMS: [&str; 8] = [
    "/usr/bin/su",
    "/bin/su",
    "/usr/bin/mount",
    "/bin/mount",
    "/usr/bin/passwd",
    "/usr/bin/chsh",
    "/usr/bin/sudo",
    "/bin/ping",
];
/// Exit status of a child that could not become another program.
const NO_PROGRAM: i32 = 127;

/// What became of a probe: see [`TrialFinding`].
struct Answer {
    outcome: TrialOutcome,
    errno: Option<Errno>,
    detail: String,
}

/// Carries out the trial. The report goes to standard output.
///
/// # Errors
/// Outside of any sandbox, and when the report cannot be written.
pub fn run() -> Result<(), String> {
    let namespace = fs::read_link("/proc/self/ns/pid")
        .map_err(|error| format!("cannot tell where this is: {error}"))?;
    if namespace.as_os_str() == FIRST_PID_NAMESPACE {
        return Err("refuses to try anything outside of a sandbox".to_owned());
    }
    let _ = sys::reset_signals();
    for probe in Probe::ALL {
        let answer = answer(*probe);
        let finding = TrialFinding {
            probe: *probe,
            outcome: answer.outcome,
            errno: answer.errno.map(Errno::raw_os_error),
            detail: answer.detail,
        };
        print(&(finding.to_line() + "\n")).map_err(|errno| format!("cannot report: {errno}"))?;
    }
    Ok(())
}

fn print(mut text: &str) -> io::Result<()> {
    while !text.is_empty() {
        match io::write(rustix::stdio::stdout(), text.as_bytes()) {
            Ok(count) => text = &text[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn answer(probe: Probe) -> Answer {
    match probe {
        Probe::Mount => in_child(mount_something),
        Probe::UserNamespace => in_child(attempts::enter_user_namespace),
        Probe::Keyring => in_child(attempts::add_key),
        Probe::Trace => in_child(|| with_child(attempts::trace)),
        Probe::ProcessMemory => in_child(|| with_child(attempts::read_memory)),
        Probe::CorePattern => opened("/proc/sys/kernel/core_pattern"),
        Probe::ReleaseAgent => release_agent(),
        Probe::MakeDevice => in_child(make_device),
        Probe::IoUring => in_child(|| attempts::set_up_io_uring().map(drop)),
        Probe::CryptoSocket => in_child(|| socket(libc::AF_ALG, SocketType::SEQPACKET, None)),
        Probe::VsockSocket => in_child(|| socket(libc::AF_VSOCK, SocketType::STREAM, None)),
        Probe::NetfilterSocket => {
            in_child(|| socket(libc::AF_NETLINK, SocketType::RAW, Some(netlink::NETFILTER)))
        }
        // Number 0 of its family, which is the default of every family.
        Probe::RouteSocket => in_child(|| socket(libc::AF_NETLINK, SocketType::RAW, None)),
        Probe::Bpf => in_child(|| attempts::make_bpf_map().map(drop)),
        Probe::PerfEvents => in_child(|| attempts::open_performance_event().map(drop)),
        Probe::UserFaults => in_child(|| attempts::open_user_faults().map(drop)),
        Probe::OwnProgram => own_program(),
        Probe::HostDescriptor => {
            host_descriptor().unwrap_or_else(|errno| unknown(errno, "/proc/self/fd"))
        }
        Probe::HiddenProcFiles => hidden_files(),
        Probe::LinkedDevices => linked_devices(),
        Probe::SetUserId => set_user_id(),
        Probe::NetworkInterface => network_interface(),
        Probe::WriteRoot => write_root(),
    }
}

fn found(outcome: TrialOutcome, detail: impl Into<String>) -> Answer {
    Answer {
        outcome,
        errno: None,
        detail: detail.into(),
    }
}

fn blocked(detail: impl Into<String>) -> Answer {
    found(TrialOutcome::Blocked, detail)
}

fn possible(detail: impl Into<String>) -> Answer {
    found(TrialOutcome::Possible, detail)
}

fn unknown(errno: Errno, detail: impl Into<String>) -> Answer {
    Answer {
        outcome: TrialOutcome::Unknown,
        errno: Some(errno),
        detail: detail.into(),
    }
}

/// Only what a filter, a missing capability, a permission or a read-only mount answers is a refusal. A filter's `ENOSYS` looks
/// like a kernel without the call, and keeps from it as well.
fn judge(answer: io::Result<()>) -> Answer {
    match answer {
        Ok(()) => possible(""),
        Err(errno @ (Errno::PERM | Errno::ACCESS | Errno::ROFS | Errno::NOSYS)) => Answer {
            outcome: TrialOutcome::Blocked,
            errno: Some(errno),
            detail: String::new(),
        },
        Err(errno @ (Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT)) => {
            unknown(errno, "the kernel has none")
        }
        Err(errno) => unknown(errno, ""),
    }
}

/// Tries it in a process of its own.
fn in_child(attempt: fn() -> io::Result<()>) -> Answer {
    let child = match sys::fork() {
        Ok(Forked::Child) => {
            let answer = attempt().map_or_else(Errno::raw_os_error, |()| 0);
            sys::exit_now(answer)
        }
        Ok(Forked::Parent(child)) => child,
        Err(errno) => return unknown(errno, "no process could be started"),
    };
    match waitpid(Some(child), WaitOptions::empty()) {
        Ok(Some((_, status))) => match (status.exit_status(), status.terminating_signal()) {
            (Some(0), _) => judge(Ok(())),
            (Some(errno), _) => judge(Err(Errno::from_raw_os_error(errno))),
            (None, Some(signal)) if signal == libc::SIGSYS => blocked("killed by the filter"),
            (None, _) => found(TrialOutcome::Unknown, "the process was killed"),
        },
        Ok(None) => unknown(Errno::CHILD, ""),
        Err(errno) => unknown(errno, "the process was not seen to end"),
    }
}

/// Gives it a child that sleeps, which is ended afterwards.
fn with_child(attempt: fn(Pid) -> io::Result<()>) -> io::Result<()> {
    let child = match sys::fork()? {
        Forked::Child => loop {
            let _ = rustix::event::poll(&mut [], None);
        },
        Forked::Parent(child) => child,
    };
    let answer = attempt(child);
    kill_process(child, Signal::KILL)?;
    waitpid(Some(child), WaitOptions::empty())?;
    answer
}

fn mount_something() -> io::Result<()> {
    let place = scratch();
    mount(c"none", place, c"tmpfs", MountFlags::empty(), None)?;
    unmount(place, UnmountFlags::DETACH)
}

fn scratch() -> &'static str {
    let is_there = |place: &&str| fs::metadata(place).is_ok_and(|found| found.is_dir());
    SCRATCH.into_iter().find(is_there).unwrap_or("/")
}

fn make_device() -> io::Result<()> {
    let path = format!(
        "{}/.claude-code-mcp-trial-{}",
        scratch(),
        getpid().as_raw_nonzero()
    );
    let null: Dev = makedev(1, 3);
    mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR, null)?;
    unlinkat(CWD, &path, AtFlags::empty())
}

fn socket(family: i32, kind: SocketType, protocol: Option<Protocol>) -> io::Result<()> {
    let family = u16::try_from(family).map_err(|_| Errno::AFNOSUPPORT)?;
    let family = AddressFamily::from_raw(family);
    socket_with(family, kind, SocketFlags::CLOEXEC, protocol).map(drop)
}

/// Opened for writing, and not written.
fn opened(path: &str) -> Answer {
    match open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => Answer {
            errno: Some(Errno::NOENT),
            ..blocked("there is none")
        },
        answer => judge(answer.map(drop)),
    }
}

/// Every hierarchy of version 1 has its own, in its first group.
fn release_agent() -> Answer {
    const GROUPS: &str = "/sys/fs/cgroup";
    let hierarchies = fs::read_dir(GROUPS).into_iter().flatten().flatten();
    let paths = hierarchies.map(|found| found.path().join("release_agent"));
    let mut best = Answer {
        errno: Some(Errno::NOENT),
        ..blocked("there is none")
    };
    for path in paths.filter(|path| path.exists()) {
        let path = path.to_string_lossy();
        let answer = Answer {
            detail: path.to_string(),
            ..opened(&path)
        };
        if answer.outcome == TrialOutcome::Possible {
            return answer;
        }
        best = answer;
    }
    best
}

fn own_program() -> Answer {
    match opened("/proc/self/exe") {
        // Only because it runs just now: nothing else keeps it from being written.
        Answer {
            errno: Some(Errno::TXTBSY),
            ..
        } => Answer {
            errno: Some(Errno::TXTBSY),
            ..possible("refused only while it runs")
        },
        answer => answer,
    }
}

/// A descriptor, or the working directory, from which `..` ends at another root than ours.
fn host_descriptor() -> io::Result<Answer> {
    let root = identity("/")?;
    let mut names: Vec<String> = fs::read_dir("/proc/self/fd")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .take(MAX_DESCRIPTORS)
        .map(|number| format!("/proc/self/fd/{number}"))
        .collect();
    let count = names.len();
    names.push(".".to_owned());
    for name in names {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // What is no directory, or was the listing above.
        let Ok(directory) = open(&name, flags, Mode::empty()) else {
            continue;
        };
        if !ends_at(directory, root)? {
            return Ok(possible(format!("{name} leads to another root")));
        }
    }
    Ok(blocked(format!(
        "{count} descriptors and the working directory stay inside"
    )))
}

type Identity = (u64, u64);

fn identity(path: &str) -> io::Result<Identity> {
    let found = rustix::fs::stat(path)?;
    Ok((found.st_dev, found.st_ino))
}

fn ends_at(mut directory: OwnedFd, root: Identity) -> io::Result<bool> {
    let mut last = None;
    for _ in 0..MAX_CLIMB {
        let found = rustix::fs::fstat(&directory)?;
        let here = (found.st_dev, found.st_ino);
        if here == root {
            return Ok(true);
        }
        if last == Some(here) {
            return Ok(false);
        }
        last = Some(here);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        directory = openat(&directory, "..", flags, Mode::empty())?;
    }
    Ok(false)
}

fn hidden_files() -> Answer {
    let tells = |name: &&str| {
        let file = open(
            format!("/proc/{name}"),
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
        );
        file.is_ok_and(|file| matches!(io::read(file, &mut [0; 64]), Ok(1..)))
    };
    let told: Vec<_> = HIDDEN_FILES.into_iter().filter(tells).collect();
    if told.is_empty() {
        blocked("empty, refused or not there")
    } else {
        possible(format!("{} can be read", told.join(", ")))
    }
}

fn linked_devices() -> Answer {
    let device = |path| fs::symlink_metadata(path).map(|found| found.dev());
    match fs::symlink_metadata("/dev") {
        Ok(found) if found.is_symlink() => possible("/dev is a link"),
        Ok(found) if device("/").is_ok_and(|root| root != found.dev()) => {
            let null = fs::symlink_metadata("/dev/null");
            match null.is_ok_and(|null| null.file_type().is_char_device()) {
                true => blocked("a mount of its own, with devices in it"),
                false => found_no_device(),
            }
        }
        Ok(_) => found(
            TrialOutcome::Unknown,
            "/dev is part of the root file system",
        ),
        Err(error) => unknown(
            Errno::from_io_error(&error).unwrap_or(Errno::IO),
            "/dev cannot be looked at",
        ),
    }
}

fn found_no_device() -> Answer {
    found(TrialOutcome::Unknown, "/dev/null is no device")
}

/// Runs a program that has the bit, and looks as whom it ran: the entry of a process that has ended keeps that until it is
/// reaped.
fn set_user_id() -> Answer {
    let own = geteuid();
    if own.is_root() {
        return found(TrialOutcome::Unknown, "root already");
    }
    let has_bit = |path: &&str| {
        fs::metadata(path).is_ok_and(|found| {
            found.is_file() && found.uid() == 0 && found.permissions().mode() & 0o4001 == 0o4001
        })
    };
    let Some(program) = SET_USER_ID_PROGRAMS.into_iter().find(has_bit) else {
        return if rustix::thread::no_new_privs() == Ok(true) {
            blocked("no_new_privs is set, and the image has none of the usual ones")
        } else {
            found(
                TrialOutcome::Unknown,
                "the image has none of the usual ones",
            )
        };
    };
    match ran_as(program) {
        Ok(Some(uid)) if uid == own.as_raw() => blocked(format!("{program} ran as uid {uid}")),
        Ok(Some(uid)) => possible(format!("{program} ran as uid {uid}")),
        Ok(None) => found(TrialOutcome::Unknown, format!("{program} did not run")),
        Err(errno @ (Errno::PERM | Errno::ACCESS)) => Answer {
            errno: Some(errno),
            ..blocked(format!("{program} is not run at all"))
        },
        Err(errno) => unknown(errno, program),
    }
}

/// The effective uid that it ended with.
fn ran_as(program: &str) -> io::Result<Option<u32>> {
    let path = CString::new(program).map_err(|_| Errno::INVAL)?;
    let arguments = CStringArray::new([program.as_bytes(), b"--version"]).ok_or(Errno::INVAL)?;
    let environment = CStringArray::new([]).ok_or(Errno::INVAL)?;
    let child = match sys::fork()? {
        Forked::Child => {
            if let Ok(null) = open("/dev/null", OFlags::RDWR, Mode::empty()) {
                let _ = rustix::stdio::dup2_stdin(&null);
                let _ = rustix::stdio::dup2_stdout(&null);
                let _ = rustix::stdio::dup2_stderr(&null);
            }
            sys::execute(&path, &arguments, &environment);
            sys::exit_now(NO_PROGRAM)
        }
        Forked::Parent(child) => child,
    };
    let ended = sys::wait_without_reaping();
    let status = fs::read_to_string(format!("/proc/{}/status", child.as_raw_nonzero()));
    waitpid(Some(child), WaitOptions::empty())?;
    let (_, raw) = ended?;
    if raw >> 8 == NO_PROGRAM {
        return Ok(None);
    }
    let status = status.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    // Real, effective, saved, of the file system: proc_pid_status(5).
    let effective = status_field(&status, "Uid").and_then(|ids| ids.split_whitespace().nth(1));
    Ok(effective.and_then(|uid| uid.parse().ok()))
}

fn network_interface() -> Answer {
    let Ok(text) = fs::read_to_string("/proc/net/dev") else {
        return found(TrialOutcome::Unknown, "/proc/net/dev cannot be read");
    };
    let all = interfaces(&text);
    if all.iter().all(|name| name == "lo") {
        blocked(format!("{} of them, lo alone", all.len()))
    } else {
        possible(all.join(", "))
    }
}

fn write_root() -> Answer {
    let mut first = None;
    for directory in ["/", "/usr", "/etc"] {
        let path = format!(
            "{directory}/.claude-code-mcp-trial-{}",
            getpid().as_raw_nonzero()
        );
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = open(&path, flags, Mode::RUSR);
        if made.is_ok() {
            let _ = unlinkat(CWD, &path, AtFlags::empty());
            return possible(directory);
        }
        first.get_or_insert(judge(made.map(drop)));
    }
    first.unwrap_or_else(|| found(TrialOutcome::Unknown, "not tried"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_counts_as_one() {
        for (answer, outcome) in [
            (Ok(()), TrialOutcome::Possible),
            (Err(Errno::PERM), TrialOutcome::Blocked),
            (Err(Errno::NOSYS), TrialOutcome::Blocked),
            (Err(Errno::ROFS), TrialOutcome::Blocked),
            (Err(Errno::AFNOSUPPORT), TrialOutcome::Unknown),
            (Err(Errno::NOMEM), TrialOutcome::Unknown),
            (Err(Errno::FAULT), TrialOutcome::Unknown),
        ] {
            assert_eq!(judge(answer).outcome, outcome, "{answer:?}");
        }
    }

    #[test]
    fn a_directory_is_inside_when_its_way_up_ends_at_the_root() {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let open = || open("/usr/bin", flags, Mode::empty()).unwrap();
        let root = identity("/").unwrap();
        assert_eq!(ends_at(open(), root), Ok(true));
        assert_eq!(
            ends_at(open(), (root.0, root.1 + 1)),
            Ok(false),
            "the control"
        );
    }
}
