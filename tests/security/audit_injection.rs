//! A3: whatever a caller names, the log stays one record a line, and what is printed of it moves no cursor: line ends,
//! terminal escapes, bidirectional and invisible characters, bytes that are no text, names of a megabyte.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, process::Stdio};

use serde_json::{Value, json};

use crate::support::{Machine, program, users};

/// What could forge a record, or do something to whoever looks.
fn hostile() -> Vec<String> {
    let mut all: Vec<String> = [
        "a\n{\"v\":1,\"seq\":1,\"action\":\"forged\"}\n",
        "a\r\nb",
        "\u{1b}[2J\u{1b}[H\u{1b}]0;title\u{7}",
        "\u{9b}31m\u{90}\u{9c}",
        "\u{202e}gnp.exe\u{2066}\u{200f}",
        "\u{2028}\u{2029}\u{85}",
        "\u{feff}\u{200b}\u{e0041}\u{301}",
        "nul\0nul",
        "\\u000a\\n\"}",
    ]
    .map(str::to_owned)
    .into();
    all.push("x".repeat(1 << 20));
    all.push("\u{202e}".repeat(5_000));
    all
}

/// Of every character of a text: it stays on its line, and does nothing there.
fn moves_nothing(text: &str) -> bool {
    text.chars()
        .all(|c| "'\"\\".contains(c) || c.escape_debug().len() == 1)
}

#[test]
fn hostile_names_are_harmless_in_the_log_and_on_a_terminal() {
    let machine = Machine::new(users()[0]);
    // Its name is in the log although no session is made.
    let mut calls = 0;
    for text in hostile() {
        let mut client = machine.client_that_is(&json!({ "name": text, "version": text }));
        for (tool, arguments) in [
            (
                "create_session",
                json!({ "projectPath": format!("/{text}") }),
            ),
            (
                "create_session",
                json!({ "projectPath": machine.project, "sessionName": text }),
            ),
            (
                "create_session",
                json!({ "projectPath": machine.project, "runtimeClass": text }),
            ),
            (
                "create_session",
                json!({ "projectPath": machine.project, "network": { "allow": [text] } }),
            ),
            (
                "create_session",
                json!({ "projectPath": machine.project, "idempotencyKey": text }),
            ),
            ("get_session", json!({ "sessionId": text })),
            ("list_sessions", json!({ text.as_str(): text })),
            (text.as_str(), json!({})),
        ] {
            let named = json!({ "name": tool, "arguments": arguments });
            // Refused or done, it is answered, and the server lives.
            let answer = client.request("tools/call", named);
            if let Ok(made) = &answer
                && let Some(session) = made["structuredContent"]["sessionId"].as_str()
            {
                client.destroy(session);
            }
            calls += 1;
        }
        client.tool("list_sessions", json!({})).expect("an answer");
    }
    paths_of_a_session(&machine);
    bytes_that_are_no_text(&machine);
    check(&machine, calls);
}

fn paths_of_a_session(machine: &Machine) {
    let mut client = machine.client();
    let session = client.create(&machine.project);
    for text in hostile() {
        let path = format!("/tmp/{}", text.replace('/', "_"));
        for (tool, arguments) in [
            (
                "execute_command",
                json!({ "sessionId": session, "command": "true", "cwd": path }),
            ),
            (
                "execute_command",
                json!({ "sessionId": session, "argv": [text], "env": { "X": text } }),
            ),
            (
                "transfer_files",
                json!({ "sessionId": session, "direction": "to_container", "sourcePath": path, "destPath": path }),
            ),
            (
                "execute_in_session",
                json!({ "sessionId": session, "prompt": "go", "model": text }),
            ),
            (
                "get_session_logs",
                json!({ "sessionId": session, "conversationId": text }),
            ),
        ] {
            let _ = client.tool(tool, arguments);
        }
    }
    client.destroy(&session);
}

/// A line that is no UTF-8, and a project whose name is none.
fn bytes_that_are_no_text(machine: &Machine) {
    let mut client = machine.client();
    client.send_bytes(b"{\"jsonrpc\":\"2.0\",\"id\":900,\"method\":\"tools/call\",\"params\":{\"name\":\"get_session\",\"arguments\":{\"sessionId\":\"\xff\xfe\x1b[2J\"}}}");
    client
        .tool("list_sessions", json!({}))
        .expect("the connection lives");
    let project = machine
        .project
        .join(OsStr::from_bytes(b"bad\xff\xfe\x1b[2J\n"));
    std::fs::create_dir(&project).expect("a directory");
    machine.give(&project);
    let created = machine
        .command(program())
        .args(["session", "create"])
        .arg(&project)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    drop(created);
}

fn check(machine: &Machine, calls: usize) {
    let log = std::fs::read(machine.audit_log()).expect("the log");
    let log = String::from_utf8(log).expect("the log is text");
    let mut next = 1;
    for line in log.lines() {
        let record: Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no record: {line}"));
        assert_eq!(record["seq"], json!(next), "{line}");
        assert_ne!(record["action"], "forged");
        assert!(line.len() < audit_max() && moves_nothing(line), "{line}");
        next += 1;
    }
    assert!(
        next > calls / 2,
        "the calls are on record: {next} of {calls}"
    );
    assert!(
        log.contains("\\\\u{202e}") && log.contains("\\\\u{1b}"),
        "the control: what was hostile is there, spelled out"
    );
    assert!(
        log.contains(&"x".repeat(40)),
        "and so is the beginning of what was too long"
    );
    assert!(machine.cli(&["audit", "verify"]).status.success());
    for arguments in [
        &["audit", "tail", "-n", "10000"][..],
        &["audit", "search"],
        &["audit", "tail", "-n", "10000", "--json"],
        &["audit", "export", "--format", "ocsf"],
        &["audit", "export", "--format", "cef"],
    ] {
        let shown = machine.cli(arguments);
        assert!(shown.status.success(), "{shown:?}");
        let text = String::from_utf8(shown.stdout).expect("text");
        assert_eq!(
            text.lines().count(),
            log.lines().count(),
            "{arguments:?}: one line for each record"
        );
        assert!(text.lines().all(moves_nothing), "{arguments:?}");
    }
    // Who could write the file could put anything there.
    let own = machine.base().join("own.jsonl");
    let first = log.lines().next().expect("a record");
    let hostile = first
        .replacen("server.", "\\u001b[2J\\u009b\\u202e", 1)
        .replacen("audit.", "\\u001b[2J\\u009b\\u202e", 1);
    assert_ne!(hostile, first);
    std::fs::write(&own, format!("{hostile}\n\u{1b}[2J no record\n")).expect("written");
    machine.give(&own);
    for arguments in [
        &["audit", "tail"][..],
        &["audit", "tail", "--json"],
        &["audit", "search"],
    ] {
        let shown = machine.cli(&[arguments, &[own.to_str().expect("a path")]].concat());
        let both = [shown.stdout, shown.stderr].concat();
        let text = String::from_utf8(both).expect("text");
        assert!(
            text.lines().all(moves_nothing) && text.lines().count() == 2,
            "{arguments:?}: {text}"
        );
    }
}

/// Longest line of the log, bytes: `audit::MAX_RECORD_BYTES`, which is no part of what a caller sees.
const fn audit_max() -> usize {
    8 * 1024
}
