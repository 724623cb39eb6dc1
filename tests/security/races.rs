//! Races between what the server looks at and what it uses: a loop inside exchanges directories and links as fast as it
//! can while files are transferred and sessions are made. Nothing outside of the project is read or written.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    probe::{Sandbox, each, snapshot},
    support::until,
};

/// How long each race runs: some thousand exchanges.
const RACE: Duration = Duration::from_millis(1_500);
/// Tries of it at least, and how long they may take.
const TRIES: u32 = 12;
const LONGEST_RACE: Duration = Duration::from_secs(40);
const SECRET: &str = "a secret of the host";

/// Plants `race/d` (a directory) and `race/l` (a link) in the project and exchanges them without end: at once, or by three
/// renames where the kernel does not exchange (gVisor).
fn start_swapping(sandbox: &mut Sandbox, link_target: &str) -> String {
    let outside = sandbox.machine.base().join("outside");
    fs::create_dir_all(outside.join("deep")).expect("a directory");
    fs::write(outside.join("file"), SECRET).expect("a canary");
    fs::write(outside.join("deep/file"), SECRET).expect("a canary");
    for path in [
        "outside",
        "outside/file",
        "outside/deep",
        "outside/deep/file",
    ] {
        sandbox.machine.give(&sandbox.machine.base().join(path));
    }
    sandbox.machine.write("race/d/file", "mine");
    sandbox.machine.write("race/d/deep/file", "mine");
    let script = format!(
        "symlink('{link_target}', '/workspace/race/l') or die; open(my $f, '>', '/workspace/started'); \
         chdir '/workspace/race'; \
         while (1) {{ syscall(316, -100, my $a = 'd', -100, my $b = 'l', 2) == 0 \
         or rename('d', 't') && rename('l', 'd') && rename('t', 'l'); \
         select(undef, undef, undef, 0.0002) }}"
    );
    let arguments = json!({
        "sessionId": sandbox.session, "argv": ["/usr/bin/perl", "-e", script], "waitSeconds": 0,
    });
    let started = sandbox
        .client
        .tool("execute_command", arguments)
        .expect("an execution");
    until("the race has begun", || {
        sandbox.machine.project.join("started").exists()
    });
    started["executionId"].as_str().expect("its id").to_owned()
}

/// Repeats a transfer for the time of a race. Gives how many came through and how many were refused.
fn race(
    sandbox: &mut Sandbox,
    arguments: &Value,
    mut after: impl FnMut(&mut Sandbox),
) -> (u32, u32) {
    let mut arguments = arguments.clone();
    arguments["sessionId"] = json!(sandbox.session);
    let begun = Instant::now();
    let (mut through, mut refused) = (0, 0);
    // On a machine with much else to do a few seconds are not many tries.
    let is_enough = |through, refused| through > 0 && through + refused >= TRIES;
    while begun.elapsed() < RACE || (!is_enough(through, refused) && begun.elapsed() < LONGEST_RACE)
    {
        match sandbox.client.tool("transfer_files", arguments.clone()) {
            Ok(_) => through += 1,
            Err(error) => {
                assert_ne!(error["code"], "internal", "{error:#}");
                refused += 1;
            }
        }
        after(sandbox);
    }
    eprintln!("{through} came through, {refused} were refused");
    (through, refused)
}

#[test]
fn a_transfer_out_does_not_follow_a_directory_that_becomes_a_link_on_the_host() {
    each(|sandbox| {
        let outside = sandbox.machine.base().join("outside");
        start_swapping(sandbox, outside.to_str().expect("text"));
        sandbox.sh("mkdir -p /tmp/t && echo planted > /tmp/t/planted");
        let before = snapshot(&outside);
        let to = sandbox.machine.project.join("race/d/deep/t");
        let out = json!({ "direction": "from_container", "sourcePath": "/tmp/t", "destPath": to });
        let target = sandbox.machine.project.join("race");
        let (through, refused) = race(sandbox, &out, |_| {
            for place in ["d/deep/t", "l/deep/t"] {
                let _ = fs::remove_dir_all(target.join(place));
            }
        });
        assert!(
            through > 0,
            "the control: {refused} were refused, none came through"
        );
        assert_eq!(snapshot(&outside), before);
        assert!(refused > 0, "no exchange was ever in the way of {through}");
    });
}

#[test]
fn a_transfer_in_does_not_read_through_a_directory_that_becomes_a_link_on_the_host() {
    each(|sandbox| {
        let outside = sandbox.machine.base().join("outside");
        start_swapping(sandbox, outside.to_str().expect("text"));
        let from = sandbox.machine.project.join("race/d/file");
        let into =
            json!({ "direction": "to_container", "sourcePath": from, "destPath": "/tmp/got" });
        let (through, _) = race(sandbox, &into, |sandbox| {
            let got = sandbox.sh("cat /tmp/got 2>/dev/null; rm -f /tmp/got").out;
            assert!(got.is_empty() || got == "mine", "{got}");
        });
        assert!(through > 0, "the control");
        let whole = sandbox.machine.project.join("race");
        let into =
            json!({ "direction": "to_container", "sourcePath": whole, "destPath": "/tmp/whole" });
        race(sandbox, &into, |sandbox| {
            let got = sandbox
                .sh("grep -rl secret /tmp/whole 2>/dev/null; rm -rf /tmp/whole")
                .out;
            assert_eq!(got, "");
        });
    });
}

#[test]
fn a_transfer_does_not_leave_the_trees_inside_through_an_exchanged_link() {
    each(|sandbox| {
        start_swapping(sandbox, "/etc");
        let copy = sandbox.machine.project.join("copy");
        let out = json!({ "direction": "from_container", "sourcePath": "/workspace/race/d", "destPath": copy });
        let (through, refused) = race(sandbox, &out, |_| {
            assert!(!copy.join("passwd").exists(), "a file of /etc came out");
            let _ = fs::remove_dir_all(&copy);
            let _ = fs::remove_file(&copy);
        });
        assert!(through + refused >= TRIES, "{through} {refused}");
        let source = sandbox.machine.write("source", "planted");
        let into = json!({ "direction": "to_container", "sourcePath": source, "destPath": "/workspace/race/d/hosts" });
        let (through, _) = race(sandbox, &into, |_| {});
        assert!(through > 0, "the control");
        let hosts = sandbox.sh("cat /etc/hosts").out;
        assert!(!hosts.contains("planted"), "{hosts}");
    });
}

#[test]
fn a_session_is_not_made_on_a_directory_that_becomes_a_link() {
    each(|sandbox| {
        let outside = sandbox.machine.base().join("outside");
        start_swapping(sandbox, outside.to_str().expect("text"));
        let raced = sandbox.machine.project.join("race/d");
        let end = Instant::now() + RACE;
        let mut made = 0;
        while Instant::now() < end {
            match sandbox
                .client
                .tool("create_session", json!({ "projectPath": raced }))
            {
                Ok(session) => {
                    made += 1;
                    let id = session["sessionId"].as_str().expect("an id").to_owned();
                    let seen = sandbox.client.output(&id, "cat file");
                    assert_eq!(seen, "mine");
                    sandbox.client.destroy(&id);
                }
                Err(error) => assert_ne!(error["code"], "internal", "{error:#}"),
            }
        }
        eprintln!("{made} sessions were made");
        assert_eq!(
            fs::read_to_string(outside.join("file")).expect("the canary"),
            SECRET
        );
        let left: Vec<_> = crate::support::walk(&outside);
        assert_eq!(left.len(), 3, "something was made outside: {left:?}");
    });
}
