//! The system calls that no safe crate wraps. Everything `unsafe` of this program stands below this module.

pub mod attempts;
mod execute;
mod fork;
mod signals;

pub use execute::{CStringArray, execute};
pub use fork::{
    Forked, close_all_except, exit_now, fork, mark_all_close_on_exec, wait_without_reaping,
};
pub use signals::{child_signals, reset_signals, signal_everything, signal_process};

use rustix::io;

/// Allocations from that size on are returned to the kernel when freed. glibc raises its threshold by itself after the
/// first large free, and the heap of a process that lives for hours then never shrinks.
const MMAP_THRESHOLD_BYTES: i32 = 64 * 1024;

/// Memory that [`keep_freed_memory`] keeps: some of the largest frames (1 MiB).
const KEPT_BYTES: i32 = 8 * 1024 * 1024;

/// What must be so before anything else happens: no stray descriptors, no signals, a known umask.
pub fn prepare_process() -> io::Result<()> {
    // JUSTIFICATION: rustix has no mallopt; it bounds the resident size of a long-lived process.
    // SAFETY: called before any other thread exists; sets two integers of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, MMAP_THRESHOLD_BYTES);
    }
    close_all_except(&[0, 1, 2])?;
    signals::block_all()?;
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    Ok(())
}

/// For a process that ends soon: what it frees it keeps and uses again, instead of giving it back to the kernel with every
/// frame, which the next one would have to fault in anew.
pub fn keep_freed_memory() {
    // JUSTIFICATION: rustix has no mallopt.
    // SAFETY: called in a forked process of one thread; sets two integers of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}

/// Bytes of a page.
pub fn page_size() -> u64 {
    // JUSTIFICATION: rustix offers it under a feature that no other crate here needs.
    // SAFETY: sysconf has no preconditions.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}
