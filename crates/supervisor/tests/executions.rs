//! Starting, feeding, watching and ending single executions.
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

#[test]
fn exit_codes_signals_and_both_streams_come_back() {
    let Some(mut sandbox) = sandbox() else { return };
    let (status, out, err) = sandbox.run("echo out; echo err >&2; exit 7");
    assert_eq!(
        ended(&status),
        Ended {
            exit: Exit::Code(7),
            cause: Cause::Itself,
            swept: 0
        }
    );
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    let (status, ..) = sandbox.run("kill -SEGV $$");
    assert_eq!(ended(&status).exit, Exit::Signal(11));
}

#[test]
fn the_attestation_tells_what_the_kernel_says() {
    let Some(mut sandbox) = sandbox() else { return };
    let attestation = sandbox.hello.attestation.clone();
    assert_eq!(
        (attestation.pid, attestation.uid, attestation.gid),
        (1, 1000, 1000)
    );
    assert!(attestation.not_dumpable && attestation.no_new_privs);
    assert_eq!(attestation.capabilities[2], 0, "{attestation:?}");
    assert!(attestation.namespaces.iter().all(|inode| *inode != 0));
    assert!(
        attestation
            .mounts
            .iter()
            .any(|mount| mount.target == "/proc" && mount.kind == "proc")
    );
    assert!(!attestation.interfaces.is_empty());
    if attestation.landlock_abi > 0 {
        assert!(attestation.landlock_in_force);
        let (_, out, _) = sandbox.run(
            "grep -c . /etc/passwd >/dev/null && echo readable; echo x > file && echo writable",
        );
        assert_eq!(out, "readable\nwritable\n", "the positive control");
        let outside = text(&sandbox.path("outside"));
        let (_, out, err) = sandbox.run(&format!(
            "echo x > {outside}/file && echo written; ln file {outside}/link"
        ));
        assert_eq!(out, "");
        assert!(err.contains("Permission denied"), "{err}");
    }
}

#[test]
fn files_move_between_directories_of_a_writable_root() {
    let Some(mut sandbox) = sandbox() else { return };
    let (status, _, err) =
        sandbox.run("mkdir a b && echo x > a/f && mv a/f b/f && ln b/f a/g && echo y > /dev/null");
    assert_eq!(ended(&status).exit, Exit::Code(0), "{err}");
}

#[test]
fn a_start_that_fails_says_why() {
    let Some(mut sandbox) = sandbox() else { return };
    let start = |spec: &StartSpec| Request::Start(Box::new(spec.clone()));
    let missing = spec(&["no-such-program"]);
    let fault = sandbox.connection.call(start(&missing)).unwrap_err();
    assert_eq!((fault.kind, fault.errno), (FaultKind::CannotExecute, 2));
    let fault = sandbox
        .connection
        .call(start(&spec(&["/etc/passwd"])))
        .unwrap_err();
    assert_eq!((fault.kind, fault.errno), (FaultKind::CannotExecute, 13));
    let mut nowhere = spec(&["true"]);
    nowhere.cwd = b"/no/such/place".to_vec();
    let fault = sandbox.connection.call(start(&nowhere)).unwrap_err();
    assert_eq!((fault.kind, fault.errno), (FaultKind::BadCwd, 2));
    for broken in [
        StartSpec {
            argv: Vec::new(),
            ..spec(&["true"])
        },
        StartSpec {
            cwd: b"relative".to_vec(),
            ..spec(&["true"])
        },
        StartSpec {
            env: vec![b"novalue".to_vec()],
            ..spec(&["true"])
        },
        StartSpec {
            argv: vec![b"a\0b".to_vec()],
            ..spec(&["true"])
        },
        StartSpec {
            output: OutputMode::Lossless { window_bytes: 0 },
            ..spec(&["true"])
        },
    ] {
        assert_eq!(sandbox.connection.fault(start(&broken)), FaultKind::Invalid);
    }
    assert_eq!(
        sandbox.connection.call(Request::List),
        Ok(Reply::Executions(Vec::new()))
    );
    assert_eq!(
        sandbox.connection.fault(Request::Wait {
            execution: missing.execution,
            wait_ms: 0
        }),
        FaultKind::UnknownExecution
    );
    sandbox.connection.start(&missing_made_good(&missing));
}

fn missing_made_good(missing: &StartSpec) -> StartSpec {
    StartSpec {
        argv: vec![b"true".to_vec()],
        ..missing.clone()
    }
}

#[test]
fn the_program_sees_only_what_it_was_given() {
    let Some(mut sandbox) = sandbox() else { return };
    let mut spec = sandbox.shell("pwd; env | sort | grep -v '^_=\\|^SHLVL\\|^PWD'; ls /proc/self/fd | wc -l; trap; ulimit -n; grep -E 'SigBlk|SigIgn' /proc/self/status");
    spec.env.push(b"ODD=a=b c".to_vec());
    let key = sandbox.connection.start(&spec);
    sandbox.connection.wait(key);
    let out = String::from_utf8(sandbox.connection.read_all(key, Stream::Stdout)).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], sandbox.workspace());
    assert_eq!(lines[1..4], ["LC_ALL=C", "ODD=a=b c", "PATH=/usr/bin:/bin"]);
    // 0, 1, 2, and the one that ls reads the directory with.
    assert_eq!(lines[4], "4");
    assert_eq!(
        lines[5].parse::<u64>().unwrap(),
        sandbox.hello.attestation.rlimits[0]
    );
    assert_eq!(
        lines[6..],
        ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"]
    );
}

#[test]
fn a_second_start_of_the_same_key_is_the_first_ones_answer() {
    let Some(mut sandbox) = sandbox() else { return };
    let spec = sandbox.shell("echo once >> log; sleep 0.1");
    let ids = [0, 1, 2].map(|_| {
        sandbox
            .connection
            .ask(Request::Start(Box::new(spec.clone())))
    });
    for id in ids {
        assert!(matches!(sandbox.connection.reply(id), Ok(Reply::Status(_))));
    }
    sandbox.connection.wait(spec.execution);
    sandbox.connection.start(&spec);
    let (_, out, _) = sandbox.run("cat log");
    assert_eq!(out, "once\n");
}

#[test]
fn standard_input_is_taken_in_pieces_and_closed() {
    let Some(mut sandbox) = sandbox() else { return };
    let spec = StartSpec {
        stdin: Stdin::Open,
        ..sandbox.shell("sha256sum | cut -d' ' -f1; echo done")
    };
    let execution = sandbox.connection.start(&spec);
    let data: Vec<u8> = (0..3_000_000u32).map(|index| (index % 251) as u8).collect();
    let mut rest = data.as_slice();
    while !rest.is_empty() {
        let piece = rest[..rest.len().min(MAX_CHUNK_BYTES)].to_vec();
        let close = piece.len() == rest.len();
        match sandbox.connection.call(Request::WriteStdin {
            execution,
            data: piece,
            close,
        }) {
            Ok(Reply::Accepted(accepted)) => rest = &rest[accepted as usize..],
            other => panic!("{other:?}"),
        }
    }
    let out = String::from_utf8(sandbox.connection.read_all(execution, Stream::Stdout)).unwrap();
    std::fs::write(sandbox.path("expected"), &data).unwrap();
    let expected = std::process::Command::new("sha256sum")
        .arg(sandbox.path("expected"))
        .output()
        .unwrap();
    assert_eq!(
        out.lines().next().unwrap(),
        &String::from_utf8_lossy(&expected.stdout)[..64]
    );
}

#[test]
fn a_program_that_does_not_read_fills_the_buffer_and_one_that_closes_ends_it() {
    let Some(mut sandbox) = sandbox() else { return };
    let spec = StartSpec {
        stdin: Stdin::Open,
        ..sandbox.shell("sleep 60")
    };
    let execution = sandbox.connection.start(&spec);
    let mut taken = 0u64;
    loop {
        let request = Request::WriteStdin {
            execution,
            data: vec![1; MAX_CHUNK_BYTES],
            close: false,
        };
        let Ok(Reply::Accepted(accepted)) = sandbox.connection.call(request) else {
            panic!()
        };
        taken += u64::from(accepted);
        if (accepted as usize) < MAX_CHUNK_BYTES {
            break;
        }
    }
    assert!((1 << 20..(1 << 20) + (1 << 17)).contains(&taken), "{taken}");
    let spec = StartSpec {
        stdin: Stdin::Open,
        ..sandbox.shell("exec 0<&-; echo closed; sleep 60")
    };
    let execution = sandbox.connection.start(&spec);
    sandbox
        .connection
        .read_until(execution, Stream::Stdout, "closed");
    let request = || Request::WriteStdin {
        execution,
        data: b"x".to_vec(),
        close: false,
    };
    // The first may still be accepted into the buffer; the pipe then tells.
    let refused = (0..3).any(|_| {
        sandbox
            .connection
            .call(request())
            .is_err_and(|fault| fault.kind == FaultKind::StdinClosed)
    });
    assert!(refused);
    let spec = sandbox.shell("sleep 60");
    let execution = sandbox.connection.start(&spec);
    assert_eq!(
        sandbox.connection.fault(Request::WriteStdin {
            execution,
            data: vec![],
            close: true
        }),
        FaultKind::StdinClosed
    );
}

#[test]
fn signals_reach_the_main_process_only_while_it_runs() {
    let Some(mut sandbox) = sandbox() else { return };
    let spec =
        sandbox.shell("trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.02; done");
    let execution = sandbox.connection.start(&spec);
    sandbox
        .connection
        .read_until(execution, Stream::Stdout, "ready");
    for signal in [0, 65, -1] {
        assert_eq!(
            sandbox
                .connection
                .fault(Request::Signal { execution, signal }),
            FaultKind::Invalid
        );
    }
    assert_eq!(
        sandbox.connection.call(Request::Signal {
            execution,
            signal: 10
        }),
        Ok(Reply::Done)
    );
    assert_eq!(
        ended(&sandbox.connection.wait(execution)).exit,
        Exit::Code(3)
    );
    for request in [
        Request::Signal {
            execution,
            signal: 10,
        },
        Request::Cancel {
            execution,
            grace_ms: 0,
        },
        Request::WriteStdin {
            execution,
            data: vec![],
            close: false,
        },
    ] {
        assert_eq!(sandbox.connection.fault(request), FaultKind::Ended);
    }
}

#[test]
fn a_terminal_has_a_size_takes_input_and_ends() {
    let Some(mut sandbox) = sandbox() else { return };
    let size = TerminalSize {
        rows: 33,
        columns: 99,
    };
    let mut spec = sandbox.shell(
        "tty; stty size; echo err >&2; read line; echo \"got $line\"; stty size; cat; echo end",
    );
    spec.terminal = Some(size);
    spec.stdin = Stdin::Open;
    let execution = sandbox.connection.start(&spec);
    sandbox
        .connection
        .read_until(execution, Stream::Stdout, "err");
    let resize = Request::Resize {
        execution,
        size: TerminalSize {
            rows: 10,
            columns: 20,
        },
    };
    assert_eq!(sandbox.connection.call(resize.clone()), Ok(Reply::Done));
    let write = Request::WriteStdin {
        execution,
        data: b"hello\n".to_vec(),
        close: false,
    };
    assert_eq!(sandbox.connection.call(write), Ok(Reply::Accepted(6)));
    sandbox
        .connection
        .read_until(execution, Stream::Stdout, "10 20");
    let write = Request::WriteStdin {
        execution,
        data: b"partial".to_vec(),
        close: true,
    };
    assert_eq!(sandbox.connection.call(write), Ok(Reply::Accepted(7)));
    let status = sandbox.connection.wait(execution);
    let out = String::from_utf8(sandbox.connection.read_all(execution, Stream::Stdout)).unwrap();
    assert!(out.starts_with("/dev/pts/"), "{out}");
    for wanted in ["33 99", "err", "10 20", "got hello", "partial", "end\r\n"] {
        assert!(out.contains(wanted), "{wanted}: {out}");
    }
    assert_eq!(ended(&status).exit, Exit::Code(0));
    assert_eq!(status.stderr.total_bytes, 0);
    let plain = sandbox.shell("sleep 60");
    let execution = sandbox.connection.start(&plain);
    assert_eq!(
        sandbox
            .connection
            .fault(Request::Resize { execution, size }),
        FaultKind::NoTerminal
    );
}

#[test]
fn a_terminal_loses_nothing_at_its_end() {
    let Some(mut sandbox) = sandbox() else { return };
    for _ in 0..20 {
        let mut spec = sandbox.shell("stty -onlcr; seq 1 2000");
        spec.terminal = Some(TerminalSize {
            rows: 24,
            columns: 80,
        });
        spec.stdin = Stdin::Open;
        let execution = sandbox.connection.start(&spec);
        let out = sandbox.connection.read_all(execution, Stream::Stdout);
        assert!(out.ends_with(b"1999\n2000\n"), "{}", out.len());
    }
}

#[test]
fn only_ended_executions_are_forgotten_and_the_oldest_makes_place() {
    let Some(mut sandbox) = sandbox() else { return };
    let running = sandbox.shell("sleep 60");
    let running = sandbox.connection.start(&running);
    assert_eq!(
        sandbox
            .connection
            .fault(Request::Forget { execution: running }),
        FaultKind::Invalid
    );
    let mut keys = Vec::new();
    let started = Instant::now();
    for _ in 0..MAX_EXECUTIONS {
        let execution = sandbox.connection.start(&spec(&["true"]));
        sandbox.connection.wait(execution);
        keys.push(execution);
    }
    eprintln!(
        "{} executions of true one after the other: {:?} each",
        MAX_EXECUTIONS,
        started.elapsed() / MAX_EXECUTIONS as u32
    );
    let Ok(Reply::Executions(list)) = sandbox.connection.call(Request::List) else {
        panic!()
    };
    assert_eq!(list.len(), MAX_EXECUTIONS);
    assert!(
        list.iter().any(|status| status.execution == running),
        "a running one stays"
    );
    assert_eq!(
        sandbox.connection.fault(Request::Wait {
            execution: keys[0],
            wait_ms: 0
        }),
        FaultKind::UnknownExecution
    );
    assert_eq!(
        sandbox
            .connection
            .call(Request::Forget { execution: keys[9] }),
        Ok(Reply::Done)
    );
    assert_eq!(
        sandbox
            .connection
            .fault(Request::Forget { execution: keys[9] }),
        FaultKind::UnknownExecution
    );
    eventually(
        Duration::from_secs(2),
        "no zombies and no stubs are left",
        || sandbox.processes().len() == 3,
    );
}

#[test]
fn two_hundred_times_true_measured() {
    let Some(mut sandbox) = sandbox() else { return };
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let started = Instant::now();
            let execution = sandbox.connection.start(&spec(&["/bin/true"]));
            sandbox.connection.wait(execution);
            started.elapsed()
        })
        .collect();
    times.sort();
    eprintln!(
        "true, start to end: median {:?}, p95 {:?}, supervisor {} KiB resident",
        times[100],
        times[190],
        sandbox.resident_kib()
    );
}
