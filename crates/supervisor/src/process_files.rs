//! Reading `/proc` and signalling what was read there.

use std::{cell::RefCell, mem::MaybeUninit, os::fd::OwnedFd};

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
/// Times that a table is read again in which a child hangs in the air. Each is a fraction of a millisecond.
const MAX_READINGS: usize = 8;
/// Descriptors that are open at once here: a directory or a process, and a file of it.
const DESCRIPTORS: usize = 2;
/// Lowest number of those set aside.
const FIRST_DESCRIPTOR: i32 = 3;

/// The process file system of this sandbox.
pub struct ProcessFiles {
    root: OwnedFd,
    /// Set aside for what is read here: whatever else takes all others, a tree is still seen, and killed.
    set_aside: RefCell<Vec<OwnedFd>>,
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
        if this.as_bytes() != b"1" {
            return Err(Errno::SRCH);
        }
        let files = ProcessFiles {
            root,
            set_aside: RefCell::default(),
        };
        files.set_aside()?;
        Ok(files)
    }

    fn set_aside(&self) -> io::Result<()> {
        let mut set_aside = self.set_aside.borrow_mut();
        while set_aside.len() < DESCRIPTORS {
            set_aside.push(io::fcntl_dupfd_cloexec(&self.root, FIRST_DESCRIPTOR)?);
        }
        Ok(())
    }

    /// Does that with the descriptors that are set aside. Nothing else of pid 1 runs meanwhile.
    fn with_descriptors<T>(&self, work: impl FnOnce() -> T) -> T {
        self.set_aside.borrow_mut().clear();
        let done = work();
        // What was closed is free again. Without memory for it the next one does as well as it can.
        let _ = self.set_aside();
        done
    }

    /// All processes as they stand now.
    ///
    /// # Errors
    /// When one that is there cannot be read: a part of a table would say that a tree is gone.
    pub fn table(&self) -> io::Result<ProcessTable> {
        self.with_descriptors(|| {
            let mut table = self.read_table()?;
            // Whose parent ended while it was read hangs in the air, and would be taken for nobody's.
            for _ in 0..MAX_READINGS {
                if !table.is_torn() {
                    break;
                }
                table = self.read_table()?;
            }
            Ok(table)
        })
    }

    fn read_table(&self) -> io::Result<ProcessTable> {
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
            processes.extend(self.process(pid)?);
        }
        let table: ProcessTable = processes.into_iter().collect();
        // This process is always there.
        if table.knows(1) {
            Ok(table)
        } else {
            Err(Errno::SRCH)
        }
    }

    /// One process, `None` when it is gone.
    fn process(&self, pid: i32) -> io::Result<Option<Process>> {
        let mut buffer = [0u8; STAT_BYTES];
        match self.read(&format!("{pid}/stat"), &mut buffer) {
            Ok(read) => Ok(Process::parse(&buffer[..read])),
            Err(Errno::NOENT | Errno::SRCH) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Whether a stub's only child is its main process: then the tree is empty once that has ended.
    ///
    /// The main process is the stub's first child and stays in the list as a zombie until the stub ends, so a list
    /// that holds it alone was complete.
    pub fn only_child(&self, stub: Pid, main: Pid) -> bool {
        let stub = stub.as_raw_nonzero();
        let mut buffer = [0u8; SMALL_FILE_BYTES];
        let path = format!("{stub}/task/{stub}/children");
        let Ok(read) = self.with_descriptors(|| self.read(&path, &mut buffer)) else {
            return false;
        };
        buffer[..read].trim_ascii() == main.as_raw_nonzero().to_string().as_bytes()
    }

    /// Proportional share of memory, bytes; `None` where the kernel does not tell us.
    pub fn proportional_bytes(&self, pid: i32) -> Option<u64> {
        let mut buffer = [0u8; SMALL_FILE_BYTES];
        let path = format!("{pid}/smaps_rollup");
        let read = self.with_descriptors(|| self.read(&path, &mut buffer));
        let read = read.ok()?;
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
        if let Some(pid) = Pid::from_raw(process.pid) {
            self.with_descriptors(|| self.signal_one(pid, process, signal));
        }
    }

    fn signal_one(&self, pid: Pid, process: &Process, signal: Signal) {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => {
                let now = self.process(process.pid).ok().flatten();
                if now.is_some_and(|now| now.started == process.started) {
                    let _ = pidfd_send_signal(descriptor, signal);
                }
            }
            // Filters older than the call answer so; the id alone is then the best name there is.
            Err(Errno::NOSYS | Errno::PERM) => {
                let _ = kill_process(pid, signal);
            }
            // Gone already, or no memory: the next round tries again.
            Err(_) => {}
        }
    }

    fn read(&self, path: &str, buffer: &mut [u8]) -> io::Result<usize> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.root, path, flags, Mode::empty())?;
        let mut filled = 0;
        while filled < buffer.len() {
            match io::read(&file, &mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(filled)
    }
}
