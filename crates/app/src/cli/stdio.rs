//! `claude-code-mcp` without a command: what MCP clients start. Standard output carries MCP and nothing else.

use std::io::IsTerminal;

use super::{CliError, Context, EXIT_OK, EXIT_USAGE, output::note};
use crate::{front::stdio::copy, server::handshake::Mode};

const BY_HAND: &str =
    "this is an MCP server; a client starts it and speaks with it on standard input and output.
  claude mcp add sandbox -- claude-code-mcp     register it with Claude Code
  claude-code-mcp doctor                        what this machine can protect
  claude-code-mcp session create                a session from the command line
  claude-code-mcp --help                        everything else";

/// How the command was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Invocation {
    /// No command was named.
    ByDefault,
    /// `stdio`.
    ByName,
}

pub(super) fn run(context: &Context, invocation: Invocation) -> Result<u8, CliError> {
    if std::io::stdin().is_terminal() && invocation == Invocation::ByDefault {
        note(BY_HAND);
        return Ok(EXIT_USAGE);
    }
    let connected = context.connect(Mode::Mcp, Vec::new())?;
    copy(connected.stream)?;
    Ok(EXIT_OK)
}
