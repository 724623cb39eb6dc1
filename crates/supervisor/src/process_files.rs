//! Reading `/proc` and signalling what was read there.

use std::{mem::MaybeUninit, os::fd::OwnedFd};

use rustix::{
    fs::{CWD, Mode, OFlags, RawDir, openat},
    io::{self, Errno},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal},
};

use crate::process_table::{Process, ProcessTable};

/// Longest `stat` line that is read: its fields are numbers and a name of 15 bytes.
const STAT_BYTES: usize = 1024;
/// Longest `children` or `smaps_rollup` that is read.
const SMALL_FILE_BYTES: usize = 2048;

/// The process file system of this sandbox.
pub struct ProcessFiles {
    root: OwnedFd,
}

impl ProcessFiles {
    /// Opens `/proc`.
    ///
    /// # Errors
    /// When there is none, or it belongs to another pid namespace: its ids would name the wrong processes.
    pub fn open() -> io::Result<Self> {
        let root = openat(
            CWD,
            "/proc",
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let this = rustix::fs::readlinkat(&root, "self", Vec::new())?;
        if this.as_bytes() == b"1" {
            Ok(ProcessFiles { root })
        } else {
            Err(Errno::SRCH)
        }
    }

    /// All processes as they stand now.
    pub fn table(&self) -> io::Result<ProcessTable> {
        // A fresh descriptor: a directory that is read again from its old position shows nothing new.
        let directory = openat(
            &self.root,
            ".",
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        let mut entries = RawDir::new(directory, &mut buffer);
        let mut processes = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
                continue;
            };
            processes.extend(self.process(pid));
        }
        Ok(processes.into_iter().collect())
    }

    /// One process, `None` when it is gone.
    pub fn process(&self, pid: i32) -> Option<Process> {
        let mut buffer = [0u8; STAT_BYTES];
        let read = self.read(&format!("{pid}/stat"), &mut buffer)?;
        Process::parse(&buffer[..read])
    }

    /// Whether a stub's only child is its main process: then the tree is empty once that has ended.
    ///
    /// The main process is the stub's first child and stays in the list as a zombie until the stub ends, so a list
    /// that holds it alone was complete.
    pub fn only_child(&self, stub: Pid, main: Pid) -> bool {
        let stub = stub.as_raw_nonzero();
        let mut buffer = [0u8; SMALL_FILE_BYTES];
        let Some(read) = self.read(&format!("{stub}/task/{stub}/children"), &mut buffer) else {
            return false;
        };
        buffer[..read].trim_ascii() == main.as_raw_nonzero().to_string().as_bytes()
    }

    /// Proportional share of memory, bytes; `None` where the kernel does not tell us.
    pub fn proportional_bytes(&self, pid: i32) -> Option<u64> {
        let mut buffer = [0u8; SMALL_FILE_BYTES];
        let read = self.read(&format!("{pid}/smaps_rollup"), &mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..read]);
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_ascii_whitespace()
            .next()?
            .parse::<u64>()
            .ok()?
            .checked_mul(1024)
    }

    /// Signals exactly that process: not one that took its id in the meantime.
    pub fn signal(&self, process: &Process, signal: Signal) {
        let Some(pid) = Pid::from_raw(process.pid) else {
            return;
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => {
                let same = self
                    .process(process.pid)
                    .is_some_and(|now| now.started == process.started);
                if same {
                    let _ = pidfd_send_signal(descriptor, signal);
                }
            }
            // Filters older than the call answer so; the id alone is then the best name there is.
            Err(Errno::NOSYS | Errno::PERM) => {
                let _ = kill_process(pid, signal);
            }
            // Gone already, or no descriptors left: the next round tries again.
            Err(_) => {}
        }
    }

    fn read(&self, path: &str, buffer: &mut [u8]) -> Option<usize> {
        let file = openat(
            &self.root,
            path,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        let mut filled = 0;
        while filled < buffer.len() {
            match io::read(&file, &mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        Some(filled)
    }
}
