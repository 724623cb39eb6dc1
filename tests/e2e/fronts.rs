//! One server for many fronts (S1, D3).

use std::{collections::BTreeSet, process::Stdio, thread};

use serde_json::json;

use crate::support::{Machine, User, program, until, users};

#[test]
fn two_clients_and_the_command_line_share_one_server_one_list_and_one_audit_chain() {
    for user in users() {
        let machine = Machine::new(user);
        let mut first = machine.client();
        let mut second = machine.client();
        let session = first.create(&machine.project);
        let server = machine.server_pid();
        assert_eq!(second.output(&session, "echo shared"), "shared");
        let listed = machine.cli(&["session", "list", "--json"]);
        assert!(
            listed.status.success(),
            "{}",
            String::from_utf8_lossy(&listed.stderr)
        );
        assert!(String::from_utf8_lossy(&listed.stdout).contains(&session));
        let ran = machine.cli(&[
            "session",
            "exec",
            &session,
            "--",
            "sh",
            "-c",
            "echo cli; exit 3",
        ]);
        assert_eq!(
            ran.status.code(),
            Some(3),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "cli\n");
        assert_eq!(machine.server_pid(), server);
        assert!(first.close().success());
        assert_eq!(
            second.output(&session, "echo still"),
            "still",
            "a session outlives the client that made it"
        );
        let destroyed = machine.cli(&["session", "destroy", &session]);
        assert!(
            destroyed.status.success(),
            "{}",
            String::from_utf8_lossy(&destroyed.stderr)
        );
        assert!(second.close().success());
        machine.wait_for_server_end();
        let verified = machine.cli(&["audit", "verify"]);
        assert!(
            verified.status.success(),
            "{}",
            String::from_utf8_lossy(&verified.stderr)
        );
    }
}

#[test]
fn the_roots_that_a_client_is_configured_with_are_its_own_whoever_started_the_server() {
    let mut machine = Machine::new(User::Ordinary);
    let elsewhere = machine.base().join("elsewhere");
    std::fs::create_dir_all(elsewhere.join("project")).expect("a directory");
    for path in [elsewhere.clone(), elsewhere.join("project")] {
        machine.give(&path);
    }
    let mut first = machine.client();
    let on = json!({ "projectPath": elsewhere.join("project") });
    let refused = first
        .tool("create_session", on.clone())
        .expect_err("the control: nobody allowed it");
    assert_eq!(refused["code"], "path_not_allowed", "{refused:#}");
    machine.set(
        "CLAUDE_CODE_MCP_PROJECT_ROOTS",
        elsewhere.to_str().expect("text"),
    );
    let mut second = machine.client();
    let session = second.create_with(on.clone());
    second.destroy(&session);
    let refused = first
        .tool("create_session", on)
        .expect_err("still not the first one's");
    assert_eq!(refused["code"], "path_not_allowed", "{refused:#}");
}

#[test]
fn serve_takes_the_place_of_an_idle_server_and_of_no_other() {
    let mut machine = Machine::new(User::Ordinary);
    machine.set("CLAUDE_CODE_MCP_IDLE_EXIT_SECONDS", "600");
    let client = machine.client();
    let on_demand = machine.server_pid();
    let refused = || {
        let refused = machine.cli(&["serve"]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        String::from_utf8_lossy(&refused.stderr).into_owned()
    };
    let said = refused();
    assert!(
        said.contains("1 client)") && said.contains("server stop"),
        "{said}"
    );
    assert_eq!(machine.server_pid(), on_demand);
    assert!(client.close().success());
    let mut serving = machine
        .command(program())
        .arg("serve")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs");
    let pid = i32::try_from(serving.id()).ok();
    until("the other has left its place", || {
        machine.server_pid() == pid
    });
    let said = refused();
    assert!(said.contains("was started to stay"), "{said}");
    // It began with "no connection to the server".
    let place = format!("a server runs already (process {}, socket ", serving.id());
    assert!(
        said.contains(&place) && !said.contains("no connection"),
        "{said}"
    );
    assert_eq!(machine.server_pid(), pid);
    // Beside each other: as long as nobody has asked for its end, its process is still there.
    thread::scope(|scope| {
        let ended = scope.spawn(move || serving.wait().expect("its end"));
        assert!(machine.cli(&["server", "stop"]).status.success());
        assert!(ended.join().expect("no panic").success());
    });
}

#[test]
fn the_limit_of_sessions_is_exact_under_a_race() {
    let mut machine = Machine::new(User::Ordinary);
    machine.set("MAX_CONCURRENT_SESSIONS", "3");
    machine.client().close();
    let sessions: Vec<Result<String, String>> = thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = machine.client();
                    let created =
                        client.tool("create_session", json!({ "projectPath": machine.project }));
                    created
                        .map(|session| session["sessionId"].as_str().unwrap_or_default().to_owned())
                        .map_err(|error| error["code"].as_str().unwrap_or_default().to_owned())
                })
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().expect("no panic"))
            .collect()
    });
    let made: BTreeSet<_> = sessions.iter().flatten().collect();
    assert_eq!(made.len(), 3, "{sessions:?}");
    assert!(
        sessions
            .iter()
            .filter_map(|session| session.as_ref().err())
            .all(|code| code == "limit_reached")
    );
    let mut client = machine.client();
    for session in made {
        client.destroy(session);
    }
    let again = client.create(&machine.project);
    client.destroy(&again);
}

#[test]
fn one_idempotency_key_makes_one_session() {
    let machine = Machine::new(User::Ordinary);
    let mut client = machine.client();
    let arguments = json!({ "projectPath": machine.project, "idempotencyKey": "once" });
    let first = client.create_with(arguments.clone());
    assert_eq!(client.create_with(arguments), first);
    let other =
        json!({ "projectPath": machine.project, "idempotencyKey": "once", "ttlSeconds": 100 });
    assert_eq!(
        client
            .tool("create_session", other)
            .expect_err("a conflict")["code"],
        "idempotency_conflict"
    );
    client.destroy(&first);
}
