//! The calls of both local backends that need `unsafe`: new processes in namespaces, attributes of mounts, handles in the
//! runtime's poll. Nothing else in this crate may be unsafe; what is here decides nothing.
#![allow(
    unsafe_code,
    reason = "system calls without a safe wrapper; the only such file of this crate"
)]

use std::{
    ffi::{c_int, c_long, c_uint},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use rustix::process::Pid;
use tokio::io::unix::AsyncFd;

/// A user namespace alone, as carrier of an id mapping.
pub const USER_NAMESPACE: c_int = libc::CLONE_NEWUSER;

/// The C library's constant is a number too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of [`clone_into`] one is on.
pub enum Side {
    /// The new process.
    Child,
    /// The caller.
    Parent(Child),
}

/// A new process.
pub struct Child {
    /// Its id in the caller's pid namespace.
    pub pid: Pid,
    /// Its handle.
    pub pidfd: OwnedFd,
}

#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks into new namespaces and, on cgroup version 2, straight into `cgroup`.
///
/// # Errors
/// What `clone3` says: `EPERM` and `ENOSPC` when user namespaces are forbidden or used up.
pub fn clone_into(namespaces: c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let mut pidfd: c_int = -1;
    let into_cgroup = cgroup.map_or(0, |_| CLONE_INTO_CGROUP);
    let mut arguments = CloneArguments {
        flags: u64::from((namespaces | libc::CLONE_PIDFD).cast_unsigned()) | into_cgroup,
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        cgroup: cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
        ..CloneArguments::default()
    };
    // JUSTIFICATION: no library offers clone3 with namespaces and CLONE_INTO_CGROUP.
    // SAFETY: the structure has the kernel's layout (CLONE_ARGS_SIZE_VER2) and lives across the call; `pidfd` does too.
    // Neither CLONE_VM nor a stack is asked for, so both processes have their own copy of all memory, as after fork. The
    // helper has one thread, so no lock of the C library is held by a thread that does not exist in the child.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            ptr::from_mut(&mut arguments),
            size_of::<CloneArguments>(),
        )
    };
    match check(result)? {
        0 => Ok(Side::Child),
        pid => {
            let pid = c_int::try_from(pid)
                .ok()
                .and_then(Pid::from_raw)
                .ok_or(io::ErrorKind::InvalidData)?;
            // SAFETY: the kernel has just stored a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Parent(Child { pid, pidfd }))
        }
    }
}

/// Changes of a mount's attributes.
#[derive(Clone, Copy, Default)]
pub struct MountAttributes<'fd> {
    /// `MOUNT_ATTR_*` to switch on.
    pub set: u64,
    /// Applies to all mounts below, too.
    pub recursive: bool,
    /// Takes the mount out of every peer group: nothing mounted on the host later appears here.
    pub private: bool,
    /// Maps owners as this user namespace does.
    pub idmap: Option<BorrowedFd<'fd>>,
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `mount_setattr` on the mount that `mount` is, or that it stands on.
///
/// # Errors
/// `EINVAL` for a file system that cannot map owners.
pub fn set_mount_attributes(mount: BorrowedFd<'_>, change: MountAttributes<'_>) -> io::Result<()> {
    let idmap = change.idmap.map_or(0, |_| libc::MOUNT_ATTR_IDMAP);
    let attributes = MountAttr {
        attr_set: change.set | idmap,
        attr_clr: 0,
        propagation: if change.private { libc::MS_PRIVATE } else { 0 },
        userns_fd: change
            .idmap
            .map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
    };
    let recursive = if change.recursive {
        libc::AT_RECURSIVE
    } else {
        0
    };
    // JUSTIFICATION: no library offers mount_setattr.
    // SAFETY: an empty string with AT_EMPTY_PATH; the structure has the kernel's layout (MOUNT_ATTR_SIZE_VER0) and is
    // only read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            (libc::AT_EMPTY_PATH | recursive) as c_uint,
            ptr::from_ref(&attributes),
            size_of::<MountAttr>(),
        )
    };
    check(result).map(drop)
}

/// The kernel's version of Landlock; 0 where there is none.
pub fn landlock_abi() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: c_uint = 1;
    // JUSTIFICATION: asks for a number; the library for rule sets is not needed here.
    // SAFETY: a null pointer and size 0 are what this flag demands.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<u8>(),
            0usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(result).unwrap_or(0)
}

/// Registers a descriptor with the runtime's poll.
///
/// # Errors
/// Outside of a runtime, or when the kernel refuses.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // JUSTIFICATION: the safe constructor is deprecated, since other types could close the descriptor early.
    // SAFETY: `OwnedFd` keeps the descriptor open, and gives the same number, until `AsyncFd` has deregistered it.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// Ends this process at once, without running what is registered to run at its end: the parent registered it.
pub fn end_now(code: c_int) -> ! {
    // JUSTIFICATION: std::process::exit runs handlers that belong to the parent's copy.
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// The C convention: -1 and `errno`.
fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
