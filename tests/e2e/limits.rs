//! Limits of callers and of the machine through the real binary (D3, P2c): exact under a race on the embedded runtime and on Docker,
//! places that come back after a crash, refusals that say what is short, calls a minute.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Machine, User, engine, race, until};

/// `MAX_CONCURRENT_SESSIONS` of the races.
const PLACES: usize = 10;

#[test]
fn of_a_hundred_parallel_creations_exactly_ten_live() {
    let mut machine = Machine::new(User::Ordinary);
    machine.set("MAX_CONCURRENT_SESSIONS", "10");
    machine.client().close();
    for round in 0..2 {
        let raced = race::is_exact(&machine, 10, 10, PLACES);
        assert_eq!(raced, Ok(()), "round {round}");
    }
}

#[test]
fn of_a_hundred_parallel_creations_exactly_ten_live_on_docker() {
    let Some(mut machine) = engine::machine("docker") else {
        return;
    };
    machine.set("MAX_CONCURRENT_SESSIONS", "10");
    machine.client().close();
    assert_eq!(race::is_exact(&machine, 10, 10, PLACES), Ok(()));
}

#[test]
fn a_place_comes_back_after_a_crash_of_the_sandbox_and_of_the_server() {
    let mut machine = Machine::new(User::Ordinary);
    machine.set("MAX_CONCURRENT_SESSIONS", "1");
    let mut client = machine.client();
    client.create(&machine.project);
    let on = json!({ "projectPath": machine.project });
    let refused = client
        .tool("create_session", on.clone())
        .expect_err("no place");
    assert_eq!(refused["code"], "limit_reached", "{refused:#}");
    assert!(refused["retryAfterMs"].as_u64().is_some(), "{refused:#}");
    for pid in machine.sandbox_pids() {
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    let mut session = String::new();
    until("the place is free", || {
        match client.tool("create_session", on.clone()) {
            Ok(made) => {
                session = made["sessionId"].as_str().unwrap_or_default().to_owned();
                true
            }
            Err(refused) => {
                assert_eq!(refused["code"], "limit_reached", "{refused:#}");
                false
            }
        }
    });
    // It holds its place over a restart, and gives it back then, too.
    let pid = machine.server_pid().expect("a server");
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    machine.wait_for_server_end();
    let mut client = machine.client();
    let refused = client
        .tool("create_session", on.clone())
        .expect_err("no place");
    assert_eq!(refused["code"], "limit_reached", "{refused:#}");
    client.destroy(&session);
    let again = client.create(&machine.project);
    client.destroy(&again);
}

#[test]
fn what_the_machine_has_is_not_promised_more_often_than_the_operator_says() {
    let mut machine = Machine::new(User::Ordinary);
    // A fraction of a percent of a session's memory cannot be promised on any machine.
    machine.set("CLAUDE_CODE_MCP_LIMIT_MEMORY", "900g");
    machine.set("CLAUDE_CODE_MCP_OVERCOMMIT_MEMORY_PERCENT", "1");
    let mut client = machine.client();
    let on = json!({ "projectPath": machine.project });
    let refused = client.tool("create_session", on).expect_err("no memory");
    assert_eq!(refused["code"], "limit_reached", "{refused:#}");
    let words = refused["message"].as_str().unwrap_or_default();
    assert!(
        words.contains("memory") && words.contains("None of them is yours"),
        "{words}"
    );
    let info = client.tool("get_server_info", json!({})).expect("told");
    assert_eq!(
        (&info["ownSessions"], &info["queueWaitSeconds"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(info["maxCallsPerMinute"], json!(60_000), "{info:#}");
}

#[test]
fn a_new_session_waits_in_line_where_the_operator_says_so() {
    let mut machine = Machine::new(User::Ordinary);
    machine.set("MAX_CONCURRENT_SESSIONS", "1");
    machine.set("CLAUDE_CODE_MCP_QUEUE_WAIT", "30");
    let (mut first, mut second) = (machine.client(), machine.client());
    let session = first.create(&machine.project);
    let arguments = json!({ "projectPath": machine.project });
    let call = json!({ "name": "create_session", "arguments": arguments });
    let waiting = second.post("tools/call", call);
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    first.destroy(&session);
    let made = second.answer(waiting).expect("an answer");
    assert!(began.elapsed() < Duration::from_secs(20));
    let made = made["structuredContent"]["sessionId"]
        .as_str()
        .expect("its place")
        .to_owned();
    second.destroy(&made);
}

#[test]
fn a_caller_that_calls_too_often_is_told_when_to_try_again_and_can_still_end_things() {
    let mut machine = Machine::new(User::Ordinary);
    machine.set("CLAUDE_CODE_MCP_RATE_CALLS_PER_MINUTE", "60");
    machine.set("CLAUDE_CODE_MCP_RATE_BURST", "5");
    let mut client = machine.client();
    let session = client.create(&machine.project);
    let list = |client: &mut crate::support::Client| client.tool("list_sessions", json!({}));
    let refused = (0..20)
        .find_map(|_| list(&mut client).err())
        .expect("too many");
    assert_eq!(refused["code"], "rate_limited", "{refused:#}");
    let told = refused["retryAfterMs"].as_u64().expect("a time");
    assert!((1..=1_000).contains(&told), "{refused:#}");
    std::thread::sleep(Duration::from_millis(told + 5));
    assert!(list(&mut client).is_ok(), "a try after that passes");
    client.destroy(&session);
}
