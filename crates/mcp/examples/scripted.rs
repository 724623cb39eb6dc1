//! The MCP service on standard input and output over a scripted road: for trying clients without a server.
//!
//! `cargo run -p mcp --example scripted`, then point a client at the binary.

use std::sync::Arc;

use mcp::{Peer, serve};
use model::{Credentials, Source};
use tokio_util::sync::CancellationToken;

#[path = "../tests/mcp/scripted.rs"]
mod scripted;

#[tokio::main]
async fn main() -> Result<(), mcp::McpError> {
    let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    let credentials = Credentials::LocalPeer {
        uid: 0,
        pid: 0,
        roots: vec![],
    };
    serve(
        stream,
        Arc::new(scripted::ScriptedRoad::healthy()),
        Peer {
            credentials,
            source: Source::LOCAL,
            is_person: false,
        },
        CancellationToken::new(),
    )
    .await
}
