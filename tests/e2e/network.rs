//! What a session reaches beside its model provider: nothing by itself, what the operator lets it reach, and a little more by a
//! person's word. Servers of these tests stand on this machine's loopback, which only `network_private` opens.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use scripted_api::by_prompt;
use serde_json::{Value, json};

use crate::support::{
    Client, Machine, alone,
    stage::{Stage, prompt},
    until, users,
};

/// What a server of these tests says.
pub const HELLO: &str = "hello from the host";
/// Asks by the variables of the session, `localhost` included, which they except.
const CURL: &str = "env -u NO_PROXY -u no_proxy curl -sS --max-time 10";

/// A server on loopback that answers every request alike, as long as the test runs.
pub fn server() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let length = HELLO.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{HELLO}"
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

/// The records of the audit log with that action.
fn on_record(machine: &Machine, action: &str) -> Vec<Value> {
    let log = fs::read_to_string(machine.audit_log()).expect("the audit log");
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|record| record["action"] == action)
        .collect()
}

/// Waits until a record of that action fits.
fn recorded(machine: &Machine, action: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let find = || on_record(machine, action).into_iter().find(&fits);
    until("it is on record", || find().is_some());
    find().expect("a record")
}

fn get(client: &mut Client, session: &str, url: &str) -> String {
    client.output(session, &format!("{CURL} -w ' %{{http_code}}' {url}"))
}

fn rules(client: &mut Client, session: &str) -> Vec<String> {
    let session = client.tool("get_session", json!({ "sessionId": session }));
    let session = session.expect("the session");
    let rules = session["network"]["rules"]
        .as_array()
        .expect("its rules")
        .clone();
    let one = |rule: &Value| {
        let (name, host) = (rule["name"].as_str(), rule["host"].as_str());
        format!(
            "{} {} {}",
            name.expect("a name"),
            host.expect("a host"),
            rule["ports"]
        )
    };
    rules.iter().map(one).collect()
}

fn refused(client: &mut Client, arguments: Value) -> Value {
    client
        .tool("create_session", arguments)
        .expect_err("a refusal")
}

#[test]
fn without_a_word_of_the_operator_there_is_no_way_out() {
    let machine = Machine::new(users()[0]);
    let mut client = machine.client();
    let session = client.create(&machine.project);
    assert_eq!(rules(&mut client, &session), Vec::<String>::new());
    for port in [3128, 1080, 53] {
        // 7: nobody listens there.
        let line = format!("curl -sS --noproxy '*' --max-time 5 http://127.0.0.1:{port}/; echo $?");
        assert_eq!(client.output(&session, &line), "7", "{port}");
    }
    let environment = client.output(&session, "env").to_ascii_lowercase();
    assert!(!environment.contains("proxy"), "{environment}");
    for network in [
        json!({ "allow": ["example.com"] }),
        json!({ "presets": ["github"] }),
    ] {
        let asked = json!({ "projectPath": machine.project, "network": network });
        let error = refused(&mut client, asked);
        assert_eq!(error["code"], "network_not_allowed", "{error}");
    }
    let widened = machine.cli(&["session", "allow", &session, "example.com"]);
    assert!(!widened.status.success());
    client.destroy(&session);
}

#[test]
fn what_every_session_has_is_reached_and_the_rest_is_refused_by_its_rule_and_all_of_it_is_on_record()
 {
    let (port, other) = (server(), server());
    for user in users() {
        let mut machine = Machine::new(user);
        machine
            .set(
                "CLAUDE_CODE_MCP_NETWORK_DEFAULT",
                &format!("localhost:{port}"),
            )
            .set(
                "CLAUDE_CODE_MCP_NETWORK_PRIVATE",
                &format!("localhost:{port}"),
            );
        let mut client = machine.client();
        let session = client.create(&machine.project);
        assert_eq!(
            rules(&mut client, &session),
            [format!("default/1 localhost [{port}]")]
        );
        let reached = get(
            &mut client,
            &session,
            &format!("http://localhost:{port}/secret-path"),
        );
        assert_eq!(reached, format!("{HELLO} 200"));
        // SOCKS, with the name resolved outside.
        let socks = format!("{CURL} --proxy socks5h://127.0.0.1:1080 http://localhost:{port}/");
        assert_eq!(client.output(&session, &socks), HELLO);
        for (url, code, host, said) in [
            (
                format!("http://localhost:{other}/"),
                "port_not_allowed",
                "localhost",
                other,
            ),
            (
                "http://example.com/".to_owned(),
                "host_not_allowed",
                "example.com",
                80,
            ),
            (
                format!("http://127.0.0.1:{port}/"),
                "raw_address",
                "127.0.0.1",
                port,
            ),
            (
                "http://169.254.169.254/latest/meta-data/".to_owned(),
                "raw_address",
                "169.254.169.254",
                80,
            ),
        ] {
            let answer = get(&mut client, &session, &url);
            assert!(answer.ends_with(" 403"), "{url}: {answer}");
            let denied = |record: &Value| {
                record["result"] == "denied"
                    && record["parameters"]["code"] == code
                    && record["parameters"]["host"] == host
                    && record["parameters"]["port"] == said
            };
            let record = recorded(&machine, "egress.connect", denied);
            assert_eq!(record["session_id"], session.as_str());
        }
        let begun = recorded(&machine, "egress.connect", |record| {
            record["phase"] == "intent" && record["parameters"]["host"] == "localhost"
        });
        assert_eq!(begun["parameters"]["rule"], "default/1");
        assert_eq!(begun["parameters"]["port"], port);
        let ended = recorded(&machine, "egress.connect", |record| {
            record["phase"] == "result" && record["op"] == begun["op"]
        });
        assert_eq!(ended["result"], "ok");
        assert!(
            ended["parameters"]["bytes_down"].as_u64() >= Some(HELLO.len() as u64),
            "{ended}"
        );
        let log = fs::read_to_string(machine.audit_log()).expect("the log");
        assert!(!log.contains("secret-path") && !log.contains("meta-data"));
        let shown = machine.cli(&["audit", "search"]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(
            shown.contains("host=localhost") && shown.contains("rule=default/1"),
            "{shown}"
        );
        assert!(machine.cli(&["audit", "verify"]).status.success());
        client.destroy(&session);
    }
}

#[test]
fn a_callers_hosts_are_within_the_ceiling_or_refused_and_its_own_proxy_variables_stand() {
    let port = server();
    let mut machine = Machine::new(users()[0]);
    machine
        .set(
            "CLAUDE_CODE_MCP_NETWORK_ALLOW",
            &format!("localhost:{port} *.example.com"),
        )
        .set("CLAUDE_CODE_MCP_NETWORK_PRESETS", "crates")
        .set(
            "CLAUDE_CODE_MCP_NETWORK_PRIVATE",
            &format!("localhost:{port}"),
        );
    let mut client = machine.client();
    let info = client
        .tool("get_server_info", json!({}))
        .expect("the server");
    assert_eq!(info["networkPresets"], json!(["crates"]));
    let create = |network: Value, env: Value| json!({ "projectPath": machine.project, "network": network, "env": env });
    for (network, code, field) in [
        (
            json!({ "allow": ["example.org"] }),
            "network_not_allowed",
            "network.allow",
        ),
        (
            json!({ "allow": [format!("localhost:{port},22")] }),
            "network_not_allowed",
            "network.allow",
        ),
        (
            json!({ "presets": ["github"] }),
            "network_not_allowed",
            "network.presets[0]",
        ),
        (
            json!({ "presets": ["crate"] }),
            "invalid_argument",
            "network.presets[0]",
        ),
        (
            json!({ "allow": ["10.0.0.1"] }),
            "invalid_argument",
            "network.allow[0]",
        ),
        (
            json!({ "allow": [], "deny": [] }),
            "invalid_argument",
            "network.deny",
        ),
        (
            json!({ "rules": [{ "host": "a.example.com", "private": true }] }),
            "invalid_argument",
            "network.rules[0].private",
        ),
    ] {
        let error = refused(&mut client, create(network.clone(), json!({})));
        assert_eq!(
            (&error["code"], &error["field"]),
            (&json!(code), &json!(field)),
            "{network}: {error}"
        );
    }
    let asked = create(
        json!({ "allow": [format!("localhost:{port}")] }),
        json!({ "HTTPS_PROXY": "http://own.example:1" }),
    );
    let session = client.create_with(asked);
    assert_eq!(
        rules(&mut client, &session),
        [format!("allow/1 localhost [{port}]")]
    );
    let reached = get(&mut client, &session, &format!("http://localhost:{port}/"));
    assert_eq!(reached, format!("{HELLO} 200"));
    let own = client.output(&session, "echo $HTTPS_PROXY $https_proxy $no_proxy");
    assert_eq!(own, "http://own.example:1 127.0.0.1,localhost,::1");
    client.destroy(&session);
}

#[test]
fn a_person_lets_it_reach_more_by_the_command_that_the_refusal_names_and_no_model_can() {
    let port = server();
    let mut machine = Machine::new(users()[0]);
    machine
        .set(
            "CLAUDE_CODE_MCP_NETWORK_ALLOW",
            &format!("localhost:{port}"),
        )
        .set(
            "CLAUDE_CODE_MCP_NETWORK_PRIVATE",
            &format!("localhost:{port}"),
        );
    let mut client = machine.client();
    let session = client.create(&machine.project);
    let url = format!("http://localhost:{port}/");
    let denied = get(&mut client, &session, &url);
    assert!(denied.ends_with(" 403"), "{denied}");
    let command = format!("claude-code-mcp session allow {session} localhost:{port}");
    assert!(denied.contains(&command), "{denied}");
    let tool = json!({ "sessionId": session, "allow": [format!("localhost:{port}")] });
    let unknown = client
        .tool("allow_network", tool)
        .expect_err("no such tool");
    assert!(unknown.to_string().contains("unknown tool"), "{unknown}");
    let past = machine.cli(&["session", "allow", &session, "example.com"]);
    assert!(!past.status.success());
    assert!(
        String::from_utf8_lossy(&past.stderr).contains("network_allow"),
        "{past:?}"
    );
    assert!(get(&mut client, &session, &url).ends_with(" 403"));
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let widened = machine.cli(&words);
    assert!(widened.status.success(), "{widened:?}");
    assert_eq!(get(&mut client, &session, &url), format!("{HELLO} 200"));
    assert_eq!(
        rules(&mut client, &session),
        [format!("person/1 localhost [{port}]")]
    );
    let record = recorded(&machine, "session.widen_network", |record| {
        record["phase"] == "intent"
    });
    assert_eq!(record["parameters"]["answered_by"], "person");
    client.destroy(&session);
}

#[test]
fn rules_outlive_a_killed_server_and_those_that_the_operator_took_back_do_not() {
    let (kept, taken) = (server(), server());
    let mut machine = Machine::new(users()[0]);
    let both = format!("localhost:{kept} localhost:{taken}");
    machine
        .set("CLAUDE_CODE_MCP_NETWORK_DEFAULT", &both)
        .set("CLAUDE_CODE_MCP_NETWORK_PRIVATE", &both);
    let mut client = machine.client();
    let session = client.create(&machine.project);
    for port in [kept, taken] {
        let reached = get(&mut client, &session, &format!("http://localhost:{port}/"));
        assert_eq!(reached, format!("{HELLO} 200"));
    }
    let pid = machine.server_pid().expect("a server");
    kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("killed");
    until("it is dead", || machine.server_pid().is_none());
    machine
        .set(
            "CLAUDE_CODE_MCP_NETWORK_DEFAULT",
            &format!("localhost:{kept}"),
        )
        .set(
            "CLAUDE_CODE_MCP_NETWORK_PRIVATE",
            &format!("localhost:{kept}"),
        );
    let mut client = machine.client();
    // The session is taken up within seconds.
    client.output(&session, "true");
    let reached = get(&mut client, &session, &format!("http://localhost:{kept}/"));
    assert_eq!(reached, format!("{HELLO} 200"));
    let refused = get(&mut client, &session, &format!("http://localhost:{taken}/"));
    assert!(refused.ends_with(" 403"), "{refused}");
    assert_eq!(
        rules(&mut client, &session),
        [format!("default/1 localhost [{kept}]")]
    );
    client.destroy(&session);
}

#[test]
fn the_whole_traffic_of_a_prompt_is_read_from_the_log_without_its_content() {
    let _alone = alone();
    let port = server();
    let mut machine = Machine::new(users()[0]);
    machine
        .set(
            "CLAUDE_CODE_MCP_NETWORK_DEFAULT",
            &format!("localhost:{port}"),
        )
        .set(
            "CLAUDE_CODE_MCP_NETWORK_PRIVATE",
            &format!("localhost:{port}"),
        );
    let Some(stage) = Stage::of(machine, by_prompt().expect("the scenarios")) else {
        return;
    };
    let mut client = stage.machine.client();
    let session = client.create(&stage.machine.project);
    let words = format!("[[run]] RUN: {CURL} -o got http://localhost:{port}/canary-of-a-path");
    let done = prompt(&mut client, &session, &words, json!({}));
    assert_eq!(done["stop"], "completed", "{done:#}");
    let got = fs::read_to_string(stage.machine.project.join("got")).expect("what it got");
    assert_eq!(got, HELLO);
    // The relay is direct although the variables of a proxy are set: each request of the provider's log is in ours.
    client.destroy(&session);
    thread::sleep(Duration::from_millis(200));
    let results = |action: &str| {
        let records = on_record(&stage.machine, action).into_iter();
        records
            .filter(|record| record["phase"] == "result")
            .collect::<Vec<_>>()
    };
    let requests = results("egress.model");
    let answered = requests
        .iter()
        .filter(|record| record["parameters"]["status"] == 200);
    assert!(answered.count() >= 2, "{requests:#?}");
    let intents = on_record(&stage.machine, "egress.model").len() - requests.len();
    assert_eq!(intents, requests.len());
    let tokens = |record: &Value| {
        record["parameters"]["output_tokens"]
            .as_u64()
            .unwrap_or_default()
    };
    assert!(
        requests.iter().map(tokens).sum::<u64>() > 0,
        "{requests:#?}"
    );
    assert!(
        results("egress.connect")
            .iter()
            .any(|record| record["result"] == "ok")
    );
    let log = fs::read_to_string(stage.machine.audit_log()).expect("the log");
    for content in ["canary-of-a-path", "[[run]]", HELLO] {
        assert!(!log.contains(content), "{content}");
    }
}
