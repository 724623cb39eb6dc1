//! One connection, from its first byte to its last.

use std::{convert::Infallible, pin::pin, sync::Arc};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::{listener::Inside, peer::Peer, request, stall::Stall};

/// Serves requests until the client leaves, breaks the protocol or is too slow, or until `stop`: then what is under way is
/// answered, and nothing more is read.
///
/// HTTP/1.1 alone: a connection has one request under way, so a bound on connections bounds everything, and there are no
/// streams to open and reset by the thousand.
pub(crate) async fn serve<S>(stream: S, peer: Peer, inside: Arc<Inside>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &inside.settings.limits;
    let stream = TokioIo::new(Stall::new(stream, limits.stall_time));
    let service = service_fn(|request| {
        let inside = Arc::clone(&inside);
        async move { Ok::<_, Infallible>(request::answer(inside, peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_header_size(limits.head_bytes)
        .serve_connection(stream, service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
