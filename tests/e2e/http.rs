//! The HTTP door of the real server (S1, P2a): with the official Python SDK, by keys and by access tokens, in both eras.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::{
    clients::{python, root},
    support::{
        Machine,
        door::{HttpServer, key},
        issuer::Issuer,
        skip, until, users,
    },
};

const AUDIENCE: &str = "http://localhost/mcp";
/// Scopes of whoever works.
pub(crate) const ALL: [&str; 3] = ["sessions:read", "sessions:run", "files"];

fn drive(server: &HttpServer, token: &str, mode: &str) -> Result<Value, String> {
    let script =
        std::fs::read_to_string(root().join("tests/clients/remote.py")).expect("the client");
    let output: Output = Command::new(python()?)
        .args(["-c", &script, &server.url, token, mode, "app"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(said);
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {said}"))
}

#[test]
fn the_python_sdk_by_http_with_a_key_until_it_is_revoked() {
    if let Err(why) = python() {
        return skip("python", &why);
    }
    for user in users() {
        let machine = Machine::new(user);
        machine.write("app/hello.txt", "hello");
        let server = HttpServer::start(&machine, &[]);
        let key = key(&machine, &ALL, &[]);
        for (mode, protocol) in [("legacy", "2025-11-25"), ("2026-07-28", "2026-07-28")] {
            let seen =
                drive(&server, &key, mode).unwrap_or_else(|said| panic!("{user:?} {mode}: {said}"));
            assert_eq!(seen["protocol"], protocol, "{seen}");
        }
        let id = key.split('_').nth(1).expect("an id");
        assert!(machine.cli(&["keys", "revoke", id]).status.success());
        assert_eq!(
            drive(&server, &key, "denied").expect("a report"),
            json!({ "denied": true })
        );
        let log = std::fs::read_to_string(machine.audit_log()).expect("the audit log");
        assert!(log.contains("auth.fail") && !log.contains(&key), "{user:?}");
    }
}

#[test]
fn the_python_sdk_by_http_with_access_tokens() {
    if let Err(why) = python() {
        return skip("python", &why);
    }
    let issuer = Issuer::start();
    let machine = Machine::new(users()[0]);
    machine.write("app/hello.txt", "hello");
    let set = [
        format!("oauth_issuers=[\"{}\"]", issuer.name()),
        format!("oauth_audience=\"{AUDIENCE}\""),
        format!("oauth_roots=[\"{}\"]", machine.project.display()),
    ];
    let set: Vec<&str> = set.iter().flat_map(|key| ["--set", key.as_str()]).collect();
    let server = HttpServer::start(&machine, &set);
    let good = issuer.claims(AUDIENCE, &ALL.join(" "));
    let token = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        issuer.token("ES256", &claims)
    };
    let seen = drive(&server, &token("sub", json!("somebody")), "auto");
    assert_eq!(
        seen.unwrap_or_else(|said| panic!("{said}"))["protocol"],
        "2026-07-28"
    );
    for (name, value) in [
        ("exp", json!(1_000_000)),
        ("aud", json!("https://other.example/mcp")),
        ("scope", json!("sessions:read")),
        ("iss", json!("https://other.example")),
    ] {
        let seen = drive(&server, &token(name, value), "denied");
        assert_eq!(
            seen.unwrap_or_else(|said| panic!("{name}: {said}")),
            json!({ "denied": true }),
            "{name}"
        );
    }
}

/// `server status` did not tell it.
#[test]
fn where_mcp_is_served_by_http_is_told_by_the_status_of_the_server() {
    let machine = Machine::new(users()[0]);
    let status = |arguments: &[&str]| {
        let told = machine.cli(arguments);
        assert!(told.status.success(), "{told:?}");
        String::from_utf8_lossy(&told.stdout).into_owned()
    };
    let server = HttpServer::start(&machine, &[]);
    until("it listens for commands", || {
        machine.cli(&["server", "status"]).status.success()
    });
    let told = status(&["server", "status"]);
    assert!(
        told.contains(&format!("http      {}", server.url)),
        "{told}"
    );
    let json: Value = serde_json::from_str(&status(&["server", "status", "--json"])).expect("JSON");
    assert_eq!(json["http"], server.url);
    server.kill();
    // The control: a server without that door.
    let client = machine.client();
    let told = status(&["server", "status"]);
    assert!(told.contains("http      not served"), "{told}");
    client.close();
}

/// What others could reach is not opened in the clear, nor where nobody could come in; and nothing is left of the try.
#[test]
fn a_door_that_must_not_be_open_is_not_opened() {
    let machine = Machine::new(users()[0]);
    for (arguments, code, said) in [
        (&["serve", "--http", "0.0.0.0:0"][..], 2, "http_tls_cert"),
        (
            &[
                "serve",
                "--http",
                "0.0.0.0:0",
                "--behind-proxy",
                "127.0.0.1",
                "--set",
                "http_hosts=[\"a.example\"]",
            ],
            1,
            "keys create",
        ),
        (&["serve", "--http", "localhost:0"], 2, "127.0.0.1:7860"),
        // It spoke of `--set`, which nobody had typed.
        (&["serve", "--http", "nonsense"], 2, "in the flag --http is"),
        (
            &["serve", "--set", "http_listen=nonsense"],
            2,
            "in the flag --set is",
        ),
        (
            &[
                "serve",
                "--http",
                "127.0.0.1:0",
                "--set",
                "http_origins=[\"*\"]",
            ],
            2,
            "http_origins",
        ),
    ] {
        let output = machine.cli(arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(told.contains(said), "{arguments:?}: {told}");
    }
    assert_eq!(machine.server_pid(), None);
}
