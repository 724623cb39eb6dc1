//! One change of a sandbox at a time: creating and destroying one never overlap.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use model::SessionId;
use tokio::sync::OwnedMutexGuard;

/// Sessions that somebody changes, or waits to.
#[derive(Default)]
pub(crate) struct Turns(Mutex<BTreeMap<SessionId, Weak<tokio::sync::Mutex<()>>>>);

/// Its turn ends with it.
pub(crate) type Turn = OwnedMutexGuard<()>;

impl Turns {
    /// Waits until nobody else changes that session.
    pub async fn take(&self, session: SessionId) -> Turn {
        let place = self.place(session);
        place.lock_owned().await
    }

    fn place(&self, session: SessionId) -> Arc<tokio::sync::Mutex<()>> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, place| place.strong_count() > 0);
        if let Some(place) = places.get(&session).and_then(Weak::upgrade) {
            return place;
        }
        let place = Arc::default();
        places.insert(session, Arc::downgrade(&place));
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_session_waits_and_another_does_not() {
        let turns = Turns::default();
        let (one, other) = (
            SessionId::from_bytes([1; 16]),
            SessionId::from_bytes([2; 16]),
        );
        let first = turns.take(one).await;
        drop(turns.take(other).await);
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), turns.take(one));
        assert!(waiting.await.is_err());
        drop(first);
        drop(turns.take(one).await);
    }
}
