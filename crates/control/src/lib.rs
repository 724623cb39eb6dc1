//! The one road: every call, from whichever door, passes [`Road::handle`].

#![forbid(unsafe_code)]

use async_trait::async_trait;
use model::{Call, Outcome, Refusal};

/// What a door knows of the house: one way in. Doors are tested against a scripted road.
#[async_trait]
pub trait Road: Send + Sync + 'static {
    /// Carries out one call, or says why not. Cancel-safe for the caller: dropping the future ends the wait, never the
    /// work.
    async fn handle(&self, call: Call) -> Result<Outcome, Refusal>;
}
