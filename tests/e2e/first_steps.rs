//! What whoever has just begun with the program meets before all is set up: no audit log, no key of a model provider, sessions
//! that are somebody else's.

use std::process::Output;

use serde_json::{Value, json};

use crate::{
    http::ALL,
    support::{
        Machine,
        door::{HttpClient, HttpServer, key},
        users,
    },
};

const AUDIT_COMMANDS: [&str; 4] = ["verify", "tail", "search", "export"];

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn good(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `verify` said that its files change all the time, the others that there is no such file.
#[test]
fn without_an_audit_log_each_command_failed_in_another_way_and_none_said_that_there_is_none() {
    let machine = Machine::new(users()[0]);
    let log = machine.audit_log();
    for command in AUDIT_COMMANDS {
        let refused = machine.cli(&["audit", command]);
        assert_eq!(refused.status.code(), Some(1), "{command}: {refused:?}");
        assert!(refused.stdout.is_empty(), "{command}: {refused:?}");
        let said = stderr(&refused);
        let first = format!("error: there is no audit log at {} yet\n", log.display());
        assert!(said.starts_with(&first), "{command}: {said}");
        assert!(
            said.contains("hint: The first server that starts makes it"),
            "{said}"
        );
    }
    // The control: what the advice says is all that was missing.
    good(&machine.cli(&["session", "list"]));
    for command in AUDIT_COMMANDS {
        let done = machine.cli(&["audit", command]);
        assert!(!good(&done).is_empty(), "{command}");
    }
}

/// `run` made a session for a prompt that nobody could answer, destroyed it, and named a transcript that there was not.
#[test]
fn a_run_without_a_key_of_a_provider_made_a_session_and_named_its_transcript() {
    let mut machine = Machine::new(users()[0]);
    machine.set("CLAUDE_CODE_MCP_IDLE_EXIT_SECONDS", "600");
    let refused = machine.cli(&["run", "--prompt", "work"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = stderr(&refused);
    assert!(
        said.contains("provider_unavailable") && said.contains("ANTHROPIC_API_KEY"),
        "{said}"
    );
    assert!(!said.contains("transcript"), "{said}");
    let listed = || {
        let listed = machine.cli(&["session", "list", "--all", "--json"]);
        let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
        listed["sessions"].as_array().expect("sessions").len()
    };
    assert_eq!(listed(), 0);
    // The control: sessions can be made here, and are on that list; what is refused in one is the same.
    let mut client = machine.client();
    let session = client.create(&machine.project);
    assert_eq!(listed(), 1);
    let arguments = json!({ "sessionId": session, "prompt": "work" });
    let alike = client
        .tool("execute_in_session", arguments)
        .expect_err("refused");
    let json = machine.cli(&["run", "--prompt", "work", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["error"], alike);
    // A session without a prompt has no conversation; no id was wrong.
    let none = stderr(&machine.cli(&["session", "transcript", &session]));
    assert!(
        none.contains("conversation_not_found") && none.contains("nobody gave it a prompt"),
        "{none}"
    );
    client.destroy(&session);
}

/// `server stop` named `session destroy --all`, which finds sessions of one's own alone.
#[test]
fn a_stop_that_a_session_of_a_key_keeps_back_is_told_whose_it_is_and_what_ends_it() {
    let machine = Machine::new(users()[0]);
    machine.write("app/hello.txt", "hello");
    let server = HttpServer::start(&machine, &[]);
    let key = key(&machine, &ALL, &[]);
    let id = key.split('_').nth(1).expect("an id");
    let mut client = HttpClient::connect(&server, &key);
    let asked = json!({ "projectPath": "app" });
    client.tool("create_session", asked).expect("a session");
    let whose = format!("1 of key:{id}");
    let refused = machine.cli(&["server", "stop"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = stderr(&refused);
    assert!(
        said.contains(&format!("1 session still live: {whose};")),
        "{said}"
    );
    assert!(
        said.contains("keys revoke KEY --destroy-sessions"),
        "{said}"
    );
    assert!(!said.contains("session destroy"), "{said}");
    let status = good(&machine.cli(&["server", "status"]));
    assert!(status.contains(&format!("1 live: {whose}")), "{status}");
    let status = good(&machine.cli(&["server", "status", "--json"]));
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["ownSessions"], 0, "{status}");
    assert_eq!(
        status["otherSessions"],
        json!([{ "owner": format!("key:{id}"), "sessions": 1 }])
    );
    for command in [&["session", "list"][..], &["session", "destroy", "--all"]] {
        let own = machine.cli(command);
        assert!(good(&own).contains("no session"), "{own:?}");
        assert!(stderr(&own).contains(&whose), "{own:?}");
    }
    // What was named works.
    good(&machine.cli(&["keys", "revoke", id, "--destroy-sessions"]));
    let alone = machine.cli(&["session", "list"]);
    assert!(stderr(&alone).is_empty(), "{alone:?}");
    let status = good(&machine.cli(&["server", "status"]));
    assert!(status.contains("sessions  0 live\n"), "{status}");
}
