//! Prompts from the command line: `run`, `session prompt`, `attach`, `approve`, `transcript`, with the real Claude Code
//! against the scripted Messages API (S2, C2). Every answer of a model here is scripted.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use scripted_api::by_prompt;
use serde_json::Value;

use crate::{
    support::stage::Stage,
    support::{Machine, User, program, until, users},
};

fn stage(user: User) -> Option<Stage> {
    Stage::of(Machine::new(user), by_prompt().expect("the scenarios"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn cli(stage: &Stage, arguments: &[&str]) -> Output {
    stage.machine.cli(arguments)
}

/// Nothing of a session is left, and the list is empty: that it is not always so shows [`sessions`] elsewhere.
fn assert_no_session(stage: &Stage) {
    assert_eq!(sessions(stage), 0);
    assert_eq!(stage.machine.sandbox_pids().len(), 0);
}

fn sessions(stage: &Stage) -> usize {
    let listed = cli(stage, &["session", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    listed["sessions"].as_array().expect("sessions").len()
}

#[test]
fn run_gives_the_answer_tells_the_rest_and_leaves_the_project_and_nothing_else() {
    for user in users() {
        let Some(stage) = stage(user) else { return };
        let done = cli(&stage, &["run", "--prompt", "[[write-test]] go"]);
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        assert_eq!(
            stdout(&done).trim(),
            "Done: greet.sh is written and its test passed."
        );
        let told = stderr(&done);
        for part in [
            "> writing /workspace/greet.sh",
            "> running test",
            "  PASSED",
            "3 requests to",
            "2 uses of tools",
            "tokens in",
            "$0.",
            "changed files:\n  greet.sh",
        ] {
            assert!(told.contains(part), "{part:?} is not in:\n{told}");
        }
        assert!(
            !told.contains("Done: greet.sh"),
            "the answer is for standard output:\n{told}"
        );
        assert!(stage.machine.project.join("greet.sh").is_file());
        assert_no_session(&stage);

        let json = cli(&stage, &["run", "--json", "-q", "--prompt", "[[text]] go"]);
        let reply: Value = serde_json::from_slice(&json.stdout).expect("JSON alone");
        assert_eq!(
            (&reply["stop"], &reply["kind"]),
            (&"completed".into(), &"prompt".into())
        );
        assert_eq!(stderr(&json), "", "quiet");
    }
}

#[test]
fn each_way_to_end_has_its_exit_code_and_the_session_is_destroyed_all_the_same() {
    let Some(stage) = stage(User::Ordinary) else {
        return;
    };
    for (arguments, code) in [
        (vec!["--prompt", "[[status-401]] go"], 3),
        (vec!["--prompt", "[[loop]] go", "--max-turns", "2"], 5),
        (
            vec!["--prompt", "[[dear-loop]] go", "--max-budget-usd", "0.5"],
            6,
        ),
        (vec!["--prompt", "[[long-tool]] go", "--timeout", "3s"], 124),
        (
            vec!["--prompt", "[[text]] go", "--project", "/nonexistent"],
            1,
        ),
        (vec!["--prompt", " "], 2),
        (vec!["--prompt", "[[text]] go"], 0),
    ] {
        let all: Vec<_> = ["run"].into_iter().chain(arguments).collect();
        let done = cli(&stage, &all);
        assert_eq!(done.status.code(), Some(code), "{all:?}: {}", stderr(&done));
    }
    assert_no_session(&stage);
    let kept = cli(&stage, &["run", "--keep", "--prompt", "[[text]] go"]);
    assert_eq!(kept.status.code(), Some(0), "{}", stderr(&kept));
    assert_eq!(sessions(&stage), 1, "--keep");
    let gone = cli(&stage, &["session", "destroy", "--all"]);
    assert!(gone.status.success());
}

#[test]
fn an_interrupt_cancels_the_prompt_and_destroys_the_session() {
    let Some(stage) = stage(User::Ordinary) else {
        return;
    };
    let child = background(&stage, &["run", "--prompt", "[[long-tool]] go"]);
    until("the session is there", || sessions(&stage) == 1);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    let done = child.wait_with_output().expect("its end");
    assert_eq!(done.status.code(), Some(130), "{}", stderr(&done));
    assert!(
        stderr(&done).contains("It was cancelled"),
        "{}",
        stderr(&done)
    );
    assert_no_session(&stage);
}

fn background(stage: &Stage, arguments: &[&str]) -> std::process::Child {
    let mut command: Command = stage.machine.command(program());
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().expect("the program runs")
}

#[test]
fn prompts_come_from_standard_input_and_files_and_go_on_with_a_conversation() {
    let Some(stage) = stage(User::Ordinary) else {
        return;
    };
    assert!(
        cli(&stage, &["session", "create", "--name", "app"])
            .status
            .success()
    );
    stage
        .machine
        .write("task.md", "[[memory]] Remember: green boats");
    let told = cli(
        &stage,
        &["session", "prompt", "app", "--prompt-file", "task.md"],
    );
    assert_eq!(told.status.code(), Some(0), "{}", stderr(&told));

    let mut command = stage.machine.command(program());
    command
        .args(["session", "prompt", "app", "-"])
        .stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("standard input");
    stdin
        .write_all(b"[[memory]] What was it?")
        .expect("written");
    drop(stdin);
    let asked = child.wait_with_output().expect("its end");
    assert!(stdout(&asked).contains("green boats"), "{}", stdout(&asked));
    let fresh = cli(
        &stage,
        &[
            "session",
            "prompt",
            "app",
            "--new",
            "[[memory]] What was it?",
        ],
    );
    assert!(
        !stdout(&fresh).contains("green boats"),
        "{}",
        stdout(&fresh)
    );

    // The latest conversation, and the first by its id.
    let latest = cli(&stage, &["session", "transcript", "app"]);
    assert!(
        stdout(&latest).contains("What was it?"),
        "{}",
        stdout(&latest)
    );
    assert!(
        !stdout(&latest).contains("green boats"),
        "{}",
        stdout(&latest)
    );
    let missing = "6f1f9a52-5e8d-4c37-9b0e-0a4cf2b7d911";
    let missing = cli(
        &stage,
        &["session", "transcript", "app", "--conversation", missing],
    );
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        stderr(&missing).contains("conversation_not_found"),
        "{}",
        stderr(&missing)
    );
    let shown = cli(&stage, &["session", "show", "app", "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let id = shown["sessionId"].as_str().expect("an id");
    assert!(cli(&stage, &["session", "destroy", "app"]).status.success());
    // What was said outlives the session; its name is free again.
    let after = cli(&stage, &["session", "transcript", id, "--json"]);
    assert!(
        stdout(&after).contains("\"kind\":\"prompt\""),
        "{}",
        stderr(&after)
    );
}

#[test]
fn a_detached_prompt_is_attached_left_and_goes_on() {
    let Some(stage) = stage(User::Ordinary) else {
        return;
    };
    assert!(
        cli(&stage, &["session", "create", "--name", "app"])
            .status
            .success()
    );
    let nothing = cli(&stage, &["session", "attach", "app"]);
    assert_eq!(nothing.status.code(), Some(1), "{}", stderr(&nothing));
    assert!(
        stderr(&nothing).contains("execution_not_found"),
        "{}",
        stderr(&nothing)
    );
    let started = cli(
        &stage,
        &["session", "prompt", "app", "--detach", "[[slow]] go"],
    );
    let execution = stdout(&started).trim().to_owned();
    assert!(
        execution.starts_with("x-"),
        "{execution}: {}",
        stderr(&started)
    );
    let busy = cli(
        &stage,
        &["session", "prompt", "app", "--refuse-busy", "[[text]] go"],
    );
    assert!(
        stderr(&busy).contains("conversation_busy"),
        "{}",
        stderr(&busy)
    );

    let looker = background(&stage, &["session", "attach", "app"]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let pid = rustix::process::Pid::from_raw(looker.id().cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    let left = looker.wait_with_output().expect("its end");
    assert_eq!(left.status.code(), Some(130), "{}", stderr(&left));
    assert!(stderr(&left).contains("goes on"), "{}", stderr(&left));

    let seen = cli(&stage, &["session", "attach", &execution]);
    assert_eq!(seen.status.code(), Some(0), "{}", stderr(&seen));
    assert!(
        stdout(&seen).contains("nineteen twenty"),
        "{}",
        stdout(&seen)
    );

    // A command is followed too, with its own exit code.
    let command = [
        "session",
        "exec",
        "app",
        "--detach",
        "--",
        "sh",
        "-c",
        "echo one; sleep 1; echo two; exit 7",
    ];
    assert!(cli(&stage, &command).status.success());
    let seen = cli(&stage, &["session", "attach", "app"]);
    assert_eq!(
        (stdout(&seen).as_str(), seen.status.code()),
        ("one\ntwo\n", Some(7))
    );
}

#[test]
fn what_is_asked_in_a_strict_session_is_listed_and_answered() {
    let Some(stage) = stage(User::Ordinary) else {
        return;
    };
    for (answer, made) in [("--no", false), ("--yes", true)] {
        let child = background(
            &stage,
            &[
                "run",
                "--strict",
                "--prompt",
                "[[run]] RUN: touch /workspace/made",
            ],
        );
        let mut session = String::new();
        until("it asks", || {
            let listed = cli(&stage, &["session", "list", "--json"]);
            let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
            let Some(id) = listed["sessions"][0]["sessionId"].as_str() else {
                return false;
            };
            session = id.to_owned();
            stdout(&cli(&stage, &["session", "approve", id])).contains("touch /workspace/made")
        });
        let nobody = cli(&stage, &["session", "approve", &session, answer]);
        assert!(
            stderr(&nobody).contains("policy_denied"),
            "{}",
            stderr(&nobody)
        );
        let person = |arguments: &[&str]| stage.machine.cli_on_terminal(arguments);
        let unnamed = person(&["session", "approve", &session, "ffff", "--yes"]);
        assert!(
            stderr(&unnamed).contains("question_not_found"),
            "{}",
            stderr(&unnamed)
        );
        let answered = person(&["session", "approve", &session, answer]);
        assert!(answered.status.success(), "{}", stderr(&answered));
        let done = child.wait_with_output().expect("its end");
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        assert!(
            stderr(&done).contains("session approve"),
            "{}",
            stderr(&done)
        );
        assert_eq!(
            stderr(&done).contains("not allowed: Bash"),
            !made,
            "{}",
            stderr(&done)
        );
        assert_eq!(
            stage.machine.project.join("made").exists(),
            made,
            "{answer}"
        );
    }
    assert_no_session(&stage);
}

#[test]
fn the_demo_plays_a_prompt_and_says_that_it_is_scripted_or_that_it_is_skipped() {
    let Some(stage) = stage(User::Ordinary) else {
        return;
    };
    let played = cli(&stage, &["demo"]);
    let told = stdout(&played) + &stderr(&played);
    assert_eq!(played.status.code(), Some(0), "{told}");
    // A key is set here, but nobody said yes to a real model.
    assert!(
        told.contains("SCRIPTED") && told.contains("editing /workspace/greet.sh"),
        "{told}"
    );
    assert!(told.contains("they pass"), "{told}");
    let bare = Machine::new(User::Ordinary);
    let skipped = bare.cli(&["demo"]);
    assert_eq!(skipped.status.code(), Some(0), "{}", stderr(&skipped));
    assert!(stdout(&skipped).contains("SKIPPED"), "{}", stdout(&skipped));
}
