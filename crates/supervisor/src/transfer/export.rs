//! Reading a tree and sending it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, readlinkat, statat},
    io::{self, Errno},
};
use wire::{
    Entry, EntryKind, Fault, FaultKind, MAX_CHUNK_BYTES, TransferEnd, TransferFrame, TransferSpec,
};

use super::{
    channel::{Channel, Stop},
    paths::{self, MAX_DEPTH, MAX_PATH_BYTES},
    tree,
};
use crate::fault::{failed, fault};

/// Sends what lies at `path`, then its end, and waits for the host's.
pub fn run(channel: &mut Channel, path: &[u8], spec: &TransferSpec) {
    let mut export = Export {
        channel,
        entries: 0,
        bytes: 0,
        spec,
    };
    match export.send_root(path) {
        Ok(()) => {
            let end = TransferEnd::Complete {
                entries: export.entries,
                bytes: export.bytes,
            };
            if channel.send_frame(TransferFrame::End(end)).is_ok() {
                // What the host thinks of it is the host's affair; only the connection must outlive it.
                let _ = channel.receive();
            }
        }
        Err(stop) => channel.refuse(stop),
    }
}

struct Export<'a> {
    channel: &'a mut Channel,
    spec: &'a TransferSpec,
    entries: u64,
    bytes: u64,
}

impl Export<'_> {
    fn send_root(&mut self, path: &[u8]) -> Result<(), Stop> {
        let parts = paths::absolute(path).map_err(|fault| Stop::at(b"", fault))?;
        let bad = |errno| Stop::at(b"", failed(FaultKind::BadPath, "open the path", errno));
        let root = tree::root().map_err(bad)?;
        let Some((name, parents)) = parts.split_last() else {
            return self.send_directory(&root, b"", 0);
        };
        let parent = tree::open_beneath(
            &root,
            parents,
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .map_err(bad)?;
        self.send_entry(&parent, name, b"", 0)
    }

    fn send_entry(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<(), Stop> {
        let bad = |errno| Stop::at(path, failed(FaultKind::BadPath, "look at an entry", errno));
        let facts = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(bad)?;
        match FileType::from_raw_mode(facts.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let directory =
                    tree::open_beneath(parent, &[name], flags, Mode::empty()).map_err(bad)?;
                self.send_directory(&directory, path, depth)
            }
            FileType::RegularFile => self.send_file(parent, name, path),
            FileType::Symlink => self.send_link(parent, name, path, &facts),
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Err(Stop::at(
                path,
                fault(FaultKind::BadPath, "neither file, directory nor link"),
            )),
        }
    }

    fn send_directory(
        &mut self,
        directory: &OwnedFd,
        path: &[u8],
        depth: usize,
    ) -> Result<(), Stop> {
        let facts =
            fstat(directory).map_err(|errno| Stop::failed(path, "look at a directory", errno))?;
        self.announce(path, EntryKind::Directory, &facts)?;
        let readable = tree::open_beneath(
            directory,
            &[],
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        );
        let left = self.spec.max_entries.saturating_sub(self.entries);
        let names = readable
            .and_then(|readable| tree::names(readable, left))
            .map_err(|errno| match errno {
                Errno::OVERFLOW => Stop::at(path, too_many("too many entries")),
                errno => Stop::failed(path, "read a directory", errno),
            })?;
        for name in names {
            let below = if path.is_empty() {
                name.clone()
            } else {
                [path, b"/", &name].concat()
            };
            if depth + 1 > MAX_DEPTH || below.len() > MAX_PATH_BYTES {
                return Err(Stop::at(
                    path,
                    fault(FaultKind::BadPath, "the tree is too deep"),
                ));
            }
            self.send_entry(directory, &name, &below, depth + 1)?;
        }
        Ok(())
    }

    fn send_link(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        facts: &Stat,
    ) -> Result<(), Stop> {
        let target = readlinkat(parent, name, Vec::new())
            .map_err(|errno| Stop::failed(path, "read a link", errno))?;
        let target = target.into_bytes();
        if !paths::link_stays(path, &target) {
            return Err(Stop::at(
                path,
                fault(FaultKind::BadPath, "a link leaves the tree"),
            ));
        }
        self.announce(path, EntryKind::Link { target }, facts)
    }

    fn send_file(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), Stop> {
        // The agent can put something else there at any time: a FIFO must not block us, a terminal not become ours.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        let file = tree::open_beneath(parent, &[name], flags, Mode::empty())
            .map_err(|errno| Stop::failed(path, "open a file", errno))?;
        let facts = fstat(&file).map_err(|errno| Stop::failed(path, "look at a file", errno))?;
        if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
            return Err(Stop::at(
                path,
                fault(FaultKind::BadPath, "changed while it was read"),
            ));
        }
        if Mode::from_raw_mode(facts.st_mode).intersects(Mode::SUID | Mode::SGID) {
            return Err(Stop::at(
                path,
                fault(FaultKind::BadPath, "a file with setuid or setgid"),
            ));
        }
        let size = u64::try_from(facts.st_size).unwrap_or(0);
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.spec.max_bytes {
            return Err(Stop::at(path, too_many("too many bytes")));
        }
        self.announce(path, EntryKind::File { size }, &facts)?;
        self.send_content(&file, size, path)
    }

    /// Exactly as much as was announced: a file that grows meanwhile is sent as it was, one that shrinks stops it all.
    fn send_content(&mut self, file: impl AsFd, size: u64, path: &[u8]) -> Result<(), Stop> {
        let mut left = size;
        let mut chunk = Vec::new();
        while left > 0 {
            chunk.resize(
                usize::try_from(left)
                    .unwrap_or(MAX_CHUNK_BYTES)
                    .min(MAX_CHUNK_BYTES),
                0,
            );
            match io::read(&file, &mut chunk) {
                Ok(0) => {
                    return Err(Stop::at(
                        path,
                        fault(FaultKind::System, "the file shrank while it was read"),
                    ));
                }
                Ok(read) => {
                    chunk.truncate(read);
                    left -= read as u64;
                    let frame = TransferFrame::Data(std::mem::take(&mut chunk));
                    self.channel
                        .send_frame(frame)
                        .map_err(|fault| Stop::at(path, fault))?;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Stop::failed(path, "read a file", errno)),
            }
        }
        Ok(())
    }

    fn announce(&mut self, path: &[u8], kind: EntryKind, facts: &Stat) -> Result<(), Stop> {
        self.entries += 1;
        if self.entries > self.spec.max_entries {
            return Err(Stop::at(path, too_many("too many entries")));
        }
        let entry = Entry {
            path: path.to_vec(),
            kind,
            mode: facts.st_mode & 0o777,
            mtime: facts.st_mtime,
        };
        self.channel
            .send_frame(TransferFrame::Entry(entry))
            .map_err(|fault| Stop::at(path, fault))
    }
}

fn too_many(step: &str) -> Fault {
    fault(FaultKind::TooMany, step)
}
