//! Placeholders: empty files and directories that stand in the project while a sandbox lives, where the agent must not
//! put anything. The inside sees them read-only; the host sees that they are there.
//!
//! Sandboxes on the same project share them, and the last one removes them: unlinking one would lift the mount over it
//! in every other sandbox.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use model::{HostDirectory, ProtectedPath, Protection};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat, chownat, flock, fstat, mkdirat,
        openat, statat, unlinkat,
    },
    io::Errno,
    process::{Gid, Uid},
};
use serde::{Deserialize, Serialize};

use crate::{
    directories::{open_verified, open_without_links},
    failure::{At, Failure, FailureKind},
    layout::Outlives,
};

/// Permissions of a placeholder. Unusual on purpose: only an empty file of just this mode is ever removed.
const FILE_MODE: u32 = 0o444;
/// The same for directories.
const DIRECTORY_MODE: u32 = 0o555;

/// A placeholder that is to be made, or was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placeholder {
    /// Relative to the workspace.
    pub relative: PathBuf,
    /// A directory, else a file.
    pub directory: bool,
    /// `st_ino` once it was made: the file system of the workspace is the same for all.
    pub inode: Option<u64>,
}

/// What the other sandboxes on the same project keep free, as long as this lives: nobody makes or removes a placeholder
/// meanwhile.
pub struct Neighbors {
    kept: Vec<Placeholder>,
    _lock: File,
}

/// The part of every backend's `record.json` that its neighbors read.
#[derive(Deserialize)]
struct Kept {
    workspace: HostDirectory,
    placeholders: Vec<Placeholder>,
}

/// Name of the file in a session's directory in which a backend writes what it must not forget; it holds at least the
/// fields `workspace` (a [`HostDirectory`]) and `placeholders`.
pub const RECORD_NAME: &str = "record.json";
/// Name of the directory of a backend that holds those of its sessions.
pub const SESSIONS_NAME: &str = "sessions";

impl Neighbors {
    /// Reads the records of all sandboxes beside `instance`, which is `<state directory>/<backend>/sessions/<session>`:
    /// those of every backend, since the project is the same.
    ///
    /// # Errors
    /// When the lock cannot be taken or a directory cannot be read. A record that is damaged keeps nothing.
    pub fn of(instance: &Path, workspace: &HostDirectory) -> io::Result<Self> {
        let state = instance.ancestors().nth(3);
        let state = state.ok_or(io::ErrorKind::InvalidInput)?;
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(state.join("placeholders.lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let mut kept = Vec::new();
        for backend in fs::read_dir(state)? {
            let sessions = match fs::read_dir(backend?.path().join(SESSIONS_NAME)) {
                // Something else in the state directory.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
                {
                    continue;
                }
                sessions => sessions?,
            };
            for entry in sessions {
                let path = entry?.path();
                if path != instance
                    && let Some(found) = read_kept(&path)
                    && (found.workspace.device, found.workspace.inode)
                        == (workspace.device, workspace.inode)
                {
                    kept.extend(found.placeholders);
                }
            }
        }
        Ok(Neighbors { kept, _lock: lock })
    }

    fn keep(&self, relative: &Path, inode: u64) -> bool {
        let same = |kept: &&Placeholder| {
            kept.relative == relative && kept.inode.is_none_or(|known| known == inode)
        };
        self.kept.iter().any(|kept| same(&kept))
    }
}

fn read_kept(instance: &Path) -> Option<Kept> {
    serde_json::from_slice(&fs::read(instance.join(RECORD_NAME)).ok()?).ok()
}

/// How long a record of these must last.
pub const fn outlived_by(placeholders: &[Placeholder]) -> Outlives {
    if placeholders.is_empty() {
        Outlives::Server
    } else {
        Outlives::Machine
    }
}

/// Makes what `protected` asks for. `on_record` writes the placeholders down: before they exist, and with their inodes
/// before a neighbor looks.
///
/// # Errors
/// As for [`wanted`] and [`make`], or when the record cannot be written. What was made is on record then, too, as far as that goes.
pub fn keep_free(
    instance: &Path,
    workspace: &HostDirectory,
    protected: &[ProtectedPath],
    mut on_record: impl FnMut(&[Placeholder]) -> io::Result<()>,
) -> Result<(), Failure> {
    if protected.is_empty() {
        return Ok(());
    }
    let neighbors =
        Neighbors::of(instance, workspace).at("look at the project's other sandboxes")?;
    let mut placeholders = wanted(workspace, protected, &neighbors)?;
    if placeholders.is_empty() {
        return Ok(());
    }
    on_record(&placeholders).at("write the record")?;
    let made = make(workspace, &mut placeholders, &neighbors);
    let written = on_record(&placeholders).at("write the record");
    made.and(written)
}

/// Removes the placeholders that nobody else needs, and has it written down that there are none.
///
/// # Errors
/// When one cannot be removed; the record keeps them all then.
pub fn give_up(
    instance: &Path,
    workspace: &HostDirectory,
    placeholders: &[Placeholder],
    on_record: impl FnOnce(&[Placeholder]) -> io::Result<()>,
) -> io::Result<()> {
    if placeholders.is_empty() {
        return Ok(());
    }
    let neighbors = Neighbors::of(instance, workspace)?;
    remove(workspace, placeholders, &neighbors)?;
    on_record(&[])
}

/// Those that `protected` asks for: what does not exist, and what exists only because a neighbor keeps it free.
///
/// # Errors
/// When the workspace is not what it was; [`FailureKind::ProtectedGone`] when what existed does not any more, as a
/// neighbor's placeholders do once it has ended.
pub fn wanted(
    workspace: &HostDirectory,
    protected: &[ProtectedPath],
    neighbors: &Neighbors,
) -> Result<Vec<Placeholder>, Failure> {
    if protected.is_empty() {
        return Ok(Vec::new());
    }
    let root = open_verified(workspace)?;
    let (mut placeholders, mut gone) = (Vec::new(), Vec::new());
    for path in protected {
        let relative = path.relative.clone();
        match path.protection {
            Protection::Masked { directory } => placeholders.push(Placeholder {
                relative,
                directory,
                inode: None,
            }),
            Protection::ReadOnly => match look_at(root.as_fd(), &relative) {
                Ok(found) if neighbors.keep(&relative, found.st_ino) => {
                    placeholders.push(Placeholder {
                        relative,
                        directory: FileType::from_raw_mode(found.st_mode) == FileType::Directory,
                        inode: Some(found.st_ino),
                    });
                }
                Err(Errno::NOENT) => gone.push(relative),
                // The user's, or something that is in the way: whoever mounts it finds out.
                Ok(_) | Err(_) => {}
            },
            Protection::Pinned => {}
        }
    }
    if gone.is_empty() {
        return Ok(placeholders);
    }
    Err(Failure {
        kind: FailureKind::ProtectedGone(gone),
        step: "find what is to be protected".to_owned(),
        errno: 0,
    })
}

fn look_at(root: BorrowedFd<'_>, relative: &Path) -> Result<Stat, Errno> {
    let (parent, name) = open_parent(root, relative)?;
    statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Makes them all, parents before children as they come.
///
/// # Errors
/// [`FailureKind::PathChanged`] when something stands there by now, or a link is on the way. Those made before are marked
/// with their inode.
pub fn make(
    workspace: &HostDirectory,
    placeholders: &mut [Placeholder],
    neighbors: &Neighbors,
) -> Result<(), Failure> {
    if placeholders.is_empty() {
        return Ok(());
    }
    let root = open_verified(workspace)?;
    for placeholder in placeholders
        .iter_mut()
        .filter(|placeholder| placeholder.inode.is_none())
    {
        let changed = |_| Failure {
            kind: FailureKind::PathChanged(workspace.path.join(&placeholder.relative)),
            step: "keep a protected place free".to_owned(),
            errno: 0,
        };
        let (parent, name) = open_parent(root.as_fd(), &placeholder.relative).map_err(changed)?;
        let made = make_one(parent.as_fd(), &name, placeholder.directory);
        let found =
            statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW).at("look at a placeholder")?;
        match made {
            Ok(()) => {}
            // Made by a neighbor since the decision fell.
            Err(Errno::EXIST) if neighbors.keep(&placeholder.relative, found.st_ino) => {}
            Err(errno) => return Err(changed(errno)),
        }
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

/// Removes those that are still ours and empty and that no neighbor needs, children before parents. What somebody has
/// put there since stays. The record must be written without them before `neighbors` is dropped.
///
/// # Errors
/// When one that is ours cannot be removed.
pub fn remove(
    workspace: &HostDirectory,
    placeholders: &[Placeholder],
    neighbors: &Neighbors,
) -> io::Result<()> {
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
        .try_for_each(|placeholder| remove_one(root.as_fd(), placeholder, neighbors))
}

fn remove_one(
    root: BorrowedFd<'_>,
    placeholder: &Placeholder,
    neighbors: &Neighbors,
) -> io::Result<()> {
    let looked = open_parent(root, &placeholder.relative).and_then(|(parent, name)| {
        let found = statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((parent, name, found))
    });
    let (parent, name, found) = match looked {
        Ok(looked) => looked,
        // It is gone, or the user put something else on the way to it.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(()),
        // Not knowing is no reason to forget it: it stays on record and is tried again.
        Err(errno) => return Err(errno.into()),
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
    let needed = neighbors.keep(&placeholder.relative, found.st_ino);
    if needed || !(ours && kind == wanted && mode_fits && empty) {
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
    use std::{
        collections::BTreeMap,
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

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

    /// A sandbox on a project that no other one works on.
    fn alone() -> Neighbors {
        beside(Vec::new())
    }

    fn beside(kept: Vec<Placeholder>) -> Neighbors {
        Neighbors {
            kept,
            _lock: tempfile::tempfile().unwrap(),
        }
    }

    #[test]
    fn a_neighbors_placeholder_is_shared_and_the_last_one_removes_it() {
        let project = tempfile::tempdir().unwrap();
        let workspace = workspace(project.path());
        let mut first = two();
        make(&workspace, &mut first, &alone()).unwrap();
        // Decided before the first one made them.
        let mut second = two();
        make(&workspace, &mut second, &beside(first.clone())).unwrap();
        // Decided afterwards: they exist, so they are to be read-only.
        let exist = [".git", ".envrc"].map(|path| ProtectedPath {
            relative: path.into(),
            protection: Protection::ReadOnly,
        });
        let third = wanted(&workspace, &exist, &beside(first.clone())).unwrap();
        assert_eq!((&first, &first), (&second, &third));
        assert_eq!(
            wanted(&workspace, &exist, &alone()).unwrap(),
            [],
            "what nobody keeps free is the user's"
        );
        remove(&workspace, &first, &beside(second.clone())).unwrap();
        assert_eq!(
            fs::read_dir(project.path()).unwrap().count(),
            2,
            "a neighbor needs them"
        );
        remove(&workspace, &second, &alone()).unwrap();
        assert_eq!(fs::read_dir(project.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_neighbors_placeholder_that_went_since_the_decision_is_told_as_gone() {
        let project = tempfile::tempdir().unwrap();
        let workspace = workspace(project.path());
        let mut first = two();
        make(&workspace, &mut first, &alone()).unwrap();
        let decided = [".envrc", ".git"].map(|path| ProtectedPath {
            relative: path.into(),
            protection: Protection::ReadOnly,
        });
        let kept = wanted(&workspace, &decided, &beside(first.clone())).unwrap();
        assert_eq!(kept.len(), 2, "the control: while it stands, it is shared");
        remove(&workspace, &first, &alone()).unwrap();
        let failure = wanted(&workspace, &decided, &alone()).unwrap_err();
        let gone = vec![PathBuf::from(".envrc"), PathBuf::from(".git")];
        assert_eq!(failure.kind, FailureKind::ProtectedGone(gone));
    }

    #[test]
    fn sandboxes_of_another_backend_are_neighbors_too() {
        let (state, project) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let workspace = workspace(project.path());
        let instance = |backend: &str| {
            let instance = state.path().join(backend).join("sessions/s");
            fs::create_dir_all(&instance).unwrap();
            instance
        };
        let (one, other) = (instance("native"), instance("docker"));
        fs::write(state.path().join("state.db"), "no backend").unwrap();
        let protected = [ProtectedPath {
            relative: ".envrc".into(),
            protection: Protection::Masked { directory: false },
        }];
        let mut on_record = BTreeMap::new();
        for instance in [&one, &other] {
            keep_free(instance, &workspace, &protected, |placeholders| {
                let record =
                    serde_json::json!({"workspace": workspace, "placeholders": placeholders});
                on_record.insert(instance.clone(), placeholders.to_vec());
                fs::write(instance.join(RECORD_NAME), record.to_string())
            })
            .unwrap();
        }
        for (instance, left) in [(&one, true), (&other, false)] {
            give_up(instance, &workspace, &on_record[instance], |_| {
                fs::remove_file(instance.join(RECORD_NAME))
            })
            .unwrap();
            assert_eq!(project.path().join(".envrc").exists(), left, "{instance:?}");
        }
    }

    #[test]
    fn placeholders_come_and_go() {
        let project = tempfile::tempdir().unwrap();
        let workspace = workspace(project.path());
        let mut placeholders = two();
        make(&workspace, &mut placeholders, &alone()).unwrap();
        assert!(project.path().join(".git").is_dir() && project.path().join(".envrc").is_file());
        remove(&workspace, &placeholders, &alone()).unwrap();
        assert_eq!(fs::read_dir(project.path()).unwrap().count(), 0);
    }

    #[test]
    fn one_that_cannot_be_looked_at_is_not_taken_for_gone() {
        let project = tempfile::tempdir().unwrap();
        let too_long = "x".repeat(300);
        let root = fs::File::open(project.path()).unwrap();
        let placeholder = |path: &str| Placeholder {
            relative: path.into(),
            directory: false,
            inode: None,
        };
        let unknown = remove_one(root.as_fd(), &placeholder(&too_long), &alone());
        assert_eq!(
            unknown.unwrap_err().raw_os_error(),
            Some(Errno::NAMETOOLONG.raw_os_error())
        );
        remove_one(root.as_fd(), &placeholder("gone"), &alone()).unwrap();
        remove_one(root.as_fd(), &placeholder("gone/below"), &alone()).unwrap();
    }

    #[test]
    fn what_somebody_put_there_stays() {
        let project = tempfile::tempdir().unwrap();
        let workspace = workspace(project.path());
        let mut placeholders = two();
        make(&workspace, &mut placeholders, &alone()).unwrap();
        fs::remove_file(project.path().join(".envrc")).unwrap();
        fs::write(project.path().join(".envrc"), "mine").unwrap();
        let directory = project.path().join(".git");
        let mode = |mode| fs::Permissions::from_mode(mode);
        fs::set_permissions(&directory, mode(0o755)).unwrap();
        fs::write(directory.join("config"), "mine").unwrap();
        fs::set_permissions(&directory, mode(DIRECTORY_MODE)).unwrap();
        remove(&workspace, &placeholders, &alone()).unwrap();
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
        let failure = make(&workspace, &mut placeholders, &alone()).unwrap_err();
        assert!(matches!(failure.kind, FailureKind::PathChanged(_)));
        remove(&workspace, &placeholders, &alone()).unwrap();
        assert!(project.path().join(".envrc").exists() && !project.path().join(".git").exists());
    }
}
