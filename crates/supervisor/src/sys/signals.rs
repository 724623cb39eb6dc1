//! Signals: all blocked for the supervisor and its stubs, all default for what they start.

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::{io, process::Pid};

use super::fork::last_error;

/// Highest signal number, real-time signals included.
const LAST_SIGNAL: i32 = 64;

/// Blocks every signal: what arrives from inside stays pending for ever.
pub(super) fn block_all() -> io::Result<()> {
    set_mask(|set| {
        // JUSTIFICATION: see `set_mask`.
        // SAFETY: `set` points to a live signal set.
        unsafe { libc::sigfillset(set) };
    })
}

/// A descriptor that is readable when a child changed state.
pub fn child_signals() -> io::Result<OwnedFd> {
    // JUSTIFICATION: rustix has no signalfd.
    // SAFETY: the set is initialized by `sigemptyset` before use; the descriptor that comes back is new and ours alone.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(last_error()),
            raw => Ok(OwnedFd::from_raw_fd(raw)),
        }
    }
}

/// Gives a process that is about to exec what a fresh program expects: default dispositions (the Rust runtime ignores
/// `SIGPIPE`) and an empty mask.
pub fn reset_signals() -> io::Result<()> {
    // Zeroes are the default action, no flags, no mask; longer than the kernel's structure on any architecture.
    let default = [0u64; 8];
    let null: *const u64 = std::ptr::null();
    let mask_bytes: usize = 8;
    for signal in 1..=LAST_SIGNAL {
        // JUSTIFICATION: rustix has no sigaction, and the C library's refuses the two signals that it keeps for itself,
        // which may have been ignored by whoever started us.
        // SAFETY: the kernel reads one `sigaction` from `default` and writes nothing; no handler is installed. SIGKILL
        // and SIGSTOP are refused, which is as well.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                null,
                mask_bytes,
            )
        };
    }
    set_mask(|set| {
        // JUSTIFICATION: see `set_mask`.
        // SAFETY: `set` points to a live signal set.
        unsafe { libc::sigemptyset(set) };
    })
}

fn set_mask(fill: impl FnOnce(*mut libc::sigset_t)) -> io::Result<()> {
    // JUSTIFICATION: rustix leaves signal masks to the C library.
    // SAFETY: the set lives across both calls and `fill` initializes it; there is one thread.
    let result = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        fill(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())
    };
    if result == -1 {
        Err(last_error())
    } else {
        Ok(())
    }
}

/// Sends a signal to every process of the sandbox but this one, in one step that no fork can slip through.
pub fn signal_everything(signal: i32) -> io::Result<()> {
    // JUSTIFICATION: `kill(-1)` holds the process list's lock, which makes it the only kill that is atomic against
    // forks; rustix refuses negative ids.
    // SAFETY: `main` refused to run as anything but pid 1, so -1 is exactly this sandbox's pid namespace.
    if unsafe { libc::kill(-1, signal) } == -1 {
        Err(last_error())
    } else {
        Ok(())
    }
}

/// Sends one process any signal by number, real-time ones included.
pub fn signal_process(pid: Pid, signal: i32) -> io::Result<()> {
    // JUSTIFICATION: rustix names only the classic signals.
    // SAFETY: a `Pid` is positive, so exactly one process is meant.
    if unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) } == -1 {
        Err(last_error())
    } else {
        Ok(())
    }
}
