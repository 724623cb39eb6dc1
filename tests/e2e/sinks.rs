//! A4: sinks of a real server: what the log has, they get, the last records of the server included; a webhook that hangs
//! holds up no call and no end; `doctor` tells.

use std::{fs, net::TcpListener, time::Instant};

use serde_json::{Value, json};

use crate::support::{Machine, PATIENCE, users};

#[test]
fn sinks_get_what_the_log_has_and_a_hanging_one_holds_up_nothing() {
    let mut machine = Machine::new(users()[0]);
    let place = machine.base().join("second");
    fs::create_dir(&place).expect("a directory");
    machine.give(&place);
    let second = place.join("audit.jsonl");
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a port");
    let sinks = format!(
        "{{ copy = {{ kind = \"file\", path = \"{}\" }}, siem = {{ kind = \"webhook\", url = \"http://{}/\" }}, own = {{ kind = \"stderr\" }} }}",
        second.display(),
        hanging.local_addr().expect("its address")
    );
    machine.set("CLAUDE_CODE_MCP_AUDIT_SINKS", &sinks);
    let mut client = machine.client();
    let session = client.create(&machine.project);
    let _connected = hanging.accept().expect("the webhook is asked");
    assert_eq!(client.output(&session, "echo still here"), "still here");
    client.destroy(&session);
    drop(client);
    let ending = Instant::now();
    machine.wait_for_server_end();
    assert!(ending.elapsed() < PATIENCE);
    let log = fs::read(machine.audit_log()).expect("the log");
    assert!(String::from_utf8_lossy(&log).contains("server.stop"));
    let second = fs::read(&second).expect("the second file");
    assert!(String::from_utf8_lossy(&second).contains("server.stop"));
    // The log signs its end when nobody can read on any more; that record comes with the next server.
    assert!(log.starts_with(&second), "the second file is the log");
    let told = machine.cli(&["doctor", "--json"]);
    let told: Value = serde_json::from_slice(&told.stdout).expect("a report");
    let of = |name: &str| {
        let sinks = told["auditSinks"].as_array().expect("sinks");
        sinks
            .iter()
            .find(|sink| sink["name"] == name)
            .expect("the sink")
            .clone()
    };
    let copy = of("copy");
    assert!(
        copy["waiting"].as_u64() <= Some(1) && copy["missed"] == 0 && copy.get("problem").is_none(),
        "{told:#}"
    );
    assert!(of("siem")["waiting"].as_u64() > Some(5), "{told:#}");
    let server_log =
        fs::read_to_string(machine.state().join("server.log")).expect("the server's log");
    assert!(
        server_log.contains("nobody reads standard error"),
        "{server_log}"
    );
}

#[test]
fn a_tail_that_follows_shows_what_comes() {
    use std::{
        io::{BufRead, BufReader},
        process::Stdio,
    };
    let machine = Machine::new(users()[0]);
    let mut client = machine.client();
    client.tool("list_sessions", json!({})).expect("an answer");
    let mut tail = machine
        .command(crate::support::program())
        .args([
            "audit",
            "tail",
            "-n",
            "9",
            "--follow",
            "--action",
            "session.create",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(tail.stdout.take().expect("its output")).lines();
    let session = client.create(&machine.project);
    let intent = lines.next().expect("a line").expect("text");
    assert!(
        intent.contains("intent") && intent.contains("session.create"),
        "{intent}"
    );
    let result = lines.next().expect("a line").expect("text");
    assert!(
        result.contains("result") && result.contains(&session[..14]),
        "{result}"
    );
    tail.kill().expect("killed");
    tail.wait().expect("ended");
    client.destroy(&session);
    let found = machine.cli(&[
        "audit",
        "search",
        "--action",
        "session.*",
        "--session",
        &session,
        "--actor",
        "nobody",
    ]);
    assert_eq!(found.status.code(), Some(1), "nothing fits");
}
