//! The host's side of a file transfer: reads a tree to send, writes a tree that comes.
//!
//! Both work from an opened directory and by descriptors beneath it, so no link and no renamed directory leads outside.
//! Blocking: run on a thread for blocking work.

mod read;
mod write;

use std::{
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2};

pub use read::read_tree;
pub use write::TreeWriter;
pub(crate) use write::check_protected;

/// How much one transfer may move; from its permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Entries, the root included.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
}

/// Directories above an entry at most, as on the supervisor's side.
const MAX_DEPTH: usize = 64;

/// Why a transfer did not happen. Nothing of it stays.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The source does not exist.
    #[error("{path:?} does not exist")]
    Missing {
        /// Relative to the allowed directory.
        path: PathBuf,
    },
    /// An entry is neither a regular file, a directory nor a link that stays inside the tree, or is setuid.
    #[error("{path:?} is {what}")]
    Refused {
        /// Relative to the transferred tree.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A protected path would be written.
    #[error("{path:?} is protected: {reason}")]
    Protected {
        /// Relative to the project.
        path: PathBuf,
        /// Why it is protected.
        reason: String,
    },
    /// Something of another kind stands where an entry belongs.
    #[error("{path:?} is in the way")]
    InTheWay {
        /// Relative to the destination.
        path: PathBuf,
    },
    /// More than a transfer may have.
    #[error("more than {limit} {unit}")]
    TooLarge {
        /// The limit.
        limit: u64,
        /// `entries`, `bytes` or `levels of directories`.
        unit: &'static str,
    },
    /// The sending side broke off or lied about what it sends.
    #[error("the sending side {0}")]
    Broken(&'static str),
    /// A system call failed.
    #[error("cannot {step} {path:?}")]
    Io {
        /// Which step.
        step: &'static str,
        /// Where, relative.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl TransferError {
    fn io(step: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> TransferError {
        let path = path.to_owned();
        move |errno| TransferError::Io {
            step,
            path,
            source: errno.into(),
        }
    }
}

/// What went over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of content.
    pub bytes: u64,
}

impl Totals {
    fn entries(&self) -> u64 {
        self.files + self.directories + self.links
    }

    fn check(&self, budget: Budget) -> Result<(), TransferError> {
        if self.entries() > budget.entries {
            return Err(TransferError::TooLarge {
                limit: budget.entries,
                unit: "entries",
            });
        }
        if self.bytes > budget.bytes {
            return Err(TransferError::TooLarge {
                limit: budget.bytes,
                unit: "bytes",
            });
        }
        Ok(())
    }
}

/// How paths are opened everywhere here: below the given directory, over no link of any kind.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);
const OPEN_DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

fn open_directory(base: &OwnedFd, relative: &Path) -> rustix::io::Result<OwnedFd> {
    let relative = if relative.as_os_str().is_empty() {
        Path::new(".")
    } else {
        relative
    };
    openat2(base, relative, OPEN_DIRECTORY, Mode::empty(), BENEATH)
}

/// Whether a link at `path` (relative to the tree) leads to a place inside the tree. It may climb only before it
/// descends: a directory that it descends into could be a link itself, and `..` behind it another place.
fn link_stays_inside(path: &Path, target: &Path) -> bool {
    let mut above = path.components().count().saturating_sub(1);
    let mut descended = false;
    for component in target.components() {
        match component {
            Component::Normal(_) => descended = true,
            Component::CurDir => {}
            Component::ParentDir if above > 0 && !descended => above -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    !target.as_os_str().is_empty() && !target.as_os_str().as_bytes().contains(&0)
}

/// What an entry that is not transferred is, for the caller.
fn refused_kind(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::RegularFile | FileType::Directory | FileType::Symlink | FileType::Unknown => {
            "of an unknown kind"
        }
    }
}

#[cfg(test)]
mod tests;
