//! Bedrock's answers: frames of `application/vnd.amazon.eventstream`, each with an event of the Messages API in it.

use aws_smithy_eventstream::frame::read_message_from;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

/// Longest frame that is read; a longer one is passed over. The format allows 24 MiB; events with usage are below 4 KiB.
const MAX_FRAME_BYTES: usize = 1024 * 1024;

/// A frame's first bytes say how long it is, its headers, and a checksum of both.
const LENGTH_BYTES: usize = 4;

/// The shortest frame: prelude of 12 bytes and a checksum of 4.
const MIN_FRAME_BYTES: usize = 16;

#[derive(Default)]
pub(super) struct Frames {
    frame: Vec<u8>,
    /// Bytes to pass over.
    skip: usize,
    /// The stream is no frames: nothing more is read of it.
    lost: bool,
}

impl Frames {
    pub(super) fn push(&mut self, piece: &[u8], found: &mut impl FnMut(&[u8])) {
        let mut rest = piece;
        while !rest.is_empty() && !self.lost {
            if self.skip > 0 {
                rest = self.pass_over(rest);
            } else if self.frame.len() < LENGTH_BYTES {
                rest = self.fill(LENGTH_BYTES, rest);
                self.measure();
            } else {
                rest = self.fill(self.length(), rest);
                if self.frame.len() == self.length() {
                    read(&self.frame, found);
                    self.frame.clear();
                }
            }
        }
    }

    /// Whether the next byte begins a frame.
    pub(super) const fn between(&self) -> bool {
        !self.lost && self.skip == 0 && self.frame.is_empty()
    }

    fn pass_over<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let count = self.skip.min(rest.len());
        self.skip -= count;
        rest.get(count..).unwrap_or_default()
    }

    /// Takes bytes until the frame has `length` of them.
    fn fill<'a>(&mut self, length: usize, rest: &'a [u8]) -> &'a [u8] {
        let (taken, after) = rest.split_at(rest.len().min(length - self.frame.len()));
        self.frame.extend_from_slice(taken);
        after
    }

    /// Looks at a length once it is there.
    fn measure(&mut self) {
        if self.frame.len() < LENGTH_BYTES {
            return;
        }
        let length = self.length();
        if length < MIN_FRAME_BYTES {
            self.lost = true;
        } else if length > MAX_FRAME_BYTES {
            self.skip = length - LENGTH_BYTES;
            self.frame.clear();
        }
    }

    fn length(&self) -> usize {
        let prefix = self.frame.first_chunk::<LENGTH_BYTES>();
        prefix.map_or(LENGTH_BYTES, |bytes| u32::from_be_bytes(*bytes) as usize)
    }
}

/// The payload of a chunk.
#[derive(Deserialize)]
struct Chunk {
    bytes: String,
}

fn read(frame: &[u8], found: &mut impl FnMut(&[u8])) {
    let event = read_message_from(frame).ok().and_then(|message| {
        let chunk: Chunk = serde_json::from_slice(message.payload()).ok()?;
        STANDARD.decode(chunk.bytes).ok()
    });
    if let Some(event) = event {
        found(&event);
    }
}
