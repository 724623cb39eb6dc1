//! How often an execution is looked at: at once while much comes, patiently while nothing does.

use std::time::Duration;

use tokio::{sync::Notify, time::Instant};

/// How long one look at an execution waits for news. Not longer: a look that news on one stream ends leaves its wait for
/// the other stream open at the sandbox, and those are counted there.
const LOOK_WAIT: Duration = Duration::from_secs(2);
/// Shortest time between two looks that wait: a program that writes a line at a time is read in pieces of that long.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Longest pause after looks that came back early and brought nothing.
const MAX_PAUSE: Duration = Duration::from_millis(250);
/// Bytes after which more are probably there already, so that the next look does not wait at all.
const LARGE_BYTES: usize = 16 * 1024;
/// How often and how patiently the execution is looked at.
pub(super) struct Pace {
    /// When the last look that waits began.
    last: Option<Instant>,
    /// The last look brought so much that more is probably there.
    hungry: bool,
    /// Time between two looks.
    pause: Duration,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Pace {
            last: None,
            hungry: false,
            pause: LOOK_INTERVAL,
        }
    }

    /// Pauses as long as is due, and says how long the next look waits.
    pub(super) async fn next(&mut self, stirred: &Notify) -> Duration {
        if self.hungry {
            return Duration::ZERO;
        }
        if let Some(last) = self.last {
            tokio::select! {
                () = tokio::time::sleep_until(last + self.pause) => {}
                // Something was typed: an answer is near.
                () = stirred.notified() => self.pause = LOOK_INTERVAL,
            }
        }
        self.last = Some(Instant::now());
        LOOK_WAIT
    }

    /// What the last look brought.
    pub(super) fn learn(&mut self, bytes: usize) {
        self.pause = if bytes > 0 || self.hungry {
            LOOK_INTERVAL
        } else {
            (self.pause * 2).min(MAX_PAUSE)
        };
        self.hungry = bytes >= LARGE_BYTES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn looks_that_bring_nothing_become_rare_until_something_is_typed() {
        let (mut pace, stirred) = (Pace::new(), Notify::new());
        let begin = Instant::now();
        let mut looks = 0;
        while begin.elapsed() < Duration::from_secs(10) {
            assert_eq!(pace.next(&stirred).await, LOOK_WAIT);
            pace.learn(0);
            looks += 1;
        }
        assert!(
            looks < 60,
            "{looks} looks in ten seconds at an execution that only says that it has no news"
        );
        stirred.notify_one();
        let typed = Instant::now();
        pace.next(&stirred).await;
        assert!(typed.elapsed() < LOOK_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn much_output_is_read_without_a_pause_and_little_in_pieces() {
        let (mut pace, stirred) = (Pace::new(), Notify::new());
        pace.next(&stirred).await;
        pace.learn(LARGE_BYTES);
        let begin = Instant::now();
        assert_eq!(pace.next(&stirred).await, Duration::ZERO);
        assert_eq!(begin.elapsed(), Duration::ZERO);
        pace.learn(1);
        assert_eq!(pace.next(&stirred).await, LOOK_WAIT);
        assert_eq!(begin.elapsed(), LOOK_INTERVAL);
    }
}
