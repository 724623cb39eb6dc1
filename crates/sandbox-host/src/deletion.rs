//! Deleting what an agent may have made: trees of any depth and any permissions.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, unlinkat},
    io::Errno,
};

/// Names held at once: an agent can put millions into one directory.
const BATCH: usize = 1024;

/// Deletes a tree of whatever depth and width, with three descriptors, a few names at a time and no recursion: what has
/// entries of its own is moved up to the top first. A tree made by an agent may be deeper than descriptors or the stack
/// reach, and wider than memory.
///
/// # Errors
/// When something stays.
pub fn delete(path: &Path) -> io::Result<()> {
    let top = match open_directory(rustix::fs::CWD, path.as_os_str().to_owned()) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return fs::remove_file(path),
        top => top?,
    };
    let mut moved = 0_u64;
    clear(top.as_fd(), |name| {
        let directory = open_directory(top.as_fd(), name.clone())?;
        clear(directory.as_fd(), |below| {
            move_up(directory.as_fd(), &below, top.as_fd(), &mut moved)
        })?;
        Ok(unlinkat(&top, &name, AtFlags::REMOVEDIR)?)
    })?;
    fs::remove_dir(path)
}

/// Empties a directory: `take_away` gets those of its directories that hold something.
fn clear(
    directory: BorrowedFd<'_>,
    mut take_away: impl FnMut(OsString) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        let mut entries = Dir::read_from(directory)?;
        let mut found = false;
        loop {
            let batch = batch(&mut entries)?;
            if batch.is_empty() {
                break;
            }
            found = true;
            for (name, kind) in batch {
                if !remove_simple(directory, &name, kind)? {
                    take_away(name)?;
                }
            }
        }
        // Names that come or go while it is read could be missed: it is empty once a whole reading shows nothing.
        if !found {
            return Ok(());
        }
    }
}

/// The next [`BATCH`] entries at most; none at the end.
fn batch(entries: &mut Dir) -> io::Result<Vec<(OsString, FileType)>> {
    let mut batch = Vec::new();
    while batch.len() < BATCH
        && let Some(entry) = entries.read()
    {
        let entry = entry?;
        let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
        if name != "." && name != ".." {
            batch.push((name, entry.file_type()));
        }
    }
    Ok(batch)
}

/// False for a directory that holds something.
fn remove_simple(directory: BorrowedFd<'_>, name: &OsStr, kind: FileType) -> io::Result<bool> {
    if kind != FileType::Directory {
        match unlinkat(directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            // Some file systems show a name twice while others go.
            Err(Errno::NOENT) => return Ok(true),
            removed => return Ok(removed.map(|()| true)?),
        }
    }
    match unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(_) => Ok(false),
    }
}

fn move_up(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    top: BorrowedFd<'_>,
    moved: &mut u64,
) -> io::Result<()> {
    // Moving a directory writes to it: its name for the one above changes.
    chmodat(directory, name, Mode::RWXU, AtFlags::empty())?;
    loop {
        *moved += 1;
        match renameat(directory, name, top, format!(".moved-{moved}")) {
            // The agent may have used the name.
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            renamed => return Ok(renamed?),
        }
    }
}

fn open_directory(at: BorrowedFd<'_>, name: OsString) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(at, &name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(at, &name, Mode::RWXU, AtFlags::empty())?;
            openat(at, &name, flags, Mode::empty())
        }
        opened => {
            let opened = opened?;
            // Readable, but perhaps not writable or searchable.
            rustix::fs::fchmod(&opened, Mode::RWXU)?;
            Ok(opened)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_tree_deeper_than_descriptors_reach_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("deep");
        fs::create_dir(&top).unwrap();
        let mut at = open_directory(rustix::fs::CWD, top.clone().into()).unwrap();
        for _ in 0..1_500 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open_directory(at.as_fd(), "d".into()).unwrap();
        }
        drop(at);
        delete(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn a_tree_of_many_names_is_deleted_a_few_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("wide");
        for number in 0..BATCH + 10 {
            fs::create_dir_all(top.join(format!("below/{number}/d"))).unwrap();
            fs::write(top.join(number.to_string()), "x").unwrap();
        }
        let opened = open_directory(rustix::fs::CWD, top.clone().into()).unwrap();
        let mut entries = Dir::read_from(&opened).unwrap();
        let sizes = [0; 3].map(|_| batch(&mut entries).unwrap().len());
        assert_eq!(sizes, [BATCH, 11, 0]);
        delete(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn unreadable_directories_links_and_the_names_we_use_are_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        fs::create_dir_all(outside.join("kept")).unwrap();
        let top = directory.path().join("top");
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        fs::create_dir_all(top.join(".moved-1/x")).unwrap();
        fs::write(top.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, top.join("a/link")).unwrap();
        fs::set_permissions(top.join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        delete(&top).unwrap();
        assert!(!top.exists() && outside.join("kept").exists());
        delete(&top).unwrap();
    }
}
