//! The reserve: blocks that are written full of zeros at start, so that the records of a destroy find room when the
//! disk has none. Its records continue the log's chain and move into the log, unchanged, as soon as that takes writes
//! again.
//!
//! What this does not stop: a file system that never overwrites in place (copy-on-write) may refuse on a full disk
//! even so; then the action proceeds and a gap is recorded.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::record::{Link, Sound};

/// Suffix of the file.
pub(crate) const SUFFIX: &str = ".reserve";
/// Size of the reserve, bytes: about fifteen hundred records, several times the sessions that a machine can hold.
const BYTES: usize = 1 << 20;

/// The reserve file and the lines in it.
pub(crate) struct Reserve {
    file: File,
    lines: Vec<u8>,
    end: Option<Link>,
}

impl Reserve {
    /// Takes over the file: allocates its blocks, and reads what an earlier run left in it. `after` is the end of the
    /// log; lines that are in the log already are dropped. Also returns what does not fit the log, if anything.
    pub fn open(file: File, after: Link) -> io::Result<(Reserve, Option<Vec<u8>>)> {
        let mut bytes = vec![0; BYTES];
        let known = file.metadata()?.len().min(BYTES as u64) as usize;
        file.read_exact_at(&mut bytes[..known], 0)?;
        if known < BYTES {
            file.write_all_at(&bytes, 0)?;
            file.sync_all()?;
        }
        let used = bytes.iter().position(|byte| *byte == 0).unwrap_or(BYTES);
        let (lines, end, misfit) = continuation(&bytes[..used], after);
        Ok((Reserve { file, lines, end }, misfit))
    }

    /// Lines that wait for the log, each with its line feed.
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// The end of the chain in the reserve, if anything is in it.
    pub fn end(&self) -> Option<Link> {
        self.end
    }

    /// Adds lines durably; `end` is the chain's end after them.
    pub fn append(&mut self, lines: &[u8], end: Link) -> io::Result<()> {
        let used = self.lines.len();
        if used + lines.len() > BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // The zero ends the lines even where an older one could not be cleared away.
        let mut ended = lines.to_vec();
        ended.extend_from_slice(&b"\0"[..usize::from(used + lines.len() < BYTES)]);
        self.file.write_all_at(&ended, used as u64)?;
        self.file.sync_data()?;
        self.lines.extend_from_slice(lines);
        self.end = Some(end);
        Ok(())
    }

    /// Forgets everything: it is durable in the log now. If this fails, the next start finds the lines in the log.
    pub fn clear(&mut self) -> io::Result<()> {
        let zeros = vec![0; self.lines.len()];
        self.lines.clear();
        self.end = None;
        self.file.write_all_at(&zeros, 0)?;
        self.file.sync_data()
    }
}

/// The lines that continue a chain; then what does not.
fn continuation(bytes: &[u8], after: Link) -> (Vec<u8>, Option<Link>, Option<Vec<u8>>) {
    let (mut lines, mut end) = (Vec::new(), None);
    let mut at = 0;
    while let Some(length) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let line = &bytes[at..at + length];
        let Some(sound) = Sound::read(line) else {
            break;
        };
        let tail = end.unwrap_or(after);
        if tail.accepts(&sound) {
            lines.extend_from_slice(&bytes[at..=at + length]);
            end = Some(sound.link());
        } else if end.is_some() || sound.seq > after.seq {
            break;
        }
        at += length + 1;
    }
    (lines, end, (at < bytes.len()).then(|| bytes[at..].to_vec()))
}
