//! The rows of `bad_input`: a call, and the argument that is at fault.

use mcp::tool_list;
use serde_json::{Value, json};

use crate::tools::least;

/// A value that must never come back.
pub const CANARY: &str = "canary-8c1f";

pub fn with(tool: &str, name: &str, value: Value) -> Value {
    let mut arguments = least(tool);
    arguments[name] = value;
    arguments
}

fn without(tool: &str, name: &str) -> Value {
    let mut arguments = least(tool);
    arguments.as_object_mut().unwrap().remove(name);
    arguments
}

pub struct Row {
    pub tool: String,
    pub arguments: Value,
    pub field: String,
}

fn row(tool: &str, arguments: Value, field: &str) -> Row {
    Row {
        tool: tool.to_owned(),
        arguments,
        field: field.to_owned(),
    }
}

/// One argument of a tool set to each of these values is refused.
fn each(tool: &str, name: &str, values: impl IntoIterator<Item = Value>) -> Vec<Row> {
    values
        .into_iter()
        .map(|value| row(tool, with(tool, name, value), name))
        .collect()
}

/// What no string, number, … argument takes: made from the published schemas, so that no argument is forgotten.
pub fn wrong_types() -> Vec<Row> {
    let mut rows = Vec::new();
    for tool in tool_list() {
        let name = tool.name.as_ref();
        let properties = tool.input_schema["properties"].as_object().unwrap().clone();
        for (argument, schema) in &properties {
            if argument == "dockerOpts" {
                // Goes over the road whatever it is, so that its refusal is on record.
                continue;
            }
            let mut wrong = vec![json!(null)];
            wrong.extend(match schema["type"].as_str().unwrap() {
                "string" => vec![json!(7), json!(true), json!([CANARY]), json!({"a": CANARY})],
                "number" => vec![json!(CANARY), json!(true), json!([1])],
                "integer" => vec![
                    json!(CANARY),
                    json!("20"),
                    json!(true),
                    json!([]),
                    json!({}),
                ],
                "boolean" => vec![json!("true"), json!(1), json!([])],
                "array" => vec![
                    json!(CANARY),
                    json!({}),
                    json!(1),
                    json!([7]),
                    json!([null]),
                ],
                _ => vec![json!(CANARY), json!([CANARY]), json!(1)],
            });
            for value in wrong {
                let field = match (schema["type"].as_str(), &value) {
                    (Some("array"), Value::Array(_)) => format!("{argument}[0]"),
                    _ => argument.clone(),
                };
                rows.push(row(name, with(name, argument, value), &field));
            }
        }
        for field in ["nonsense", "Message", "__proto__", "\u{202e}"] {
            rows.push(row(
                name,
                with(name, field, json!(CANARY)),
                &field.replace('\u{202e}', "\\u{202e}"),
            ));
        }
        for required in tool
            .input_schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let field = required.as_str().unwrap();
            rows.push(row(name, without(name, field), field));
        }
    }
    rows
}

pub fn wrong_numbers() -> Vec<Row> {
    let never = [
        json!(-1),
        json!(0.5),
        json!(1e308),
        json!(-1e308),
        json!(u64::MAX),
        json!(i64::MIN),
        json!("NaN"),
        json!("Infinity"),
    ];
    let mut rows = Vec::new();
    for (tool, name) in [
        ("create_session", "ttlSeconds"),
        ("create_session", "idleSeconds"),
        ("execute_command", "timeoutSeconds"),
        ("execute_command", "waitSeconds"),
        ("get_execution", "waitSeconds"),
        ("get_session_logs", "tail"),
        ("extend_session", "seconds"),
    ] {
        rows.extend(each(tool, name, never.clone()));
    }
    rows.extend(each("execute_command", "waitSeconds", [json!(46)]));
    rows.extend(each("get_session_logs", "tail", [json!(0), json!(1001)]));
    rows.extend([json!(-1), json!(1.5)].map(|value| {
        let mut arguments = with("get_session_logs", "cursor", value);
        arguments["transcript"] = json!(true);
        row("get_session_logs", arguments, "cursor")
    }));
    rows.extend(each(
        "extend_session",
        "seconds",
        [json!(0), json!(30 * 86_400 + 1)],
    ));
    rows.extend(each(
        "get_execution",
        "stdoutCursor",
        [json!(-1), json!(1.5), json!(1e30)],
    ));
    for limit in [
        "memoryBytes",
        "cpuMillis",
        "pids",
        "openFiles",
        "fileBytes",
        "temporaryBytes",
    ] {
        for value in [json!(0), json!(-1), json!("2g"), json!(null), json!(1.5)] {
            rows.push(row(
                "create_session",
                with("create_session", "limits", json!({limit: value})),
                &format!("limits.{limit}"),
            ));
        }
    }
    rows
}

pub fn wrong_texts() -> Vec<Row> {
    let huge = || json!(CANARY.repeat(1_000_000 / CANARY.len()));
    let id = |letter: &str| json!(format!("{letter}-0123456789abcdef0123456789abcdef"));
    let mut rows = Vec::new();
    for tool in [
        "execute_command",
        "get_session",
        "destroy_session",
        "get_session_logs",
        "transfer_files",
        "extend_session",
    ] {
        let wrong = [
            json!(""),
            json!("current"),
            id("x"),
            id("S"),
            json!("s-0"),
            json!("../../etc/passwd"),
            huge(),
        ];
        rows.extend(each(tool, "sessionId", wrong));
    }
    for tool in ["get_execution", "cancel_execution", "respond_execution"] {
        rows.extend(each(
            tool,
            "executionId",
            [json!(""), json!("1"), id("s"), json!("x-\u{0}"), huge()],
        ));
    }
    let paths = [
        json!(""),
        json!("relative"),
        json!("./x"),
        json!("~/x"),
        json!("/a\u{0}b"),
        json!("/a\nb"),
        json!("/\u{202e}x"),
        huge(),
    ];
    rows.extend(each("create_session", "projectPath", paths.clone()));
    rows.extend(each("transfer_files", "sourcePath", paths));
    rows.extend(each(
        "transfer_files",
        "destPath",
        [json!(""), json!("/a\u{0}"), huge()],
    ));
    rows.extend(each(
        "execute_command",
        "cwd",
        [
            json!(""),
            json!("/a\u{0}"),
            json!("a\u{1b}[31m"),
            json!(format!("/{}", "é".repeat(2048))),
        ],
    ));
    rows.extend(each(
        "create_session",
        "sessionName",
        [
            json!(""),
            json!("a\nb"),
            json!("\u{1b}[31m"),
            json!("a\u{200b}"),
            json!("x".repeat(65)),
            huge(),
        ],
    ));
    rows.extend(each(
        "create_session",
        "idempotencyKey",
        [json!(""), json!("a\tb"), huge()],
    ));
    rows.extend(each(
        "create_session",
        "backend",
        [json!("Docker"), json!("fake"), json!("Native"), json!("")],
    ));
    rows.extend(each(
        "transfer_files",
        "direction",
        [json!("toContainer"), json!("in"), json!("")],
    ));
    rows.extend(each(
        "execute_command",
        "command",
        [
            json!(""),
            json!("a\u{0}b"),
            huge(),
            json!("é".repeat(70_000)),
        ],
    ));
    rows.extend(each(
        "execute_command",
        "stdin",
        [
            json!("x".repeat(1024 * 1024 + 1)),
            json!("é".repeat(600_000)),
        ],
    ));
    rows
}

pub fn wrong_structures() -> Vec<Row> {
    let execute = |name: &str, value: Value| with("execute_command", name, value);
    let only = |name: &str, value: Value| {
        let mut arguments = without("execute_command", "command");
        arguments[name] = value;
        arguments
    };
    let mount = |mount: Value| {
        with(
            "create_session",
            "mcpMounts",
            json!([{"hostPath": "/a", "containerPath": "/b"}, mount]),
        )
    };
    let respond = |arguments: Value| {
        let mut whole = without("respond_execution", "stdin");
        whole
            .as_object_mut()
            .unwrap()
            .extend(arguments.as_object().unwrap().clone());
        whole
    };
    let many_variables: Value = (0..257)
        .map(|n| (format!("V{n}"), json!("")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let big_variables: Value = (0..8)
        .map(|n| (format!("V{n}"), json!("x".repeat(100_000))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let mut rows = vec![
        row("execute_command", execute("argv", json!(["true"])), "argv"),
        row(
            "execute_command",
            without("execute_command", "command"),
            "command",
        ),
        row("execute_command", only("argv", json!([])), "argv"),
        row("execute_command", only("argv", json!([""])), "argv[0]"),
        row(
            "execute_command",
            only("argv", json!(["a", "b\u{0}"])),
            "argv[1]",
        ),
        row("execute_command", only("argv", json!(["a", 5])), "argv[1]"),
        row(
            "execute_command",
            only("argv", json!(vec!["a"; 1025])),
            "argv",
        ),
        row(
            "execute_command",
            only("argv", json!(["a", "x".repeat(131_072)])),
            "argv[1]",
        ),
        row(
            "execute_command",
            only("argv", json!(vec!["x".repeat(100_000); 8])),
            "argv",
        ),
        row(
            "execute_command",
            execute("env", big_variables.clone()),
            "command",
        ),
        row(
            "create_session",
            with("create_session", "env", big_variables),
            "env",
        ),
        row(
            "create_session",
            with(
                "create_session",
                "mcpMounts",
                json!(vec![json!({"hostPath": "/a", "containerPath": "/b"}); 17]),
            ),
            "mcpMounts",
        ),
        row(
            "create_session",
            mount(json!({"hostPath": "/a"})),
            "mcpMounts[1].containerPath",
        ),
        row(
            "create_session",
            mount(json!({"hostPath": "a", "containerPath": "/b"})),
            "mcpMounts[1].hostPath",
        ),
        row(
            "create_session",
            mount(json!({"hostPath": "/a", "containerPath": "b"})),
            "mcpMounts[1].containerPath",
        ),
        row(
            "create_session",
            mount(json!({"hostPath": "/a", "containerPath": "/b", "readonly": true})),
            "mcpMounts[1].readonly",
        ),
        row(
            "create_session",
            mount(json!({"hostPath": "/a", "containerPath": "/b", "readOnly": "no"})),
            "mcpMounts[1].readOnly",
        ),
        row(
            "create_session",
            with("create_session", "limits", json!({"memory": 1})),
            "limits.memory",
        ),
        row("respond_execution", respond(json!({})), "stdin"),
        row(
            "respond_execution",
            respond(json!({"close": false})),
            "stdin",
        ),
        row(
            "respond_execution",
            respond(json!({"stdin": "a", "stdinBase64": "YQ=="})),
            "stdinBase64",
        ),
        row(
            "respond_execution",
            respond(json!({"stdinBase64": "***"})),
            "stdinBase64",
        ),
        row(
            "respond_execution",
            respond(json!({"stdinBase64": "YQ"})),
            "stdinBase64",
        ),
        row(
            "respond_execution",
            respond(json!({"stdinBase64": "YQ==\n"})),
            "stdinBase64",
        ),
        row(
            "respond_execution",
            respond(json!({"stdin": "x".repeat(1024 * 1024 + 1)})),
            "stdin",
        ),
        row(
            "respond_execution",
            respond(json!({"stdinBase64": "A".repeat(1_398_108)})),
            "stdinBase64",
        ),
    ];
    for tool in ["create_session", "execute_command"] {
        rows.push(row(tool, with(tool, "env", many_variables.clone()), "env"));
        for (name, value) in [
            ("A=B", json!(CANARY)),
            ("", json!(CANARY)),
            ("1A", json!(CANARY)),
            ("A B", json!(CANARY)),
            ("OK", json!("a\u{0}")),
            ("OK", json!(5)),
            ("OK", json!(null)),
            ("OK", json!("x".repeat(131_072))),
        ] {
            rows.push(row(
                tool,
                with(tool, "env", json!({name: value})),
                &format!("env.{name}"),
            ));
        }
    }
    rows
}

pub fn not_yet() -> Vec<Row> {
    let names = ["image", "workspace", "from"];
    names
        .iter()
        .map(|name| {
            row(
                "create_session",
                with("create_session", name, json!(CANARY)),
                name,
            )
        })
        .collect()
}
