//! A client that does not read is not read from.
//!
//! rmcp queues answers without a bound, so a client that sends requests and never reads their answers would fill our
//! memory. While a write waits for the client, reads wait too, and the kernel's socket buffer stops the client.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose reads wait for its writes.
pub(crate) struct Flow<S> {
    stream: Pin<Box<S>>,
    write_waits: bool,
    reader: Option<Waker>,
}

impl<S> Flow<S> {
    pub(crate) fn new(stream: S) -> Self {
        Flow {
            stream: Box::pin(stream),
            write_waits: false,
            reader: None,
        }
    }

    fn after_write<T>(&mut self, result: Poll<T>) -> Poll<T> {
        self.write_waits = result.is_pending();
        if !self.write_waits
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        result
    }
}

impl<S: AsyncRead> AsyncRead for Flow<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.write_waits {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        self.stream.as_mut().poll_read(context, buffer)
    }
}

impl<S: AsyncWrite> AsyncWrite for Flow<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = self.stream.as_mut().poll_write(context, bytes);
        self.after_write(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.stream.as_mut().poll_flush(context);
        self.after_write(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.stream.as_mut().poll_shutdown(context);
        self.after_write(result)
    }
}
