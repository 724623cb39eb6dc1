//! The issuer of the tests.

#[path = "../../../../tests/support/issuer.rs"]
mod shared;

pub use shared::*;
