//! Sessions on the fake backend: one program, for each costs the build as much as what is in it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and tells what it saw"
)]

mod lifecycle;
mod places;
mod restarts;
mod settings;
mod support;
mod uploads;
mod wishes;
