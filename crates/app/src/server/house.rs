//! What the server needs of the house behind it: one road, a count, an end.

use std::sync::Arc;

use async_trait::async_trait;
use control::Road;

/// The house behind the doors, built by [`crate::wiring::build`].
#[async_trait]
pub trait House: Send + Sync + 'static {
    /// The one road that every call passes.
    fn road(&self) -> Arc<dyn Road>;

    /// Somebody from elsewhere has a key that is good.
    fn has_keys(&self) -> bool;

    /// Sessions that hold a place among `MAX_CONCURRENT_SESSIONS`. A server with one does not end for being idle.
    async fn live_sessions(&self) -> u32;

    /// Stops what runs in this process. Sessions live on; their lease decides. Bounded by the caller.
    async fn shutdown(&self);
}
