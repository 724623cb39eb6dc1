//! Where the log's end is noted outside of it, so that a log that was cut, emptied or exchanged shows even where everything
//! beside it was, too.

use crate::record::Link;

/// A record that was durable once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchored {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl From<Link> for Anchored {
    fn from(Link { seq, hash }: Link) -> Self {
        Anchored { seq, hash }
    }
}

impl From<Anchored> for Link {
    fn from(Anchored { seq, hash }: Anchored) -> Self {
        Link { seq, hash }
    }
}

/// Why an anchor could not be read or noted.
pub type AnchorError = Box<dyn std::error::Error + Send + Sync>;

/// A place that remembers the last record of a log. The state database is one.
pub trait Anchor: Send {
    /// Remembers this record instead of the one before. Called at the start, the end and with each checkpoint; it may block
    /// as long as a write to a disk does.
    ///
    /// # Errors
    /// When it could not be noted. The log goes on, and tells it in the server's log.
    fn note(&mut self, last: Anchored) -> Result<(), AnchorError>;

    /// What was noted last; `None` if nothing was.
    ///
    /// # Errors
    /// When it cannot be read: then the log is not opened.
    fn read(&mut self) -> Result<Option<Anchored>, AnchorError>;
}
