//! Checking the chain.
use std::{fmt, io, path::Path};
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
/// Checks a whole log.
///
/// # Errors
/// [`VerifyError::Tampered`] names the first bad record.
pub fn verify(_path: &Path) -> Result<VerifyReport, VerifyError> {
    Err(VerifyError::Io(io::Error::other("not built yet")))
}
