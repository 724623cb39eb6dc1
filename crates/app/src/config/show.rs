//! What is configured, and where it comes from, without what is secret.

use policy::Policy;
use serde::Serialize;
use serde_json::json;
use toml::Value;

use super::{Config, KEYS, Key, Kind, Place, inspect::place, keys, resolve::LIMITS};

/// What stands where a secret is.
const SECRET: &str = "[secret]";
/// How keys end whose value is a secret itself. Those of today name files and commands; one that comes is hidden from the start.
const SECRET_ENDINGS: [&str; 4] = ["_secret", "_password", "_token", "_api_key"];

/// A key's value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// The key.
    pub key: &'static str,
    /// Its value; `null` where it has none.
    pub value: serde_json::Value,
    /// The value as the file would say it, or in words.
    #[serde(skip)]
    pub text: String,
    /// Where it is written; `null` for a default.
    pub place: Option<Place>,
    /// Something of it is not shown.
    pub redacted: bool,
    /// When another value counts.
    pub applies: &'static str,
}

/// Every key, in the order of the reference page.
pub fn shown(config: &Config) -> Vec<Shown> {
    KEYS.iter().map(|key| one(key, config)).collect()
}

/// A value without what is secret in it, and whether that is less than the value.
pub(super) fn redacted(key: &Key, value: &Value) -> (Value, bool) {
    let shown = without_secrets(key.name, value);
    let is_less = shown != *value;
    (shown, is_less)
}

fn one(key: &'static Key, config: &Config) -> Shown {
    let given = config.layers.get(key);
    let (value, text, redacted) = match given {
        Some(given) => {
            let (value, is_less) = redacted(key, &given.value);
            (json_of(&value), value.to_string(), is_less)
        }
        None => {
            let (value, text) = default_of(key, config);
            (value, text, false)
        }
    };
    Shown {
        key: key.name,
        value,
        text,
        place: given.map(|given| place(&given.origin)),
        redacted,
        applies: key.applies().as_str(),
    }
}

/// The value that counts where nothing is written, and its text.
fn default_of(key: &Key, config: &Config) -> (serde_json::Value, String) {
    let path = |path: &std::path::Path| {
        let text = path.display().to_string();
        (json!(text), text)
    };
    if key.name == keys::STATE_DIR.name {
        return path(&config.paths.state_dir);
    }
    if key.name == keys::AUDIT_LOG.name {
        return path(&config.audit_log);
    }
    if key.name == keys::MAX_EXECUTION_TIMEOUT.name {
        let seconds = config.max_execution_timeout.as_secs();
        return (json!(seconds), seconds.to_string());
    }
    if let Some((_, limit)) = LIMITS.iter().find(|(of, _)| of.name == key.name)
        && let Ok(limits) = Policy::default_limits()
    {
        let value = limits.get(*limit).value;
        if matches!(key.kind, Kind::Cpus { .. }) {
            let cpus = format!("{}.{:03}", value / 1000, value % 1000);
            let cpus = cpus.trim_end_matches('0').trim_end_matches('.').to_owned();
            let number = cpus.parse::<f64>();
            return (number.map_or(json!(cpus), |cpus| json!(cpus)), cpus);
        }
        return (json!(value), value.to_string());
    }
    match key.default.parse::<Value>() {
        Ok(value) => (json_of(&value), key.default.to_owned()),
        Err(_) => (serde_json::Value::Null, key.default.replace('`', "")),
    }
}

fn json_of(value: &Value) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// By the name under which a value stands: of a command everything but its program, of an address who asks and what for.
fn without_secrets(name: &str, value: &Value) -> Value {
    let last = name.rsplit('.').next().unwrap_or(name);
    if SECRET_ENDINGS.iter().any(|ending| last.ends_with(ending)) {
        return Value::String(SECRET.to_owned());
    }
    match value {
        Value::Array(words) if last == "command" || last.ends_with("_command") => {
            let hidden = words
                .iter()
                .skip(1)
                .map(|_| Value::String(SECRET.to_owned()));
            Value::Array(words.iter().take(1).cloned().chain(hidden).collect())
        }
        Value::Array(entries) => {
            let shown = entries.iter().map(|entry| without_secrets(name, entry));
            Value::Array(shown.collect())
        }
        Value::Table(table) => {
            let shown = table
                .iter()
                .map(|(inner, value)| (inner.clone(), without_secrets(inner, value)));
            Value::Table(shown.collect())
        }
        Value::String(text) => Value::String(address(text)),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {
            value.clone()
        }
    }
}

/// An address without user, password and query; any other text as it is.
fn address(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{SECRET}@{host}"),
        None => authority.to_owned(),
    };
    let path = match path.split_once(['?', '#']) {
        Some((path, _)) => format!("{path}?{SECRET}"),
        None => path.to_owned(),
    };
    format!("{scheme}://{authority}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown_and_everything_else_is() {
        let table: toml::Table = r#"
            auth_token_command = ["print", "canary"]
            webhook_secret = "canary"
            address = "https://me:canary@host.example:8443/path?key=canary"
            plain = "https://host.example/path"
            rules = ["a.example", "b.example:80"]
            credentials = { hub = { command = ["/bin/print", "-n", "canary"], destinations = ["hub.example"] } }
            session_max_tokens = 5
            auth_token_file = "/srv/token"
        "#
        .parse()
        .unwrap();
        let shown = |name: &str| without_secrets(name, &table[name]).to_string();
        for name in table.keys() {
            assert!(!shown(name).contains("canary"), "{}", shown(name));
        }
        assert_eq!(shown("auth_token_command"), r#"["print", "[secret]"]"#);
        assert!(shown("address").contains("[secret]@host.example:8443/path?[secret]"));
        assert!(shown("credentials").contains("hub.example"));
        for name in ["plain", "rules", "session_max_tokens", "auth_token_file"] {
            assert_eq!(shown(name), table[name].to_string());
        }
    }
}
