//! Arguments of a call, checked against the very schema that `tools/list` publishes.
//!
//! A mistake is answered with the argument's path and a sentence that says what it takes, and never with its value:
//! that may be a secret, or a megabyte.

use model::{Reason, Refusal};
use serde_json::{Map, Number, Value};

use crate::{schema::Schema, text};

/// Integers up to here have one spelling as a double (2^53): a client that writes `20.0` means 20.
const LARGEST_EXACT_DOUBLE: f64 = 9_007_199_254_740_992.0;

const HINT: &str = "Correct the argument and call the tool again. Nothing was changed.";

/// A refusal for a value that is well-formed but wrong.
pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::InvalidArgument, message, HINT).in_field(field)
}

/// The refusal of an argument of which nobody can say which value counts.
pub(crate) fn given_twice(name: &str) -> Refusal {
    let name = text::name(name);
    let message = format!("`{name}` must be given once, but is given twice.");
    invalid(name, message)
}

/// Checks the arguments of `tool`; whole numbers written with a fraction of zero become integers.
pub(crate) fn check(
    tool: &str,
    schema: &Schema,
    arguments: &mut Map<String, Value>,
) -> Result<(), Refusal> {
    check_object(schema, arguments, "", &format!("an argument of {tool}"))
}

fn check_object(
    schema: &Schema,
    object: &mut Map<String, Value>,
    path: &str,
    role: &str,
) -> Result<(), Refusal> {
    let none = Schema::new();
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&none);
    let required: Vec<&str> = strings(schema, "required");
    for (name, value) in object.iter_mut() {
        let here = join(path, name);
        match (properties.get(name), schema.get("additionalProperties")) {
            (Some(Value::Object(known)), _) => check_value(known, value, &here)?,
            (None, Some(Value::Object(any))) => check_value(any, value, &here)?,
            // Judged by whoever reads it.
            (None, Some(Value::Bool(true))) => {}
            _ => return Err(unknown(&here, name, role, properties, &required)),
        }
    }
    match required.iter().find(|name| !object.contains_key(**name)) {
        None => Ok(()),
        Some(name) => {
            let field = join(path, name);
            let message = format!("`{field}` is missing. {}", takes(properties, &required));
            Err(invalid(field, message))
        }
    }
}

fn check_value(schema: &Schema, value: &mut Value, path: &str) -> Result<(), Refusal> {
    if schema.get("type").and_then(Value::as_str) == Some("integer") {
        write_as_integer(value);
    }
    if !is_of_type(schema, value) || !is_among(schema, value) || !is_in_bounds(schema, value) {
        let message = format!(
            "`{path}` must be {}, but is {}.",
            wanted(schema),
            found(value)
        );
        return Err(invalid(text::name(path), message));
    }
    match value {
        Value::Object(object) => {
            check_object(schema, object, path, &format!("a field of `{path}`"))
        }
        Value::Array(items) => match schema.get("items").and_then(Value::as_object) {
            Some(item) => items.iter_mut().enumerate().try_for_each(|(index, value)| {
                check_value(item, value, &format!("{path}[{index}]"))
            }),
            None => Ok(()),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn write_as_integer(value: &mut Value) {
    let Some(double) = value.as_f64().filter(|_| value.is_f64()) else {
        return;
    };
    if double.fract() == 0.0 && double.abs() <= LARGEST_EXACT_DOUBLE {
        // In range by the line above, so the cast is exact.
        *value = Value::Number(Number::from(double as i64));
    }
}

fn is_of_type(schema: &Schema, value: &Value) -> bool {
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        // A type that we never publish lets nothing pass.
        Some(_) | None => false,
    }
}

fn is_among(schema: &Schema, value: &Value) -> bool {
    schema
        .get("enum")
        .and_then(Value::as_array)
        .is_none_or(|allowed| allowed.contains(value))
}

fn is_in_bounds(schema: &Schema, value: &Value) -> bool {
    match value {
        Value::String(text) => within(schema, "minLength", "maxLength", text.chars().count()),
        Value::Array(items) => within(schema, "minItems", "maxItems", items.len()),
        Value::Number(number) if schema.get("type").and_then(Value::as_str) == Some("number") => {
            let limit = |keyword| schema.get(keyword).and_then(Value::as_f64);
            number.as_f64().is_some_and(|number| {
                limit("minimum").is_none_or(|least| number >= least)
                    && limit("maximum").is_none_or(|most| number <= most)
            })
        }
        Value::Number(number) => {
            let number = as_i128(number);
            bound(schema, "minimum").is_none_or(|least| number >= Some(least))
                && bound(schema, "maximum")
                    .is_none_or(|most| number.is_some_and(|number| number <= most))
        }
        Value::Null | Value::Bool(_) | Value::Object(_) => true,
    }
}

fn within(schema: &Schema, least: &str, most: &str, count: usize) -> bool {
    let count = i128::try_from(count).unwrap_or(i128::MAX);
    bound(schema, least).is_none_or(|least| count >= least)
        && bound(schema, most).is_none_or(|most| count <= most)
}

fn bound(schema: &Schema, keyword: &str) -> Option<i128> {
    schema
        .get(keyword)
        .and_then(Value::as_number)
        .and_then(as_i128)
}

fn as_i128(number: &Number) -> Option<i128> {
    number
        .as_i64()
        .map(i128::from)
        .or(number.as_u64().map(i128::from))
}

fn strings<'a>(schema: &'a Schema, keyword: &str) -> Vec<&'a str> {
    schema
        .get(keyword)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn join(path: &str, name: &str) -> String {
    let name = text::name(name);
    if path.is_empty() {
        name
    } else {
        format!("{path}.{name}")
    }
}

fn unknown(field: &str, name: &str, role: &str, properties: &Schema, required: &[&str]) -> Refusal {
    let meant = properties.keys().find(|known| bare(known) == bare(name));
    let suggestion = meant
        .map(|known| format!(" Did you mean `{known}`?"))
        .unwrap_or_default();
    invalid(
        field,
        format!(
            "`{field}` is not {role}.{suggestion} {}",
            takes(properties, required)
        ),
    )
}

/// A name without what people get wrong about it: `session_id`, `SessionID`, `sessionId`.
fn bare(name: &str) -> String {
    name.chars()
        .take(64)
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

fn takes(properties: &Schema, required: &[&str]) -> String {
    if properties.is_empty() {
        return "It takes none.".to_owned();
    }
    let names: Vec<String> = properties
        .keys()
        .map(|name| {
            if required.contains(&name.as_str()) {
                format!("{name} (required)")
            } else {
                name.clone()
            }
        })
        .collect();
    format!("Allowed are: {}.", names.join(", "))
}

fn wanted(schema: &Schema) -> String {
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
        let names: Vec<String> = allowed.iter().map(Value::to_string).collect();
        return format!("one of {}", names.join(", "));
    }
    let range = |least, most| match (bound(schema, least), bound(schema, most)) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}")),
        (Some(least), None) => Some(format!("at least {least}")),
        (None, Some(most)) => Some(format!("at most {most}")),
        (None, None) => None,
    };
    let with = |noun: &str, unit: &str, range: Option<String>| match range {
        Some(range) => format!("{noun} of {range} {unit}"),
        None => noun.to_owned(),
    };
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => with("a string", "characters", range("minLength", "maxLength")),
        Some("array") => with("an array", "items", range("minItems", "maxItems")),
        Some("integer") => match range("minimum", "maximum") {
            Some(range) => format!("a whole number, {range}"),
            None => "a whole number".to_owned(),
        },
        Some("number") => {
            let limit = |keyword| schema.get(keyword).and_then(Value::as_f64);
            match (limit("minimum"), limit("maximum")) {
                (Some(least), Some(most)) => format!("a number, {least} to {most}"),
                _ => "a number".to_owned(),
            }
        }
        Some("boolean") => "true or false".to_owned(),
        Some("object") => "an object".to_owned(),
        Some(_) | None => "left out".to_owned(),
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "null; leave it out instead".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Number(number) => match as_i128(number) {
            Some(number) => number.to_string(),
            None => "a number with a fraction or out of range".to_owned(),
        },
        Value::String(text) => format!("a string of {} characters", text.chars().count()),
        Value::Array(items) => format!("an array of {} items", items.len()),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::tool_list;

    /// Keywords that [`check`] enforces, and one that tells.
    const KNOWN: [&str; 13] = [
        "type",
        "enum",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "description",
    ];

    fn assert_known(schema: &Value, path: &str) {
        let Value::Object(schema) = schema else {
            // The engine's words have a table of their own, in policy; Claude Code's and JSON Schema's are not ours.
            let open = [
                "create_session.dockerOpts[]",
                "create_session.mcpConfig[]",
                "execute_in_session.outputSchema[]",
            ]
            .contains(&path);
            assert_eq!(schema, &json!(open), "{path}");
            return;
        };
        for (keyword, value) in schema {
            assert!(
                KNOWN.contains(&keyword.as_str()),
                "{path}: `{keyword}` is published but not enforced"
            );
            match (keyword.as_str(), value) {
                ("properties", Value::Object(properties)) => {
                    properties
                        .iter()
                        .for_each(|(name, schema)| assert_known(schema, &format!("{path}.{name}")));
                }
                ("items" | "additionalProperties", nested) => {
                    assert_known(nested, &format!("{path}[]"))
                }
                _ => {}
            }
        }
    }

    #[test]
    fn every_published_keyword_of_an_input_is_enforced() {
        for tool in tool_list() {
            assert_known(&Value::Object((*tool.input_schema).clone()), &tool.name);
        }
    }

    #[test]
    fn a_number_may_have_a_fraction_and_keeps_its_bounds() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "number", "minimum": 0.5, "maximum": 9.5}}});
        let check = |value: Value| {
            let mut arguments = Map::from_iter([("n".to_owned(), value)]);
            check("tool", schema.as_object().unwrap(), &mut arguments)
        };
        for right in [json!(0.5), json!(2), json!(9.5), json!(3.25)] {
            assert!(check(right.clone()).is_ok(), "{right}");
        }
        for wrong in [
            json!(0.4),
            json!(10),
            json!(-1),
            json!(1e300),
            json!("2"),
            Value::Null,
        ] {
            let refusal = check(wrong.clone()).unwrap_err();
            assert!(
                refusal.message.contains("a number, 0.5 to 9.5"),
                "{wrong}: {}",
                refusal.message
            );
        }
    }

    #[test]
    fn a_whole_number_written_as_a_double_is_an_integer() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 45}}});
        let check = |value: Value| {
            let mut arguments = Map::from_iter([("n".to_owned(), value)]);
            check("tool", schema.as_object().unwrap(), &mut arguments).map(|()| arguments)
        };
        assert_eq!(check(json!(20.0)).unwrap().get("n"), Some(&json!(20)));
        for wrong in [
            json!(20.5),
            json!(46.0),
            json!(-1),
            json!(1e300),
            json!(-1e300),
            json!(u64::MAX),
            json!("20"),
        ] {
            let refusal = check(wrong.clone()).expect_err("must be refused");
            assert_eq!(refusal.field.as_deref(), Some("n"), "{wrong}");
            assert!(refusal.message.contains("0 to 45"), "{}", refusal.message);
        }
    }
}
