//! The relay to providers, the budgets and the records of traffic: one program, for each costs the build as much as what is in it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and tells what it saw"
)]

mod answers;
mod aws;
mod budgets;
mod claude_code;
mod google;
#[path = "../../../tests/support/claude_code.rs"]
mod installed;
mod on_record;
mod providers;
mod requests;
mod rotation;
#[path = "../../../tests/support/skip.rs"]
mod skip;
mod support;
