//! The connection to the host: lost and found again, abused, starved; the lease; output that must not be lost or grow.
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
fn a_reconnect_keeps_executions_output_and_epoch() {
    let Some(mut sandbox) = sandbox() else { return };
    let spec =
        sandbox.shell("echo before; while [ ! -e go ]; do sleep 0.02; done; echo after; exit 8");
    let execution = sandbox.connection.start(&spec);
    sandbox
        .connection
        .read_until(execution, Stream::Stdout, "before");
    let first = sandbox.hello.clone();
    for _ in 0..3 {
        let hello = sandbox.redial();
        assert_eq!(
            (hello.epoch, &hello.attestation),
            (first.epoch, &first.attestation)
        );
        sandbox.connection.welcome(DEFAULT_LEASE_MS);
    }
    assert_eq!(sandbox.connection.wait_for(execution, 0).ended, None);
    std::fs::write(sandbox.path("workspace/go"), "").unwrap();
    assert_eq!(
        ended(&sandbox.connection.wait(execution)).exit,
        Exit::Code(8)
    );
    assert_eq!(
        sandbox.connection.read_all(execution, Stream::Stdout),
        b"before\nafter\n"
    );
}

#[test]
fn an_execution_ends_while_nobody_listens() {
    let Some(mut sandbox) = sandbox() else { return };
    let spec = sandbox.shell("sleep 0.2; echo alone; exit 2");
    let execution = sandbox.connection.start(&spec);
    sandbox.redial();
    std::thread::sleep(Duration::from_millis(600));
    sandbox.connection.welcome(DEFAULT_LEASE_MS);
    let status = sandbox.connection.wait_for(execution, 0);
    assert_eq!(ended(&status).exit, Exit::Code(2));
    assert!(status.duration_us < 600_000, "{status:?}");
    assert_eq!(
        sandbox.connection.read_all(execution, Stream::Stdout),
        b"alone\n"
    );
}

#[test]
fn whoever_does_not_speak_the_protocol_is_dropped_and_dialled_again() {
    let Some(mut sandbox) = sandbox() else { return };
    let spec = sandbox.shell("sleep 60");
    let execution = sandbox.connection.start(&spec);
    let request = |request| {
        encode(
            &ToSupervisor::Request { id: 1, request },
            MAX_TO_SUPERVISOR_BYTES,
        )
        .unwrap()
    };
    let welcome = |protocol| {
        encode(
            &ToSupervisor::Welcome(Welcome {
                protocol,
                lease_ms: 1,
            }),
            MAX_TO_SUPERVISOR_BYTES,
        )
        .unwrap()
    };
    let abuses: [Vec<u8>; 6] = [
        welcome(PROTOCOL_VERSION + 1),
        // No request before the welcome, whatever it is.
        request(Request::Shutdown),
        encode(&ToSupervisor::Transfer(TransferFrame::Data(vec![1])), 100).unwrap(),
        u32::MAX.to_le_bytes().to_vec(),
        [4u32.to_le_bytes().to_vec(), vec![255; 4]].concat(),
        [1u32.to_le_bytes().to_vec(), vec![0]].concat(),
    ];
    for abuse in abuses {
        sandbox.redial();
        sandbox.connection.send_raw(&abuse);
        assert_eq!(sandbox.connection.try_receive(), None);
    }
    sandbox.redial();
    sandbox.connection.welcome(DEFAULT_LEASE_MS);
    // A second welcome is no way to renew a lease.
    assert_eq!(sandbox.connection.wait_for(execution, 0).ended, None);
    sandbox.connection.welcome(DEFAULT_LEASE_MS);
    assert_eq!(sandbox.connection.try_receive(), None);
}

#[test]
fn the_lease_ends_the_sandbox_and_renewing_it_does_not() {
    let options = || Options {
        lease_ms: 800,
        ..Options::default()
    };
    let (Some(mut left), Some(mut renewed)) = (sandbox_with(options()), sandbox_with(options()))
    else {
        return;
    };
    for sandbox in [&mut left, &mut renewed] {
        let spec = sandbox.shell("trap '' TERM; setsid sleep 4242 & sleep 4242");
        sandbox.connection.start(&spec);
    }
    let until = Instant::now() + Duration::from_millis(1600);
    while Instant::now() < until {
        assert_eq!(
            renewed
                .connection
                .call(Request::RenewLease { lease_ms: 800 }),
            Ok(Reply::Done)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let processes = renewed.processes();
    assert!(
        left.ended_within(Duration::from_millis(100)),
        "nobody renewed it"
    );
    assert!(processes.len() >= 3);
    assert!(renewed.ended_within(Duration::from_millis(1500)));
    for pid in processes {
        assert!(
            !std::path::Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} outlived its sandbox"
        );
    }
}

#[test]
fn a_lease_ends_without_any_host_too() {
    let Some(mut sandbox) = sandbox_with(Options {
        lease_ms: 1000,
        ..Options::default()
    }) else {
        return;
    };
    sandbox.redial();
    assert!(sandbox.ended_within(Duration::from_secs(3)));
}

#[test]
fn a_shutdown_ends_everything() {
    let Some(mut sandbox) = sandbox() else { return };
    let spec = sandbox.shell("setsid sleep 4242 & sleep 4242");
    sandbox.connection.start(&spec);
    let processes = sandbox.processes();
    sandbox.connection.ask(Request::Shutdown);
    assert_eq!(sandbox.connection.try_receive(), None);
    assert!(sandbox.ended_within(Duration::from_secs(2)));
    for pid in processes {
        assert!(
            !std::path::Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} outlived its sandbox"
        );
    }
}

#[test]
fn waiting_requests_are_answered_in_time_and_bounded() {
    let Some(mut sandbox) = sandbox() else { return };
    let spec = sandbox.shell("sleep 60");
    let execution = sandbox.connection.start(&spec);
    let started = Instant::now();
    assert_eq!(sandbox.connection.wait_for(execution, 150).ended, None);
    let chunk = sandbox.connection.read(execution, Stream::Stdout, 0, 150);
    assert!(chunk.data.is_empty() && !chunk.status.ended);
    let taken = started.elapsed();
    assert!((300..1000).contains(&taken.as_millis()), "{taken:?}");
    let wait = || Request::Wait {
        execution,
        wait_ms: 2000,
    };
    let ids: Vec<u64> = (0..MAX_OPEN_REQUESTS)
        .map(|_| sandbox.connection.ask(wait()))
        .collect();
    assert_eq!(sandbox.connection.fault(wait()), FaultKind::TooMany);
    assert_eq!(
        sandbox.connection.call(Request::List).map(drop),
        Ok(()),
        "what needs no waiting is still answered"
    );
    assert_eq!(
        sandbox.connection.call(Request::Cancel {
            execution,
            grace_ms: 0
        }),
        Ok(Reply::Done)
    );
    for id in ids {
        assert!(
            matches!(sandbox.connection.reply(id), Ok(Reply::Status(status)) if status.ended.is_some())
        );
    }
}

#[test]
fn binary_output_comes_back_byte_for_byte_from_any_offset() {
    let Some(mut sandbox) = sandbox() else { return };
    let data: Vec<u8> = (0..700_000u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    std::fs::write(sandbox.path("workspace/data"), &data).unwrap();
    sandbox.give(&sandbox.path("workspace/data"));
    let spec = sandbox.shell("cat data; head -c 3000 data >&2");
    let execution = sandbox.connection.start(&spec);
    assert!(sandbox.connection.read_all(execution, Stream::Stdout) == data);
    assert!(sandbox.connection.read_all(execution, Stream::Stderr) == data[..3000]);
    let chunk = sandbox
        .connection
        .read(execution, Stream::Stdout, 123_456, 0);
    assert!(chunk.offset == 123_456 && chunk.data == data[123_456..123_456 + MAX_CHUNK_BYTES]);
}

#[test]
fn a_flood_keeps_its_end_and_the_supervisor_small() {
    let Some(mut sandbox) = sandbox() else { return };
    let mut spec = sandbox.shell("head -c 100000000 /dev/zero; printf END");
    spec.output = OutputMode::DropOldest {
        keep_bytes: 1 << 20,
    };
    let before = sandbox.resident_kib();
    let started = Instant::now();
    let execution = sandbox.connection.start(&spec);
    let status = sandbox.connection.wait(execution);
    let taken = started.elapsed();
    let StreamStatus {
        kept_from,
        total_bytes,
        ended,
    } = status.stdout;
    assert_eq!(
        (total_bytes, kept_from, ended),
        (100_000_003, 100_000_003 - (1 << 20), true)
    );
    let chunk = sandbox.connection.read(execution, Stream::Stdout, 0, 0);
    assert_eq!(chunk.offset, kept_from, "what was asked is no longer kept");
    assert!(
        sandbox
            .connection
            .read_all(execution, Stream::Stdout)
            .ends_with(b"\0END")
    );
    let after = sandbox.resident_kib();
    eprintln!("100 MB flood in {taken:?}; resident {before} KiB before, {after} KiB after");
    assert!(after < before + 1024, "{before} KiB grew to {after} KiB");
}

#[test]
fn lossless_output_makes_the_program_wait_and_loses_nothing() {
    let Some(mut sandbox) = sandbox() else { return };
    let mut spec = sandbox.shell("seq 1 200000");
    spec.output = OutputMode::Lossless {
        window_bytes: 100_000,
    };
    let execution = sandbox.connection.start(&spec);
    std::thread::sleep(Duration::from_millis(300));
    let status = sandbox.connection.wait_for(execution, 0);
    assert_eq!(
        (status.ended, status.stdout.total_bytes),
        (None, 100_000),
        "it stands still at its window"
    );
    // Read in small pieces, through a reconnect, from where the reader stands.
    let (mut all, mut offset) = (Vec::new(), 0);
    loop {
        if all.len() > 300_000 && offset < 600_000 {
            sandbox.redial();
            sandbox.connection.welcome(DEFAULT_LEASE_MS);
        }
        let chunk = sandbox
            .connection
            .read(execution, Stream::Stdout, offset, 5000);
        assert_eq!(chunk.offset, offset, "nothing is skipped");
        offset += chunk.data.len() as u64;
        all.extend(chunk.data);
        if chunk.status.ended && offset == chunk.status.total_bytes {
            break;
        }
    }
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(all == expected.as_bytes());
    assert_eq!(
        ended(&sandbox.connection.wait(execution)).exit,
        Exit::Code(0)
    );
}

#[test]
fn a_host_that_does_not_read_gets_no_more_and_nothing_grows() {
    let Some(mut sandbox) = sandbox() else { return };
    let spec = sandbox.shell("head -c 1000000 /dev/zero; sleep 60");
    let execution = sandbox.connection.start(&spec);
    eventually(Duration::from_secs(5), "a megabyte", || {
        sandbox.connection.wait_for(execution, 0).stdout.total_bytes == 1_000_000
    });
    let before = sandbox.resident_kib();
    let read = || Request::Read {
        execution,
        stream: Stream::Stdout,
        offset: 0,
        max_bytes: 1 << 17,
        wait_ms: 0,
    };
    let ids: Vec<u64> = (0..200).map(|_| sandbox.connection.ask(read())).collect();
    std::thread::sleep(Duration::from_millis(300));
    let during = sandbox.resident_kib();
    assert!(during < before + 1024, "{before} KiB grew to {during} KiB");
    for id in ids {
        assert!(
            matches!(sandbox.connection.reply(id), Ok(Reply::Output(chunk)) if chunk.data.len() == 1 << 17)
        );
    }
}

#[test]
fn the_supervisor_refuses_to_be_anything_but_pid_1() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_supervisor"))
        .args([
            "--socket",
            "/nonexistent",
            "--spool",
            "/tmp",
            "--lease-ms",
            "1000",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(70));
    assert!(String::from_utf8_lossy(&output.stderr).contains("pid 1"));
}
