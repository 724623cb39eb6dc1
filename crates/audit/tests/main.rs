//! The audit log from outside: one program, for each costs the build as much as what is in it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and tells what it saw"
)]

mod common;
mod export;
mod faults;
mod injected;
#[path = "../../../tests/support/json_schema.rs"]
mod json_schema;
mod keys;
mod records;
mod recovery;
mod rotation;
mod schema;
mod sinks;
#[path = "../../../tests/support/skip.rs"]
mod skip;
mod tamper;
#[path = "ocsf/validator.rs"]
mod validator;
