//! Mounts over mounts: how protected paths of the workspace are kept from the agent.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use model::{ProtectedPath, Protection};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::{
    directories::{NO_DEVICES, NO_SUID, READ_ONLY},
    failure::{At, Failure, FailureKind},
    kernel::{MountAttributes, set_mount_attributes},
};

/// Mounts over what is open: nothing is looked up by name, so nothing can be swapped.
///
/// # Errors
/// When the kernel refuses.
pub fn cover(target: BorrowedFd<'_>, mount: BorrowedFd<'_>) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).at("attach a mount")
}

/// Opens without following links and without leaving the tree.
///
/// # Errors
/// `EXDEV` or `ELOOP` when it would leave the tree or follow a link.
pub fn open_beneath(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(
        root,
        path,
        OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
        how,
    )
}

/// Another mount of what is open there, with all below, restricted.
///
/// # Errors
/// When the kernel refuses.
pub fn tree_of(fd: BorrowedFd<'_>, set: u64) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(fd, "", flags).at("take a part of the file system")?;
    let change = MountAttributes {
        set,
        recursive: true,
        ..MountAttributes::default()
    };
    set_mount_attributes(tree.as_fd(), change).at("restrict a part of the file system")?;
    Ok(tree)
}

/// Puts protected paths of the workspace over themselves: read-only, or merely so that they cannot be renamed away.
///
/// # Errors
/// [`FailureKind::PathChanged`] when one is not there, or a link is on the way.
pub fn protect(workspace: BorrowedFd<'_>, protected: &[ProtectedPath]) -> Result<(), Failure> {
    for path in protected {
        let set = match path.protection {
            Protection::ReadOnly | Protection::Masked { .. } => READ_ONLY | NO_SUID | NO_DEVICES,
            Protection::Pinned => NO_SUID | NO_DEVICES,
        };
        let target = open_beneath(workspace, &path.relative).map_err(|_| Failure {
            kind: FailureKind::PathChanged(path.relative.clone()),
            step: "open a protected path".to_owned(),
            errno: 0,
        })?;
        cover(target.as_fd(), tree_of(target.as_fd(), set)?.as_fd())?;
    }
    Ok(())
}
