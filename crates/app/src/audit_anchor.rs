//! The state database as the place where the end of the audit log is noted outside of it.

use std::path::PathBuf;

use audit::{Anchor, AnchorError, Anchored};
use store::Store;

/// The end of one log.
pub(crate) struct StateDatabase {
    pub store: Store,
    pub log: PathBuf,
}

impl Anchor for StateDatabase {
    fn note(&mut self, last: Anchored) -> Result<(), AnchorError> {
        Ok(self.store.set_audit_head(&self.log, last.seq, &last.hash)?)
    }

    fn read(&mut self) -> Result<Option<Anchored>, AnchorError> {
        let found = self.store.audit_head(&self.log)?;
        Ok(found.map(|(seq, hash)| Anchored { seq, hash }))
    }
}
