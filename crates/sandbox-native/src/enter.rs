//! The calls that need `unsafe`: entering namespaces, attributes of mounts, the final execution. Nothing else in
//! this crate may be unsafe; what is here decides nothing.
#![allow(
    unsafe_code,
    reason = "system calls without a safe wrapper; the only such file of this crate"
)]

use std::{
    ffi::{CString, c_char, c_int, c_long, c_uint},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use rustix::process::Pid;
use tokio::io::unix::AsyncFd;

/// Namespaces of a sandbox. The cgroup namespace is entered later, once the process is in its groups.
pub(crate) const SANDBOX_NAMESPACES: c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;
/// A user namespace alone, as carrier of an id mapping.
pub(crate) const USER_NAMESPACE: c_int = libc::CLONE_NEWUSER;

/// The C library's constant is a number too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Signals are numbered from 1 to this.
const LAST_SIGNAL: c_int = 64;
/// Size of the kernel's signal set.
const SIGNAL_SET_BYTES: usize = 8;

/// Which side of [`clone_into`] one is on.
pub(crate) enum Side {
    /// The new process.
    Child,
    /// The caller.
    Parent(Child),
}

/// A new process.
pub(crate) struct Child {
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
pub(crate) fn clone_into(namespaces: c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
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
pub(crate) struct MountAttributes<'fd> {
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
pub(crate) fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    change: MountAttributes<'_>,
) -> io::Result<()> {
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

/// Enters a cgroup namespace: the process sees its own groups as the roots.
pub(crate) fn enter_cgroup_namespace() -> io::Result<()> {
    // JUSTIFICATION: the safe wrapper is deprecated, since it could unshare the descriptor table.
    // SAFETY: only a namespace is unshared, no table that owned descriptors live in.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWCGROUP) }?;
    Ok(())
}

/// Every signal gets its default action and none is blocked: an ignored one would be ignored by all that the supervisor
/// starts, and Rust programs ignore SIGPIPE.
pub(crate) fn reset_signals() -> io::Result<()> {
    // The kernel's structure, all zero: the default action, no flags, no restorer, an empty mask.
    let default_action = [0_u64; 4];
    for number in 1..=LAST_SIGNAL {
        // JUSTIFICATION: no library resets dispositions without installing handlers, and the C library's own function
        // leaves out two signals that it keeps for itself.
        // SAFETY: the structure is as large as the kernel's and only read; SIG_DFL is no handler of ours. SIGKILL and
        // SIGSTOP answer EINVAL.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                ptr::from_ref(&default_action),
                ptr::null_mut::<u8>(),
                SIGNAL_SET_BYTES,
            )
        };
    }
    // SAFETY: an all-zero set is an initialized one on Linux, and sigemptyset makes sure; both live across the calls.
    let result = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut())
    };
    check(c_long::from(result)).map(drop)
}

/// Becomes the program in `program`, with an empty environment. Returns only when that fails.
pub(crate) fn execute(program: BorrowedFd<'_>, arguments: &[CString]) -> io::Error {
    let mut pointers: Vec<*const c_char> =
        arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(ptr::null());
    let environment: [*const c_char; 1] = [ptr::null()];
    // JUSTIFICATION: the standard library executes by path only, and the program has none.
    // SAFETY: both arrays end with a null pointer; the strings live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            pointers.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(result)
        .err()
        .unwrap_or_else(|| io::ErrorKind::InvalidData.into())
}

/// No descriptor from `first` on survives the next execution (CVE-2024-21626).
pub(crate) fn close_on_execution_from(first: c_uint) -> io::Result<()> {
    // JUSTIFICATION: no library offers close_range with CLOSE_RANGE_CLOEXEC.
    // SAFETY: marks descriptors and closes none, so no owner's descriptor becomes invalid.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    check(result).map(drop)
}

/// Leaves the session keyring that this process has inherited for a new, empty one.
pub(crate) fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // JUSTIFICATION: no library here offers keyctl.
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            ptr::null::<c_char>(),
        )
    };
    check(result).map(drop)
}

/// Switches the loopback interface of the own network namespace on. `socket` is any internet socket of it.
pub(crate) fn switch_loopback_on(socket: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct InterfaceFlags {
        name: [u8; libc::IFNAMSIZ],
        flags: i16,
        // The kernel reads and writes a whole `struct ifreq`: 24 bytes follow the name on 64-bit machines.
        rest: [u8; 22],
    }
    let mut request = InterfaceFlags {
        name: [0; libc::IFNAMSIZ],
        flags: libc::IFF_UP as i16,
        rest: [0; 22],
    };
    request.name[..2].copy_from_slice(b"lo");
    // JUSTIFICATION: no library offers SIOCSIFFLAGS.
    // SAFETY: the structure is as large as `struct ifreq`, its name ends with a zero byte, and it lives across the call.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            ptr::from_mut(&mut request),
        )
    };
    check(c_long::from(result)).map(drop)
}

/// The kernel's version of Landlock; 0 where there is none.
pub(crate) fn landlock_abi() -> u32 {
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
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // JUSTIFICATION: the safe constructor is deprecated, since other types could close the descriptor early.
    // SAFETY: `OwnedFd` keeps the descriptor open, and gives the same number, until `AsyncFd` has deregistered it.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// Ends this process at once, without running what is registered to run at its end: the parent registered it.
pub(crate) fn end_now(code: c_int) -> ! {
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
