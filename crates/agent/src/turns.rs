//! What is put on record of a prompt whose turn comes when the call that gave it may be over: nothing is done for it before.

use futures::future::BoxFuture;
use model::{ExecutionId, Reason, Refusal};

/// An operation on its way to the record.
pub type Beginning<'a> = BoxFuture<'a, Result<Box<dyn Operation>, Refusal>>;

/// The record of one session's prompts that had to wait.
pub trait Turns: Send + Sync {
    /// The turn of that prompt has come. The operation is on record when the answer comes; where it cannot be, the prompt fails
    /// and nothing is done for it.
    fn begin(&self, prompt: ExecutionId) -> Beginning<'_>;
}

/// The operation in which a prompt begins. Dropped, it was given up.
pub trait Operation: Send {
    /// The prompt has begun, or failed to.
    fn end(self: Box<Self>, how: Result<(), Reason>);
}
