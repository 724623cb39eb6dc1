//! An action in progress.
use crate::{AuditError, Closing};
use model::SessionId;
/// An action whose result is still to come. Dropped without [`Entry::close`], its result is `aborted`.
pub struct Entry {
    operation: String,
}
impl Entry {
    /// The id that intent and result share.
    pub fn operation(&self) -> &str {
        &self.operation
    }
    /// Names the session that the action made.
    pub fn set_session(&mut self, _session: SessionId) {}
    /// Records the result.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`].
    pub async fn close(self, _closing: Closing) -> Result<(), AuditError> {
        Err(AuditError::Unavailable {
            why: "not built yet",
            source: None,
        })
    }
}
