//! Where programs stand: each under its hash, whole or not at all.
//!
//! ```text
//! agent/sha256-<hash>/claude    mounted into sandboxes; 0555, never written again
//!       records/<hash>.json     where it came from; written first
//!       current                 a link to the one that new sandboxes get
//!       downloads/, making-*/   on their way; swept by the next install
//!       lock                    held by whoever changes anything
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use model::{AGENT_PROGRAM_NAME, HostDirectory};
use serde::{Deserialize, Serialize};

use super::{
    InstallError,
    archive::measure,
    pins::{DIGEST_DIGITS, is_digest},
};

/// What a directory of the store is called before its hash.
const PREFIX: &str = "sha256-";
/// Beginning of the names of half-made directories.
const MAKING: &str = "making-";
const CURRENT: &str = "current";
const RECORDS: &str = "records";
const DOWNLOADS: &str = "downloads";
/// Largest record, bytes: a few lines.
const MAX_RECORD_BYTES: u64 = 64 * 1024;
/// Shortest beginning of a hash that names a program.
const MIN_HASH_DIGITS: usize = 6;
/// Access for the group and others to write, which nobody has here.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Where a program came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// SHA-256 of the program.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// Version of Claude Code, as far as it is known.
    pub version: Option<String>,
    /// The hash is one that a release of this program pinned.
    pub pinned: bool,
    /// In words for people: a URL or a path.
    pub source: String,
    /// When it was put here.
    pub installed_at: Timestamp,
}

/// A program of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Where it came from.
    pub record: Record,
    /// Its directory, for a sandbox to mount.
    pub directory: PathBuf,
    /// New sandboxes get it.
    pub current: bool,
}

impl Installed {
    /// The program itself.
    pub fn program(&self) -> PathBuf {
        self.directory.join(AGENT_PROGRAM_NAME)
    }

    /// What a sandbox is told of it, looked at now. That the content is whole, [`Store::verify`] says.
    ///
    /// # Errors
    /// [`InstallError::Damaged`] when others could have changed it, or its size is another.
    pub fn host_directory(&self) -> Result<HostDirectory, InstallError> {
        let path = fs::canonicalize(&self.directory).map_err(file("open", &self.directory))?;
        let directory = fs::symlink_metadata(&path).map_err(file("look at", &path))?;
        let program = path.join(AGENT_PROGRAM_NAME);
        let found = fs::symlink_metadata(&program).map_err(file("look at", &program))?;
        let own = rustix::process::geteuid().as_raw();
        let trusted = |metadata: &fs::Metadata| {
            [0, own].contains(&metadata.uid()) && metadata.mode() & WRITABLE_BY_OTHERS == 0
        };
        let damaged = |why: &str| InstallError::Damaged {
            path: program.clone(),
            why: why.to_owned(),
        };
        if !trusted(&directory) || !trusted(&found) {
            return Err(damaged("can be changed by others"));
        }
        if !found.is_file() || found.len() != self.record.bytes {
            return Err(damaged("is not what was installed"));
        }
        Ok(HostDirectory {
            device: directory.dev(),
            inode: directory.ino(),
            uid: directory.uid(),
            gid: directory.gid(),
            path,
        })
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// Whether that can name a program: a SHA-256 or enough of its first digits, with `sha256-` or `sha256:` before it or not.
pub fn is_hash(text: &str) -> bool {
    let digits = digits(text);
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (MIN_HASH_DIGITS..=DIGEST_DIGITS).contains(&digits.len()) && digits.bytes().all(is_digit)
}

fn digits(text: &str) -> &str {
    text.strip_prefix(PREFIX)
        .or_else(|| text.strip_prefix("sha256:"))
        .unwrap_or(text)
}

/// Held while the store is changed.
#[derive(Debug)]
pub struct StoreLock(#[expect(dead_code, reason = "held until it is dropped")] File);

impl Store {
    /// The store of that state directory. Nothing is made yet.
    pub fn new(state_directory: &Path) -> Self {
        Store {
            root: state_directory.join("agent"),
        }
    }

    /// Where it stands.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All programs, the current one first, then the newest.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn list(&self) -> Result<Vec<Installed>, InstallError> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(file("list", &self.root))?,
        };
        let current = self.current_hash();
        let mut programs: Vec<_> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|name| name.strip_prefix(PREFIX).map(ToOwned::to_owned))
            .filter(|hash| is_digest(hash))
            .filter_map(|hash| self.installed(&hash, current.as_deref()))
            .collect();
        programs
            .sort_by_key(|program| (!program.current, -program.record.installed_at.as_second()));
        Ok(programs)
    }

    fn installed(&self, hash: &str, current: Option<&str>) -> Option<Installed> {
        let directory = self.directory(hash);
        let is_there = fs::symlink_metadata(directory.join(AGENT_PROGRAM_NAME)).ok()?;
        let record = self.record(hash).unwrap_or_else(|| Record {
            sha256: hash.to_owned(),
            bytes: is_there.len(),
            version: None,
            pinned: false,
            source: "unknown: its record is lost".to_owned(),
            installed_at: Timestamp::UNIX_EPOCH,
        });
        Some(Installed {
            record,
            directory,
            current: current == Some(hash),
        })
    }

    fn record(&self, hash: &str) -> Option<Record> {
        let path = self.record_path(hash);
        let length = fs::symlink_metadata(&path).ok()?.len();
        let text = (length <= MAX_RECORD_BYTES).then(|| fs::read(&path).ok())??;
        let record: Record = serde_json::from_slice(&text).ok()?;
        (record.sha256 == hash).then_some(record)
    }

    /// The one that new sandboxes get.
    ///
    /// # Errors
    /// [`InstallError::Damaged`] when one was chosen and is not there.
    pub fn current(&self) -> Result<Option<Installed>, InstallError> {
        let Some(hash) = self.current_hash() else {
            return Ok(None);
        };
        let found = self.installed(&hash, Some(&hash));
        let missing = || InstallError::Damaged {
            path: self.root.join(CURRENT),
            why: format!("leads to {PREFIX}{hash}, which is not there"),
        };
        found.ok_or_else(missing).map(Some)
    }

    fn current_hash(&self) -> Option<String> {
        let target = fs::read_link(self.root.join(CURRENT)).ok()?;
        let hash = target.to_str()?.strip_prefix(PREFIX)?.to_owned();
        is_digest(&hash).then_some(hash)
    }

    /// The one whose hash begins like that; `sha256-` or `sha256:` before it may be there.
    ///
    /// # Errors
    /// [`InstallError::NotInstalled`] when there is none, or more than one.
    pub fn find(&self, beginning: &str) -> Result<Installed, InstallError> {
        let digits = digits(beginning);
        if !is_hash(beginning) {
            return Err(InstallError::NotInstalled(format!(
                "{beginning:?} is no beginning of a hash of {MIN_HASH_DIGITS} digits or more"
            )));
        }
        let mut found = self.list()?;
        found.retain(|program| program.record.sha256.starts_with(digits));
        match (found.pop(), found.is_empty()) {
            (Some(program), true) => Ok(program),
            (Some(_), false) => Err(InstallError::NotInstalled(format!(
                "several hashes begin with {digits:?}"
            ))),
            (None, _) => Err(InstallError::NotInstalled(format!(
                "no installed Claude Code has a hash that begins with {digits:?}"
            ))),
        }
    }

    /// Reads the program again and compares it with its hash.
    ///
    /// # Errors
    /// [`InstallError::Damaged`] when it differs, or others can write to it.
    pub fn verify(&self, program: &Installed) -> Result<(), InstallError> {
        program.host_directory()?;
        let found = measure(&program.program())?;
        if found.sha256 == program.record.sha256 {
            return Ok(());
        }
        Err(InstallError::Damaged {
            path: program.program(),
            why: format!("has the SHA-256 {} now", found.sha256),
        })
    }

    /// Makes the directories and waits until nobody else changes the store.
    ///
    /// # Errors
    /// When they cannot be made, or the lock fails.
    pub fn lock(&self, waiting: impl FnOnce()) -> Result<StoreLock, InstallError> {
        for directory in [
            self.root.clone(),
            self.root.join(RECORDS),
            self.root.join(DOWNLOADS),
        ] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(file("make", &directory))?;
        }
        let path = self.root.join("lock");
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(file("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                waiting();
                lock.lock().map_err(file("lock", &path))?;
            }
            Err(fs::TryLockError::Error(error)) => return Err(file("lock", &path)(error)),
        }
        Ok(StoreLock(lock))
    }

    /// Removes what an install left that was killed; downloads stay, to be gone on with.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub(super) fn sweep(&self, _lock: &StoreLock) -> Result<(), InstallError> {
        for entry in fs::read_dir(&self.root).map_err(file("list", &self.root))? {
            let entry = entry.map_err(file("list", &self.root))?;
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(MAKING.as_bytes())
            {
                discard(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Where the download of that name stands.
    pub(super) fn download(&self, name: &str) -> PathBuf {
        self.root.join(DOWNLOADS).join(format!("{name}.part"))
    }

    /// A new directory that nobody sees, with an empty program.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn begin(&self, _lock: &StoreLock) -> Result<Making, InstallError> {
        let directory = tempfile::Builder::new()
            .prefix(MAKING)
            .tempdir_in(&self.root)
            .map_err(file("make a directory in", &self.root))?;
        let path = directory.path().join(AGENT_PROGRAM_NAME);
        let program = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(file("make", &path))?;
        Ok(Making { directory, program })
    }

    /// Puts a whole program in its place, unless it `is_there`, and makes it the current one.
    ///
    /// # Errors
    /// When the disk fails; nothing is visible then.
    pub(super) fn publish(
        &self,
        _lock: &StoreLock,
        making: Making,
        record: Record,
        is_there: bool,
    ) -> Result<Installed, InstallError> {
        let Making { directory, program } = making;
        let path = directory.path().to_owned();
        program
            .set_permissions(fs::Permissions::from_mode(0o555))
            .and_then(|()| program.sync_all())
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .map_err(file("finish", &path))?;
        drop(program);
        self.write_record(&record)?;
        let place = self.directory(&record.sha256);
        // From here on it is no temporary directory any more.
        let made = directory.keep();
        if is_there {
            discard(&made)?;
        } else {
            // A damaged one goes, whoever has it mounted.
            if place.exists() {
                let going = self.root.join(format!("{MAKING}{}", record.sha256));
                fs::rename(&place, &going).map_err(file("rename", &place))?;
                discard(&going)?;
            }
            fs::rename(&made, &place).map_err(file("rename", &made))?;
            sync(&self.root)?;
        }
        self.choose(&record.sha256)?;
        let current = Some(record.sha256.clone());
        self.installed(&record.sha256, current.as_deref())
            .ok_or_else(|| InstallError::NotInstalled("it is gone again".to_owned()))
    }

    /// Makes it the one that new sandboxes get.
    ///
    /// # Errors
    /// When the link cannot be made.
    pub(super) fn choose(&self, hash: &str) -> Result<(), InstallError> {
        let link = self.root.join(CURRENT);
        let new = self.root.join(format!("{MAKING}{CURRENT}"));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file("remove", &new)(error));
            }
            Ok(()) | Err(_) => {}
        }
        symlink(format!("{PREFIX}{hash}"), &new)
            .and_then(|()| fs::rename(&new, &link))
            .map_err(file("make", &link))?;
        sync(&self.root)
    }

    /// Removes a program. A sandbox that runs would lose it.
    ///
    /// # Errors
    /// [`InstallError::InUse`] when one has it, as far as its processes can be seen; or when something of it cannot be
    /// removed.
    pub fn remove(&self, _lock: &StoreLock, program: &Installed) -> Result<(), InstallError> {
        if let Some(pid) = who_mounts(&program.directory) {
            return Err(InstallError::InUse {
                sha256: program.record.sha256.clone(),
                pid,
            });
        }
        if program.current {
            let link = self.root.join(CURRENT);
            fs::remove_file(&link).map_err(file("remove", &link))?;
        }
        // Out of sight first.
        let going = self.root.join(format!("{MAKING}{}", program.record.sha256));
        fs::rename(&program.directory, &going).map_err(file("rename", &program.directory))?;
        discard(&going)?;
        let record = self.record_path(&program.record.sha256);
        match fs::remove_file(&record) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file("remove", &record)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn write_record(&self, record: &Record) -> Result<(), InstallError> {
        let path = self.record_path(&record.sha256);
        let mut text = serde_json::to_vec_pretty(record).map_err(|error| InstallError::File {
            step: "write",
            path: path.clone(),
            source: error.into(),
        })?;
        text.push(b'\n');
        let directory = self.root.join(RECORDS);
        let written = tempfile::NamedTempFile::new_in(&directory).and_then(|mut new| {
            new.write_all(&text)?;
            new.as_file().sync_all()?;
            new.persist(&path)?;
            Ok(())
        });
        written.map_err(file("write", &path))
    }

    fn record_path(&self, hash: &str) -> PathBuf {
        self.root.join(RECORDS).join(format!("{hash}.json"))
    }

    fn directory(&self, hash: &str) -> PathBuf {
        self.root.join(format!("{PREFIX}{hash}"))
    }
}

/// A program that is not whole yet; gone when it is dropped.
pub(super) struct Making {
    directory: tempfile::TempDir,
    pub(super) program: File,
}

/// A process that has the directory among its mounts: all of a sandbox share them. The kernel names the place on the file
/// system, whose end is the same from everywhere.
fn who_mounts(directory: &Path) -> Option<String> {
    let name = directory.file_name()?.to_str()?;
    let end = format!("/agent/{name} ");
    let processes = fs::read_dir("/proc").ok()?;
    let mut numbers = processes
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|digit| digit.is_ascii_digit()));
    numbers.find(|pid| {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"));
        mounts.is_ok_and(|mounts| mounts.contains(&end))
    })
}

/// A directory or file, with what is in it.
fn discard(path: &Path) -> Result<(), InstallError> {
    let removed = if fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.map_err(file("remove", path))
}

fn sync(directory: &Path) -> Result<(), InstallError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(file("sync", directory))
}

pub(super) fn file<'path>(
    step: &'static str,
    path: &'path Path,
) -> impl Fn(io::Error) -> InstallError + 'path {
    move |source| InstallError::File {
        step,
        path: path.to_owned(),
        source,
    }
}

/// Whether the store has room for so much.
///
/// # Errors
/// [`InstallError::Room`] when it has not.
pub(super) fn check_room(root: &Path, needed: u64) -> Result<(), InstallError> {
    let found = rustix::fs::statvfs(root).map_err(|error| file("look at", root)(error.into()))?;
    let available = found.f_bavail.saturating_mul(found.f_frsize);
    if available >= needed {
        return Ok(());
    }
    Err(InstallError::Room {
        path: root.to_owned(),
        available,
        needed,
    })
}
