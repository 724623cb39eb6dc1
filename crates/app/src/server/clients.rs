//! How many clients are connected, and since when there are none.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

/// Counts clients in work. Clones share the count.
#[derive(Debug, Clone)]
pub(super) struct Clients(Arc<watch::Sender<Count>>);

#[derive(Debug, Default)]
struct Count {
    present: usize,
    closed: bool,
}

/// One client; dropping it counts it out.
#[derive(Debug)]
pub(super) struct Client(Clients);

impl Default for Clients {
    fn default() -> Self {
        Clients(Arc::new(watch::Sender::new(Count::default())))
    }
}

impl Clients {
    /// Counts a client in. `None` once closed: whoever was told that nobody is here can rely on it.
    pub(super) fn enter(&self) -> Option<Client> {
        let entered = self.0.send_if_modified(|count| {
            if !count.closed {
                count.present += 1;
            }
            !count.closed
        });
        entered.then(|| Client(self.clone()))
    }

    /// Lets nobody in any more, if nobody is here now.
    pub(super) fn close_if_empty(&self) -> bool {
        let mut empty = false;
        self.0.send_modify(|count| {
            empty = count.present == 0;
            count.closed |= empty;
        });
        empty
    }

    pub(super) fn present(&self) -> usize {
        self.0.borrow().present
    }

    /// Returns once there has been no client for that long.
    pub(super) async fn none_for(&self, duration: Duration) {
        let mut changes = self.0.subscribe();
        loop {
            // The wait can only fail when the sender is gone, and `self` holds it.
            let _ = changes
                .wait_for(|count| count.present == 0)
                .await
                .map(|_| ());
            tokio::select! {
                () = tokio::time::sleep(duration) => return,
                _ = changes.changed() => {}
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0
            .0
            .send_modify(|count| count.present = count.present.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::Clients;

    #[test]
    fn nobody_enters_after_the_last_one_closed_the_door() {
        let clients = Clients::default();
        let first = clients.enter();
        assert!(first.is_some());
        assert!(!clients.close_if_empty());
        drop(first);
        assert!(clients.enter().is_some());
        assert!(clients.close_if_empty());
        assert!(clients.enter().is_none());
    }
}
