//! The calls that need `unsafe`: entering namespaces, attributes of mounts, the final execution. Nothing else in
//! this crate may be unsafe; what is here decides nothing.
#![allow(
    unsafe_code,
    reason = "system calls without a safe wrapper; the only such file of this crate"
)]

use std::{
    ffi::{CString, c_char, c_int, c_long, c_uint},
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

pub(crate) use sandbox_host::kernel::{
    Child, MountAttributes, Side, clone_into, end_now, landlock_abi, set_mount_attributes,
};

/// Namespaces of a sandbox. The cgroup namespace is entered later, once the process is in its groups.
pub(crate) const SANDBOX_NAMESPACES: c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;
/// Signals are numbered from 1 to this.
const LAST_SIGNAL: c_int = 64;
/// Size of the kernel's signal set.
const SIGNAL_SET_BYTES: usize = 8;

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

/// The C convention: -1 and `errno`.
fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
