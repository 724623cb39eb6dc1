//! A [`Link`] over the standard streams of a sandbox's first process, where no socket of the host can be mounted. The
//! protocol is that of [`wire::Carried`]; this is the host's side.
//!
//! Reading order: [`serve`] (for as long as the sandbox lives), `attachment` (one pair of streams, from its greeting to
//! its end), `channel` (one connection in it), `end` (what is handed out of it).

mod attachment;
mod channel;
mod end;

use std::time::Duration;

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::{Instant, sleep},
};
use wire::{CarrierKey, MAX_CHANNELS};

use self::attachment::Attachment;
use crate::{BackendError, Connection, Link};

/// Connections that wait to be taken: all that an attachment can have open, so that none is refused because of others.
const WAITING_CONNECTIONS: usize = MAX_CHANNELS;
/// First pause before attaching again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause: an engine that comes back finds its sandboxes taken up again within about a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// An attachment that lasted so long was a good one: the next pause is the first one again.
const GOOD: Duration = Duration::from_secs(10);

/// Both directions of a sandbox's standard streams.
pub struct Streams {
    /// What its first process reads.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    /// What its first process writes.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
}

/// How the streams of one sandbox are had again after they broke.
#[async_trait]
pub trait Attach: Send + Sync + 'static {
    /// New streams; `None` once the sandbox has ended.
    ///
    /// # Errors
    /// When that is not known now: it is tried again.
    async fn attach(&self) -> Result<Option<Streams>, BackendError>;

    /// Resolves once the sandbox has ended.
    async fn ended(&self);
}

/// The key of a sandbox and whether its supervisor has it already.
#[derive(Debug, Clone, Copy)]
pub enum Key {
    /// The first attachment of the sandbox brings it.
    First(CarrierKey),
    /// An earlier one brought it.
    Known(CarrierKey),
}

impl Key {
    const fn bytes(&self) -> &CarrierKey {
        match self {
            Key::First(key) | Key::Known(key) => key,
        }
    }
}

/// Carries for as long as the sandbox lives and somebody holds the link. `first` are streams that are there already.
pub fn serve(key: Key, first: Option<Streams>, attach: impl Attach) -> Link {
    let (sender, connections) = mpsc::channel(WAITING_CONNECTIONS);
    tokio::spawn(carry_until_the_end(key, first, attach, sender));
    Link { connections }
}

async fn carry_until_the_end(
    mut key: Key,
    mut first: Option<Streams>,
    attach: impl Attach,
    sender: mpsc::Sender<Connection>,
) {
    let mut pause = FIRST_PAUSE;
    let mut told = None;
    loop {
        let began = Instant::now();
        let carried = async {
            let streams = match first.take() {
                Some(streams) => Some(streams),
                None => attach.attach().await?,
            };
            let Some(streams) = streams else {
                return Ok(None);
            };
            let why = Attachment::greet(key, streams).await;
            Ok::<_, BackendError>(Some(match why {
                Ok(attachment) => {
                    key = Key::Known(*key.bytes());
                    attachment.carry(&sender).await
                }
                Err(why) => why,
            }))
        };
        let carried = tokio::select! {
            biased;
            () = sender.closed() => return,
            () = attach.ended() => return,
            carried = carried => carried,
        };
        match carried {
            Ok(None) => return,
            Ok(Some(why)) => {
                told = None;
                tracing::debug!(why, "a sandbox's streams are attached anew");
            }
            // Once for each reason: an engine may be down for hours.
            Err(error) => {
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    tracing::warn!(error, "a sandbox's streams cannot be attached now");
                    told = Some(error);
                }
            }
        }
        if began.elapsed() >= GOOD {
            pause = FIRST_PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
