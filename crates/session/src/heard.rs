//! What is known of an execution's output without reading it: who waits for news waits here.
//!
//! However many callers wait, and however often they come back, one question for each stream is open at the supervisor:
//! a caller that leaves takes nothing with it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sandbox::{
    SupervisorError,
    wire::{Stream, StreamStatus},
};
use tokio::{sync::watch, time::Instant};

use crate::execution::Execution;

/// How long one question for more output stays open.
const LISTEN_INTERVAL: Duration = Duration::from_secs(10);
/// How long a listener rests after a question that got no answer.
const REST: Duration = Duration::from_millis(100);
/// How often who waits makes sure that somebody listens.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub(crate) struct Heard {
    stdout: Ear,
    stderr: Ear,
}

#[derive(Default)]
struct Ear {
    status: watch::Sender<StreamStatus>,
    listening: AtomicBool,
}

impl Heard {
    fn ear(&self, stream: Stream) -> &Ear {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }
}

impl Execution {
    /// Waits until there is output beyond one of the cursors, the execution has ended, or the wait is over.
    pub(crate) async fn news(
        self: &Arc<Self>,
        stdout_cursor: u64,
        stderr_cursor: u64,
        wait: Duration,
    ) {
        let deadline = Instant::now() + wait;
        let mut stdout = self.heard.stdout.status.subscribe();
        let mut stderr = self.heard.stderr.status.subscribe();
        while !self.is_final() && Instant::now() < deadline {
            if stdout.borrow_and_update().total_bytes > stdout_cursor
                || stderr.borrow_and_update().total_bytes > stderr_cursor
            {
                return;
            }
            self.listen(Stream::Stdout);
            self.listen(Stream::Stderr);
            let slice = LOOK_AGAIN.min(deadline.saturating_duration_since(Instant::now()));
            tokio::select! {
                () = self.ended_within(slice) => {}
                _ = stdout.changed() => {}
                _ = stderr.changed() => {}
            }
        }
    }

    /// Sees to it that somebody asks for more of a stream, unless there will be no more.
    fn listen(self: &Arc<Self>, stream: Stream) {
        let ear = self.heard.ear(stream);
        if !ear.status.borrow().ended && !ear.listening.swap(true, Ordering::AcqRel) {
            tokio::spawn(self.clone().listen_on(stream));
        }
    }

    async fn listen_on(self: Arc<Self>, stream: Stream) {
        let ear = self.heard.ear(stream);
        // Nobody waits any more: the next one who does starts another listener.
        while ear.status.receiver_count() > 0 {
            let from = ear.status.borrow().total_bytes;
            match self
                .supervisor
                .read(*self.id.as_bytes(), stream, from, 1, LISTEN_INTERVAL)
                .await
            {
                Ok(chunk) => {
                    ear.status.send_if_modified(|known| {
                        let news = *known != chunk.status;
                        *known = chunk.status;
                        news
                    });
                    if chunk.status.ended {
                        break;
                    }
                }
                Err(
                    SupervisorError::Timeout(_)
                    | SupervisorError::Interrupted(_)
                    | SupervisorError::TooManyOpen,
                ) => {
                    tokio::time::sleep(REST).await;
                }
                Err(
                    SupervisorError::Fault(_)
                    | SupervisorError::Ended
                    | SupervisorError::Protocol(_)
                    | SupervisorError::Version { .. }
                    | SupervisorError::Unsendable(_),
                ) => break,
            }
        }
        ear.listening.store(false, Ordering::Release);
    }
}
