//! How much, and with which dice.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::skip;

/// Failures after which a run ends: by then something is broken, not rare.
const ENOUGH_FAILURES: usize = 5;

/// One run: its name, its seed, and what went wrong so far.
pub struct Plan {
    name: &'static str,
    seed: u64,
    failures: Vec<String>,
}

impl Plan {
    /// The run, unless it is not asked for.
    pub fn begin(name: &'static str) -> Option<Self> {
        if std::env::var_os("SOAK").is_none_or(|asked| asked != "1") {
            skip("soak", &format!("{name}: set SOAK=1 (scripts/soak)"));
            return None;
        }
        let seed = number("SOAK_SEED").unwrap_or_else(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |now| now.as_secs())
        });
        eprintln!("soak {name}: SOAK_SEED={seed}");
        Some(Plan {
            name,
            seed,
            failures: Vec::new(),
        })
    }

    /// Numbers of the rounds to run: all, or the one that is asked for.
    pub fn rounds(&self, count: u64) -> Vec<u64> {
        number("SOAK_ROUND").map_or_else(|| (0..count).collect(), |round| vec![round])
    }

    /// The dice of one round, independent of the rounds before it.
    pub fn dice(&self, round: u64) -> Dice {
        Dice(self.seed.wrapping_mul(1_000_003).wrapping_add(round))
    }

    /// Notes how a round went. True when the run has to end.
    pub fn note(&mut self, round: u64, result: Result<(), String>) -> bool {
        if let Err(why) = result {
            let failure = format!(
                "{} (SOAK_SEED={} SOAK_ROUND={round}): {why}",
                self.name, self.seed
            );
            eprintln!("FAILED {failure}");
            self.failures.push(failure);
        }
        self.failures.len() >= ENOUGH_FAILURES
    }

    /// The end.
    ///
    /// # Panics
    /// When a round has failed.
    pub fn finish(self, done: u64) {
        eprintln!(
            "soak {}: {done} rounds, {} failed",
            self.name,
            self.failures.len()
        );
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
    }
}

/// A count, times `SOAK_SCALE`.
pub fn scaled(count: u64) -> u64 {
    let scale: f64 = std::env::var("SOAK_SCALE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1.0);
    ((count as f64 * scale) as u64).max(1)
}

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Random numbers that a seed repeats (Steele, Lea, Flood: splitmix64).
pub struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below a bound, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One time in so many.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A time up to `2^bits` microseconds, short ones as likely as long ones: what happens early is over fast.
    pub fn delay(&mut self, bits: u64) -> std::time::Duration {
        let most = 1_u64 << (self.below(bits) + 1);
        std::time::Duration::from_micros(self.below(most))
    }
}
