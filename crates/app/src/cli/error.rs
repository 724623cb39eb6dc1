//! What goes wrong on the command line, and the exit code that says so.

use std::{io, path::PathBuf};

use mcp::reply::ErrorBody;
use model::Reason;

use super::compose::ComposeError;
use crate::{
    config::{ConfigError, PathsError},
    front::{CopyError, FrontError},
    server::{ElectionError, ServerError},
    stream::FrameError,
};

/// Done.
pub const EXIT_OK: u8 = 0;
/// Refused, not found, or something is wrong.
pub const EXIT_REFUSED: u8 = 1;
/// The command line or the configuration is wrong.
pub const EXIT_USAGE: u8 = 2;
/// A prompt ended because the model provider refused or failed.
pub const EXIT_PROVIDER_ERROR: u8 = 3;
/// A prompt ended because the model declined.
pub const EXIT_MODEL_REFUSED: u8 = 4;
/// A prompt ended at its limit of requests to the model.
pub const EXIT_TURN_LIMIT: u8 = 5;
/// A prompt ended at its limit of cost.
pub const EXIT_BUDGET_LIMIT: u8 = 6;
/// A prompt was ended because nothing came from the model for too long.
pub const EXIT_STALLED: u8 = 7;
/// A prompt failed: Claude Code could not be started, or ended.
pub const EXIT_AGENT_ENDED: u8 = 125;
/// A command was ended by its time limit, as with timeout(1).
pub const EXIT_TIMED_OUT: u8 = 124;
/// A command could not be run, or its end is not known, as with `docker run`.
pub const EXIT_NOT_RUN: u8 = 125;
/// Added to the number of the signal that ended a command, as in every shell.
pub const EXIT_SIGNAL_BASE: u8 = 128;

/// Why a command of the command line failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is not accepted.
    #[error("the configuration is not accepted")]
    Config(#[from] ConfigError),
    /// An argument that clap cannot judge.
    #[error("{0}")]
    Usage(String),
    /// The running server does not end.
    #[error("{0}")]
    StillRuns(String),
    /// The server refused the call.
    #[error("{}: {}", .0.code, .0.message)]
    Refused(ErrorBody),
    /// A command could not be run, or its end is not known.
    #[error("the command was not run to its end")]
    NotRun(#[source] Box<CliError>),
    /// No connection to the server.
    #[error("no connection to the server")]
    Front(#[from] FrontError),
    /// Copying between client and server ended early.
    #[error("the connection ended early")]
    Copy(#[from] CopyError),
    /// The stream of an execution ended early.
    #[error("the connection to the execution ended early")]
    Stream(#[source] FrameError),
    /// MCP between this program and the server failed.
    #[error("the conversation with the server failed")]
    Conversation(#[source] anyhow::Error),
    /// This process does not become the server.
    #[error("this process does not become the server")]
    Election(#[from] ElectionError),
    /// The server failed.
    #[error("the server failed")]
    Server(#[from] ServerError),
    /// The house could not be built.
    #[error("the server cannot start")]
    Build(#[source] anyhow::Error),
    /// A directory is not private.
    #[error("a directory cannot be used")]
    Paths(#[from] PathsError),
    /// A file of the host.
    #[error("cannot use {path}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The terminal or a standard stream.
    #[error("the terminal or a standard stream failed")]
    Terminal(#[source] io::Error),
    /// The runtime could not be made.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// There is no audit log.
    #[error("there is no audit log at {path} yet", path = path.display())]
    NoAuditLog {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The audit log cannot be read or does not hold.
    #[error("the audit log {path}", path = path.display())]
    Audit {
        /// Which log.
        path: PathBuf,
        /// Why.
        #[source]
        source: anyhow::Error,
    },
    /// A Compose file that cannot be judged.
    #[error("cannot judge {path}", path = path.display())]
    Compose {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ComposeError,
    },
}

impl CliError {
    /// The exit code that tells it to scripts.
    pub fn exit_code(&self) -> u8 {
        match self {
            // What clap would have refused had it known the server's bounds.
            CliError::Refused(body) if body.code == Reason::InvalidArgument.code() => EXIT_USAGE,
            CliError::Config(_) | CliError::Usage(_) | CliError::Compose { .. } => EXIT_USAGE,
            CliError::NotRun(_) => EXIT_NOT_RUN,
            CliError::Refused(_)
            | CliError::StillRuns(_)
            | CliError::Front(_)
            | CliError::Copy(_)
            | CliError::Stream(_)
            | CliError::Conversation(_)
            | CliError::Election(_)
            | CliError::Server(_)
            | CliError::Build(_)
            | CliError::Paths(_)
            | CliError::File { .. }
            | CliError::Terminal(_)
            | CliError::Runtime(_)
            | CliError::NoAuditLog { .. }
            | CliError::Audit { .. } => EXIT_REFUSED,
        }
    }

    /// A command could not be run because of this.
    pub fn of_a_run(self) -> CliError {
        if matches!(
            self,
            CliError::Usage(_) | CliError::Config(_) | CliError::NotRun(_)
        ) {
            return self;
        }
        CliError::NotRun(Box::new(self))
    }

    /// What to do next, where the server said it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            CliError::Refused(body) => Some(&body.hint),
            CliError::NotRun(inner) => inner.hint(),
            CliError::NoAuditLog { .. } => Some(
                "The first server that starts makes it (claude-code-mcp session list starts one). It stands where audit_log of the \
                 configuration says, else in the state directory (--state-dir); a PATH names the log's newest file.",
            ),
            CliError::Config(_)
            | CliError::Usage(_)
            | CliError::StillRuns(_)
            | CliError::Front(_)
            | CliError::Copy(_)
            | CliError::Stream(_)
            | CliError::Conversation(_)
            | CliError::Election(_)
            | CliError::Server(_)
            | CliError::Build(_)
            | CliError::Paths(_)
            | CliError::File { .. }
            | CliError::Terminal(_)
            | CliError::Runtime(_)
            | CliError::Compose { .. }
            | CliError::Audit { .. } => None,
        }
    }

    /// The error and its causes in one line.
    pub fn chain(&self) -> String {
        let mut chain = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
            source = cause.source();
        }
        chain
    }
}
