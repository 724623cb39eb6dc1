//! One output stream of an execution: from its pipe or terminal into the spool.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{self, Errno};
use wire::{OutputChunk, OutputMode, StreamStatus};

use crate::spool::{Spool, WhenFull};

/// Room beyond a lossless window, bytes: at the end of an execution everything that still stands in its pipe is taken,
/// and an unprivileged process can grow a pipe to 1 MiB (`fs.pipe-max-size`).
const DRAIN_BYTES: u64 = 2 * 1024 * 1024;
/// Most bytes that one stream may keep: a limit against nonsense, far over anything the host asks.
pub const MAX_KEEP_BYTES: u64 = 1 << 32;

/// A stream.
pub struct Output {
    source: Option<OwnedFd>,
    spool: Spool,
    /// `Some` for lossless streams.
    window: Option<u64>,
}

impl Output {
    /// Reads from `source`, which must not block. Without one the stream has ended from the start.
    pub fn new(source: Option<OwnedFd>, mode: OutputMode) -> Self {
        let (spool, window) = match mode {
            OutputMode::DropOldest { keep_bytes } => (Spool::new(keep_bytes, WhenFull::Drop), None),
            OutputMode::Lossless { window_bytes } => (
                Spool::new(window_bytes + DRAIN_BYTES, WhenFull::UseMemory),
                Some(window_bytes),
            ),
        };
        Output {
            source,
            spool,
            window,
        }
    }

    /// The descriptor to poll, `None` while the stream must wait or has ended.
    pub fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.source
            .as_ref()
            .filter(|_| self.room() > 0)
            .map(AsFd::as_fd)
    }

    /// Where the stream stands.
    pub const fn status(&self) -> StreamStatus {
        StreamStatus {
            kept_from: self.spool.kept_from(),
            total_bytes: self.spool.total(),
            ended: self.source.is_none(),
        }
    }

    /// Takes what one read gives.
    pub fn pump(&mut self, buffer: &mut [u8], directory: Option<BorrowedFd<'_>>) {
        let room = usize::try_from(self.room())
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        self.read_once(&mut buffer[..room], directory);
    }

    /// Takes everything that is left now, whatever the window says; all writers are gone. True when the stream ended.
    pub fn drain(&mut self, buffer: &mut [u8], directory: Option<BorrowedFd<'_>>) -> bool {
        let mut left = DRAIN_BYTES;
        while left > 0 {
            let read = self.read_once(buffer, directory);
            if read == 0 {
                break;
            }
            left = left.saturating_sub(read as u64);
        }
        self.source.is_none()
    }

    /// No more will come.
    pub fn end(&mut self) {
        self.source = None;
    }

    /// Whether a read at `offset` has an answer now.
    pub const fn has(&self, offset: u64) -> bool {
        self.spool.total() > offset || self.source.is_none()
    }

    /// A piece from `offset` on. For a lossless stream everything before it is then acknowledged.
    pub fn read(&mut self, offset: u64, max_bytes: usize) -> io::Result<OutputChunk> {
        if self.window.is_some() {
            self.spool.release(offset);
        }
        let (offset, data) = self.spool.read(offset, max_bytes)?;
        Ok(OutputChunk {
            offset,
            data,
            status: self.status(),
        })
    }

    /// Acknowledges without reading: a parked read also frees the window.
    pub fn acknowledge(&mut self, offset: u64) {
        if self.window.is_some() {
            self.spool.release(offset);
        }
    }

    fn room(&self) -> u64 {
        let unacknowledged = self.spool.total() - self.spool.kept_from();
        self.window
            .map_or(u64::MAX, |window| window.saturating_sub(unacknowledged))
    }

    fn read_once(&mut self, buffer: &mut [u8], directory: Option<BorrowedFd<'_>>) -> usize {
        let Some(source) = &self.source else { return 0 };
        if buffer.is_empty() {
            return 0;
        }
        match io::read(source, &mut *buffer) {
            Ok(0) => {
                self.source = None;
                0
            }
            Ok(read) => {
                self.spool.append(&buffer[..read], directory);
                read
            }
            Err(Errno::AGAIN | Errno::INTR) => 0,
            // EIO is how a terminal ends once its last slave is closed.
            Err(_) => {
                self.source = None;
                0
            }
        }
    }
}
