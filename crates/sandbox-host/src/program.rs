//! The supervisor's program, carried inside this one.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// The static program that is pid 1 of every sandbox.
pub fn supervisor_binary() -> &'static [u8] {
    include_bytes!(env!("SUPERVISOR_PROGRAM"))
}

/// The program in a sealed file without a name: nothing inside a sandbox can write to what the host runs next
/// (CVE-2019-5736), and all sandboxes share its pages.
///
/// # Errors
/// When the kernel gives no such file.
pub fn sealed_supervisor() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag and give an executable file anyway.
    let fd = memfd_create("supervisor", flags | MemfdFlags::EXEC)
        .or_else(|_| memfd_create("supervisor", flags))?;
    let mut file = File::from(fd);
    file.write_all(supervisor_binary())?;
    let fd = OwnedFd::from(file);
    fcntl_add_seals(
        &fd,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(fd)
}
