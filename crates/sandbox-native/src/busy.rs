//! One change of a sandbox at a time.

use std::{
    collections::BTreeSet,
    sync::{Condvar, Mutex, PoisonError},
};

use model::SessionId;

/// Sessions that a verb is changing right now: creating and destroying one never overlap.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    sessions: Mutex<BTreeSet<SessionId>>,
    changed: Condvar,
}

impl Busy {
    /// Waits until nobody else changes that session. Blocks the thread.
    pub fn enter(&self, session: SessionId) -> BusyGuard<'_> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        while !sessions.insert(session) {
            sessions = self
                .changed
                .wait(sessions)
                .unwrap_or_else(PoisonError::into_inner);
        }
        BusyGuard {
            busy: self,
            session,
        }
    }
}

/// The change ends with it.
pub(crate) struct BusyGuard<'busy> {
    busy: &'busy Busy,
    session: SessionId,
}

impl Drop for BusyGuard<'_> {
    fn drop(&mut self) {
        self.busy
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.session);
        self.busy.changed.notify_all();
    }
}
