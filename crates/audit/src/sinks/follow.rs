//! Reading on where a sink is, through rotation and pruning.
//!
//! The number of the next record is all that counts: files are found by the number of their first one, whatever they are
//! called by then.

use std::{
    fmt,
    fs::File,
    io::{self, BufReader, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{export::Line, head::Head, lines::Lines, log_files};

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
    /// The record that is wanted next.
    next: u64,
    /// Number and hash of the one before, until it was compared.
    before: Option<(u64, String)>,
    max_lag: Option<u64>,
    open: Option<Open>,
}

struct Open {
    file: File,
    /// Which file that is, by device and inode.
    identity: (u64, u64),
    /// Behind the last line that was read.
    offset: u64,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

impl Follow {
    /// Reads on behind the record of that number and hash; 0 and nothing is the beginning.
    pub fn new(log: &Path, seq: u64, hash: &str, max_lag: Option<u64>) -> Self {
        Follow {
            log: log.to_owned(),
            next: seq + 1,
            // A notice has no hash.
            before: (!hash.is_empty()).then(|| (seq, hash.to_owned())),
            max_lag,
            open: None,
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
        let mut batch = Batch {
            notice: self.leave_out(end),
            lines: Vec::new(),
        };
        if end < self.next && self.before.is_none() {
            return Ok(batch);
        }
        if self.open.is_none() && !self.locate(end, &mut batch)? {
            return Ok(batch);
        }
        self.read_lines(end, &mut batch)?;
        if batch.lines.is_empty() && self.is_exhausted()? {
            self.open = None;
        }
        Ok(batch)
    }

    /// Skips what is too much.
    fn leave_out(&mut self, end: u64) -> Option<Notice> {
        let last = end.checked_sub(self.max_lag?)?;
        if last < self.next {
            return None;
        }
        let notice = Notice::TooMany {
            first: self.next,
            last,
        };
        self.next = last + 1;
        self.before = None;
        self.open = None;
        Some(notice)
    }

    /// Finds the file of the next record. Returns whether there is one.
    fn locate(&mut self, end: u64, batch: &mut Batch) -> io::Result<bool> {
        let mut files = Vec::new();
        for path in log_files(&self.log)? {
            if let Some(first) = first_number(&path)? {
                files.push((first, path));
            }
        }
        let Some((oldest, _)) = files.first() else {
            return Ok(false);
        };
        if self.is_another_log(&files, end)? {
            self.next = *oldest;
            batch.notice = Some(Notice::AnotherLog { first: *oldest });
        }
        self.before = None;
        let behind = files.partition_point(|(first, _)| *first <= self.next);
        let (_, path) = &files[behind.saturating_sub(1)];
        self.open(path)?;
        if behind == 0 || self.reaches_next()? {
            return Ok(true);
        }
        // Its file ends before it. The one after begins with it, or what is between is gone.
        match files.get(behind) {
            Some((_, path)) => self.open(path).map(|()| true),
            None => Ok(true),
        }
    }

    fn open(&mut self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        self.open = Some(Open {
            identity: identity(&file.metadata()?),
            file,
            offset: 0,
        });
        Ok(())
    }

    /// The last record that was given on is not in this log, or this log is shorter.
    fn is_another_log(&self, files: &[(u64, PathBuf)], end: u64) -> io::Result<bool> {
        let Some((seq, hash)) = &self.before else {
            return Ok(false);
        };
        if end < *seq {
            return Ok(true);
        }
        let behind = files.partition_point(|(first, _)| first <= seq);
        let Some((_, path)) = behind.checked_sub(1).and_then(|at| files.get(at)) else {
            return Ok(false);
        };
        let mut lines = Lines::new(BufReader::new(File::open(path)?), 0);
        while let Some(line) = lines.next()? {
            if number(line.bytes) == Some(*seq) {
                return Ok(Line::read(line.bytes).is_some_and(|line| line.record.hash != *hash));
            }
        }
        Ok(false)
    }

    /// Puts the open file to the first record from the next one on. Returns whether it has one.
    fn reaches_next(&mut self) -> io::Result<bool> {
        let next = self.next;
        let Some(open) = self.open.as_mut() else {
            return Ok(false);
        };
        let mut lines = open.lines()?;
        let mut offset = open.offset;
        let mut found = false;
        while let Some(line) = lines.next()? {
            if !line.complete {
                break;
            }
            if number(line.bytes).is_some_and(|seq| seq >= next) {
                found = true;
                break;
            }
            offset = line.end;
        }
        open.offset = offset;
        Ok(found)
    }

    fn read_lines(&mut self, end: u64, batch: &mut Batch) -> io::Result<()> {
        let Some(open) = self.open.as_mut() else {
            return Ok(());
        };
        let mut lines = open.lines()?;
        let mut offset = open.offset;
        let mut bytes = 0;
        while let Some(line) = lines.next()? {
            if !line.complete || batch.lines.len() == MAX_LINES || bytes > MAX_BYTES {
                break;
            }
            // What is no record is for `audit verify` to tell.
            if let Some(read) = Line::read(line.bytes).filter(|read| read.record.seq >= self.next) {
                let seq = read.record.seq;
                if seq > end {
                    break;
                }
                if seq > self.next {
                    // One hole for each batch: what follows it is the next one's.
                    if !batch.lines.is_empty() || batch.notice.is_some() {
                        break;
                    }
                    batch.notice = Some(Notice::Gone {
                        first: self.next,
                        last: seq - 1,
                    });
                }
                self.next = seq + 1;
                bytes += line.bytes.len();
                batch.lines.push(read);
            }
            offset = line.end;
        }
        open.offset = offset;
        Ok(())
    }

    /// Whether the log goes on in another file, or this one was cut.
    fn is_exhausted(&self) -> io::Result<bool> {
        let Some(open) = &self.open else {
            return Ok(false);
        };
        match std::fs::metadata(&self.log) {
            Ok(now) => Ok(identity(&now) != open.identity || now.len() < open.offset),
            // Between two names.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }
}

impl Open {
    fn lines(&self) -> io::Result<Lines<BufReader<File>>> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(Lines::new(BufReader::new(file), self.offset))
    }
}

fn identity(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn number(line: &[u8]) -> Option<u64> {
    let numbered: Numbered = serde_json::from_slice(line).ok()?;
    Some(numbered.seq)
}

/// The number of a file's first record; `None` where it has none yet, or is gone by now.
fn first_number(path: &Path) -> io::Result<Option<u64>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut lines = Lines::new(BufReader::new(file), 0);
    while let Some(line) = lines.next()? {
        if let Some(seq) = number(line.bytes) {
            return Ok(Some(seq));
        }
    }
    Ok(None)
}
