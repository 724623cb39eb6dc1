//! Finds what a session put where the host would execute or trust it, and moves it aside.
//!
//! Protected paths that stood at the start are mounted read-only; this module looks for those that appear later: a
//! nested repository's hooks, a new `.envrc` in a subdirectory, a `.git` that points elsewhere. And it looks whether the
//! mounts still hold: who replaces a file on the host (`git config` does, by a rename) lifts the mount over it, in every
//! sandbox. What stood there is the user's, so it is reported and left. An empty file is no news: nothing executes it, the
//! placeholders of sessions are such, and once something is written to it, it is. The module walks the workspace
//! by descriptor, follows no link, and remembers each directory by its change time, which a program cannot set, so a
//! scan after an execution reads only the directories that changed.
//!
//! What this does not stop: something that the host runs *while* the execution is still going, and anything that is
//! dangerous without having a protected name (a `Makefile`, a bare repository in a directory of any name).

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use model::ProtectedChange;
use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, openat, openat2,
        renameat_with, statat,
    },
    io::Errno,
};

/// Directories that one scan visits at most; beyond, the scan reports itself incomplete. A checkout of the Linux kernel
/// has about 5,000.
const MAX_DIRECTORIES: usize = 200_000;
/// Depth of directories that a scan follows, far beyond what `PATH_MAX` lets ordinary tools reach.
const MAX_DEPTH: usize = 256;
/// Changes that one scan reports and moves; the rest waits for the next one.
const MAX_CHANGES: usize = 1_000;
/// A directory that changed so shortly before it was read is read again by the next scan: before Linux 6.13 change times
/// are as coarse as the timer tick (10 ms at 100 Hz).
const CHANGE_TIME_GRAIN: Duration = Duration::from_millis(20);

/// Says whether a path, relative to the workspace, is protected, and why.
pub trait Protects: Send + Sync {
    /// The reason, for a protected directory.
    fn directory(&self, relative: &Path) -> Option<String>;

    /// The reason, for a protected file, link or anything else that is no directory.
    fn file(&self, relative: &Path) -> Option<String>;
}

/// What a scan found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// New or changed protected files.
    pub changes: Vec<ProtectedChange>,
    /// The tree is larger than a scan goes: something may have been missed.
    pub incomplete: bool,
}

/// Remembers what stood in the workspace, and finds what is new.
pub struct Scanner {
    root: OwnedFd,
    /// Paths that stood at the start, and are mounted read-only in the sandbox.
    standing: Vec<PathBuf>,
    directories: HashMap<(u64, u64), Directory>,
    known: HashMap<PathBuf, Fingerprint>,
}

/// A directory as it was when it was read.
struct Directory {
    path: PathBuf,
    changed: ChangeTime,
    children: Vec<OsString>,
    protected: Vec<(OsString, String)>,
}

/// Seconds and nanoseconds of `st_ctime`.
type ChangeTime = (i64, u64);

/// Enough of a file to tell that it was replaced or rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    inode: u64,
    size: i64,
    mode: u32,
    changed: ChangeTime,
}

/// A protected file that a walk met.
struct Found {
    path: PathBuf,
    reason: String,
    fingerprint: Fingerprint,
}

impl Scanner {
    /// Takes the workspace as it stands as the baseline: nothing untrusted has run in it yet.
    ///
    /// # Errors
    /// When the workspace cannot be read.
    pub fn baseline(
        root: OwnedFd,
        standing: Vec<PathBuf>,
        rules: &dyn Protects,
    ) -> io::Result<Self> {
        Self::with_known(root, standing, rules, |_| true)
    }

    /// Takes up a workspace in which something untrusted ran unseen, since that time: what changed later is news.
    ///
    /// # Errors
    /// When the workspace cannot be read.
    pub fn since(
        root: OwnedFd,
        standing: Vec<PathBuf>,
        rules: &dyn Protects,
        began: SystemTime,
    ) -> io::Result<Self> {
        let began = began.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::with_known(root, standing, rules, |found| {
            settled(found.fingerprint.changed, began)
        })
    }

    fn with_known(
        root: OwnedFd,
        standing: Vec<PathBuf>,
        rules: &dyn Protects,
        is_known: impl Fn(&Found) -> bool,
    ) -> io::Result<Self> {
        let mut scanner = Scanner {
            root,
            standing,
            directories: HashMap::new(),
            known: HashMap::new(),
        };
        let (found, _) = scanner.walk(rules)?;
        scanner.known = found
            .into_iter()
            .filter(is_known)
            .map(|found| (found.path, found.fingerprint))
            .collect();
        Ok(scanner)
    }

    /// Finds what is new or changed since the last scan. With `move_aside` each is renamed, in its directory, to a name
    /// that nothing executes.
    ///
    /// # Errors
    /// When the workspace itself cannot be read. Entries that vanish meanwhile are passed over.
    pub fn scan(&mut self, rules: &dyn Protects, move_aside: bool) -> io::Result<ScanReport> {
        let (all, incomplete) = self.walk(rules)?;
        let mut report = ScanReport {
            changes: Vec::new(),
            incomplete,
        };
        let mut known = HashMap::with_capacity(all.len());
        for found in all {
            if self.known.get(&found.path) == Some(&found.fingerprint) {
                known.insert(found.path, found.fingerprint);
                continue;
            }
            if report.changes.len() == MAX_CHANGES {
                report.incomplete = true;
                continue;
            }
            let stood = self.stood(&found.path);
            let moved_to = if move_aside && !stood {
                self.move_aside(&found.path)
            } else {
                None
            };
            if moved_to.is_none() && (stood || !move_aside) {
                known.insert(found.path.clone(), found.fingerprint);
            }
            report.changes.push(ProtectedChange {
                path: found.path,
                moved_to,
                reason: if stood {
                    format!("{}; {REPLACED}", found.reason)
                } else {
                    found.reason
                },
            });
        }
        self.known = known;
        Ok(report)
    }

    /// Whether it is a file of the user's that was there before, under a mount that should have kept it as it was.
    fn stood(&self, path: &Path) -> bool {
        let under = |standing: &PathBuf| path.starts_with(standing);
        self.known.contains_key(path) && self.standing.iter().any(under)
    }

    /// Every protected file of the tree, and whether the tree was larger than a scan goes.
    fn walk(&mut self, rules: &dyn Protects) -> io::Result<(Vec<Found>, bool)> {
        let mut walk = Walk {
            rules,
            previous: std::mem::take(&mut self.directories),
            next: HashMap::new(),
            found: Vec::new(),
            incomplete: false,
            visited: 0,
            now: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        };
        let root = openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        walk.directory(&root, PathBuf::new(), None, 0)?;
        self.directories = walk.next;
        Ok((walk.found, walk.incomplete))
    }

    /// Renames a protected file in its own directory. `None` when it is gone, or its directory is no longer where it was:
    /// the next scan meets it again.
    fn move_aside(&self, path: &Path) -> Option<PathBuf> {
        let name = path.file_name()?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let parent_fd = openat2(&self.root, parent, DIRECTORY, Mode::empty(), flags).ok()?;
        for attempt in 0..16_u8 {
            let mut aside = name.to_owned();
            aside.push(format!("{ASIDE_SUFFIX}{attempt}"));
            match renameat_with(&parent_fd, name, &parent_fd, &aside, RenameFlags::NOREPLACE) {
                Ok(()) => return Some(path.with_file_name(aside)),
                Err(Errno::EXIST) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

/// Why a file that should have been kept by its mount has changed.
const REPLACED: &str = "it was replaced on the host while the session lived, which took its protection away: look at what \
                        it says now";
/// What a file that was moved aside ends with, before a digit. Git, editors and direnv go by exact names.
const ASIDE_SUFFIX: &str = ".moved-aside-by-claude-code-mcp-";

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

struct Walk<'a> {
    rules: &'a dyn Protects,
    previous: HashMap<(u64, u64), Directory>,
    next: HashMap<(u64, u64), Directory>,
    found: Vec<Found>,
    incomplete: bool,
    visited: usize,
    now: Duration,
}

impl Walk<'_> {
    /// Visits one directory and what is below it. `inside` is the reason of the protected directory round it, if any.
    fn directory(
        &mut self,
        fd: &OwnedFd,
        path: PathBuf,
        inside: Option<&str>,
        depth: usize,
    ) -> io::Result<()> {
        self.visited += 1;
        if self.visited > MAX_DIRECTORIES || depth > MAX_DEPTH {
            self.incomplete = true;
            return Ok(());
        }
        let stat = rustix::fs::fstat(fd)?;
        let changed = change_time(&stat);
        let memory = self.previous.remove(&(stat.st_dev, stat.st_ino));
        let directory = match memory
            .filter(|memory| memory.path == path && memory.changed == changed)
        {
            Some(memory) => memory,
            None => match self.read(fd, path, changed, inside) {
                // Removed since it was opened.
                Err(error) if depth > 0 && error.kind() == io::ErrorKind::NotFound => return Ok(()),
                read => read?,
            },
        };
        for (name, reason) in &directory.protected {
            self.note(fd, directory.path.join(name), name, reason);
        }
        for name in &directory.children {
            let child_path = directory.path.join(name);
            // One that vanished, or is no longer a directory, has changed this directory too: the next scan sees it.
            let child = match openat(fd, name.as_os_str(), DIRECTORY, Mode::empty()) {
                Ok(child) => child,
                Err(Errno::ACCESS) => {
                    // Closed by its owner, which the agent can be: something may stand in there.
                    self.incomplete |= owner_at(fd, name) == Some(stat.st_uid);
                    continue;
                }
                Err(_) => continue,
            };
            let reason = self.rules.directory(&child_path);
            self.directory(&child, child_path, inside.or(reason.as_deref()), depth + 1)?;
        }
        if settled(changed, self.now) {
            self.next.insert((stat.st_dev, stat.st_ino), directory);
        }
        Ok(())
    }

    fn read(
        &self,
        fd: &OwnedFd,
        path: PathBuf,
        changed: ChangeTime,
        inside: Option<&str>,
    ) -> io::Result<Directory> {
        let mut directory = Directory {
            path,
            changed,
            children: Vec::new(),
            protected: Vec::new(),
        };
        for entry in Dir::read_from(fd)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if is_directory(fd, name, entry.file_type()) {
                directory.children.push(name.to_owned());
            } else if let Some(reason) = self.file_reason(&directory.path.join(name), inside) {
                directory.protected.push((name.to_owned(), reason));
            }
        }
        Ok(directory)
    }

    fn file_reason(&self, path: &Path, inside: Option<&str>) -> Option<String> {
        let name = path.file_name()?;
        // Git never runs these: every `git init` brings a dozen.
        if name.as_bytes().ends_with(b".sample")
            || contains(name.as_bytes(), ASIDE_SUFFIX.as_bytes())
        {
            return None;
        }
        inside.map(str::to_owned).or_else(|| self.rules.file(path))
    }

    fn note(&mut self, parent: &OwnedFd, path: PathBuf, name: &OsStr, reason: &str) {
        let Ok(stat) = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return;
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size == 0 {
            return;
        }
        let fingerprint = Fingerprint {
            inode: stat.st_ino,
            size: stat.st_size,
            mode: stat.st_mode,
            changed: change_time(&stat),
        };
        self.found.push(Found {
            path,
            reason: reason.to_owned(),
            fingerprint,
        });
    }
}

fn owner_at(parent: &OwnedFd, name: &OsStr) -> Option<u32> {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .ok()
        .map(|stat| stat.st_uid)
}

/// Whether a directory had come to rest when it was looked at, so that its change time will tell a later change.
fn settled((seconds, nanoseconds): ChangeTime, now: Duration) -> bool {
    let changed = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX / 2))
        + Duration::from_nanos(nanoseconds);
    changed + CHANGE_TIME_GRAIN < now
}

fn change_time(stat: &Stat) -> ChangeTime {
    (stat.st_ctime, stat.st_ctime_nsec)
}

fn is_directory(parent: &OwnedFd, name: &OsStr, kind: FileType) -> bool {
    match kind {
        FileType::Directory => true,
        FileType::Unknown => statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
        FileType::RegularFile
        | FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice => false,
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Rules;

    impl Protects for Rules {
        fn directory(&self, relative: &Path) -> Option<String> {
            relative
                .ends_with(".git/hooks")
                .then(|| "test rule".to_owned())
        }

        fn file(&self, relative: &Path) -> Option<String> {
            let names = [".git/config", ".envrc", ".git"];
            names
                .iter()
                .any(|name| relative.ends_with(name))
                .then(|| "test rule".to_owned())
        }
    }

    fn scanner(root: &Path, standing: &[&str]) -> Scanner {
        let fd = rustix::fs::open(root, DIRECTORY, Mode::empty()).unwrap();
        Scanner::baseline(fd, standing.iter().map(PathBuf::from).collect(), &Rules).unwrap()
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn changed(report: &ScanReport) -> Vec<&str> {
        let mut paths: Vec<_> = report
            .changes
            .iter()
            .map(|change| change.path.to_str().unwrap())
            .collect();
        paths.sort_unstable();
        paths
    }

    #[test]
    fn what_stood_at_the_start_is_not_reported() {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join(".git/hooks/pre-commit"), "echo");
        let mut scanner = scanner(root.path(), &[]);
        assert_eq!(scanner.scan(&Rules, true).unwrap(), ScanReport::default());
        assert!(root.path().join(".git/hooks/pre-commit").exists());
    }

    #[test]
    fn what_changed_unseen_since_a_session_began_is_news() {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("old/.git/hooks/pre-commit"), "echo");
        std::thread::sleep(CHANGE_TIME_GRAIN * 2);
        let began = SystemTime::now();
        write(&root.path().join("new/.git/hooks/pre-commit"), "echo");
        let fd = rustix::fs::open(root.path(), DIRECTORY, Mode::empty()).unwrap();
        let mut scanner = Scanner::since(fd, Vec::new(), &Rules, began).unwrap();
        assert_eq!(
            changed(&scanner.scan(&Rules, true).unwrap()),
            ["new/.git/hooks/pre-commit"]
        );
    }

    #[test]
    fn a_nested_repository_with_a_hook_is_found_and_moved_aside() {
        let root = tempfile::tempdir().unwrap();
        let mut scanner = scanner(root.path(), &[]);
        let hook = root.path().join("deep/er/.git/hooks/post-checkout");
        write(&hook, "echo owned");
        write(
            &root.path().join("deep/er/.git/hooks/update.sample"),
            "harmless",
        );
        let report = scanner.scan(&Rules, true).unwrap();
        assert_eq!(changed(&report), ["deep/er/.git/hooks/post-checkout"]);
        let moved = report.changes[0].moved_to.as_ref().unwrap();
        assert!(!hook.exists());
        assert_eq!(
            fs::read_to_string(root.path().join(moved)).unwrap(),
            "echo owned"
        );
        assert_eq!(scanner.scan(&Rules, true).unwrap(), ScanReport::default());
    }

    #[test]
    fn a_rewritten_file_in_a_directory_that_did_not_change_is_found() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("sub/.envrc");
        write(&file, "export A=1");
        std::thread::sleep(CHANGE_TIME_GRAIN * 2);
        let mut scanner = scanner(root.path(), &[]);
        assert_eq!(
            scanner.directories.len(),
            2,
            "both directories are remembered"
        );
        fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .and_then(|mut file| io::Write::write_all(&mut file, b"EXPORT"))
            .unwrap();
        assert_eq!(
            changed(&scanner.scan(&Rules, false).unwrap()),
            ["sub/.envrc"]
        );
        assert_eq!(
            changed(&scanner.scan(&Rules, false).unwrap()),
            Vec::<&str>::new(),
            "allowed once, not reported again"
        );
    }

    #[test]
    fn what_stood_and_was_replaced_is_told_once_and_left_to_the_user() {
        let root = tempfile::tempdir().unwrap();
        let [config, hook] =
            [".git/config", ".git/hooks/pre-push"].map(|path| root.path().join(path));
        write(&config, "[core]");
        write(&hook, "echo");
        let mut scanner = scanner(root.path(), &[".git/config", ".git/hooks"]);
        fs::write(&config, "[core]\n[remote]").unwrap();
        fs::write(&hook, "echo owned").unwrap();
        write(&root.path().join(".git/hooks/update"), "new");
        let report = scanner.scan(&Rules, true).unwrap();
        assert_eq!(
            changed(&report),
            [".git/config", ".git/hooks/pre-push", ".git/hooks/update"]
        );
        for change in &report.changes {
            let is_new = change.path.ends_with("update");
            assert_eq!(change.moved_to.is_some(), is_new, "{change:?}");
            assert_eq!(change.reason.contains("replaced"), !is_new, "{change:?}");
        }
        assert!(config.exists() && hook.exists());
        assert_eq!(scanner.scan(&Rules, true).unwrap(), ScanReport::default());
    }

    #[test]
    fn an_empty_file_is_no_news_until_something_is_written_to_it() {
        let root = tempfile::tempdir().unwrap();
        let mut scanner = scanner(root.path(), &[]);
        let file = root.path().join("sub/.envrc");
        write(&file, "");
        assert_eq!(scanner.scan(&Rules, true).unwrap(), ScanReport::default());
        fs::write(&file, "echo owned").unwrap();
        assert_eq!(
            changed(&scanner.scan(&Rules, true).unwrap()),
            ["sub/.envrc"]
        );
    }

    #[test]
    fn links_are_reported_and_never_followed() {
        let outside = tempfile::tempdir().unwrap();
        write(&outside.path().join("hooks/pre-push"), "echo");
        let root = tempfile::tempdir().unwrap();
        let mut scanner = scanner(root.path(), &[]);
        fs::create_dir(root.path().join("sub")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("sub/.git")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("sub/.envrc")).unwrap();
        assert_eq!(
            changed(&scanner.scan(&Rules, true).unwrap()),
            ["sub/.envrc", "sub/.git"]
        );
        assert!(outside.path().join("hooks/pre-push").exists());
    }

    #[test]
    fn a_directory_renamed_to_a_protected_name_is_found() {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("x/innocent/hooks/pre-commit"), "echo");
        std::thread::sleep(CHANGE_TIME_GRAIN * 2);
        let mut scanner = scanner(root.path(), &[]);
        fs::rename(root.path().join("x/innocent"), root.path().join("x/.git")).unwrap();
        assert_eq!(
            changed(&scanner.scan(&Rules, true).unwrap()),
            ["x/.git/hooks/pre-commit"]
        );
    }
}
