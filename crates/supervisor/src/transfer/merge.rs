//! Putting a staged tree where it belongs.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{Access, AtFlags, FileType, Mode, OFlags, accessat, fchmod, futimens, renameat},
    io::{self, Errno},
};
use wire::FaultKind;

use super::{
    channel::Stop,
    import::{Directories, Place, STAGED_ROOT, in_the_way, modified},
    tree,
};
use crate::fault::failed;

/// Moves the staged root to its place.
pub fn place(staging: &OwnedFd, place: &Place, directories: &Directories) -> Result<(), Stop> {
    match place {
        Place::New(parent, name) => {
            let mover = Mover {
                staging,
                directories,
            };
            mover.move_new(staging, STAGED_ROOT, parent, name, b"")
        }
        Place::File(parent, name) => {
            let failed_here = |errno| {
                Stop::at(
                    b"",
                    failed(FaultKind::BadPath, "take the place of a file", errno),
                )
            };
            check_same_mount(parent, name).map_err(failed_here)?;
            renameat(staging, STAGED_ROOT, parent, name.as_slice()).map_err(failed_here)
        }
        Place::Existing(directory) => {
            let staged = open_directory(staging, STAGED_ROOT)
                .map_err(|errno| Stop::failed(b"", "open the tree", errno))?;
            let mover = Mover {
                staging,
                directories,
            };
            // Twice over the same tree: first everything that can be known to fail, then the renames.
            mover.merge(&staged, directory, b"", Pass::Check)?;
            mover.merge(&staged, directory, b"", Pass::Move)
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Check,
    Move,
}

struct Mover<'a> {
    staging: &'a OwnedFd,
    directories: &'a Directories,
}

impl Mover<'_> {
    fn merge(
        &self,
        staged: &OwnedFd,
        existing: &OwnedFd,
        path: &[u8],
        pass: Pass,
    ) -> Result<(), Stop> {
        let failed_here = |errno| {
            Stop::at(
                path,
                failed(FaultKind::BadPath, "write into a directory", errno),
            )
        };
        if pass == Pass::Check {
            accessat(
                existing,
                ".",
                Access::WRITE_OK | Access::EXEC_OK,
                AtFlags::empty(),
            )
            .map_err(failed_here)?;
        }
        for name in tree::names(staged, u64::MAX).map_err(failed_here)? {
            let below = if path.is_empty() {
                name.clone()
            } else {
                [path, b"/", &name].concat()
            };
            let conflict = |errno| {
                Stop::at(
                    &below,
                    failed(FaultKind::BadPath, "take the place of an entry", errno),
                )
            };
            let is_directory =
                tree::kind(staged, &name).map_err(conflict)? == Some(FileType::Directory);
            match (tree::kind(existing, &name).map_err(conflict)?, is_directory) {
                (None, _) if pass == Pass::Move => {
                    self.move_new(staged, &name, existing, &name, &below)?
                }
                (None, _) => {}
                (Some(FileType::Directory), true) => {
                    let inner = open_directory(staged, &name).map_err(conflict)?;
                    let outer = open_directory(existing, &name).map_err(conflict)?;
                    self.merge(&inner, &outer, &below, pass)?;
                }
                (Some(FileType::RegularFile | FileType::Symlink), false) => match pass {
                    Pass::Check => check_same_mount(existing, &name).map_err(conflict)?,
                    Pass::Move => renameat(staged, name.as_slice(), existing, name.as_slice())
                        .map_err(conflict)?,
                },
                (Some(FileType::Directory), false) => {
                    return Err(Stop::at(&below, in_the_way(Errno::ISDIR)));
                }
                (Some(_), _) => return Err(Stop::at(&below, in_the_way(Errno::EXIST))),
            }
        }
        Ok(())
    }

    /// Moves something to a name that is free, directories below it with their final modes already.
    fn move_new(
        &self,
        from: &OwnedFd,
        name: &[u8],
        to: &OwnedFd,
        new_name: &[u8],
        path: &[u8],
    ) -> Result<(), Stop> {
        let failed_here = |errno| {
            Stop::at(
                path,
                failed(FaultKind::BadPath, "move an entry into its place", errno),
            )
        };
        let own = self.directories.get(path);
        let directory = match own {
            Some(_) => Some(open_directory(from, name).map_err(failed_here)?),
            None => None,
        };
        if own.is_some() {
            self.set_modes_below(path).map_err(failed_here)?;
        }
        tree::move_to_free_name(from, name, to, new_name).map_err(failed_here)?;
        // Only now: moving a directory writes its `..`, which its final mode may forbid.
        if let (Some((mode, mtime)), Some(directory)) = (own, directory) {
            set_mode(&directory, *mode, *mtime).map_err(failed_here)?;
        }
        Ok(())
    }

    /// Deepest first, so that each can still be reached.
    fn set_modes_below(&self, path: &[u8]) -> io::Result<()> {
        let prefix = if path.is_empty() {
            Vec::new()
        } else {
            [path, b"/"].concat()
        };
        let below = self
            .directories
            .range(prefix.clone()..)
            .take_while(|(found, _)| found.starts_with(&prefix));
        let below: Vec<_> = below
            .filter(|(found, _)| found.as_slice() != path)
            .collect();
        for (found, (mode, mtime)) in below.into_iter().rev() {
            let parts: Vec<&[u8]> = std::iter::once(STAGED_ROOT)
                .chain(found.split(|byte| *byte == b'/'))
                .collect();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            set_mode(
                &tree::open_beneath(self.staging, &parts, flags, Mode::empty())?,
                *mode,
                *mtime,
            )?;
        }
        Ok(())
    }
}

fn set_mode(directory: &OwnedFd, mode: Mode, mtime: i64) -> io::Result<()> {
    futimens(directory, &modified(mtime))?;
    fchmod(directory, mode)
}

fn open_directory(directory: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    tree::open_on_same_mount(directory, name, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// A file that is mounted over cannot be replaced; better to know before the first rename.
fn check_same_mount(directory: &OwnedFd, name: &[u8]) -> io::Result<()> {
    match tree::open_on_same_mount(directory, name, OFlags::PATH | OFlags::NOFOLLOW) {
        // A link cannot be opened without following it, and nothing can be mounted on it.
        Ok(_) | Err(Errno::LOOP) => Ok(()),
        Err(errno) => Err(errno),
    }
}
