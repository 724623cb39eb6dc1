//! The files that a log consists of.
//!
//! The current one has the configured name. Those before it stand beside it: `NAME.` and twelve digits, the number of
//! their first record, where the server rotated; or whatever another program that rotates made of the name
//! (`NAME.1`, `NAME-20261126`). Which comes first is told by what is in them, never by a name or a time.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use crate::record::{MAX_RECORD_BYTES, Sound, claimed_seq};

/// Suffix of a file that is becoming the current one.
pub(crate) const NEXT_SUFFIX: &str = ".next";
/// Beginnings of suffixes that are no part of the log.
const OTHERS: [&str; 9] = [
    ".head",
    ".key",
    ".new",
    ".next.new",
    ".public-key",
    ".reserve",
    ".signing-key",
    ".torn-",
    ".verify-key",
];
/// How often the list is made anew when the server rotates meanwhile.
const MAX_TRIES: usize = 16;

/// One file of a log, open.
#[derive(Debug)]
pub(crate) struct Segment {
    pub path: PathBuf,
    pub file: File,
    /// Number of its first record, as that claims; `None` where there is none, or no record.
    pub first_seq: Option<u64>,
}

/// Suffix of a file that begins with that record, after rotation.
pub(crate) fn archive_suffix(first_seq: u64) -> String {
    format!(".{first_seq:012}")
}

/// The files of the log `path`, oldest first; the last one is `path` itself, if it exists. Files that another program
/// compressed are not found.
///
/// # Errors
/// When the directory or one of the files cannot be read.
pub fn log_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(open_segments(path)?
        .into_iter()
        .map(|segment| segment.path)
        .collect())
}

/// See [`log_files`]; all of one moment, also while the server rotates.
pub(crate) fn open_segments(path: &Path) -> io::Result<Vec<Segment>> {
    for _ in 1..MAX_TRIES {
        let current = open_segment(path)?;
        let mut segments = match older(path, current.as_ref()) {
            // Removed between listing and opening.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if identity(path) == current.as_ref().and_then(Segment::identity) {
            segments.extend(current);
            return Ok(segments);
        }
    }
    Err(io::Error::other("the log's files change all the time"))
}

impl Segment {
    /// Its first record, if that is sound.
    pub fn with_first<T>(&self, look: impl FnOnce(&Sound<'_>) -> T) -> Option<T> {
        let mut bytes = vec![0; MAX_RECORD_BYTES];
        let read = self.file.read_at(&mut bytes, 0).ok()?;
        let line = bytes[..read].split(|byte| *byte == b'\n').next()?;
        Sound::read(line).map(|sound| look(&sound))
    }

    fn identity(&self) -> Option<(u64, u64)> {
        let found = self.file.metadata().ok()?;
        Some((found.dev(), found.ino()))
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

fn open_segment(path: &Path) -> io::Result<Option<Segment>> {
    // NONBLOCK: a pipe must not hang anybody.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut start = [0; 64];
    let read = if file.metadata()?.is_file() {
        file.read_at(&mut start, 0)?
    } else {
        0
    };
    Ok(Some(Segment {
        path: path.to_owned(),
        first_seq: claimed_seq(&start[..read]),
        file,
    }))
}

/// Of two files that begin with the same record the longer one counts: the other is a copy.
fn older(path: &Path, current: Option<&Segment>) -> io::Result<Vec<Segment>> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let before = current
        .and_then(|current| current.first_seq)
        .unwrap_or(u64::MAX);
    let mut found: BTreeMap<u64, (u64, Segment)> = BTreeMap::new();
    for name in candidates(path, parent)? {
        let path = parent.join(name);
        if !std::fs::symlink_metadata(&path)?.is_file() {
            continue;
        }
        let segment = open_segment(&path)?.ok_or(io::ErrorKind::NotFound)?;
        let Some(first_seq) = segment.first_seq.filter(|seq| *seq < before) else {
            continue;
        };
        let length = segment.file.metadata()?.len();
        let longest = found.get(&first_seq).map_or(0, |(length, _)| *length);
        if length > longest {
            found.insert(first_seq, (length, segment));
        }
    }
    Ok(found.into_values().map(|(_, segment)| segment).collect())
}

fn candidates(path: &Path, parent: &Path) -> io::Result<Vec<OsString>> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let is_candidate = |found: &OsStr| {
        let suffix = found.as_bytes().strip_prefix(name).unwrap_or_default();
        matches!(suffix.first(), Some(b'.' | b'-'))
            && !OTHERS
                .iter()
                .any(|other| suffix.starts_with(other.as_bytes()))
    };
    let entries = match std::fs::read_dir(parent) {
        // Without a directory there is no file: nothing that was removed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let found = entry?.file_name();
        if is_candidate(&found) {
            names.push(found);
        }
    }
    Ok(names)
}
