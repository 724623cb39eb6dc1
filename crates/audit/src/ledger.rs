//! The log file as the writer sees it: whole records only, and a known end.

use std::{
    fs::File,
    io::{self, Write},
};

use crate::{files::Place, head::Head, record::Link};

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
    /// Start of this run's `audit.open` record.
    run_offset: u64,
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

impl Ledger {
    /// A log that ends at `end`, durably.
    pub fn new(place: Place, file: File, head: File, end: Position, run_offset: u64) -> Self {
        Ledger {
            place,
            file,
            head,
            run_offset,
            written: end,
            durable: end,
            has_remains: false,
        }
    }

    /// The last record.
    pub fn end(&self) -> Link {
        self.written.link
    }

    /// Whether the last records are not durable yet.
    pub fn wants_sync(&self) -> bool {
        self.written != self.durable
    }

    /// Appends whole lines that end in `end`; with `sync` they and all before them are durable afterwards. All or
    /// nothing.
    pub fn append(&mut self, lines: &[u8], end: Link, sync: bool) -> Result<(), WriteFailed> {
        self.remove_remains()?;
        self.check_nobody_else_wrote()?;
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

    /// A log that was renamed, deleted, cut or written by somebody else takes no more records: they would be lost, or
    /// hide what happened. The next start sorts it out and says so in the log.
    fn check_nobody_else_wrote(&self) -> io::Result<()> {
        let stat = rustix::fs::fstat(&self.file)?;
        if u64::try_from(stat.st_size) == Ok(self.written.bytes) && self.place.holds(&stat) {
            return Ok(());
        }
        Err(io::Error::other(
            "the log was replaced, cut or written by another program; restart the server",
        ))
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
