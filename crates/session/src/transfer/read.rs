//! Reads a file or tree of the host and sends it, parents first.

use std::{
    ffi::{OsStr, OsString},
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use sandbox::wire::{Entry, EntryKind, MAX_CHUNK_BYTES, TransferFrame};

use super::{
    Budget, MAX_DEPTH, OPEN_DIRECTORY, Totals, TransferError, link_stays_inside, open_directory,
    refused_kind,
};

/// Setuid and setgid.
const PRIVILEGE_BITS: u32 = 0o6000;

/// Sends the file or tree at `source`, relative to `base`, as frames without the end.
///
/// # Errors
/// The first entry that is not transferred stops it; so does a limit, and an error of `send`.
pub fn read_tree(
    base: &OwnedFd,
    source: &Path,
    budget: Budget,
    send: &mut dyn FnMut(TransferFrame) -> Result<(), TransferError>,
) -> Result<Totals, TransferError> {
    let mut reader = Reader {
        send,
        budget,
        totals: Totals::default(),
        buffer: vec![0; MAX_CHUNK_BYTES],
    };
    let (parent, name) = match (source.parent(), source.file_name()) {
        (Some(parent), Some(name)) => (open_directory(base, parent), name),
        _ => (open_directory(base, Path::new("")), OsStr::new(".")),
    };
    let parent = parent.map_err(|errno| missing_or(source, errno))?;
    let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| missing_or(source, errno))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let directory = openat(
                &parent,
                name,
                OPEN_DIRECTORY | OFlags::NOFOLLOW,
                Mode::empty(),
            )
            .map_err(|errno| missing_or(source, errno))?;
            reader.directory(&directory, PathBuf::new(), &stat, 0)?;
        }
        FileType::RegularFile => reader.file(&parent, name, PathBuf::new())?,
        FileType::Symlink => {
            return Err(TransferError::Refused {
                path: source.to_owned(),
                what: "a symbolic link",
            });
        }
        other @ (FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown) => {
            return Err(TransferError::Refused {
                path: source.to_owned(),
                what: refused_kind(other),
            });
        }
    }
    Ok(reader.totals)
}

fn missing_or(path: &Path, errno: rustix::io::Errno) -> TransferError {
    match errno {
        rustix::io::Errno::NOENT => TransferError::Missing {
            path: path.to_owned(),
        },
        rustix::io::Errno::LOOP | rustix::io::Errno::XDEV => TransferError::Refused {
            path: path.to_owned(),
            what: "reached over a symbolic link",
        },
        other => TransferError::io("open", path)(other),
    }
}

struct Reader<'a> {
    budget: Budget,
    send: &'a mut dyn FnMut(TransferFrame) -> Result<(), TransferError>,
    totals: Totals,
    buffer: Vec<u8>,
}

impl Reader<'_> {
    fn directory(
        &mut self,
        fd: &OwnedFd,
        path: PathBuf,
        stat: &Stat,
        depth: usize,
    ) -> Result<(), TransferError> {
        if depth > MAX_DEPTH {
            return Err(TransferError::TooLarge {
                limit: MAX_DEPTH as u64,
                unit: "levels of directories",
            });
        }
        self.totals.directories += 1;
        self.entry(&path, EntryKind::Directory, stat)?;
        for name in sorted_names(fd).map_err(TransferError::io("read the directory", &path))? {
            let child = path.join(&name);
            let stat = statat(fd, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(TransferError::io("look at", &child))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let below = openat(fd, &name, OPEN_DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
                        .map_err(TransferError::io("open", &child))?;
                    self.directory(&below, child, &stat, depth + 1)?;
                }
                FileType::RegularFile => self.file(fd, &name, child)?,
                FileType::Symlink => self.link(fd, &name, &child, &stat)?,
                other @ (FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice
                | FileType::Unknown) => {
                    return Err(TransferError::Refused {
                        path: child,
                        what: refused_kind(other),
                    });
                }
            }
        }
        Ok(())
    }

    fn link(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
        stat: &Stat,
    ) -> Result<(), TransferError> {
        let target = readlinkat(parent, name, Vec::new())
            .map_err(TransferError::io("read the link", path))?
            .into_bytes();
        if !link_stays_inside(path, Path::new(OsStr::from_bytes(&target))) {
            return Err(TransferError::Refused {
                path: path.to_owned(),
                what: "a link out of the transferred tree",
            });
        }
        self.totals.links += 1;
        self.entry(path, EntryKind::Link { target }, stat)
    }

    /// Sends a regular file. Opened without blocking, since it may have become a named pipe since it was looked at.
    fn file(&mut self, parent: &OwnedFd, name: &OsStr, path: PathBuf) -> Result<(), TransferError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file =
            openat(parent, name, flags, Mode::empty()).map_err(TransferError::io("open", &path))?;
        let stat = rustix::fs::fstat(&file).map_err(TransferError::io("look at", &path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_mode & PRIVILEGE_BITS == 0 => {}
            FileType::RegularFile => {
                return Err(TransferError::Refused {
                    path,
                    what: "setuid or setgid",
                });
            }
            other @ (FileType::Directory
            | FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown) => {
                return Err(TransferError::Refused {
                    path,
                    what: refused_kind(other),
                });
            }
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.totals.files += 1;
        self.totals.bytes += size;
        self.entry(&path, EntryKind::File { size }, &stat)?;
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let read = rustix::io::read(&file, &mut self.buffer[..want])
                .map_err(TransferError::io("read", &path))?;
            if read == 0 {
                return Err(TransferError::Refused {
                    path,
                    what: "growing shorter while it is read",
                });
            }
            left -= read as u64;
            (self.send)(TransferFrame::Data(self.buffer[..read].to_vec()))?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, kind: EntryKind, stat: &Stat) -> Result<(), TransferError> {
        self.totals.check(self.budget)?;
        let path = path.as_os_str().as_bytes().to_vec();
        (self.send)(TransferFrame::Entry(Entry {
            path,
            kind,
            mode: stat.st_mode & 0o777,
            mtime: stat.st_mtime,
        }))
    }
}

/// Sorted, so that the same tree is sent the same way twice.
fn sorted_names(directory: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort_unstable();
    Ok(names)
}
