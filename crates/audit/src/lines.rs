//! Lines of a log, one at a time, in bounded memory, from one file to the next.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use crate::{record::MAX_RECORD_BYTES, segments::Segment};

/// What is read at once; it stays within a processor's cache.
const BUFFER_BYTES: usize = 1 << 16;

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

/// The lines of all files of a log.
pub(crate) struct LogLines {
    files: Vec<(PathBuf, File)>,
    lines: Option<Lines<BufReader<File>>>,
    at: Mark,
}

/// A place between two lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    file: usize,
    offset: u64,
    /// Lines of the file before it.
    lines: u64,
}

impl LogLines {
    /// Begins with the first line of the first file.
    pub fn new(segments: Vec<Segment>) -> Self {
        LogLines {
            files: segments
                .into_iter()
                .map(|segment| (segment.path, segment.file))
                .collect(),
            lines: None,
            at: Mark::default(),
        }
    }

    /// The next line of this file or of those that follow.
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            let Some((_, file)) = self.files.get(self.at.file) else {
                return Ok(None);
            };
            if self.lines.is_none() {
                let mut file = file.try_clone()?;
                file.seek(SeekFrom::Start(self.at.offset))?;
                let reader = BufReader::with_capacity(BUFFER_BYTES, file);
                self.lines = Some(Lines::new(reader, self.at.offset));
            }
            // Asked twice, since a line that is returned must not be borrowed where it is not.
            if self.lines.as_mut().is_some_and(|lines| !lines.is_at_end()) {
                break;
            }
            if self.at.file + 1 == self.files.len() {
                return Ok(None);
            }
            self.restore(Mark {
                file: self.at.file + 1,
                ..Mark::default()
            });
        }
        let Some(line) = self.lines.as_mut().map(Lines::next).transpose()?.flatten() else {
            return Ok(None);
        };
        self.at.offset = line.end;
        self.at.lines += 1;
        Ok(Some(line))
    }

    /// The place after the line that was read last.
    pub fn mark(&self) -> Mark {
        self.at
    }

    /// Goes back there.
    pub fn restore(&mut self, mark: Mark) {
        self.lines = None;
        self.at = mark;
    }

    /// The file and the number in it, from 1, of the line that was read last.
    pub fn place(&self) -> (&Path, u64) {
        let path = self.files.get(self.at.file).map(|(path, _)| path.as_path());
        (path.unwrap_or(Path::new("")), self.at.lines)
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.files.len()
    }
}

impl<R: BufRead> Lines<R> {
    /// Nothing follows. What cannot be read says so when it is read.
    fn is_at_end(&mut self) -> bool {
        self.reader.fill_buf().is_ok_and(<[u8]>::is_empty)
    }
}
