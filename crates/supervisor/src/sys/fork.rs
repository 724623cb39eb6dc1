//! Processes and their descriptors.

use std::os::fd::RawFd;

use rustix::{
    io::{self, Errno},
    process::Pid,
};

/// Which side of a fork this is.
pub enum Forked {
    /// The new process.
    Child,
    /// The old one, and the new one's id.
    Parent(Pid),
}

/// Forks. The child must leave through [`exit_now`] or an exec, never by returning from its caller: destructors and
/// buffers belong to the parent.
pub fn fork() -> io::Result<Forked> {
    // JUSTIFICATION: stubs and transfer workers must inherit being not dumpable, which an exec would reset; no safe
    // crate forks.
    // SAFETY: this process has one thread, so the child's copy of every lock and of the allocator is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(last_error()),
        0 => Ok(Forked::Child),
        pid => Pid::from_raw(pid).map(Forked::Parent).ok_or(Errno::INVAL),
    }
}

/// Ends this process without running destructors or exit handlers.
pub fn exit_now(status: i32) -> ! {
    // JUSTIFICATION: a forked child must not run the parent's exit handlers.
    // SAFETY: `_exit` has no preconditions and does not return.
    unsafe { libc::_exit(status) }
}

/// Highest number that a descriptor can have: gVisor's close_range(2) takes no higher one.
const LAST_DESCRIPTOR: u32 = i32::MAX as u32;

/// Closes every descriptor but those.
pub fn close_all_except(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|raw| u32::try_from(*raw).ok())
        .collect();
    keep.sort_unstable();
    let mut first = 0;
    for kept in keep {
        if kept > first {
            close_range(first, kept - 1, 0)?;
        }
        first = kept + 1;
    }
    close_range(first, LAST_DESCRIPTOR, 0)
}

/// Lets no descriptor but the first three survive an exec.
pub fn mark_all_close_on_exec() -> io::Result<()> {
    close_range(3, LAST_DESCRIPTOR, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // JUSTIFICATION: rustix has no close_range.
    // SAFETY: only called right after start, when nothing owns a descriptor but the first three, and in forked children
    // that never return to code which owns the closed ones (`CLOEXEC` closes nothing now).
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } {
        -1 => Err(last_error()),
        _ => Ok(()),
    }
}

/// Waits until some child has ended and tells its id and raw wait status, leaving it as a zombie.
pub fn wait_without_reaping() -> io::Result<(Pid, i32)> {
    // JUSTIFICATION: rustix's waitid does not tell which process it was.
    // SAFETY: `siginfo_t` is plain data for which zeroes are valid, and it lives across the call; after success the
    // fields of the SIGCHLD variant are set.
    let (pid, code, status) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        if libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOWAIT) == -1 {
            return Err(last_error());
        }
        (info.si_pid(), info.si_code, info.si_status())
    };
    // The raw form of wait(2): an exit code in the second byte, or a signal in the first with the core flag at 0x80.
    let raw = match code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => (status & 0x7f) | 0x80,
        _ => status & 0x7f,
    };
    Pid::from_raw(pid).map(|pid| (pid, raw)).ok_or(Errno::CHILD)
}

pub(super) fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
