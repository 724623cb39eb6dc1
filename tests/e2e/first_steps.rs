//! What whoever has just begun with the program meets before all is set up: no audit log, no key of a model provider, sessions
//! that are somebody else's.

use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::{
    http::ALL,
    support::{
        Machine,
        door::{HttpClient, HttpServer, key},
        program, users,
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

/// `server stop` went on without the flag that it could not take, and ended the server of another directory.
#[test]
fn a_wrong_flag_let_server_commands_act_on_another_server() {
    let mut machine = Machine::new(users()[0]);
    machine.set("CLAUDE_CODE_MCP_IDLE_EXIT_SECONDS", "600");
    good(&machine.cli(&["session", "list"]));
    let pid = machine.server_pid();
    let file = machine.base().join("nothing.toml").display().to_string();
    for command in ["status", "stop", "reload"] {
        let wrong = [
            ["--state-dir", "relative"],
            ["--set", "max_concurrent_sessions=many"],
            ["--config", &file],
        ];
        for [flag, value] in wrong {
            let refused = machine.cli(&[flag, value, "server", command]);
            assert_eq!(refused.status.code(), Some(2), "{command}: {refused:?}");
            let said = stderr(&refused);
            assert!(said.contains("configuration"), "{command} {flag}: {said}");
        }
    }
    assert_eq!(machine.server_pid(), pid);
    // The control.
    good(&machine.cli(&["server", "status"]));
    good(&machine.cli(&["server", "stop"]));
}

/// The command line closes standard input, and mostly too late: each time that was a denial on the audit log.
#[test]
fn the_end_of_standard_input_after_that_of_a_command_was_a_denial() {
    let machine = Machine::new(users()[0]);
    let mut client = machine.client();
    let session = client.create(&machine.project);
    for _ in 0..5 {
        good(&machine.cli(&["session", "exec", &session, "--", "true"]));
    }
    let arguments = json!({ "sessionId": session, "command": "true", "waitSeconds": 20 });
    let ended = client.tool("execute_command", arguments).expect("it ends");
    let mut respond = |close: bool, stdin: &str| {
        let mut arguments = json!({ "executionId": ended["executionId"], "close": close });
        if !stdin.is_empty() {
            arguments["stdin"] = json!(stdin);
        }
        client.tool("respond_execution", arguments)
    };
    let closed = respond(true, "").expect("done already");
    assert_eq!(closed["stdinClosed"], true, "{closed}");
    let denied = || {
        machine.cli(&[
            "audit",
            "search",
            "--action",
            "execution.stdin",
            "--result",
            "denied",
        ])
    };
    let none = denied();
    assert!(none.stdout.is_empty(), "{none:?}");
    // The controls: what is given to one that has ended is refused, and is on record.
    let refused = respond(true, "late").expect_err("refused");
    assert_eq!(refused["code"], "execution_ended");
    assert!(good(&denied()).contains("execution_ended"));
    client.destroy(&session);
}

/// The digits that people read of a session were no session to the log, and a number past its end was as good as any.
#[test]
fn the_audit_commands_took_words_that_fitted_nothing_without_a_word() {
    let machine = Machine::new(users()[0]);
    let mut client = machine.client();
    let session = client.create(&machine.project);
    let digits = session.trim_start_matches("s-");
    for named in [&session[..], digits, &digits[..8], &session[..10]] {
        let found = good(&machine.cli(&["audit", "search", "--session", named]));
        assert!(found.contains("session.create"), "{named}: {found}");
    }
    let none = machine.cli(&["audit", "search", "--session", "zzzz"]);
    assert_eq!(
        (none.status.code(), none.stdout.len()),
        (Some(1), 0),
        "{none:?}"
    );
    assert!(stderr(&none).contains("fits"), "{none:?}");
    good(&machine.cli(&["audit", "verify", "--from", "1"]));
    let past = machine.cli(&["audit", "verify", "--from", "99999"]);
    assert_eq!(past.status.code(), Some(2), "{past:?}");
    assert!(
        stderr(&past).contains("the log ends with record"),
        "{past:?}"
    );
    client.destroy(&session);
}

/// `completions bash | head` panicked.
#[test]
fn completions_that_nobody_reads_to_their_end_are_no_panic() {
    let machine = Machine::new(users()[0]);
    let mut child = machine
        .command(program())
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("its end");
    assert!(
        ended.status.success() && ended.stderr.is_empty(),
        "{ended:?}"
    );
    let whole = good(&machine.cli(&["completions", "bash"]));
    assert!(whole.contains("complete -F"), "the control");
}
