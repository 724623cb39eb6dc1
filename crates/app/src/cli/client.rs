//! The command line as an MCP client: it calls the tools that every other client calls, over the same socket.

use std::path::PathBuf;

use mcp::reply::ErrorReply;
use rmcp::{
    RoleClient,
    model::{CallToolRequestParams, ClientCapabilities, ClientConfig, Implementation, JsonObject},
    service::{RunningService, serve_client},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{CliError, Context, context::VERSION};
use crate::server::handshake::Mode;

/// A conversation with the server.
pub struct Client(RunningService<RoleClient, ClientConfig>);

impl Client {
    /// Connects and opens the conversation.
    pub async fn connect(context: &Context, named: Vec<PathBuf>) -> Result<Self, CliError> {
        let stream = context.connect(Mode::Person, named)?.stream;
        stream.set_nonblocking(true).map_err(CliError::Runtime)?;
        let stream = tokio::net::UnixStream::from_std(stream).map_err(CliError::Runtime)?;
        Self::open(stream, "claude-code-mcp session").await
    }

    /// Opens the conversation on any connection to a server.
    pub async fn open<S>(stream: S, name: &str) -> Result<Self, CliError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let info = Implementation::new(name, VERSION);
        let config = ClientConfig::new(ClientCapabilities::default(), info);
        let running = serve_client(config, stream)
            .await
            .map_err(|error| CliError::Conversation(anyhow::Error::new(error)))?;
        Ok(Client(running))
    }

    /// Calls a tool and gives its structured result as it came.
    pub async fn call(&self, tool: &'static str, arguments: Value) -> Result<Value, CliError> {
        let Value::Object(arguments) = arguments else {
            return Err(CliError::Conversation(anyhow::anyhow!(
                "arguments of {tool} are not an object"
            )));
        };
        let arguments: JsonObject = arguments
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .collect();
        let request = CallToolRequestParams::new(tool).with_arguments(arguments);
        let result = self
            .0
            .call_tool(request)
            .await
            .map_err(|error| CliError::Conversation(anyhow::Error::new(error)))?;
        let content = result.structured_content.unwrap_or_default();
        if result.is_error == Some(true) {
            return Err(CliError::Refused(read::<ErrorReply>(tool, content)?.error));
        }
        Ok(content)
    }

    /// Calls a tool and reads its result.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        tool: &'static str,
        arguments: Value,
    ) -> Result<T, CliError> {
        read(tool, self.call(tool, arguments).await?)
    }
}

/// Reads a structured result.
pub fn read<T: DeserializeOwned>(tool: &str, content: Value) -> Result<T, CliError> {
    let context = format!("the reply of {tool} is not understood");
    serde_json::from_value(content)
        .map_err(|error| CliError::Conversation(anyhow::Error::new(error).context(context)))
}
