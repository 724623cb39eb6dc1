//! The simulated supervisor's side of a transfer.

use std::sync::Arc;

use tokio::io::{AsyncWrite, AsyncWriteExt, split};
use wire::{
    Entry, EntryKind, Fault, FaultKind, MAX_CHUNK_BYTES, MAX_TO_HOST_BYTES,
    MAX_TO_SUPERVISOR_BYTES, ToHost, ToSupervisor, TransferEnd, TransferFrame, TransferKind,
    TransferSpec, encode,
};

use super::{
    Break,
    files::{Content, Node},
    sandbox::{Sandbox, fault},
};
use crate::{Connection, supervisor::channel::FrameReader};

/// Dials for a transfer and leaves the rest to a task. As with the real supervisor, a path that cannot be used is
/// refused on the data connection.
pub(super) async fn open(sandbox: &Arc<Sandbox>, spec: TransferSpec) -> Result<(), Fault> {
    let connection = sandbox
        .dial()
        .await
        .ok_or_else(|| fault(FaultKind::System, "dial"))?;
    let playing = Arc::clone(sandbox);
    sandbox.spawn(async move {
        let (mut reader, mut writer) = halves(connection);
        if send(
            &mut writer,
            &ToHost::TransferHello {
                transfer: spec.transfer,
            },
        )
        .await
        .is_none()
        {
            return;
        }
        if let Some(end) = play(&playing, &spec, &mut reader, &mut writer).await {
            let _ = send(&mut writer, &ToHost::Transfer(TransferFrame::End(end))).await;
        }
    });
    Ok(())
}

async fn play<W: AsyncWrite + Unpin>(
    sandbox: &Sandbox,
    spec: &TransferSpec,
    reader: &mut Reader,
    writer: &mut W,
) -> Option<TransferEnd> {
    let refused = |fault| {
        Some(TransferEnd::Refused {
            fault,
            path: Vec::new(),
        })
    };
    match &spec.kind {
        TransferKind::Export { path } => match sandbox.with_files(|files| files.tree(path)) {
            Ok(tree) => export(sandbox, spec, tree, writer).await,
            Err(fault) => refused(fault),
        },
        TransferKind::Import { path, .. } => {
            match sandbox.with_files(|files| files.check_destination(path)) {
                Ok(()) => import(sandbox, spec, reader).await,
                Err(fault) => refused(fault),
            }
        }
    }
}

type Reader = FrameReader<tokio::io::ReadHalf<Connection>>;

fn halves(connection: Connection) -> (Reader, tokio::io::WriteHalf<Connection>) {
    let (reader, writer) = split(connection);
    (FrameReader::new(reader, MAX_TO_SUPERVISOR_BYTES), writer)
}

async fn send<W: AsyncWrite + Unpin>(writer: &mut W, message: &ToHost) -> Option<()> {
    let frame = encode(message, MAX_TO_HOST_BYTES).ok()?;
    writer.write_all(&frame).await.ok()
}

fn too_much(path: &[u8]) -> TransferEnd {
    TransferEnd::Refused {
        fault: fault(FaultKind::TooMany, "keep to the limits"),
        path: path.to_vec(),
    }
}

/// Sends a tree; `None` once the host is gone.
async fn export<W: AsyncWrite + Unpin>(
    sandbox: &Sandbox,
    spec: &TransferSpec,
    tree: Vec<(Entry, Vec<u8>)>,
    writer: &mut W,
) -> Option<TransferEnd> {
    let (mut entries, mut bytes) = (0, 0);
    let unlimited = sandbox.broken() == Some(Break::IgnoresTransferLimits);
    for (mut entry, mut content) in tree {
        entries += 1;
        bytes += content.len() as u64;
        if !unlimited && (entries > spec.max_entries || bytes > spec.max_bytes) {
            return Some(too_much(&entry.path));
        }
        if sandbox.broken() == Some(Break::CorruptsTransfers) {
            entry.mode &= 0o700;
            content.fill(b'x');
        }
        send(writer, &ToHost::Transfer(TransferFrame::Entry(entry))).await?;
        for piece in content.chunks(MAX_CHUNK_BYTES) {
            send(
                writer,
                &ToHost::Transfer(TransferFrame::Data(piece.to_vec())),
            )
            .await?;
        }
    }
    Some(TransferEnd::Complete { entries, bytes })
}

/// Receives a tree and puts it in its place; `None` when the host left before the end, and then nothing stays.
async fn import(
    sandbox: &Sandbox,
    spec: &TransferSpec,
    reader: &mut Reader,
) -> Option<TransferEnd> {
    let TransferKind::Import {
        path: destination,
        refuse,
    } = &spec.kind
    else {
        return None;
    };
    let heeds_refusals = sandbox.broken() != Some(Break::IgnoresRefusals);
    let mut staged: Vec<(Vec<u8>, Node)> = Vec::new();
    let mut bytes = 0;
    loop {
        let ToSupervisor::Transfer(frame) = reader.next().await.ok()? else {
            return None;
        };
        match frame {
            TransferFrame::Entry(entry) => {
                bytes += match entry.kind {
                    EntryKind::File { size } => size,
                    EntryKind::Directory | EntryKind::Link { .. } => 0,
                };
                if staged.len() as u64 >= spec.max_entries || bytes > spec.max_bytes {
                    return Some(too_much(&entry.path));
                }
                if heeds_refusals && refuse.iter().any(|pattern| covers(pattern, &entry.path)) {
                    let fault = fault(FaultKind::BadPath, "keep off a protected path");
                    return Some(TransferEnd::Refused {
                        fault,
                        path: entry.path,
                    });
                }
                staged.push((entry.path.clone(), Node::of(&entry)));
            }
            TransferFrame::Data(data) => match staged.last_mut() {
                Some((
                    _,
                    Node {
                        content: Content::File(content),
                        ..
                    },
                )) => content.extend(data),
                _ => return None,
            },
            TransferFrame::End(end) => {
                sandbox.with_files(|files| files.merge(destination, staged));
                return Some(end);
            }
        }
    }
}

/// Whether a path is, or lies below, what a pattern refuses.
fn covers(pattern: &[u8], path: &[u8]) -> bool {
    let parts = |path: &[u8]| {
        path.split(|byte| *byte == b'/')
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    };
    let path = parts(path);
    match pattern.strip_prefix(b"**/") {
        Some(anywhere) => {
            let anywhere = parts(anywhere);
            path.windows(anywhere.len())
                .any(|window| window == anywhere)
        }
        None => path.starts_with(&parts(pattern)),
    }
}
