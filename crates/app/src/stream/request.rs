//! What a stream connection asks for.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use model::{CommandLine, ExecuteCommand, Reason, Refusal, Secret, Terminal};
use serde::{Deserialize, Serialize};

use super::TerminalSize;

/// Longest request line, bytes: arguments and environment, in JSON's escapes. The policy's own bounds are below.
pub const MAX_REQUEST_BYTES: u64 = 4 << 20;

/// The request line. No `Debug`: `env` may hold secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamRequest {
    /// In which session.
    pub session_id: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
    /// Environment beside the session's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Kill it after that long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
    /// Run on a terminal of that size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
    /// The client sends standard input; it is empty otherwise.
    #[serde(default)]
    pub stdin: bool,
}

impl TryFrom<StreamRequest> for ExecuteCommand {
    type Error = Refusal;

    fn try_from(request: StreamRequest) -> Result<Self, Refusal> {
        let session = request
            .session_id
            .parse()
            .map_err(|error: model::IdError| {
                Refusal::new(
                    Reason::InvalidArgument,
                    error.to_string(),
                    "Take the id from the list of sessions.",
                )
                .in_field("sessionId")
            })?;
        if request.argv.is_empty() {
            let hint = "Name the program to run.";
            return Err(
                Refusal::new(Reason::InvalidArgument, "There is no command.", hint)
                    .in_field("argv"),
            );
        }
        Ok(ExecuteCommand {
            session,
            command: CommandLine::Argv(request.argv),
            cwd: request.cwd,
            env: request
                .env
                .into_iter()
                .map(|(name, value)| (name, Secret::new(value)))
                .collect(),
            stdin: (!request.stdin).then(|| Secret::new(Vec::new())),
            keep_stdin_open: request.stdin,
            terminal: request.terminal.map(|size| Terminal {
                rows: size.rows,
                columns: size.columns,
            }),
            timeout: request.timeout_seconds.map(Duration::from_secs),
            wait: Duration::ZERO,
        })
    }
}
