//! The envelope: length-prefixed frames, decoded from a byte stream without trusting the length.

use serde::{Serialize, de::DeserializeOwned};

/// Largest frame towards the supervisor, bytes: arguments and environment of one start (the kernel's `MAX_ARG_STRLEN`
/// is 128 KiB for each string).
pub const MAX_TO_SUPERVISOR_BYTES: usize = 1024 * 1024;
/// Largest frame towards the host, bytes: one chunk of output or file content and its envelope.
pub const MAX_TO_HOST_BYTES: usize = MAX_CHUNK_BYTES + 16 * 1024;
/// Most bytes of output, input or file content in one frame.
pub const MAX_CHUNK_BYTES: usize = 128 * 1024;

const LENGTH_BYTES: usize = 4;

/// A frame that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The peer announces, or we would send, more than the limit.
    #[error("a frame of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit of its direction.
        limit: usize,
    },
    /// The bytes are no message of the expected kind.
    #[error("a frame does not decode")]
    Malformed(#[source] postcard::Error),
    /// Bytes are left over after the message.
    #[error("a frame has {0} bytes after its message")]
    Trailing(usize),
    /// The message cannot be encoded.
    #[error("a message does not encode")]
    Unencodable(#[source] postcard::Error),
}

/// One frame with its length prefix.
///
/// # Errors
/// [`WireError::TooLarge`] over `limit` bytes, [`WireError::Unencodable`] never for the messages of this crate.
pub fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Vec<u8>, WireError> {
    let mut frame = vec![0; LENGTH_BYTES];
    frame = postcard::to_extend(message, frame).map_err(WireError::Unencodable)?;
    let bytes = frame.len() - LENGTH_BYTES;
    match u32::try_from(bytes) {
        Ok(length) if bytes <= limit => {
            frame[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
            Ok(frame)
        }
        _ => Err(WireError::TooLarge { bytes, limit }),
    }
}

/// Turns a stream of bytes into messages. Holds at most one frame and what was read beyond it.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// A decoder that refuses frames over `limit` bytes before it has read them.
    pub const fn new(limit: usize) -> Self {
        Decoder {
            limit,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that were pushed and not yet taken.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Gives up the frames: what was pushed and not yet taken, for a stream that goes on with something else.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.buffer.split_off(self.start)
    }

    /// The next message, `None` until its frame is complete.
    ///
    /// # Errors
    /// As soon as the length is over the limit, or when the frame is not exactly one message. The stream is then
    /// beyond repair: drop the connection.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator has one item type; this has one for each call"
    )]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        let available = &self.buffer[self.start..];
        let Some(prefix) = available.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let bytes = u32::from_le_bytes(*prefix) as usize;
        if bytes > self.limit {
            return Err(WireError::TooLarge {
                bytes,
                limit: self.limit,
            });
        }
        let Some(body) = available[LENGTH_BYTES..].get(..bytes) else {
            return Ok(None);
        };
        let (message, rest) = postcard::take_from_bytes(body).map_err(WireError::Malformed)?;
        if !rest.is_empty() {
            return Err(WireError::Trailing(rest.len()));
        }
        self.start += LENGTH_BYTES + bytes;
        self.compact();
        Ok(Some(message))
    }

    /// Gives memory back once most of the buffer is consumed.
    fn compact(&mut self) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(64 * 1024);
            self.start = 0;
        } else if self.start > self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, Stream, ToSupervisor};
    use proptest::prelude::*;

    fn read(offset: u64) -> ToSupervisor {
        ToSupervisor::Request {
            id: 7,
            request: Request::Read {
                execution: [3; 16],
                stream: Stream::Stdout,
                offset,
                max_bytes: 9,
                wait_ms: 0,
            },
        }
    }

    proptest! {
        #[test]
        fn messages_survive_any_split(offsets in prop::collection::vec(any::<u64>(), 1..8), cut in 1usize..40) {
            let stream: Vec<u8> =
                offsets.iter().flat_map(|offset| encode(&read(*offset), MAX_TO_SUPERVISOR_BYTES).unwrap()).collect();
            let mut decoder = Decoder::new(MAX_TO_SUPERVISOR_BYTES);
            let mut decoded = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.push(piece);
                while let Some(message) = decoder.next::<ToSupervisor>().unwrap() {
                    decoded.push(message);
                }
            }
            prop_assert_eq!(decoded, offsets.into_iter().map(read).collect::<Vec<_>>());
            prop_assert_eq!(decoder.pending(), 0);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::new(256);
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next::<crate::ToHost>() {}
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_the_bytes_come() {
        let mut decoder = Decoder::new(100);
        decoder.push(&101u32.to_le_bytes());
        assert_eq!(
            decoder.next::<ToSupervisor>(),
            Err(WireError::TooLarge {
                bytes: 101,
                limit: 100
            })
        );
    }

    #[test]
    fn bytes_after_the_message_are_refused() {
        let mut frame = encode(&read(1), 100).unwrap();
        frame.push(0);
        let length = (frame.len() - LENGTH_BYTES) as u32;
        frame[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        let mut decoder = Decoder::new(100);
        decoder.push(&frame);
        assert_eq!(decoder.next::<ToSupervisor>(), Err(WireError::Trailing(1)));
    }
}
