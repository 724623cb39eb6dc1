//! The way out: ports inside that lead to the host, and no others.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};
use wire::{ExecutionKey, Exit, FaultKind, Stream};

use super::{
    Verdict,
    output::{expect_same, numbers},
    room::{PATIENCE, Room, command, during, expect, expect_fault},
};
use crate::{Relayed, SupervisorError};

/// A port that nothing else uses.
const PORT: u16 = 9187;
/// The port for names.
const NAMES_PORT: u16 = 53;
/// Time for nothing to come.
const SILENCE: Duration = Duration::from_millis(300);
/// More in each direction than any buffer on the way holds, and less than is kept of output.
const LINES: u32 = 120_000;

pub(super) async fn both_ways(room: Room) -> Result<Verdict, String> {
    expect_fault(room.supervisor.open_relay(0).await, FaultKind::Invalid)?;
    let first = room.supervisor.open_relay(PORT).await;
    drop(first.map_err(during("opening a relay"))?);
    let again = room.supervisor.open_relay(PORT).await;
    let mut relayed = again.map_err(during("opening it again"))?;
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{PORT}; seq 1 {LINES} >&3; cat <&3");
    let Some(key) = start(&room, &script).await? else {
        return Ok(no_bash());
    };
    let due = numbers(LINES);
    let mut connection = arrived(&room, key, &mut relayed).await?;
    heard(&mut connection, &due).await?;
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
    host_ends_first(&room, &mut relayed, &due).await?;
    Ok(Verdict::Kept)
}

/// A server that has nothing more to say still gets all of an upload.
async fn host_ends_first(
    room: &Room,
    relayed: &mut mpsc::Receiver<Relayed>,
    due: &[u8],
) -> Result<(), String> {
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{PORT}; cat <&3; seq 1 {LINES} >&3");
    let Some(key) = start(room, &script).await? else {
        return Ok(());
    };
    let mut connection = arrived(room, key, relayed).await?;
    let answered = async {
        connection.write_all(b"answer").await?;
        connection.shutdown().await
    };
    answered.await.map_err(during("answering first"))?;
    heard(&mut connection, due).await?;
    let rest = timeout(PATIENCE, connection.read_to_end(&mut Vec::new())).await;
    expect(matches!(rest, Ok(Ok(0))), || {
        "the client's end did not come".to_owned()
    })?;
    said(room, key, b"answer").await
}

pub(super) async fn names(room: Room) -> Result<Verdict, String> {
    let opened = room.supervisor.open_relay_with_datagrams(NAMES_PORT).await;
    let mut relayed = opened.map_err(during("opening the port for names"))?;
    let talk = |transport: &str, hear: &str| {
        format!("exec 3<>/dev/{transport}/127.0.0.1/{NAMES_PORT}; printf question >&3; {hear} <&3")
    };
    // Twice at once: each answer must find its question.
    let ask = talk("udp", "dd bs=512 count=1");
    let mut asked = Vec::new();
    for answer in [&b"one answer"[..], b"another"] {
        let Some(key) = start(&room, &ask).await? else {
            return Ok(no_bash());
        };
        let mut connection = arrived(&room, key, &mut relayed).await?;
        heard(&mut connection, b"\0\x08question").await?;
        asked.push((key, connection, answer));
    }
    for (_, connection, answer) in asked.iter_mut().rev() {
        let frame = [&[0, answer.len() as u8], *answer].concat();
        let answered = connection.write_all(&frame).await;
        answered.map_err(during("answering a datagram"))?;
    }
    for (key, mut connection, answer) in asked {
        said(&room, key, answer).await?;
        let rest = timeout(PATIENCE, connection.read_to_end(&mut Vec::new())).await;
        expect(matches!(rest, Ok(Ok(0))), || {
            "an answered datagram is still there".to_owned()
        })?;
    }
    let Some(key) = start(&room, &talk("tcp", "cat")).await? else {
        return Ok(no_bash());
    };
    let mut connection = arrived(&room, key, &mut relayed).await?;
    heard(&mut connection, b"question").await?;
    let answered = async {
        connection.write_all(b"answer").await?;
        connection.shutdown().await
    };
    answered.await.map_err(during("answering a connection"))?;
    said(&room, key, b"answer").await?;
    Ok(Verdict::Kept)
}

pub(super) async fn refuses(room: Room) -> Result<Verdict, String> {
    // For connections alone: what comes as a datagram is nobody's.
    let opened = room.supervisor.open_relay(PORT).await;
    let mut relayed = opened.map_err(during("opening a relay"))?;
    for (transport, port) in [("tcp", NAMES_PORT), ("udp", NAMES_PORT), ("udp", PORT)] {
        let script = format!(
            "exec 3<>/dev/{transport}/127.0.0.1/{port}; printf question >&3; dd bs=512 count=1 <&3"
        );
        let Some(key) = start(&room, &script).await? else {
            return Ok(no_bash());
        };
        let ended = room.end_of(key, PATIENCE).await?.ended;
        let refused = ended.is_some_and(|ended| ended.exit != Exit::Code(0));
        expect(refused, || format!("{transport} {port} was answered"))?;
        let nothing = timeout(SILENCE, relayed.recv()).await.is_err();
        expect(nothing, || format!("{transport} {port} reached the host"))?;
    }
    Ok(Verdict::Kept)
}

fn no_bash() -> Verdict {
    Verdict::Skipped("there is no bash to connect with".to_owned())
}

/// `None` when there is no bash.
async fn start(room: &Room, script: &str) -> Result<Option<ExecutionKey>, String> {
    let talk = command(&["bash", "-c", script])?;
    let key = talk.execution;
    match room.supervisor.start(talk).await {
        Err(SupervisorError::Fault(fault)) if fault.kind == FaultKind::CannotExecute => Ok(None),
        started => started
            .map(|_| Some(key))
            .map_err(during("starting a client")),
    }
}

async fn arrived(
    room: &Room,
    key: ExecutionKey,
    relayed: &mut mpsc::Receiver<Relayed>,
) -> Result<Relayed, String> {
    if let Some(connection) = timeout(PATIENCE, relayed.recv()).await.ok().flatten() {
        return Ok(connection);
    }
    let chunk = room
        .supervisor
        .read(key, Stream::Stderr, 0, 1024, Duration::ZERO);
    let said = chunk.await.map_err(during("reading"))?.data;
    Err(format!(
        "no connection came: {}",
        String::from_utf8_lossy(&said)
    ))
}

/// Exactly that comes first from inside.
async fn heard(connection: &mut Relayed, due: &[u8]) -> Result<(), String> {
    let mut heard = vec![0; due.len()];
    let all = timeout(PATIENCE, connection.read_exact(&mut heard)).await;
    all.map_err(|_| "not all of it came".to_owned())?
        .map_err(during("reading what came from inside"))?;
    expect_same("what came from inside", &heard, due)
}

/// The client ends well, and exactly that came back to it.
async fn said(room: &Room, key: ExecutionKey, due: &[u8]) -> Result<(), String> {
    let ended = room.end_of(key, PATIENCE).await?.ended;
    expect(
        ended.is_some_and(|ended| ended.exit == Exit::Code(0)),
        || format!("the client ended with {ended:?}"),
    )?;
    let stdout = room.all_of(key, Stream::Stdout).await?;
    expect_same("what came back", &stdout, due)
}
