//! Counting what lies on the session's disk, a few entries at a time, over and over. The agent makes that tree: no shape
//! of it may keep pid 1 from its other work, or from seeing how much there is.

use std::{mem, os::fd::OwnedFd};

use rustix::{
    fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags, statat},
    io::{self, Errno},
};

use crate::beneath;

/// What each entry counts at least, bytes: an inode of XFS or ext4 and its name, though it holds nothing.
const ENTRY_BYTES: u64 = 512;
/// Paths of directories that wait to be counted, bytes: some ten thousand directories beside each other. A tree that needs
/// more is over every limit.
const MAX_PENDING_BYTES: usize = 1024 * 1024;

/// The walk.
pub struct DiskWalk {
    root: OwnedFd,
    current: Option<Current>,
    pending: Vec<Vec<u8>>,
    pending_bytes: usize,
    counted: u64,
    last: u64,
}

/// The directory that is being read.
struct Current {
    path: Vec<u8>,
    directory: Dir,
}

impl DiskWalk {
    /// Counts what is below that directory.
    pub fn new(root: OwnedFd) -> Self {
        let mut walk = DiskWalk {
            root,
            current: None,
            pending: Vec::new(),
            pending_bytes: 0,
            counted: 0,
            last: 0,
        };
        walk.queue(b".".to_vec());
        walk
    }

    /// Counts that many more entries at most. Bytes of the last complete count, or of this one where it has more already;
    /// [`u64::MAX`] where not everything can be counted.
    pub fn step(&mut self, entries: usize) -> u64 {
        for _ in 0..entries {
            let went_on = match self.current.take() {
                Some(current) => self.count_entry(current),
                None => self.open_next(),
            };
            if !went_on {
                break;
            }
        }
        self.last.max(self.counted)
    }

    /// False at the end of a count, or when it cannot go on now.
    fn open_next(&mut self) -> bool {
        let Some(path) = self.pending.pop() else {
            self.last = mem::take(&mut self.counted);
            self.queue(b".".to_vec());
            return false;
        };
        self.pending_bytes -= path.len();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // The agent can put links where directories were; none is followed.
        let opened = beneath::open(&self.root, &path, flags, Mode::empty()).and_then(Dir::new);
        match opened {
            Ok(directory) => self.current = Some(Current { path, directory }),
            Err(errno) if vanished(errno) => {}
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
                self.queue(path);
                return false;
            }
            // Too deep to be named, or shut against us.
            Err(_) => self.counted = u64::MAX,
        }
        true
    }

    fn count_entry(&mut self, mut current: Current) -> bool {
        // At its end it is dropped; one that vanishes meanwhile was counted as far as it went.
        if let Some(Ok(entry)) = current.directory.read() {
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                self.count(&current, &entry);
            }
            self.current = Some(current);
        }
        true
    }

    fn count(&mut self, current: &Current, entry: &DirEntry) {
        let facts = current
            .directory
            .fd()
            .and_then(|directory| statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW));
        let facts = match facts {
            Ok(facts) => facts,
            Err(errno) if vanished(errno) => return,
            // Readable, but not searchable.
            Err(_) => {
                self.counted = u64::MAX;
                return;
            }
        };
        // `st_blocks` counts 512 bytes whatever the file system's block is (stat(3type)).
        let bytes = u64::try_from(facts.st_blocks).unwrap_or(0) * 512;
        self.counted = self.counted.saturating_add(bytes.max(ENTRY_BYTES));
        if FileType::from_raw_mode(facts.st_mode) == FileType::Directory {
            let name = entry.file_name().to_bytes();
            self.queue([&current.path, &b"/"[..], name].concat());
        }
    }

    fn queue(&mut self, path: Vec<u8>) {
        if self.pending_bytes + path.len() > MAX_PENDING_BYTES {
            self.counted = u64::MAX;
            return;
        }
        self.pending_bytes += path.len();
        self.pending.push(path);
    }
}

/// What the agent takes away, or puts a link in the place of, is not there to be counted.
const fn vanished(errno: io::Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::STALE
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use rustix::fs::{CWD, mkdirat, openat};

    fn walk(path: &Path) -> DiskWalk {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        DiskWalk::new(openat(CWD, path, flags, Mode::empty()).unwrap())
    }

    /// What is counted at the end of a pass, and how often a step of that many entries was needed.
    fn whole(walk: &mut DiskWalk, entries: usize) -> (u64, usize) {
        let mut steps = 0;
        while walk.last == 0 {
            walk.step(entries);
            steps += 1;
        }
        (walk.last, steps)
    }

    #[test]
    fn a_disk_is_counted_in_steps_and_again() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("below")).unwrap();
        std::fs::write(directory.path().join("below/file"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/usr", directory.path().join("link")).unwrap();
        let mut walk = walk(directory.path());
        let counts: Vec<u64> = (0..24).map(|_| walk.step(1)).collect();
        let last = *counts.last().unwrap();
        assert!(last >= 100_000, "{counts:?}");
        assert!(last < 1_000_000, "the link was not followed: {counts:?}");
    }

    #[test]
    fn a_directory_of_many_files_is_never_read_in_one_step_and_empty_files_count() {
        const FILES: usize = 2_000;
        let directory = tempfile::tempdir().unwrap();
        for number in 0..FILES {
            std::fs::write(directory.path().join(number.to_string()), "").unwrap();
        }
        let mut walk = walk(directory.path());
        let first = walk.step(100);
        assert!(first > 0 && first <= 100 * ENTRY_BYTES, "{first}");
        let (all, steps) = whole(&mut walk, 100);
        assert_eq!(all, FILES as u64 * ENTRY_BYTES);
        assert!(steps >= FILES / 100, "{steps}");
    }

    #[test]
    fn ten_thousand_directories_beside_each_other_are_all_counted_and_what_is_wider_is_over_every_limit()
     {
        const WIDE: usize = 10_000;
        let directory = tempfile::tempdir().unwrap();
        for number in 0..WIDE {
            std::fs::create_dir(directory.path().join(number.to_string())).unwrap();
        }
        std::fs::write(directory.path().join("0/file"), vec![1; 100_000]).unwrap();
        let last = format!("{}/file", WIDE - 1);
        std::fs::write(directory.path().join(last), vec![1; 100_000]).unwrap();
        let (all, _) = whole(&mut walk(directory.path()), 500);
        let least = WIDE as u64 * ENTRY_BYTES + 200_000;
        assert!(all >= least && all < u64::MAX, "{all}");
        let mut wider = walk(directory.path());
        wider.pending_bytes = MAX_PENDING_BYTES - WIDE;
        assert_eq!(whole(&mut wider, 500).0, u64::MAX);
    }

    #[test]
    fn a_tree_too_deep_to_be_named_is_over_every_limit() {
        let directory = tempfile::tempdir().unwrap();
        let name = "d".repeat(250);
        let mut at = openat(CWD, directory.path(), OFlags::RDONLY, Mode::empty()).unwrap();
        for depth in 1..20 {
            mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
            at = openat(&at, name.as_str(), OFlags::RDONLY, Mode::empty()).unwrap();
            let counted = whole(&mut walk(directory.path()), 500).0;
            // PATH_MAX, less the end of the string and the dot before it all.
            let can_be_named = depth * (name.len() + 1) <= 4096 - 2;
            assert_eq!(counted < u64::MAX, can_be_named, "{depth}");
        }
    }
}
