//! Placeholders in a script's strings.

use serde_json::Value;

use crate::request::Request;

/// What `{{memory:MARK}}` becomes where no earlier prompt has the mark.
pub(crate) const NOTHING: &str = "nothing";

/// The text with every placeholder replaced by what the request says.
pub(crate) fn fill(text: &str, request: &Request) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, name, after)) = next(rest) {
        filled.push_str(before);
        filled.push_str(&value(name, request).unwrap_or_default());
        rest = after;
    }
    filled + rest
}

/// The same in every string of a value.
pub(crate) fn fill_value(value: &Value, request: &Request) -> Value {
    match value {
        Value::String(text) => Value::String(fill(text, request)),
        Value::Array(items) => items.iter().map(|item| fill_value(item, request)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| (name.clone(), fill_value(field, request)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Whether all placeholders exist.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let mut rest = text;
    while let Some((_, name, after)) = next(rest) {
        if value(name, &Request::default()).is_none() {
            return Err(format!(
                "the placeholder {{{{{name}}}}} does not exist; there are cwd, prompt, prompt:MARK, memory:MARK, result, word:PREFIX"
            ));
        }
        rest = after;
    }
    Ok(())
}

/// The same for every string of a value.
pub(crate) fn check_value(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) => check(text),
        Value::Array(items) => items.iter().try_for_each(check_value),
        Value::Object(fields) => fields.values().try_for_each(check_value),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn next(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("{{")?;
    let (name, after) = rest.split_once("}}")?;
    Some((before, name, after))
}

fn value(name: &str, request: &Request) -> Option<String> {
    let prompt = request.prompt();
    if let Some(mark) = name.strip_prefix("prompt:") {
        return Some(after_mark(prompt, mark).unwrap_or_default().to_owned());
    }
    if let Some(mark) = name.strip_prefix("memory:") {
        let mut earlier = request.earlier_prompts().iter().rev();
        let found = earlier.find_map(|prompt| after_mark(prompt, mark));
        return Some(found.unwrap_or(NOTHING).to_owned());
    }
    if let Some(prefix) = name.strip_prefix("word:") {
        let mut results = request.results.iter().rev();
        let found = results.find_map(|result| word(result, prefix));
        return Some(found.unwrap_or_default().to_owned());
    }
    match name {
        "cwd" => Some(request.working_directory.clone()),
        "prompt" => Some(prompt.to_owned()),
        "result" => Some(request.results.last().cloned().unwrap_or_default()),
        _ => None,
    }
}

/// The first word that begins so and goes on: letters, digits and hyphens.
fn word<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let mut words = words.filter(|word| word.len() > prefix.len());
    words.find(|word| word.starts_with(prefix))
}

/// The rest of the line after the mark.
fn after_mark<'t>(text: &'t str, mark: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(mark)?;
    Some(rest.lines().next().unwrap_or_default().trim())
}
