//! Bad input gets its stable code and a helpful sentence, and changes nothing.

use serde_json::{Value, json};

use crate::support::{Machine, User};

#[test]
fn bad_input_is_refused_by_code_and_changes_nothing() {
    let machine = Machine::new(User::Ordinary);
    machine.write("file", "no directory");
    std::os::unix::fs::symlink("/etc", machine.project.join("link")).expect("a link");
    let mut client = machine.client();
    let session = client.create(&machine.project);
    let gone = client.create(&machine.project);
    client.destroy(&gone);
    let unknown_session = "s-00000000000000000000000000000000";
    let unknown_execution = "x-00000000000000000000000000000000";
    let create = |path: &str| json!({ "projectPath": path });
    let in_project = |path: &str| json!({ "projectPath": machine.project.join(path) });
    let run = |extra: Value| {
        merged(
            json!({ "sessionId": session, "command": "touch /workspace/ran" }),
            extra,
        )
    };
    let copy = |source: &str, to: &str| json!({ "sessionId": session, "direction": "from_container", "sourcePath": source, "destPath": to });
    let before = machine.census();
    let table = [
        ("create_session", json!({}), "invalid_argument"),
        (
            "create_session",
            json!({ "projectPath": 7 }),
            "invalid_argument",
        ),
        (
            "create_session",
            json!({ "projectPath": null }),
            "invalid_argument",
        ),
        ("create_session", create("relative"), "invalid_argument"),
        ("create_session", create(""), "invalid_argument"),
        (
            "create_session",
            merged(in_project(""), json!({ "unknown": 1 })),
            "invalid_argument",
        ),
        (
            "create_session",
            merged(in_project(""), json!({ "ttlSeconds": -1 })),
            "invalid_argument",
        ),
        (
            "create_session",
            merged(in_project(""), json!({ "ttlSeconds": 1e30 })),
            "invalid_argument",
        ),
        (
            "create_session",
            merged(in_project(""), json!({ "env": { "A=B": "x" } })),
            "invalid_argument",
        ),
        (
            "create_session",
            merged(in_project(""), json!({ "dockerOpts": [] })),
            "invalid_argument",
        ),
        ("create_session", create("/"), "path_forbidden"),
        ("create_session", create("/etc"), "path_forbidden"),
        ("create_session", create("/usr"), "path_forbidden"),
        ("create_session", create("/srv"), "path_not_allowed"),
        ("create_session", in_project("missing"), "path_not_found"),
        ("create_session", in_project("file"), "path_forbidden"),
        ("create_session", in_project("link"), "path_forbidden"),
        (
            "execute_command",
            json!({ "sessionId": session }),
            "invalid_argument",
        ),
        (
            "execute_command",
            run(json!({ "argv": ["true"] })),
            "invalid_argument",
        ),
        (
            "execute_command",
            run(json!({ "cwd": "relative" })),
            "command_not_started",
        ),
        (
            "execute_command",
            run(json!({ "cwd": "/missing" })),
            "command_not_started",
        ),
        (
            "execute_command",
            run(json!({ "timeoutSeconds": 0 })),
            "invalid_argument",
        ),
        (
            "execute_command",
            run(json!({ "timeoutSeconds": 99_999_999 })),
            "invalid_argument",
        ),
        (
            "execute_command",
            json!({ "sessionId": session, "argv": ["/missing"] }),
            "command_not_started",
        ),
        (
            "execute_command",
            json!({ "sessionId": session, "argv": [] }),
            "invalid_argument",
        ),
        (
            "execute_command",
            json!({ "sessionId": "nonsense", "command": "true" }),
            "invalid_argument",
        ),
        (
            "execute_command",
            json!({ "sessionId": unknown_session, "command": "true" }),
            "session_not_found",
        ),
        (
            "execute_command",
            json!({ "sessionId": gone, "command": "true" }),
            "session_destroyed",
        ),
        (
            "get_execution",
            json!({ "executionId": unknown_execution }),
            "execution_not_found",
        ),
        (
            "cancel_execution",
            json!({ "executionId": unknown_execution }),
            "execution_not_found",
        ),
        (
            "respond_execution",
            json!({ "executionId": unknown_execution, "stdin": "" }),
            "execution_not_found",
        ),
        (
            "get_session",
            json!({ "sessionId": unknown_session }),
            "session_not_found",
        ),
        (
            "destroy_session",
            json!({ "sessionId": unknown_session }),
            "session_not_found",
        ),
        (
            "get_session_logs",
            json!({ "sessionId": session, "tail": -1 }),
            "invalid_argument",
        ),
        (
            "extend_session",
            json!({ "sessionId": session, "seconds": 0 }),
            "invalid_argument",
        ),
        (
            "extend_session",
            json!({ "sessionId": gone, "seconds": 10 }),
            "session_destroyed",
        ),
        (
            "transfer_files",
            copy(
                "/tmp/missing",
                machine.project.join("x").to_str().expect("text"),
            ),
            "path_not_found",
        ),
        (
            "transfer_files",
            copy("/etc/os-release", "/etc/x"),
            "path_not_allowed",
        ),
        (
            "transfer_files",
            copy("/tmp", machine.project.join("../x").to_str().expect("text")),
            "invalid_argument",
        ),
    ];
    for (tool, arguments, code) in table {
        let error = client.tool(tool, arguments.clone()).expect_err("a refusal");
        assert_eq!(error["code"], code, "{tool} {arguments}: {error:#}");
        for field in ["message", "hint"] {
            assert!(
                error[field].as_str().is_some_and(|text| text.len() > 10),
                "{tool} {arguments}: {error:#}"
            );
        }
    }
    let unknown = client.request(
        "tools/call",
        json!({ "name": "no_such_tool", "arguments": {} }),
    );
    assert_eq!(unknown.expect_err("a protocol error")["code"], -32602);
    assert_eq!(machine.census(), before, "something changed");
    assert_eq!(
        client.output(&session, "echo works; ls /workspace"),
        "works\nfile\nlink"
    );
    client.destroy(&session);
}

fn merged(mut base: Value, extra: Value) -> Value {
    if let (Some(base), Some(extra)) = (base.as_object_mut(), extra.as_object()) {
        base.extend(extra.clone());
    }
    base
}
