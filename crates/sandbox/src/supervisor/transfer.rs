//! Transfers of files, over a data connection of their own.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadHalf, WriteHalf},
    time::timeout,
};
use wire::{
    Entry, MAX_TO_SUPERVISOR_BYTES, ToHost, ToSupervisor, TransferEnd, TransferFrame, encode,
};

use super::{
    EndReason, TransferError,
    channel::{Channel, FrameReader, ReadEnd},
    check::MAX_STEP_BYTES,
    desk::TransferTicket,
    greeting::describe,
    tree::{MAX_PATH_BYTES, TreeCheck},
};
use crate::Connection;

/// Longest time without a frame. The supervisor reads ahead and writes behind, so only a broken or overloaded one
/// stands still for so long.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Time to put an imported tree in its place once all of it came: a rename, or a merge entry by entry.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a refusal is waited for after the supervisor closed its side: it is on the way already.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How much a transfer may move. Enforced by the supervisor and again by the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferLimits {
    /// Entries, the root included.
    pub max_entries: u64,
    /// Bytes of content.
    pub max_bytes: u64,
}

/// A frame of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportFrame {
    /// The next entry; its parent came before it. The first is the root, with an empty path.
    Entry(Entry),
    /// Content of the file before it, never empty; all of a file's content comes before the next entry.
    Data(Vec<u8>),
}

/// A tree or file on its way out of the sandbox, checked frame by frame: paths are relative and clean, parents come
/// first and are directories, nothing comes twice, links stay inside, sizes and limits hold.
pub struct Export {
    ticket: TransferTicket,
    channel: Channel,
    tree: TreeCheck,
    finished: bool,
}

impl Export {
    pub(super) fn new(ticket: TransferTicket, channel: Channel, limits: TransferLimits) -> Self {
        Export {
            ticket,
            channel,
            tree: TreeCheck::new(limits),
            finished: false,
        }
    }

    /// The next frame; `None` once all of it came and the counts agree. Throw away what came if an error follows.
    ///
    /// # Errors
    /// [`TransferError::Refused`] when the supervisor stopped, [`TransferError::Protocol`] (and the sandbox is
    /// reported broken) when it sent what an honest one does not, [`TransferError::LinkLeaves`], [`TransferError::Stalled`], [`TransferError::Dropped`].
    pub async fn next(&mut self) -> Result<Option<ExportFrame>, TransferError> {
        if self.finished {
            return Ok(None);
        }
        let frame = receive(&mut self.channel, STALL_TIMEOUT).await;
        let frame = frame.map_err(|error| report(&self.ticket, error))?;
        let accepted = match frame {
            TransferFrame::Entry(entry) => self
                .tree
                .entry(&entry)
                .map(|()| Some(ExportFrame::Entry(entry))),
            TransferFrame::Data(data) => self
                .tree
                .data(data.len())
                .map(|()| Some(ExportFrame::Data(data))),
            TransferFrame::End(end) => self.end(end).map(|()| None),
        };
        accepted.map_err(|error| report(&self.ticket, blame_the_sender(error)))
    }

    fn end(&mut self, end: TransferEnd) -> Result<(), TransferError> {
        let TransferEnd::Complete { entries, bytes } = end else {
            return Err(refused(end));
        };
        if self.tree.complete()? != (entries, bytes) {
            return Err(TransferError::Protocol(
                "the counts of a transfer do not agree".to_owned(),
            ));
        }
        self.finished = true;
        Ok(())
    }
}

/// A tree or file on its way into the sandbox. Dropping it before [`Import::finish`] leaves nothing of it behind.
pub struct Import {
    ticket: TransferTicket,
    reader: FrameReader<ReadHalf<Connection>>,
    writer: WriteHalf<Connection>,
    tree: TreeCheck,
}

impl Import {
    pub(super) fn new(ticket: TransferTicket, channel: Channel, limits: TransferLimits) -> Self {
        let (reader, writer) = channel.split();
        Import {
            ticket,
            reader,
            writer,
            tree: TreeCheck::new(limits),
        }
    }

    /// Sends an entry or a piece of content, under the rules that [`Export`] checks.
    ///
    /// # Errors
    /// [`TransferError::Invalid`], [`TransferError::TooManyEntries`] or [`TransferError::TooManyBytes`] for what may
    /// not be sent; [`TransferError::Refused`] when the supervisor does not take it; [`TransferError::Stalled`],
    /// [`TransferError::Dropped`]. After an error the transfer is over.
    pub async fn send(&mut self, frame: TransferFrame) -> Result<(), TransferError> {
        match &frame {
            TransferFrame::Entry(entry) => self.tree.entry(entry)?,
            TransferFrame::Data(data) => self.tree.data(data.len())?,
            TransferFrame::End(_) => {
                return Err(TransferError::Invalid("an end before the end".to_owned()));
            }
        }
        self.write(frame)
            .await
            .map_err(|error| report(&self.ticket, error))
    }

    /// Ends it and waits until all of it stands at its destination.
    ///
    /// # Errors
    /// As for [`Import::send`].
    pub async fn finish(mut self) -> Result<TransferEnd, TransferError> {
        let (entries, bytes) = self.tree.complete()?;
        let end = TransferEnd::Complete { entries, bytes };
        let answer = match self.write(TransferFrame::End(end.clone())).await {
            Ok(()) => receive(&mut self.reader, COMMIT_TIMEOUT).await,
            Err(error) => Err(error),
        };
        let checked = answer.and_then(|answer| match answer {
            TransferFrame::End(answer) if answer == end => Ok(answer),
            TransferFrame::End(answer @ TransferEnd::Refused { .. }) => Err(refused(answer)),
            TransferFrame::End(TransferEnd::Complete { .. }) => Err(TransferError::Protocol(
                "the counts of a transfer do not agree".to_owned(),
            )),
            TransferFrame::Entry(_) | TransferFrame::Data(_) => Err(TransferError::Protocol(
                "content came against the stream".to_owned(),
            )),
        });
        checked.map_err(|error| report(&self.ticket, error))
    }

    /// Writes a frame while listening for a refusal: a supervisor that refuses stops reading.
    async fn write(&mut self, frame: TransferFrame) -> Result<(), TransferError> {
        let frame = encode(&ToSupervisor::Transfer(frame), MAX_TO_SUPERVISOR_BYTES)
            .map_err(|error| TransferError::Invalid(describe(&error)))?;
        let written = tokio::select! {
            biased;
            early = next_frame(&mut self.reader) => return Err(stopped_early(early)),
            written = timeout(STALL_TIMEOUT, self.writer.write_all(&frame)) => written,
        };
        match written {
            Ok(Ok(())) => Ok(()),
            // It refuses by answering and closing: the answer is still to be read.
            Ok(Err(_)) => Err(stopped_early(
                receive(&mut self.reader, LAST_ANSWER_TIMEOUT).await,
            )),
            Err(_) => Err(TransferError::Stalled),
        }
    }
}

/// The supervisor spoke before the host had finished: that can only be a refusal.
fn stopped_early(early: Result<TransferFrame, TransferError>) -> TransferError {
    match early {
        Ok(TransferFrame::End(end)) => refused(end),
        Ok(TransferFrame::Entry(_) | TransferFrame::Data(_)) => {
            TransferError::Protocol("content came against the stream".to_owned())
        }
        Err(error) => error,
    }
}

async fn receive<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    patience: Duration,
) -> Result<TransferFrame, TransferError> {
    timeout(patience, next_frame(reader))
        .await
        .map_err(|_| TransferError::Stalled)?
}

async fn next_frame<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
) -> Result<TransferFrame, TransferError> {
    match reader.next().await {
        Ok(ToHost::Transfer(frame)) => Ok(frame),
        Ok(
            ToHost::Hello(_)
            | ToHost::TransferHello { .. }
            | ToHost::RelayHello { .. }
            | ToHost::Reply { .. },
        ) => Err(TransferError::Protocol(
            "a data connection carried something else".to_owned(),
        )),
        Err(ReadEnd::Closed) => Err(TransferError::Dropped),
        Err(ReadEnd::Garbage(error)) => Err(TransferError::Protocol(describe(&error))),
    }
}

fn refused(end: TransferEnd) -> TransferError {
    match end {
        TransferEnd::Refused { fault, path }
            if fault.step.len() <= MAX_STEP_BYTES && path.len() <= MAX_PATH_BYTES =>
        {
            TransferError::Refused { fault, path }
        }
        TransferEnd::Refused { .. } => TransferError::Protocol("a refusal is too long".to_owned()),
        TransferEnd::Complete { .. } => {
            TransferError::Protocol("a transfer ended before its end".to_owned())
        }
    }
}

/// The supervisor was told the limits and keeps the rules, so what breaks them on the way out is its violation. Links
/// are the exception: the agent makes them, and the supervisor's idea of "inside" may be wider than ours.
fn blame_the_sender(error: TransferError) -> TransferError {
    match error {
        TransferError::Invalid(what) => TransferError::Protocol(what),
        TransferError::TooManyEntries(_) | TransferError::TooManyBytes(_) => {
            TransferError::Protocol(error.to_string())
        }
        TransferError::LinkLeaves { .. }
        | TransferError::Refused { .. }
        | TransferError::Protocol(_)
        | TransferError::Stalled
        | TransferError::Dropped => error,
    }
}

/// A violation on a data connection ends the sandbox for this client, as one on the control connection does.
fn report(ticket: &TransferTicket, error: TransferError) -> TransferError {
    if let TransferError::Protocol(what) = &error {
        ticket.desk.end(EndReason::Broken(what.clone()));
    }
    error
}
