//! Refusals that come in floods: the first of each minute stand in the log one by one, the others are counted, so that nobody
//! fills the disk by having itself refused.

use std::{collections::HashMap, hash::Hash, time::Duration};

use policy::Moment;

/// Refusals of one caller that are written one by one within [`WINDOW`].
pub(crate) const MAX_TOLD: u64 = 30;
/// What is counted together.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// Callers that are told apart within a window; those beyond are not written one by one, and are counted together.
const MAX_KEYS: usize = 4_096;

/// How a refusal is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// By itself.
    Written,
    /// Later, with others.
    Counted {
        /// It is the first that is counted: somebody has to tell the count when the window is over.
        is_first: bool,
    },
}

/// Counts of one window.
#[derive(Debug)]
pub(crate) struct Flood<K> {
    since: Moment,
    seen: HashMap<K, u64>,
    /// Of those for whom there was no room.
    others: u64,
    is_counting: bool,
}

impl<K: Eq + Hash> Flood<K> {
    pub(crate) fn new() -> Self {
        Flood {
            since: Moment::default(),
            seen: HashMap::new(),
            others: 0,
            is_counting: false,
        }
    }

    /// One more of that key. Counts are kept until they are taken; only then does the next window begin.
    pub(crate) fn note(&mut self, key: K, now: Moment) -> Told {
        let is_over = u128::from(now.0.saturating_sub(self.since.0)) >= WINDOW.as_nanos();
        if is_over && !self.is_counting {
            self.seen.clear();
            self.since = now;
        }
        if self.seen.len() >= MAX_KEYS && !self.seen.contains_key(&key) {
            self.others += 1;
        } else {
            let seen = self.seen.entry(key).or_insert(0);
            *seen += 1;
            if *seen <= MAX_TOLD {
                return Told::Written;
            }
        }
        let is_first = !self.is_counting;
        self.is_counting = true;
        Told::Counted { is_first }
    }

    /// What was counted and not written, by key; and of all others together.
    pub(crate) fn take(&mut self) -> (Vec<(K, u64)>, u64) {
        self.is_counting = false;
        let counted = std::mem::take(&mut self.seen)
            .into_iter()
            .filter(|(_, seen)| *seen > MAX_TOLD)
            .map(|(key, seen)| (key, seen - MAX_TOLD))
            .collect();
        (counted, std::mem::take(&mut self.others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_written_and_the_others_counted_until_they_are_told() {
        let mut flood = Flood::new();
        for _ in 0..MAX_TOLD {
            assert_eq!(flood.note("a", Moment(0)), Told::Written);
        }
        assert_eq!(flood.note("a", Moment(0)), Told::Counted { is_first: true });
        assert_eq!(
            flood.note("a", Moment(0)),
            Told::Counted { is_first: false }
        );
        assert_eq!(flood.note("b", Moment(0)), Told::Written, "another caller");
        assert_eq!(flood.take(), (vec![("a", 2)], 0));
        assert_eq!(flood.note("a", Moment(0)), Told::Written, "the next window");
        assert_eq!(flood.take(), (vec![], 0));
    }

    #[test]
    fn a_new_minute_begins_anew() {
        let mut flood = Flood::new();
        let minute = u64::try_from(WINDOW.as_nanos()).unwrap();
        for at in 0..4 {
            for _ in 0..MAX_TOLD {
                assert_eq!(flood.note((), Moment(at * minute)), Told::Written);
            }
        }
    }

    #[test]
    fn a_hundred_thousand_callers_are_counted_in_bounded_room() {
        let mut flood = Flood::new();
        for caller in 0..100_000_u32 {
            flood.note(caller, Moment(0));
        }
        assert_eq!(flood.seen.len(), MAX_KEYS);
        assert_eq!(flood.take().1, 100_000 - MAX_KEYS as u64);
    }
}
