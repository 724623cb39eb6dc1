//! What a person does first: create, run, read, transfer, destroy (S1, S2, S7, A1).

use std::{fs, os::unix::fs::MetadataExt};

use serde_json::json;

use crate::support::{Machine, client::missing_layers, users};

#[test]
fn a_session_from_create_to_destroy_over_stdio() {
    for user in users() {
        let machine = Machine::new(user);
        machine.write("hello.txt", "hello");
        let before = machine.census();
        let mut client = machine.client();
        let created = client
            .tool("create_session", json!({ "projectPath": machine.project }))
            .expect("a session");
        let session = created["sessionId"].as_str().expect("an id").to_owned();
        assert_eq!(created["state"], "ready", "{created:#}");
        assert_eq!(created["backend"], "native");
        assert_eq!(
            missing_layers(&created),
            ["guestKernel"],
            "the embedded runtime shares the host's"
        );

        assert_eq!(
            client.output(&session, "cat hello.txt; pwd; id -u"),
            "hello/workspace\n1000"
        );
        let failed = client.run(&session, "echo out; echo err >&2; exit 7");
        assert_eq!(failed["state"], "exited");
        assert_eq!(failed["exitCode"], 7);
        assert_eq!(failed["stdout"]["text"], "out\n");
        assert_eq!(failed["stderr"]["text"], "err\n");

        client.output(&session, "mkdir -p out && echo made > out/file");
        let owner = fs::metadata(&machine.project).expect("the project").uid();
        assert_eq!(
            fs::metadata(machine.project.join("out/file"))
                .expect("a file")
                .uid(),
            owner,
            "{user:?}"
        );

        let into = json!({
            "sessionId": session, "direction": "to_container",
            "sourcePath": machine.project.join("hello.txt"), "destPath": "/tmp/copy.txt",
        });
        let report = client.tool("transfer_files", into).expect("a transfer");
        assert_eq!(report["files"], 1, "{report:#}");
        assert_eq!(client.output(&session, "cat /tmp/copy.txt"), "hello");
        client.output(
            &session,
            "mkdir -p /tmp/tree/sub && echo deep > /tmp/tree/sub/file",
        );
        let out = json!({
            "sessionId": session, "direction": "from_container",
            "sourcePath": "/tmp/tree", "destPath": machine.project.join("tree"),
        });
        client.tool("transfer_files", out).expect("a transfer");
        assert_eq!(
            fs::read_to_string(machine.project.join("tree/sub/file")).expect("a file"),
            "deep\n"
        );

        let logs = client
            .tool("get_session_logs", json!({ "sessionId": session }))
            .expect("logs");
        assert!(logs.to_string().contains("session ready"), "{logs:#}");
        let listed = client.tool("list_sessions", json!({})).expect("a list");
        assert_eq!(
            listed["sessions"].as_array().map(Vec::len),
            Some(1),
            "{listed:#}"
        );
        client.destroy(&session);
        client.destroy(&session);
        let listed = client.tool("list_sessions", json!({})).expect("a list");
        assert_eq!(listed["sessions"], json!([]));
        assert!(client.close().success());

        fs::remove_dir_all(machine.project.join("out")).expect("the agent's files are the user's");
        fs::remove_dir_all(machine.project.join("tree"))
            .expect("the transferred files are the user's");
        let after = machine.census();
        assert_eq!(before.processes, after.processes);
        assert_eq!(before.instances, after.instances);
        assert_eq!(before.project, after.project);
        assert!(after.cgroups.is_empty(), "{:?}", after.cgroups);
        machine.wait_for_server_end();
    }
}

#[test]
fn an_execution_outlives_the_wait_and_is_read_by_cursor() {
    for user in users() {
        let machine = Machine::new(user);
        let mut client = machine.client();
        let session = client.create(&machine.project);
        let arguments = json!({
            "sessionId": session, "command": "echo one; read line; echo got $line; sleep 0.2; echo two",
            "waitSeconds": 0, "keepStdinOpen": true,
        });
        let started = client
            .tool("execute_command", arguments)
            .expect("an execution");
        assert_eq!(started["state"], "running", "{started:#}");
        let execution = started["executionId"].as_str().expect("an id").to_owned();
        let read = client
            .tool(
                "get_execution",
                json!({ "executionId": execution, "stdoutCursor": 0, "waitSeconds": 10 }),
            )
            .expect("an execution");
        assert_eq!(read["stdout"]["text"], "one\n", "{read:#}");
        let cursor = read["stdout"]["cursor"].clone();
        client
            .tool(
                "respond_execution",
                json!({ "executionId": execution, "stdin": "there\n", "close": true }),
            )
            .expect("its input");
        let mut text = String::new();
        let mut cursor = cursor;
        loop {
            let arguments =
                json!({ "executionId": execution, "stdoutCursor": cursor, "waitSeconds": 10 });
            let read = client
                .tool("get_execution", arguments)
                .expect("an execution");
            text.push_str(read["stdout"]["text"].as_str().unwrap_or_default());
            cursor = read["stdout"]["cursor"].clone();
            if read["state"] == "exited" {
                break;
            }
        }
        assert_eq!(text, "got there\ntwo\n");
    }
}

#[test]
fn the_audit_log_tells_the_story_and_verifies() {
    for user in users() {
        let mut machine = Machine::new(user);
        let log = machine.base().join("state/told.log");
        machine.set("MCP_AUDIT_LOG", log.to_str().expect("a path"));
        let mut client = machine.client();
        let session = client.create(&machine.project);
        client.output(&session, "echo canary-in-a-command");
        client.destroy(&session);
        assert!(client.close().success());
        machine.wait_for_server_end();
        let text = fs::read_to_string(&log).expect("the log");
        assert!(!text.contains("canary"), "content is in the log");
        for action in [
            "server.start",
            "session.create",
            "execution.start",
            "session.destroy",
            "server.stop",
        ] {
            assert!(
                text.contains(&format!("\"{action}\"")),
                "{action} is missing in {text}"
            );
        }
        assert!(text.contains(&session));
        let verified = machine.cli(&["audit", "verify", log.to_str().expect("a path")]);
        assert!(
            verified.status.success(),
            "{}",
            String::from_utf8_lossy(&verified.stderr)
        );
    }
}

#[test]
fn waiting_for_an_execution_is_one_call_however_much_it_prints() {
    let machine = Machine::new(crate::support::users()[0]);
    let mut client = machine.client();
    let session = client.create(&machine.project);
    let chatty = "for i in 1 2 3 4; do echo $i; sleep 0.3; done";
    let mut start = || {
        let arguments = json!({ "sessionId": session, "command": chatty, "waitSeconds": 0 });
        client
            .tool("execute_command", arguments)
            .expect("an execution")
    };
    let (first, second) = (start(), start());
    let mut get = |execution: &serde_json::Value, cursor: Option<u64>| {
        let mut arguments = json!({ "executionId": execution["executionId"], "waitSeconds": 20 });
        if let Some(cursor) = cursor {
            arguments["stdoutCursor"] = json!(cursor);
        }
        client
            .tool("get_execution", arguments)
            .expect("the execution")
    };
    let page = get(&first, Some(0));
    assert_eq!(page["state"], "running", "a cursor asks for news: {page:#}");
    let whole = get(&second, None);
    assert_eq!(whole["state"], "exited", "{whole:#}");
    assert_eq!(whole["stdout"]["text"], "1\n2\n3\n4\n");
    client.destroy(&session);
}
