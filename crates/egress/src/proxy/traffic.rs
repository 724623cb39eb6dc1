//! What has passed on one connection, and when last. Whoever moves the bytes counts them as they go, so that they are known
//! however it ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// The counts of one connection.
pub(crate) struct Traffic {
    began: Instant,
    up: AtomicU64,
    down: AtomicU64,
    /// Milliseconds since it began.
    last_ms: AtomicU64,
}

/// One direction of it.
#[derive(Clone)]
pub(crate) struct Counter {
    traffic: Arc<Traffic>,
    is_up: bool,
}

impl Traffic {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Traffic {
            began: Instant::now(),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            last_ms: AtomicU64::new(0),
        })
    }

    /// From the sandbox.
    pub(crate) fn counter_up(self: &Arc<Self>) -> Counter {
        Counter {
            traffic: Arc::clone(self),
            is_up: true,
        }
    }

    /// To the sandbox.
    pub(crate) fn counter_down(self: &Arc<Self>) -> Counter {
        Counter {
            traffic: Arc::clone(self),
            is_up: false,
        }
    }

    /// Bytes from the sandbox and to it.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.up.load(Relaxed), self.down.load(Relaxed))
    }

    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// When something was moved last; the beginning, where nothing was.
    pub(crate) fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last_ms.load(Relaxed))
    }

    /// Returns once nothing has passed for that long.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let until = self.last() + limit;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Counter {
    pub(crate) fn add(&self, bytes: usize) {
        let counter = match self.is_up {
            true => &self.traffic.up,
            false => &self.traffic.down,
        };
        counter.fetch_add(bytes as u64, Relaxed);
        let now = u64::try_from(self.traffic.age().as_millis()).unwrap_or(u64::MAX);
        self.traffic.last_ms.store(now, Relaxed);
    }
}
