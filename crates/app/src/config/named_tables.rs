//! A key that is a table of tables, each under a name of its own.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use toml::Value;

use super::{
    ConfigError, Environment,
    layers::{Given, Origin},
};

/// Longest name, bytes: files and messages have it in theirs.
pub(super) const MAX_NAME_BYTES: usize = 32;

/// How a key says what is wrong with one of its tables: the table's name, where the key is written, and why.
type Wrong = fn(String, Origin, String) -> ConfigError;

/// Reads each table as a `T`, and `one` makes of that what it stands for.
///
/// # Errors
/// For more than `most` of them, a name that is none, and whatever in one is not what it must be.
pub(super) fn read<T: DeserializeOwned, S>(
    given: &Given,
    most: usize,
    wrong: Wrong,
    one: impl Fn(&str, T) -> Result<S, String>,
) -> Result<Vec<S>, ConfigError> {
    let wrong = |name: &str, why: String| {
        let name = name.chars().take(MAX_NAME_BYTES).collect();
        wrong(name, given.origin.clone(), why)
    };
    let Value::Table(tables) = &given.value else {
        return Err(wrong("", "the key must be a table of tables".to_owned()));
    };
    if tables.len() > most {
        return Err(wrong("", format!("there may be {most}")));
    }
    tables
        .iter()
        .map(|(name, value)| {
            let table = value
                .clone()
                .try_into()
                .map_err(|error: toml::de::Error| wrong(name, error.message().to_owned()))?;
            check_name(name)
                .and_then(|()| one(name, table))
                .map_err(|why| wrong(name, why))
        })
        .collect()
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(fits) {
        return Err(format!(
            "a name has 1 to {MAX_NAME_BYTES} small letters, digits and hyphens"
        ));
    }
    Ok(())
}

/// A path that is absolute, or begins with `~/`.
pub(super) fn absolute(
    text: &str,
    key: &str,
    environment: &Environment,
) -> Result<PathBuf, String> {
    let path = match text.strip_prefix("~/").zip(environment.home()) {
        Some((rest, home)) => home.join(rest),
        None => PathBuf::from(text),
    };
    match path.is_absolute() {
        true => Ok(path),
        false => Err(format!(
            "`{key}` must be an absolute path, or begin with ~/"
        )),
    }
}
