//! Files come in and out unchanged, and nothing goes where it must not.

use wire::{Entry, EntryKind, FaultKind, TransferEnd, TransferFrame};

use super::room::{Found, Room, command, during, expect, new_key, script};
use crate::{ExportFrame, SupervisorError, TransferError, TransferLimits};

const LIMITS: TransferLimits = TransferLimits {
    max_entries: 100,
    max_bytes: 10 * 1024 * 1024,
};
/// 2020-09-13, a time that no clock sets by itself.
const MODIFIED: i64 = 1_600_000_000;

/// An entry with its content.
type Item = (Entry, Vec<u8>);

fn item(path: &str, kind: EntryKind, mode: u32) -> Item {
    (
        Entry {
            path: path.into(),
            kind,
            mode,
            mtime: MODIFIED,
        },
        Vec::new(),
    )
}

fn directory(path: &str) -> Item {
    item(path, EntryKind::Directory, 0o755)
}

fn file(path: &str, mode: u32, content: Vec<u8>) -> Item {
    let size = content.len() as u64;
    (item(path, EntryKind::File { size }, mode).0, content)
}

fn tree() -> Vec<Item> {
    let large = (0..300_000u32)
        .map(|number| number as u8 ^ (number >> 8) as u8)
        .collect();
    vec![
        directory(""),
        directory("a"),
        file("a/empty", 0o600, Vec::new()),
        file("a/script with space", 0o755, b"#!/bin/sh\n".to_vec()),
        file("large", 0o644, large),
        item(
            "link",
            EntryKind::Link {
                target: b"a/empty".to_vec(),
            },
            0o777,
        ),
    ]
}

fn destination() -> Result<String, String> {
    let hex: String = new_key()?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(format!("/workspace/contract-{hex}"))
}

async fn put(
    room: &Room,
    to: &str,
    refuse: Vec<Vec<u8>>,
    tree: &[Item],
) -> Result<TransferEnd, TransferError> {
    let opened = room.supervisor.import(to.as_bytes(), refuse, LIMITS).await;
    let mut import = opened.map_err(|error| TransferError::Invalid(during("opening")(error)))?;
    for (entry, content) in tree {
        import.send(TransferFrame::Entry(entry.clone())).await?;
        for piece in content.chunks(100_000) {
            import.send(TransferFrame::Data(piece.to_vec())).await?;
        }
    }
    import.finish().await
}

async fn get(room: &Room, from: &str, limits: TransferLimits) -> Result<Vec<Item>, TransferError> {
    let opened = room.supervisor.export(from.as_bytes(), limits).await;
    let mut export = opened.map_err(|error| TransferError::Invalid(during("opening")(error)))?;
    let mut tree: Vec<Item> = Vec::new();
    while let Some(frame) = export.next().await? {
        match (frame, tree.last_mut()) {
            (ExportFrame::Entry(entry), _) => tree.push((entry, Vec::new())),
            (ExportFrame::Data(data), Some((_, content))) => content.extend(data),
            (ExportFrame::Data(_), None) => {}
        }
    }
    Ok(tree)
}

/// What must survive: not the mode of a link, which Linux does not have, nor the time of a directory that was written
/// into.
fn essence((entry, content): &Item) -> (Vec<u8>, EntryKind, u32, i64, Vec<u8>) {
    let (mode, mtime) = match entry.kind {
        EntryKind::Directory => (entry.mode, 0),
        EntryKind::File { .. } => (entry.mode, entry.mtime),
        EntryKind::Link { .. } => (0, 0),
    };
    (
        entry.path.clone(),
        entry.kind.clone(),
        mode,
        mtime,
        content.clone(),
    )
}

pub(super) async fn round_trip(room: Room) -> Found {
    let (to, tree) = (destination()?, tree());
    put(&room, &to, Vec::new(), &tree)
        .await
        .map_err(during("sending it in"))?;
    let shown = room
        .run(command(&["cat", &format!("{to}/a/script with space")])?)
        .await?;
    expect(shown.stdout == b"#!/bin/sh\n", || {
        "a program inside reads something else".to_owned()
    })?;
    let mut due: Vec<_> = tree.iter().map(essence).collect();
    let mut found: Vec<_> = get(&room, &to, LIMITS)
        .await
        .map_err(during("taking it out"))?
        .iter()
        .map(essence)
        .collect();
    due.sort_by(|one, other| one.0.cmp(&other.0));
    found.sort_by(|one, other| one.0.cmp(&other.0));
    expect(found.len() == due.len(), || {
        format!("{} entries were due, {} came", due.len(), found.len())
    })?;
    for (found, due) in found.iter().zip(&due) {
        expect(found == due, || {
            let (path, kind, mode, mtime, _) = due;
            let path = String::from_utf8_lossy(path);
            let due = format!("{path:?} {kind:?} {mode:o} {mtime}");
            format!(
                "{due} was due, {:?} {:o} {} came",
                found.1, found.2, found.3
            )
        })?;
    }
    Ok(())
}

/// A missing path is refused at once or on the data connection.
async fn expect_nothing_at(room: &Room, path: &str) -> Found {
    let mut export = match room.supervisor.export(path.as_bytes(), LIMITS).await {
        Err(SupervisorError::Fault(fault)) if fault.kind == FaultKind::BadPath => return Ok(()),
        opened => opened.map_err(during("looking for what should not be there"))?,
    };
    match export.next().await {
        Err(TransferError::Refused { fault, .. }) if fault.kind == FaultKind::BadPath => Ok(()),
        Err(other) => Err(during("a refusal was due")(other)),
        Ok(_) => Err(format!("something stands at {path}")),
    }
}

pub(super) async fn refused_paths(room: Room) -> Found {
    let refuse = vec![b"**/.git/hooks".to_vec(), b".envrc".to_vec()];
    let hostile = [
        vec![directory(""), directory(".git"), directory(".git/hooks")],
        vec![
            directory(""),
            directory("sub"),
            directory("sub/.git"),
            file("sub/.git/hooks", 0o755, b"x".to_vec()),
        ],
        vec![directory(""), file(".envrc", 0o644, b"x".to_vec())],
    ];
    for tree in hostile {
        let to = destination()?;
        match put(&room, &to, refuse.clone(), &tree).await {
            Err(TransferError::Refused { .. }) => {}
            Err(other) => return Err(during("a refusal was due")(other)),
            Ok(_) => return Err("a refused path was written".to_owned()),
        }
        // Nothing of it is visible, not even what was not refused.
        expect_nothing_at(&room, &to).await?;
    }
    let harmless = [directory(""), file("sub.envrc", 0o644, b"x".to_vec())];
    put(&room, &destination()?, refuse, &harmless)
        .await
        .map_err(during("sending what is not refused"))
        .map(drop)
}

pub(super) async fn limits(room: Room) -> Found {
    room.run(script("head -c 5000 /dev/zero > /tmp/large")?)
        .await?;
    let exact = TransferLimits {
        max_entries: 1,
        max_bytes: 5000,
    };
    let whole = get(&room, "/tmp/large", exact)
        .await
        .map_err(during("a file just as large as allowed"))?;
    expect(
        whole.iter().all(|(_, content)| content.len() == 5000),
        || "not all of it came".to_owned(),
    )?;
    match get(
        &room,
        "/tmp/large",
        TransferLimits {
            max_bytes: 4999,
            ..exact
        },
    )
    .await
    {
        Err(TransferError::Refused { .. }) => {}
        Err(other) => return Err(during("a refusal was due")(other)),
        Ok(_) => return Err("more came than was allowed".to_owned()),
    }
    room.supervisor
        .list()
        .await
        .map_err(during("asking afterwards"))
        .map(drop)
}
