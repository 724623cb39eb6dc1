//! What the server answers.

use std::sync::Arc;

use control::Road;
use model::Credentials;
use rmcp::ServerHandler;
use tokio_util::sync::CancellationToken;

/// The server's name in both openings.
pub const SERVER_NAME: &str = "claude-code-container";

/// What a client's model reads first.
pub const INSTRUCTIONS: &str = "";

pub(crate) struct Service {}

impl Service {
    pub(crate) fn new(
        _road: Arc<dyn Road>,
        _credentials: Credentials,
        _shutdown: CancellationToken,
    ) -> Self {
        Service {}
    }
}

impl ServerHandler for Service {}
