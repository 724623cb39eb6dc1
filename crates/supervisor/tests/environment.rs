//! The environment that the supervisor keeps for all executions: who gets it, what wins, and who cannot read it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm
)]

mod harness;

use harness::*;
use wire::*;

const CANARY: &str = "canary-3f9a";

fn entries(entries: &[&str]) -> Vec<Vec<u8>> {
    entries
        .iter()
        .map(|entry| entry.as_bytes().to_vec())
        .collect()
}

fn set(sandbox: &mut Sandbox, env: &[&str]) {
    let env = entries(env);
    let reply = sandbox.connection.call(Request::SetEnvironment { env });
    assert_eq!(reply, Ok(Reply::Done));
}

/// What a program finds that is started with these variables of its own.
fn environment(sandbox: &mut Sandbox, own: &[&str]) -> Vec<String> {
    let mut spec = spec(&["env"]);
    spec.env = entries(own);
    let key = sandbox.connection.start(&spec);
    sandbox.connection.wait(key);
    let out = sandbox.connection.read_all(key, Stream::Stdout);
    let mut found: Vec<String> = String::from_utf8(out)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    found.sort();
    found
}

#[test]
fn it_reaches_every_start_survives_a_reconnect_and_a_starts_own_variables_win() {
    let Some(mut sandbox) = sandbox() else { return };
    set(&mut sandbox, &["GONE=x"]);
    set(&mut sandbox, &["PATH=/usr/bin:/bin", "A=kept", "B=kept"]);
    for _ in 0..2 {
        assert_eq!(
            environment(&mut sandbox, &[]),
            ["A=kept", "B=kept", "PATH=/usr/bin:/bin"]
        );
        assert_eq!(
            environment(&mut sandbox, &["A=own", "C=own"]),
            ["A=own", "B=kept", "C=own", "PATH=/usr/bin:/bin"]
        );
        sandbox.redial();
        sandbox.connection.welcome(DEFAULT_LEASE_MS);
    }
}

#[test]
fn programs_are_looked_up_in_the_path_that_they_get() {
    let Some(mut sandbox) = sandbox() else { return };
    let cannot = |sandbox: &mut Sandbox, own: &[&str]| {
        let mut spec = spec(&["env"]);
        spec.env = entries(own);
        sandbox.connection.fault(Request::Start(Box::new(spec)))
    };
    set(&mut sandbox, &["PATH=/nowhere"]);
    assert_eq!(cannot(&mut sandbox, &[]), FaultKind::CannotExecute);
    let own = ["PATH=/usr/bin:/bin"];
    assert_eq!(environment(&mut sandbox, &own), own);
    set(&mut sandbox, &own);
    assert_eq!(environment(&mut sandbox, &[]), own);
    assert_eq!(
        cannot(&mut sandbox, &["PATH=/nowhere"]),
        FaultKind::CannotExecute
    );
}

#[test]
fn the_largest_one_can_be_started_with_and_what_is_over_it_is_refused() {
    let Some(mut sandbox) = sandbox() else { return };
    // The kernel takes at most 128 KiB in one string, its end included.
    let half = [b"A=".to_vec(), vec![b'x'; MAX_ENVIRONMENT_BYTES / 2 - 3]].concat();
    let mut other = half.clone();
    other[0] = b'B';
    let mut env = vec![half, other];
    let largest = Request::SetEnvironment { env: env.clone() };
    assert_eq!(sandbox.connection.call(largest), Ok(Reply::Done));
    env.push(b"C=".to_vec());
    for env in [env, entries(&["no value"]), entries(&["NUL=\0"])] {
        let refused = sandbox.connection.fault(Request::SetEnvironment { env });
        assert_eq!(refused, FaultKind::Invalid);
    }
    let (status, out, _) = sandbox.run("echo ${#A} ${#B} ${C-unset}");
    assert_eq!(ended(&status).exit, Exit::Code(0));
    let length = MAX_ENVIRONMENT_BYTES / 2 - 3;
    assert_eq!(out, format!("{length} {length} unset\n"));
}

/// Tries every way to another process's environment or memory that `/proc` has, for each pid given.
const PEEK: &str = "for pid in $PIDS; do for file in environ mem auxv maps; do \
    if [ $file = environ ]; then text=$(tr '\\0' '\\n' 2>/dev/null < /proc/$pid/environ); \
    else text=; { exec 3< /proc/$pid/$file; } 2>/dev/null && text=opened; exec 3<&-; fi; \
    [ -n \"$text\" ] && echo $pid $file \"$text\"; done; done; true";

#[test]
fn an_execution_reads_it_neither_from_the_supervisor_nor_from_a_stub() {
    let Some(mut sandbox) = sandbox() else { return };
    let secret = format!("SECRET={CANARY}");
    set(&mut sandbox, &["PATH=/usr/bin:/bin", &secret]);
    // The control: the same look at a program that has the secret, and runs under the same uid, finds it.
    let other = sandbox.shell("echo $$ $PPID; exec sleep 60");
    let other = sandbox.connection.start(&other);
    let line = sandbox.connection.read_until(other, Stream::Stdout, "\n");
    let (program, stub) = line.trim().split_once(' ').unwrap();
    let mut peek = |pids: &str| {
        let mut spec = sandbox.shell(PEEK);
        spec.env = vec![b"SECRET=mine".to_vec(), format!("PIDS={pids}").into_bytes()];
        let key = sandbox.connection.start(&spec);
        let status = sandbox.connection.wait(key);
        assert_eq!(ended(&status).exit, Exit::Code(0));
        String::from_utf8(sandbox.connection.read_all(key, Stream::Stdout)).unwrap()
    };
    assert!(peek(program).contains(CANARY));
    assert_ne!(stub, "1");
    assert_eq!(peek(&format!("1 {stub}")), "");
}
