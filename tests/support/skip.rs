//! How a leg of the tests is left out: loudly, counted by `scripts/test`, and not at all where `REQUIRE` names it.
#![allow(
    clippy::panic,
    clippy::print_stderr,
    reason = "a required leg that is missing fails by panicking, any other is told by standard error"
)]

use std::{fs, io::Write};

/// Reports a leg that cannot run here. Legs: `root`, `unprivileged`, `subordinate-ids`, `strace`, `python`, `inspector`, …
///
/// # Panics
/// When `REQUIRE`, a list with commas, names the leg.
pub fn skip(leg: &str, why: &str) {
    let required = std::env::var("REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name == leg),
        "the leg {leg} is required: {why}"
    );
    eprintln!("SKIPPED {leg}: {why}");
    // One short write, so that lines of parallel tests do not mix.
    if let Some(log) = std::env::var_os("SKIP_LOG")
        && let Ok(mut log) = fs::OpenOptions::new().create(true).append(true).open(log)
    {
        let _ = log.write_all(format!("{leg}: {why}\n").as_bytes());
    }
}
