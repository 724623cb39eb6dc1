//! Processes that cannot be mistaken for others, and their end.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
    },
};
use serde::{Deserialize, Serialize};

/// How long a killed process may take; longer only in an uninterruptible call of the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// A process that cannot be mistaken for another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Its id, as the server sees it.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: ticks since boot.
    pub start_ticks: u64,
    /// The boot it belongs to.
    pub boot_id: String,
}

impl ProcessRecord {
    /// Of a process that lives now.
    ///
    /// # Errors
    /// When it does not.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(ProcessRecord {
            pid,
            start_ticks: start_ticks(pid)?,
            boot_id: boot_id()?,
        })
    }
}

/// Ticks since boot at which that process started.
pub fn start_ticks(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name that may hold anything; nothing after its last parenthesis does.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    after
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or(io::ErrorKind::InvalidData.into())
}

/// Random, one for each start of the machine.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim_end()
        .to_owned())
}

/// A handle of exactly that process; `None` when it is gone, whoever has its number now.
pub fn living(process: &ProcessRecord) -> Option<OwnedFd> {
    let pid = Pid::from_raw(process.pid)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // Looked at after the handle was opened: if it is the same process now, the handle is its.
    let same =
        start_ticks(process.pid).ok()? == process.start_ticks && boot_id().ok()? == process.boot_id;
    (same && !ended(&pidfd)).then_some(pidfd)
}

/// The kernel ends all of a pid namespace with its first process.
///
/// # Errors
/// When it does not end in time.
pub fn kill(pidfd: &OwnedFd) -> io::Result<()> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Err(Errno::SRCH) | Ok(()) => {}
        Err(error) => return Err(error.into()),
    }
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    reap(pidfd);
    Ok(())
}

/// The process behind that handle has ended.
pub fn ended(pidfd: &OwnedFd) -> bool {
    let mut poll = [rustix::event::PollFd::new(
        pidfd,
        rustix::event::PollFlags::IN,
    )];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    rustix::event::poll(&mut poll, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Takes note of the end, where this server is the parent; elsewhere somebody else does.
pub fn reap(pidfd: &OwnedFd) {
    let _ = waitid(
        WaitId::PidFd(pidfd.as_fd()),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_told_from_another_one_of_the_same_number() {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let own = ProcessRecord::of(pid).unwrap();
        assert_eq!(own, ProcessRecord::of(pid).unwrap());
        assert!(own.start_ticks > 0);
        assert!(ProcessRecord::of(i32::MAX).is_err());
    }

    #[test]
    fn a_process_of_another_start_is_not_taken_for_the_recorded_one() {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let mut record = ProcessRecord::of(pid).unwrap();
        assert!(living(&record).is_some());
        record.start_ticks += 1;
        assert!(living(&record).is_none());
    }
}
