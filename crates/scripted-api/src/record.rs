//! What arrived, and what became of it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::Notify;

use crate::{
    credential::Credential,
    request::{Provider, Purpose, header},
};

/// One request.
#[derive(Clone)]
pub struct Recorded {
    /// From 1, in the order of arrival.
    pub number: usize,
    /// When it had arrived whole, since the start of the API.
    pub after: Duration,
    /// `POST`, …
    pub method: String,
    /// As sent, with the query.
    pub path: String,
    /// Names in small letters, in the order of arrival.
    pub headers: Vec<(String, String)>,
    /// `Null` where it was no JSON.
    pub body: Value,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Whose wire, by the path; none: a path of nobody.
    pub provider: Option<Provider>,
    /// What a message was wanted for; none: no message was asked for.
    pub purpose: Option<Purpose>,
    /// Which credentials it brought.
    pub credential: Credential,
    /// The script's turn that answered, from 0; none: no turn did.
    pub turn: Option<usize>,
    /// The status of the answer; none: no headers were sent.
    pub status: Option<u16>,
    /// How far the answer came.
    pub outcome: Outcome,
}

/// How far an answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is being given, or stalls.
    Open,
    /// All of it was handed over.
    Complete,
    /// The script cut it.
    Cut,
    /// The client went away before the end.
    ClientLeft,
}

impl Recorded {
    /// A header by its name in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Whether the main conversation asked.
    #[must_use]
    pub fn is_main(&self) -> bool {
        self.purpose == Some(Purpose::Main)
    }
}

/// One line, without credentials and contents.
impl fmt::Display for Recorded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:>3} {} {}",
            self.number, self.method, self.path
        )?;
        if let Some(purpose) = self.purpose {
            write!(formatter, " {purpose:?}")?;
        }
        match self.turn {
            Some(turn) => write!(formatter, " turn {}", turn + 1)?,
            None => write!(formatter, " no turn")?,
        }
        match self.status {
            Some(status) => write!(formatter, " {status} {:?}", self.outcome),
            None => write!(formatter, " no answer {:?}", self.outcome),
        }
    }
}

/// As the line: neither credentials nor 50 kB of body in a failed test's output.
impl fmt::Debug for Recorded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// All requests so far.
pub(crate) struct Records {
    started: Instant,
    list: Mutex<Vec<Recorded>>,
    pub(crate) changed: Notify,
    on_end: Option<OnEnd>,
}

/// Told of each answer that has ended.
pub type OnEnd = Arc<dyn Fn(&Recorded) + Send + Sync>;

impl Records {
    pub(crate) fn new(on_end: Option<OnEnd>) -> Self {
        Self {
            started: Instant::now(),
            list: Mutex::new(Vec::new()),
            changed: Notify::new(),
            on_end,
        }
    }

    pub(crate) fn list(&self) -> MutexGuard<'_, Vec<Recorded>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a request; the tracker follows its answer.
    pub(crate) fn add(self: &Arc<Self>, mut recorded: Recorded) -> Tracker {
        let mut list = self.list();
        recorded.number = list.len() + 1;
        recorded.after = self.started.elapsed();
        let index = list.len();
        list.push(recorded);
        drop(list);
        self.changed.notify_waiters();
        Tracker {
            records: Arc::clone(self),
            index,
        }
    }
}

/// Follows one answer. Dropped before its end, the client has left.
pub(crate) struct Tracker {
    records: Arc<Records>,
    index: usize,
}

impl Tracker {
    pub(crate) fn number(&self) -> usize {
        self.index + 1
    }

    pub(crate) fn note(&self, note: impl FnOnce(&mut Recorded)) {
        if let Some(recorded) = self.records.list().get_mut(self.index) {
            note(recorded);
        }
        self.records.changed.notify_waiters();
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        self.note(|recorded| recorded.outcome = outcome);
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.note(|recorded| {
            if recorded.outcome == Outcome::Open {
                recorded.outcome = Outcome::ClientLeft;
            }
        });
        if let Some(on_end) = &self.records.on_end {
            let recorded = self.records.list().get(self.index).cloned();
            recorded.iter().for_each(|recorded| on_end(recorded));
        }
    }
}
