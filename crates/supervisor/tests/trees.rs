//! An execution is its whole tree: nothing of it outlives its end, and nothing else is touched.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm
)]

mod harness;

use std::time::{Duration, Instant};

use harness::*;
use wire::*;

/// Ways of staying alive, each leaving a `sleep 4242` that must go.
const STUBBORN: [(&str, &str); 6] = [
    ("background", "sleep 4242 & wait"),
    ("own session", "setsid sleep 4242 & wait"),
    (
        "double fork",
        "(setsid bash -c 'sleep 4242 & sleep 4242' & ) ; sleep 4242",
    ),
    (
        "ignores SIGTERM",
        "trap '' TERM HUP INT; bash -c 'trap \"\" TERM; while :; do sleep 4242; done' & wait; while :; do sleep 4242; done",
    ),
    ("stopped", "sleep 4242 & kill -STOP $!; wait"),
    (
        "deep",
        "f() { if [ $1 -gt 0 ]; then ( f $(( $1 - 1 )) ); else sleep 4242; fi; }; f 20; sleep 4242",
    ),
];

fn sleepers(sandbox: &Sandbox) -> usize {
    let processes = sandbox.processes();
    let command = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    processes
        .iter()
        .filter(|pid| command(pid).starts_with(b"sleep\x004242"))
        .count()
}

fn bystander(sandbox: &mut Sandbox) -> ExecutionKey {
    let spec = sandbox.shell("n=0; while :; do echo tick $((n++)); sleep 0.02; done");
    let execution = sandbox.connection.start(&spec);
    sandbox
        .connection
        .read_until(execution, Stream::Stdout, "tick 0");
    execution
}

fn still_ticks(sandbox: &mut Sandbox, execution: ExecutionKey) {
    let before = sandbox.connection.wait_for(execution, 0);
    assert_eq!(before.ended, None, "the bystander was hit");
    let after = sandbox
        .connection
        .read(execution, Stream::Stdout, before.stdout.total_bytes, 2000);
    assert!(!after.data.is_empty(), "the bystander stands still");
}

#[test]
fn a_stubborn_tree_is_gone_within_a_second_of_its_deadline() {
    let Some(mut sandbox) = sandbox() else { return };
    let bystander = bystander(&mut sandbox);
    let started = Instant::now();
    let executions = STUBBORN.map(|(name, script)| {
        let spec = StartSpec {
            deadline_ms: Some(2000),
            grace_ms: 100,
            ..sandbox.shell(script)
        };
        (name, sandbox.connection.start(&spec))
    });
    eventually(
        Duration::from_millis(1900),
        "the positive control: they sleep",
        || sleepers(&sandbox) >= STUBBORN.len(),
    );
    for (name, execution) in executions {
        let status = sandbox.connection.wait(execution);
        assert!(status.duration_us < 3_100_000, "{name}: {status:?}");
        assert_eq!(ended(&status).cause, Cause::Deadline, "{name}");
    }
    assert!(started.elapsed() > Duration::from_secs(2));
    assert_eq!(sleepers(&sandbox), 0);
    still_ticks(&mut sandbox, bystander);
}

#[test]
fn what_outlives_the_main_process_is_killed_and_counted() {
    let Some(mut sandbox) = sandbox() else { return };
    let (status, out, _) = sandbox
        .run("sleep 4242 & setsid sleep 4242 & (setsid sleep 4242 &); sleep 0.1; echo end; exit 5");
    assert_eq!(
        ended(&status),
        Ended {
            exit: Exit::Code(5),
            cause: Cause::Itself,
            swept: 3
        }
    );
    assert_eq!((out.as_str(), sleepers(&sandbox)), ("end\n", 0));
}

#[test]
fn a_cancelled_tree_gets_its_grace() {
    let Some(mut sandbox) = sandbox() else { return };
    let spec =
        sandbox.shell("trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.02; done");
    let execution = sandbox.connection.start(&spec);
    sandbox
        .connection
        .read_until(execution, Stream::Stdout, "ready");
    assert_eq!(
        sandbox.connection.call(Request::Cancel {
            execution,
            grace_ms: 10_000
        }),
        Ok(Reply::Done)
    );
    let status = sandbox.connection.wait(execution);
    assert_eq!(
        (ended(&status).exit, ended(&status).cause),
        (Exit::Code(9), Cause::Cancelled)
    );
    assert!(
        String::from_utf8_lossy(&sandbox.connection.read_all(execution, Stream::Stdout))
            .contains("bye")
    );
    let spec = sandbox.shell("trap '' TERM; echo ready; while :; do sleep 4242; done");
    let execution = sandbox.connection.start(&spec);
    sandbox
        .connection
        .read_until(execution, Stream::Stdout, "ready");
    for grace_ms in [60_000, 50] {
        // The second one is in more of a hurry.
        assert_eq!(
            sandbox.connection.call(Request::Cancel {
                execution,
                grace_ms
            }),
            Ok(Reply::Done)
        );
    }
    let status = sandbox.connection.wait(execution);
    assert_eq!(
        (ended(&status).exit, ended(&status).cause),
        (Exit::Signal(9), Cause::Cancelled)
    );
}

#[test]
fn an_agent_that_kills_its_stub_is_swept() {
    let Some(mut sandbox) = sandbox() else { return };
    let bystander = bystander(&mut sandbox);
    let spec =
        sandbox.shell("setsid sleep 4242 & sleep 4242 & echo $PPID; kill -KILL $PPID; sleep 4242");
    let execution = sandbox.connection.start(&spec);
    let status = sandbox.connection.wait(execution);
    assert_eq!(
        (ended(&status).exit, ended(&status).cause),
        (Exit::Lost, Cause::StubKilled)
    );
    assert_eq!(sleepers(&sandbox), 0);
    still_ticks(&mut sandbox, bystander);
    let (status, ..) = sandbox.run("exit 3");
    assert_eq!(
        ended(&status).exit,
        Exit::Code(3),
        "the next one runs as ever"
    );
}

#[test]
fn an_agent_that_stops_its_stub_still_ends() {
    let Some(mut sandbox) = sandbox() else { return };
    let (status, ..) = sandbox.run("kill -STOP $PPID; exit 4");
    assert_eq!(ended(&status).exit, Exit::Code(4));
}

/// 80 processes, each of which forks and ends all the time: every reading of /proc finds new ones. Bounded by the kernel
/// and in time.
const STORM: &str = "
ulimit -u 200
cat > storm.pl <<'EOF'
$SIG{TERM} = 'IGNORE'; $SIG{CHLD} = 'IGNORE';
my $end = time + 12;
for (1..80) {
    my $child = fork;
    next unless defined $child && $child == 0;
    while (time < $end) { my $next = fork; exit 0 if defined $next && $next; }
    exit 0;
}
$| = 1; print \"storm\\n\";
sleep 12;
EOF
exec perl storm.pl
";

/// Started and storming.
fn storm(sandbox: &mut Sandbox) -> ExecutionKey {
    let spec = sandbox.shell(STORM);
    let execution = sandbox.connection.start(&spec);
    sandbox
        .connection
        .read_until(execution, Stream::Stdout, "storm");
    execution
}

fn cancel(sandbox: &mut Sandbox, execution: ExecutionKey) {
    let request = Request::Cancel {
        execution,
        grace_ms: 0,
    };
    assert_eq!(sandbox.connection.call(request), Ok(Reply::Done));
}

#[test]
fn a_fork_storm_is_gone_within_a_second_and_others_go_on() {
    let Some(mut sandbox) = sandbox() else { return };
    let bystander = bystander(&mut sandbox);
    let stopped = sandbox.shell("sleep 4242 & kill -STOP $!; echo stopped; wait");
    let stopped = sandbox.connection.start(&stopped);
    sandbox
        .connection
        .read_until(stopped, Stream::Stdout, "stopped");
    let execution = storm(&mut sandbox);
    let known = |sandbox: &Sandbox| {
        sandbox
            .processes()
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
    };
    let before = known(&sandbox);
    eventually(
        Duration::from_secs(4),
        "the positive control: it storms",
        || known(&sandbox).difference(&before).count() > 5,
    );
    let started = Instant::now();
    cancel(&mut sandbox, execution);
    let status = sandbox.connection.wait(execution);
    let taken = started.elapsed();
    eprintln!(
        "storm: gone after {taken:?}, {} killed",
        ended(&status).swept
    );
    assert!(taken < Duration::from_secs(1), "{taken:?}");
    assert_eq!(ended(&status).cause, Cause::Cancelled);
    eventually(Duration::from_secs(1), "only the others are left", || {
        sandbox.processes().len() <= 8
    });
    still_ticks(&mut sandbox, bystander);
    let states: Vec<String> = sandbox
        .processes()
        .iter()
        .map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default())
        .collect();
    assert!(
        states.iter().any(|stat| stat.contains(") T ")),
        "what was stopped before stays stopped: {states:?}"
    );
}

#[test]
fn a_storm_that_others_wake_from_every_freeze_is_gone_too() {
    let Some(mut sandbox) = sandbox() else { return };
    let waker =
        sandbox.shell("perl -e '$end = time + 12; while (time < $end) { kill CONT => -1 }'");
    let wakers = [(); 2].map(|()| StartSpec {
        execution: key(),
        ..waker.clone()
    });
    for waker in &wakers {
        sandbox.connection.start(waker);
    }
    let execution = storm(&mut sandbox);
    let started = Instant::now();
    cancel(&mut sandbox, execution);
    let wait = Request::Wait {
        execution,
        wait_ms: 10_000,
    };
    sandbox.connection.ask(wait);
    // Either the tree is gone, or the sandbox with all that is in it: the last resort.
    let by = match sandbox.connection.try_receive() {
        Some(ToHost::Reply {
            result: Ok(Reply::Status(status)),
            ..
        }) => format!("sweeping {:?}", ended(&status)),
        Some(other) => panic!("{other:?}"),
        None => "ending the sandbox".to_owned(),
    };
    let taken = started.elapsed();
    eprintln!("woken storm: gone after {taken:?}, by {by}");
    assert!(taken < Duration::from_millis(1500), "{taken:?}");
}

#[test]
fn a_process_that_looks_like_a_zombie_but_has_threads_is_killed() {
    let Some(mut sandbox) = sandbox() else { return };
    let exit = if cfg!(target_arch = "x86_64") { 60 } else { 93 };
    // exit(2) of the first thread alone: the process goes on in its second one.
    let script = format!(
        "setsid perl -Mthreads -e 'threads->create(sub {{ for (1..2000) {{ open F, \">alive\"; print F $_; close F; \
         select undef, undef, undef, 0.01 }} }}); syscall({exit}, 0)' & while [ ! -s alive ]; do sleep 0.02; done; sleep 0.1; \
         grep -H State /proc/$!/status; echo end"
    );
    let (status, out, err) = sandbox.run(&script);
    assert!(
        out.contains("Z (zombie)") && out.ends_with("end\n"),
        "the positive control: {out} {err}"
    );
    assert_eq!(ended(&status).swept, 1, "{out} {err}");
    std::fs::remove_file(sandbox.path("workspace/alive")).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(
        !sandbox.path("workspace/alive").exists(),
        "a thread of it lives on"
    );
}

#[test]
fn orphans_are_reaped_while_the_execution_runs() {
    let Some(mut sandbox) = sandbox() else { return };
    let spec = sandbox
        .shell("for i in $(seq 50); do (setsid true &) ; done; sleep 0.2; echo done; sleep 60");
    let execution = sandbox.connection.start(&spec);
    sandbox
        .connection
        .read_until(execution, Stream::Stdout, "done");
    eventually(Duration::from_secs(2), "pid 1, stub, shell, sleep", || {
        sandbox.processes().len() <= 4
    });
}

#[test]
fn nothing_inside_can_read_or_forge_what_the_supervisor_and_its_stubs_hold() {
    let Some(mut sandbox) = sandbox() else { return };
    let script = "
        ls /proc/self/fd >/dev/null && echo control
        for pid in 1 $PPID; do
            ls /proc/$pid/fd >/dev/null 2>&1 && echo \"fd of $pid\"
            cat /proc/$pid/mem >/dev/null 2>&1 && echo \"mem of $pid\"
            cat /proc/$pid/environ >/dev/null 2>&1 && echo \"environ of $pid\"
            (exec 9>/proc/$pid/fd/4) 2>/dev/null && echo \"write to $pid\"
        done
        kill -TERM 1; kill -KILL 1; kill -STOP 1; kill -TERM $PPID; kill -HUP $PPID
        echo end; exit 6";
    let (status, out, _) = sandbox.run(script);
    assert_eq!(out, "control\nend\n");
    assert_eq!(ended(&status).exit, Exit::Code(6));
}

#[test]
fn soft_limits_end_the_execution_that_uses_most() {
    let soft = SoftLimits {
        memory_bytes: 150 << 20,
        pids: 40,
        state_bytes: 0,
    };
    let Some(mut sandbox) = sandbox_with(Options {
        soft,
        ..Options::default()
    }) else {
        return;
    };
    let bystander = bystander(&mut sandbox);
    for script in [
        "for i in $(seq 60); do sleep 4242 & done; wait",
        "perl -e '$x = \"a\" x (220 << 20); sleep 60'",
    ] {
        let spec = sandbox.shell(script);
        let execution = sandbox.connection.start(&spec);
        let status = sandbox.connection.wait_for(execution, 5000);
        assert_eq!(ended(&status).cause, Cause::SoftLimit, "{script}");
        still_ticks(&mut sandbox, bystander);
    }
    let (status, ..) = sandbox.run("for i in $(seq 10); do sleep 0.4 & done; wait; exit 2");
    assert_eq!(
        ended(&status),
        Ended {
            exit: Exit::Code(2),
            cause: Cause::Itself,
            swept: 0
        },
        "below all limits"
    );
}

#[test]
fn a_full_session_disk_ends_everything_that_runs() {
    let soft = SoftLimits {
        memory_bytes: 0,
        pids: 0,
        state_bytes: 4 << 20,
    };
    let Some(mut sandbox) = sandbox_with(Options {
        soft,
        ..Options::default()
    }) else {
        return;
    };
    let state = text(&sandbox.path("state"));
    let bystander = bystander(&mut sandbox);
    let (status, ..) = sandbox.run(&format!(
        "mkdir {state}/d; head -c 6000000 /dev/zero > {state}/d/file; sleep 60"
    ));
    assert_eq!(ended(&status).cause, Cause::SoftLimit);
    assert_eq!(
        ended(&sandbox.connection.wait(bystander)).cause,
        Cause::SoftLimit
    );
}
