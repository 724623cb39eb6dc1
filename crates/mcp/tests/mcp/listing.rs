//! What a client is told about the server and its tools.

use mcp::{INSTRUCTIONS, REMOTE_INSTRUCTIONS, tool_list};
use serde_json::{Value, json};

/// Claude Code cuts descriptions at 2,048 characters.
const MAX_DESCRIPTION: usize = 2048;
const MAX_INSTRUCTIONS: usize = 2000;

fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || (' '..='~').contains(&c))
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| std::iter::once(name.as_str()).chain(texts(value)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => vec![],
    }
}

/// Every object of a schema that names properties is closed, and no type is a union.
fn assert_closed(schema: &Value, path: &str) {
    let Value::Object(fields) = schema else {
        return;
    };
    if fields.get("type") == Some(&json!("object")) {
        let rest = &fields["additionalProperties"];
        let is_map = rest.is_object() && !fields.contains_key("properties");
        // The engine's words have a table of their own, in policy; the others are of Claude Code and JSON Schema.
        let open = [
            ".dockerOpts",
            ".mcpConfig",
            ".outputSchema",
            ".structuredOutput",
        ];
        let is_open = rest == &json!(true) && open.iter().any(|open| path.ends_with(open));
        assert!(rest == &json!(false) || is_map || is_open, "{path} is open");
    }
    if let Some(kind) = fields.get("type") {
        assert!(kind.is_string(), "{path}: {kind}");
    }
    assert!(
        !fields.contains_key("$ref")
            && !fields.contains_key("anyOf")
            && !fields.contains_key("oneOf"),
        "{path}"
    );
    for nested in ["items", "additionalProperties"] {
        fields
            .get(nested)
            .into_iter()
            .for_each(|schema| assert_closed(schema, &format!("{path}.{nested}")));
    }
    for (name, schema) in fields
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        assert_closed(schema, &format!("{path}.{name}"));
    }
}

#[test]
fn tools_and_instructions_are_what_was_reviewed() {
    insta::assert_json_snapshot!("tools", tool_list());
    insta::assert_snapshot!("instructions", INSTRUCTIONS);
    insta::assert_snapshot!("instructions_remote", REMOTE_INSTRUCTIONS);
    let codes: Vec<_> = model::Reason::ALL
        .iter()
        .map(|reason| reason.code())
        .collect();
    insta::assert_snapshot!("error_codes", codes.join("\n"));
}

#[test]
fn every_tool_is_described_bounded_and_annotated() {
    let names: Vec<String> = tool_list()
        .iter()
        .map(|tool| tool.name.to_string())
        .collect();
    assert_eq!(
        names,
        [
            "create_session",
            "execute_in_session",
            "execute_command",
            "get_execution",
            "cancel_execution",
            "respond_execution",
            "list_sessions",
            "get_session",
            "destroy_session",
            "get_session_logs",
            "transfer_files",
            "extend_session",
            "get_server_info",
        ]
    );
    for tool in tool_list() {
        let description = tool.description.as_deref().unwrap();
        assert!(
            description.chars().count() <= MAX_DESCRIPTION,
            "{}",
            tool.name
        );
        assert!(
            description.contains("disconnect") || tool.name == "destroy_session",
            "{}",
            tool.name
        );
        assert!(tool.title.is_some());
        let hints = tool.annotations.clone().unwrap();
        for hint in [
            hints.read_only_hint,
            hints.destructive_hint,
            hints.idempotent_hint,
            hints.open_world_hint,
        ] {
            assert!(hint.is_some(), "{}", tool.name);
        }
        let input = Value::Object((*tool.input_schema).clone());
        let mut output = Value::Object((**tool.output_schema.as_ref().unwrap()).clone());
        assert_eq!(
            (&input["type"], &output["type"]),
            (&json!("object"), &json!("object"))
        );
        assert_closed(&input, &tool.name);
        // The one union: a reply, or an error in its place.
        let choices = output.as_object_mut().unwrap().remove("anyOf").unwrap();
        assert_eq!(choices[1], json!({"required": ["error"]}));
        assert!(
            choices[0]["required"]
                .as_array()
                .unwrap()
                .contains(&json!("message")),
            "{}",
            tool.name
        );
        assert_closed(&output, &tool.name);
        assert!(
            output["properties"]["message"].is_object(),
            "{} has no message",
            tool.name
        );
        for (name, property) in input["properties"].as_object().into_iter().flatten() {
            assert!(
                property["description"].is_string(),
                "{}.{name} is not described",
                tool.name
            );
        }
    }
}

#[test]
fn nothing_hidden_stands_in_what_a_model_reads() {
    assert!(
        !is_plain("zero\u{200b}width") && !is_plain("\u{202e}"),
        "the check itself"
    );
    for instructions in [INSTRUCTIONS, REMOTE_INSTRUCTIONS] {
        assert!(is_plain(instructions));
        assert!(instructions.chars().count() <= MAX_INSTRUCTIONS);
    }
    let tools = serde_json::to_value(tool_list()).unwrap();
    texts(&tools)
        .into_iter()
        .for_each(|text| assert!(is_plain(text), "{text}"));
}

/// The two texts are kept by hand: what does not speak of the host's disk or of scopes says the same in both.
#[test]
fn instructions_for_callers_from_elsewhere_differ_only_in_what_they_cannot_do() {
    let only_in = |text: &str, other: &str| {
        let lines = text.lines().filter(|line| !other.contains(line));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let local = only_in(INSTRUCTIONS, REMOTE_INSTRUCTIONS);
    let remote = only_in(REMOTE_INSTRUCTIONS, INSTRUCTIONS);
    let about = |lines: &[String], words: [&str; 3]| {
        words
            .iter()
            .all(|word| lines.iter().any(|line| line.contains(word)))
    };
    assert_eq!(
        (local.len(), remote.len()),
        (3, 4),
        "{local:#?} {remote:#?}"
    );
    assert!(about(
        &local,
        ["the user's machine", "absolute projectPath", "the host"]
    ));
    assert!(about(
        &remote,
        ["projectPath", "transfer_files", "insufficient_scope"]
    ));
}
