//! All records of a log, over all its files, oldest first, one at a time.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    vec,
};

use super::Told;
use crate::{ReadError, lines::Lines, log_files};

/// A record with the line that it stands on.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The line, without its line feed.
    pub text: String,
    /// What it says.
    pub record: Told,
}

impl Line {
    /// Reads a line; `None` where it is no record.
    pub fn read(bytes: &[u8]) -> Option<Line> {
        Some(Line {
            record: Told::read(bytes)?,
            text: String::from_utf8(bytes.to_vec()).ok()?,
        })
    }
}

/// See the module. Memory is bounded by one line.
pub struct Reader {
    files: vec::IntoIter<PathBuf>,
    open: Option<Lines<BufReader<File>>>,
    line: u64,
}

impl Reader {
    /// Reads the log at that path, with the files that it was rotated into.
    ///
    /// # Errors
    /// When its directory cannot be read or the log itself is not there.
    pub fn open(path: &Path) -> Result<Reader, ReadError> {
        // A log without a file is a mistaken path, not an empty log.
        File::open(path)?;
        Ok(Reader {
            files: log_files(path)?.into_iter(),
            open: None,
            line: 0,
        })
    }

    fn next_line(&mut self) -> Result<Option<Line>, ReadError> {
        loop {
            if self.open.is_none() {
                let Some(path) = self.files.next() else {
                    return Ok(None);
                };
                self.open = Some(Lines::new(BufReader::new(File::open(path)?), 0));
            }
            let Some(lines) = self.open.as_mut() else {
                continue;
            };
            match lines.next()? {
                None => self.open = None,
                // A line without an end is being written, or was torn; the next start tells.
                Some(line) if !line.complete => {}
                Some(line) => {
                    self.line += 1;
                    let read = Line::read(line.bytes);
                    return read
                        .map(Some)
                        .ok_or(ReadError::NotARecord { line: self.line });
                }
            }
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Line, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_line().transpose()
    }
}
