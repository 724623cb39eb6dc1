//! The store: one connection, shared.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::OwnerId;
use rusqlite::Connection;

use crate::{OpenReport, StoreError, open};

/// The state database. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    owner: OwnerId,
}

impl Store {
    /// Opens or makes the database file `path` (`state.db`); its directory must exist.
    ///
    /// # Errors
    /// See [`StoreError`]. A damaged file is no error: see [`OpenReport::quarantined`].
    pub fn open(path: &Path) -> Result<(Store, OpenReport), StoreError> {
        let (connection, owner, report) = open::open(path)?;
        Ok((
            Store {
                connection: Arc::new(Mutex::new(connection)),
                owner,
            },
            report,
        ))
    }

    /// The installation's id: random, made once, kept for ever (also when the database is put aside).
    pub fn owner(&self) -> OwnerId {
        self.owner
    }

    /// A panic of an earlier holder does no harm: its transaction was rolled back when it unwound.
    pub(crate) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
