//! Deleting what an agent may have made: trees of any depth and any permissions.

use std::{
    ffi::OsString,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, unlinkat},
    io::Errno,
};

/// Deletes a tree of whatever depth, with two descriptors and no recursion: what has entries of its own is moved up to
/// the top first. A tree made by an agent may be deeper than descriptors or the stack reach.
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
    loop {
        let directories = clear(top.as_fd(), None)?;
        if directories.is_empty() {
            break;
        }
        for name in directories {
            let directory = open_directory(top.as_fd(), name.clone())?;
            clear(directory.as_fd(), Some((top.as_fd(), &mut moved)))?;
            unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
        }
    }
    fs::remove_dir(path)
}

/// Removes all files of a directory, and moves its directories to `up` or returns their names.
fn clear(
    directory: BorrowedFd<'_>,
    mut up: Option<(BorrowedFd<'_>, &mut u64)>,
) -> io::Result<Vec<OsString>> {
    let mut directories = Vec::new();
    // Read completely first: names that come while reading could be missed or met twice.
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name: OsString =
            std::os::unix::ffi::OsStringExt::from_vec(entry.file_name().to_bytes().to_vec());
        if name != "." && name != ".." {
            names.push((name, entry.file_type()));
        }
    }
    for (name, kind) in names {
        if kind != FileType::Directory {
            match unlinkat(directory, &name, AtFlags::empty()) {
                Err(Errno::ISDIR) => {}
                removed => {
                    removed?;
                    continue;
                }
            }
        }
        if unlinkat(directory, &name, AtFlags::REMOVEDIR).is_ok() {
            continue;
        }
        match &mut up {
            None => directories.push(name),
            Some((top, moved)) => {
                // Moving a directory writes to it: its name for the one above changes.
                chmodat(directory, &name, Mode::RWXU, AtFlags::empty())?;
                loop {
                    **moved += 1;
                    match renameat(directory, &name, *top, format!(".moved-{}", **moved)) {
                        // The agent may have used the name.
                        Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                        renamed => break renamed?,
                    }
                }
            }
        }
    }
    Ok(directories)
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
