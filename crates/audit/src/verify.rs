//! Checking the chain.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use rustix::fs::FlockOperation;

use crate::{
    Phase,
    head::Head,
    lines::Lines,
    record::{Link, Sound},
    writer::GAP_ACTION,
};

/// Most warnings and open intents that a report lists; the rest is only counted in `records`.
const MAX_LISTED: usize = 1_000;
/// A large buffer: a log is read from end to end.
const BUFFER_BYTES: usize = 1 << 20;
/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Its content is not what was hashed.
    Edited,
    /// Records before it are missing.
    Deleted,
    /// It does not belong there.
    Inserted,
    /// It stands in the wrong place.
    Reordered,
    /// The line is cut.
    TruncatedLine,
    /// Records at the end that were durable once are missing.
    TailMissing,
    /// A complete chain, but not the one that the head file knows.
    Forked,
}
impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultKind::Edited => "edited",
            FaultKind::Deleted => "deleted",
            FaultKind::Inserted => "inserted",
            FaultKind::Reordered => "reordered",
            FaultKind::TruncatedLine => "truncated_line",
            FaultKind::TailMissing => "tail_missing",
            FaultKind::Forked => "forked",
        })
    }
}
/// The first bad record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Number that the record at that place must have.
    pub seq: u64,
    /// Its line, counted from 1.
    pub line: u64,
    /// What is wrong.
    pub kind: FaultKind,
}
/// Something to look at that breaks no chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning {
    /// The clock went back before this record.
    ClockRegress {
        /// Which record.
        seq: u64,
    },
    /// Records were lost here, and the log says so itself.
    Gap {
        /// The record that says so.
        seq: u64,
    },
    /// There is no readable head file beside the log: a missing tail would not be found.
    NoHead,
    /// The last line is being written by a running server right now.
    WriteInProgress,
}
/// An intent without result: still running, or its server was killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenIntent {
    /// The intent's number.
    pub seq: u64,
    /// Its operation.
    pub operation: String,
    /// Its action.
    pub action: String,
}
/// A log whose chain holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// How many records.
    pub records: u64,
    /// Number of the last one; 0 for an empty log.
    pub last_seq: u64,
    /// Hash of the last one, hexadecimal: note it elsewhere as an anchor.
    pub last_hash: String,
    /// Intents without result, oldest first.
    pub open_intents: Vec<OpenIntent>,
    /// What else to look at.
    pub warnings: Vec<Warning>,
}
/// Why a log did not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The chain is broken.
    #[error("record {seq} (line {line}): {kind}", seq = .0.seq, line = .0.line, kind = .0.kind)]
    Tampered(Fault),
    /// The file cannot be read.
    #[error("cannot read the audit log")]
    Io(#[from] io::Error),
}
/// Checks a whole log: every record's hash, the chain, and that nothing is missing before the record that the head file
/// (`NAME.head`) knows to have been durable. A server may go on writing meanwhile.
///
/// # Errors
/// [`VerifyError::Tampered`] names the first bad record.
pub fn verify(path: &Path) -> Result<VerifyReport, VerifyError> {
    // The head first: it never runs ahead of the log.
    let head = Head::read_beside(path);
    let file = File::open(path)?;
    let outcome = verify_lines(BufReader::with_capacity(BUFFER_BYTES, &file), head);
    match outcome {
        Err(VerifyFailed::Unfinished(mut report)) if is_being_written(&file) => {
            report.warnings.push(Warning::WriteInProgress);
            Ok(report)
        }
        Err(VerifyFailed::Unfinished(report)) => Err(VerifyError::Tampered(Fault {
            seq: report.last_seq + 1,
            line: report.records + 1,
            kind: FaultKind::TruncatedLine,
        })),
        Err(VerifyFailed::Error(error)) => Err(error),
        Ok(report) => Ok(report),
    }
}

/// A server holds the log's lock.
fn is_being_written(file: &File) -> bool {
    matches!(
        rustix::fs::flock(file, FlockOperation::NonBlockingLockShared),
        Err(rustix::io::Errno::WOULDBLOCK)
    )
}

/// As [`VerifyError`], but for a last line without its end after which nothing durable is missing.
pub(crate) enum VerifyFailed {
    Error(VerifyError),
    Unfinished(VerifyReport),
}

impl<T: Into<VerifyError>> From<T> for VerifyFailed {
    fn from(error: T) -> Self {
        VerifyFailed::Error(error.into())
    }
}

/// Checks lines against a head.
pub(crate) fn verify_lines(
    reader: impl BufRead,
    head: Option<Head>,
) -> Result<VerifyReport, VerifyFailed> {
    let mut check = Check::new(head);
    let mut lines = Lines::new(reader, 0);
    while let Some(line) = lines.next()? {
        let sound = Sound::read(line.bytes).filter(|_| line.complete);
        match &sound {
            Some(sound) if check.link.accepts(sound) => check.take(sound)?,
            Some(_) | None => {
                let found = Found::of(sound.as_ref(), line.bytes, line.complete);
                return Err(check.fault(&found, &mut lines)?);
            }
        }
    }
    Ok(check.finish()?)
}

/// The chain so far.
struct Check {
    head: Option<Head>,
    link: Link,
    last_timestamp: String,
    open: BTreeMap<String, OpenIntent>,
    warnings: Vec<Warning>,
}

impl Check {
    fn new(head: Option<Head>) -> Self {
        let warnings = if head.is_none() {
            vec![Warning::NoHead]
        } else {
            Vec::new()
        };
        Check {
            head,
            link: Link::START,
            last_timestamp: String::new(),
            open: BTreeMap::new(),
            warnings,
        }
    }

    fn take(&mut self, sound: &Sound<'_>) -> Result<(), VerifyError> {
        self.link = sound.link();
        if self
            .head
            .is_some_and(|head| head.link.seq == sound.seq && head.link.hash != sound.hash)
        {
            return Err(VerifyError::Tampered(Fault {
                seq: sound.seq,
                line: sound.seq,
                kind: FaultKind::Forked,
            }));
        }
        // All timestamps have the same width, so their order is that of their texts.
        if sound.timestamp < self.last_timestamp.as_str() {
            self.warn(Warning::ClockRegress { seq: sound.seq });
        }
        self.last_timestamp.clear();
        self.last_timestamp.push_str(sound.timestamp);
        match (sound.phase, sound.op) {
            (Phase::Intent, Some(operation)) => {
                let (operation, action) = (operation.to_owned(), sound.action.to_owned());
                self.open.insert(
                    operation.clone(),
                    OpenIntent {
                        seq: sound.seq,
                        operation,
                        action,
                    },
                );
            }
            (Phase::Result, Some(operation)) => drop(self.open.remove(operation)),
            (Phase::Event, _) if sound.action == GAP_ACTION => {
                self.warn(Warning::Gap { seq: sound.seq })
            }
            (Phase::Intent | Phase::Result | Phase::Event, _) => {}
        }
        Ok(())
    }

    fn warn(&mut self, warning: Warning) {
        if self.warnings.len() < MAX_LISTED {
            self.warnings.push(warning);
        }
    }

    fn finish(self) -> Result<VerifyReport, VerifyError> {
        if self.head.is_some_and(|head| head.link.seq > self.link.seq) {
            return Err(VerifyError::Tampered(self.fault_of(FaultKind::TailMissing)));
        }
        Ok(self.report())
    }

    fn report(self) -> VerifyReport {
        let mut open_intents: Vec<_> = self.open.into_values().collect();
        open_intents.sort_unstable_by_key(|intent| intent.seq);
        open_intents.truncate(MAX_LISTED);
        VerifyReport {
            records: self.link.seq,
            last_seq: self.link.seq,
            last_hash: hex::encode(self.link.hash),
            open_intents,
            warnings: self.warnings,
        }
    }

    fn fault_of(&self, kind: FaultKind) -> Fault {
        // Every line before it was a record of this chain, which starts with number 1.
        Fault {
            seq: self.link.seq + 1,
            line: self.link.seq + 1,
            kind,
        }
    }

    /// What is wrong with the line that is not the next record, judged by what follows it.
    fn fault(self, found: &Found, rest: &mut Lines<impl BufRead>) -> io::Result<VerifyFailed> {
        let expected = self.link.seq + 1;
        let out_of_place = matches!(found, Found::Record { seq } if *seq > expected);
        let after = After::look(rest, self.link, out_of_place)?;
        let kind = match found {
            Found::Record { seq } if *seq < expected => FaultKind::Inserted,
            Found::Record { seq } if *seq == expected => FaultKind::Forked,
            Found::Record { .. } if after.expected_comes_later => FaultKind::Reordered,
            Found::Record { .. } => FaultKind::Deleted,
            Found::NoRecord { .. } | Found::Cut if after.next_continues => FaultKind::Inserted,
            Found::Cut
                if after.is_empty
                    && self.head.is_none_or(|head| head.link.seq <= self.link.seq) =>
            {
                return Ok(VerifyFailed::Unfinished(self.report()));
            }
            Found::NoRecord {
                ends_like_one: true,
            } => FaultKind::Edited,
            Found::NoRecord {
                ends_like_one: false,
            }
            | Found::Cut => FaultKind::TruncatedLine,
        };
        Ok(VerifyFailed::Error(VerifyError::Tampered(
            self.fault_of(kind),
        )))
    }
}

/// What stands where the next record should.
enum Found {
    /// A record with a sound hash, and this number.
    Record { seq: u64 },
    /// A line that is no record.
    NoRecord { ends_like_one: bool },
    /// The last line, without its line feed.
    Cut,
}

impl Found {
    fn of(sound: Option<&Sound<'_>>, line: &[u8], complete: bool) -> Self {
        match sound {
            _ if !complete => Found::Cut,
            Some(sound) => Found::Record { seq: sound.seq },
            None => Found::NoRecord {
                ends_like_one: line.ends_with(b"\"}"),
            },
        }
    }
}

/// What follows a bad line.
struct After {
    is_empty: bool,
    /// The next line is the record that should have stood there.
    next_continues: bool,
    /// A record with the number that should have stood there comes later.
    expected_comes_later: bool,
}

impl After {
    /// Only a sound record out of its place needs the search to the end.
    fn look(rest: &mut Lines<impl BufRead>, link: Link, to_the_end: bool) -> io::Result<After> {
        let mut after = After {
            is_empty: true,
            next_continues: false,
            expected_comes_later: false,
        };
        while let Some(line) = rest.next()? {
            let sound = Sound::read(line.bytes);
            let continues = sound.as_ref().is_some_and(|sound| link.accepts(sound));
            after.next_continues |= after.is_empty && continues;
            after.expected_comes_later |= sound.is_some_and(|sound| sound.seq == link.seq + 1);
            after.is_empty = false;
            if after.expected_comes_later || !to_the_end {
                break;
            }
        }
        Ok(after)
    }
}
