//! `dockerOpts`: JSON into nouns. What the options mean, and which are refused, is policy's.

use model::{DockerOptions, OptionValue, Refusal};
use serde_json::{Map, Value};

use crate::arguments::invalid;

/// Levels of lists and objects below an option: the deepest that an engine knows, a device request, has three.
const MAX_DEPTH: usize = 4;
/// Values in all: an engine has some seventy options.
const MAX_VALUES: usize = 1_000;

/// Reads the argument.
pub(super) fn read(options: Option<Map<String, Value>>) -> Result<DockerOptions, Refusal> {
    let mut left = MAX_VALUES;
    let entries = options.unwrap_or_default().into_iter();
    let read = entries.map(|(name, value)| {
        let path = format!("dockerOpts.{name}");
        Ok((name, value_of(&path, value, MAX_DEPTH, &mut left)?))
    });
    Ok(DockerOptions(read.collect::<Result<_, Refusal>>()?))
}

fn value_of(
    path: &str,
    value: Value,
    depth: usize,
    left: &mut usize,
) -> Result<OptionValue, Refusal> {
    let Some(rest) = left.checked_sub(1) else {
        return Err(invalid(
            "dockerOpts",
            format!("`dockerOpts` has more than {MAX_VALUES} values."),
        ));
    };
    *left = rest;
    let below = || {
        depth.checked_sub(1).ok_or_else(|| {
            invalid(
                path,
                format!("`{path}` is nested deeper than any option of an engine."),
            )
        })
    };
    Ok(match value {
        Value::Null => OptionValue::Null,
        Value::Bool(value) => OptionValue::Boolean(value),
        Value::Number(number) => OptionValue::Integer(number.as_i64().ok_or_else(|| {
            invalid(path, format!("`{path}` must be a whole number of 64 bits."))
        })?),
        Value::String(text) => OptionValue::Text(text),
        Value::Array(values) => {
            let depth = below()?;
            let entries = values.into_iter().enumerate();
            let read = entries
                .map(|(index, value)| value_of(&format!("{path}[{index}]"), value, depth, left));
            OptionValue::List(read.collect::<Result<_, _>>()?)
        }
        Value::Object(entries) => {
            let depth = below()?;
            let read = entries.into_iter().map(|(name, value)| {
                let value = value_of(&format!("{path}.{name}"), value, depth, left)?;
                Ok((name, value))
            });
            OptionValue::Object(read.collect::<Result<_, Refusal>>()?)
        }
    })
}
