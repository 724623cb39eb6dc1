//! What was refused inside and a person may allow: each host and port is a question of its session, open until a person
//! answers or its time is over.
//!
//! ```text
//! refused ──► open ──► allowed      a rule, which is not kept here
//!               ├────► declined     for as long as the session lives: not asked again
//!               └────► lapsed       nobody answered: asked again when it is tried again
//! ```
//!
//! What is inside chooses the names, so questions are bounded: a few at a time, and a number of them in all. Beyond that a
//! person can still allow it unasked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use model::{NetworkQuestion, NetworkTarget};
use tokio::{sync::watch, time::Instant};

/// Questions of one session that are open at once. A person reads one at a time.
const MAX_OPEN: usize = 4;
/// Questions that one session asks as long as it lives, or its server.
const MAX_ASKED: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct Wishes {
    patience: Duration,
    state: Mutex<State>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<NetworkTarget, Open>,
    declined: BTreeSet<NetworkTarget>,
    asked: usize,
}

#[derive(Debug)]
struct Open {
    /// Its place among the questions of the session.
    number: usize,
    until: Instant,
    denied_at_ms: u64,
}

/// What a person has said of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Nothing, and nobody asks them.
    Nothing,
    /// Nothing yet: the question is open.
    NothingYet,
    /// No.
    No,
}

impl Wishes {
    /// Those of a session. `patience`: how long a question is open. `declined`: what a person said no to before.
    pub fn new(patience: Duration, declined: impl IntoIterator<Item = NetworkTarget>) -> Self {
        let state = State {
            declined: declined.into_iter().collect(),
            ..State::default()
        };
        Wishes {
            patience,
            state: Mutex::new(state),
            changes: watch::Sender::new(()),
        }
    }

    /// What a person has said of it.
    pub fn said(&self, target: &NetworkTarget) -> Said {
        self.state().said(target)
    }

    /// It was refused: from now on it is a question, where there is room for one.
    pub fn ask(&self, target: &NetworkTarget) -> Said {
        let mut state = self.state();
        let said = state.said(target);
        if said != Said::Nothing {
            return said;
        }
        if state.open.len() >= MAX_OPEN || state.asked >= MAX_ASKED {
            return Said::Nothing;
        }
        state.asked += 1;
        let open = Open {
            number: state.asked,
            until: Instant::now() + self.patience,
            denied_at_ms: epoch_ms(SystemTime::now() + self.patience),
        };
        state.open.insert(target.clone(), open);
        drop(state);
        self.changes.send_replace(());
        Said::NothingYet
    }

    /// The open questions, oldest first.
    pub fn open(&self) -> Vec<NetworkQuestion> {
        let state = self.state();
        let mut open: Vec<_> = state.open.iter().collect();
        open.sort_by_key(|(_, open)| open.number);
        let question = |(target, open): (&NetworkTarget, &Open)| NetworkQuestion {
            target: target.clone(),
            denied_at_ms: open.denied_at_ms,
        };
        open.into_iter().map(question).collect()
    }

    /// Somebody waits for a person's word about it.
    pub fn is_open(&self, target: &NetworkTarget) -> bool {
        self.state().open.contains_key(target)
    }

    /// A person said no, which stands.
    pub fn decline(&self, target: NetworkTarget) {
        let mut state = self.state();
        state.open.remove(&target);
        state.declined.insert(target);
        drop(state);
        self.changes.send_replace(());
    }

    /// What is allowed by now is no question any more, nor a no.
    pub fn settle(&self, is_allowed: impl Fn(&NetworkTarget) -> bool) {
        let mut state = self.state();
        state.open.retain(|target, _| !is_allowed(target));
        state.declined.retain(|target| !is_allowed(target));
        drop(state);
        self.changes.send_replace(());
    }

    /// What a person said no to.
    pub fn declined(&self) -> BTreeSet<NetworkTarget> {
        self.state().declined.clone()
    }

    /// Waits until `reached` says so of the questions. For ever, if it never does.
    pub async fn reached(&self, reached: impl Fn(&Wishes) -> bool) {
        let mut changes = self.changes.subscribe();
        loop {
            if reached(self) {
                return;
            }
            let lapse = self.state().open.values().map(|open| open.until).min();
            let lapsed = async {
                match lapse {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender lives in `self`.
                _ = changes.changed() => {}
                () = lapsed => {}
            }
        }
    }

    /// As it stands now: without what has lapsed.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        state.open.retain(|_, open| open.until > now);
        state
    }
}

impl State {
    fn said(&self, target: &NetworkTarget) -> Said {
        match (
            self.declined.contains(target),
            self.open.contains_key(target),
        ) {
            (true, _) => Said::No,
            (false, true) => Said::NothingYet,
            (false, false) => Said::Nothing,
        }
    }
}

fn epoch_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
