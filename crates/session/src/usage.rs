//! Puts on record what sessions use of their providers: by a thread of its own, so that no request waits for the disk, and
//! all that came meanwhile at once, at most twenty times a second.
//!
//! A server that is killed loses what was under way, and what ended within the last [`PAUSE`].

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, SystemTime},
};

use egress::{Keep, Ledger, Settled, Tokens, Usd, Used, UsedBefore};
use model::SessionId;
use store::{DayRecord, Store, StoreError, USAGE_DAYS_KEPT, UsageRecord};

use crate::sessions::lock;

/// Between two writes.
const PAUSE: Duration = Duration::from_millis(50);
/// After a write that failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Days before today that a new server reads: for a clock that is set back.
const DAYS_READ: u64 = 2;

/// Why what was used cannot be put on record.
#[derive(Debug, thiserror::Error)]
pub enum UsageBookError {
    /// What was used before cannot be read.
    #[error("what was used before cannot be read")]
    Store(#[from] StoreError),
    /// There is no thread for it.
    #[error("no thread to write down what is used")]
    Thread(#[source] io::Error),
}

/// See the module. Dropping it lets its thread write the rest and end.
pub struct UsageBook(Arc<Shared>);

struct Shared {
    store: Store,
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    sessions: HashMap<SessionId, Used>,
    days: HashMap<(u64, String), Used>,
    /// What was taken out is not on record yet.
    is_writing: bool,
    /// Somebody waits for it.
    is_urgent: bool,
    is_closed: bool,
}

impl UsageBook {
    /// Begins to write, and reads what callers have used today and just before; forgets days that are long over.
    ///
    /// # Errors
    /// When the store fails, or there is no thread.
    pub fn open(store: &Store) -> Result<(Arc<Self>, Vec<UsedBefore>), UsageBookError> {
        let today = Ledger::day_of(SystemTime::now());
        store.purge_usage_before(today.saturating_sub(USAGE_DAYS_KEPT))?;
        let used_before = store
            .daily_usage_since(today.saturating_sub(DAYS_READ))?
            .into_iter()
            .map(|record| UsedBefore {
                day: record.day,
                caller: record.caller,
                used: used(&record.usage),
            })
            .collect();
        let shared = Arc::new(Shared {
            store: store.clone(),
            pending: Mutex::default(),
            changed: Condvar::new(),
        });
        let writer = shared.clone();
        std::thread::Builder::new()
            .name("usage".to_owned())
            .spawn(move || writer.write_on())
            .map_err(UsageBookError::Thread)?;
        Ok((Arc::new(UsageBook(shared)), used_before))
    }

    /// Waits until all that was used until now is on record, at most that long. Whether it is.
    pub fn flush(&self, patience: Duration) -> bool {
        let mut pending = lock(&self.0.pending);
        pending.is_urgent = true;
        self.0.changed.notify_all();
        let waited = self
            .0
            .changed
            .wait_timeout_while(pending, patience, |pending| !pending.is_on_record());
        waited.is_ok_and(|(pending, _)| pending.is_on_record())
    }
}

impl Keep for UsageBook {
    fn settled(&self, settled: &Settled) {
        let mut pending = lock(&self.0.pending);
        *pending.sessions.entry(settled.session).or_default() += settled.used;
        let day = (settled.day, settled.caller.clone());
        *pending.days.entry(day).or_default() += settled.used;
        self.0.changed.notify_all();
    }
}

impl Drop for UsageBook {
    fn drop(&mut self) {
        lock(&self.0.pending).is_closed = true;
        self.0.changed.notify_all();
    }
}

impl Pending {
    fn is_on_record(&self) -> bool {
        !self.is_writing && self.sessions.is_empty() && self.days.is_empty()
    }
}

impl Shared {
    fn write_on(&self) {
        while let Some((sessions, days)) = self.next() {
            let written = self.write(&sessions, &days);
            let mut pending = lock(&self.pending);
            pending.is_writing = false;
            let pause = match written {
                Ok(()) => PAUSE,
                Err(error) => {
                    tracing::error!(%error, "what was used of model providers is not on record yet");
                    if pending.is_closed {
                        return;
                    }
                    // Nothing is lost: what comes meanwhile is added to it.
                    for (session, used) in sessions {
                        *pending.sessions.entry(session).or_default() += used;
                    }
                    for (day, used) in days {
                        *pending.days.entry(day).or_default() += used;
                    }
                    PAUSE_AFTER_FAILURE
                }
            };
            self.changed.notify_all();
            let waits = |pending: &mut Pending| !pending.is_urgent && !pending.is_closed;
            // A poisoned lock pauses no longer; the next turn takes it all the same.
            drop(self.changed.wait_timeout_while(pending, pause, waits));
        }
    }

    /// Takes out what is to be written, once there is something; `None`: nothing will come any more.
    #[expect(
        clippy::type_complexity,
        reason = "two maps, as they stand in `Pending`"
    )]
    fn next(&self) -> Option<(HashMap<SessionId, Used>, HashMap<(u64, String), Used>)> {
        let mut pending = lock(&self.pending);
        loop {
            if !pending.sessions.is_empty() || !pending.days.is_empty() {
                pending.is_writing = true;
                let sessions = std::mem::take(&mut pending.sessions);
                return Some((sessions, std::mem::take(&mut pending.days)));
            }
            pending.is_urgent = false;
            if pending.is_closed {
                return None;
            }
            pending = self
                .changed
                .wait(pending)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn write(
        &self,
        sessions: &HashMap<SessionId, Used>,
        days: &HashMap<(u64, String), Used>,
    ) -> Result<(), StoreError> {
        let sessions: Vec<_> = sessions
            .iter()
            .map(|(session, used)| (*session, record(used)))
            .collect();
        let days: Vec<_> = days
            .iter()
            .map(|((day, caller), used)| DayRecord {
                day: *day,
                caller: caller.clone(),
                usage: record(used),
            })
            .collect();
        self.store.add_usage(&sessions, &days)
    }
}

fn record(used: &Used) -> UsageRecord {
    UsageRecord {
        requests: used.requests,
        denied: used.denied,
        unpriced: used.unpriced,
        input_tokens: used.tokens.input,
        output_tokens: used.tokens.output,
        cache_read_tokens: used.tokens.cache_read,
        cache_write_tokens: used.tokens.cache_creation,
        cache_write_1h_tokens: used.tokens.cache_creation_1h,
        cost_pico_usd: used.cost.pico(),
        bytes_up: used.bytes_up,
        bytes_down: used.bytes_down,
    }
}

/// The same, read back.
pub(crate) fn used(record: &UsageRecord) -> Used {
    Used {
        requests: record.requests,
        denied: record.denied,
        unpriced: record.unpriced,
        tokens: Tokens {
            input: record.input_tokens,
            output: record.output_tokens,
            cache_read: record.cache_read_tokens,
            cache_creation: record.cache_write_tokens,
            cache_creation_1h: record.cache_write_1h_tokens,
        },
        cost: Usd::from_pico(record.cost_pico_usd),
        bytes_up: record.bytes_up,
        bytes_down: record.bytes_down,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn settled(caller: &str, requests: u64) -> Settled {
        Settled {
            session: SessionId::from_bytes([7; 16]),
            caller: caller.to_owned(),
            day: Ledger::day_of(SystemTime::now()),
            used: Used {
                requests,
                cost: Usd::from_micro(requests),
                ..Used::default()
            },
        }
    }

    #[test]
    fn what_is_used_is_on_record_for_the_next_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let (store, _) = Store::open(&path).unwrap();
        let (book, before) = UsageBook::open(&store).unwrap();
        assert_eq!(before, []);
        for _ in 0..1_000 {
            book.settled(&settled("uid:1", 1));
        }
        book.settled(&settled("uid:2", 5));
        assert!(book.flush(PATIENCE));
        drop((book, store));
        let (store, _) = Store::open(&path).unwrap();
        let (book, before) = UsageBook::open(&store).unwrap();
        let requests: Vec<_> = before
            .iter()
            .map(|before| (before.caller.as_str(), before.used.requests))
            .collect();
        assert_eq!(requests, [("uid:1", 1_000), ("uid:2", 5)]);
        book.settled(&settled("uid:2", 1));
        assert!(book.flush(PATIENCE));
        let days = store.daily_usage_since(0).unwrap();
        assert_eq!(days[1].usage.requests, 6);
        assert_eq!(days[1].usage.cost_pico_usd, 6_000_000);
    }

    #[test]
    fn it_writes_by_itself_and_the_rest_as_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&directory.path().join("state.db")).unwrap();
        let (book, _) = UsageBook::open(&store).unwrap();
        let requests = || {
            let days = store.daily_usage_since(0).unwrap();
            days.first().map_or(0, |day| day.usage.requests)
        };
        let reaches = |count| {
            (0..500).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                requests() == count
            })
        };
        book.settled(&settled("uid:1", 1));
        assert!(reaches(1));
        book.settled(&settled("uid:1", 1));
        drop(book);
        assert!(reaches(2));
    }
}
