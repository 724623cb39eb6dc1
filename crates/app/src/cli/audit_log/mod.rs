//! `audit …`: on the log's own files, no server needed.

mod export;
mod hash;
mod key;
mod safe;
mod search;
mod show;
mod tail;
mod verify;

use std::{
    io,
    path::{Path, PathBuf},
};

use audit::export::{Filter, Line, Pattern, Reader};

use super::{
    CliError, Context,
    arguments::{self, AuditCommand, FilterArguments},
    output::note,
};

/// See [`model::SessionId`].
const SESSION_ID_PREFIX: &str = "s-";

pub(super) fn run(context: &Context, command: &AuditCommand) -> Result<u8, CliError> {
    match command {
        AuditCommand::Verify {
            path,
            key,
            public_key,
            anchor,
            from,
        } => verify::run(
            context,
            &log(context, path.as_ref())?,
            &verify::Against {
                key: key.as_deref(),
                public_key: public_key.as_deref(),
                anchors: anchor,
                from: *from,
            },
        ),
        AuditCommand::Key(command) => key::run(context, command),
        AuditCommand::Tail(arguments) => tail::run(context, arguments),
        AuditCommand::Search(arguments) => search::run(context, arguments),
        AuditCommand::Export(arguments) => export::run(context, arguments),
        AuditCommand::Hash { identity } => hash::run(context, identity),
    }
}

/// The log that is meant. Where there is none, each command says so alike: each would fail at another step.
fn log(context: &Context, named: Option<&PathBuf>) -> Result<PathBuf, CliError> {
    let path = named.unwrap_or(&context.config.audit_log).clone();
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CliError::NoAuditLog { path }),
        // What else is wrong with it is told by what reads it.
        Ok(_) | Err(_) => Ok(path),
    }
}

fn failed(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    CliError::Audit {
        path: path.to_path_buf(),
        source: anyhow::Error::new(error),
    }
}

/// What is asked for, in the log's words.
fn filter(context: &Context, arguments: &FilterArguments) -> Result<Filter, CliError> {
    let actors = match &arguments.actor {
        Some(named) => hash::actors(context, named)?,
        None => Vec::new(),
    };
    Ok(Filter {
        session: arguments.session.as_deref().map(as_session_id),
        actors,
        action: arguments.action.as_deref().map(Pattern::new),
        result: arguments.result.clone(),
        operation: arguments.operation.clone(),
        since: arguments.since,
        until: arguments.until,
        text: arguments.text.clone(),
    })
}

/// The beginning of an id, with what every one of them begins with: people read the four digits after it.
fn as_session_id(named: &str) -> String {
    match named.starts_with(SESSION_ID_PREFIX) {
        true => named.to_owned(),
        false => format!("{SESSION_ID_PREFIX}{named}"),
    }
}

/// The records that fit, oldest first, one at a time. Lines that are no records are told and passed over.
fn records<'a>(
    path: &'a Path,
    filter: &'a Filter,
) -> Result<impl Iterator<Item = Result<Line, CliError>> + 'a, CliError> {
    let reader = Reader::open(path).map_err(|error| failed(path, error))?;
    Ok(reader.filter_map(move |line| match line {
        Ok(line) => filter.takes(&line).then_some(Ok(line)),
        Err(audit::ReadError::NotARecord { line }) => {
            note(&format!(
                "line {line} is no record; claude-code-mcp audit verify says more"
            ));
            None
        }
        Err(error) => Some(Err(failed(path, error))),
    }))
}
