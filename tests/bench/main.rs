//! The promised numbers, measured in one run and interleaved with their peers. `scripts/bench` runs it; never part of
//! `scripts/test`, since a loaded machine would decide there.
//!
//! `BENCH_ONLY=speed,docker,crowd,audit,files,proxy,http,size` measures a part, `BENCH_SAMPLES=40` is the number of sessions of each user,
//! `BENCH_JSON` the file for the rows.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that measures reports to a person and has nothing to recover"
)]

#[path = "../support/mod.rs"]
mod support;

mod audit_log;
mod crowd;
mod engine;
mod files;
mod host;
mod http;
mod peers;
mod proxy;
mod report;
mod size;
mod speed;

use std::{path::PathBuf, process::ExitCode};

use report::Report;

/// Measures one part.
type Measure = fn(&mut Report);

/// The parts by name. The quiet ones first: a crowd leaves the caches cold.
const PARTS: &[(&str, Measure)] = &[
    ("size", size::measure),
    ("speed", speed::measure),
    ("docker", engine::measure),
    ("audit", audit_log::measure),
    ("files", files::measure),
    ("proxy", proxy::measure),
    ("http", http::measure),
    ("crowd", crowd::measure),
];

fn main() -> ExitCode {
    // `cargo test --all-targets` runs benches, too, without this flag.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("SKIPPED bench: run scripts/bench");
        return ExitCode::SUCCESS;
    }
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let mut report = Report::new();
    for (name, measure) in PARTS {
        if only.is_empty() || only.split(',').any(|part| part == *name) {
            eprintln!("measuring: {name}");
            measure(&mut report);
        }
    }
    let json = std::env::var_os("BENCH_JSON").map(PathBuf::from);
    report.finish(json.as_deref())
}

/// A number from the environment.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
