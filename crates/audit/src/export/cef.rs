//! ArcSight's Common Event Format, version 0 (*Micro Focus Security ArcSight Common Event Format*, "CEF Implementation
//! Standard" 26): `CEF:0|vendor|product|version|id|name|severity|key=value …`.
//!
//! A pipe and a backslash are escaped in the head, an equals sign and a backslash in values, line ends are spelled out.
//! The log's own texts hold no control characters, and what is spelled out there stays so.

use std::fmt::Write;

use serde_json::Value;

use super::{Told, ocsf::Severity};

const VENDOR: &str = "claude-code-mcp";
const PRODUCT: &str = "Claude Code Container MCP Server";
/// Longest value of a custom text, bytes (the standard's own bound for `cs1` and its kind is 4,000 characters).
const MAX_VALUE_BYTES: usize = 4_000;

/// The record as one line.
pub(super) fn line(record: &Told, host: &str) -> String {
    let mut line = format!(
        "CEF:0|{VENDOR}|{PRODUCT}|{}|{}|{}|{}|",
        env!("CARGO_PKG_VERSION"),
        head(&record.action),
        head(&format!("{} {}", record.action, record.result)),
        severity(Severity::of(record)),
    );
    for (at, (key, value)) in extension(record, host).into_iter().enumerate() {
        let space = if at == 0 { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(line, "{space}{key}={}", escaped(&value));
    }
    line
}

/// In the order of the standard's dictionary: when, what, who, from where, how it ended, and our own.
fn extension(record: &Told, host: &str) -> Vec<(&'static str, String)> {
    let mut pairs = vec![
        ("rt", record.timestamp.as_millisecond().to_string()),
        ("externalId", record.seq.to_string()),
        ("dvchost", host.to_owned()),
        ("act", record.action.clone()),
        ("outcome", record.result.clone()),
        ("cat", phase(record).to_owned()),
        ("suid", record.actor.hash.clone()),
    ];
    let mut add = |key, value: Option<String>| {
        pairs.extend(
            value
                .filter(|value| !value.is_empty())
                .map(|value| (key, value)),
        );
    };
    add("suser", record.actor.id.clone());
    add("reason", record.reason.clone());
    let client = format!("{} {}", record.client.name, record.client.version);
    add("requestClientApplication", Some(client.trim().to_owned()));
    add(
        "src",
        record
            .source
            .as_ref()
            .and_then(|source| source.address.clone()),
    );
    add("dhost", record.word("host").map(str::to_owned));
    add("dpt", record.number("port").map(|port| port.to_string()));
    add(
        "out",
        record.number("bytes_up").map(|bytes| bytes.to_string()),
    );
    add(
        "in",
        record.number("bytes_down").map(|bytes| bytes.to_string()),
    );
    add(
        "cs1Label",
        record.session_id.as_ref().map(|_| "session".to_owned()),
    );
    add("cs1", record.session_id.clone());
    add(
        "cs2Label",
        record.op.as_ref().map(|_| "operation".to_owned()),
    );
    add("cs2", record.op.clone());
    add(
        "cs3Label",
        record.source.as_ref().map(|_| "transport".to_owned()),
    );
    add(
        "cs3",
        record
            .source
            .as_ref()
            .map(|source| source.transport.clone()),
    );
    add("cs4Label", Some("hash".to_owned()));
    add("cs4", Some(record.hash.clone()));
    add(
        "cs5Label",
        (!record.parameters.is_empty()).then(|| "parameters".to_owned()),
    );
    add("cs5", parameters(record));
    add(
        "cn1Label",
        record.duration_ms.map(|_| "durationMs".to_owned()),
    );
    add(
        "cn1",
        record
            .duration_ms
            .map(|milliseconds| milliseconds.to_string()),
    );
    pairs
}

const fn phase(record: &Told) -> &'static str {
    match record.phase {
        crate::Phase::Intent => "intent",
        crate::Phase::Result => "result",
        crate::Phase::Event => "event",
    }
}

fn parameters(record: &Told) -> Option<String> {
    let text = serde_json::to_string(&record.parameters).ok()?;
    let is_empty = record.parameters.values().all(Value::is_null);
    (!is_empty).then_some(text)
}

/// 0 to 10 in the standard; 0–3 is low, 4–6 medium, 7–8 high.
const fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Informational => 1,
        Severity::Low => 3,
        Severity::Medium => 5,
        Severity::High => 8,
    }
}

fn head(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '|' => out.extend(['\\', character]),
            // A head has no spelling for a line end.
            '\n' | '\r' => out.push(' '),
            _ => out.push(character),
        }
    }
    out
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let before = out.len();
        match character {
            '\\' | '=' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            _ => out.push(character),
        }
        if out.len() > MAX_VALUE_BYTES {
            out.truncate(before);
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_and_a_value_are_escaped_by_their_own_rules() {
        assert_eq!(head("a|b\\c=d\ne\r"), "a\\|b\\\\c=d e ");
        assert_eq!(escaped("a|b\\c=d\ne\rf"), "a|b\\\\c\\=d\\ne\\rf");
        assert_eq!(escaped(&"é".repeat(3_000)).len(), MAX_VALUE_BYTES);
        // No escape is cut in two.
        let cut = escaped(&"=".repeat(3_999));
        assert!(cut.len() == MAX_VALUE_BYTES && cut.ends_with("\\="));
    }
}
