//! Placeholders: empty files and directories that stand in the project while a sandbox lives, where the agent must not
//! put anything. The inside sees them read-only; the host sees that they are there.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use model::{HostDirectory, ProtectedPath, Protection};
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, chownat, fstat, mkdirat, openat, statat, unlinkat},
    io::Errno,
    process::{Gid, Uid},
};
use serde::{Deserialize, Serialize};

use crate::{
    plan::{At, Failure, FailureKind},
    sources::open_without_links,
};

/// Permissions of a placeholder. Unusual on purpose: only an empty file of just this mode is ever removed.
const FILE_MODE: u32 = 0o444;
/// The same for directories.
const DIRECTORY_MODE: u32 = 0o555;

/// A placeholder that is to be made, or was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Placeholder {
    /// Relative to the workspace.
    pub relative: PathBuf,
    /// A directory, else a file.
    pub directory: bool,
    /// `st_ino` once it was made: the file system of the workspace is the same for all.
    pub inode: Option<u64>,
}

/// Those that `protected` asks for.
pub(crate) fn wanted(protected: &[ProtectedPath]) -> Vec<Placeholder> {
    let masked = protected.iter().filter_map(|path| match path.protection {
        Protection::Masked { directory } => Some(Placeholder {
            relative: path.relative.clone(),
            directory,
            inode: None,
        }),
        Protection::ReadOnly | Protection::Pinned => None,
    });
    masked.collect()
}

/// Makes them all, parents before children as they come.
///
/// # Errors
/// [`FailureKind::PathChanged`] when something stands there by now, or a link is on the way. Those made before are marked
/// with their inode.
pub(crate) fn make(
    workspace: &HostDirectory,
    placeholders: &mut [Placeholder],
) -> Result<(), Failure> {
    if placeholders.is_empty() {
        return Ok(());
    }
    let root = crate::sources::open_verified(workspace)?;
    for placeholder in placeholders {
        let changed = |_| Failure {
            kind: FailureKind::PathChanged(workspace.path.join(&placeholder.relative)),
            step: "keep a protected place free".to_owned(),
            errno: 0,
        };
        let (parent, name) = open_parent(root.as_fd(), &placeholder.relative).map_err(changed)?;
        make_one(parent.as_fd(), &name, placeholder.directory).map_err(changed)?;
        let found =
            statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW).at("look at a placeholder")?;
        placeholder.inode = Some(found.st_ino);
        let owner = (
            Some(Uid::from_raw(workspace.uid)),
            Some(Gid::from_raw(workspace.gid)),
        );
        if found.st_uid != workspace.uid || found.st_gid != workspace.gid {
            chownat(&parent, &name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
                .at("give a placeholder to its owner")?;
        }
    }
    Ok(())
}

fn make_one(parent: BorrowedFd<'_>, name: &Path, directory: bool) -> Result<(), Errno> {
    if directory {
        mkdirat(parent, name, Mode::from_raw_mode(DIRECTORY_MODE))
    } else {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat(parent, name, flags, Mode::from_raw_mode(FILE_MODE)).map(drop)
    }
}

fn open_parent(root: BorrowedFd<'_>, relative: &Path) -> Result<(OwnedFd, PathBuf), Errno> {
    let name = relative.file_name().ok_or(Errno::INVAL)?;
    let parent = relative.parent().unwrap_or(Path::new(""));
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    Ok((
        open_without_links(root, parent, OFlags::DIRECTORY)?,
        PathBuf::from(name),
    ))
}

/// Removes those that are still ours and empty, children before parents. What somebody has put there since stays.
///
/// # Errors
/// When one that is ours cannot be removed.
pub(crate) fn remove(workspace: &HostDirectory, placeholders: &[Placeholder]) -> io::Result<()> {
    if placeholders.is_empty() {
        return Ok(());
    }
    let root = match open_without_links(CWD, &workspace.path, OFlags::DIRECTORY) {
        Ok(root) => root,
        // The project is gone, and they with it.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let found = fstat(&root)?;
    if (found.st_dev, found.st_ino) != (workspace.device, workspace.inode) {
        return Ok(());
    }
    placeholders
        .iter()
        .rev()
        .try_for_each(|placeholder| remove_one(root.as_fd(), placeholder))
}

fn remove_one(root: BorrowedFd<'_>, placeholder: &Placeholder) -> io::Result<()> {
    let Ok((parent, name)) = open_parent(root, &placeholder.relative) else {
        return Ok(());
    };
    let Ok(found) = statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) else {
        return Ok(());
    };
    let kind = FileType::from_raw_mode(found.st_mode);
    let ours = placeholder.inode.is_none_or(|inode| inode == found.st_ino);
    let (wanted, mode, flags) = if placeholder.directory {
        (FileType::Directory, DIRECTORY_MODE, AtFlags::REMOVEDIR)
    } else {
        (FileType::RegularFile, FILE_MODE, AtFlags::empty())
    };
    // The umask may have taken bits away.
    let mode_fits = found.st_mode & 0o7777 & !mode == 0;
    let empty = placeholder.directory || found.st_size == 0;
    if !(ours && kind == wanted && mode_fits && empty) {
        return Ok(());
    }
    match unlinkat(&parent, &name, flags) {
        Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::MetadataExt};

    fn workspace(path: &Path) -> HostDirectory {
        let found = fs::metadata(path).unwrap();
        HostDirectory {
            path: fs::canonicalize(path).unwrap(),
            device: found.dev(),
            inode: found.ino(),
            uid: found.uid(),
            gid: found.gid(),
        }
    }

    fn two() -> Vec<Placeholder> {
        [(".git", true), (".envrc", false)]
            .map(|(path, directory)| Placeholder {
                relative: path.into(),
                directory,
                inode: None,
            })
            .to_vec()
    }

    #[test]
    fn placeholders_come_and_go() {
        let project = tempfile::tempdir().unwrap();
        let workspace = workspace(project.path());
        let mut placeholders = two();
        make(&workspace, &mut placeholders).unwrap();
        assert!(project.path().join(".git").is_dir() && project.path().join(".envrc").is_file());
        remove(&workspace, &placeholders).unwrap();
        assert_eq!(fs::read_dir(project.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_somebody_put_there_stays() {
        let project = tempfile::tempdir().unwrap();
        let workspace = workspace(project.path());
        let mut placeholders = two();
        make(&workspace, &mut placeholders).unwrap();
        fs::remove_file(project.path().join(".envrc")).unwrap();
        fs::write(project.path().join(".envrc"), "mine").unwrap();
        fs::write(project.path().join(".git/config"), "mine").unwrap();
        remove(&workspace, &placeholders).unwrap();
        assert!(
            project.path().join(".envrc").exists() && project.path().join(".git/config").exists()
        );
    }

    #[test]
    fn what_stood_there_before_is_never_taken() {
        let project = tempfile::tempdir().unwrap();
        fs::write(project.path().join(".envrc"), "").unwrap();
        let workspace = workspace(project.path());
        let mut placeholders = two();
        let failure = make(&workspace, &mut placeholders).unwrap_err();
        assert!(matches!(failure.kind, FailureKind::PathChanged(_)));
        remove(&workspace, &placeholders).unwrap();
        assert!(project.path().join(".envrc").exists() && !project.path().join(".git").exists());
    }
}
