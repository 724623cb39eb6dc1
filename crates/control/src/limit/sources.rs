//! Failures to say who one is, by the place they come from: after some the place is not listened to for a second, and twice as
//! long after each further one, up to five minutes.
//!
//! Whoever shares the place with an attacker is not locked out: credentials that were right from there lately are looked at all
//! the same. Others have to wait as long as the attacker goes on, five minutes at a time at most. What this does not stop: an attacker
//! with very many addresses; keys are long enough that guessing is hopeless anyway, and what is bounded here is work and log.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::Mutex,
};

use model::{Reason, Refusal, Source, Transport};
use policy::Moment;
use tokio::time::Instant;

use super::lock;

/// Failures that nothing comes of: people mistype, and rotate keys.
const FREE_FAILURES: u32 = 10;
/// The first time without being listened to, nanoseconds: a second.
const FIRST_PAUSE_NS: u64 = 1_000_000_000;
/// The longest: five minutes.
const LONGEST_PAUSE_NS: u64 = 300 * FIRST_PAUSE_NS;
/// After that long without a failure one is forgotten: a minute.
const FORGIVEN_EACH_NS: u64 = 60 * FIRST_PAUSE_NS;
/// Failures beyond which counting makes no difference.
const MOST_FAILURES: u32 = FREE_FAILURES + 16;
/// Places that are known, a megabyte.
const MAX_PLACES: usize = 16_384;
/// Credentials that are known to be right, half a megabyte.
const MAX_KNOWN: usize = 8_192;

/// Where somebody calls from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// An address; of IPv6 the network of 64 bits, which is what one subscriber has.
    Address(IpAddr),
    /// Those who have no address share one place for each way in.
    Way(Transport),
}

/// Stands for credentials, and tells nothing of them: a hash under a key of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint(u64);

/// Who failed lately, and who did not.
#[derive(Debug)]
pub(crate) struct Sources {
    began: Instant,
    hashing: RandomState,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    places: HashMap<Place, Failures>,
    known: HashMap<(Place, Fingerprint), Moment>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Moment,
    deaf_until: Moment,
}

impl Default for Sources {
    fn default() -> Self {
        Sources {
            began: Instant::now(),
            hashing: RandomState::new(),
            table: Mutex::default(),
        }
    }
}

impl Sources {
    pub(crate) fn fingerprint(&self, credentials: &[u8]) -> Fingerprint {
        Fingerprint(self.hashing.hash_one(credentials))
    }

    /// Whether credentials from there are looked at now.
    ///
    /// # Errors
    /// `rate_limited`, with the time after which they are.
    pub(crate) fn check(
        &self,
        source: &Source,
        credentials: Option<Fingerprint>,
    ) -> Result<(), Refusal> {
        let (place, now) = (place(source), self.now());
        let table = lock(&self.table);
        let Some(failures) = table.places.get(&place).filter(|it| now < it.deaf_until) else {
            return Ok(());
        };
        if credentials.is_some_and(|it| table.known.contains_key(&(place, it))) {
            return Ok(());
        }
        let left = failures.deaf_until.0 - now.0;
        Err(Refusal::new(
            Reason::RateLimited,
            "Too many failures to authenticate came from this address.",
            "Check the key or token, and wait for the time that is told before the next try.",
        )
        .retry_after_ms(left.div_ceil(1_000_000)))
    }

    /// They were wrong.
    pub(crate) fn failed(&self, source: &Source, credentials: Option<Fingerprint>) {
        let (place, now) = (place(source), self.now());
        let mut table = lock(&self.table);
        if let Some(credentials) = credentials {
            table.known.remove(&(place, credentials));
        }
        table.make_room(place, now);
        let failures = table.places.entry(place).or_insert(Failures {
            count: 0,
            last: now,
            deaf_until: now,
        });
        failures.count = (failures.left(now) + 1).min(MOST_FAILURES);
        failures.last = failures.last.max(now);
        if let Some(doublings) = failures.count.checked_sub(FREE_FAILURES + 1) {
            let pause = (FIRST_PAUSE_NS << doublings).min(LONGEST_PAUSE_NS);
            failures.deaf_until = failures.deaf_until.max(Moment(now.0.saturating_add(pause)));
        }
    }

    fn now(&self) -> Moment {
        let since = self.began.elapsed().as_nanos();
        Moment(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// They were right.
    pub(crate) fn succeeded(&self, source: &Source, credentials: Fingerprint) {
        let (key, now) = ((place(source), credentials), self.now());
        let mut table = lock(&self.table);
        if table.known.len() >= MAX_KNOWN && !table.known.contains_key(&key) {
            keep_latest(&mut table.known, |last| *last, MAX_KNOWN);
        }
        table.known.insert(key, now);
    }
}

impl Failures {
    /// Those that are not forgiven yet.
    const fn left(&self, now: Moment) -> u32 {
        let since = if self.last.0 > self.deaf_until.0 {
            self.last.0
        } else {
            self.deaf_until.0
        };
        let forgiven = now.0.saturating_sub(since) / FORGIVEN_EACH_NS;
        if forgiven >= self.count as u64 {
            0
        } else {
            self.count - forgiven as u32
        }
    }
}

impl Table {
    /// Those whose failures are forgiven go first, then those who are listened to again soonest.
    fn make_room(&mut self, newcomer: Place, now: Moment) {
        if self.places.len() < MAX_PLACES || self.places.contains_key(&newcomer) {
            return;
        }
        self.places.retain(|_, failures| failures.left(now) > 0);
        if self.places.len() >= MAX_PLACES {
            keep_latest(&mut self.places, |it| it.deaf_until, MAX_PLACES);
        }
    }
}

/// Makes room for an eighth, so that a table that stays full is not gone through for each newcomer.
fn keep_latest<K: Eq + std::hash::Hash, V>(
    table: &mut HashMap<K, V>,
    last: impl Fn(&V) -> Moment,
    room: usize,
) {
    let leave = room - (room / 8).max(1);
    let Some(mut excess) = table.len().checked_sub(leave).filter(|excess| *excess > 0) else {
        return;
    };
    let mut times: Vec<Moment> = table.values().map(&last).collect();
    let (_, border, _) = times.select_nth_unstable(excess - 1);
    let border = *border;
    table.retain(|_, value| {
        let goes = excess > 0 && last(value) <= border;
        excess -= usize::from(goes);
        !goes
    });
}

fn place(source: &Source) -> Place {
    match source.address.map(|address| address.to_canonical()) {
        None => Place::Way(source.transport),
        Some(IpAddr::V4(address)) => Place::Address(IpAddr::V4(address)),
        Some(IpAddr::V6(address)) => {
            let network = address.to_bits() & (u128::MAX << 64);
            Place::Address(IpAddr::V6(Ipv6Addr::from_bits(network)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    const HOME: Source = from(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));

    const fn from(address: IpAddr) -> Source {
        Source {
            transport: Transport::Http,
            address: Some(address),
        }
    }

    fn at(address: &str) -> Source {
        from(address.parse().unwrap())
    }

    fn waits(sources: &Sources, source: &Source) -> Option<u64> {
        sources.check(source, None).err().map(|refusal| {
            assert_eq!(refusal.reason, Reason::RateLimited);
            refusal.retry_after_ms.unwrap()
        })
    }

    fn fail(sources: &Sources, source: &Source, times: u32) {
        for _ in 0..times {
            sources.failed(source, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_some_failures_a_place_is_not_listened_to_and_longer_each_time() {
        let sources = Sources::default();
        fail(&sources, &HOME, FREE_FAILURES);
        assert_eq!(waits(&sources, &HOME), None, "people mistype");
        for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            fail(&sources, &HOME, 1);
            assert_eq!(waits(&sources, &HOME), Some(pause * 1_000));
            tokio::time::advance(Duration::from_millis(pause * 1_000 - 1)).await;
            assert!(waits(&sources, &HOME).is_some());
            tokio::time::advance(Duration::from_millis(1)).await;
            let told = waits(&sources, &HOME);
            assert_eq!(told, None, "a try after the told time is looked at");
        }
        // Quiet for as many minutes as there are failures, it is as one that never failed.
        tokio::time::advance(Duration::from_secs(60 * u64::from(MOST_FAILURES))).await;
        fail(&sources, &HOME, FREE_FAILURES);
        assert_eq!(waits(&sources, &HOME), None);
    }

    #[tokio::test(start_paused = true)]
    async fn other_places_are_listened_to_and_networks_of_ipv6_are_one_place() {
        let sources = Sources::default();
        fail(&sources, &at("2001:db8:0:1::1"), 11);
        assert!(waits(&sources, &at("2001:db8:0:1:ffff::9")).is_some());
        assert!(waits(&sources, &at("2001:db8:0:2::1")).is_none());
        fail(&sources, &at("::ffff:192.0.2.1"), 11);
        let told = waits(&sources, &HOME);
        assert!(told.is_some(), "the same address in other words");
        assert!(waits(&sources, &at("192.0.2.2")).is_none());
        let way = |transport| Source {
            transport,
            address: None,
        };
        fail(&sources, &way(Transport::HttpUnix), 11);
        assert!(waits(&sources, &way(Transport::HttpUnix)).is_some());
        assert!(
            waits(&sources, &way(Transport::Http)).is_none(),
            "another way in"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_right_from_a_place_goes_on_there_while_an_attacker_fails_beside_it() {
        let sources = Sources::default();
        let good = sources.fingerprint(b"good");
        sources.succeeded(&HOME, good);
        fail(&sources, &HOME, 12);
        assert!(sources.check(&HOME, Some(good)).is_ok());
        let guess = sources.fingerprint(b"guess");
        assert!(sources.check(&HOME, Some(guess)).is_err());
        let elsewhere = at("127.0.0.1");
        fail(&sources, &elsewhere, 12);
        assert!(
            sources.check(&elsewhere, Some(good)).is_err(),
            "from there alone"
        );
        // Once it is wrong (revoked) it is as any other.
        sources.failed(&HOME, Some(good));
        assert!(sources.check(&HOME, Some(good)).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_thousand_addresses_take_bounded_room_and_the_worst_is_known_longest() {
        let sources = Sources::default();
        fail(&sources, &HOME, 20);
        for number in 0..100_000_u32 {
            let source = from(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number)));
            fail(&sources, &source, 1);
            sources.succeeded(&source, sources.fingerprint(&number.to_le_bytes()));
        }
        let table = lock(&sources.table);
        assert!(table.places.len() <= MAX_PLACES && table.known.len() <= MAX_KNOWN);
        drop(table);
        assert!(waits(&sources, &HOME).is_some());
    }
}
