//! User journeys through the real binary.

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod crash;
mod fronts;
mod journey;
