//! One record on a line, for people and for programs.

use audit::{
    Phase,
    export::{Line, Told},
};
use serde_json::Value;

use super::{
    CliError, Context,
    safe::{printable, printable_json},
};

/// Digits of a session that people are shown.
const SESSION_DIGITS: usize = 14;

/// With `--json` the line of the log itself.
pub(super) fn print(context: &Context, line: &Line) -> Result<(), CliError> {
    context.output.line(&match context.output.json {
        true => printable_json(&line.text),
        false => printable(&sentence(&line.record)),
    })
}

fn sentence(record: &Told) -> String {
    let session = record.session_id.as_deref().unwrap_or("-");
    let session = session.get(..SESSION_DIGITS).unwrap_or(session);
    let reason = record.reason.as_deref();
    let reason = reason
        .map(|reason| format!(" ({reason})"))
        .unwrap_or_default();
    format!(
        "{}  {:<6}  {:<18}  {session:<14}  {:<9}  {}{reason}{}",
        record.timestamp.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"),
        phase(record.phase),
        record.action,
        actor(record),
        record.result,
        details(record)
    )
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Intent => "intent",
        Phase::Result => "result",
        Phase::Event => "event",
    }
}

/// By name, else by the beginning of its tag.
fn actor(record: &Told) -> String {
    match &record.actor.id {
        Some(name) => name.clone(),
        None => {
            let (_, digits) = record
                .actor
                .hash
                .split_once(':')
                .unwrap_or(("", &record.actor.hash));
            format!("#{}", digits.get(..8).unwrap_or(digits))
        }
    }
}

/// What is known of it, `name=value`; a digest by its beginning.
fn details(record: &Told) -> String {
    let address = record
        .source
        .as_ref()
        .and_then(|source| source.address.as_ref());
    let from = address.map(|address| format!("  from={address}"));
    let parameters = record
        .parameters
        .iter()
        .map(|(name, value)| one(name, value));
    from.into_iter().chain(parameters).collect()
}

fn one(name: &str, value: &Value) -> String {
    match value {
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
    }
}
