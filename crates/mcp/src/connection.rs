//! One connection: a byte stream with newline-separated JSON-RPC, in either era of the specification.

use std::sync::Arc;

use control::Road;
use model::{Credentials, Source};
use rmcp::service::{ServerInitializeError, serve_server_with_ct};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::{flow::Flow, lines::Lines, service::Service};

/// Longest message of a client, bytes. Above the largest argument (standard input of 1 MiB) in JSON's escapes; a longer
/// line is dropped unread and never answered, as it cannot be told which request it was.
pub(crate) const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;

/// Who is on the other side: settled by the transport (socket credentials and handshake), never by what the client says.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What every call of this connection presents on the road.
    pub credentials: Credentials,
    /// From where its calls come.
    pub source: Source,
    /// A person at the command line, who may answer what Claude Code asks.
    pub is_person: bool,
}

/// A connection that ended otherwise than by its end of stream.
#[derive(Debug, thiserror::Error)]
pub enum McpError {
    /// The client did not open the conversation as the specification says.
    #[error("the client did not complete the opening of the protocol")]
    Opening(#[source] Box<ServerInitializeError>),
    /// The task that serves the connection failed.
    #[error("the task that serves the connection failed")]
    Task(#[source] tokio::task::JoinError),
}

/// Serves one connection until the client closes it, or `shutdown` is cancelled: waiting calls are then answered
/// `shutting_down`. Executions are untouched by either.
///
/// While the client leaves answers unread, no more of its requests are read; so it must read and write independently.
/// After the end of the stream, calls in flight have 5 s to be answered (rmcp's drain; 2 s at shutdown).
///
/// # Errors
/// See [`McpError`]. A client that leaves before it has said anything is no error.
pub async fn serve<S>(
    stream: S,
    road: Arc<dyn Road>,
    peer: Peer,
    shutdown: CancellationToken,
) -> Result<(), McpError>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(Flow::new(stream));
    let transport = Lines::new(read, write, MAX_MESSAGE_BYTES);
    let service = Service::new(road, peer, shutdown.clone());
    let running = match serve_server_with_ct(service, transport, shutdown.child_token()).await {
        Ok(running) => running,
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => {
            return Ok(());
        }
        Err(error) => return Err(McpError::Opening(Box::new(error))),
    };
    running.waiting().await.map(|_| ()).map_err(McpError::Task)
}
