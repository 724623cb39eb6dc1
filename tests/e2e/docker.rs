//! The same journeys with walls from a Docker engine (S6, T1.3, T2.*, T3.4).

use std::{fs, io::Read, os::unix::net::UnixListener, path::Path};

use serde_json::json;

use crate::support::{
    Machine, User,
    client::missing_layers,
    engine::{self, machine},
    image::ENGINE_SOCKET,
    until,
};

/// How many containers bear that name, running or not.
fn containers(name: &str) -> usize {
    engine::containers(Path::new(ENGINE_SOCKET), name).len()
}

#[test]
fn a_session_on_an_engine_from_create_to_destroy() {
    let Some(machine) = machine("a session on an engine") else {
        return;
    };
    machine.write("hello.txt", "hello");
    machine.write(".git/hooks/pre-commit", "#!/bin/sh\n");
    let before = machine.census();
    let mut client = machine.client();
    let created = client
        .tool(
            "create_session",
            json!({ "projectPath": machine.project, "limits": { "memoryBytes": 268_435_456 } }),
        )
        .expect("a session");
    let session = created["sessionId"].as_str().expect("an id").to_owned();
    let name = created["containerName"]
        .as_str()
        .expect("a name")
        .to_owned();
    assert_eq!(created["backend"], "docker", "{created:#}");
    assert_eq!(containers(&name), 1, "{name}");
    assert_eq!(
        missing_layers(&created),
        ["userNamespace", "guestKernel"],
        "{created:#}"
    );

    assert_eq!(
        client.output(&session, "cat hello.txt; pwd; id -u"),
        "hello/workspace\n1000"
    );
    let status = client.output(&session, "cat /proc/self/status");
    for line in ["NoNewPrivs:\t1", "CapBnd:\t0000000000000000", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    let refused = client.run(
        &session,
        "touch /x; echo evil > .git/hooks/pre-commit; touch made",
    );
    let errors = refused["stderr"]["text"].as_str().expect("errors");
    assert_eq!(
        errors.matches("Read-only file system").count(),
        2,
        "{errors}"
    );
    assert_eq!(
        fs::metadata(machine.project.join("made"))
            .map(|made| std::os::unix::fs::MetadataExt::uid(&made))
            .ok(),
        Some(0),
        "what the agent makes is the project's owner's"
    );
    client
        .tool(
            "transfer_files",
            json!({
                "sessionId": session, "direction": "from_container",
                "sourcePath": "/workspace/hello.txt", "destPath": machine.project.join("copy.txt"),
            }),
        )
        .expect("a transfer");
    fs::remove_file(machine.project.join("copy.txt")).expect("the copy");
    fs::remove_file(machine.project.join("made")).expect("what was made");

    client.destroy(&session);
    assert_eq!(containers(&name), 0, "{name}");
    assert_eq!(machine.census(), before);
    let verified = machine.cli(&["audit", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn a_session_on_an_engine_outlives_a_killed_server() {
    let Some(machine) = machine("a killed server") else {
        return;
    };
    let mut client = machine.client();
    let session = client.create(&machine.project);
    let running = client
        .tool(
            "execute_command",
            json!({ "sessionId": session, "command": "sleep 1; echo late", "waitSeconds": 0 }),
        )
        .expect("an execution");
    let server = machine.server_pid().expect("a server");
    let server = rustix::process::Pid::from_raw(server).expect("its pid");
    rustix::process::kill_process(server, rustix::process::Signal::KILL).expect("killed");
    drop(client);
    until("the server is gone", || machine.server_pid().is_none());
    let mut client = machine.client();
    assert_eq!(client.output(&session, "echo at once"), "at once");
    let late = client
        .tool(
            "get_execution",
            json!({ "executionId": running["executionId"], "waitSeconds": 10 }),
        )
        .expect("the execution");
    assert_eq!(late["stdout"]["text"], "late\n", "{late:#}");
    client.destroy(&session);
}

#[test]
fn one_server_has_sessions_of_both_backends() {
    let Some(machine) = machine("both backends") else {
        return;
    };
    let mut client = machine.client();
    let sessions: Vec<_> = ["docker", "native"]
        .iter()
        .map(|backend| {
            let arguments = json!({ "projectPath": machine.project, "backend": backend });
            let created = client.tool("create_session", arguments).expect("a session");
            assert_eq!(created["backend"], *backend);
            created["sessionId"].as_str().expect("an id").to_owned()
        })
        .collect();
    client.output(&sessions[0], "echo from the engine > shared");
    assert_eq!(client.output(&sessions[1], "cat shared"), "from the engine");
    for session in &sessions {
        client.destroy(session);
    }
    assert!(
        !machine.project.join(".envrc").exists(),
        "the last session removes the placeholders of both"
    );
}

#[test]
fn the_doctor_and_the_command_line_know_the_engine() {
    let Some(mut machine) = machine("doctor on an engine") else {
        return;
    };
    machine.set("CLAUDE_CODE_MCP_BACKEND", "native");
    let doctor = |machine: &Machine| -> serde_json::Value {
        let told = machine.cli(&["doctor", "--json"]);
        serde_json::from_slice(&told.stdout).expect("a report")
    };
    let report = doctor(&machine);
    let engine = report["docker"]["versions"]["engine"].as_str();
    assert!(
        engine.is_some_and(|version| !version.is_empty()),
        "{report:#}"
    );
    let advisories = report["docker"]["advisories"].as_array().expect("a list");
    let problem = |found: &&serde_json::Value| {
        let verdict = found["verdict"].as_str().expect("a verdict");
        !["fixed", "blocked"].contains(&verdict)
    };
    assert!(advisories.len() > 15, "{report:#}");
    for found in advisories.iter().filter(problem) {
        assert!(
            found["remedy"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{found:#}"
        );
    }
    assert_eq!(report["docker"]["usable"], true, "{report:#}");
    assert_eq!(report["docker"]["equalsRoot"], true, "{report:#}");
    let created = machine.cli(&["session", "create", "--backend", "docker", "--json"]);
    let session: serde_json::Value = serde_json::from_slice(&created.stdout).expect("a session");
    assert_eq!(session["backend"], "docker", "{session:#}");
    let id = session["sessionId"].as_str().expect("an id");
    let ran = machine.cli(&["session", "exec", id, "--", "id", "-u"]);
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "1000\n");
    assert!(machine.cli(&["session", "destroy", id]).status.success());
    machine.set("DEFAULT_CLAUDE_IMAGE", "no-such-image:ever");
    let report = doctor(&machine);
    assert_eq!(report["docker"]["usable"], false, "{report:#}");
    assert!(report["docker"].to_string().contains("no-such-image:ever"));
    assert_eq!(
        report["ok"], true,
        "the embedded runtime works all the same"
    );
}

/// Nothing of what a sandbox can do is taken from a version: it is tried, and the engine's own words about its container are
/// judged.
#[test]
fn the_doctor_tries_the_walls_of_the_engine() {
    let Some(mut machine) = machine("the walls of an engine, tried") else {
        return;
    };
    let before = machine.census();
    let told = machine.cli(&["doctor", "--probe", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&told.stdout).expect("a report");
    assert!(told.status.success(), "{report:#}");
    let walls = &report["docker"]["walls"];
    assert_eq!(
        (&walls["ok"], &walls["kernel"]),
        (&json!(true), &json!("shared"))
    );
    let list = |value: &serde_json::Value| value.as_array().expect("a list").clone();
    let probes = list(&walls["probes"]);
    assert!(probes.len() > 20, "{walls:#}");
    for probe in &probes {
        let wanted = if probe["reliedOn"] == true {
            "blocked"
        } else {
            "possible"
        };
        assert_eq!(probe["outcome"], wanted, "{probe:#}");
    }
    let items = list(&walls["benchmark"]);
    assert_eq!(items.len(), 32, "{walls:#}");
    assert!(
        items.iter().all(|item| item["state"] != "fail"),
        "{walls:#}"
    );
    let by_behavior = |report: &serde_json::Value| {
        let advisories = list(&report["docker"]["advisories"]);
        let blocked = |found: &&serde_json::Value| {
            found["behavior"] == "blocked" && found["verdict"] == "blocked"
        };
        advisories.iter().filter(blocked).count()
    };
    assert!(by_behavior(&report) >= 9, "{report:#}");
    let access = &report["docker"]["access"];
    assert_eq!(
        (&access["kind"], &access["equalsRoot"]),
        (&json!("rootful"), &json!(true))
    );
    assert_eq!(access["socket"]["listenerUid"], 0, "{access:#}");
    assert!(list(&access["why"]).len() >= 3, "{access:#}");
    assert_eq!(machine.census(), before, "nothing stays");

    // People get it short, unless they ask.
    let text = |arguments: &[&str]| String::from_utf8(machine.cli(arguments).stdout).expect("text");
    let (short, long) = (
        text(&["doctor", "--probe"]),
        text(&["doctor", "--probe", "--verbose"]),
    );
    assert!(
        short.contains("0 possible") && !short.contains("hostDescriptor"),
        "{short}"
    );
    assert!(
        long.contains("hostDescriptor") && long.contains("5.32"),
        "{long}"
    );

    // Walls that could not be tried were not found to hold.
    machine.set("DEFAULT_CLAUDE_IMAGE", "no-such-image:ever");
    for (arguments, code) in [
        (&["doctor", "--json"][..], Some(0)),
        (&["doctor", "--probe", "--json"], Some(1)),
    ] {
        machine.set("CLAUDE_CODE_MCP_BACKEND", "native");
        let told = machine.cli(arguments);
        assert_eq!(told.status.code(), code, "{told:?}");
        let report: serde_json::Value = serde_json::from_slice(&told.stdout).expect("a report");
        assert_eq!(by_behavior(&report), 0, "{report:#}");
        if code == Some(1) {
            let problems = report["docker"]["walls"]["problems"].to_string();
            assert!(problems.contains("no-such-image:ever"), "{problems}");
        }
    }
}

#[test]
fn an_engine_is_chosen_where_it_has_the_image_and_only_there() {
    let Some(mut machine) = machine("the choice of a backend") else {
        return;
    };
    machine.set("CLAUDE_CODE_MCP_BACKEND", "auto");
    let chosen = |machine: &Machine| {
        let mut client = machine.client();
        let info = client
            .tool("get_server_info", json!({}))
            .expect("an answer");
        assert!(client.close().success());
        machine.wait_for_server_end();
        info["backend"].as_str().expect("a name").to_owned()
    };
    assert_eq!(chosen(&machine), "docker");
    machine.set("DEFAULT_CLAUDE_IMAGE", "no-such-image:ever");
    assert_eq!(chosen(&machine), "native");
    let mut client = machine.client();
    let refused = client
        .tool(
            "create_session",
            json!({ "projectPath": machine.project, "backend": "docker" }),
        )
        .expect_err("no image");
    assert_eq!(refused["code"], "backend_unavailable", "{refused:#}");
    let text = refused.to_string();
    assert!(text.contains("no-such-image:ever"), "{text}");
}

/// That it is left after two seconds already is `engine_faults`' to show.
#[test]
fn an_engine_that_hangs_keeps_no_server_from_starting() {
    let mut machine = Machine::new(User::Root);
    let socket = machine.base().join("engine.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    // Takes what is said to it, and is silent.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || stream.read_to_end(&mut Vec::new()));
        }
    });
    machine
        .set("CLAUDE_CODE_MCP_BACKEND", "auto")
        .set("DOCKER_HOST", &format!("unix://{}", socket.display()));
    let mut client = machine.client();
    let session = client.create(&machine.project);
    assert_eq!(client.output(&session, "echo works"), "works");
    client.destroy(&session);
}
