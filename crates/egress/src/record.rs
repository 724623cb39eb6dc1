//! What is told before anything passes: whoever keeps the record answers, and what cannot be recorded does not pass.

use std::{future::Future, pin::Pin};

/// A decision on its way to the record.
pub type Recording<'a> = Pin<Box<dyn Future<Output = Result<Ticket, Unrecorded>> + Send + 'a>>;

/// The recorder's own number of a decision, by which it knows its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// A decision could not be recorded.
#[derive(Debug, thiserror::Error)]
#[error("the decision could not be recorded: {0}")]
pub struct Unrecorded(pub String);
