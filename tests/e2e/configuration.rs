//! The configuration of a server that runs: read again on SIGHUP and `server reload`, whole or not at all, on record, without a
//! call being lost (E1, E2, A1), and what the commands of `config` tell without a server.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Output,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    network::server,
    support::{Client, Machine, User, until, users},
};

/// A machine whose servers read this file.
struct Configured {
    machine: Machine,
    file: PathBuf,
}

impl Configured {
    fn new(text: &str) -> Self {
        let mut machine = Machine::new(users()[0]);
        let file = machine.base().join("config.toml");
        machine.set("CLAUDE_CODE_MCP_CONFIG", &file.display().to_string());
        let configured = Configured { machine, file };
        configured.write(text);
        configured
    }

    /// As editors do: another file takes its place.
    fn write(&self, text: &str) {
        let new = self.file.with_extension("new");
        fs::write(&new, text).expect("a file");
        fs::rename(&new, &self.file).expect("its place");
    }

    fn hang_up(&self) {
        let pid = self.machine.server_pid().expect("a server");
        let pid = Pid::from_raw(pid).expect("a pid");
        kill_process(pid, Signal::HUP).expect("a signal");
    }

    fn records(&self, action: &str) -> Vec<Value> {
        let log = fs::read_to_string(self.machine.audit_log()).expect("the audit log");
        let records = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records
            .filter(|record| record["action"] == action)
            .collect()
    }

    /// The change of a key, once it is on record that often.
    fn change(&self, key: &str, times: usize) -> Value {
        let of_key = || {
            let changes = self.records("server.config_change").into_iter();
            changes
                .filter(|record| record["parameters"]["key"] == key)
                .collect::<Vec<_>>()
        };
        until("it is on record", || of_key().len() >= times);
        let mut changes = of_key();
        assert_eq!(changes.len(), times, "{changes:?}");
        changes.pop().expect("a record")
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn status(client: &mut Client, session: &str, port: u16) -> String {
    let line = format!(
        "env -u NO_PROXY -u no_proxy curl -sS --max-time 10 -w ' %{{http_code}}' http://localhost:{port}/"
    );
    let answer = client.output(session, &line);
    answer
        .rsplit(' ')
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// A server that begins an answer and never ends it.
fn endless() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun");
            kept.push(stream);
        }
    });
    port
}

/// What is written where sessions may reach these ports.
fn reaching(ports: &[u16], more: &str) -> String {
    let hosts: Vec<_> = ports
        .iter()
        .map(|port| format!("\"localhost:{port}\""))
        .collect();
    let hosts = hosts.join(", ");
    format!("network_allow = [{hosts}]\nnetwork_private = [{hosts}]\n{more}")
}

#[test]
fn a_hangup_takes_from_what_runs_and_gives_to_what_comes_and_a_wrong_file_changes_nothing() {
    let (kept, taken) = (server(), endless());
    let configured = Configured::new(&reaching(&[kept, taken], "default_session_timeout = 600"));
    let machine = &configured.machine;
    let mut client = machine.client();
    let network = |ports: &[u16]| {
        let hosts: Vec<_> = ports
            .iter()
            .map(|port| format!("localhost:{port}"))
            .collect();
        json!({ "projectPath": machine.project, "network": { "allow": hosts } })
    };
    let session = client.create_with(network(&[kept, taken]));
    let open = json!({
        "sessionId": session, "waitSeconds": 0,
        "command": format!("env -u NO_PROXY -u no_proxy curl -sSN --max-time 60 http://localhost:{taken}/"),
    });
    let open = client.tool("execute_command", open).expect("an execution");
    let look = |client: &mut Client, wait: u64| {
        let look = json!({ "executionId": open["executionId"], "waitSeconds": wait });
        client.tool("get_execution", look).expect("it")
    };
    until("its answer has begun", || {
        look(&mut client, 1)["stdout"].to_string().contains("begun")
    });

    configured.write(&reaching(&[kept], "default_session_timeout = 1200"));
    configured.hang_up();
    let record = configured.change("network_allow", 1);
    let parameters = &record["parameters"];
    assert_eq!(parameters["applies"], "at_once");
    assert!(
        parameters["old_value"]
            .as_str()
            .is_some_and(|old| old.contains(&taken.to_string()))
            && !parameters["new_value"]
                .to_string()
                .contains(&taken.to_string()),
        "{record}"
    );
    until("what was open is closed", || {
        look(&mut client, 1)["state"] == "exited"
    });
    assert_ne!(look(&mut client, 0)["exitCode"], 0);
    assert_eq!(status(&mut client, &session, taken), "403");
    assert_eq!(status(&mut client, &session, kept), "200");
    let info = client.tool("get_server_info", json!({})).expect("it");
    assert_eq!(info["defaultSessionTimeoutSeconds"], 1200, "{info}");
    let past = client.tool("create_session", network(&[kept, taken]));
    assert_eq!(past.expect_err("a refusal")["code"], "network_not_allowed");

    // Wrong in two places: all of it is told, nothing of it counts.
    configured.write(&reaching(
        &[taken],
        "default_session_timeout = 0\ncolour = 1",
    ));
    let reloaded = machine.cli(&["server", "reload"]);
    let told = said(&reloaded);
    assert_eq!(reloaded.status.code(), Some(1), "{told}");
    for words in [
        "config.toml:3: `default_session_timeout`",
        "config.toml:4: unknown key `colour`",
    ] {
        assert!(told.contains(words), "{told}");
    }
    configured.hang_up();
    until("both are on record", || {
        configured.records("server.config_rejected").len() == 2
    });
    let rejected = configured.records("server.config_rejected");
    assert_eq!(rejected[0]["parameters"]["problems"], 2, "{rejected:?}");
    assert_eq!(status(&mut client, &session, kept), "200");
    assert_eq!(status(&mut client, &session, taken), "403");

    // Wider for what comes; what needs a restart is said, and does not count.
    configured.write(&reaching(&[kept, taken], "image_max_age = \"30d\""));
    let reloaded = machine.cli(&["server", "reload", "--json"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    let reloaded: Value = serde_json::from_str(&said(&reloaded)).expect("JSON");
    assert_eq!(reloaded["outcome"], "changed");
    assert_eq!(reloaded["needsRestart"], json!(["image_max_age"]));
    assert_eq!(status(&mut client, &session, taken), "403");
    let wider = client.create_with(network(&[kept, taken]));
    assert_eq!(status(&mut client, &wider, kept), "200");
    configured.change("image_max_age", 1);
    let unchanged = said(&machine.cli(&["server", "reload"]));
    assert!(
        unchanged.contains("nothing is configured otherwise")
            && unchanged.contains("image_max_age"),
        "{unchanged}"
    );
    assert!(machine.cli(&["audit", "verify"]).status.success());
    client.destroy(&session);
    client.destroy(&wider);
}

#[test]
fn a_hundred_hangups_lose_no_call() {
    let port = server();
    let (one, other) = (
        reaching(&[port], "default_idle_timeout = 900"),
        reaching(&[port, 9], "default_idle_timeout = 901"),
    );
    let configured = Configured::new(&one);
    let mut client = configured.machine.client();
    let network = json!({ "allow": [format!("localhost:{port}")] });
    let asked = json!({ "projectPath": configured.machine.project, "network": network });
    let session = client.create_with(asked);
    let before = configured.machine.server_pid();
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..100 {
                configured.write(if turn % 2 == 0 { &other } else { &one });
                configured.hang_up();
                thread::sleep(Duration::from_millis(5));
            }
        });
        for call in 0..20 {
            let said = client.output(&session, &format!("echo {call}"));
            assert_eq!(said, call.to_string());
            assert_eq!(status(&mut client, &session, port), "200");
        }
    });
    assert_eq!(configured.machine.server_pid(), before);
    until("some were read", || {
        configured.records("server.config_change").len() >= 2
    });
    assert!(configured.records("server.config_rejected").is_empty());
    assert!(
        configured
            .machine
            .cli(&["audit", "verify"])
            .status
            .success()
    );
    client.destroy(&session);
}

#[test]
fn a_secret_in_the_configuration_is_shown_and_recorded_by_nobody() {
    const CANARY: &str = "canary-5c1d";
    let command = |word: &str| {
        format!(
            "auth_token_command = [\"/bin/echo\", \"{CANARY}-{word}\"]\n[credentials.hub]\ncommand = [\"/bin/echo\", \"{CANARY}-{word}\"]\ndestinations = [\"hub.example\"]\n"
        )
    };
    let mut configured = Configured::new(&command("one"));
    configured
        .machine
        .set("ANTHROPIC_API_KEY", &format!("{CANARY}-key"));
    let client = configured.machine.client();
    configured.write(&command("two"));
    let machine = &configured.machine;
    let reloaded = machine.cli(&["server", "reload"]);
    assert!(said(&reloaded).contains("auth_token_command counts for new sessions"));
    let record = configured.change("auth_token_command", 1);
    assert_ne!(record["parameters"]["old"], record["parameters"]["new"]);
    configured.change("credentials", 1);
    for arguments in [
        &["config", "show"][..],
        &["config", "show", "--effective"],
        &["config", "show", "--effective", "--json"],
        &["config", "check", "--json"],
        &["server", "reload", "--json"],
    ] {
        let output = machine.cli(arguments);
        let told = format!(
            "{}{}",
            said(&output),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!told.contains(CANARY), "{arguments:?}: {told}");
        assert!(output.status.success(), "{arguments:?}: {told}");
    }
    let shown = said(&machine.cli(&["config", "show"]));
    assert!(
        shown.contains("ANTHROPIC_API_KEY") && shown.contains("/bin/echo"),
        "{shown}"
    );
    for file in ["audit.jsonl", "server.log"] {
        let text = fs::read(machine.state().join(file)).expect("a file");
        assert!(!String::from_utf8_lossy(&text).contains(CANARY), "{file}");
    }
    drop(client);
}

#[test]
fn a_configuration_is_checked_without_a_server() {
    let configured = Configured::new("lease_second = 1\nmax_concurrent_sessions = 0\n");
    let machine = &configured.machine;
    let checked = machine.cli(&["config", "check"]);
    let told = said(&checked);
    assert_eq!(checked.status.code(), Some(1));
    for words in [
        "config.toml:1: error[unknown_key]: unknown key `lease_second`",
        "config.toml:2: error[out_of_range]: `max_concurrent_sessions`",
        "what to do: ",
        "2 problems",
    ] {
        assert!(told.contains(words), "{told}");
    }
    // What it leads to is looked at too: files that are named, and what the policy says of it as a whole.
    let other = configured.file.with_extension("other");
    fs::write(
        &other,
        "api_key_file = \"/nowhere/key\"\nnetwork_private = [\"a.example\"]\n",
    )
    .expect("a file");
    let other = other.display().to_string();
    let checked = machine.cli(&["config", "check", &other, "--json"]);
    let found: Value = serde_json::from_str(&said(&checked)).expect("JSON");
    let keys: Vec<_> = found["problems"]
        .as_array()
        .expect("problems")
        .iter()
        .map(|problem| {
            (
                problem["key"].clone(),
                problem["place"]["file"]["line"].clone(),
            )
        })
        .collect();
    assert_eq!(
        keys,
        [
            (json!("network_private"), json!(2)),
            (json!("api_key_file"), json!(1))
        ],
        "{found}"
    );
    configured.write("lease_seconds = 10\n");
    let checked = machine.cli(&["config", "check"]);
    assert!(checked.status.success(), "{checked:?}");
    assert!(said(&checked).contains("is fine"));
    let schema: Value =
        serde_json::from_str(&said(&machine.cli(&["config", "schema"]))).expect("JSON");
    assert_eq!(
        schema["properties"]["lease_seconds"]["anyOf"][0]["maximum"],
        3600
    );
    assert!(machine.server_pid().is_none());
    let nothing = machine.cli(&["server", "reload"]);
    assert!(nothing.status.success() && said(&nothing).contains("no server runs"));
}

/// Nobody heard that a file had not been found, nor where it was looked for.
#[test]
fn where_the_configuration_file_was_looked_for_is_told_wherever_it_is_read() {
    let mut machine = Machine::new(User::Ordinary);
    let home = machine.base().join("config-home");
    machine.set("XDG_CONFIG_HOME", &home.display().to_string());
    let place = home.join("claude-code-mcp/config.toml");
    let shown = place.display().to_string();
    let client = machine.client();
    let readers = [
        ["config", "check"],
        ["config", "show"],
        ["server", "reload"],
    ];
    let tell = || {
        readers.map(|arguments| {
            let told = machine.cli(&arguments);
            assert!(told.status.success(), "{told:?}");
            let json = machine.cli(&[arguments[0], arguments[1], "--json"]);
            let json: Value = serde_json::from_str(&said(&json)).expect("JSON");
            let source = match arguments[0] {
                "server" => json["source"].clone(),
                _ => json,
            };
            assert_eq!(source["lookedFor"], shown, "{arguments:?}: {source}");
            (said(&told), source["file"].clone())
        })
    };
    for (told, file) in tell() {
        let words = format!("configuration file: none at {shown}, so the defaults apply\n");
        assert!(told.starts_with(&words), "{told}");
        assert_eq!(file, Value::Null);
    }
    // The control: it is there.
    fs::create_dir_all(place.parent().expect("a directory")).expect("a directory");
    fs::write(&place, "default_idle_timeout = 901\n").expect("a file");
    for path in [place.parent().expect("a directory"), &place] {
        machine.give(path);
    }
    for (told, file) in tell() {
        let words = format!("configuration file: {shown}\n");
        assert!(told.starts_with(&words), "{told}");
        assert_eq!(file, shown);
    }
    client.close();
}

/// Its sessions were made, and each of their requests failed.
#[test]
fn a_session_is_not_made_with_a_credential_whose_file_became_too_short() {
    let configured = Configured::new("");
    let token = configured.machine.base().join("token");
    configured.write(&format!(
        "network_allow = [\"hub.example\"]\n[credentials.hub]\nfile = \"{}\"\ndestinations = [\"hub.example\"]\n",
        token.display()
    ));
    let put = |text: &str| {
        let aside = token.with_extension("new");
        fs::write(&aside, text).expect("a file");
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).expect("its mode");
        fs::rename(&aside, &token).expect("its place");
    };
    put("twelve-bytes");
    let machine = &configured.machine;
    let mut client = machine.client();
    let asked = json!({
        "projectPath": machine.project,
        "network": { "allow": ["hub.example"], "credentials": ["hub"] }
    });
    put("abc");
    let refused = client
        .tool("create_session", asked.clone())
        .expect_err("a refusal");
    assert_eq!(refused["code"], "credential_unavailable", "{refused}");
    let hint = refused["hint"].as_str().unwrap_or_default();
    assert!(hint.contains("[credentials.hub]"), "{refused}");
    let reloaded = machine.cli(&["server", "reload"]);
    assert_eq!(reloaded.status.code(), Some(1), "{reloaded:?}");
    assert!(said(&reloaded).contains("12 to 4096 bytes"), "{reloaded:?}");
    put("twelve-again");
    let session = client.create_with(asked);
    client.destroy(&session);
}
