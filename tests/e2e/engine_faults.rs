//! Engines that are missing, hang, answer slowly, are too old, may not be spoken to, go away and come back: through the real
//! binary, and without a restart of ours.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    own_engine::{Containers, OwnEngine},
    support::{
        Machine, User,
        engine::ask,
        image::{ENGINE_SOCKET, IMAGE, without_engine},
        until, users,
    },
};

/// What is promised, and a little for a busy machine.
const TYPED_WITHIN: Duration = Duration::from_millis(5_900);

/// A machine whose sessions come from the engine at that socket.
fn machine_on(socket: &Path, user: User) -> Machine {
    let mut machine = Machine::new(user);
    machine
        .use_engine(socket)
        .set("DEFAULT_CLAUDE_IMAGE", IMAGE);
    machine
}

/// A directory for a socket that outlives no test.
fn place_for_a_socket() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("engine.sock");
    (directory, socket)
}

/// Requests that a stub engine heard, in order.
type Heard = Arc<Mutex<Vec<String>>>;

/// An engine that answers each request by `answer`, given its path; an empty one is silence.
fn stub(socket: &Path, answer: fn(&str) -> String) -> Heard {
    let heard = Heard::default();
    let listener = UnixListener::bind(socket).expect("a socket");
    let all = heard.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let heard = all.clone();
            std::thread::spawn(move || serve(stream, &heard, answer));
        }
    });
    heard
}

fn serve(mut stream: UnixStream, heard: &Heard, answer: fn(&str) -> String) {
    let mut buffer = [0; 8192];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let head = String::from_utf8_lossy(&buffer[..count]).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        heard.lock().unwrap().push(path.clone());
        let body = answer(&path);
        if body.is_empty() {
            continue;
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
        let _ = write!(
            stream,
            "{head}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
    }
}

/// The command line on an engine that cannot be used: what it says, in time, and that it says what to do.
fn refused(machine: &Machine, wanted: &[&str]) {
    let begun = Instant::now();
    let listed = machine.cli(&["session", "list"]);
    let took = begun.elapsed();
    let errors = String::from_utf8_lossy(&listed.stderr).into_owned();
    assert!(!listed.status.success(), "{errors}");
    for words in wanted {
        assert!(errors.contains(words), "{words:?} in {errors}");
    }
    assert!(took < TYPED_WITHIN, "{took:?}: {errors}");
}

#[test]
fn an_engine_that_is_missing_is_named_and_may_come_later() {
    let (_directory, socket) = place_for_a_socket();
    let machine = machine_on(&socket, User::Root);
    refused(
        &machine,
        &["there is no engine at", "install and start Docker"],
    );
    if ask(without_engine("an engine that comes later")) {
        return;
    }
    std::os::unix::fs::symlink(ENGINE_SOCKET, &socket).expect("it is there now");
    let listed = machine.cli(&["session", "list"]);
    assert!(listed.status.success(), "{listed:?}");
}

#[test]
fn an_engine_that_has_stopped_is_told_from_a_missing_one() {
    let (_directory, socket) = place_for_a_socket();
    drop(UnixListener::bind(&socket).expect("a socket"));
    let machine = machine_on(&socket, User::Root);
    refused(
        &machine,
        &["no engine listens", "try again in a few seconds"],
    );
}

#[test]
fn an_engine_that_is_silent_is_left_in_time() {
    let (_directory, socket) = place_for_a_socket();
    let heard = stub(&socket, |_| String::new());
    let machine = machine_on(&socket, User::Root);
    refused(
        &machine,
        &["gives no answer within 5s", "restart the engine"],
    );
    assert!(
        !heard.lock().unwrap().is_empty(),
        "the control: it was asked"
    );
}

#[test]
fn an_engine_that_is_too_old_is_refused() {
    let (_directory, socket) = place_for_a_socket();
    stub(&socket, |_| {
        r#"{"ApiVersion":"1.40","Version":"19.03"}"#.to_owned()
    });
    let machine = machine_on(&socket, User::Root);
    refused(&machine, &["1.40", "install Docker 20.10 or later"]);
}

#[test]
fn who_may_not_speak_to_the_engine_is_told() {
    if !users().contains(&User::Root) {
        return;
    }
    let (directory, socket) = place_for_a_socket();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).expect("its mode");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o660);
    std::fs::set_permissions(&socket, closed).expect("its mode");
    let machine = machine_on(&socket, User::Ordinary);
    refused(&machine, &["may not speak to the engine", "native backend"]);
}

/// Each answer of an engine that is very slow, but not too slow for one call.
const SLOWLY: Duration = Duration::from_millis(1_800);

fn slowly(path: &str) -> String {
    std::thread::sleep(SLOWLY);
    let body = if path.ends_with("/version") {
        json!({ "ApiVersion": "1.41", "Version": "20.10.24" })
    } else if path.ends_with("/info") {
        json!({ "OSType": "linux", "ServerVersion": "20.10.24", "SecurityOptions": ["name=seccomp,profile=default"] })
    } else {
        json!({ "Id": "sha256:00" })
    };
    body.to_string()
}

/// What decides is the order of events and no clock of the test: a server that looks for any walls has lost its patience
/// before a slow engine is asked for a third time, and one that was told to use it has not.
#[test]
fn an_engine_that_is_slow_keeps_no_server_from_starting_that_was_not_told_to_use_it() {
    let (_directory, socket) = place_for_a_socket();
    let heard = stub(&socket, slowly);
    let asked_for_the_image = |heard: &Heard| {
        let heard = heard.lock().unwrap();
        heard.iter().any(|path| path.contains("/images/"))
    };
    let mut machine = machine_on(&socket, User::Root);
    machine.set("CLAUDE_CODE_MCP_BACKEND", "auto");
    let mut client = machine.client();
    let session = client.create(&machine.project);
    assert_eq!(client.output(&session, "echo works"), "works");
    client.destroy(&session);
    // It would have been asked by now.
    std::thread::sleep(SLOWLY);
    assert!(!asked_for_the_image(&heard), "{heard:?}");
    assert!(
        !heard.lock().unwrap().is_empty(),
        "the control: it was asked"
    );
    drop(client);
    machine.wait_for_server_end();
    machine.set("CLAUDE_CODE_MCP_BACKEND", "docker");
    let listed = machine.cli(&["session", "list"]);
    assert!(listed.status.success(), "{listed:?}");
    assert!(asked_for_the_image(&heard), "the control: {heard:?}");
}

#[test]
fn a_session_lives_on_while_its_engine_restarts() {
    let mut machine = Machine::new(User::Root);
    let leg = "an engine that restarts and keeps its containers";
    let Some(mut engine) = OwnEngine::start(machine.base(), Containers::LiveOn, leg) else {
        return;
    };
    on(&mut machine, &engine);
    let mut client = machine.client();
    let session = client.create(&machine.project);
    let server = machine.server_pid().expect("a server");
    let arguments =
        json!({ "sessionId": session, "command": "sleep 2; echo late", "waitSeconds": 0 });
    let running = client
        .tool("execute_command", arguments)
        .expect("an execution");
    engine.stop();
    assert_eq!(
        client.output(&session, "echo without an engine"),
        "without an engine"
    );
    no_new_session(&machine, &mut client);
    engine.begin().expect("it comes back");
    let late = json!({ "executionId": running["executionId"], "waitSeconds": 20 });
    let late = client.tool("get_execution", late).expect("the execution");
    assert_eq!(late["stdout"]["text"], "late\n", "{late:#}");
    assert_eq!(client.output(&session, "echo still here"), "still here");
    new_session(&machine, &mut client);
    assert_eq!(engine.containers().len(), 1, "{:?}", engine.containers());
    client.destroy(&session);
    assert_eq!(engine.containers(), Vec::<String>::new());
    assert_eq!(
        machine.server_pid(),
        Some(server),
        "without a restart of ours"
    );
    drop((client, engine));
}

#[test]
fn a_session_that_ends_with_its_engine_is_told_and_its_remains_are_removed_later() {
    let mut machine = Machine::new(User::Root);
    let leg = "an engine that restarts and ends its containers";
    let Some(mut engine) = OwnEngine::start(machine.base(), Containers::EndWithIt, leg) else {
        return;
    };
    on(&mut machine, &engine);
    let mut client = machine.client();
    let session = client.create(&machine.project);
    let server = machine.server_pid().expect("a server");
    assert_eq!(
        client.output(&session, "echo works"),
        "works",
        "the control"
    );
    engine.stop();
    let asked = json!({ "sessionId": session });
    until("the session has failed", || {
        client
            .tool("get_session", asked.clone())
            .is_ok_and(|session| session["state"] == "failed")
    });
    let arguments = json!({ "sessionId": session, "command": "true" });
    let refused = client
        .tool("execute_command", arguments)
        .expect_err("it has ended");
    assert!(
        refused.to_string().contains("its sandbox ended"),
        "{refused:#}"
    );
    no_new_session(&machine, &mut client);
    engine.begin().expect("it comes back");
    new_session(&machine, &mut client);
    until("what is left of it is removed", || {
        engine.containers().is_empty()
    });
    assert_eq!(
        machine.server_pid(),
        Some(server),
        "without a restart of ours"
    );
    drop((client, engine));
}

fn on(machine: &mut Machine, engine: &OwnEngine) {
    machine
        .set("CLAUDE_CODE_MCP_BACKEND", "docker")
        .set("DEFAULT_CLAUDE_IMAGE", IMAGE)
        .set(
            "DOCKER_HOST",
            &format!("unix://{}", engine.socket().display()),
        );
}

/// While the engine is away a creation is refused in time, with a code and with what to do.
fn no_new_session(machine: &Machine, client: &mut crate::support::Client) {
    let begun = Instant::now();
    let refused = client
        .tool("create_session", json!({ "projectPath": machine.project }))
        .expect_err("no engine");
    assert!(begun.elapsed() < TYPED_WITHIN, "{:?}", begun.elapsed());
    assert_eq!(refused["code"], "backend_unavailable", "{refused:#}");
    let hint = refused["hint"].as_str().unwrap_or_default();
    assert!(
        hint.contains("Docker") || hint.contains("docker"),
        "{refused:#}"
    );
}

fn new_session(machine: &Machine, client: &mut crate::support::Client) {
    let session = client.create(&machine.project);
    assert_eq!(client.output(&session, "echo new"), "new");
    client.destroy(&session);
}
