//! One connection in an attachment: two tasks between it and the queues.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use wire::{CARRIER_WINDOW_BYTES, Carried, MAX_CARRIED_BYTES};

use super::{
    attachment::{Channels, End},
    end::Gone,
};

/// Frames of content that wait for the writer: a few, so that what is urgent does not wait behind many.
const WAITING_FRAMES: usize = 2;

/// Where a channel's tasks put what is to be sent.
#[derive(Clone)]
pub(super) struct Queues {
    /// Few and small: bounded by the credit that they are about.
    control: mpsc::UnboundedSender<Carried>,
    urgent: mpsc::Sender<Carried>,
    content: mpsc::Sender<Carried>,
}

/// The other end of the queues.
pub(super) struct Outgoing {
    control: mpsc::UnboundedReceiver<Carried>,
    urgent: mpsc::Receiver<Carried>,
    content: mpsc::Receiver<Carried>,
}

impl Queues {
    pub(super) fn new() -> (Self, Outgoing) {
        let (control, queued_control) = mpsc::unbounded_channel();
        let (urgent, queued_urgent) = mpsc::channel(WAITING_FRAMES);
        let (content, queued_content) = mpsc::channel(WAITING_FRAMES);
        let queues = Queues {
            control,
            urgent,
            content,
        };
        let outgoing = Outgoing {
            control: queued_control,
            urgent: queued_urgent,
            content: queued_content,
        };
        (queues, outgoing)
    }

    pub(super) fn control(&self, message: Carried) {
        // Without a writer the attachment is over.
        let _ = self.control.send(message);
    }
}

impl Outgoing {
    /// The next message: about channels first, then what is urgent.
    pub(super) async fn next(&mut self) -> Option<Carried> {
        tokio::select! {
            biased;
            Some(message) = self.control.recv() => Some(message),
            Some(message) = self.urgent.recv() => Some(message),
            Some(message) = self.content.recv() => Some(message),
            else => None,
        }
    }
}

/// The reader's side of a channel.
pub(super) struct Channel {
    /// `None` once the supervisor said that nothing more comes.
    incoming: Option<mpsc::UnboundedSender<Vec<u8>>>,
    /// Came, and was not credited yet.
    uncredited: Arc<AtomicU32>,
    /// Bytes that may be sent.
    may_send: Arc<Semaphore>,
}

impl Channel {
    pub(super) fn start(
        number: u32,
        urgent: bool,
        (ours, gone): (DuplexStream, Gone),
        queues: &Queues,
        channels: Channels,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (reading, writing) = tokio::io::split(ours);
        // Bounded by the window, which `deliver` keeps.
        let (incoming, arriving) = mpsc::unbounded_channel();
        let uncredited = Arc::new(AtomicU32::new(0));
        let may_send = Arc::new(Semaphore::new(CARRIER_WINDOW_BYTES as usize));
        let towards_us = TowardsUs {
            number,
            writing,
            arriving,
            uncredited: Arc::clone(&uncredited),
            queues: queues.clone(),
        };
        tasks.spawn(towards_us.run());
        let towards_them = TowardsThem {
            number,
            reading,
            may_send: Arc::clone(&may_send),
            queue: if urgent {
                queues.urgent.clone()
            } else {
                queues.content.clone()
            },
            channels,
            gone,
        };
        tasks.spawn(towards_them.run());
        Channel {
            incoming: Some(incoming),
            uncredited,
            may_send,
        }
    }

    pub(super) fn deliver(&mut self, bytes: Vec<u8>) -> Result<(), End> {
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let before = self.uncredited.fetch_add(count, Ordering::Relaxed);
        if before.saturating_add(count) > CARRIER_WINDOW_BYTES {
            return Err("more came than there was credit for");
        }
        match &self.incoming {
            // Without its task nobody waits for it any more.
            Some(incoming) => {
                let _ = incoming.send(bytes);
                Ok(())
            }
            None => Err("more came after the end"),
        }
    }

    pub(super) fn credit(&self, bytes: u32) -> Result<(), End> {
        let window = CARRIER_WINDOW_BYTES as usize;
        if self.may_send.available_permits() + bytes as usize > window {
            return Err("more credit came than was used");
        }
        self.may_send.add_permits(bytes as usize);
        Ok(())
    }

    pub(super) fn end(&mut self) {
        self.incoming = None;
    }
}

struct TowardsUs {
    number: u32,
    writing: WriteHalf<DuplexStream>,
    arriving: mpsc::UnboundedReceiver<Vec<u8>>,
    uncredited: Arc<AtomicU32>,
    queues: Queues,
}

impl TowardsUs {
    async fn run(mut self) {
        let mut taken = 0;
        while let Some(bytes) = self.arriving.recv().await {
            // What nobody reads any more is thrown away, and credited, until the channel is closed.
            let _ = self.writing.write_all(&bytes).await;
            taken += bytes.len() as u32;
            if taken >= CARRIER_WINDOW_BYTES / 2 {
                self.uncredited.fetch_sub(taken, Ordering::Relaxed);
                let message = Carried::Credit {
                    channel: self.number,
                    bytes: taken,
                };
                self.queues.control(message);
                taken = 0;
            }
        }
        let _ = self.writing.shutdown().await;
    }
}

struct TowardsThem {
    number: u32,
    reading: ReadHalf<DuplexStream>,
    may_send: Arc<Semaphore>,
    queue: mpsc::Sender<Carried>,
    channels: Channels,
    gone: Gone,
}

impl TowardsThem {
    async fn run(mut self) {
        let number = self.number;
        if self.carry().await.is_none() {
            return;
        }
        // What ends only one way is still read, and told apart from what is gone.
        if !self.gone.is_now() {
            if self
                .queue
                .send(Carried::End { channel: number })
                .await
                .is_err()
            {
                return;
            }
            self.gone.wait().await;
        }
        self.channels.lock().remove(&number);
        // Behind its content, in the same queue.
        let _ = self.queue.send(Carried::Close { channel: number }).await;
    }

    /// To the end of what comes; `None` without anybody to send it to.
    async fn carry(&mut self) -> Option<()> {
        let mut buffer = vec![0; MAX_CARRIED_BYTES];
        while let Ok(count @ 1..) = self.reading.read(&mut buffer).await {
            let permits = self.may_send.acquire_many(count as u32).await;
            permits.ok()?.forget();
            let message = Carried::Data {
                channel: self.number,
                bytes: buffer[..count].to_vec(),
            };
            self.queue.send(message).await.ok()?;
        }
        Some(())
    }
}
