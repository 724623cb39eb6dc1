//! Lines of a file, one at a time, in bounded memory.

use std::io::{self, BufRead};

use crate::record::MAX_RECORD_BYTES;

/// Reads lines of at most [`MAX_RECORD_BYTES`]; a longer one comes in pieces, none of which is a record.
pub(crate) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    offset: u64,
}

/// A line, or the piece of one.
pub(crate) struct Line<'a> {
    /// Without its line feed.
    pub bytes: &'a [u8],
    /// It ended with a line feed.
    pub complete: bool,
    /// Where the next one starts.
    pub end: u64,
}

impl<R: BufRead> Lines<R> {
    /// Lines of a reader that stands at `offset` of its file.
    pub fn new(reader: R, offset: u64) -> Self {
        Lines {
            reader,
            buffer: Vec::with_capacity(MAX_RECORD_BYTES),
            offset,
        }
    }

    /// The next line; `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        let limit = MAX_RECORD_BYTES as u64 + 1;
        let read = io::Read::take(&mut self.reader, limit).read_until(b'\n', &mut self.buffer)?;
        self.offset += read as u64;
        let complete = self.buffer.last() == Some(&b'\n');
        let bytes = if complete {
            &self.buffer[..read - 1]
        } else {
            &self.buffer[..]
        };
        Ok((read > 0).then_some(Line {
            bytes,
            complete,
            end: self.offset,
        }))
    }
}
