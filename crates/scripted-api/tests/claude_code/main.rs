//! The real Claude Code CLI against the scripted API: what it makes of each answer, and what it asks by itself.
//!
//! Measured with 2.1.330. Needs the CLI (leg `agent`): see `tests/support/claude_code.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it saw"
)]

#[path = "../../../../tests/support/claude_code.rs"]
mod claude_code;
mod cli;
#[path = "../../../../tests/support/skip.rs"]
mod skip;

mod beside;
mod conversation;
mod faults;
mod providers;
