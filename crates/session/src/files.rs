//! Copies files between the project on the host and a session.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, sync::Arc};

use model::{Reason, Refusal, TransferDirection, TransferReport, WORKSPACE_PATH};
use policy::{TransferParts, TransferPermit};
use sandbox::{
    ExportFrame, TransferLimits,
    wire::{TransferEnd, TransferFrame},
};
use tokio::sync::mpsc;

use crate::{
    create::open_workspace,
    live::{Live, ProtectedBy},
    refusals,
    sessions::Sessions,
    transfer::{Budget, Totals, TransferError, TreeWriter, check_protected, read_tree},
};

/// Frames between the thread that works on files and the task that works on the connection: 64 × 128 KiB at most.
const FRAMES_IN_FLIGHT: usize = 64;

impl Sessions {
    /// Copies a file or tree, whole or not at all.
    ///
    /// # Errors
    /// The first entry that is refused stops the transfer and nothing of it stays.
    pub async fn transfer(&self, permit: TransferPermit) -> Result<TransferReport, Refusal> {
        let parts = permit.into_parts();
        let live = self.0.ready(parts.session).await?;
        live.touch();
        let (session, direction) = (parts.session, parts.direction);
        let totals = match direction {
            TransferDirection::ToContainer => self.send(&live, parts).await?,
            TransferDirection::FromContainer => self.receive(&live, parts).await?,
        };
        live.touch();
        let way = match direction {
            TransferDirection::ToContainer => "into",
            TransferDirection::FromContainer => "out of",
        };
        self.0
            .note(
                session,
                format!(
                    "{} file{}, {} byte{} {way} the session",
                    totals.files,
                    plural(totals.files),
                    totals.bytes,
                    plural(totals.bytes)
                ),
            )
            .await;
        Ok(TransferReport {
            session,
            files: totals.files,
            directories: totals.directories,
            links: totals.links,
            bytes: totals.bytes,
        })
    }

    async fn receive(&self, live: &Arc<Live>, parts: TransferParts) -> Result<Totals, Refusal> {
        let mut export = live
            .supervisor
            .export(parts.container.as_os_str().as_bytes(), limits(&parts))
            .await
            .map_err(|error| refusals::supervisor(&error))?;
        let (frames, incoming) = mpsc::channel(FRAMES_IN_FLIGHT);
        let policy = self.policy();
        let owner = rustix::process::geteuid()
            .is_root()
            .then_some((live.workspace.uid, live.workspace.gid));
        let unique = unique_name()?;
        let writer =
            tokio::task::spawn_blocking(move || write(&parts, owner, &unique, &policy, incoming));
        let mut sender_failed = None;
        loop {
            match export.next().await {
                Ok(Some(frame)) => {
                    // The writer has refused: its reason comes from its thread.
                    if frames.send(Incoming::Frame(frame)).await.is_err() {
                        break;
                    }
                }
                Ok(None) => {
                    let _ = frames.send(Incoming::Complete).await;
                    break;
                }
                Err(error) => {
                    sender_failed = Some(refusals::client_transfer(&error));
                    break;
                }
            }
        }
        drop(frames);
        let written = writer.await.map_err(|error| Refusal::internal(&error))?;
        match sender_failed {
            Some(refusal) => Err(refusal),
            None => written.map_err(|error| refusals::host_transfer(&error)),
        }
    }

    async fn send(&self, live: &Arc<Live>, parts: TransferParts) -> Result<Totals, Refusal> {
        let refuse = parts
            .refuse
            .iter()
            .map(|pattern| pattern.clone().into_bytes())
            .collect();
        let mut import = live
            .supervisor
            .import(
                parts.container.as_os_str().as_bytes(),
                refuse,
                limits(&parts),
            )
            .await
            .map_err(|error| refusals::supervisor(&error))?;
        let (frames, mut outgoing) = mpsc::channel(FRAMES_IN_FLIGHT);
        let policy = self.policy();
        // The supervisor refuses by exact names; here the names that other file systems take for the same are refused too.
        let workspace = parts
            .container
            .strip_prefix(WORKSPACE_PATH)
            .ok()
            .map(Path::to_owned);
        let reader = tokio::task::spawn_blocking(move || {
            let base = open_workspace(&parts.host_root).map_err(|source| TransferError::Io {
                step: "open",
                path: ".".into(),
                source,
            })?;
            read_tree(&base, &parts.host_relative, budget(&parts), &mut |frame| {
                if let (Some(place), TransferFrame::Entry(entry)) = (&workspace, &frame) {
                    check_protected(
                        &ProtectedBy(&policy),
                        &place.join(OsStr::from_bytes(&entry.path)),
                    )?;
                }
                frames
                    .blocking_send(frame)
                    .map_err(|_| TransferError::Broken("no longer listens"))
            })
        });
        let mut receiver_failed = None;
        while let Some(frame) = outgoing.recv().await {
            if let Err(error) = import.send(frame).await {
                receiver_failed = Some(refusals::client_transfer(&error));
                break;
            }
        }
        drop(outgoing);
        let read = reader.await.map_err(|error| Refusal::internal(&error))?;
        if let Some(refusal) = receiver_failed {
            return Err(refusal);
        }
        let totals = read.map_err(|error| refusals::host_transfer(&error))?;
        // Dropped instead of finished, nothing of it would appear: only now is all of it there.
        match import
            .finish()
            .await
            .map_err(|error| refusals::client_transfer(&error))?
        {
            TransferEnd::Complete { .. } => Ok(totals),
            TransferEnd::Refused { fault, path } => Err(refusals::client_transfer(
                &sandbox::TransferError::Refused { fault, path },
            )),
        }
    }
}

/// What the writing thread gets.
enum Incoming {
    Frame(ExportFrame),
    Complete,
}

fn write(
    parts: &TransferParts,
    owner: Option<(u32, u32)>,
    unique: &str,
    policy: &policy::Policy,
    mut incoming: mpsc::Receiver<Incoming>,
) -> Result<Totals, TransferError> {
    let base = open_workspace(&parts.host_root).map_err(|source| TransferError::Io {
        step: "open",
        path: ".".into(),
        source,
    })?;
    let rules = ProtectedBy(policy);
    let mut writer = TreeWriter::new(
        &base,
        &parts.host_relative,
        owner,
        unique,
        &rules,
        budget(parts),
    )?;
    loop {
        match incoming.blocking_recv() {
            Some(Incoming::Frame(frame)) => writer.frame(frame)?,
            Some(Incoming::Complete) => return writer.finish(),
            None => return Err(TransferError::Broken("broke off")),
        }
    }
}

const fn budget(parts: &TransferParts) -> Budget {
    Budget {
        entries: parts.max_entries,
        bytes: parts.max_bytes,
    }
}

const fn limits(parts: &TransferParts) -> TransferLimits {
    TransferLimits {
        max_entries: parts.max_entries,
        max_bytes: parts.max_bytes,
    }
}

fn unique_name() -> Result<String, Refusal> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| {
        Refusal::new(
            Reason::Internal,
            "The server has no random bytes.",
            "Try again.",
        )
        .with_cause(&error)
    })?;
    Ok(hex::encode(bytes))
}

const fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}
