//! `audit …`: on the log's own files, no server needed.

mod key;
mod verify;

use std::{collections::VecDeque, path::Path};

use super::{CliError, Context, EXIT_OK, arguments::AuditCommand, output::note};

/// Records that `audit show` keeps for `--tail`; more would not be read by anybody.
const MAX_TAIL: usize = 1_000_000;

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
            path.as_deref().unwrap_or(&context.config.audit_log),
            &verify::Against {
                key: key.as_deref(),
                public_key: public_key.as_deref(),
                anchors: anchor,
                from: *from,
            },
        ),
        AuditCommand::Key(command) => key::run(context, command),
        AuditCommand::Show { path, tail } => show(
            context,
            path.as_deref().unwrap_or(&context.config.audit_log),
            *tail,
        ),
    }
}

fn failed(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    CliError::Audit {
        path: path.to_path_buf(),
        source: anyhow::Error::new(error),
    }
}

fn show(context: &Context, path: &Path, tail: Option<usize>) -> Result<u8, CliError> {
    let records = audit::read(path).map_err(|error| failed(path, error))?;
    let keep = tail.map(|count| count.min(MAX_TAIL));
    let mut last = VecDeque::new();
    for record in records {
        let record = match record {
            Ok(record) => serde_json::to_value(&record).map_err(|error| failed(path, error))?,
            Err(audit::ReadError::NotARecord { line }) => {
                note(&format!(
                    "line {line} is no record; claude-code-mcp audit verify says more"
                ));
                continue;
            }
            Err(error) => return Err(failed(path, error)),
        };
        match keep {
            None => print(context, &record)?,
            Some(count) => {
                last.push_back(record);
                if last.len() > count {
                    last.pop_front();
                }
            }
        }
    }
    last.iter().try_for_each(|record| print(context, record))?;
    Ok(EXIT_OK)
}

/// With `--json` one record per line, as in the file.
fn print(context: &Context, record: &serde_json::Value) -> Result<(), CliError> {
    if context.output.json {
        return context.output.json_line(record);
    }
    let text = |field: &str| match record.get(field) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    let session = text("session_id");
    let session = session.get(..14).unwrap_or(&session);
    let (timestamp, phase, action) = (text("timestamp"), text("phase"), text("action"));
    let (result, reason) = (text("result"), text("reason"));
    let reason = if reason == "-" {
        String::new()
    } else {
        format!(" ({reason})")
    };
    context.output.line(&format!(
        "{timestamp}  {phase:<6}  {action:<18}  {session:<14}  {result}{reason}{}",
        details(record)
    ))
}

/// What is known of it, `name=value`; a digest by its beginning.
fn details(record: &serde_json::Value) -> String {
    use serde_json::Value;
    let parameters = record.get("parameters").and_then(Value::as_object);
    let one = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("  {name}={text}"),
        Value::Object(content) => {
            let digest = content.get("sha256").and_then(Value::as_str);
            let digest = digest.and_then(|digest| digest.get(..8)).unwrap_or("?");
            let bytes = content.get("bytes").and_then(Value::as_u64);
            format!(
                "  {name}=sha256:{digest}…({} bytes)",
                bytes.unwrap_or_default()
            )
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            format!("  {name}={value}")
        }
    };
    parameters.into_iter().flatten().map(one).collect()
}
