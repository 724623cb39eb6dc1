//! The thread of one sink: reads on, hands over, keeps the cursor, tries again.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    SinkError, SinkKind, SinkSettings, Source, State,
    cursor::{self, LastError},
    file,
    follow::{Batch, Follow, Notice},
    journald,
    signal::Signal,
    syslog, webhook,
};
use crate::{
    Actor, Client, Phase,
    export::{Format, Line, Told},
};

/// How often the log is looked at while it brings nothing.
const POLL: Duration = Duration::from_millis(200);
/// Before the second try.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// Between tries, at most: a sink that is back is used within a minute.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// The action of a line that tells of records that a sink never gets.
const GAP_ACTION: &str = "sink.gap";

/// What a sink is given.
#[derive(Debug)]
pub(super) struct Message {
    /// What is sent.
    pub text: String,
    /// What it is about, for targets with fields of their own.
    pub about: Told,
}

/// Where messages go. One call for a batch, which may block.
pub(super) trait Target: Send {
    /// Hands the messages over, in order.
    ///
    /// # Errors
    /// With the number of messages that were taken before it went wrong.
    fn deliver(&mut self, messages: &[Message]) -> Result<(), Undelivered>;
}

/// A delivery that stopped.
#[derive(Debug)]
pub(super) struct Undelivered {
    /// Messages that were taken.
    pub taken: usize,
    /// What went wrong.
    pub error: String,
}

impl Undelivered {
    /// Nothing was taken.
    pub(super) fn nothing(error: impl std::fmt::Display) -> Self {
        Undelivered {
            taken: 0,
            error: error.to_string(),
        }
    }
}

/// See the module.
pub(super) struct Worker {
    name: String,
    format: Format,
    host: String,
    cursor: PathBuf,
    follow: Follow,
    target: Box<dyn Target>,
    state: Arc<Mutex<State>>,
    stop: Arc<Signal>,
    failures: u32,
}

impl Worker {
    pub(super) fn new(
        source: &Source,
        directory: &Path,
        settings: &SinkSettings,
        stop: Arc<Signal>,
    ) -> Result<Self, SinkError> {
        let cursor = cursor::path(directory, &settings.name);
        let state = State::read(&cursor).unwrap_or_default();
        Ok(Worker {
            follow: Follow::new(&source.log, state.seq, &state.hash, settings.max_lag),
            target: target(settings, &source.host)?,
            name: settings.name.clone(),
            format: settings.format,
            host: source.host.clone(),
            cursor,
            state: Arc::new(Mutex::new(state)),
            stop,
            failures: 0,
        })
    }

    pub(super) fn state(&self) -> Arc<Mutex<State>> {
        self.state.clone()
    }

    /// Works until it is to stop and everything is handed over, or nothing more can be.
    pub(super) fn run(mut self) {
        loop {
            let batch = match self.follow.read() {
                Ok(batch) => batch,
                Err(error) => {
                    if self
                        .failed(&format!("the log cannot be read: {error}"))
                        .is_err()
                    {
                        return;
                    }
                    continue;
                }
            };
            let messages = self.messages(batch);
            if messages.is_empty() {
                if self.stop.is_set() {
                    return;
                }
                self.stop.wait(POLL);
            } else if self.hand_over(messages).is_err() {
                return;
            }
        }
    }

    /// Tries until all of it is taken. `Err` when it is time to end.
    fn hand_over(&mut self, mut messages: Vec<Message>) -> Result<(), Ended> {
        loop {
            let (taken, error) = match self.target.deliver(&messages) {
                Ok(()) => (messages.len(), None),
                Err(undelivered) => (undelivered.taken, Some(undelivered.error)),
            };
            let done: Vec<Message> = messages.drain(..taken.min(messages.len())).collect();
            if let Some(last) = done.last() {
                self.advance(last);
            }
            match error {
                None => return Ok(()),
                Some(error) => self.failed(&error)?,
            }
        }
    }

    fn advance(&mut self, last: &Message) {
        if self.failures > 0 {
            tracing::info!(sink = self.name, "the audit sink takes records again");
        }
        self.failures = 0;
        let mut state = lock(&self.state);
        state.seq = last.about.seq;
        state.hash.clone_from(&last.about.hash);
        state.last_error = None;
        self.write(&state);
    }

    /// Notes it and waits before the next try. When it is time to end there is none, since the log keeps what is left.
    fn failed(&mut self, error: &str) -> Result<(), Ended> {
        self.failures = self.failures.saturating_add(1);
        let is_first = self.failures == 1;
        if is_first {
            tracing::warn!(
                sink = self.name,
                error,
                "the audit sink takes nothing; it is tried again"
            );
        }
        let mut state = lock(&self.state);
        let since = state.last_error.take().map(|last| last.since);
        state.last_error = Some(LastError {
            since: since.unwrap_or_else(|| Timestamp::now().to_string()),
            message: error.to_owned(),
        });
        if is_first {
            self.write(&state);
        }
        drop(state);
        if self.stop.is_set() {
            return Err(Ended);
        }
        self.stop.wait(backoff(self.failures));
        Ok(())
    }

    fn write(&self, state: &State) {
        if let Err(error) = state.write(&self.cursor) {
            // It gets records twice after the next start.
            tracing::warn!(sink = self.name, %error, "how far the audit sink is cannot be kept");
        }
    }

    fn messages(&self, batch: Batch) -> Vec<Message> {
        let notice = batch.notice.map(|notice| self.notice(&notice));
        let lines = batch.lines.into_iter().map(|line| Message {
            text: self.format.render(&line, &self.host),
            about: line.record,
        });
        notice.into_iter().chain(lines).collect()
    }

    /// What is missing, as a line of its own.
    fn notice(&self, notice: &Notice) -> Message {
        let (why, first, last) = match *notice {
            Notice::Gone { first, last } => ("gone", first, last),
            Notice::TooMany { first, last } => ("max_lag", first, last),
            Notice::AnotherLog { first } => ("another_log", first, first.saturating_sub(1)),
        };
        let missed = (last + 1).saturating_sub(first);
        tracing::warn!(
            sink = self.name,
            why,
            first,
            last,
            "the audit sink misses records"
        );
        lock(&self.state).missed += missed;
        let about = gap(why, first, last, missed);
        let line = Line {
            text: gap_line(&about).to_string(),
            record: about,
        };
        Message {
            text: self.format.render(&line, &self.host),
            about: line.record,
        }
    }
}

struct Ended;

fn gap(why: &str, first: u64, last: u64, missed: u64) -> Told {
    let parameters = BTreeMap::from([
        ("kind".to_owned(), Value::from(why)),
        ("first_seq".to_owned(), Value::from(first)),
        ("last_seq".to_owned(), Value::from(last)),
        ("records".to_owned(), Value::from(missed)),
    ]);
    Told {
        v: 1,
        seq: last,
        timestamp: Timestamp::now(),
        phase: Phase::Event,
        op: None,
        action: GAP_ACTION.to_owned(),
        session_id: None,
        actor: Actor {
            id: Some("system".to_owned()),
            hash: "system".to_owned(),
        },
        client: Client::default(),
        source: None,
        target: None,
        decision: None,
        parameters,
        result: "ok".to_owned(),
        reason: None,
        duration_ms: None,
        hash: String::new(),
    }
}

/// It stands in no chain, so it has neither number nor hash.
fn gap_line(about: &Told) -> Value {
    json!({
        "v": 1,
        "timestamp": about.timestamp.to_string(),
        "phase": "event",
        "action": about.action,
        "parameters": about.parameters,
        "result": about.result,
    })
}

/// Where a sink's messages go; what its settings name is read, and nothing is reached.
pub(super) fn target(settings: &SinkSettings, host: &str) -> Result<Box<dyn Target>, SinkError> {
    Ok(match &settings.kind {
        SinkKind::Stderr => Box::new(file::Stderr),
        SinkKind::Syslog { address, facility } => {
            Box::new(syslog::Syslog::new(address.clone(), *facility, host))
        }
        SinkKind::Journald { socket } => Box::new(journald::Journald::new(socket)),
        SinkKind::Webhook(webhook) => Box::new(webhook::Webhook::new(webhook, &settings.name)?),
        SinkKind::File { path } => Box::new(file::SecondFile::new(path)),
    })
}

/// Twice as long each time, and by chance between half and all of it, so that servers do not come back all at once.
fn backoff(failures: u32) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let most = doubled.min(MAX_BACKOFF);
    let mut random = [0; 2];
    // Without randomness there is no jitter.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let share = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
    most.mul_f64(0.5 + share / 2.0)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For targets that are reached by system calls.
impl From<io::Error> for Undelivered {
    fn from(error: io::Error) -> Self {
        Undelivered::nothing(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_are_never_nothing() {
        for failures in [1, 2, 5, 20, u32::MAX] {
            let pause = backoff(failures);
            assert!(
                pause >= FIRST_BACKOFF / 2 && pause <= MAX_BACKOFF,
                "{pause:?}"
            );
        }
        assert!(backoff(1) <= FIRST_BACKOFF && backoff(30) >= MAX_BACKOFF / 2);
    }
}
