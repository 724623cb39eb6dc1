//! Writes a file or tree that comes from a sandbox. All of it is staged beside its destination first; the destination
//! sees nothing before the sender's end has come and every conflict is ruled out.
//!
//! What is atomic: a new file or directory appears whole, by one rename, and so does a file that replaces a file. A tree
//! that is merged into a directory appears file by file, each whole; a crash in the middle leaves some of them.

use std::{
    ffi::{OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, chownat, fchmod,
        futimens, mkdirat, openat, openat2, renameat, renameat_with, statat, symlinkat, unlinkat,
    },
    process::{Gid, Uid},
};
use sandbox::{
    ExportFrame,
    wire::{Entry, EntryKind},
};

use super::{
    BENEATH, Budget, MAX_DEPTH, OPEN_DIRECTORY, Totals, TransferError, link_stays_inside,
    open_directory,
};
use crate::protected::Protects;

/// Receives frames and puts the tree in place. Dropped before [`TreeWriter::finish`], it removes what it staged.
pub struct TreeWriter<'a> {
    parent: OwnedFd,
    name: OsString,
    destination: PathBuf,
    staging_name: OsString,
    staging: OwnedFd,
    owner: Option<(Uid, Gid)>,
    rules: &'a dyn Protects,
    budget: Budget,
    current: Option<OpenFile>,
    links: Vec<(PathBuf, PathBuf)>,
    directories: Vec<(PathBuf, u32, i64)>,
    root: Option<Root>,
    totals: Totals,
}

/// The file that content is coming for.
struct OpenFile {
    fd: OwnedFd,
    path: PathBuf,
    left: u64,
    mode: u32,
    mtime: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    File,
    Directory,
}

/// Where the tree stands in the staging directory.
const STAGED: &str = "tree";

impl<'a> TreeWriter<'a> {
    /// Prepares to write at `destination`, relative to `base`. With `owner`, everything written is given to it.
    /// `unique` is a random text that no other transfer uses.
    ///
    /// # Errors
    /// When the destination's directory does not exist or is reached over a link, or the destination is protected.
    pub fn new(
        base: &OwnedFd,
        destination: &Path,
        owner: Option<(u32, u32)>,
        unique: &str,
        rules: &'a dyn Protects,
        budget: Budget,
    ) -> Result<Self, TransferError> {
        let (Some(parent_path), Some(name)) = (destination.parent(), destination.file_name())
        else {
            return Err(TransferError::InTheWay {
                path: destination.to_owned(),
            });
        };
        check_protected(rules, destination)?;
        let parent =
            open_directory(base, parent_path).map_err(TransferError::io("open", parent_path))?;
        let staging_name = OsString::from(format!(".claude-code-mcp-transfer-{unique}"));
        mkdirat(&parent, &staging_name, Mode::RWXU)
            .map_err(TransferError::io("stage in", parent_path))?;
        let staging = openat(
            &parent,
            &staging_name,
            OPEN_DIRECTORY | OFlags::NOFOLLOW,
            Mode::empty(),
        )
        .map_err(TransferError::io("stage in", parent_path))?;
        Ok(TreeWriter {
            parent,
            name: name.to_owned(),
            destination: destination.to_owned(),
            staging_name,
            staging,
            owner: owner.map(|(uid, gid)| (Uid::from_raw(uid), Gid::from_raw(gid))),
            rules,
            budget,
            current: None,
            links: Vec::new(),
            directories: Vec::new(),
            root: None,
            totals: Totals::default(),
        })
    }

    /// Takes the next frame; the end is not one of them.
    ///
    /// # Errors
    /// See [`TransferError`]; the transfer is over then.
    pub fn frame(&mut self, frame: ExportFrame) -> Result<(), TransferError> {
        match frame {
            ExportFrame::Entry(entry) => self.entry(entry),
            ExportFrame::Data(data) => self.data(&data),
        }
    }

    /// Puts the staged tree in place.
    ///
    /// # Errors
    /// When something at the destination is in the way; nothing is changed then.
    pub fn finish(mut self) -> Result<Totals, TransferError> {
        self.close_file()?;
        self.make_links()?;
        self.set_directory_modes()?;
        match self.root {
            None => return Err(TransferError::Broken("sent nothing")),
            Some(Root::File) => self.place_file()?,
            Some(Root::Directory) => self.place_directory()?,
        }
        Ok(self.totals)
    }

    fn entry(&mut self, entry: Entry) -> Result<(), TransferError> {
        self.close_file()?;
        let path = PathBuf::from(OsStr::from_bytes(&entry.path));
        self.check_path(&path)?;
        let staged = staged(&path);
        match entry.kind {
            EntryKind::Directory => {
                self.totals.directories += 1;
                self.totals.check(self.budget)?;
                mkdirat(&self.staging, &staged, Mode::RWXU)
                    .map_err(TransferError::io("make", &path))?;
                self.give(&staged, &path)?;
                self.directories
                    .push((path.clone(), entry.mode & 0o777, entry.mtime));
            }
            EntryKind::File { size } => {
                self.totals.files += 1;
                self.totals.bytes = self.totals.bytes.saturating_add(size);
                self.totals.check(self.budget)?;
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let fd = openat2(
                    &self.staging,
                    &staged,
                    flags,
                    Mode::RUSR | Mode::WUSR,
                    BENEATH,
                )
                .map_err(TransferError::io("write", &path))?;
                self.give(&staged, &path)?;
                let mode = entry.mode & 0o777;
                self.current = Some(OpenFile {
                    fd,
                    path: path.clone(),
                    left: size,
                    mode,
                    mtime: entry.mtime,
                });
            }
            EntryKind::Link { target } => {
                self.totals.links += 1;
                self.totals.check(self.budget)?;
                let target = PathBuf::from(OsStr::from_bytes(&target));
                if path.as_os_str().is_empty() || !link_stays_inside(&path, &target) {
                    return Err(TransferError::Refused {
                        path,
                        what: "a link out of the transferred tree",
                    });
                }
                self.links.push((path, target));
                return Ok(());
            }
        }
        if path.as_os_str().is_empty() {
            self.root = Some(if self.current.is_some() {
                Root::File
            } else {
                Root::Directory
            });
        }
        Ok(())
    }

    /// The first entry is the root, every other one lies below it: clean names, in a directory that came before.
    fn check_path(&self, path: &Path) -> Result<(), TransferError> {
        let is_root = path.as_os_str().is_empty();
        let clean = path
            .components()
            .all(|component| matches!(component, Component::Normal(_)));
        if is_root != self.root.is_none() || self.root == Some(Root::File) || !clean {
            return Err(TransferError::Broken(
                "sent a path that is not below its root",
            ));
        }
        if path.components().count() > MAX_DEPTH {
            return Err(TransferError::TooLarge {
                limit: MAX_DEPTH as u64,
                unit: "levels of directories",
            });
        }
        check_protected(self.rules, &self.destination.join(path))
    }

    fn data(&mut self, data: &[u8]) -> Result<(), TransferError> {
        let file = self
            .current
            .as_mut()
            .ok_or(TransferError::Broken("sent content without a file"))?;
        file.left = file
            .left
            .checked_sub(data.len() as u64)
            .ok_or(TransferError::Broken("sent more than it announced"))?;
        let mut rest = data;
        while !rest.is_empty() {
            let written = rustix::io::write(&file.fd, rest)
                .map_err(TransferError::io("write", &file.path))?;
            rest = &rest[written..];
        }
        Ok(())
    }

    fn close_file(&mut self) -> Result<(), TransferError> {
        let Some(file) = self.current.take() else {
            return Ok(());
        };
        if file.left > 0 {
            return Err(TransferError::Broken("sent less than it announced"));
        }
        fchmod(&file.fd, Mode::from_raw_mode(file.mode))
            .map_err(TransferError::io("set the mode of", &file.path))?;
        futimens(&file.fd, &times(file.mtime))
            .map_err(TransferError::io("set the time of", &file.path))
    }

    /// Links come last, so that nothing in this transfer is ever written through one.
    fn make_links(&mut self) -> Result<(), TransferError> {
        for (path, target) in std::mem::take(&mut self.links) {
            let parent = open_directory(
                &self.staging,
                staged(&path).parent().unwrap_or(Path::new("")),
            )
            .map_err(TransferError::io("make the link", &path))?;
            let name = path.file_name().unwrap_or_default();
            symlinkat(&target, &parent, name).map_err(TransferError::io("make the link", &path))?;
            self.give(&staged(&path), &path)?;
        }
        Ok(())
    }

    /// Modes of directories come after their content: a read-only one could not be filled.
    fn set_directory_modes(&mut self) -> Result<(), TransferError> {
        for (path, mode, mtime) in std::mem::take(&mut self.directories).into_iter().rev() {
            let fd = open_directory(&self.staging, &staged(&path))
                .map_err(TransferError::io("open", &path))?;
            // The owner keeps the directory usable, else a merge could not move its files and nobody could remove it.
            fchmod(&fd, Mode::from_raw_mode(mode | 0o700))
                .map_err(TransferError::io("set the mode of", &path))?;
            futimens(&fd, &times(mtime)).map_err(TransferError::io("set the time of", &path))?;
        }
        Ok(())
    }

    fn give(&self, staged: &Path, path: &Path) -> Result<(), TransferError> {
        let Some((uid, gid)) = self.owner else {
            return Ok(());
        };
        chownat(
            &self.staging,
            staged,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(TransferError::io("give to its owner", path))
    }

    fn place_file(&self) -> Result<(), TransferError> {
        match kind_at(&self.parent, &self.name)? {
            None | Some(FileType::RegularFile | FileType::Symlink) => {
                renameat(&self.staging, STAGED, &self.parent, &self.name)
                    .map_err(TransferError::io("put in place", &self.destination))
            }
            Some(_) => Err(TransferError::InTheWay {
                path: self.destination.clone(),
            }),
        }
    }

    fn place_directory(&self) -> Result<(), TransferError> {
        match kind_at(&self.parent, &self.name)? {
            None => renameat_with(
                &self.staging,
                STAGED,
                &self.parent,
                &self.name,
                RenameFlags::NOREPLACE,
            )
            .map_err(TransferError::io("put in place", &self.destination)),
            Some(FileType::Directory) => {
                let flags = OPEN_DIRECTORY | OFlags::NOFOLLOW;
                let existing = openat(&self.parent, &self.name, flags, Mode::empty())
                    .map_err(TransferError::io("open", &self.destination))?;
                let tree = openat(&self.staging, STAGED, flags, Mode::empty())
                    .map_err(TransferError::io("open", &self.destination))?;
                merge(&tree, &existing, Path::new(""), Pass::Check)?;
                merge(&tree, &existing, Path::new(""), Pass::Move)
            }
            Some(_) => Err(TransferError::InTheWay {
                path: self.destination.clone(),
            }),
        }
    }
}

impl Drop for TreeWriter<'_> {
    fn drop(&mut self) {
        remove_tree(&self.parent, &self.staging_name);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Only looks for what is in the way.
    Check,
    /// Moves.
    Move,
}

/// Moves everything of `from` into `to`. Directories meet directories; a file replaces a file or a link.
fn merge(from: &OwnedFd, to: &OwnedFd, path: &Path, pass: Pass) -> Result<(), TransferError> {
    for name in names(from).map_err(TransferError::io("read", path))? {
        let child = path.join(&name);
        let source = kind_at(from, &name)?;
        match (source, kind_at(to, &name)?) {
            (Some(FileType::Directory), Some(FileType::Directory)) => {
                let flags = OPEN_DIRECTORY | OFlags::NOFOLLOW;
                let below = openat(from, &name, flags, Mode::empty())
                    .map_err(TransferError::io("open", &child))?;
                let there = openat(to, &name, flags, Mode::empty())
                    .map_err(TransferError::io("open", &child))?;
                merge(&below, &there, &child, pass)?;
            }
            (Some(FileType::Directory), Some(_)) | (_, Some(FileType::Directory)) => {
                return Err(TransferError::InTheWay { path: child });
            }
            (_, None | Some(FileType::RegularFile | FileType::Symlink)) if pass == Pass::Check => {}
            (_, None) => renameat_with(from, &name, to, &name, RenameFlags::NOREPLACE)
                .map_err(TransferError::io("put in place", &child))?,
            (_, Some(FileType::RegularFile | FileType::Symlink)) => {
                renameat(from, &name, to, &name)
                    .map_err(TransferError::io("put in place", &child))?;
            }
            (_, Some(_)) => return Err(TransferError::InTheWay { path: child }),
        }
    }
    Ok(())
}

pub(crate) fn check_protected(rules: &dyn Protects, path: &Path) -> Result<(), TransferError> {
    let protected = path
        .ancestors()
        .find_map(|ancestor| rules.directory(ancestor))
        .or_else(|| rules.file(path));
    match protected {
        Some(reason) => Err(TransferError::Protected {
            path: path.to_owned(),
            reason,
        }),
        None => Ok(()),
    }
}

fn staged(path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() {
        PathBuf::from(STAGED)
    } else {
        Path::new(STAGED).join(path)
    }
}

fn times(mtime: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn kind_at(parent: &OwnedFd, name: &OsStr) -> Result<Option<FileType>, TransferError> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(TransferError::io("look at", Path::new(name))(errno)),
    }
}

fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Removes a staging directory. Best effort: what cannot be removed is of no harm, and no other error is hidden by it.
fn remove_tree(parent: &OwnedFd, name: &OsStr) {
    if let Ok(directory) = openat(
        parent,
        name,
        OPEN_DIRECTORY | OFlags::NOFOLLOW,
        Mode::empty(),
    ) {
        for child in names(&directory).unwrap_or_default() {
            if kind_at(&directory, &child).is_ok_and(|kind| kind == Some(FileType::Directory)) {
                remove_tree(&directory, &child);
            } else {
                let _ = unlinkat(&directory, &child, AtFlags::empty());
            }
        }
    }
    let _ = unlinkat(parent, name, AtFlags::REMOVEDIR);
}
