//! One attachment: greeted, then one reader and one writer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use wire::{Carried, MAX_CHANNELS, Nonce, Opener, Sealer, Sender, Splitter};

use super::{
    Key, Streams,
    channel::{Channel, Outgoing, Queues},
    end,
};
use crate::Connection;

/// How long a supervisor may take to answer. It answers as soon as it runs, and a sandbox at its limits runs late.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes taken from the streams in one read.
const READ_BYTES: usize = 64 * 1024;

/// Why an attachment is over, for the log.
pub(super) type End = &'static str;

/// An attachment that the supervisor has answered.
pub(super) struct Attachment {
    reader: FrameReader,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    sealer: Sealer,
    opener: Opener,
}

struct FrameReader {
    source: Box<dyn AsyncRead + Send + Unpin>,
    splitter: Splitter,
    buffer: Vec<u8>,
}

impl FrameReader {
    /// `None` at the end of the stream. Cancel-safe.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.splitter.next_frame() {
                Some(frame) if frame.is_empty() => {}
                Some(frame) => return Some(frame),
                None => match self.source.read(&mut self.buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(count) => self.splitter.push(&self.buffer[..count]),
                },
            }
        }
    }
}

impl Attachment {
    /// Asks the supervisor to attach, and waits for its answer. Whatever else comes before it belongs to an earlier
    /// attachment, or to nobody.
    pub(super) async fn greet(key: Key, streams: Streams) -> Result<Self, End> {
        let Streams { mut input, output } = streams;
        let mut reader = FrameReader {
            source: output,
            splitter: Splitter::default(),
            buffer: vec![0; READ_BYTES],
        };
        let mut nonce = Nonce::default();
        getrandom::fill(&mut nonce).map_err(|_| "no random numbers are to be had")?;
        let request = Carried::Attach {
            nonce,
            key: match key {
                Key::First(key) => Some(key),
                Key::Known(_) => None,
            },
        };
        let frame = Sealer::new(key.bytes(), Sender::Host, &[])
            .seal(&request)
            .map_err(|_| "a request to attach does not encode")?;
        // Half a frame of an earlier server may stand in the pipe: its end first.
        let request = [vec![0], frame].concat();
        let greeting = async {
            input.write_all(&request).await.ok()?;
            input.flush().await.ok()?;
            answer(&mut reader, key, nonce).await
        };
        let theirs = timeout(GREETING_TIMEOUT, greeting)
            .await
            .map_err(|_| "the supervisor does not answer")?
            .ok_or("the streams closed before the supervisor answered")?;
        let nonces = [nonce, theirs];
        Ok(Attachment {
            reader,
            writer: input,
            sealer: Sealer::new(key.bytes(), Sender::Host, &nonces),
            opener: Opener::new(key.bytes(), Sender::Supervisor, &nonces),
        })
    }

    /// Carries until it is over.
    pub(super) async fn carry(self, sender: &mpsc::Sender<Connection>) -> End {
        let (queues, queued) = Queues::new();
        let carrying = Carrying {
            channels: Channels::default(),
            next_channel: 0,
            queues,
            tasks: JoinSet::new(),
            sender,
        };
        let (mut reader, mut opener) = (self.reader, self.opener);
        tokio::select! {
            biased;
            why = carrying.read(&mut reader, &mut opener) => why,
            () = write(self.writer, self.sealer, queued) => "the streams take nothing more",
        }
    }
}

async fn answer(reader: &mut FrameReader, key: Key, nonce: Nonce) -> Option<Nonce> {
    let opener = Opener::new(key.bytes(), Sender::Supervisor, &[nonce]);
    loop {
        let frame = reader.next().await?;
        if let Some(Carried::Attached { nonce }) = opener.clone().open(&frame) {
            return Some(nonce);
        }
    }
}

/// Channels by number, shared with the tasks that close them.
#[derive(Clone, Default)]
pub(super) struct Channels(Arc<Mutex<BTreeMap<u32, Channel>>>);

impl Channels {
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Channel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Carrying<'link> {
    channels: Channels,
    next_channel: u32,
    queues: Queues,
    /// Two for each channel; they end with the attachment.
    tasks: JoinSet<()>,
    sender: &'link mpsc::Sender<Connection>,
}

impl Carrying<'_> {
    async fn read(mut self, reader: &mut FrameReader, opener: &mut Opener) -> End {
        loop {
            while self.tasks.try_join_next().is_some() {}
            let Some(frame) = reader.next().await else {
                return "the streams closed";
            };
            let Some(message) = opener.open(&frame) else {
                return "a frame is not the supervisor's next one";
            };
            if let Err(why) = self.take(message) {
                return why;
            }
        }
    }

    fn take(&mut self, message: Carried) -> Result<(), End> {
        match message {
            Carried::Open { channel, urgent } => self.open(channel, urgent),
            Carried::Data { channel, bytes } => self.with(channel, |found| found.deliver(bytes)),
            Carried::Credit { channel, bytes } => self.with(channel, |found| found.credit(bytes)),
            Carried::End { channel } => self.with(channel, |found| {
                found.end();
                Ok(())
            }),
            Carried::Lost => Err("the supervisor lost the thread"),
            Carried::Attach { .. } | Carried::Attached { .. } | Carried::Close { .. } => {
                Err("the supervisor speaks out of turn")
            }
        }
    }

    /// A channel that is closed here already may still be spoken of there.
    fn with(
        &self,
        number: u32,
        work: impl FnOnce(&mut Channel) -> Result<(), End>,
    ) -> Result<(), End> {
        match self.channels.lock().get_mut(&number) {
            Some(channel) => work(channel),
            None if number < self.next_channel => Ok(()),
            None => Err("a channel that was never opened"),
        }
    }

    fn open(&mut self, number: u32, urgent: bool) -> Result<(), End> {
        if number != self.next_channel {
            return Err("channels are not opened in their order");
        }
        self.next_channel = number.checked_add(1).ok_or("too many channels")?;
        if self.channels.lock().len() >= MAX_CHANNELS {
            return Err("too many channels are open");
        }
        let (connection, ours) = end::pair(READ_BYTES);
        // As a listener does whose queue is full: of what an earlier attachment left there.
        if self.sender.try_send(Box::new(connection)).is_err() {
            self.queues.control(Carried::Close { channel: number });
            return Ok(());
        }
        let channels = self.channels.clone();
        let channel = Channel::start(
            number,
            urgent,
            ours,
            &self.queues,
            channels,
            &mut self.tasks,
        );
        self.channels.lock().insert(number, channel);
        Ok(())
    }
}

async fn write(
    mut writer: Box<dyn AsyncWrite + Send + Unpin>,
    mut sealer: Sealer,
    mut queued: Outgoing,
) {
    while let Some(message) = queued.next().await {
        let Ok(frame) = sealer.seal(&message) else {
            return;
        };
        if writer.write_all(&frame).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}
