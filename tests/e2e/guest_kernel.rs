//! Sessions with a kernel of their own: the runtime class `runsc` (P1a, S6), over the attached standard streams.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    Client, Machine, User,
    client::missing_layers,
    engine::runtime,
    gvisor::Gvisor,
    image::{HOSTILE_CHANGES, IMAGE, make_image_at},
    until,
};

/// A machine of root whose sessions come from an engine that has gVisor, and that engine.
struct Place {
    machine: Machine,
    _engine: Gvisor,
}

fn place(leg: &str, classes: &str) -> Option<Place> {
    let engine = Gvisor::engine(leg)?;
    runtime().block_on(make_image_at(&engine.socket, IMAGE, HOSTILE_CHANGES));
    let mut machine = Machine::new(User::Root);
    machine
        .use_engine(&engine.socket)
        .set("DEFAULT_CLAUDE_IMAGE", IMAGE)
        .set("CLAUDE_CODE_MCP_RUNTIME_CLASSES", classes);
    Some(Place {
        machine,
        _engine: engine,
    })
}

fn layer<'reply>(created: &'reply Value, name: &str) -> &'reply Value {
    created["hardening"]["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .find(|layer| layer["layer"] == name)
        .expect("every layer is listed")
}

fn create(client: &mut Client, machine: &Machine, class: &str) -> Result<Value, Value> {
    client.tool(
        "create_session",
        json!({ "projectPath": machine.project, "runtimeClass": class }),
    )
}

#[test]
fn a_session_has_a_kernel_of_its_own_and_does_all_that_others_do() {
    let Some(place) = place("a session with gVisor", "runsc,runc") else {
        return;
    };
    let machine = &place.machine;
    machine.write("hello.txt", "hello");
    machine.write(".git/hooks/pre-commit", "#!/bin/sh\n");
    let before = machine.census();
    let mut client = machine.client();
    let info = client
        .tool("get_server_info", json!({}))
        .expect("an answer");
    assert_eq!(info["runtimeClasses"], json!(["runsc", "runc"]));
    let created = client
        .tool("create_session", json!({ "projectPath": machine.project }))
        .expect("the operator's first class");
    let session = created["sessionId"].as_str().expect("an id").to_owned();
    assert_eq!(
        layer(&created, "guestKernel")["inForce"],
        true,
        "{created:#}"
    );
    assert_eq!(missing_layers(&created), ["landlock"], "{created:#}");

    let host = fs::read_to_string("/proc/version").expect("the host's kernel");
    let guest = client.output(&session, "cat /proc/version");
    assert_ne!(guest, host.trim(), "its kernel is not the host's");
    let plain = create(&mut client, machine, "runc").expect("the other class");
    let plain = plain["sessionId"].as_str().expect("an id").to_owned();
    assert_eq!(
        client.output(&plain, "cat /proc/version").trim(),
        host.trim(),
        "the control"
    );

    assert_eq!(
        client.output(&session, "cat hello.txt; pwd; id -u"),
        "hello/workspace\n1000"
    );
    let refused = client.run(
        &session,
        "touch /x; echo evil > .git/hooks/pre-commit; touch made",
    );
    let errors = refused["stderr"]["text"].as_str().expect("errors");
    assert_eq!(errors.lines().count(), 2, "{errors}");
    let owner = |name: &str| {
        let found = fs::metadata(machine.project.join(name)).expect(name);
        std::os::unix::fs::MetadataExt::uid(&found)
    };
    assert_eq!(
        owner("made"),
        0,
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
    assert_eq!(
        fs::read_to_string(machine.project.join("copy.txt")).expect("the copy"),
        "hello"
    );
    let interfaces = client.output(&session, "sed -n '3,$s/:.*//p' /proc/net/dev");
    assert_eq!(interfaces.trim(), "lo");
    for session in [&session, &plain] {
        client.destroy(session);
    }
    drop(client);
    for name in ["made", "copy.txt"] {
        fs::remove_file(machine.project.join(name)).expect(name);
    }
    machine.wait_for_server_end();
    assert_eq!(machine.census(), before);
}

#[test]
fn a_killed_server_takes_its_session_up_again_over_the_streams() {
    let Some(place) = place("gVisor and kill -9", "runsc") else {
        return;
    };
    let machine = &place.machine;
    let mut client = machine.client();
    let created = create(&mut client, machine, "runsc").expect("a session");
    let session = created["sessionId"].as_str().expect("an id").to_owned();
    let started = client
        .tool(
            "execute_command",
            json!({ "sessionId": session, "waitSeconds": 0,
                    "command": "for n in 1 2 3 4 5 6; do echo $n; sleep 1; done; echo over" }),
        )
        .expect("an execution");
    let execution = started["executionId"].as_str().expect("an id").to_owned();
    let pid = machine.server_pid().expect("a server");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).expect("a pid"),
        rustix::process::Signal::KILL,
    )
    .expect("it is killed");
    drop(client);
    let mut client = machine.client();
    let mut seen = Value::Null;
    until("the execution's end", || {
        seen = client
            .tool(
                "get_execution",
                json!({ "executionId": execution, "waitSeconds": 5 }),
            )
            .unwrap_or_default();
        seen["state"] == "exited"
    });
    let text = seen["stdout"]["text"].as_str().expect("its output");
    assert_eq!(text, "1\n2\n3\n4\n5\n6\nover\n", "{seen:#}");
    assert_eq!(client.output(&session, "echo again"), "again");
    client.destroy(&session);
}

/// Writes (O_WRONLY and O_NONBLOCK, by number) to all that pid 1 has open: frames that end, one that is too long, none with the key.
const FORGE: &str = r#"
    $SIG{PIPE} = "IGNORE";
    for my $n (0 .. 30) {
        sysopen(my $f, "/proc/1/fd/$n", 2049) or next;
        syswrite($f, "\0" . "\x01\x02\x03" x 9 . "\0" . "A" x 70000 . "\0") and $reached++;
    }
    open(my $f, ">", "reached");
    print $f $reached + 0;
"#;

/// Reads, for two seconds, from all that pid 1 has open.
const STEAL: &str = r#"
    $SIG{ALRM} = sub { exit };
    alarm 2;
    for my $n (3 .. 30) { open(my $f, "<", "/proc/1/fd/$n") and push @f, $f }
    while (1) {
        my $ready = "";
        vec($ready, fileno($_), 1) = 1 for @f;
        select($ready, undef, undef, 0.05);
        for (@f) { sysread($_, $b, 65536) if vec($ready, fileno($_), 1) }
    }
"#;

/// This gVisor opens `/proc/1/fd` to whoever has the same uid, and with it both streams.
#[test]
fn the_agent_neither_speaks_for_the_supervisor_nor_ends_it() {
    let Some(place) = place("attacks on the streams", "runsc") else {
        return;
    };
    let machine = &place.machine;
    let mut client = machine.client();
    let created = create(&mut client, machine, "runsc").expect("a session");
    let session = created["sessionId"].as_str().expect("an id").to_owned();

    let signals = client.run(
        &session,
        "for s in KILL STOP TERM CONT; do kill -$s 1 && echo $s; done; sleep 60 & kill -KILL $! && echo control",
    );
    assert_eq!(signals["stdout"]["text"], "control\n", "{signals:#}");

    let forged = client.run(&session, &format!("perl -e '{FORGE}'"));
    assert_eq!(forged["state"], "exited", "{}", forged["message"]);
    let reached = fs::read_to_string(machine.project.join("reached")).expect("what it wrote");
    assert_ne!(reached, "0", "the control: this gVisor lets it");
    assert_eq!(
        client.output(&session, "echo still the supervisor"),
        "still the supervisor",
        "after {reached} descriptors were written to"
    );

    // Whoever takes what the server says is noticed, and gets nothing done in its place.
    let steal = format!("perl -e '{STEAL}'");
    let _ = client.tool(
        "execute_command",
        json!({ "sessionId": session, "command": steal, "waitSeconds": 0 }),
    );
    std::thread::sleep(Duration::from_secs(4));
    let mut answer = Err(Value::Null);
    until("the session works, or has ended with a reason", || {
        answer = client.tool(
            "execute_command",
            json!({ "sessionId": session, "command": "echo well" }),
        );
        match &answer {
            Ok(ran) => ran["stdout"]["text"] == "well\n",
            Err(error) => error["code"] == "session_failed",
        }
    });
    client.destroy(&session);
}

#[test]
fn a_class_that_does_not_keep_its_promise_is_refused() {
    let classes = "runsc,runsc-unfiltered=guest,runc=guest,nowhere=guest";
    let Some(place) = place("classes that lie", classes) else {
        return;
    };
    let machine = &place.machine;
    let mut client = machine.client();
    let mut refused = |class: &str| {
        let error = create(&mut client, machine, class).expect_err(class);
        (
            error["code"].as_str().unwrap_or_default().to_owned(),
            error["message"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let (code, message) = refused("runsc-unfiltered");
    assert_eq!(code, "hardening_not_in_force", "{message}");
    assert!(message.contains("Seccomp"), "{message}");
    let (code, message) = refused("runc");
    assert_eq!(code, "hardening_not_in_force", "{message}");
    assert!(message.contains("GuestKernel"), "{message}");
    let (code, message) = refused("nowhere");
    assert_eq!(code, "backend_unavailable", "{message}");
    assert!(
        message.contains("`nowhere`") && message.contains("runsc"),
        "{message}"
    );
    let (code, _) = refused("kata");
    assert_eq!(code, "policy_denied");
    let few = client
        .tool(
            "create_session",
            json!({ "projectPath": machine.project, "limits": { "pids": 64 } }),
        )
        .expect_err("too few tasks for a kernel");
    assert_eq!(few["field"], "limits.pids", "{few:#}");
    let native = client
        .tool(
            "create_session",
            json!({ "projectPath": machine.project, "backend": "native", "runtimeClass": "runsc" }),
        )
        .expect_err("no engine, no class");
    assert_eq!(native["field"], "runtimeClass", "{native:#}");
    let created = create(&mut client, machine, "runsc").expect("the control");
    client.destroy(created["sessionId"].as_str().expect("an id"));
}
