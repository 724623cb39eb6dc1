//! Reading a log for people. Nothing is checked here: see [`crate::verify`].

use std::{
    fs::File,
    io::{self, BufReader},
    path::Path,
};

use crate::{Record, lines::Lines};

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read the audit log")]
    Io(#[from] io::Error),
    /// A line is no record. Reading goes on with the next one.
    #[error("line {line} is no record")]
    NotARecord {
        /// Which, counted from 1.
        line: u64,
    },
}

/// The records of a log, oldest first.
pub struct Records {
    lines: Lines<BufReader<File>>,
    line: u64,
}

/// Reads a log.
///
/// # Errors
/// When the file cannot be opened.
pub fn read(path: &Path) -> Result<Records, ReadError> {
    Ok(Records {
        lines: Lines::new(BufReader::new(File::open(path)?), 0),
        line: 0,
    })
}

impl Iterator for Records {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.line += 1;
        match self.lines.next() {
            Ok(None) => None,
            Ok(Some(line)) => Some(
                serde_json::from_slice(line.bytes)
                    .map_err(|_| ReadError::NotARecord { line: self.line }),
            ),
            Err(error) => Some(Err(error.into())),
        }
    }
}
