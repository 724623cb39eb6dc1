//! User journeys through the real binary.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells by standard error"
)]

#[path = "../../crates/sandbox-docker/tests/support/base.rs"]
mod base;
#[path = "../support/mod.rs"]
mod support;

mod agent;
mod bad_input;
mod budgets;
mod claude_client;
mod clients;
mod compose;
mod configuration;
mod crash;
mod docker;
mod engine_faults;
mod engines;
mod first_steps;
mod fronts;
mod guest_kernel;
mod guide;
mod hostile_options;
mod http;
mod http_crash;
mod http_load;
mod images;
mod journey;
mod keys;
mod limits;
mod network;
mod operations;
mod own_engine;
mod permissions;
mod probes;
mod prompt_cli;
mod prompts;
mod sinks;
mod wishes;

use support::image;
