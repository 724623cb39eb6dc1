//! What a check finds.

use std::{fmt, io, path::PathBuf};

use crate::PublicKey;

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Its content is not what was hashed.
    Edited,
    /// It is not spelled as this program spells records.
    NotCanonical,
    /// The chain holds, but the record was not sealed with the log's key.
    Forged,
    /// A checkpoint is not signed by the log's key, or not about the record before it.
    BadSignature,
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
    /// A complete chain, but not the one that the head file, the key file or an anchor knows.
    Forked,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultKind::Edited => "edited",
            FaultKind::NotCanonical => "not_canonical",
            FaultKind::Forged => "forged",
            FaultKind::BadSignature => "bad_signature",
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Number that the record at that place must have.
    pub seq: u64,
    /// The file that it stands in, or would.
    pub file: PathBuf,
    /// Its line in the file, counted from 1.
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
    /// The log does not begin with its first record: the first one is this, as was asked for.
    StartsAt {
        /// The first record.
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
    /// How many files.
    pub files: usize,
    /// How many records.
    pub records: u64,
    /// Number of the first one; 0 for an empty log.
    pub first_seq: u64,
    /// Number of the last one; 0 for an empty log.
    pub last_seq: u64,
    /// Hash of the last one, hexadecimal: note it elsewhere as an anchor.
    pub last_hash: String,
    /// Everything up to this record was removed, as a signed record says.
    pub pruned_up_to: Option<u64>,
    /// How many signed checkpoints.
    pub checkpoints: u64,
    /// Every record's MAC was checked; without a verification key none is.
    pub macs_checked: bool,
    /// The verification key still stands beside the log: who takes the machine could forge every record.
    pub verification_key_beside: bool,
    /// The key that signatures were checked with.
    pub public_key: Option<PublicKey>,
    /// Intents without result, oldest first.
    pub open_intents: Vec<OpenIntent>,
    /// What else to look at.
    pub warnings: Vec<Warning>,
}

/// Why a log did not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The chain is broken.
    #[error("record {seq} (line {line} of {file:?}): {kind}", seq = .0.seq, line = .0.line, file = .0.file.display().to_string(), kind = .0.kind)]
    Tampered(Box<Fault>),
    /// The file cannot be read.
    #[error("cannot read the audit log")]
    Io(#[from] io::Error),
}
