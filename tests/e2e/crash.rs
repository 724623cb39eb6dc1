//! kill -9 of whatever: sessions go on, nothing outlives its lease, nothing is left (S3, T3.2, T3.4).

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::{Machine, PATIENCE, census::Census, until, users};

/// Waits until the census is as before, and tells the difference if it never is.
fn until_nothing_is_left(machine: &Machine, before: &Census) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = machine.census();
        if now == *before {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "left behind: {now:#?}\nbefore: {before:#?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("killed");
    until("it is dead", || !alive(pid));
}

fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'))
    })
}

#[test]
fn a_running_execution_survives_a_killed_server_and_is_read_afterwards() {
    for user in users() {
        let machine = Machine::new(user);
        let mut client = machine.client();
        let session = client.create(&machine.project);
        let arguments = json!({
            "sessionId": session, "command": "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.2; done; exit 5",
            "waitSeconds": 0,
        });
        let started = client
            .tool("execute_command", arguments)
            .expect("an execution");
        let execution = started["executionId"].as_str().expect("an id").to_owned();
        kill(machine.server_pid().expect("a server"));
        let mut client = machine.client();
        let deadline = Instant::now() + PATIENCE;
        let read = loop {
            let arguments = json!({ "executionId": execution, "waitSeconds": 10 });
            match client.tool("get_execution", arguments) {
                Ok(read) if read["state"] == "exited" => break read,
                Ok(_) => {}
                Err(error) => assert_eq!(error["code"], "session_not_ready", "{error:#}"),
            }
            assert!(Instant::now() < deadline, "the execution was never read");
            std::thread::sleep(Duration::from_millis(100));
        };
        assert_eq!(read["exitCode"], 5, "{read:#}");
        assert_eq!(read["stdout"]["text"], "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n");
        client.destroy(&session);
    }
}

#[test]
fn no_process_outlives_the_lease_of_a_killed_server_and_no_object_the_next_start() {
    for user in users() {
        let mut machine = Machine::new(user);
        machine.set("CLAUDE_CODE_MCP_LEASE_SECONDS", "2");
        let before = machine.census();
        let mut client = machine.client();
        let session = client.create(&machine.project);
        client
            .tool(
                "execute_command",
                json!({ "sessionId": session, "command": "sleep 600", "waitSeconds": 0 }),
            )
            .expect("an execution");
        assert!(
            !machine.sandbox_pids().is_empty(),
            "the census sees the sandbox"
        );
        kill(machine.server_pid().expect("a server"));
        let killed = Instant::now();
        until("every process is gone", || {
            machine.sandbox_pids().is_empty()
        });
        assert!(
            killed.elapsed() < Duration::from_secs(4),
            "the lease of 2 s was outlived: {:?}",
            killed.elapsed()
        );
        let mut client = machine.client();
        until("the session is ended", || {
            client
                .tool("get_session", json!({ "sessionId": session }))
                .is_ok_and(|session| session["state"] == "failed")
        });
        until_nothing_is_left(&machine, &before);
    }
}

#[test]
fn a_killed_front_ends_nothing() {
    for user in users() {
        let machine = Machine::new(user);
        let mut client = machine.client();
        let session = client.create(&machine.project);
        let started = client
            .tool("execute_command", json!({ "sessionId": session, "command": "sleep 0.5; echo done", "waitSeconds": 0 }))
            .expect("an execution");
        client.child.kill().expect("killed");
        let mut client = machine.client();
        let arguments = json!({ "executionId": started["executionId"], "waitSeconds": 10 });
        until("it has ended", || {
            client
                .tool("get_execution", arguments.clone())
                .is_ok_and(|read| read["stdout"]["text"] == "done\n")
        });
        client.destroy(&session);
    }
}

#[test]
fn sessions_end_at_their_lifetime_and_when_idle_and_a_running_execution_is_not_idle() {
    for user in users() {
        let machine = Machine::new(user);
        let mut client = machine.client();
        let ttl = client.create_with(json!({ "projectPath": machine.project, "ttlSeconds": 2 }));
        let idle = client.create_with(json!({ "projectPath": machine.project, "idleSeconds": 1 }));
        let busy = client.create_with(json!({ "projectPath": machine.project, "idleSeconds": 1 }));
        let begun = Instant::now();
        for session in [&ttl, &busy] {
            client
                .tool(
                    "execute_command",
                    json!({ "sessionId": session, "command": "sleep 600", "waitSeconds": 0 }),
                )
                .expect("an execution");
        }
        let mut state = |session: &str| {
            let view = client
                .tool("get_session", json!({ "sessionId": session }))
                .expect("a session");
            view["state"].as_str().expect("a state").to_owned()
        };
        until("the idle one is expired", || state(&idle) == "expired");
        assert!(
            begun.elapsed() < Duration::from_millis(2_500),
            "{:?}",
            begun.elapsed()
        );
        until("the old one is expired", || state(&ttl) == "expired");
        assert!(
            begun.elapsed() < Duration::from_millis(3_500),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(state(&busy), "busy");
        let refused = client
            .tool(
                "execute_command",
                json!({ "sessionId": ttl, "command": "true" }),
            )
            .expect_err("an expired session");
        assert_eq!(refused["code"], "session_expired");
        client.destroy(&busy);
        assert!(machine.sandbox_pids().is_empty());
    }
}

#[test]
fn a_stubborn_tree_is_gone_within_a_second_of_its_deadline() {
    for user in users() {
        let machine = Machine::new(user);
        let mut client = machine.client();
        let session = client.create(&machine.project);
        let stubborn = "trap '' TERM HUP INT; (trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 600' & ) ; \
                        nohup sleep 600 >/dev/null 2>&1 & sleep 600";
        let arguments = json!({ "sessionId": session, "command": stubborn, "timeoutSeconds": 1, "waitSeconds": 10 });
        let begun = Instant::now();
        let ended = client
            .tool("execute_command", arguments)
            .expect("an execution");
        assert_eq!(ended["state"], "timedOut", "{ended:#}");
        assert!(
            begun.elapsed() < Duration::from_millis(2_300),
            "{:?}",
            begun.elapsed()
        );
        // Only the supervisor, the stub of this look, and the look itself.
        let count: u32 = client
            .output(&session, "ls -d /proc/[0-9]* | wc -l")
            .parse()
            .expect("a number");
        assert!(count <= 5, "{count} processes are left");
        client.destroy(&session);
    }
}

#[test]
fn a_server_that_is_told_to_end_leaves_its_sessions_to_the_next() {
    for user in users() {
        let machine = Machine::new(user);
        let mut client = machine.client();
        let session = client.create(&machine.project);
        client.output(&session, "echo kept > /state/kept");
        let server = machine.server_pid().expect("a server");
        kill_process(Pid::from_raw(server).expect("a pid"), Signal::TERM).expect("told");
        until("it has ended", || {
            !Path::new(&format!("/proc/{server}")).exists() || !alive(server)
        });
        let mut client = machine.client();
        until("it is taken up again", || {
            client
                .tool(
                    "execute_command",
                    json!({ "sessionId": session, "command": "true" }),
                )
                .is_ok()
        });
        assert_eq!(client.output(&session, "cat /state/kept"), "kept");
        client.destroy(&session);
    }
}
