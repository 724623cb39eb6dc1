//! The task behind a [`super::Supervisor`]: one control connection at a time, and what arrives beside it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep},
};
use wire::{
    Hello, MAX_TO_SUPERVISOR_BYTES, PROTOCOL_VERSION, ToHost, ToSupervisor, Welcome, encode,
};

use super::{
    EndReason,
    channel::{Channel, FrameReader, ReadEnd},
    desk::Desk,
    greeting::{Arrivals, Greeting, describe},
};

/// A supervisor redials when its server went away: rarely. One that redials all the time wants work from us.
const MAX_RECONNECTS: usize = 30;
/// The time in which [`MAX_RECONNECTS`] count.
const RECONNECT_WINDOW: Duration = Duration::from_secs(60);
/// How long replies are still read after a write failed: they are in our buffers already, so they come at once.
const LAST_REPLIES: Duration = Duration::from_secs(1);

/// Serves the sandbox until it is over, and tells the desk why.
pub(super) async fn drive(desk: Arc<Desk>, arrivals: Arrivals, hello: Box<Hello>, first: Channel) {
    let serving = Serving {
        desk: &desk,
        arrivals,
        hello,
        reconnects: VecDeque::new(),
    };
    let reason = tokio::select! {
        reason = serving.run(first) => reason,
        // A transfer found a violation.
        reason = desk.ended() => reason,
    };
    desk.end(reason);
}

struct Serving<'a> {
    desk: &'a Desk,
    arrivals: Arrivals,
    hello: Box<Hello>,
    reconnects: VecDeque<Instant>,
}

/// Why a control connection is no longer served.
enum Served {
    Dropped,
    Violation(String),
}

impl Serving<'_> {
    async fn run(mut self, first: Channel) -> EndReason {
        let mut control = Some(first);
        loop {
            let next = match control.take() {
                Some(channel) => {
                    let next = self.serve_until_next(channel).await;
                    self.desk.disconnected();
                    next
                }
                None => self.next_control().await.map(Some),
            };
            match next {
                Ok(next) => control = next,
                Err(reason) => return reason,
            }
        }
    }

    /// Serves one connection until it drops (`None`) or its successor stands there.
    async fn serve_until_next(&mut self, channel: Channel) -> Result<Option<Channel>, EndReason> {
        let desk = self.desk;
        tokio::select! {
            biased;
            served = serve(desk, channel) => match served {
                Served::Dropped => Ok(None),
                Served::Violation(what) => Err(EndReason::Broken(what)),
            },
            next = self.next_control() => next.map(Some),
        }
    }

    /// The next control connection of the same supervisor. Hands out data connections meanwhile.
    async fn next_control(&mut self) -> Result<Channel, EndReason> {
        loop {
            match self.arrivals.next().await {
                None => return Err(EndReason::Gone),
                Some(Greeting::Violation(what)) => return Err(EndReason::Broken(what)),
                Some(Greeting::Data(transfer, channel)) => {
                    self.desk.transfer_arrived(transfer, channel)
                }
                Some(Greeting::Relayed(port, relayed)) => self.desk.relayed(port, relayed),
                Some(Greeting::Control(hello, channel)) => {
                    self.check_reconnect(&hello)
                        .map_err(|what| EndReason::Broken(what.to_owned()))?;
                    return Ok(channel);
                }
            }
        }
    }

    fn check_reconnect(&mut self, hello: &Hello) -> Result<(), &'static str> {
        if hello.epoch != self.hello.epoch {
            return Err("another supervisor greets in its place");
        }
        if *hello != *self.hello {
            return Err("a supervisor greets with another attestation");
        }
        let now = Instant::now();
        self.reconnects
            .retain(|at| now.duration_since(*at) < RECONNECT_WINDOW);
        self.reconnects.push_back(now);
        if self.reconnects.len() > MAX_RECONNECTS {
            return Err("the supervisor redials all the time");
        }
        Ok(())
    }
}

async fn serve(desk: &Desk, channel: Channel) -> Served {
    let (reader, writer) = channel.split();
    let read = read_replies(desk, reader);
    tokio::pin!(read);
    tokio::select! {
        biased;
        served = &mut read => return served,
        () = write_requests(desk, writer) => {}
    }
    tokio::select! {
        served = read => served,
        () = sleep(LAST_REPLIES) => Served::Dropped,
    }
}

async fn read_replies<R: AsyncRead + Unpin>(desk: &Desk, mut reader: FrameReader<R>) -> Served {
    loop {
        let violation = match reader.next().await {
            Ok(ToHost::Reply { id, result }) => match desk.deliver(id, result) {
                Ok(()) => continue,
                Err(what) => what.to_owned(),
            },
            Ok(ToHost::Hello(_) | ToHost::TransferHello { .. } | ToHost::RelayHello { .. }) => {
                "a connection greeted twice".to_owned()
            }
            Ok(ToHost::Transfer(_)) => "file content came on the control connection".to_owned(),
            Err(ReadEnd::Garbage(error)) => describe(&error),
            Err(ReadEnd::Closed) => return Served::Dropped,
        };
        return Served::Violation(violation);
    }
}

/// Writes the welcome and then requests as they are queued, until the connection refuses.
async fn write_requests<W: AsyncWrite + Unpin>(desk: &Desk, mut writer: W) {
    let welcome = ToSupervisor::Welcome(Welcome {
        protocol: PROTOCOL_VERSION,
        lease_ms: desk.connected(),
    });
    let Ok(mut frame) = encode(&welcome, MAX_TO_SUPERVISOR_BYTES) else {
        return;
    };
    loop {
        if writer.write_all(&frame).await.is_err() || writer.flush().await.is_err() {
            return;
        }
        frame = loop {
            // Created before the look, so that what is queued in between wakes it.
            let queued = desk.queued.notified();
            match desk.next_frame() {
                Some(frame) => break frame,
                None => queued.await,
            }
        };
    }
}
