//! Writing below a fresh directory. The kernel resolves every path as if that directory were the whole machine
//! (`RESOLVE_IN_ROOT`), so that no link of an image leads out; the last part of a path is never followed.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, RawMode, ResolveFlags, Timespec, Timestamps, chmodat,
        fchmod, futimens, linkat, mkdirat, open, openat, openat2, statat, symlinkat,
    },
    io::Errno,
};
use sandbox_host::delete;

use super::UnpackError;

/// Bits of a mode that are kept: no set-id, nothing that others may write.
const KEPT_MODE: u32 = 0o755;
/// Bits that every directory has, so that what is in it can be written and deleted.
const DIRECTORY_MODE: u32 = 0o700;
/// Bits that every file has.
const FILE_MODE: u32 = 0o600;
/// Longest way of directories that do not exist yet. The kernel's paths have at most 4,096 bytes.
const MAX_DEPTH: usize = 2_048;

/// See the module.
pub(super) struct Root(OwnedFd);

impl Root {
    /// The directory must be empty, and nobody else may write to it.
    pub(super) fn open(path: &Path) -> Result<Self, UnpackError> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = open(path, flags, Mode::empty()).map_err(at("open", path))?;
        Ok(Root(fd))
    }

    /// Whether there is a shell, wherever links lead inside.
    pub(super) fn has_shell(&self) -> bool {
        let found = self.resolve(Path::new("bin/sh"), OFlags::PATH);
        found
            .and_then(|shell| rustix::fs::fstat(&shell))
            .is_ok_and(|shell| FileType::from_raw_mode(shell.st_mode) == FileType::RegularFile)
    }

    /// A directory; one that is there keeps what is in it.
    pub(super) fn directory(&self, path: &Path, mode: u32) -> Result<(), UnpackError> {
        let (parent, name) = self.place(path)?;
        let there = kind(&parent, name).map_err(at("look at", path))?;
        if there != Some(FileType::Directory) {
            clear(&parent, name, path)?;
            mkdirat(&parent, name, Mode::RWXU).map_err(at("make the directory", path))?;
        }
        // The name is a directory: there is no link to follow.
        chmodat(&parent, name, kept(mode, DIRECTORY_MODE), AtFlags::empty())
            .map_err(at("set the mode of", path))
    }

    /// A file; its size.
    pub(super) fn file(
        &self,
        path: &Path,
        mode: u32,
        modified_s: u64,
        content: &mut dyn Read,
    ) -> Result<u64, UnpackError> {
        let (parent, name) = self.place(path)?;
        clear(&parent, name, path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(at("make the file", path))?;
        let mut file = File::from(file);
        let size = io::copy(content, &mut file).map_err(|source| UnpackError::Write {
            step: "write",
            path: path.display().to_string(),
            source,
        })?;
        fchmod(&file, kept(mode, FILE_MODE)).map_err(at("set the mode of", path))?;
        // Compiled Python tells by the time whether it is of this source.
        let time = Timespec {
            tv_sec: i64::try_from(modified_s).unwrap_or_default(),
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        futimens(&file, &times).map_err(at("set the time of", path))?;
        Ok(size)
    }

    /// A symbolic link, wherever it says it leads.
    pub(super) fn link(&self, path: &Path, target: &OsStr) -> Result<(), UnpackError> {
        let (parent, name) = self.place(path)?;
        clear(&parent, name, path)?;
        symlinkat(target, &parent, name).map_err(at("make the link", path))
    }

    /// Another name of a file that is there.
    pub(super) fn hard_link(&self, path: &Path, of: &Path) -> Result<(), UnpackError> {
        let (parent, name) = self.place(path)?;
        let of_parent = of.parent().unwrap_or(Path::new(""));
        let of_name = of.file_name().ok_or_else(|| escape(of))?;
        let there = self
            .resolve(of_parent, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(at("find what is linked", of))?;
        let same = statat(&there, of_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(at("find what is linked", of))?;
        if FileType::from_raw_mode(same.st_mode) == FileType::Directory {
            return Err(escape(of));
        }
        // One of itself is there already.
        if let Ok(here) = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
            && (here.st_dev, here.st_ino) == (same.st_dev, same.st_ino)
        {
            return Ok(());
        }
        clear(&parent, name, path)?;
        linkat(&there, of_name, &parent, name, AtFlags::empty())
            .map_err(at("make another name", path))
    }

    /// Takes away what is there, if anything is.
    pub(super) fn remove(&self, path: &Path) -> Result<(), UnpackError> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let Some(name) = path.file_name() else {
            return Ok(());
        };
        match self.resolve(parent, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(parent) => clear(&parent, name, path),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(error) => Err(at("look at", path)(error)),
        }
    }

    /// Takes away all that is in a directory, if there is one.
    pub(super) fn empty(&self, path: &Path) -> Result<(), UnpackError> {
        let directory = match self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(error) => return Err(at("look at", path)(error)),
        };
        let entries = Dir::read_from(&directory).map_err(at("list", path))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(at("list", path))?;
            let name = entry.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        for name in names {
            let name = std::os::unix::ffi::OsStrExt::from_bytes(name.as_slice());
            clear(&directory, name, path)?;
        }
        Ok(())
    }

    /// The directory that holds the path's last part, made where it is missing.
    fn place<'path>(&self, path: &'path Path) -> Result<(OwnedFd, &'path OsStr), UnpackError> {
        let name = path.file_name().ok_or_else(|| escape(path))?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.resolve(parent, flags) {
            Err(Errno::NOENT) => self.make_way(parent)?,
            Err(error) => return Err(at("find", parent)(error)),
            Ok(parent) => return Ok((parent, name)),
        }
        let parent = self.resolve(parent, flags).map_err(at("find", parent))?;
        Ok((parent, name))
    }

    /// Makes all directories of a path that are missing. A link that leads nowhere stays one, and the path is not found.
    fn make_way(&self, path: &Path) -> Result<(), UnpackError> {
        let mut way: Vec<&Path> = path
            .ancestors()
            .filter(|path| !path.as_os_str().is_empty())
            .take(MAX_DEPTH)
            .collect();
        way.reverse();
        for path in way {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                continue;
            };
            let parent = self
                .resolve(parent, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(at("find", parent))?;
            match mkdirat(&parent, name, Mode::from_raw_mode(KEPT_MODE as RawMode)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(at("make the directory", path)(error)),
            }
        }
        Ok(())
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        openat2(
            &self.0,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }
}

fn kept(mode: u32, needed: u32) -> Mode {
    Mode::from_raw_mode(((mode & KEPT_MODE) | needed) as RawMode)
}

fn kind(parent: &OwnedFd, name: &OsStr) -> Result<Option<FileType>, Errno> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(FileType::from_raw_mode(found.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes away whatever has that name.
fn clear(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), UnpackError> {
    if kind(parent, name).map_err(at("look at", path))?.is_none() {
        return Ok(());
    }
    let here = Path::new("/proc/self/fd")
        .join(parent.as_raw_fd().to_string())
        .join(name);
    delete(&here).map_err(|source| UnpackError::Write {
        step: "take away",
        path: path.display().to_string(),
        source,
    })
}

fn at(step: &'static str, path: &Path) -> impl FnOnce(Errno) -> UnpackError {
    let path = path.display().to_string();
    move |error| UnpackError::Write {
        step,
        path,
        source: error.into(),
    }
}

fn escape(path: &Path) -> UnpackError {
    UnpackError::Escape(path.display().to_string())
}
