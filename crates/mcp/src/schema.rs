//! JSON Schemas as they are published: plain enough for every client (no `$ref`, no nullable types, no `oneOf`), closed
//! (`additionalProperties: false`) but for maps, and made only of keywords that `arguments` enforces.

use std::sync::Arc;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::reply::ErrorReply;

/// A schema object.
pub(crate) type Schema = Map<String, Value>;

/// The schema of what a tool takes.
pub(crate) fn of_parameters<T: JsonSchema>() -> Arc<Schema> {
    Arc::new(build::<T>(SchemaSettings::draft2020_12()))
}

/// The schema of what a tool returns: its reply, or an error in its place.
///
/// Clients built on the TypeScript SDK hold the structured content of errors against this schema too, and throw away a
/// result that does not fit. So both shapes are in it: `anyOf` says which fields come together.
pub(crate) fn of_reply<T: JsonSchema>() -> Arc<Schema> {
    let mut reply = build::<T>(SchemaSettings::draft2020_12().for_serialize());
    let error = build::<ErrorReply>(SchemaSettings::draft2020_12().for_serialize());
    if let (Some(Value::Object(properties)), Some(Value::Object(also))) =
        (reply.get_mut("properties"), error.get("properties"))
    {
        properties.extend(also.clone());
    }
    let together = [reply.remove("required"), error.get("required").cloned()];
    let choices: Vec<Value> = together
        .into_iter()
        .flatten()
        .map(|required| json!({ "required": required }))
        .collect();
    reply.insert("anyOf".to_owned(), Value::Array(choices));
    Arc::new(reply)
}

fn build<T: JsonSchema>(mut settings: SchemaSettings) -> Schema {
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let root = settings.into_generator().into_root_schema_for::<T>();
    // A schema that is no object would be `true`, which lets anything pass: let nothing pass instead.
    let mut schema = root.as_object().cloned().unwrap_or_else(nothing);
    tidy(&mut schema);
    schema.remove("title");
    schema.remove("description");
    schema
}

fn nothing() -> Schema {
    Map::from_iter([
        ("type".to_owned(), json!("object")),
        ("properties".to_owned(), json!({})),
    ])
}

fn tidy(schema: &mut Schema) {
    // Formats of Rust's number types mean nothing to a client; our defaults stand in the descriptions.
    schema.remove("format");
    schema.remove("default");
    if let Some(Value::String(description)) = schema.get_mut("description") {
        // Lines of a doc comment are wrapped for us, not for the reader of a schema.
        *description = description.replace('\n', " ");
    }
    drop_null(schema);
    flatten_constants(schema);
    for nested in ["items", "additionalProperties"] {
        if let Some(Value::Object(nested)) = schema.get_mut(nested) {
            tidy(nested);
        }
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in properties.values_mut() {
            if let Value::Object(property) = property {
                tidy(property);
            }
        }
    }
    let is_map = schema
        .get("additionalProperties")
        .is_some_and(|any| any.is_object() || *any == json!(true));
    if schema.get("type") == Some(&json!("object")) && !is_map {
        schema.entry("properties").or_insert_with(|| json!({}));
        schema.insert("additionalProperties".to_owned(), json!(false));
    }
}

/// An optional field is left out, never null, so null is no part of its type.
fn drop_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(allowed)) = schema.get_mut("enum") {
        allowed.retain(|value| !value.is_null());
    }
    let Some(Value::Array(mut choices)) = schema.remove("anyOf") else {
        return;
    };
    choices.retain(|choice| choice.get("type") != Some(&json!("null")));
    match (choices.pop(), choices.is_empty()) {
        (Some(Value::Object(only)), true) => {
            for (key, value) in only {
                schema.entry(key).or_insert(value);
            }
        }
        (last, _) => {
            choices.extend(last);
            schema.insert("anyOf".to_owned(), Value::Array(choices));
        }
    }
}

/// `oneOf` of documented constants, which is how an enum with doc comments comes out, becomes `enum`.
fn flatten_constants(schema: &mut Schema) {
    let Some(Value::Array(choices)) = schema.get("oneOf") else {
        return;
    };
    let constants: Option<Vec<Value>> = choices
        .iter()
        .map(|choice| choice.get("const").cloned())
        .collect();
    if let Some(constants) = constants {
        schema.remove("oneOf");
        schema.insert("type".to_owned(), json!("string"));
        schema.insert("enum".to_owned(), Value::Array(constants));
    }
}
