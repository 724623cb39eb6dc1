//! Standard input of an execution: a bounded buffer in front of its pipe or terminal.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::{self, Errno},
    termios::{SpecialCodeIndex, tcgetattr},
};
use wire::{Fault, FaultKind};

use crate::fault::fault;

/// Input that was accepted and not yet taken by the program, bytes at most.
const BUFFER_BYTES: usize = 1024 * 1024;
/// `^D`, where the terminal does not tell its end-of-file character.
const DEFAULT_END_OF_FILE: u8 = 4;

/// What stands at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// A pipe: closing it is the end of file.
    Pipe,
    /// A terminal: the end of file is a character.
    Terminal,
}

/// Standard input.
pub struct Input {
    sink: Option<OwnedFd>,
    kind: InputKind,
    buffer: VecDeque<u8>,
    last: Option<u8>,
    closing: bool,
}

impl Input {
    /// Writes to `sink`, which must not block; without one the input is closed.
    pub const fn new(sink: Option<OwnedFd>, kind: InputKind) -> Self {
        Input {
            sink,
            kind,
            buffer: VecDeque::new(),
            last: None,
            closing: false,
        }
    }

    /// The descriptor to poll, and whether there is something to write. A pipe is watched even without: its reader's
    /// end must be noticed.
    pub fn writable(&self) -> Option<(BorrowedFd<'_>, bool)> {
        let watched = !self.buffer.is_empty() || self.kind == InputKind::Pipe;
        self.sink
            .as_ref()
            .filter(|_| watched)
            .map(|sink| (sink.as_fd(), !self.buffer.is_empty()))
    }

    /// Accepts as much as there is room for.
    pub fn write(&mut self, data: &[u8], close: bool) -> Result<u32, Fault> {
        if self.closing || self.sink.is_none() {
            return Err(fault(FaultKind::StdinClosed, "standard input is closed"));
        }
        let accepted = data.len().min(BUFFER_BYTES - self.buffer.len());
        self.buffer.extend(&data[..accepted]);
        self.last = data[..accepted].last().copied().or(self.last);
        if close && accepted == data.len() {
            self.close();
        }
        self.pump();
        Ok(u32::try_from(accepted).unwrap_or(u32::MAX))
    }

    /// Writes what the other end takes.
    pub fn pump(&mut self) {
        while let Some(sink) = &self.sink {
            let (front, _) = self.buffer.as_slices();
            if front.is_empty() {
                break;
            }
            match io::write(sink, front) {
                Ok(written) => drop(self.buffer.drain(..written)),
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => return self.end(),
            }
        }
        self.buffer.shrink_to(0);
        if self.closing && self.kind == InputKind::Pipe {
            self.sink = None;
        }
    }

    /// Nobody reads any more.
    pub fn end(&mut self) {
        self.sink = None;
        self.buffer = VecDeque::new();
    }

    fn close(&mut self) {
        self.closing = true;
        if self.kind == InputKind::Terminal {
            let end_of_file = self.sink.as_ref().and_then(|sink| tcgetattr(sink).ok());
            let end_of_file = end_of_file.map_or(DEFAULT_END_OF_FILE, |modes| {
                modes.special_codes[SpecialCodeIndex::VEOF]
            });
            // In the middle of a line the first one only hands over the line.
            let times = if matches!(self.last, None | Some(b'\n' | b'\r')) {
                1
            } else {
                2
            };
            self.buffer.extend(std::iter::repeat_n(end_of_file, times));
        }
    }
}
