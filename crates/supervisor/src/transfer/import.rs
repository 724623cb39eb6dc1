//! Receiving a tree into a staging directory, and putting it where it belongs once all of it has come.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens,
        mkdirat, symlinkat, utimensat,
    },
    io::{self, Errno},
};
use wire::{Entry, EntryKind, Fault, FaultKind, TransferEnd, TransferFrame, TransferSpec};

use super::{
    channel::{Channel, Stop},
    merge,
    paths::{self, Refusals},
    tree,
};
use crate::fault::{failed, fault};

/// The received root inside its staging directory.
pub const STAGED_ROOT: &[u8] = b"tree";

/// Where an import goes.
pub struct Destination {
    parts: Vec<Vec<u8>>,
    staging: Vec<u8>,
}

/// The destination as it was found.
pub enum Place {
    /// Nothing is there: its parent directory, and the name it gets.
    New(OwnedFd, Vec<u8>),
    /// A file or link is there, to be replaced by a file: its parent directory, and its name.
    File(OwnedFd, Vec<u8>),
    /// A directory is there, to be merged into.
    Existing(OwnedFd),
}

/// Directories received, with the mode and time they get last: until then they must be writable.
pub type Directories = BTreeMap<Vec<u8>, (Mode, i64)>;

impl Destination {
    /// An absolute path other than `/`, and the name of the staging directory.
    pub fn parse(path: &[u8], staging: Vec<u8>) -> Result<Self, Fault> {
        let parts = paths::absolute(path)?;
        if parts.is_empty() {
            return Err(fault(FaultKind::BadPath, "the root itself"));
        }
        Ok(Destination {
            parts: parts.into_iter().map(<[u8]>::to_vec).collect(),
            staging,
        })
    }

    /// The last part: what refusals of the root itself are about.
    fn name(&self) -> &[u8] {
        self.parts.last().map_or(b"", Vec::as_slice)
    }

    fn find(&self) -> Result<Place, Fault> {
        let bad = |errno| failed(FaultKind::BadPath, "open the destination", errno);
        let root = tree::root().map_err(bad)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let parts: Vec<&[u8]> = self.parts.iter().map(Vec::as_slice).collect();
        match tree::open_beneath(&root, &parts, flags, Mode::empty()) {
            Ok(directory) => return Ok(Place::Existing(directory)),
            // The last two also stand for a file or a link on the way there, which the next opening meets again.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(bad(errno)),
        }
        let (name, parents) = parts.split_last().ok_or_else(|| bad(Errno::INVAL))?;
        let parent = tree::open_beneath(&root, parents, flags, Mode::empty()).map_err(bad)?;
        match tree::kind(&parent, name).map_err(bad)? {
            None => Ok(Place::New(parent, name.to_vec())),
            Some(FileType::RegularFile | FileType::Symlink) => {
                Ok(Place::File(parent, name.to_vec()))
            }
            Some(_) => Err(in_the_way(Errno::EXIST)),
        }
    }

    /// Removes what a transfer that was killed left behind.
    pub fn remove(&self) {
        let Ok(root) = tree::root() else { return };
        let parts: Vec<&[u8]> = self.parts.iter().map(Vec::as_slice).collect();
        for base in [parts.as_slice(), &parts[..parts.len() - 1]] {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            if let Ok(directory) = tree::open_beneath(&root, base, flags, Mode::empty()) {
                let _ = tree::remove(&directory, &self.staging);
            }
        }
    }
}

/// Receives the tree and answers.
pub fn run(
    channel: &mut Channel,
    destination: &Destination,
    refuse: &[Vec<u8>],
    spec: &TransferSpec,
) {
    match receive(channel, destination, refuse, spec) {
        Ok(Some(end)) => drop(channel.send_frame(TransferFrame::End(end))),
        // The host stopped it itself.
        Ok(None) => {}
        Err(mut stop) => {
            if stop.path.is_empty() {
                stop.path = destination.name().to_vec();
            }
            channel.refuse(stop);
        }
    }
}

fn receive(
    channel: &mut Channel,
    destination: &Destination,
    refuse: &[Vec<u8>],
    spec: &TransferSpec,
) -> Result<Option<TransferEnd>, Stop> {
    let at_root = |fault| Stop::at(b"", fault);
    let refusals = Refusals::parse(refuse).map_err(at_root)?;
    let place = destination.find().map_err(at_root)?;
    let base = match &place {
        Place::New(parent, _) | Place::File(parent, _) => parent,
        Place::Existing(directory) => directory,
    };
    mkdirat(base, destination.staging.as_slice(), Mode::RWXU).map_err(|errno| {
        Stop::at(
            b"",
            failed(FaultKind::BadPath, "write into the destination", errno),
        )
    })?;
    let result = stage_and_place(channel, base, &destination.staging, &place, refusals, spec);
    // Empty by now when all went well.
    let _ = tree::remove(base, &destination.staging);
    result
}

fn stage_and_place(
    channel: &mut Channel,
    base: &OwnedFd,
    staging: &[u8],
    place: &Place,
    refusals: Refusals,
    spec: &TransferSpec,
) -> Result<Option<TransferEnd>, Stop> {
    let staging = tree::open_beneath(
        base,
        &[staging],
        OFlags::RDONLY | OFlags::DIRECTORY,
        Mode::empty(),
    )
    .map_err(|errno| Stop::failed(b"", "open the staging directory", errno))?;
    let mut stage = Stage {
        staging,
        refusals,
        spec,
        place,
        directories: Directories::new(),
        file: None,
        entries: 0,
        bytes: 0,
    };
    loop {
        match channel.receive().map_err(|fault| Stop::at(b"", fault))? {
            TransferFrame::Entry(entry) => stage.entry(&entry)?,
            TransferFrame::Data(data) => stage.data(&data)?,
            TransferFrame::End(TransferEnd::Complete { entries, bytes }) => {
                stage.check_complete(entries, bytes)?;
                merge::place(&stage.staging, place, &stage.directories)?;
                return Ok(Some(TransferEnd::Complete { entries, bytes }));
            }
            TransferFrame::End(TransferEnd::Refused { .. }) => return Ok(None),
        }
    }
}

struct Stage<'a> {
    staging: OwnedFd,
    refusals: Refusals,
    spec: &'a TransferSpec,
    place: &'a Place,
    directories: Directories,
    file: Option<OpenFile>,
    entries: u64,
    bytes: u64,
}

struct OpenFile {
    file: OwnedFd,
    path: Vec<u8>,
    left: u64,
    mode: Mode,
    mtime: i64,
}

impl Stage<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<(), Stop> {
        self.check(entry)
            .map_err(|fault| Stop::at(&entry.path, fault))?;
        let parts = paths::relative(&entry.path).map_err(|fault| Stop::at(&entry.path, fault))?;
        let staged: Vec<&[u8]> = std::iter::once(STAGED_ROOT).chain(parts).collect();
        let (name, parents) = staged.split_last().unwrap_or((&STAGED_ROOT, &[]));
        let parent = tree::open_beneath(
            &self.staging,
            parents,
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .map_err(|errno| {
            Stop::at(
                &entry.path,
                failed(FaultKind::BadPath, "open the parent", errno),
            )
        })?;
        self.create(entry, &parent, name)
            .map_err(|errno| Stop::failed(&entry.path, "create an entry", errno))
    }

    fn check(&mut self, entry: &Entry) -> Result<(), Fault> {
        let invalid = |step| Err(fault(FaultKind::Invalid, step));
        if self.file.is_some() {
            return invalid("an entry within a file");
        }
        if (self.entries == 0) != entry.path.is_empty() {
            return invalid("the root comes first and once");
        }
        if entry.mode & !0o777 != 0 {
            return Err(fault(FaultKind::BadPath, "setuid, setgid or sticky"));
        }
        self.entries += 1;
        if self.entries > self.spec.max_entries {
            return Err(fault(FaultKind::TooMany, "too many entries"));
        }
        let is_directory = matches!(entry.kind, EntryKind::Directory);
        if entry.path.is_empty() {
            match (self.place, is_directory) {
                (Place::Existing(_), false) => return Err(in_the_way(Errno::ISDIR)),
                (Place::File(..), true) => return Err(in_the_way(Errno::NOTDIR)),
                (Place::New(..), _) | (Place::Existing(_), true) | (Place::File(..), false) => {}
            }
        }
        if self
            .refusals
            .refuse(&paths::relative(&entry.path)?, is_directory)
        {
            return Err(fault(FaultKind::BadPath, "a protected path"));
        }
        match &entry.kind {
            EntryKind::Link { target } if !paths::link_stays(&entry.path, target) => {
                Err(fault(FaultKind::BadPath, "a link leaves the tree"))
            }
            EntryKind::File { size } if self.bytes.saturating_add(*size) > self.spec.max_bytes => {
                Err(fault(FaultKind::TooMany, "too many bytes"))
            }
            EntryKind::Directory | EntryKind::File { .. } | EntryKind::Link { .. } => Ok(()),
        }
    }

    fn create(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let mode = Mode::from_raw_mode(entry.mode);
        match &entry.kind {
            EntryKind::Directory => {
                mkdirat(parent, name, Mode::RWXU)?;
                self.directories
                    .insert(entry.path.clone(), (mode, entry.mtime));
            }
            EntryKind::Link { target } => {
                symlinkat(target.as_slice(), parent, name)?;
                utimensat(
                    parent,
                    name,
                    &modified(entry.mtime),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
            }
            EntryKind::File { size } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let file = tree::open_beneath(parent, &[name], flags, Mode::RUSR | Mode::WUSR)?;
                self.bytes += size;
                let (path, mtime) = (entry.path.clone(), entry.mtime);
                self.file = Some(OpenFile {
                    file,
                    path,
                    left: *size,
                    mode,
                    mtime,
                });
                self.finish_file()?;
            }
        }
        Ok(())
    }

    fn data(&mut self, data: &[u8]) -> Result<(), Stop> {
        let Some(open) = &mut self.file else {
            return Err(Stop::at(
                b"",
                fault(FaultKind::Invalid, "content without a file"),
            ));
        };
        let failed = |path: &[u8], errno| Stop::failed(path, "write a file", errno);
        open.left = match open.left.checked_sub(data.len() as u64) {
            Some(left) => left,
            None => {
                return Err(Stop::at(
                    &open.path,
                    fault(FaultKind::Invalid, "more content than announced"),
                ));
            }
        };
        let mut rest = data;
        while !rest.is_empty() {
            match io::write(&open.file, rest) {
                Ok(0) => return Err(failed(&open.path, Errno::NOSPC)),
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(&open.path, errno)),
            }
        }
        let path = open.path.clone();
        self.finish_file().map_err(|errno| failed(&path, errno))
    }

    fn finish_file(&mut self) -> io::Result<()> {
        match self.file.take_if(|open| open.left == 0) {
            Some(open) => {
                fchmod(&open.file, open.mode)?;
                futimens(&open.file, &modified(open.mtime))
            }
            None => Ok(()),
        }
    }

    fn check_complete(&self, entries: u64, bytes: u64) -> Result<(), Stop> {
        if self.file.is_some()
            || self.entries == 0
            || (entries, bytes) != (self.entries, self.bytes)
        {
            return Err(Stop::at(
                b"",
                fault(FaultKind::Invalid, "the end does not fit what came"),
            ));
        }
        Ok(())
    }
}

/// What is at the destination can be neither merged into nor replaced.
pub fn in_the_way(errno: Errno) -> Fault {
    failed(
        FaultKind::BadPath,
        "something of another kind is in the way",
        errno,
    )
}

/// Modification time as given, access time untouched.
pub fn modified(seconds: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        },
    }
}
