//! The store.

use std::path::{Path, PathBuf};

use model::{ExecutionId, ExecutionState, OwnerId, SessionId, SessionState};

use crate::{
    EventRecord, ExecutionChange, ExecutionRecord, Filter, Reserved, SessionChange, SessionRecord,
    StoreError,
};

/// How the store was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// There was none; it was made.
    pub created: bool,
    /// The file was damaged, stands here now, and an empty one took its place: rebuild from the backends.
    pub quarantined: Option<PathBuf>,
}

/// The state database. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Store;

impl Store {
    /// Opens or makes the database file `path` (`state.db`); its directory must exist.
    ///
    /// # Errors
    /// See [`StoreError`]. A damaged file is no error: see [`OpenReport::quarantined`].
    pub fn open(path: &Path) -> Result<(Store, OpenReport), StoreError> {
        Err(StoreError::Foreign {
            path: path.to_owned(),
        })
    }
    /// The installation's id: random, made once, kept for ever (also when the database is quarantined).
    pub fn owner(&self) -> OwnerId {
        OwnerId::from_bytes([0; 8])
    }
    /// Takes a place among at most `max_live` live sessions and inserts the row, all in one transaction: exact however
    /// many callers race.
    ///
    /// # Errors
    /// When the database fails; nothing is reserved then.
    pub fn reserve_session(
        &self,
        _record: &SessionRecord,
        _max_live: u32,
    ) -> Result<Reserved, StoreError> {
        Err(StoreError::Poisoned)
    }
    /// Changes a session whose state is one of `expected` (none matches an empty list). `false`: it was not.
    ///
    /// # Errors
    /// When the database fails.
    pub fn update_session(
        &self,
        _id: SessionId,
        _expected: &[SessionState],
        _change: &SessionChange,
    ) -> Result<bool, StoreError> {
        Err(StoreError::Poisoned)
    }
    /// One session.
    ///
    /// # Errors
    /// When the database fails or holds an unknown value.
    pub fn session(&self, _id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        Err(StoreError::Poisoned)
    }
    /// Sessions, oldest first.
    ///
    /// # Errors
    /// When the database fails or holds an unknown value.
    pub fn sessions(&self, _filter: Filter<'_>) -> Result<Vec<SessionRecord>, StoreError> {
        Err(StoreError::Poisoned)
    }
    /// The session was used; a time before the one on record changes nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub fn touch(&self, _id: SessionId, _at_ms: u64) -> Result<(), StoreError> {
        Err(StoreError::Poisoned)
    }
    /// Inserts an execution of an existing session.
    ///
    /// # Errors
    /// When the database fails, or there is no such session.
    pub fn insert_execution(&self, _record: &ExecutionRecord) -> Result<(), StoreError> {
        Err(StoreError::Poisoned)
    }
    /// Changes an execution whose state is one of `expected`. `false`: it was not.
    ///
    /// # Errors
    /// When the database fails.
    pub fn update_execution(
        &self,
        _id: ExecutionId,
        _expected: &[ExecutionState],
        _change: &ExecutionChange,
    ) -> Result<bool, StoreError> {
        Err(StoreError::Poisoned)
    }
    /// One execution.
    ///
    /// # Errors
    /// When the database fails or holds an unknown value.
    pub fn execution(&self, _id: ExecutionId) -> Result<Option<ExecutionRecord>, StoreError> {
        Err(StoreError::Poisoned)
    }
    /// The newest `limit` executions of a session, newest first.
    ///
    /// # Errors
    /// When the database fails or holds an unknown value.
    pub fn executions(
        &self,
        _session: SessionId,
        _limit: u32,
    ) -> Result<Vec<ExecutionRecord>, StoreError> {
        Err(StoreError::Poisoned)
    }
    /// Adds a line to a session's log; a text over 1 KiB is cut.
    ///
    /// # Errors
    /// When the database fails, or there is no such session.
    pub fn add_event(
        &self,
        _session: SessionId,
        _at_ms: u64,
        _text: &str,
    ) -> Result<(), StoreError> {
        Err(StoreError::Poisoned)
    }
    /// The newest `tail` lines of a session's log, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub fn events(&self, _session: SessionId, _tail: u32) -> Result<Vec<EventRecord>, StoreError> {
        Err(StoreError::Poisoned)
    }
    /// Removes sessions that ended before `ms`, with their executions and events. Returns how many sessions.
    ///
    /// # Errors
    /// When the database fails.
    pub fn purge_ended_before(&self, _ms: u64) -> Result<u64, StoreError> {
        Err(StoreError::Poisoned)
    }
}
