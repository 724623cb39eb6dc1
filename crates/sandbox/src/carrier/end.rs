//! The end of a channel that is handed out as a connection: when it is gone altogether is told apart from when nothing
//! more is written to it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::oneshot,
};

/// What is handed out.
pub(super) struct ConnectionEnd {
    /// Goes before the stream, so that whoever reads the stream's end knows why.
    _there: oneshot::Sender<()>,
    stream: DuplexStream,
}

/// Whether it is gone.
pub(super) struct Gone(oneshot::Receiver<()>);

/// A connection with so much room in each direction: the end that is handed out, the other one, and whether the first is
/// gone.
pub(super) fn pair(bytes: usize) -> (ConnectionEnd, (DuplexStream, Gone)) {
    let (stream, ours) = tokio::io::duplex(bytes);
    let (there, gone) = oneshot::channel();
    let end = ConnectionEnd {
        _there: there,
        stream,
    };
    (end, (ours, Gone(gone)))
}

impl Gone {
    pub(super) fn is_now(&mut self) -> bool {
        self.0.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    pub(super) async fn wait(&mut self) {
        // Nothing is ever sent: it closes.
        let _ = (&mut self.0).await;
    }
}

impl AsyncRead for ConnectionEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ConnectionEnd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
