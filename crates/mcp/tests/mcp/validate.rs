//! A reader of JSON Schema that shares nothing with the crate's own: it knows what our output schemas use, and refuses
//! a schema with anything else in it.

use serde_json::Value;

/// Why a value does not fit a schema; `Ok` when it does.
pub fn validate(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let keywords = schema
        .as_object()
        .ok_or_else(|| format!("{path}: no schema: {schema}"))?;
    for (keyword, rule) in keywords {
        match keyword.as_str() {
            "type" => type_fits(rule, value)
                .then_some(())
                .ok_or_else(|| format!("{path}: {value} is no {rule}"))?,
            "enum" => {
                let allowed = rule.as_array().ok_or("enum is no array")?;
                allowed
                    .contains(value)
                    .then_some(())
                    .ok_or_else(|| format!("{path}: {value} not in {rule}"))?;
            }
            "properties" | "additionalProperties" => properties(keywords, value, path)?,
            "required" => {
                for name in rule.as_array().ok_or("required is no array")? {
                    let name = name.as_str().ok_or("a required name is no string")?;
                    value
                        .get(name)
                        .ok_or_else(|| format!("{path}: {name} is missing"))?;
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(rule, item, &format!("{path}[{index}]"))?;
                }
            }
            "anyOf" => {
                let choices = rule.as_array().ok_or("anyOf is no array")?;
                let fits = choices
                    .iter()
                    .any(|choice| validate(choice, value, path).is_ok());
                fits.then_some(())
                    .ok_or_else(|| format!("{path}: {value} fits none of {rule}"))?;
            }
            "minimum" => {
                let fits = value
                    .as_f64()
                    .is_none_or(|number| rule.as_f64().is_some_and(|least| number >= least));
                fits.then_some(())
                    .ok_or_else(|| format!("{path}: {value} < {rule}"))?;
            }
            "maximum" => {
                let fits = value
                    .as_f64()
                    .is_none_or(|number| rule.as_f64().is_some_and(|most| number <= most));
                fits.then_some(())
                    .ok_or_else(|| format!("{path}: {value} > {rule}"))?;
            }
            "description" => {}
            other => return Err(format!("{path}: unknown keyword {other}")),
        }
    }
    Ok(())
}

fn properties(
    schema: &serde_json::Map<String, Value>,
    value: &Value,
    path: &str,
) -> Result<(), String> {
    for (name, field) in value.as_object().into_iter().flatten() {
        let here = format!("{path}.{name}");
        match (
            schema.get("properties").and_then(|known| known.get(name)),
            schema.get("additionalProperties"),
        ) {
            (Some(known), _) => validate(known, field, &here)?,
            (None, Some(rest)) if rest.is_object() => validate(rest, field, &here)?,
            _ => return Err(format!("{here} is not in the schema")),
        }
    }
    Ok(())
}

fn type_fits(rule: &Value, value: &Value) -> bool {
    match rule.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_i64() || value.is_u64(),
        _ => false,
    }
}
