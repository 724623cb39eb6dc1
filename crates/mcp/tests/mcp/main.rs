//! The MCP service against a scripted road: raw JSON-RPC over a pipe, in both eras.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod bad_input;
mod bad_rows;
mod client;
mod conversation;
mod listing;
mod output;
mod person;
mod remote;
mod scripted;
mod tools;
mod validate;
mod waiting;
mod wishes;
