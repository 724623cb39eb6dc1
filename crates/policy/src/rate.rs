//! How often something may happen: the generic cell rate algorithm (ITU-T I.371, annex A), a token bucket that is one
//! number. In any window of length `t` no more than the burst and what `t` refills is admitted. Time is given, never looked at,
//! so that the same is true of every clock: one that jumps back mints nothing, since a bucket never gets older.
//!
//! What holds many buckets at once ([`Buckets`]) is bounded: a full bucket is as good as none and is let go of first.

use std::{collections::HashMap, hash::Hash, num::NonZeroU32};

/// Nanoseconds of a minute, the unit in which rates are configured.
const MINUTE_NS: u64 = 60_000_000_000;

/// So many a minute, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_minute: NonZeroU32,
    burst: NonZeroU32,
}

/// Nanoseconds since some moment that the holder of the clock chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

/// One bucket: when it will be full again (the theoretical arrival time of the algorithm).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    full_at: Moment,
}

/// How a bucket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// How many may come at once when it is full.
    pub limit: u32,
    /// How many may come at once now.
    pub remaining: u32,
    /// Until it is full, nanoseconds.
    pub full_in_ns: u64,
}

/// Too early, by so many nanoseconds: a try after that passes, where nobody else takes from the bucket meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TooEarly(pub u64);

impl TooEarly {
    /// As milliseconds, rounded up, so that a try after them is not too early.
    pub const fn milliseconds(self) -> u64 {
        self.0.div_ceil(1_000_000)
    }
}

impl Rate {
    /// `None` where one of them is nothing.
    pub const fn new(per_minute: u32, burst: u32) -> Option<Self> {
        match (NonZeroU32::new(per_minute), NonZeroU32::new(burst)) {
            (Some(per_minute), Some(burst)) => Some(Rate { per_minute, burst }),
            (None, _) | (_, None) => None,
        }
    }

    /// How many a minute.
    pub const fn per_minute(self) -> u32 {
        self.per_minute.get()
    }

    /// How many at once.
    pub const fn burst(self) -> u32 {
        self.burst.get()
    }

    /// The same with no more a minute than that; nor then at once.
    #[must_use]
    pub fn at_most(self, per_minute: NonZeroU32) -> Self {
        Rate {
            per_minute: self.per_minute.min(per_minute),
            burst: self.burst.min(per_minute),
        }
    }

    /// Between two at the steady rate; rounded up, so that rounding never admits more.
    const fn interval_ns(self) -> u64 {
        MINUTE_NS.div_ceil(self.per_minute.get() as u64)
    }

    /// How far a bucket may be from full for one more to come: all but one are gone.
    const fn tolerance_ns(self) -> u64 {
        (self.burst.get() as u64 - 1) * self.interval_ns()
    }

    /// Until an empty bucket is full, whole seconds, rounded up.
    pub const fn window_seconds(self) -> u64 {
        (self.burst.get() as u64 * self.interval_ns()).div_ceil(1_000_000_000)
    }
}

impl Bucket {
    /// Whether one more may come now. Changes nothing.
    ///
    /// # Errors
    /// [`TooEarly`], with the time until it may.
    pub const fn check(self, rate: Rate, now: Moment) -> Result<(), TooEarly> {
        let from = self.full_at.0.saturating_sub(rate.tolerance_ns());
        if now.0 >= from {
            Ok(())
        } else {
            Err(TooEarly(from - now.0))
        }
    }

    /// Takes one, whether or not it may come: [`Bucket::check`] first.
    pub fn take(&mut self, rate: Rate, now: Moment) {
        let from = self.full_at.max(now);
        self.full_at = Moment(from.0.saturating_add(rate.interval_ns()));
    }

    /// How it stands.
    pub fn fill(self, rate: Rate, now: Moment) -> Fill {
        let full_in_ns = self.full_at.0.saturating_sub(now.0);
        let missing = full_in_ns.div_ceil(rate.interval_ns());
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        Fill {
            limit: rate.burst(),
            remaining: rate.burst().saturating_sub(missing),
            full_in_ns,
        }
    }

    const fn is_full(self, now: Moment) -> bool {
        self.full_at.0 <= now.0
    }
}

/// Many buckets, of which as many are held as have room.
///
/// Where there are more at one time that are not full, those that are nearest to full are forgotten, which gives them back
/// what they had spent: the least that can be given.
#[derive(Debug)]
pub struct Buckets<K> {
    buckets: HashMap<K, Bucket>,
    room: usize,
    latest: Moment,
}

impl<K: Eq + Hash + Clone> Buckets<K> {
    /// As many buckets as that at most.
    pub fn new(room: usize) -> Self {
        Buckets {
            buckets: HashMap::new(),
            room: room.max(1),
            latest: Moment::default(),
        }
    }

    /// Takes one from each of these buckets, or from none.
    ///
    /// # Errors
    /// The longest of the waits, and to which of them it belongs.
    pub fn take_all(&mut self, wanted: &[(K, Rate)], now: Moment) -> Result<(), (usize, TooEarly)> {
        let now = self.at_least(now);
        let mut longest: Option<(usize, TooEarly)> = None;
        for (index, (key, rate)) in wanted.iter().enumerate() {
            if let Err(early) = self.bucket(key).check(*rate, now)
                && longest.is_none_or(|(_, known)| early > known)
            {
                longest = Some((index, early));
            }
        }
        if let Some(longest) = longest {
            return Err(longest);
        }
        for (key, rate) in wanted {
            self.make_room(key, now);
            self.buckets
                .entry(key.clone())
                .or_default()
                .take(*rate, now);
        }
        Ok(())
    }

    /// How one stands.
    pub fn fill(&self, key: &K, rate: Rate, now: Moment) -> Fill {
        self.bucket(key).fill(rate, now.max(self.latest))
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// None is held.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    fn bucket(&self, key: &K) -> Bucket {
        self.buckets.get(key).copied().unwrap_or_default()
    }

    /// A clock that jumps back stands still until it is where it was.
    fn at_least(&mut self, now: Moment) -> Moment {
        self.latest = self.latest.max(now);
        self.latest
    }

    fn make_room(&mut self, key: &K, now: Moment) {
        if self.buckets.len() < self.room || self.buckets.contains_key(key) {
            return;
        }
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
        // An eighth at once, so that a table that stays full is not gone through for each newcomer.
        let leave = self.room - (self.room / 8).max(1);
        if self.buckets.len() > leave {
            let mut ends: Vec<Moment> =
                self.buckets.values().map(|bucket| bucket.full_at).collect();
            let excess = self.buckets.len() - leave;
            let (_, last_to_go, _) = ends.select_nth_unstable(excess - 1);
            let (last_to_go, mut excess) = (*last_to_go, excess);
            self.buckets.retain(|_, bucket| {
                let goes = excess > 0 && bucket.full_at <= last_to_go;
                excess -= usize::from(goes);
                !goes
            });
        }
    }
}
