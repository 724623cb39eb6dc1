//! Every call to a real engine lies inside exactly one audited operation (A1): of the embedded one as strace sees its system calls
//! beside the writes of the log, of Docker as a filter before its socket does. `crates/control/tests/operations.rs` has what a
//! fake one hears, and tests of the judge itself.

mod prompts;
mod trace;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use audit::Phase;
use model::SessionId;
use rustix::process::{Pid, Signal, kill_process};
use sandbox_docker::calls::Call;
use serde_json::{Value, json};

use crate::{
    operations::trace::{LONGEST, TRACED, Trace},
    support::{
        Client, Machine, User,
        engine::{machine, remove_container},
        filter::{Fault, Filter, Passed},
        operations::{
            Background, Effect, EngineCall, Operation, Placed, Verdict, judge, operations, records,
        },
        program, skip, until, users,
    },
};

const CREATE: Call = ("POST", "/containers/create");
const START: Call = ("POST", "/containers/{id}/start");
const REMOVE: Call = ("DELETE", "/containers/{id}");

/// The creation of a container without a name. Those of sessions have one.
const IS_IT_HERE: &str = "POST /containers/create without a name";

/// What Docker is asked outside of every operation.
const ASKED_OF_DOCKER: &[Background] = &[
    Background::new(
        "GET /version",
        "a server finds out about its engine before it says that it has started",
    ),
    Background::new("GET /info", "the same"),
    Background::new(
        "GET /images/{name}/json",
        "the same, about the image of sessions",
    ),
    Background::new(
        IS_IT_HERE,
        "the same, about whether it sees the directories of this host: of an image that there is not, so nothing is made",
    ),
    Background::new(
        "GET /containers/json",
        "the reconciler looks what there is; each thing that it does about it is an operation",
    ),
];

/// What the embedded engine is told outside of every operation.
const TOLD_OUTSIDE: &[Background] = &[
    Background::new(
        "start-up",
        "a server tries what the machine lets it do before it says that it has started; it concerns no session",
    ),
    Background::new(
        "start of a helper",
        "one waits for the next creation, and is told of no sandbox before the operation of that",
    ),
    Background::new(
        "end of a helper",
        "the same one, when its server ends first",
    ),
    Background::new(
        "Wait",
        "one question for the end of an execution stays open as long as that runs",
    ),
    Background::new(
        "Read",
        "reads are on the log when they are over, and this place is no place in a trace",
    ),
    Background::new(
        "RenewLease",
        "lets go on what an operation began, no longer than that allowed",
    ),
];

/// What the log says of a session.
fn is_done(machine: &Machine, action: &str, session: SessionId) -> bool {
    let records = audit::read(&machine.audit_log()).expect("the log");
    // The last line may be half written.
    records.filter_map(Result::ok).any(|record| {
        let body = record.body;
        body.action == action && body.session_id == Some(session) && body.phase == Phase::Result
    })
}

fn until_done(machine: &Machine, action: &str, session: &str) {
    let session = session.parse().expect("an id");
    until(action, || is_done(machine, action, session));
}

fn call(client: &mut Client, tool: &str, arguments: Value) -> Value {
    let answer = client.tool(tool, arguments);
    answer.unwrap_or_else(|error| panic!("{tool}: {error:#}"))
}

/// All that a caller does with a session, one thing after the other.
fn whole_life(machine: &Machine, client: &mut Client) {
    let session = client.create(&machine.project);
    assert_eq!(client.output(&session, "echo hi"), "hi");
    let begin =
        |command: &str| json!({ "sessionId": session, "command": command, "waitSeconds": 0 });
    let fed = json!({ "sessionId": session, "command": "cat", "stdin": "in", "waitSeconds": 20 });
    assert_eq!(call(client, "execute_command", fed)["stdout"]["text"], "in");
    let mut open = begin("cat");
    open["keepStdinOpen"] = json!(true);
    let open = call(client, "execute_command", open)["executionId"].clone();
    let more = json!({ "executionId": open, "stdin": "more", "close": true });
    call(client, "respond_execution", more);
    let end = json!({ "executionId": open, "waitSeconds": 20 });
    call(client, "get_execution", end);
    let long = call(client, "execute_command", begin("sleep 600"))["executionId"].clone();
    call(client, "cancel_execution", json!({ "executionId": long }));
    let (inside, outside) = ("/workspace/copy.txt", machine.write("in.txt", "in"));
    let back = machine.project.join("out.txt");
    for (direction, source, target) in [
        ("to_container", outside, PathBuf::from(inside)),
        ("from_container", inside.into(), back),
    ] {
        let arguments = json!({ "sessionId": session, "direction": direction, "sourcePath": source, "destPath": target });
        call(client, "transfer_files", arguments);
    }
    let of_session = json!({ "sessionId": session });
    call(
        client,
        "extend_session",
        json!({ "sessionId": session, "seconds": 60 }),
    );
    call(client, "get_session", of_session.clone());
    call(client, "get_session_logs", of_session);
    call(client, "list_sessions", json!({}));
    client.destroy(&session);
}

fn expired(machine: &Machine, client: &mut Client) {
    let session = client.create_with(json!({ "projectPath": machine.project, "ttlSeconds": 1 }));
    until_done(machine, "session.reap", &session);
}

/// The verdict has no findings, and shows each of these calls inside that action, or else it proves nothing.
fn holds(verdict: &Verdict, shown: &[(&str, &str)]) {
    assert_eq!(verdict.findings, Vec::<String>::new());
    let missing: Vec<_> = shown
        .iter()
        .filter(|(action, call)| {
            let shown = ((*action).to_owned(), (*call).to_owned());
            !verdict.held.contains(&shown)
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}: {:#?}", verdict.held);
}

fn session_of_container(path: &str) -> Option<SessionId> {
    let (_, named) = path.split_once("claude-code-")?;
    let (_, digits) = named.split_once('-')?;
    let digits: String = digits.chars().take_while(char::is_ascii_hexdigit).collect();
    format!("s-{digits}").parse().ok()
}

fn request(passed: Passed) -> EngineCall {
    let (method, path) = passed.call;
    let asks = passed.call == CREATE && !passed.path.contains("name=");
    EngineCall {
        name: match asks {
            true => IS_IT_HERE.to_owned(),
            false => format!("{method} {path}"),
        },
        effect: match asks || method == "GET" {
            true => Effect::Observes,
            false => Effect::Changes,
        },
        session: session_of_container(&passed.path),
        execution: None,
        begun: passed.begun,
        ended: passed.ended,
    }
}

/// The operations that may hold calls to an engine.
fn of_calls(records: Vec<Placed>) -> Vec<Operation> {
    let mut operations = operations(records, &BTreeSet::new());
    // These tell each of one connection from inside.
    operations.retain(|one| !one.action.starts_with("egress."));
    operations
}

fn judge_requests(machine: &Machine, filter: &Filter) -> Verdict {
    let calls: Vec<_> = filter.passed().into_iter().map(request).collect();
    let operations = of_calls(records(&machine.audit_log()));
    judge(&calls, &operations, ASKED_OF_DOCKER)
}

#[test]
fn every_request_to_an_engine_lies_inside_exactly_one_audited_operation() {
    let Some(mut machine) = machine("requests to an engine and the audit log") else {
        return;
    };
    let filter = Filter::start(&machine.base().join("engine.sock"));
    filter.beside(machine.audit_log());
    machine.use_engine(&filter.socket);
    let mut client = machine.client();
    whole_life(&machine, &mut client);
    expired(&machine, &mut client);
    let asked = json!({ "projectPath": machine.project });
    filter.break_call(Some((START, Fault::Refused)));
    client
        .tool("create_session", asked.clone())
        .expect_err("it does not start");
    filter.break_call(None);
    let [goes_on, stays] = [(); 2].map(|()| client.create(&machine.project));
    filter.break_call(Some((REMOVE, Fault::Refused)));
    let of_session = json!({ "sessionId": stays });
    client
        .tool("destroy_session", of_session)
        .expect_err("something is left");
    filter.break_call(None);
    signal_server(&machine, Signal::KILL);
    drop(client);
    let mut client = machine.client();
    until_done(&machine, "session.adopt", &goes_on);
    until_done(&machine, "session.remove_remains", &stays);
    assert_eq!(client.output(&goes_on, "echo still"), "still");
    holds(
        &judge_requests(&machine, &filter),
        &[
            ("session.create", "POST /containers/create"),
            ("session.create", "POST /containers/{id}/start"),
            ("session.create", "GET /containers/{id}/json"),
            // Of the one that did not come to be.
            ("session.create", "DELETE /containers/{id}"),
            ("session.destroy", "DELETE /containers/{id}"),
            ("session.reap", "DELETE /containers/{id}"),
            ("session.adopt", "GET /containers/{id}/json"),
            ("session.remove_remains", "DELETE /containers/{id}"),
        ],
    );
    // The control: somebody else asks the engine by the same way.
    let name = machine
        .containers()
        .into_iter()
        .next()
        .expect("a container");
    remove_container(&filter.socket, &name);
    until_done(&machine, "session.reap", &goes_on);
    let findings = judge_requests(&machine, &filter).findings;
    let [found] = findings.as_slice() else {
        panic!("the control: {findings:#?}");
    };
    assert!(
        found.starts_with("outside") && found.contains("DELETE /containers/{id}"),
        "the control: {found}"
    );
}

/// Said loudly where it is not.
fn has_strace() -> bool {
    let is_there = Command::new("strace").arg("-V").output().is_ok();
    if !is_there {
        skip("strace", "strace is not installed");
    }
    is_there
}

/// One engine is enough: what is said to another one is not told from what is said to supervisors.
fn without_docker(machine: &mut Machine) {
    let nowhere = machine.base().join("nowhere.sock");
    machine.set("DOCKER_HOST", &format!("unix://{}", nowhere.display()));
}

/// A server under strace, started by hand.
struct Traced(Child);

impl Traced {
    fn start(machine: &Machine, trace: &Path) -> Self {
        let mut strace = machine.command(Path::new("strace"));
        strace
            .args(["-f", "-yy", "--decode-pids=pidns", "-qq"])
            .args(["-e", "signal=none", "-e", TRACED, "-s", LONGEST, "-o"])
            .arg(trace)
            .arg(program())
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let traced = Traced(strace.spawn().expect("strace runs"));
        until("it has the lock", || machine.server_pid().is_some());
        traced
    }

    /// Waits for the end of the server and of all that it started.
    fn ended(mut self) {
        self.0.wait().expect("strace ends");
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal_server(machine: &Machine, signal: Signal) {
    let server = machine.server_pid().expect("a server");
    let server = Pid::from_raw(server).expect("its pid");
    kill_process(server, signal).expect("signalled");
    // What it was just starting may hold its lock for a moment longer.
    machine.wait_for_server_end();
}

#[test]
fn every_system_call_for_a_sandbox_lies_inside_exactly_one_audited_operation() {
    if !has_strace() || !users().contains(&User::Root) {
        return;
    }
    let mut machine = Machine::new(User::Root);
    without_docker(&mut machine);
    let traces = ["first.trace", "second.trace"].map(|name| machine.base().join(name));
    let first = Traced::start(&machine, &traces[0]);
    let mut client = machine.client();
    whole_life(&machine, &mut client);
    expired(&machine, &mut client);
    let session = client.create(&machine.project);
    signal_server(&machine, Signal::KILL);
    drop(client);
    let second = Traced::start(&machine, &traces[1]);
    let mut client = machine.client();
    until_done(&machine, "session.adopt", &session);
    assert_eq!(client.output(&session, "echo still"), "still");
    client.destroy(&session);
    drop(client);
    signal_server(&machine, Signal::TERM);
    second.ended();
    // It saw the sandbox that outlived its server.
    first.ended();

    let trace = Trace::read(&traces, &machine.audit_log());
    let (calls, operations) = (trace.engine_calls(), of_calls(trace.records()));
    holds(
        &judge(&calls, &operations, TOLD_OUTSIDE),
        &[
            ("session.create", "mkdir"),
            ("session.create", "helper: clone3"),
            ("session.create", "helper: move_mount"),
            ("session.create", "helper: execveat"),
            ("session.create", "Welcome"),
            ("session.create", "SetEnvironment"),
            ("execution.start", "Start"),
            ("execution.start", "WriteStdin"),
            ("execution.stdin", "WriteStdin"),
            ("execution.cancel", "Cancel"),
            ("files.transfer", "Import"),
            ("files.transfer", "Export"),
            ("files.transfer", "content"),
            ("session.destroy", "pidfd_send_signal"),
            ("session.destroy", "rename"),
            ("session.reap", "pidfd_send_signal"),
            ("session.reap", "rename"),
            ("session.adopt", "Welcome"),
            ("session.adopt", "List"),
        ],
    );
    // The control: what each of them holds is found where that operation is not on the log.
    let mut controls = BTreeSet::new();
    for missing in operations.iter().filter(|one| one.has_intent) {
        let others = operations.iter().filter(|one| one.id != missing.id);
        let others: Vec<_> = others.cloned().collect();
        if !judge(&calls, &others, TOLD_OUTSIDE).findings.is_empty() {
            controls.insert(missing.action.as_str());
        }
    }
    let wanted = [
        "execution.cancel",
        "execution.start",
        "execution.stdin",
        "files.transfer",
        "session.adopt",
        "session.create",
        "session.destroy",
        "session.reap",
    ];
    assert_eq!(controls, BTreeSet::from(wanted), "the controls");
}
