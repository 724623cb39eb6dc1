//! The log's files as the writer sees them: whole records only, and a known end.

use std::{
    fs::File,
    io::{self, Write},
};

use jiff::Timestamp;
use rustix::fs::OFlags;

use crate::{
    AuditError,
    files::{self, Place},
    head::Head,
    record::Link,
    recovery::{self, GapDetails, Known, Scan},
    segments::{NEXT_SUFFIX, archive_suffix},
};

/// A place between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Bytes before it.
    pub bytes: u64,
    /// The record before it.
    pub link: Link,
}

impl Position {
    /// The start of a log.
    pub const START: Position = Position {
        bytes: 0,
        link: Link::START,
    };
}

/// The open log.
pub(crate) struct Ledger {
    place: Place,
    file: File,
    head: File,
    /// Start of this run's `audit.open` record; 0 in later files of the run.
    run_offset: u64,
    /// Number and time of the file's first record.
    first: (u64, Timestamp),
    written: Position,
    durable: Position,
    /// Bytes after `written` may be in the file: the rest of a write that failed.
    has_remains: bool,
}

/// A write that failed. The file ends where it did before, or will before anything else is written.
#[derive(Debug)]
pub(crate) struct WriteFailed {
    pub source: io::Error,
    /// Records of earlier, unsynced writes that went with it.
    pub rolled_back: u64,
}

impl From<io::Error> for WriteFailed {
    fn from(source: io::Error) -> Self {
        WriteFailed {
            source,
            rolled_back: 0,
        }
    }
}

/// What other programs did to the log since the last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outside {
    /// Nothing.
    Untouched,
    /// The file has another name, as a program leaves it that rotates logs.
    Renamed,
    /// The file has no name any more.
    Removed,
    /// Something was cut off, as a program does that copies logs and empties them.
    Cut,
    /// Something was written.
    Written,
}

impl Ledger {
    /// A log that ends at `end`, durably. `first`: number and time of the file's first record.
    pub fn new(
        place: Place,
        file: File,
        head: File,
        end: Position,
        run_offset: u64,
        first: (u64, Timestamp),
    ) -> Self {
        Ledger {
            place,
            file,
            head,
            run_offset,
            first,
            written: end,
            durable: end,
            has_remains: false,
        }
    }

    /// The last record.
    pub fn end(&self) -> Link {
        self.written.link
    }

    /// Size of the current file, bytes.
    pub fn bytes(&self) -> u64 {
        self.written.bytes
    }

    /// Number and time of the current file's first record.
    pub fn first(&self) -> (u64, Timestamp) {
        self.first
    }

    /// Where the log is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the last records are not durable yet.
    pub fn wants_sync(&self) -> bool {
        self.written != self.durable
    }

    /// Appends whole lines that end in `end`; with `sync` they and all before them are durable afterwards. All or
    /// nothing.
    pub fn append(&mut self, lines: &[u8], end: Link, sync: bool) -> Result<(), WriteFailed> {
        self.remove_remains()?;
        self.refuse_unless_untouched()?;
        if let Err(source) = (&self.file).write_all(lines) {
            return Err(self.roll_back(source, self.written));
        }
        let written = Position {
            bytes: self.written.bytes + lines.len() as u64,
            link: end,
        };
        if sync {
            // After a failed sync the kernel may have forgotten which pages are dirty, so nothing since the last good
            // one counts.
            self.file
                .sync_data()
                .map_err(|source| self.roll_back(source, self.durable))?;
            self.durable = written;
        }
        self.written = written;
        if sync {
            self.note_head();
        }
        Ok(())
    }

    fn roll_back(&mut self, source: io::Error, to: Position) -> WriteFailed {
        let rolled_back = self.written.link.seq - to.link.seq;
        self.written = to;
        self.has_remains = true;
        // A second failure is made good before the next write.
        let _ = self.remove_remains();
        WriteFailed {
            source,
            rolled_back,
        }
    }

    fn remove_remains(&mut self) -> io::Result<()> {
        if self.has_remains {
            self.file.set_len(self.written.bytes)?;
            self.has_remains = false;
        }
        Ok(())
    }

    /// What happened to the file. What a failed write of our own left is removed before.
    pub fn outside(&mut self) -> io::Result<Outside> {
        self.remove_remains()?;
        let stat = rustix::fs::fstat(&self.file)?;
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(if bytes < self.written.bytes {
            Outside::Cut
        } else if bytes > self.written.bytes {
            Outside::Written
        } else if stat.st_nlink == 0 {
            Outside::Removed
        } else if self.place.holds(&stat) {
            Outside::Untouched
        } else {
            Outside::Renamed
        })
    }

    /// Records in a file that somebody else writes would hide among what is not ours, and those in a file without a name
    /// would be lost. The next start sorts the former out; the writer sees to the latter before it comes here.
    fn refuse_unless_untouched(&mut self) -> io::Result<()> {
        match self.outside()? {
            Outside::Untouched => Ok(()),
            Outside::Renamed | Outside::Removed | Outside::Cut | Outside::Written => {
                Err(io::Error::other(
                    "the log was replaced, cut or written by another program; restart the server",
                ))
            }
        }
    }

    /// Goes on in a new file, since the old one has another name or none. A file that is there already must be empty.
    pub fn take_new_file(&mut self) -> Result<(), WriteFailed> {
        if self.wants_sync() {
            self.file
                .sync_data()
                .map_err(|source| self.roll_back(source, self.durable))?;
            self.durable = self.written;
        }
        let told = |error: AuditError| io::Error::other(error.to_string());
        let (file, is_new) = self.place.open_file("", OFlags::APPEND).map_err(told)?;
        if !is_new && file.metadata()?.len() > 0 {
            return Err(io::Error::other("another file stands in the log's place").into());
        }
        files::lock(&file, self.place.path("")).map_err(told)?;
        self.place.sync().map_err(told)?;
        self.begin_file(file, 0, self.durable.link);
        Ok(())
    }

    /// Goes on in a file that was cut: after the last whole record that is left; what is no record is put aside. Returns
    /// the number of the first record that is missing, and what was put aside.
    pub fn accept_cut(&mut self) -> Result<(u64, Option<GapDetails>), WriteFailed> {
        let known = Known {
            head: None,
            durable: Vec::new(),
            key: None,
        };
        let start = Position {
            bytes: 0,
            link: Link {
                seq: self.first.0.saturating_sub(1),
                hash: [0; 32],
            },
        };
        let mut left = Scan::run(&self.file, None, &known)?.end;
        if left.bytes == 0 || left.link.seq > self.written.link.seq {
            left = start;
        }
        let told = |error: AuditError| io::Error::other(error.to_string());
        let has_more = self.file.metadata()?.len() > left.bytes;
        let aside = has_more
            .then(|| recovery::put_aside(&self.place, &self.file, left))
            .transpose()
            .map_err(told)?;
        self.run_offset = 0;
        self.written.bytes = left.bytes;
        self.durable = self.written;
        if left.bytes == 0 {
            self.first = (self.written.link.seq + 1, Timestamp::now());
        }
        Ok((left.link.seq + 1, aside))
    }

    /// Puts the current file aside under the number of its first record, and goes on in a new one that holds `header`,
    /// which ends in `end`. Everything must be durable. All or nothing; a crash in the middle is put right by
    /// [`settle_rotation`].
    pub fn rotate(&mut self, header: &[u8], end: Link) -> io::Result<()> {
        let told = |error: AuditError| io::Error::other(error.to_string());
        settle_rotation(&self.place, &self.file).map_err(told)?;
        let (mut file, _) = self
            .place
            .open_file(NEXT_SUFFIX, OFlags::APPEND)
            .map_err(told)?;
        let prepared = files::lock(&file, self.place.path(NEXT_SUFFIX))
            .map_err(told)
            .and_then(|()| file.write_all(header))
            .and_then(|()| file.sync_all())
            .and_then(|()| self.place.exchange(NEXT_SUFFIX, ""));
        if let Err(error) = prepared {
            let _ = self.place.remove(NEXT_SUFFIX);
            return Err(error);
        }
        let archive = archive_suffix(self.first.0);
        self.begin_file(file, header.len() as u64, end);
        // From here on the log goes on in the new file, whatever the old one is called.
        self.place.rename(NEXT_SUFFIX, &archive)?;
        self.place.sync().map_err(told)
    }

    fn begin_file(&mut self, file: File, bytes: u64, link: Link) {
        let first_seq = if bytes == 0 { link.seq + 1 } else { link.seq };
        self.file = file;
        self.run_offset = 0;
        self.first = (first_seq, Timestamp::now());
        self.written = Position { bytes, link };
        self.durable = self.written;
        if bytes > 0 {
            self.note_head();
        }
    }

    fn note_head(&self) {
        let head = Head {
            link: self.durable.link,
            run_offset: self.run_offset,
        };
        if let Err(error) = head.write(&self.head) {
            tracing::warn!(%error, "cannot note the audit log's head");
        }
    }
}

/// Finishes a rotation that a crash cut off, or undoes it: the old file gets its name, a new one that never became the
/// current one is removed.
pub(crate) fn settle_rotation(place: &Place, current: &File) -> Result<(), AuditError> {
    let path = place.path(NEXT_SUFFIX);
    let failed = files::at::<io::Error>("settle", &path);
    let first_seq = |file: &File| -> Option<u64> {
        let mut start = [0; 64];
        let read = std::os::unix::fs::FileExt::read_at(file, &mut start, 0).ok()?;
        crate::record::claimed_seq(&start[..read])
    };
    let Some(next) = place.open_existing(NEXT_SUFFIX)? else {
        return Ok(());
    };
    match (first_seq(&next), first_seq(current)) {
        (Some(next), Some(current)) if next > current => {
            place.remove(NEXT_SUFFIX).map_err(failed)?;
        }
        (Some(next), Some(_) | None) => {
            place
                .rename(NEXT_SUFFIX, &archive_suffix(next))
                .map_err(failed)?;
        }
        (None, Some(_) | None) => place.remove(NEXT_SUFFIX).map_err(failed)?,
    }
    place.sync()
}
