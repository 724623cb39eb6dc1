//! Where it is put on record that a prompt begins whose call may be over.

use std::sync::Arc;

use agent::Turns;
use model::SessionId;

/// Keeps the record of all sessions' prompts that had to wait.
pub trait TurnLog: Send + Sync {
    /// That of one session. `owner`: [`model::Principal::name`] of who alone gives it prompts.
    fn of(&self, session: SessionId, owner: &str) -> Arc<dyn Turns>;
}
