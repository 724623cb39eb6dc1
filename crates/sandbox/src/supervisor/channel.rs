//! One direction of a connection: frames in, never more buffered than one of them and a read's worth.

use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};
use wire::{Decoder, MAX_TO_HOST_BYTES, WireError};

use super::relayed::Relayed;
use crate::Connection;

/// Bytes taken from the kernel in one read: a full frame of output arrives in about one.
const READ_BYTES: usize = 160 * 1024;

/// Bytes asked for until a read fills its buffer and so shows that this connection carries content.
const FIRST_READ_BYTES: usize = 8 * 1024;

/// Takes frames off one direction of a connection. Cancel-safe: what was read stays in it.
pub(crate) struct FrameReader<R> {
    source: R,
    decoder: Decoder,
    buffer: Vec<u8>,
}

/// Why no further frame comes.
#[derive(Debug)]
pub(crate) enum ReadEnd {
    /// The peer closed the connection, or it broke.
    Closed,
    /// The peer sent what is no frame.
    Garbage(WireError),
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader that refuses frames over `limit` bytes.
    pub(crate) fn new(source: R, limit: usize) -> Self {
        FrameReader {
            source,
            decoder: Decoder::new(limit),
            buffer: vec![0; FIRST_READ_BYTES],
        }
    }

    /// The next frame.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<T, ReadEnd> {
        loop {
            if let Some(frame) = self.decoder.next().map_err(ReadEnd::Garbage)? {
                return Ok(frame);
            }
            let count = match self.source.read(&mut self.buffer).await {
                Ok(0) | Err(_) => return Err(ReadEnd::Closed),
                Ok(count) => count,
            };
            self.decoder.push(&self.buffer[..count]);
            if count == self.buffer.len() && count < READ_BYTES {
                self.buffer.resize(READ_BYTES, 0);
            }
        }
    }
}

/// A whole connection.
pub(crate) type Channel = FrameReader<Connection>;

impl Channel {
    /// A connection that carries no frames any more.
    pub(super) fn into_relayed(self) -> Relayed {
        Relayed::new(self.decoder.into_rest(), self.source)
    }

    /// The host's side of a connection.
    pub(super) fn of_host(connection: Connection) -> Self {
        FrameReader::new(connection, MAX_TO_HOST_BYTES)
    }

    /// Splits it, so that a slow direction never holds up the other.
    pub(super) fn split(
        self,
    ) -> (
        FrameReader<tokio::io::ReadHalf<Connection>>,
        tokio::io::WriteHalf<Connection>,
    ) {
        let (read, write) = tokio::io::split(self.source);
        (
            FrameReader {
                source: read,
                decoder: self.decoder,
                buffer: self.buffer,
            },
            write,
        )
    }
}
