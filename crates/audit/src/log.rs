//! The log.
use crate::{AuditError, Durability, Entry, Event, Intent};
use model::OwnerId;
use std::path::PathBuf;
/// Where the log is.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// The log file (`MCP_AUDIT_LOG`); its directory must exist. `NAME.head` and `NAME.reserve` stand beside it.
    pub path: PathBuf,
    /// The installation; part of what hashes of principals are made of.
    pub owner: OwnerId,
}
/// The log.
#[derive(Clone)]
pub struct AuditLog;
impl AuditLog {
    /// Opens.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub fn open(config: AuditConfig) -> Result<AuditLog, AuditError> {
        Err(AuditError::BadPath { path: config.path })
    }
    /// Records an intent.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`].
    pub async fn begin(
        &self,
        _intent: Intent,
        _durability: Durability,
    ) -> Result<Entry, AuditError> {
        Err(AuditError::Unavailable {
            why: "not built yet",
            source: None,
        })
    }
    /// Records an event.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`].
    pub async fn event(&self, _event: Event) -> Result<(), AuditError> {
        Err(AuditError::Unavailable {
            why: "not built yet",
            source: None,
        })
    }
    /// Whether the last write worked.
    pub fn is_healthy(&self) -> bool {
        false
    }
    /// Waits until everything handed over is on disk (at most 2 s).
    pub async fn flush(&self) {}
}
