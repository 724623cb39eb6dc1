//! Reading on where a sink is, in batches, with word of what is missing.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::{Cursor, Followed, Follower, export::Line, head::Head};

/// Most records of one batch.
const MAX_LINES: usize = 500;
/// A batch is full when its lines are so long together, bytes.
const MAX_BYTES: usize = 512 << 10;

/// What comes next.
#[derive(Debug, Default)]
pub struct Batch {
    /// Something that the sink must know before the lines.
    pub notice: Option<Notice>,
    /// Records, in order, without holes.
    pub lines: Vec<Line>,
}

/// Why the lines do not follow those of before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Records that are gone: pruned, or cut off outside.
    Gone {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// Records that were left out because too many waited.
    TooMany {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// The log is not the one of before; it is read from its beginning.
    AnotherLog {
        /// Its first record.
        first: u64,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Gone { first, last } => write!(f, "records {first} to {last} are gone"),
            Notice::TooMany { first, last } => write!(f, "records {first} to {last} are left out"),
            Notice::AnotherLog { first } => {
                write!(
                    f,
                    "this is another log than before; it begins with record {first}"
                )
            }
        }
    }
}

/// See the module.
pub struct Follow {
    log: PathBuf,
    follower: Follower,
    /// Number and hash of the record before, until it was compared with the log's.
    before: Option<(u64, String)>,
    /// A record that was read and belongs to the next batch.
    held: Option<Followed>,
    max_lag: Option<u64>,
}

impl Follow {
    /// Reads on behind the record of that number and hash; 0 and nothing is the beginning.
    pub fn new(log: &Path, seq: u64, hash: &str, max_lag: Option<u64>) -> Self {
        Follow {
            log: log.to_owned(),
            follower: behind(log, seq),
            // A notice has no hash.
            before: (!hash.is_empty()).then(|| (seq, hash.to_owned())),
            held: None,
            max_lag,
        }
    }

    /// The next records that are durable; an empty batch where there are none.
    ///
    /// # Errors
    /// When one of the log's files cannot be read.
    pub fn read(&mut self) -> io::Result<Batch> {
        // A log without a head file is one that a server is just making.
        let Some(head) = Head::read_beside(&self.log) else {
            return Ok(Batch::default());
        };
        let end = head.link.seq;
        let begun_anew = self.compare(end)?;
        let mut batch = Batch {
            notice: begun_anew.or_else(|| self.leave_out(end)),
            lines: Vec::new(),
        };
        let mut bytes = 0;
        while batch.lines.len() < MAX_LINES && bytes < MAX_BYTES {
            let next = match self.held.take() {
                Some(held) => Some(held),
                None => self.follower.next()?,
            };
            let Some(next) = next else {
                break;
            };
            if next.missing > 0 {
                // One hole for each batch, before its lines.
                if !batch.lines.is_empty() || batch.notice.is_some() {
                    self.held = Some(next);
                    break;
                }
                batch.notice = Some(Notice::Gone {
                    first: next.seq - next.missing,
                    last: next.seq - 1,
                });
            }
            bytes += next.line.len();
            // What is no record is for `audit verify` to tell.
            batch.lines.extend(Line::read(&next.line));
        }
        Ok(batch)
    }

    /// Whether the log is the one of before, looked at once. One that is not is read from its beginning.
    fn compare(&mut self, end: u64) -> io::Result<Option<Notice>> {
        let Some((seq, hash)) = &self.before else {
            return Ok(None);
        };
        let is_another = end < *seq || {
            let found = behind(&self.log, seq.saturating_sub(1)).next()?;
            let same = found.filter(|found| found.seq == *seq);
            let line = same.and_then(|found| Line::read(&found.line));
            line.is_some_and(|line| line.record.hash != *hash)
        };
        let oldest = match is_another {
            true => Follower::new(&self.log, Cursor::default()).next()?,
            false => None,
        };
        self.before = None;
        let Some(oldest) = oldest else {
            return Ok(None);
        };
        self.follower = behind(&self.log, oldest.seq - 1);
        Ok(Some(Notice::AnotherLog { first: oldest.seq }))
    }

    /// Skips what is too much.
    fn leave_out(&mut self, end: u64) -> Option<Notice> {
        let last = end.checked_sub(self.max_lag?)?;
        let first = match &self.held {
            Some(held) => held.seq - held.missing,
            None => self.follower.cursor().seq + 1,
        };
        if last < first {
            return None;
        }
        self.follower = behind(&self.log, last);
        self.held = None;
        Some(Notice::TooMany { first, last })
    }
}

fn behind(log: &Path, seq: u64) -> Follower {
    let cursor = Cursor {
        seq,
        ..Cursor::default()
    };
    Follower::new(log, cursor)
}
