//! Opening and removing below a directory without ever leaving it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, linkat, openat, renameat,
        renameat_with, statat, unlinkat,
    },
    io::{self, Errno},
};

use crate::beneath;
pub use crate::beneath::open_on_same_mount;

/// Directories below each other that a removal enters. The agent can nest deeper than any transfer; what is deeper
/// stays, on its own disk.
const MAX_REMOVAL_DEPTH: usize = 256;

/// Opens below a directory; no parts mean the directory itself.
pub fn open_beneath(
    directory: impl AsFd,
    parts: &[&[u8]],
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    beneath::open(directory, &parts.join(b"/".as_slice()), flags, mode)
}

/// The root of all paths.
pub fn root() -> io::Result<OwnedFd> {
    openat(
        CWD,
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// The names in a directory, sorted; [`Errno::OVERFLOW`] for more than `most`.
pub fn names(directory: impl AsFd, most: u64) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        if names.len() as u64 >= most {
            return Err(Errno::OVERFLOW);
        }
        names.push(name.to_vec());
    }
    names.sort_unstable();
    Ok(names)
}

/// Moves something to a name that is free, and never replaces what got there meanwhile.
///
/// # Errors
/// `EEXIST` or `ENOTEMPTY` for a name that is not free, and as renameat2(2).
pub fn move_to_free_name(
    from: &OwnedFd,
    name: &[u8],
    to: &OwnedFd,
    new_name: &[u8],
) -> io::Result<()> {
    match renameat_with(from, name, to, new_name, RenameFlags::NOREPLACE) {
        // Not every file system can (gVisor's on the host's files, NFS): a second name cannot replace anything either, and a
        // directory takes the place of nothing but an empty one.
        Err(Errno::INVAL | Errno::NOSYS) => {
            if kind(from, name)? == Some(FileType::Directory) {
                return renameat(from, name, to, new_name);
            }
            linkat(from, name, to, new_name, AtFlags::empty())?;
            unlinkat(from, name, AtFlags::empty())
        }
        moved => moved,
    }
}

/// What bears that name, a link itself and not what it leads to; `None` for nothing.
pub fn kind(directory: impl AsFd, name: &[u8]) -> io::Result<Option<FileType>> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(facts) => Ok(Some(FileType::from_raw_mode(facts.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Removes a file, or a directory and all below it.
pub fn remove(directory: impl AsFd, name: &[u8]) -> io::Result<()> {
    remove_to_depth(directory, name, MAX_REMOVAL_DEPTH)
}

fn remove_to_depth(directory: impl AsFd, name: &[u8], depth: usize) -> io::Result<()> {
    let directory = directory.as_fd();
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) if depth > 0 => {}
        result => return result,
    }
    // Modes are set last, so a directory that was about to be moved may refuse its owner by now.
    let _ = rustix::fs::chmodat(directory, name, Mode::RWXU, AtFlags::empty());
    let below = open_beneath(
        directory,
        &[name],
        OFlags::RDONLY | OFlags::DIRECTORY,
        Mode::empty(),
    )?;
    for inner in names(&below, u64::MAX)? {
        remove_to_depth(&below, &inner, depth - 1)?;
    }
    unlinkat(directory, name, AtFlags::REMOVEDIR)
}
