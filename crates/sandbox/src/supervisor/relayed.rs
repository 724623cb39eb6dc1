//! A connection from inside, as it arrives here.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Connection;

/// The bytes of one connection that something inside made to a relayed port, both ways. Nothing in it is to be believed:
/// it says which sandbox it comes from, by the way it came, and no more.
pub struct Relayed {
    /// Came together with the greeting.
    early: Vec<u8>,
    taken: usize,
    connection: Connection,
}

impl Relayed {
    pub(super) const fn new(early: Vec<u8>, connection: Connection) -> Self {
        Relayed {
            early,
            taken: 0,
            connection,
        }
    }
}

impl AsyncRead for Relayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.early[self.taken..];
        if rest.is_empty() {
            return Pin::new(&mut self.connection).poll_read(context, buffer);
        }
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Relayed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_came_early_comes_first() {
        let (ours, mut theirs) = duplex(64);
        theirs.write_all(b" later").await.unwrap();
        drop(theirs);
        let mut relayed = Relayed::new(b"early".to_vec(), Box::new(ours));
        let mut small = [0; 2];
        relayed.read_exact(&mut small).await.unwrap();
        let mut rest = String::new();
        relayed.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&small, rest.as_str()), (b"ea", "rly later"));
    }
}
