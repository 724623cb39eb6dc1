//! The calls of a trial that no safe crate wraps. Each asks the kernel for something small and gives it back at once; what
//! the kernel answers is the result.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::{
    io::{self, Errno},
    process::Pid,
};

use super::fork::last_error;

/// `BPF_MAP_TYPE_ARRAY` with one entry of four bytes, as bpf(2) wants it.
const SMALLEST_MAP: [u32; 32] = {
    let mut attributes = [0; 32];
    (attributes[0], attributes[1], attributes[2], attributes[3]) = (2, 4, 4, 1);
    attributes
};
const BPF_MAP_CREATE: i32 = 0;
/// `perf_event_attr` of the first version, 64 bytes: a software event that counts nothing, disabled, of user space only.
const DUMMY_EVENT: [u64; 8] = [1 | 64 << 32, 9, 0, 0, 0, 1 | 1 << 5 | 1 << 6, 0, 0];
/// `UFFD_USER_MODE_ONLY`: what the kernel allows to whoever has no capability.
const USER_MODE_ONLY: i32 = 1;
/// `KEY_SPEC_PROCESS_KEYRING`: ends with the process.
const PROCESS_KEYRING: i32 = -2;
/// Bytes of `struct io_uring_params`.
const URING_PARAMETERS_BYTES: usize = 120;

/// Puts this process into a user namespace of its own.
pub fn enter_user_namespace() -> io::Result<()> {
    // JUSTIFICATION: rustix marks it unsafe for what it does to shared descriptors and threads.
    // SAFETY: this process has one thread and is a forked child that ends right after.
    done(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())
}

/// Adds a key that ends with this process.
pub fn add_key() -> io::Result<()> {
    let (kind, name, content) = (c"user", c"claude-code-mcp-trial", c"x");
    // JUSTIFICATION: no safe crate of ours has keyrings.
    // SAFETY: three C strings that live across the call; the length is that of the content.
    done(unsafe {
        libc::syscall(
            libc::SYS_add_key,
            kind.as_ptr(),
            name.as_ptr(),
            content.as_ptr(),
            1usize,
            PROCESS_KEYRING,
        )
    })
}

/// Traces a child, which is not stopped by it.
pub fn trace(child: Pid) -> io::Result<()> {
    let none: *const u8 = std::ptr::null();
    // JUSTIFICATION: no safe crate of ours has ptrace.
    // SAFETY: PTRACE_SEIZE reads and writes no memory of this process.
    done(unsafe { libc::ptrace(libc::PTRACE_SEIZE, child.as_raw_nonzero().get(), none, none) })
}

/// Reads a byte of a forked child's memory.
pub fn read_memory(child: Pid) -> io::Result<()> {
    static BYTE: u8 = 1;
    let mut read = 0u8;
    let own = libc::iovec {
        iov_base: (&raw mut read).cast(),
        iov_len: 1,
    };
    let foreign = libc::iovec {
        iov_base: (&raw const BYTE).cast_mut().cast(),
        iov_len: 1,
    };
    // JUSTIFICATION: no safe crate of ours has it.
    // SAFETY: the kernel writes one byte to `read`, which lives across the call; the address of the other process is only
    // looked up there.
    match unsafe {
        libc::process_vm_readv(
            child.as_raw_nonzero().get(),
            &raw const own,
            1,
            &raw const foreign,
            1,
            0,
        )
    } {
        1 => Ok(()),
        -1 => Err(last_error()),
        _ => Err(Errno::IO),
    }
}

/// Sets up an io_uring of one entry.
pub fn set_up_io_uring() -> io::Result<OwnedFd> {
    let mut parameters = [0u64; URING_PARAMETERS_BYTES / 8];
    // JUSTIFICATION: no safe crate of ours has io_uring.
    // SAFETY: the kernel reads and writes `struct io_uring_params`, which `parameters` is as long as.
    descriptor(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) })
}

/// Makes the smallest map.
pub fn make_bpf_map() -> io::Result<OwnedFd> {
    let attributes = SMALLEST_MAP;
    // JUSTIFICATION: no safe crate of ours has bpf.
    // SAFETY: the kernel reads as many bytes as the length says.
    descriptor(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_CREATE,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    })
}

/// Opens an event of this process that counts nothing.
pub fn open_performance_event() -> io::Result<OwnedFd> {
    let attributes = DUMMY_EVENT;
    // JUSTIFICATION: no safe crate of ours has performance events.
    // SAFETY: the kernel reads as many bytes as the structure says in its second word.
    descriptor(unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_ptr(),
            0,
            -1,
            -1,
            0usize,
        )
    })
}

/// Opens what page faults can be handled by.
pub fn open_user_faults() -> io::Result<OwnedFd> {
    // JUSTIFICATION: no safe crate of ours has userfaultfd.
    // SAFETY: takes flags and no memory.
    descriptor(unsafe { libc::syscall(libc::SYS_userfaultfd, USER_MODE_ONLY) })
}

fn done(answer: libc::c_long) -> io::Result<()> {
    if answer == -1 {
        Err(last_error())
    } else {
        Ok(())
    }
}

fn descriptor(answer: libc::c_long) -> io::Result<OwnedFd> {
    done(answer)?;
    let raw = RawFd::try_from(answer).map_err(|_| Errno::BADF)?;
    // JUSTIFICATION: the calls above make descriptors and no crate owns them.
    // SAFETY: the kernel just made it, so it is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
