//! Reading a log as it grows, across rotations, for who sends it elsewhere or shows it.

use std::{
    fs::File,
    io::{self, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    head::Head,
    lines::Lines,
    record::claimed_seq,
    segments::{Segment, open_segments},
};

const BUFFER_BYTES: usize = 1 << 16;

/// A place in a log, after a record. To be kept, and gone on from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Number of the record before it; 0 at the start of the log.
    pub seq: u64,
    /// Number of the first record of the file that it is in.
    pub file: u64,
    /// Bytes of that file before it. A hint: where it does not fit, the place is looked for by `seq`.
    pub offset: u64,
}

/// A record, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// Its number.
    pub seq: u64,
    /// Its line, without the line feed.
    pub line: Vec<u8>,
    /// How many records between the one before and this one are not there (any more).
    pub missing: u64,
    /// The place after it.
    pub cursor: Cursor,
}

/// Gives the records after a place, oldest first, and then those that are added. Only what is durable is given: a record
/// that is given is never taken back. Nothing is checked here: see [`crate::verify`].
pub struct Follower {
    path: PathBuf,
    cursor: Cursor,
    reading: Option<Reading>,
}

/// The file that is read.
struct Reading {
    first_seq: u64,
    lines: Lines<BufReader<File>>,
}

impl Follower {
    /// Follows the log `path` from a place on; the default is its start.
    pub fn new(path: &Path, cursor: Cursor) -> Self {
        Follower {
            path: path.to_owned(),
            cursor,
            reading: None,
        }
    }

    /// The place after the record that was given last.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The next record; `None` if there is none yet: ask again later.
    ///
    /// # Errors
    /// When the log cannot be read. It can be asked again.
    #[allow(
        clippy::should_implement_trait,
        reason = "it is asked again after `None`, as no iterator is"
    )]
    pub fn next(&mut self) -> io::Result<Option<Followed>> {
        let durable = Head::read_beside(&self.path).map_or(u64::MAX, |head| head.link.seq);
        if self.cursor.seq >= durable {
            return Ok(None);
        }
        // The second time after the file was changed for the next one.
        for _ in 0..2 {
            if self.reading.is_none() {
                self.reading = self.find()?;
            }
            let Some(reading) = &mut self.reading else {
                return Ok(None);
            };
            if let Some(found) = reading.next_after(self.cursor, durable)? {
                self.cursor = found.cursor;
                return Ok(Some(found));
            }
            // What is durable is not in this file: it goes on in another one, or this one was cut.
            self.reading = None;
        }
        Ok(None)
    }

    /// The file that the next record stands in: the last one that begins with it or before.
    fn find(&self) -> io::Result<Option<Reading>> {
        let wanted = self.cursor.seq + 1;
        let mut segments = open_segments(&self.path)?;
        segments.retain(|segment| segment.first_seq.is_some());
        let after = segments.partition_point(|segment| {
            segment
                .first_seq
                .is_some_and(|first_seq| first_seq <= wanted)
        });
        // The file before may have been cut short of what is wanted; then it is the next one.
        for segment in &segments[after.saturating_sub(1)..] {
            let mut reading = Reading::open(segment, self.cursor)?;
            if reading.next_after(self.cursor, u64::MAX)?.is_some() {
                return Ok(Some(Reading::open(segment, self.cursor)?));
            }
        }
        Ok(None)
    }
}

impl Reading {
    fn open(segment: &Segment, cursor: Cursor) -> io::Result<Reading> {
        let first_seq = segment.first_seq.unwrap_or(0);
        let fits = cursor.file == first_seq && cursor.offset <= segment.file.metadata()?.len();
        let mut reading = Reading {
            first_seq,
            lines: Reading::lines(&segment.file, 0)?,
        };
        if fits && cursor.offset > 0 {
            reading.lines = Reading::lines(&segment.file, cursor.offset)?;
            let next = reading.lines.next()?;
            let goes_on = next.is_none_or(|line| {
                claimed_seq(line.bytes).is_some_and(|seq| seq > cursor.seq) || !line.complete
            });
            let offset = if goes_on { cursor.offset } else { 0 };
            reading.lines = Reading::lines(&segment.file, offset)?;
        }
        Ok(reading)
    }

    fn lines(file: &File, offset: u64) -> io::Result<Lines<BufReader<File>>> {
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(offset))?;
        let reader = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(Lines::new(reader, offset))
    }

    fn next_after(&mut self, cursor: Cursor, durable: u64) -> io::Result<Option<Followed>> {
        let first_seq = self.first_seq;
        while let Some(line) = self.lines.next()? {
            let Some(seq) = claimed_seq(line.bytes) else {
                continue;
            };
            if !line.complete || seq > durable {
                break;
            }
            if seq > cursor.seq {
                return Ok(Some(Followed {
                    seq,
                    line: line.bytes.to_vec(),
                    missing: seq - cursor.seq - 1,
                    cursor: Cursor {
                        seq,
                        file: first_seq,
                        offset: line.end,
                    },
                }));
            }
        }
        Ok(None)
    }
}
