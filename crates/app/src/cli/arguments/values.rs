//! How values are written on the command line.

use std::time::Duration;

use crate::config::units::{parse_cpus, parse_duration};

/// A time in which something can happen.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(time) if time.is_zero() => Err("must be longer than nothing".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    }
}

/// A time, which may be none at all.
pub(super) fn parse_any_time(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// CPUs, more than none.
pub(super) fn parse_some_cpus(text: &str) -> Result<u64, String> {
    match parse_cpus(text) {
        Ok(0) => Err("must be more than none".to_owned()),
        Ok(cpus) => Ok(cpus),
        Err(error) => Err(error.to_string()),
    }
}

/// Dollars that a prompt may cost.
pub(super) fn parse_dollars(text: &str) -> Result<f64, String> {
    const WRONG: &str = "write dollars, 0.000001 to 10000, such as 2.50";
    let dollars: f64 = text.parse().map_err(|_| WRONG.to_owned())?;
    (0.000_001..=10_000.0)
        .contains(&dollars)
        .then_some(dollars)
        .ok_or_else(|| WRONG.to_owned())
}

/// A time of the past, or how long ago it was.
pub(super) fn parse_moment(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let wrong = || "write 2026-11-22T10:00:00Z, or 90s, 15m, 2h, 1d for that long ago".to_owned();
    let ago = parse_duration(text).map_err(|_| wrong())?;
    jiff::Timestamp::now().checked_sub(ago).map_err(|_| wrong())
}
