//! Transfers of files, over a data connection of their own.

use wire::{Entry, TransferEnd, TransferFrame};

use super::TransferError;

/// How much a transfer may move. Enforced by the supervisor and again by the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferLimits {
    /// Entries, the root included.
    pub max_entries: u64,
    /// Bytes of content.
    pub max_bytes: u64,
}

/// A frame of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportFrame {
    /// The next entry; its parent came before it. The first is the root, with an empty path.
    Entry(Entry),
    /// Content of the file before it, never empty; all of a file's content comes before the next entry.
    Data(Vec<u8>),
}

/// A tree or file on its way out of the sandbox, checked frame by frame.
pub struct Export {}

impl Export {
    /// The next frame; `None` once all of it came and the counts agree.
    pub async fn next(&mut self) -> Result<Option<ExportFrame>, TransferError> {
        Err(TransferError::Dropped)
    }
}

/// A tree or file on its way into the sandbox. Dropping it before [`Import::finish`] leaves nothing of it behind.
pub struct Import {}

impl Import {
    /// Sends an entry or a piece of content.
    pub async fn send(&mut self, _frame: TransferFrame) -> Result<(), TransferError> {
        Err(TransferError::Dropped)
    }

    /// Ends it and waits until all of it stands at its destination.
    pub async fn finish(self) -> Result<TransferEnd, TransferError> {
        Err(TransferError::Dropped)
    }
}
