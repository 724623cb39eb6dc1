//! Output arrives exactly, whoever reads it and when.

use std::time::Duration;

use tokio::time::sleep;
use wire::{OutputMode, StartSpec, Stream};

use super::room::{Found, PATIENCE, Room, command, during, expect, script};

/// How long an unread program is left alone to show that it waits.
const SETTLING: Duration = Duration::from_millis(300);

/// What `seq 1 LAST` writes: every byte's place can be told from the bytes round it.
pub(super) fn numbers(last: u32) -> Vec<u8> {
    (1..=last)
        .flat_map(|number| format!("{number}\n").into_bytes())
        .collect()
}

fn count_to(last: u32) -> Result<StartSpec, String> {
    command(&["seq", "1", &last.to_string()])
}

pub(super) fn expect_same(what: &str, found: &[u8], due: &[u8]) -> Found {
    let first = found.iter().zip(due).position(|(found, due)| found != due);
    expect(found == due, || {
        format!(
            "{what}: {} bytes were due, {} came, the first difference at {first:?}",
            due.len(),
            found.len()
        )
    })
}

pub(super) async fn offsets(room: Room) -> Found {
    let due = numbers(20_000);
    let spec = count_to(20_000)?;
    let key = spec.execution;
    expect_same("all of it", &room.run(spec).await?.stdout, &due)?;
    for offset in [0, 1, 4095, 4096, 12_345, 65_537, due.len() - 1, due.len()] {
        let read = room
            .supervisor
            .read(key, Stream::Stdout, offset as u64, 7_777, Duration::ZERO);
        let chunk = read.await.map_err(during("reading"))?;
        expect(chunk.offset == offset as u64, || {
            format!("{offset} was asked, {} came", chunk.offset)
        })?;
        let end = due.len().min(offset + 7_777);
        expect_same(&format!("from {offset} on"), &chunk.data, &due[offset..end])?;
    }
    Ok(())
}

pub(super) async fn keeps_the_tail(room: Room) -> Found {
    let (due, keep_bytes) = (numbers(20_000), 4096);
    let spec = StartSpec {
        output: OutputMode::DropOldest { keep_bytes },
        ..count_to(20_000)?
    };
    let ran = room.run(spec).await?;
    let stdout = ran.status.stdout;
    expect(stdout.total_bytes == due.len() as u64, || {
        format!("{} bytes were counted", stdout.total_bytes)
    })?;
    let kept = stdout.total_bytes - stdout.kept_from;
    expect(kept >= keep_bytes && stdout.kept_from > 0, || {
        format!("{kept} bytes are kept")
    })?;
    let from = usize::try_from(stdout.kept_from)
        .unwrap_or(usize::MAX)
        .min(due.len());
    expect_same("the tail", &ran.stdout, &due[from..])
}

pub(super) async fn lossless(room: Room) -> Found {
    let (due, window_bytes) = (numbers(170_000), 64 * 1024);
    let spec = StartSpec {
        output: OutputMode::Lossless { window_bytes },
        ..count_to(170_000)?
    };
    let key = spec.execution;
    room.start(spec).await?;
    sleep(SETTLING).await;
    let unread = room.wait(key, Duration::ZERO).await?;
    expect(unread.ended.is_none(), || {
        "it did not wait for its reader".to_owned()
    })?;
    let total = unread.stdout.total_bytes;
    expect(total <= window_bytes, || {
        format!("{total} bytes were taken before any was read")
    })?;
    expect_same("all of it", &room.all_of(key, Stream::Stdout).await?, &due)?;
    room.end_of(key, PATIENCE).await.map(drop)
}

pub(super) async fn reading_waits(room: Room) -> Found {
    let spec = script("sleep 0.3; echo late")?;
    let key = spec.execution;
    room.start(spec).await?;
    room.written(key, "late\n").await
}
