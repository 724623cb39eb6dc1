//! Directories of the host: opened without following links, checked against what was looked at when the decision fell,
//! and turned into mounts of our own that stand nowhere yet.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use model::HostDirectory;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat2},
    io::Errno,
    mount::{OpenTreeFlags, open_tree},
};

use crate::{
    failure::{At, Failure, FailureKind},
    kernel::{MountAttributes, set_mount_attributes},
    owners::OwnerMaps,
};

/// `MOUNT_ATTR_*` of the kernel's `mount.h`.
pub const READ_ONLY: u64 = 0x1;
/// No set-user-id.
pub const NO_SUID: u64 = 0x2;
/// No device files.
pub const NO_DEVICES: u64 = 0x4;
/// No execution.
pub const NO_EXECUTION: u64 = 0x8;

/// Opens a directory of the host again that was looked at when the decision fell.
///
/// # Errors
/// When it is not the same one, has another owner, or a link lies on the way.
pub fn open_verified(directory: &HostDirectory) -> Result<OwnedFd, Failure> {
    let fd = open_same(directory)?;
    let found = fstat(&fd).at("look at a directory of the host")?;
    let same = found.st_uid == directory.uid && found.st_gid == directory.gid;
    if same {
        Ok(fd)
    } else {
        Err(changed(directory))
    }
}

/// The same without the owner.
///
/// # Errors
/// As for [`open_verified`].
pub fn open_same(directory: &HostDirectory) -> Result<OwnedFd, Failure> {
    let fd = open_without_links(CWD, &directory.path, OFlags::DIRECTORY)
        .map_err(|_| changed(directory))?;
    let found = fstat(&fd).at("look at a directory of the host")?;
    let same = found.st_dev == directory.device && found.st_ino == directory.inode;
    if same {
        Ok(fd)
    } else {
        Err(changed(directory))
    }
}

fn changed(directory: &HostDirectory) -> Failure {
    Failure {
        kind: FailureKind::PathChanged(directory.path.clone()),
        step: "open a directory of the host".to_owned(),
        errno: 0,
    }
}

/// An `O_PATH` handle of what is really there.
///
/// # Errors
/// `ELOOP` when a link lies on the way.
pub fn open_without_links(at: BorrowedFd<'_>, path: &Path, kind: OFlags) -> Result<OwnedFd, Errno> {
    let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(
        at,
        path,
        OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW | kind,
        Mode::empty(),
        links,
    )
}

/// Takes a directory of the host as a mount that shows its owner as the agent.
///
/// # Errors
/// When it changed, its owner cannot be mapped, or a system call fails.
pub fn open_host_directory(
    directory: &HostDirectory,
    read_only: bool,
    owners: &mut OwnerMaps,
) -> Result<OwnedFd, Failure> {
    let fd = open_same(directory)?;
    let tree = detach_alone(fd.as_fd()).at("take a directory of the host")?;
    let set = NO_SUID | NO_DEVICES | if read_only { READ_ONLY } else { 0 };
    owners.apply(tree.as_fd(), directory, read_only)?;
    let attributes = MountAttributes {
        set,
        recursive: true,
        private: true,
        idmap: None,
    };
    set_mount_attributes(tree.as_fd(), attributes).at("restrict a directory of the host")?;
    Ok(tree)
}

/// Takes a directory of the session as a mount with those `MOUNT_ATTR_*`.
///
/// # Errors
/// When a system call fails.
pub fn own_directory(path: &Path, set: u64) -> Result<OwnedFd, Failure> {
    let fd = open_without_links(CWD, path, OFlags::DIRECTORY).at("open the session's directory")?;
    own(fd.as_fd(), set)
}

/// The same for a single file.
///
/// # Errors
/// As for [`own_directory`].
pub fn own_file(path: &Path, set: u64) -> Result<OwnedFd, Failure> {
    let fd = open_without_links(CWD, path, OFlags::empty()).at("open a file of the session")?;
    own(fd.as_fd(), set)
}

fn own(fd: BorrowedFd<'_>, set: u64) -> Result<OwnedFd, Failure> {
    let tree = detach_alone(fd).at("take the session's directory")?;
    let attributes = MountAttributes {
        set,
        recursive: true,
        private: true,
        idmap: None,
    };
    set_mount_attributes(tree.as_fd(), attributes).at("restrict the session's directory")?;
    Ok(tree)
}

/// Takes the directory with Claude Code's program, as a mount that everybody inside reads and executes and nobody changes:
/// owners are not mapped, so it is nobody's there.
///
/// # Errors
/// When it changed, or a system call fails.
pub fn agent_directory(directory: &HostDirectory) -> Result<OwnedFd, Failure> {
    let fd = open_same(directory)?;
    let tree = detach_alone(fd.as_fd()).at("take Claude Code's directory")?;
    let attributes = MountAttributes {
        set: READ_ONLY | NO_SUID | NO_DEVICES,
        recursive: true,
        private: true,
        idmap: None,
    };
    set_mount_attributes(tree.as_fd(), attributes).at("restrict Claude Code's directory")?;
    Ok(tree)
}

/// A mount of just that directory. Where the kernel forbids to leave out what is mounted below (in a user's own
/// namespaces that would uncover what it hides), with all below.
fn detach_alone(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    match open_tree(fd, "", flags) {
        Err(Errno::INVAL) => open_tree(fd, "", flags | OpenTreeFlags::AT_RECURSIVE),
        other => other,
    }
}
