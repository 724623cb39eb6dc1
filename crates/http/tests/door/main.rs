//! The HTTP door from outside (S1, P2a, P2c): real sockets, a scripted road behind it. One module for each kind of question.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod checks;
mod conformance;
mod connections;
mod fixtures;
mod issuer;
mod leaving;
mod outage;
#[path = "../../../../tests/support/skip.rs"]
mod skip;
mod support;
mod tokens;
mod transport;
