//! The way out: ports inside that lead to the host.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use wire::{FaultKind, Stream};

use super::{
    Verdict,
    output::{expect_same, numbers},
    room::{PATIENCE, Room, command, during, expect, expect_fault},
};
use crate::SupervisorError;

/// A port that nothing else uses.
const PORT: u16 = 9187;
/// More in each direction than any buffer on the way holds, and less than is kept of output.
const LINES: u32 = 120_000;

pub(super) async fn both_ways(room: Room) -> Result<Verdict, String> {
    expect_fault(room.supervisor.open_relay(0).await, FaultKind::Invalid)?;
    let first = room.supervisor.open_relay(PORT).await;
    drop(first.map_err(during("opening a relay"))?);
    let again = room.supervisor.open_relay(PORT).await;
    let mut relayed = again.map_err(during("opening it again"))?;
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{PORT}; seq 1 {LINES} >&3; cat <&3");
    let talk = command(&["bash", "-c", &script])?;
    let key = talk.execution;
    match room.supervisor.start(talk).await {
        Err(SupervisorError::Fault(fault)) if fault.kind == FaultKind::CannotExecute => {
            return Ok(Verdict::Skipped(
                "there is no bash to connect with".to_owned(),
            ));
        }
        started => started.map_err(during("starting"))?,
    };
    let due = numbers(LINES);
    let arrived = timeout(PATIENCE, relayed.recv()).await.ok().flatten();
    let Some(mut connection) = arrived else {
        let said = room.all_of(key, Stream::Stderr).await?;
        return Err(format!(
            "no connection came: {}",
            String::from_utf8_lossy(&said)
        ));
    };
    let mut heard = vec![0; due.len()];
    let all = timeout(PATIENCE, connection.read_exact(&mut heard)).await;
    all.map_err(|_| "not all of it came".to_owned())?
        .map_err(during("reading what came from inside"))?;
    expect_same("what came from inside", &heard, &due)?;
    let answered = async {
        connection.write_all(&due).await?;
        connection.shutdown().await
    };
    answered.await.map_err(during("answering"))?;
    let ended = room.end_of(key, PATIENCE).await?;
    expect(ended.stdout.total_bytes == due.len() as u64, || {
        format!("{} bytes came back", ended.stdout.total_bytes)
    })?;
    expect_same(
        "what came back",
        &room.all_of(key, Stream::Stdout).await?[..],
        &due[..],
    )?;
    Ok(Verdict::Kept)
}
