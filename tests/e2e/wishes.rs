//! What a session was refused and its operator lets a person allow: the person at the client is asked in either era, a no
//! stands, nobody else's word counts, and what is inside cannot ask without end. Servers of these tests stand on this machine's
//! loopback, which only `network_private` opens.

use std::{
    fs,
    io::{Read, Write},
    process::Stdio,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use scripted_api::by_prompt;
use serde_json::{Value, json};

use crate::{
    network::{HELLO, server},
    support::{
        Client, Machine, alone, program,
        stage::{Stage, finish},
        until, users,
    },
};

const CURL: &str = "env -u NO_PROXY -u no_proxy curl -sS --max-time 10 -w ' %{http_code}'";

/// A machine whose operator lets people allow these.
fn machine(ceiling: &str) -> Machine {
    let mut machine = Machine::new(users()[0]);
    machine.set("CLAUDE_CODE_MCP_NETWORK_ALLOW", ceiling);
    machine.set("CLAUDE_CODE_MCP_NETWORK_PRIVATE", ceiling);
    machine
}

fn asking(machine: &Machine) -> Client {
    machine.client_that_can(&json!({ "elicitation": {} }))
}

fn curl(session: &str, port: u16) -> Value {
    let command = format!("{CURL} http://localhost:{port}/");
    json!({ "sessionId": session, "command": command, "waitSeconds": 40 })
}

fn post(client: &mut Client, tool: &str, arguments: Value) -> u64 {
    client.post(
        "tools/call",
        json!({ "name": tool, "arguments": arguments }),
    )
}

fn fill(client: &mut Client, form: &Value, result: Value) {
    client.send(&json!({ "jsonrpc": "2.0", "id": form["id"], "result": result }));
}

fn yes() -> Value {
    json!({ "action": "accept", "content": { "decision": "allow for this session" } })
}

fn reply(client: &mut Client, id: u64) -> Value {
    client.answer(id).expect("an answer")["structuredContent"].clone()
}

fn output(execution: &Value) -> &str {
    execution["stdout"]["text"].as_str().expect("its output")
}

/// What it says when nobody is asked.
fn unasked(client: &mut Client, session: &str, port: u16) -> Value {
    client
        .tool("execute_command", curl(session, port))
        .expect("an execution")
}

fn pending(client: &mut Client, session: &str) -> Vec<String> {
    let session = client.tool("get_session", json!({ "sessionId": session }));
    let session = session.expect("the session");
    let pending = session["pendingNetworkRequests"].as_array();
    let one = |asked: &Value| {
        let host = asked["host"].as_str().expect("a host");
        format!("{host}:{}", asked["port"])
    };
    pending.into_iter().flatten().map(one).collect()
}

/// Whose answer it was, and what, by the audit log.
fn on_record(machine: &Machine) -> Vec<(String, String)> {
    let log = fs::read_to_string(machine.audit_log()).expect("the audit log");
    let records = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let answers = records.filter(|record| {
        record["action"] == "session.answer_network" && record["phase"] == "intent"
    });
    let word = |record: &Value, name: &str| {
        let word = record["parameters"][name].as_str();
        word.unwrap_or_else(|| panic!("no {name}: {record}"))
            .to_owned()
    };
    answers
        .map(|record| (word(&record, "answered_by"), word(&record, "answer")))
        .collect()
}

fn answers(words: &[&str]) -> Vec<(String, String)> {
    let one = |word: &&str| ("person".to_owned(), (*word).to_owned());
    words.iter().map(one).collect()
}

#[test]
fn a_person_at_the_client_allows_or_refuses_what_was_refused_and_a_no_stands_after_a_restart() {
    let (wanted, unwanted) = (server(), server());
    let machine = machine(&format!("localhost:{wanted} localhost:{unwanted}"));
    let mut client = asking(&machine);
    let session = client.create(&machine.project);
    let id = post(&mut client, "execute_command", curl(&session, wanted));
    let form = client.request_of_the_server("elicitation/create");
    let message = form["params"]["message"].as_str().expect("a message");
    assert!(
        message.contains(&format!("reach localhost:{wanted},")),
        "{message}"
    );
    fill(&mut client, &form, yes());
    let told = reply(&mut client, id);
    // The connection itself was refused at once; the caller hears that it is worth another try.
    assert!(output(&told).ends_with(" 403"), "{told:#}");
    let message = told["message"].as_str().expect("a message");
    assert!(
        message.contains(&format!("localhost:{wanted} meanwhile: try it again")),
        "{message}"
    );
    let reached = unasked(&mut client, &session, wanted);
    assert_eq!(output(&reached), format!("{HELLO} 200"));

    let id = post(&mut client, "execute_command", curl(&session, unwanted));
    let form = client.request_of_the_server("elicitation/create");
    fill(&mut client, &form, json!({ "action": "decline" }));
    let told = reply(&mut client, id);
    assert!(
        told["message"]
            .as_str()
            .expect("a message")
            .contains("A person said no"),
        "{told:#}"
    );
    for _ in 0..2 {
        // Nobody is asked again: the answer comes by itself.
        let refused = unasked(&mut client, &session, unwanted);
        assert!(output(&refused).contains("a person said no"), "{refused:#}");
    }
    assert_eq!(on_record(&machine), answers(&["allow", "deny"]));

    drop(client);
    let pid = machine.server_pid().expect("a server");
    kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("killed");
    until("it is dead", || machine.server_pid().is_none());
    let mut client = asking(&machine);
    client.output(&session, "true");
    assert_eq!(
        output(&unasked(&mut client, &session, wanted)),
        format!("{HELLO} 200")
    );
    let refused = unasked(&mut client, &session, unwanted);
    assert!(output(&refused).contains("a person said no"), "{refused:#}");
    // A person can think better of it.
    let allowed = machine.cli(&[
        "session",
        "allow",
        &session,
        &format!("localhost:{unwanted}"),
    ]);
    assert!(allowed.status.success(), "{allowed:?}");
    assert_eq!(
        output(&unasked(&mut client, &session, unwanted)),
        format!("{HELLO} 200")
    );
    client.destroy(&session);
}

#[test]
fn a_modern_client_gets_the_host_as_a_result_and_comes_back_with_the_answer() {
    let port = server();
    let machine = machine(&format!("localhost:{port}"));
    let mut client = asking(&machine);
    let session = client.create(&machine.project);
    let mut arguments = curl(&session, port);
    let line = arguments["command"].as_str().expect("a line").to_owned();
    arguments["command"] = json!(format!("echo x >> ran; {line}"));
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "form": {} } },
        "io.modelcontextprotocol/clientInfo": { "name": "tests", "version": "1" },
    });
    let mut params = json!({ "name": "execute_command", "arguments": arguments, "_meta": meta });
    let asked = client
        .request("tools/call", params.clone())
        .expect("a result");
    assert_eq!(asked["resultType"], "input_required", "{asked:#}");
    let requests = asked["inputRequests"].as_object().expect("requests");
    let (id, _) = requests.iter().next().expect("a request");
    // An answer to something else, or by an invented state, is none.
    let mut forged = params.clone();
    forged["requestState"] = json!("AAAAAAAAAAAAAAAAAAAAAA");
    forged["inputResponses"] = json!({ id: yes() });
    let refused = client.request("tools/call", forged).expect("a result");
    let code = &refused["structuredContent"]["error"]["code"];
    assert_eq!(*code, json!("question_not_found"), "{refused:#}");
    assert_eq!(on_record(&machine), []);
    params["requestState"] = asked["requestState"].clone();
    params["inputResponses"] = json!({ id: yes() });
    let answered = client.request("tools/call", params).expect("a result");
    let told = &answered["structuredContent"];
    assert!(
        told["message"]
            .as_str()
            .expect("a message")
            .contains("try it again"),
        "{answered:#}"
    );
    assert!(output(told).ends_with(" 403"), "{told:#}");
    assert_eq!(
        output(&unasked(&mut client, &session, port)),
        format!("{HELLO} 200")
    );
    // The command ran once, whatever went around.
    let ran = fs::read_to_string(machine.project.join("ran")).expect("its trace");
    assert_eq!(ran, "x\n");
    assert_eq!(on_record(&machine), answers(&["allow"]));
    client.destroy(&session);
}

#[test]
fn where_no_client_can_ask_it_is_listed_and_a_person_at_the_command_line_answers_and_no_model_does()
{
    let (wanted, unwanted) = (server(), server());
    let machine = machine(&format!("localhost:{wanted} localhost:{unwanted}"));
    let mut client = machine.client();
    let session = client.create(&machine.project);
    for port in [wanted, unwanted] {
        let refused = unasked(&mut client, &session, port);
        assert!(
            output(&refused).contains("try again in a minute"),
            "{refused:#}"
        );
    }
    let (yes, no) = (
        format!("localhost:{wanted}"),
        format!("localhost:{unwanted}"),
    );
    assert_eq!(pending(&mut client, &session), [yes.clone(), no.clone()]);
    let shown = machine.cli(&["session", "show", &session]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for command in [
        format!("claude-code-mcp session allow {session} {yes}"),
        format!("claude-code-mcp session deny {session} {no}"),
    ] {
        assert!(shown.contains(&command), "{shown}");
    }
    // The calling model has no way, by whatever name.
    for (tool, arguments) in [
        (
            "allow_network",
            json!({ "sessionId": session, "allow": [yes] }),
        ),
        (
            "deny_network",
            json!({ "sessionId": session, "target": yes }),
        ),
        (
            "answer_network",
            json!({ "sessionId": session, "target": yes, "allow": true }),
        ),
    ] {
        let refused = client.tool(tool, arguments).expect_err("no such tool");
        assert!(refused.to_string().contains("unknown tool"), "{refused}");
    }
    assert!(output(&unasked(&mut client, &session, wanted)).ends_with(" 403"));
    for (word, target) in [("allow", &yes), ("deny", &no)] {
        let said = machine.cli(&["session", word, &session, target]);
        assert!(said.status.success(), "{said:?}");
        // The answer to a no did not say to what.
        let host = target.split(':').next().expect("a host");
        let told = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(told.contains(host), "{word}: {told}");
    }
    assert_eq!(pending(&mut client, &session), Vec::<String>::new());
    assert_eq!(
        output(&unasked(&mut client, &session, wanted)),
        format!("{HELLO} 200")
    );
    let refused = unasked(&mut client, &session, unwanted);
    assert!(output(&refused).contains("a person said no"), "{refused:#}");
    assert_eq!(on_record(&machine), answers(&["deny"]));
    let wrong = machine.cli(&["session", "deny", &session, "*.example.com"]);
    assert!(!wrong.status.success(), "{wrong:?}");
    client.destroy(&session);
}

#[test]
fn nothing_past_the_ceiling_is_asked_and_a_flood_of_names_asks_boundedly() {
    let port = server();
    let machine = machine(&format!("*.flood.example localhost:{port}"));
    let mut client = asking(&machine);
    let session = client.create(&machine.project);
    // Past the ceiling: the answer comes by itself, as no form was filled in.
    let line = "for host in example.com flood.example a.flood.example.evil.example 127.0.0.1; do \
                env -u NO_PROXY -u no_proxy curl -sS -o /dev/null -w '%{http_connect} ' https://$host/; done; true";
    let refused = client.run(&session, line);
    assert_eq!(
        output(&refused).trim_end(),
        "403 403 403 403",
        "{refused:#}"
    );
    assert_eq!(pending(&mut client, &session), Vec::<String>::new());
    let flood = "i=0; while [ $i -lt 60 ]; do curl -sS -o /dev/null https://h$i.flood.example/; i=$((i+1)); done; true";
    let mut forms = 0;
    for round in 0..8 {
        let flood = flood.replace("/h", &format!("/r{round}h"));
        let arguments = json!({ "sessionId": session, "command": flood, "waitSeconds": 45 });
        let id = post(&mut client, "execute_command", arguments);
        loop {
            match client.answer_or_request(id) {
                Ok(_) => break,
                Err(form) => {
                    assert!(pending(&mut machine.client(), &session).len() <= 4);
                    forms += 1;
                    fill(&mut client, &form, json!({ "action": "decline" }));
                }
            }
        }
    }
    assert_eq!(forms, 16);
    // A person can still allow what nobody is asked about any more.
    assert!(output(&unasked(&mut client, &session, port)).contains("session allow"));
    let allowed = machine.cli(&["session", "allow", &session, &format!("localhost:{port}")]);
    assert!(allowed.status.success(), "{allowed:?}");
    assert_eq!(
        output(&unasked(&mut client, &session, port)),
        format!("{HELLO} 200")
    );
    client.destroy(&session);
}

#[test]
fn what_nobody_answers_is_refused_at_its_deadline_and_the_call_is_held_no_longer() {
    let port = server();
    let mut machine = machine(&format!("localhost:{port}"));
    machine.set("CLAUDE_CODE_MCP_PERMISSION_TIMEOUT", "3");
    let mut client = asking(&machine);
    let session = client.create(&machine.project);
    let began = Instant::now();
    let id = post(&mut client, "execute_command", curl(&session, port));
    let late = client.request_of_the_server("elicitation/create");
    let refused = reply(&mut client, id);
    let took = began.elapsed();
    assert!(
        took > Duration::from_secs(3) && took < Duration::from_secs(10),
        "{took:?}"
    );
    assert!(output(&refused).ends_with(" 403"), "{refused:#}");
    // Too late is too late.
    fill(&mut client, &late, yes());
    assert_eq!(pending(&mut client, &session), Vec::<String>::new());
    let id = post(&mut client, "execute_command", curl(&session, port));
    // It is tried again, so it is asked again; nobody's silence is a no.
    let form = client.request_of_the_server("elicitation/create");
    fill(&mut client, &form, yes());
    reply(&mut client, id);
    assert_eq!(
        output(&unasked(&mut client, &session, port)),
        format!("{HELLO} 200")
    );
    assert_eq!(on_record(&machine), answers(&["allow"]));
    client.destroy(&session);
}

#[test]
fn claude_code_goes_on_with_what_a_person_allows_while_it_works() {
    let _alone = alone();
    let port = server();
    let Some(stage) = Stage::of(
        machine(&format!("localhost:{port}")),
        by_prompt().expect("the scenarios"),
    ) else {
        return;
    };
    let mut client = asking(&stage.machine);
    let session = client.create(&stage.machine.project);
    // It tries until it is let: the prompt waits for nobody, and a person answers meanwhile.
    let tries = format!(
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
         env -u NO_PROXY -u no_proxy curl -sSf -o got http://localhost:{port}/ && break; sleep 1; done"
    );
    let arguments = json!({ "sessionId": session, "prompt": format!("[[run]] RUN: {tries}"), "waitSeconds": 40 });
    let id = post(&mut client, "execute_in_session", arguments);
    let form = client.request_of_the_server("elicitation/create");
    let message = form["params"]["message"].as_str().expect("a message");
    assert!(message.contains(&format!("localhost:{port}")), "{message}");
    fill(&mut client, &form, yes());
    let answer = reply(&mut client, id);
    let done = finish(&mut client, answer);
    assert_eq!(done["stop"], "completed", "{done:#}");
    let got = fs::read_to_string(stage.machine.project.join("got")).expect("what it got");
    assert_eq!(got, HELLO);
    assert_eq!(on_record(&stage.machine), answers(&["allow"]));
    client.destroy(&session);
}

/// Looks on at an execution from a terminal, and types that as soon as something is asked. What stood on the terminal, and what
/// the execution printed.
fn attached(machine: &Machine, execution: &str, types: &str) -> (String, String) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("granted");
    unlockpt(&master).expect("unlocked");
    let name = ptsname(&master, Vec::new()).expect("its name");
    let name = name.to_str().expect("a path").to_owned();
    let end = || {
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&name)
            .expect("its other end")
    };
    let child = machine
        .command(program())
        .args(["session", "attach", execution])
        .stdin(end())
        .stderr(end())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut screen = fs::File::from(master);
    let mut keyboard = screen.try_clone().expect("a keyboard");
    let (sender, shown) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        // Ends with an error when nobody has the other end any more.
        while let Ok(count @ 1..) = screen.read(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    let mut told = String::new();
    while !told.contains("[y/n] ") {
        let more = shown.recv_timeout(Duration::from_secs(60));
        told.push_str(&more.unwrap_or_else(|_| panic!("nothing is asked: {told}")));
    }
    keyboard.write_all(types.as_bytes()).expect("typed");
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "{output:?}");
    told.extend(shown.try_iter());
    (told, String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn whoever_looks_on_from_a_terminal_is_asked_what_the_session_wants_to_reach() {
    let (wanted, unwanted) = (server(), server());
    let machine = machine(&format!("localhost:{wanted} localhost:{unwanted}"));
    let mut client = machine.client();
    let session = client.create(&machine.project);
    for (port, types, outcome) in [
        (wanted, "y\n", HELLO),
        (unwanted, "n\n", "a person said no"),
    ] {
        let line = format!(
            "for i in $(seq 100); do said=$({CURL} http://localhost:{port}/); case $said in *' 200'|*'said no'*) \
             echo \"$said\"; exit 0;; esac; sleep 0.2; done; exit 1"
        );
        let call = json!({ "sessionId": session, "command": line, "waitSeconds": 0 });
        let started = client.tool("execute_command", call).expect("an execution");
        let id = started["executionId"].as_str().expect("its id");
        let (told, printed) = attached(&machine, id, types);
        assert!(
            told.contains(&format!("the session wants to reach localhost:{port}")),
            "{told}"
        );
        assert!(printed.contains(outcome), "{printed}");
    }
    assert_eq!(pending(&mut client, &session), Vec::<String>::new());
    let view = client.tool("get_session", json!({ "sessionId": session }));
    let rules = view.expect("it")["network"]["rules"].clone();
    assert_eq!(rules.as_array().map(Vec::len), Some(1), "{rules}");
    assert_eq!(rules[0]["name"], "person/1");
    assert_eq!(
        on_record(&machine),
        [("person".to_owned(), "deny".to_owned())]
    );
    client.destroy(&session);
}
