//! Standard error, and a second file.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::worker::{Message, Target, Undelivered};
use crate::files::Place;

/// The server's standard error.
pub(super) struct Stderr;

impl Target for Stderr {
    fn deliver(&mut self, messages: &[Message]) -> Result<(), Undelivered> {
        Ok(io::stderr().lock().write_all(&lines(messages))?)
    }
}

/// A file that records are appended to, for its owner alone, in a directory that nobody else can write to. It may be moved
/// away at any time: the next batch makes a new one.
pub(super) struct SecondFile {
    path: PathBuf,
    open: Option<File>,
}

impl SecondFile {
    pub(super) fn new(path: &Path) -> Self {
        SecondFile {
            path: path.to_owned(),
            open: None,
        }
    }

    /// The open file, while it is still the one of that name.
    fn file(&mut self) -> Result<&File, Undelivered> {
        let is_there = |file: &File| {
            let named = std::fs::symlink_metadata(&self.path);
            let open = file.metadata();
            named.is_ok_and(|named| {
                open.is_ok_and(|open| (named.dev(), named.ino()) == (open.dev(), open.ino()))
            })
        };
        if !self.open.as_ref().is_some_and(is_there) {
            self.open = None;
        }
        if self.open.is_none() {
            let place = Place::open(&self.path).map_err(Undelivered::nothing)?;
            let (file, _) = place
                .open_file("", OFlags::APPEND)
                .map_err(Undelivered::nothing)?;
            end_half_a_line(&file)?;
            self.open = Some(file);
        }
        self.open
            .as_ref()
            .ok_or_else(|| Undelivered::nothing("it cannot be opened"))
    }
}

/// What a kill in the middle of a write left would swallow the record after it.
fn end_half_a_line(mut file: &File) -> io::Result<()> {
    let Some(last) = file.metadata()?.len().checked_sub(1) else {
        return Ok(());
    };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    match byte {
        [b'\n'] => Ok(()),
        _ => file.write_all(b"\n"),
    }
}

impl Target for SecondFile {
    fn deliver(&mut self, messages: &[Message]) -> Result<(), Undelivered> {
        let mut file = self.file()?;
        let before = file.metadata()?.len();
        let written = file
            .write_all(&lines(messages))
            .and_then(|()| file.sync_data());
        if written.is_err() {
            // No half of a line stays: the batch comes again. Where it cannot be cut, the next opening ends it.
            let cut = file.set_len(before);
            if cut.is_err() {
                self.open = None;
            }
            cut?;
        }
        Ok(written?)
    }
}

fn lines(messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        bytes.extend_from_slice(message.text.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}
