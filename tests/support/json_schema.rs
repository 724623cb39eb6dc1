//! A validator of JSON Schema for the schemas that we publish.

/// Whether a value fits a schema, by the keywords of JSON Schema that ours use. Another one fails the test.
pub fn fits(schema: &serde_json::Value, value: &serde_json::Value) -> bool {
    use serde_json::Value;
    let keywords = schema.as_object().unwrap();
    let (text, number) = (value.as_str(), value.as_f64());
    let length = text.map(|text| text.chars().count() as f64);
    let at_most = |found: Option<f64>, bound: &Value| {
        found.is_none_or(|found| found <= bound.as_f64().unwrap())
    };
    let at_least = |found: Option<f64>, bound: &Value| {
        found.is_none_or(|found| found >= bound.as_f64().unwrap())
    };
    let size = |entries: Option<usize>| entries.map(|entries| entries as f64);
    keywords
        .iter()
        .all(|(keyword, said)| match keyword.as_str() {
            "$schema" | "title" | "description" | "default" => true,
            "type" => match said.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "number" => value.is_number(),
                "integer" => value.is_i64() || value.is_u64(),
                "null" => value.is_null(),
                other => panic!("the type {other}"),
            },
            "enum" => said.as_array().unwrap().contains(value),
            "const" => said == value,
            "allOf" => said.as_array().unwrap().iter().all(|one| fits(one, value)),
            "if" => !fits(said, value) || fits(&schema["then"], value),
            "then" => schema.get("if").is_some(),
            "anyOf" => said.as_array().unwrap().iter().any(|one| fits(one, value)),
            "not" => !fits(said, value),
            "required" => said
                .as_array()
                .unwrap()
                .iter()
                .all(|name| value.get(name.as_str().unwrap()).is_some()),
            "properties" => said
                .as_object()
                .unwrap()
                .iter()
                .all(|(name, one)| value.get(name).is_none_or(|value| fits(one, value))),
            "additionalProperties" => {
                value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .all(|(name, value)| {
                        let is_known = schema["properties"].get(name).is_some();
                        is_known || (said != &Value::Bool(false) && fits(said, value))
                    })
            }
            "propertyNames" => value
                .as_object()
                .into_iter()
                .flatten()
                .all(|(name, _)| fits(said, &Value::String(name.clone()))),
            "maxProperties" => at_most(size(value.as_object().map(serde_json::Map::len)), said),
            "minItems" => at_least(size(value.as_array().map(Vec::len)), said),
            "items" => value
                .as_array()
                .into_iter()
                .flatten()
                .all(|one| fits(said, one)),
            "minimum" => at_least(number, said),
            "maximum" => at_most(number, said),
            "minLength" => at_least(length, said),
            "maxLength" => at_most(length, said),
            "pattern" => text.is_none_or(|text| {
                let pattern = said.as_str().unwrap();
                regex_lite::Regex::new(pattern).unwrap().is_match(text)
            }),
            other => panic!("the keyword {other}"),
        })
}
