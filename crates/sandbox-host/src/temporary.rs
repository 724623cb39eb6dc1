//! The places of a sandbox that live in memory, and what each of them may hold.

use model::TEMPORARY_PLACES;

/// One inode for so many bytes of a tmpfs: a tree of small files must fit, a flood of empty ones must not.
const BYTES_PER_INODE: u64 = 8 * 1024;
/// Smallest tmpfs, bytes.
pub const MIN_TEMPORARY_BYTES: u64 = 64 * 1024;
/// Inodes of the smallest tmpfs.
const MIN_INODES: u64 = 256;

/// Sizes of the tmpfs that together are the temporary limit, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Temporary {
    /// `/tmp`, bytes.
    pub tmp: u64,
    /// The agent's home, bytes.
    pub home: u64,
    /// `/run`, bytes.
    pub run: u64,
    /// `/dev/shm`, bytes.
    pub shared_memory: u64,
}

impl Temporary {
    /// By [`TEMPORARY_PLACES`].
    pub fn split(bytes: u64) -> Self {
        let [tmp, home, run, shared_memory] =
            TEMPORARY_PLACES.map(|(_, sixteenths)| bytes / 16 * sixteenths);
        Temporary {
            tmp,
            home,
            run,
            shared_memory,
        }
    }

    /// How many inodes a tmpfs of that many bytes gets.
    pub fn inodes(bytes: u64) -> u64 {
        (bytes / BYTES_PER_INODE).max(MIN_INODES)
    }
}
