//! Programs run as they were asked to, and end when they should.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;
use wire::{Cause, Ended, ExecutionStatus, Exit, FaultKind, StartSpec, Stdin};

use super::room::{Found, PATH, PATIENCE, Room, command, during, expect, expect_fault, script};

/// The promise: a stubborn tree is gone within a second of its deadline.
const PROMISED_END: Duration = Duration::from_secs(1);
/// A program that outlives every line.
const FOREVER: &str = "60";
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// `ENOENT` of Linux.
const ENOENT: i32 = 2;

fn expect_end(status: &ExecutionStatus, exit: Exit, cause: Cause) -> Found {
    let as_due = |ended: &Ended| ended.exit == exit && ended.cause == cause;
    expect(status.ended.as_ref().is_some_and(as_due), || {
        format!(
            "{exit:?} by {cause:?} was due, it ended with {:?}",
            status.ended
        )
    })
}

fn expect_bytes(what: &str, found: &[u8], due: &[u8]) -> Found {
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    expect(found == due, || {
        format!("{what} {:?} was due, {:?} came", show(due), show(found))
    })
}

pub(super) async fn exit_codes(room: Room) -> Found {
    let codes = [
        (command(&["true"])?, 0),
        (command(&["false"])?, 1),
        (script("exit 7")?, 7),
        (script("exit 255")?, 255),
    ];
    for (spec, code) in codes {
        let ran = room.run(spec).await?;
        expect_end(&ran.status, Exit::Code(code), Cause::Itself)?;
    }
    Ok(())
}

pub(super) async fn streams_apart(room: Room) -> Found {
    let ran = room.run(script("echo out; echo err >&2")?).await?;
    expect_bytes("output", &ran.stdout, b"out\n")?;
    expect_bytes("error", &ran.stderr, b"err\n")
}

pub(super) async fn arguments(room: Room) -> Found {
    let hard: [&[u8]; 8] = [
        b"printf",
        b"%s|",
        b"a",
        b"b  c",
        b"",
        b"new\nline",
        b"$HOME `x` \"'",
        b"\xff\xfe",
    ];
    let ran = room.run(command(&hard)?).await?;
    expect_bytes(
        "output",
        &ran.stdout,
        b"a|b  c||new\nline|$HOME `x` \"'|\xff\xfe|",
    )
}

pub(super) async fn directory(room: Room) -> Found {
    for directory in ["/tmp", "/workspace"] {
        let spec = StartSpec {
            cwd: directory.into(),
            ..command(&["pwd"])?
        };
        let ran = room.run(spec).await?;
        expect_bytes(
            "directory",
            &ran.stdout,
            format!("{directory}\n").as_bytes(),
        )?;
    }
    let nowhere = StartSpec {
        cwd: b"/no/such/directory".to_vec(),
        ..command(&["pwd"])?
    };
    expect_fault(room.supervisor.start(nowhere).await, FaultKind::BadCwd).map(drop)
}

pub(super) async fn environment(room: Room) -> Found {
    let due = [PATH, "EMPTY=", "SPACED=a b", "EQUALS=x=y"];
    let env = due
        .iter()
        .map(|variable| variable.as_bytes().to_vec())
        .collect();
    let ran = room
        .run(StartSpec {
            env,
            ..command(&["env"])?
        })
        .await?;
    let found = String::from_utf8_lossy(&ran.stdout).into_owned();
    let found: BTreeSet<&str> = found.lines().collect();
    let due = BTreeSet::from(due);
    expect(found == due, || format!("{due:?} was due, {found:?} came"))
}

pub(super) async fn input(room: Room) -> Found {
    let spec = StartSpec {
        stdin: Stdin::Open,
        ..command(&["cat"])?
    };
    let key = spec.execution;
    room.start(spec).await?;
    let pieces: [(&[u8], bool); 2] = [(b"first\n", false), (b"second \x00\xff", true)];
    for (mut data, close) in pieces {
        while !data.is_empty() {
            let taken = room
                .supervisor
                .write_stdin(key, data, close)
                .await
                .map_err(during("writing"))?;
            data = &data[taken.min(data.len())..];
        }
    }
    let status = room.end_of(key, PATIENCE).await?;
    expect_end(&status, Exit::Code(0), Cause::Itself)?;
    expect_bytes(
        "output",
        &room.all_of(key, wire::Stream::Stdout).await?,
        b"first\nsecond \x00\xff",
    )
}

pub(super) async fn unknown_program(room: Room) -> Found {
    let fault = expect_fault(
        room.supervisor.start(command(&["no-such-program"])?).await,
        FaultKind::CannotExecute,
    )?;
    expect(fault.errno == ENOENT, || {
        format!("errno {ENOENT} was due, {} came", fault.errno)
    })
}

pub(super) async fn deadline(room: Room) -> Found {
    let deadline = Duration::from_millis(400);
    let stubborn = script(&format!("trap '' TERM; sleep {FOREVER} & sleep {FOREVER}"))?;
    let spec = StartSpec {
        deadline_ms: Some(400),
        ..stubborn
    };
    let (key, started) = (spec.execution, Instant::now());
    room.start(spec).await?;
    let status = room.end_of(key, PATIENCE).await?;
    expect_end(&status, Exit::Signal(SIGKILL), Cause::Deadline)?;
    let took = started.elapsed();
    expect(took >= deadline, || {
        format!("it ended after {took:?}, before its deadline")
    })?;
    expect(took <= deadline + PROMISED_END, || {
        format!("it ended only after {took:?}")
    })
}

pub(super) async fn cancel_stubborn(room: Room) -> Found {
    let grace = Duration::from_millis(300);
    let spec = script(&format!("trap '' TERM; echo ready; sleep {FOREVER}"))?;
    let key = spec.execution;
    room.start(spec).await?;
    room.written(key, "ready\n").await?;
    let cancelled = Instant::now();
    room.supervisor
        .cancel(key, grace)
        .await
        .map_err(during("cancelling"))?;
    let status = room.end_of(key, PATIENCE).await?;
    expect_end(&status, Exit::Signal(SIGKILL), Cause::Cancelled)?;
    let took = cancelled.elapsed();
    expect(took <= grace + PROMISED_END, || {
        format!("it ended only after {took:?}")
    })
}

pub(super) async fn cancel_tree(room: Room) -> Found {
    let spec = script(&format!("sleep {FOREVER} & echo ready; sleep {FOREVER}"))?;
    let key = spec.execution;
    room.start(spec).await?;
    room.written(key, "ready\n").await?;
    let running = room.wait(key, Duration::ZERO).await?;
    expect(running.ended.is_none(), || "it ended by itself".to_owned())?;
    room.supervisor
        .cancel(key, Duration::from_millis(300))
        .await
        .map_err(during("cancelling"))?;
    let status = room.end_of(key, PATIENCE).await?;
    let cause = status.ended.map(|ended| ended.cause);
    expect(cause == Some(Cause::Cancelled), || {
        format!("it was ended by {cause:?}")
    })?;
    expect_fault(
        room.supervisor.cancel(key, Duration::ZERO).await,
        FaultKind::Ended,
    )
    .map(drop)
}

pub(super) async fn signals(room: Room) -> Found {
    let spec = command(&["sleep", FOREVER])?;
    let key = spec.execution;
    room.start(spec).await?;
    room.supervisor
        .signal(key, SIGTERM)
        .await
        .map_err(during("signalling"))?;
    let status = room.end_of(key, PATIENCE).await?;
    expect_end(&status, Exit::Signal(SIGTERM), Cause::Itself)
}

pub(super) async fn starts_once(room: Room) -> Found {
    let spec = command(&["echo", "once"])?;
    let key = spec.execution;
    room.run(spec.clone()).await?;
    let again = room.start(spec).await?;
    expect(again.ended.is_some(), || "it was started again".to_owned())?;
    expect_bytes(
        "output",
        &room.all_of(key, wire::Stream::Stdout).await?,
        b"once\n",
    )?;
    let list = room.supervisor.list().await.map_err(during("listing"))?;
    expect(list.len() == 1, || {
        format!("{} executions are remembered", list.len())
    })
}

pub(super) async fn waits(room: Room) -> Found {
    let brief = command(&["sleep", "0.3"])?;
    let key = brief.execution;
    room.start(brief).await?;
    room.end_of(key, PATIENCE).await?;
    let (long, patience) = (command(&["sleep", FOREVER])?, Duration::from_millis(200));
    let (key, started) = (long.execution, Instant::now());
    room.start(long).await?;
    let status = room.wait(key, patience).await?;
    expect(status.ended.is_none(), || {
        "a long program ended at once".to_owned()
    })?;
    expect(started.elapsed() >= patience, || {
        "the wait was over early".to_owned()
    })
}

pub(super) async fn forgets(room: Room) -> Found {
    let running = command(&["sleep", FOREVER])?;
    let running_key = running.execution;
    room.start(running).await?;
    expect(room.supervisor.forget(running_key).await.is_err(), || {
        "a running execution was forgotten".to_owned()
    })?;
    let ended = command(&["true"])?;
    let key = ended.execution;
    room.run(ended).await?;
    room.supervisor
        .forget(key)
        .await
        .map_err(during("forgetting"))?;
    expect_fault(
        room.supervisor.wait(key, Duration::ZERO).await,
        FaultKind::UnknownExecution,
    )?;
    let list = room.supervisor.list().await.map_err(during("listing"))?;
    expect(list.iter().all(|known| known.execution != key), || {
        "it is still listed".to_owned()
    })
}
