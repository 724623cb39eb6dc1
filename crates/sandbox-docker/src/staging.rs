//! The host's side of a container's mounts: made by descriptors, restricted, with owners mapped and protected paths
//! covered, and put where the engine can be told a path. The engine opens paths by name, so they stand in a directory that
//! nobody but the server can enter. They are taken away as soon as the container has its own.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use model::{
    AGENT_DIRECTORY, HostDirectory, Kernel, Protection, STATE_PATH, SUPERVISOR_DIRECTORY,
    SandboxSpec, WORKSPACE_PATH,
};
use rustix::{
    fs::{CWD, FileType, OFlags, fstat},
    io::Errno,
    mount::{UnmountFlags, unmount},
};
use sandbox_host::{
    At, Failure, FailureKind, NO_DEVICES, NO_SUID, OwnerMaps, Owners, READ_ONLY, agent_directory,
    cover, open_beneath, open_host_directory, open_verified, open_without_links, own_directory,
    protect, tree_of,
};

use crate::{own_files, record::staging};

/// A directory or file that stands ready for the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Staged {
    /// On the host.
    pub source: PathBuf,
    /// Inside.
    pub target: PathBuf,
    /// The engine is to mount it read-only. Our mount is that itself where it must be, so only a kernel of the sandbox's own,
    /// which does not see that, has to be told: told without need, the engine would mount it once more and drop what else
    /// is forbidden there (devices, and programs that change the user).
    pub told_read_only: bool,
}

/// Makes all mounts of a session whose ids begin at `first_id` of the host's: 0 without a user namespace. What was made stays when a step fails, for [`remove`].
///
/// # Errors
/// A path that changed or holds a link, an owner that cannot be mapped, a system call.
pub(crate) fn make(
    instance: &Path,
    spec: &SandboxSpec,
    first_id: u32,
) -> Result<Vec<Staged>, Failure> {
    let step = "make a place for mounts";
    fs::DirBuilder::new()
        .mode(0o700)
        .create(staging(instance))
        .at(step)?;
    // Owners are compared once, the rest again with each opening.
    let sources = spec.mounts.iter().map(|mount| &mount.source);
    for directory in sources.chain([&spec.workspace]) {
        open_verified(directory)?;
    }
    let mut owners = OwnerMaps::new(Owners::Mapped { base: first_id });
    let mut staged = Vec::new();
    let is_guest = spec.kernel() == Kernel::Guest;
    let mut put = |name: String, mount: OwnedFd, target: &Path, read_only: bool| {
        let source = staging(instance).join(name);
        let place = attach(&source, &mount)?;
        staged.push(Staged {
            source,
            target: target.to_owned(),
            told_read_only: is_guest && read_only,
        });
        Ok::<OwnedFd, Failure>(place)
    };
    let workspace = open_host_directory(&spec.workspace, false, &mut owners)?;
    let inside = Path::new(WORKSPACE_PATH);
    let workspace = put("workspace".to_owned(), workspace, inside, false)?;
    protect(workspace.as_fd(), &spec.protected)?;
    // A kernel of the sandbox's own does not see what is mounted below a mount of the host's: each on its own, too.
    let single = if is_guest { &spec.protected[..] } else { &[] };
    for (number, path) in single.iter().enumerate() {
        let step = "take a protected path";
        let there = open_beneath(workspace.as_fd(), &path.relative).at(step)?;
        let read_only = path.protection != Protection::Pinned;
        let set = NO_SUID | NO_DEVICES | if read_only { READ_ONLY } else { 0 };
        let tree = tree_of(there.as_fd(), set)?;
        let target = inside.join(&path.relative);
        put(format!("protected-{number}"), tree, &target, read_only)?;
    }
    let state = own_directory(&instance.join("state"), NO_SUID | NO_DEVICES)?;
    put("state".to_owned(), state, Path::new(STATE_PATH), false)?;
    let socket = own_directory(&instance.join("socket"), READ_ONLY | NO_SUID | NO_DEVICES)?;
    put(
        "socket".to_owned(),
        socket,
        Path::new(SUPERVISOR_DIRECTORY),
        true,
    )?;
    if let Some(agent) = &spec.agent {
        let target = Path::new(AGENT_DIRECTORY);
        put("agent".to_owned(), agent_directory(agent)?, target, true)?;
    }
    for file in own_files::of(spec) {
        let mount = file.write(instance)?;
        put(file.name.to_owned(), mount, Path::new(file.target), true)?;
    }
    for (number, mount) in spec.mounts.iter().enumerate() {
        let opened = open_host_directory(&mount.source, mount.read_only, &mut owners)?;
        put(
            format!("mount-{number}"),
            opened,
            &mount.target,
            mount.read_only,
        )?;
    }
    Ok(staged)
}

/// Puts a mount at a new directory or file, and opens what is there then.
fn attach(place: &Path, mount: &OwnedFd) -> Result<OwnedFd, Failure> {
    let step = "put a mount in its place";
    let kind = FileType::from_raw_mode(fstat(mount).at(step)?.st_mode);
    if kind == FileType::Directory {
        fs::DirBuilder::new().mode(0o700).create(place).at(step)?;
    } else {
        fs::File::create_new(place).at(step)?;
    }
    let target = open_without_links(CWD, place, OFlags::empty()).at(step)?;
    cover(target.as_fd(), mount.as_fd())?;
    open_without_links(CWD, place, OFlags::empty()).at(step)
}

/// Takes the mounts of a session away, and their places. Success also when there are none.
///
/// # Errors
/// When one stays.
pub(crate) fn remove(instance: &Path) -> io::Result<()> {
    let places = match fs::read_dir(staging(instance)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        places => places?,
    };
    for place in places {
        let place = place?.path();
        // With all that is mounted below; until nothing is left there.
        loop {
            match unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) => {}
                Err(Errno::INVAL) => break,
                Err(error) => return Err(error.into()),
            }
        }
        // Fails when a mount was not seen: nothing of a project is ever deleted here.
        remove_place(&place)?;
    }
    fs::remove_dir(staging(instance))
}

/// An empty directory, or an empty file: whatever holds something was not made here.
fn remove_place(place: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(place)?;
    if found.is_dir() {
        fs::remove_dir(place)
    } else if found.is_file() && found.len() == 0 {
        fs::remove_file(place)
    } else {
        Err(io::ErrorKind::DirectoryNotEmpty.into())
    }
}

/// Whether the container shows these very directories, and the one with the host's socket. An engine that does not see our mounts shows empty ones.
///
/// # Errors
/// [`FailureKind::PathChanged`] for the first one that it does not show.
pub(crate) fn arrived(pid: i32, instance: &Path, spec: &SandboxSpec) -> Result<(), Failure> {
    let own = instance.join("socket");
    let own_found = fs::symlink_metadata(&own).at("look at the session's directory")?;
    let mounts = spec
        .mounts
        .iter()
        .map(|mount| (mount.target.as_path(), &mount.source));
    let workspace = (Path::new(WORKSPACE_PATH), &spec.workspace);
    let agent = spec
        .agent
        .iter()
        .map(|agent| (Path::new(AGENT_DIRECTORY), agent));
    mounts
        .chain([workspace])
        .chain(agent)
        .try_for_each(|(target, directory)| shows(pid, target, directory))?;
    let target = Path::new(SUPERVISOR_DIRECTORY);
    shows_inode(pid, target, (own_found.dev(), own_found.ino()), &own)?;
    own_files::of(spec).try_for_each(|file| {
        let path = file.path(instance);
        let ours = fs::symlink_metadata(&path).at("look at a file of the session")?;
        let target = Path::new(file.target);
        shows_inode(pid, target, (ours.dev(), ours.ino()), &path)
    })
}

fn shows(pid: i32, target: &Path, directory: &HostDirectory) -> Result<(), Failure> {
    let inode = (directory.device, directory.inode);
    shows_inode(pid, target, inode, &directory.path)
}

fn shows_inode(pid: i32, target: &Path, inode: (u64, u64), path: &Path) -> Result<(), Failure> {
    let inside =
        PathBuf::from(format!("/proc/{pid}/root")).join(target.strip_prefix("/").unwrap_or(target));
    let found = fs::symlink_metadata(inside).at("look at the container's mounts")?;
    if (found.dev(), found.ino()) == inode {
        return Ok(());
    }
    Err(Failure {
        kind: FailureKind::PathChanged(path.to_owned()),
        step: format!("find {} in the container", target.display()),
        errno: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: &Path) -> HostDirectory {
        let found = fs::metadata(path).unwrap();
        HostDirectory {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
            uid: found.uid(),
            gid: found.gid(),
        }
    }

    #[test]
    fn a_container_that_shows_something_else_is_found_out() {
        let own = i32::try_from(std::process::id()).unwrap();
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        shows(own, one.path(), &directory(one.path())).unwrap();
        let wrong = shows(own, one.path(), &directory(other.path())).unwrap_err();
        assert_eq!(
            wrong.kind,
            FailureKind::PathChanged(other.path().to_owned())
        );
        assert!(shows(own, Path::new("/nothing-here"), &directory(one.path())).is_err());
    }

    #[test]
    fn nothing_staged_is_removed_already_and_what_is_no_mount_is_not_emptied() {
        let instance = tempfile::tempdir().unwrap();
        remove(instance.path()).unwrap();
        let place = staging(instance.path()).join("workspace");
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("precious"), "").unwrap();
        assert!(remove(instance.path()).is_err());
        assert!(place.join("precious").exists());
        fs::remove_file(place.join("precious")).unwrap();
        let removed = remove(instance.path());
        if rustix::process::geteuid().is_root() {
            removed.unwrap();
            assert!(!staging(instance.path()).exists());
        } else {
            // Only root makes mounts there, and only root may ask whether one is left.
            assert_eq!(
                removed.unwrap_err().kind(),
                std::io::ErrorKind::PermissionDenied
            );
        }
    }
}
