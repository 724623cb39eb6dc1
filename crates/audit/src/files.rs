//! The files of the log and who may touch them.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags, Stat};

use crate::AuditError;

/// Any bit that lets others write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;
/// Any bit that lets others do anything.
const OPEN_TO_OTHERS: u32 = 0o077;
/// Suffix of a file that is not whole yet.
const FRESH: &str = ".new";

/// The directory of the log, held open: what stands in it is reached through the descriptor, whatever happens to the
/// path.
pub(crate) struct Place {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl Place {
    /// Opens the directory and refuses one in which others could replace the log.
    pub fn open(path: &Path) -> Result<Place, AuditError> {
        let name = path.file_name().ok_or_else(|| AuditError::BadPath {
            path: path.to_owned(),
        })?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty())
            .map_err(at("open the directory", parent))?;
        let stat = rustix::fs::fstat(&directory).map_err(at("look at the directory", parent))?;
        let unsafe_here = |why| {
            Err(AuditError::Unsafe {
                path: parent.to_owned(),
                why,
            })
        };
        if stat.st_mode & WRITABLE_BY_OTHERS != 0 && stat.st_mode & STICKY == 0 {
            return unsafe_here(
                "others may write to its directory: take that right away (chmod go-w)",
            );
        }
        if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
            return unsafe_here("its directory belongs to another user: choose one of your own");
        }
        Ok(Place {
            directory,
            name: name.to_owned(),
            path: path.to_owned(),
        })
    }

    /// The log's path with a suffix.
    pub fn path(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.as_os_str().to_owned();
        path.push(suffix);
        path.into()
    }

    fn name(&self, suffix: &str) -> OsString {
        let mut name = self.name.clone();
        name.push(suffix);
        name
    }

    /// Opens the file with that suffix, or makes it for its owner alone. Returns whether it is new.
    pub fn open_file(&self, suffix: &str, flags: OFlags) -> Result<(File, bool), AuditError> {
        let (name, path) = (self.name(suffix), self.path(suffix));
        // NONBLOCK: a pipe that waits for a reader must not hang the start. It means nothing to a regular file.
        let flags = flags | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let created = self.open_name(&name, flags | OFlags::CREATE | OFlags::EXCL);
        let (file, new) = match created {
            Ok(file) => (file, true),
            Err(rustix::io::Errno::EXIST) => (
                self.open_name(&name, flags).map_err(at("open", &path))?,
                false,
            ),
            Err(error) => return Err(at("create", &path)(error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(at("look at", &path))?;
        refuse_unsafe(&stat, &path)?;
        Ok((file, new))
    }

    /// Makes a file with that suffix that must not exist yet.
    pub fn create_file(&self, suffix: &str) -> Result<File, AuditError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.open_name(&self.name(suffix), flags)
            .map_err(at("create", &self.path(suffix)))
    }

    /// Opens a file with a secret in it, if it is there.
    pub fn open_secret(&self, suffix: &str) -> Result<Option<File>, AuditError> {
        let Some(file) = self.open_existing(suffix)? else {
            return Ok(None);
        };
        let path = self.path(suffix);
        let stat = rustix::fs::fstat(&file).map_err(at("look at", &path))?;
        if stat.st_mode & OPEN_TO_OTHERS != 0 {
            let why = "others may read it: take that right away (chmod 600)";
            return Err(AuditError::Unsafe { path, why });
        }
        Ok(Some(file))
    }

    /// Opens a file beside the log, if it is there.
    pub fn open_existing(&self, suffix: &str) -> Result<Option<File>, AuditError> {
        let path = self.path(suffix);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match self.open_name(&self.name(suffix), flags) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(at("open", &path)(error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(at("look at", &path))?;
        refuse_unsafe(&stat, &path)?;
        Ok(Some(file))
    }

    /// Makes the file with that suffix, or replaces it: afterwards it is there whole and durable, or as it was.
    pub fn write_whole(&self, suffix: &str, content: &[u8]) -> Result<(), AuditError> {
        let path = self.path(suffix);
        let fresh = format!("{suffix}{FRESH}");
        self.remove(&fresh).map_err(at("remove", &path))?;
        let mut file = self.create_file(&fresh)?;
        file.write_all(content)
            .and_then(|()| file.sync_all())
            .map_err(at("write", &path))?;
        self.rename(&fresh, suffix).map_err(at("name", &path))?;
        self.sync()
    }

    /// Renames a file beside the log; it replaces another.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.name(from), self.name(to));
        Ok(rustix::fs::renameat(
            &self.directory,
            from,
            &self.directory,
            to,
        )?)
    }

    /// Lets two files exchange their names, in one step: there is always a file with either name.
    pub fn exchange(&self, one: &str, other: &str) -> io::Result<()> {
        let (one, other) = (self.name(one), self.name(other));
        let (directory, flags) = (&self.directory, RenameFlags::EXCHANGE);
        Ok(rustix::fs::renameat_with(
            directory, one, directory, other, flags,
        )?)
    }

    /// Removes a file; that there is none is fine.
    pub fn remove(&self, suffix: &str) -> io::Result<()> {
        self.remove_name(&self.name(suffix))
    }

    /// See [`Place::remove`].
    pub fn remove_name(&self, name: &OsStr) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn open_name(&self, name: &OsStr, flags: OFlags) -> rustix::io::Result<File> {
        rustix::fs::openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    }

    /// Makes new names durable.
    pub fn sync(&self) -> Result<(), AuditError> {
        rustix::fs::fsync(&self.directory).map_err(at("sync the directory of", &self.path))
    }

    /// Whether the log's name still leads to that file.
    pub fn holds(&self, file: &Stat) -> bool {
        rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| (found.st_dev, found.st_ino) == (file.st_dev, file.st_ino))
    }
}

/// The one writer. The lock goes with the file's last descriptor.
pub(crate) fn lock(file: &File, path: PathBuf) -> Result<(), AuditError> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(AuditError::InUse { path }),
        Err(error) => Err(at("lock", &path)(error)),
    }
}

fn refuse_unsafe(stat: &Stat, path: &Path) -> Result<(), AuditError> {
    let unsafe_file = |why| {
        Err(AuditError::Unsafe {
            path: path.to_owned(),
            why,
        })
    };
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return unsafe_file("it is not a regular file");
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return unsafe_file("it belongs to another user");
    }
    if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        return unsafe_file("others may write to it: take that right away (chmod go-w)");
    }
    if stat.st_nlink != 1 {
        return unsafe_file("it has a second name (hard link)");
    }
    Ok(())
}

/// Names the step and the file that failed.
pub(crate) fn at<E: Into<io::Error>>(
    step: &'static str,
    path: &Path,
) -> impl Fn(E) -> AuditError + use<E> {
    let path = path.to_owned();
    move |source| AuditError::Open {
        step,
        path: path.clone(),
        source: Arc::new(source.into()),
    }
}
