//! Amounts of money, exactly.

use std::{
    fmt,
    ops::{AddAssign, SubAssign},
};

/// Picodollars in a microdollar. A price of one microdollar for a million tokens is one picodollar for a token.
const PICO_PER_MICRO: u64 = 1_000_000;
/// Microdollars in a dollar.
const MICRO_PER_DOLLAR: u64 = 1_000_000;
/// Decimals of a dollar that are read: microdollars.
const DECIMALS: usize = 6;

/// Dollars, counted in picodollars (10⁻¹² $), so that no token's price is ever rounded. Sums stop at the largest amount,
/// 18 million dollars, rather than begin anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usd(u64);

impl Usd {
    /// Nothing.
    pub const ZERO: Usd = Usd(0);

    /// So many picodollars.
    pub const fn from_pico(pico: u64) -> Self {
        Usd(pico)
    }

    /// So many microdollars.
    pub const fn from_micro(micro: u64) -> Self {
        Usd(micro.saturating_mul(PICO_PER_MICRO))
    }

    /// In picodollars.
    pub const fn pico(self) -> u64 {
        self.0
    }

    /// In microdollars, rounded up: what was spent is never shown as less.
    pub const fn micro_rounded_up(self) -> u64 {
        self.0.div_ceil(PICO_PER_MICRO)
    }

    /// In microdollars, rounded down: what is left is never shown as more.
    pub const fn micro_rounded_down(self) -> u64 {
        self.0 / PICO_PER_MICRO
    }

    /// So much of it is left after `spent`.
    pub const fn saturating_sub(self, spent: Usd) -> Usd {
        Usd(self.0.saturating_sub(spent.0))
    }

    /// A number of dollars as people write it, with at most six decimals: `5`, `0.25`. Nothing is rounded.
    pub fn parse(text: &str) -> Option<Self> {
        parse_micro(text).map(Usd::from_micro)
    }

    pub(crate) const fn saturating_add(self, other: Usd) -> Usd {
        Usd(self.0.saturating_add(other.0))
    }
}

/// Microdollars in a decimal number of dollars.
pub(crate) fn parse_micro(text: &str) -> Option<u64> {
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text, ""),
    };
    let digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty()
        || fraction.len() > DECIMALS
        || !digits_only(whole)
        || !digits_only(fraction)
    {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<DECIMALS$}").parse().ok()?;
    let micro = whole.parse::<u64>().ok()?.checked_mul(MICRO_PER_DOLLAR)?;
    micro.checked_add(fraction)
}

impl AddAssign for Usd {
    fn add_assign(&mut self, other: Self) {
        *self = self.saturating_add(other);
    }
}

impl SubAssign for Usd {
    fn sub_assign(&mut self, other: Self) {
        *self = self.saturating_sub(other);
    }
}

/// `$5.00`, `$0.0125`: at least two decimals, at most six, rounded up.
impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micro = self.micro_rounded_up();
        let fraction = format!("{:06}", micro % MICRO_PER_DOLLAR);
        let (cents, rest) = fraction.split_at(2);
        let rest = rest.trim_end_matches('0');
        write!(f, "${}.{cents}{rest}", micro / MICRO_PER_DOLLAR)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_read_exactly_or_not_at_all() {
        for (text, micro) in [
            ("5", 5_000_000),
            ("0.25", 250_000),
            ("0.000001", 1),
            ("0", 0),
            ("12.5", 12_500_000),
        ] {
            assert_eq!(Usd::parse(text), Some(Usd::from_micro(micro)), "{text}");
        }
        for text in [
            "",
            ".5",
            "5.",
            "-1",
            "+1",
            "1e3",
            "0.0000001",
            "1,5",
            " 1",
            "$1",
            "99999999999999999999",
        ] {
            assert_eq!(Usd::parse(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_are_shown_for_people_and_never_as_less() {
        for (pico, shown) in [
            (0, "$0.00"),
            (1, "$0.000001"),
            (5_000_000_000_000, "$5.00"),
            (12_500_000_000, "$0.0125"),
            (1_234_567_000_000, "$1.234567"),
        ] {
            assert_eq!(Usd::from_pico(pico).to_string(), shown);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(micro in 0..=10_000_000_000_u64) {
            let amount = Usd::from_micro(micro);
            prop_assert_eq!(Usd::parse(amount.to_string().trim_start_matches('$')), Some(amount));
        }
    }
}
