//! Holds an event to the definitions of its class: what is required is there, what is there is known and of its type,
//! numbers of enumerations exist and go with their names, and the sums are right.

use std::net::IpAddr;

use serde_json::{Map, Value};

/// The definitions in `definitions.json`.
pub struct Definitions(Value);

impl Definitions {
    pub fn read() -> Self {
        Definitions(serde_json::from_str(include_str!("definitions.json")).unwrap())
    }

    /// What is wrong with an event; each begins with the path of the attribute.
    pub fn flaws(&self, event: &Value) -> Vec<String> {
        let Some(fields) = event.as_object() else {
            return vec!["the event is no object".to_owned()];
        };
        let mut flaws = Vec::new();
        let uid = event["class_uid"].as_u64().unwrap_or_default();
        let class = &self.0["classes"][uid.to_string()];
        if class.is_null() {
            return vec![format!("class_uid: {uid} is no class")];
        }
        let base = &self.0["base"];
        let mut attributes = base["attributes"].as_object().unwrap().clone();
        attributes.extend(class["attributes"].as_object().unwrap().clone());
        let profiles = event["metadata"]["profiles"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if profiles.contains(&"host".into()) {
            attributes.extend(
                class["host_profile"]
                    .as_object()
                    .cloned()
                    .unwrap_or_default(),
            );
        }
        self.check_object(
            "",
            fields,
            &attributes,
            &[&base["required"], &class["required"]],
            &class["at_least_one"],
            &mut flaws,
        );
        check_class(event, uid, class, &self.0, &mut flaws);
        flaws
    }

    fn check_object(
        &self,
        path: &str,
        fields: &Map<String, Value>,
        attributes: &Map<String, Value>,
        required: &[&Value],
        at_least_one: &Value,
        flaws: &mut Vec<String>,
    ) {
        for name in required
            .iter()
            .filter_map(|names| names.as_array())
            .flatten()
        {
            let name = name.as_str().unwrap();
            if !fields.contains_key(name) {
                flaws.push(format!("{path}{name}: is required"));
            }
        }
        let choices = at_least_one.as_array();
        if choices.is_some_and(|names| {
            !names
                .iter()
                .any(|name| fields.contains_key(name.as_str().unwrap()))
        }) {
            flaws.push(format!("{path}: needs at least one of {at_least_one}"));
        }
        for (name, value) in fields {
            match attributes.get(name) {
                None => flaws.push(format!("{path}{name}: is no attribute here")),
                Some(kind) => self.check_value(&format!("{path}{name}"), value, kind, flaws),
            }
        }
    }

    fn check_value(&self, path: &str, value: &Value, kind: &Value, flaws: &mut Vec<String>) {
        let is_right = match kind {
            Value::Array(choices) if choices.first().is_some_and(Value::is_number) => {
                choices.contains(value)
            }
            Value::Array(element) => match value.as_array() {
                Some(list) => {
                    for (at, value) in list.iter().enumerate() {
                        self.check_value(&format!("{path}[{at}]"), value, &element[0], flaws);
                    }
                    true
                }
                None => false,
            },
            Value::String(kind) => match self.0["objects"].get(kind) {
                Some(object) => return self.check_of(path, value, object, flaws),
                None => is_of(value, kind),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
                panic!("{path}: {kind} is no type")
            }
        };
        if !is_right {
            flaws.push(format!("{path}: {value} is no {kind}"));
        }
    }

    fn check_of(&self, path: &str, value: &Value, object: &Value, flaws: &mut Vec<String>) {
        match value.as_object() {
            Some(fields) => self.check_object(
                &format!("{path}."),
                fields,
                object["attributes"].as_object().unwrap(),
                &[&object["required"]],
                &object["at_least_one"],
                flaws,
            ),
            None => flaws.push(format!("{path}: is no object")),
        }
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    let text = value.as_str();
    match kind {
        "string" => text.is_some(),
        "integer" => value
            .as_i64()
            .is_some_and(|number| i32::try_from(number).is_ok()),
        "long" => value.as_i64().is_some(),
        // Milliseconds since 1970, of this century.
        "timestamp" => value
            .as_i64()
            .is_some_and(|time| (946_684_800_000..4_102_444_800_000).contains(&time)),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "port" => value.as_u64().is_some_and(|port| port <= 65_535),
        "ip" => text.is_some_and(|text| text.parse::<IpAddr>().is_ok()),
        "hostname" => text.is_some_and(|text| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        }),
        _ => panic!("{kind} is no type"),
    }
}

fn check_class(
    event: &Value,
    uid: u64,
    class: &Value,
    definitions: &Value,
    flaws: &mut Vec<String>,
) {
    let mut expect = |name: &str, wanted: Value| {
        if event[name] != wanted {
            flaws.push(format!("{name}: {} instead of {wanted}", event[name]));
        }
    };
    let category = uid / 1000;
    let activity = event["activity_id"].as_u64().unwrap_or_default();
    expect("category_uid", category.into());
    expect(
        "category_name",
        definitions["categories"][category.to_string()].clone(),
    );
    expect("class_name", class["name"].clone());
    expect("type_uid", (uid * 100 + activity).into());
    match activity {
        // What has no number goes by a name of the source.
        99 => {}
        _ => {
            let name = class["activities"][activity.to_string()].clone();
            if name.is_null() {
                flaws.push(format!(
                    "activity_id: {activity} is no activity of the class"
                ));
                return;
            }
            expect("activity_name", name);
        }
    }
    for (number, name) in [("status_id", "status"), ("activity_id", "activity_name")] {
        if event[number] == 99 && event[name].as_str().is_none_or(str::is_empty) {
            flaws.push(format!("{name}: is needed where {number} is 99"));
        }
    }
    if event["metadata"]["version"] != definitions["version"] {
        flaws.push("metadata.version: is another version".to_owned());
    }
}
