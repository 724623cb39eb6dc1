//! The form of the configuration file as a JSON Schema (2020-12), made from the table of keys.
//!
//! It tells what a value may be by itself. What two keys say together, and what a path leads to, only the program judges.

use serde_json::{Map, Value, json};

use super::{KEYS, Key, Kind, audit_sinks, credentials, keys, named_tables};

/// Text without control characters, as the program reads it.
const NO_CONTROL: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";
/// An absolute path, or one below the home.
const PATH: &str = "^(/|~$|~/)";

/// The schema of the whole file.
pub fn schema() -> Value {
    let mut properties = Map::new();
    for key in KEYS {
        match key.name.split_once('.') {
            None => {
                properties.insert(key.name.to_owned(), entry(key));
            }
            Some((table, name)) => {
                let inner = properties
                    .entry(table)
                    .or_insert_with(|| object(Map::new()));
                inner["properties"][name] = entry(key);
            }
        }
    }
    let mut schema = object(properties);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Configuration of claude-code-mcp");
    schema
}

/// A table with these keys and no others.
fn object(properties: Map<String, Value>) -> Value {
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn entry(key: &Key) -> Value {
    let mut entry = match key.name {
        name if name == keys::CREDENTIALS.name => credentials_table(),
        name if name == keys::AUDIT_SINKS.name => sinks_table(),
        _ => of_kind(key.kind),
    };
    entry["description"] = json!(key.documentation);
    if let Ok(default) = key.default.parse::<toml::Value>() {
        entry["default"] = serde_json::to_value(default).unwrap_or_default();
    }
    entry
}

fn of_kind(kind: Kind) -> Value {
    let list = |items: Value| json!({ "type": "array", "items": items });
    match kind {
        Kind::Path => json!({ "type": "string", "pattern": PATH }),
        Kind::PathList => list(json!({ "type": "string", "pattern": PATH })),
        Kind::Seconds { min, max } => or_text(
            json!({ "type": "integer", "minimum": min, "maximum": max }),
            r"^\s*[0-9]+(\.[0-9]{1,3})?[smhd]?\s*$",
        ),
        Kind::Count { min, max } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        Kind::Bytes { min, max } => or_text(
            json!({ "type": "integer", "minimum": min, "maximum": max }),
            r"^\s*[0-9]+(\.[0-9]{1,3})?([bB]|[kKmMgGtT]([iI]?[bB])?)?\s*$",
        ),
        Kind::Cpus { min, max } => or_text(
            json!({ "type": "number", "minimum": of_parts(min, 1_000), "maximum": of_parts(max, 1_000) }),
            r"^\s*[0-9]+(\.[0-9]{1,3})?\s*$",
        ),
        Kind::Dollars { min, max } => or_text(
            json!({ "type": "number", "minimum": of_parts(min, 1_000_000), "maximum": of_parts(max, 1_000_000) }),
            r"^\s*[0-9]+(\.[0-9]{1,6})?\s*$",
        ),
        Kind::Switch => json!({ "type": "boolean" }),
        // Lengths count bytes, and the schema characters: what it allows may still be too long.
        Kind::Words { max } => list(
            json!({ "type": "string", "minLength": 1, "maxLength": max, "pattern": NO_CONTROL }),
        ),
        Kind::Rules => list(json!({ "type": "string", "minLength": 1 })),
        Kind::Text { max } => {
            json!({ "type": "string", "minLength": 1, "maxLength": max, "pattern": NO_CONTROL })
        }
        Kind::Tables => {
            json!({ "type": "object", "additionalProperties": { "type": "object" } })
        }
        Kind::Choice(words) => json!({ "enum": words }),
    }
}

fn or_text(number: Value, pattern: &str) -> Value {
    json!({ "anyOf": [number, { "type": "string", "pattern": pattern }] })
}

/// A bound that is kept in whole parts, as the file says it.
fn of_parts(bound: u64, parts: u32) -> Value {
    match bound % u64::from(parts) {
        0 => json!(bound / u64::from(parts)),
        // Bounds of parts are small: they stand in the table of keys.
        rest => json!((bound / u64::from(parts)) as f64 + rest as f64 / f64::from(parts)),
    }
}

fn credentials_table() -> Value {
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    let mut one = object(Map::from_iter([
        (
            "file".to_owned(),
            json!({ "type": "string", "pattern": PATH }),
        ),
        (
            "command".to_owned(),
            json!({ "type": "array", "minItems": 1, "items": { "type": "string" } }),
        ),
        ("destinations".to_owned(), texts()),
        ("header".to_owned(), json!({ "type": "string" })),
        ("variables".to_owned(), texts()),
        ("git_user".to_owned(), json!({ "type": "string" })),
        ("always".to_owned(), json!({ "type": "boolean" })),
    ]));
    one["not"] = json!({ "required": ["file", "command"] });
    named(credentials::MAX_CREDENTIALS, &one)
}

fn sinks_table() -> Value {
    let path = || json!({ "type": "string", "pattern": PATH });
    let text = || json!({ "type": "string" });
    let mut one = object(Map::from_iter([
        ("kind".to_owned(), json!({ "enum": audit_sinks::KINDS })),
        ("format".to_owned(), json!({ "enum": audit_sinks::FORMATS })),
        (
            "max_lag".to_owned(),
            json!({ "type": "integer", "minimum": 1 }),
        ),
        ("address".to_owned(), text()),
        ("facility".to_owned(), text()),
        ("url".to_owned(), text()),
        ("secret_file".to_owned(), path()),
        ("ca_file".to_owned(), path()),
        ("path".to_owned(), path()),
    ]));
    one["required"] = json!(["kind"]);
    named(audit_sinks::MAX_SINKS, &one)
}

/// A table of at most so many tables, each under a name.
fn named(most: usize, one: &Value) -> Value {
    json!({
        "type": "object",
        "maxProperties": most,
        "propertyNames": { "pattern": "^[a-z0-9-]+$", "maxLength": named_tables::MAX_NAME_BYTES },
        "additionalProperties": one,
    })
}
