//! What is told before anything passes: whoever keeps the record answers, and what cannot be recorded does not pass.

use std::{future::Future, pin::Pin};

/// A decision on its way to the record.
pub type Recording<'a> = Pin<Box<dyn Future<Output = Result<Ticket, Unrecorded>> + Send + 'a>>;

/// The recorder's own number of a decision, by which it knows its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// A decision is not on record, so it is a no.
#[derive(Debug, thiserror::Error)]
pub enum Unrecorded {
    /// The record cannot be written.
    #[error("the decision could not be recorded: {0}")]
    Failed(String),
    /// As much of the session as may be is on record of this minute.
    #[error("the session makes more than {per_minute} connections a minute")]
    TooMany {
        /// How much that is.
        per_minute: u64,
    },
}
