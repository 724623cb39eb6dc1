//! What is written down about each sandbox, so that a later server finds all of it: one directory for each session under
//! `native/`, and one lock file for each range of ids.
//!
//! ```text
//! native/sessions/<session id>/record.json   written before anything untrusted runs
//!                              socket/       the host's socket, mounted read-only inside
//!                              state/        /state
//! native/ranges/<index>                      names the session that uses the range
//! native/trash/                              on its way out
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use model::{OwnerId, SessionId};
use sandbox_host::{
    ProcessRecord,
    placeholder::{self, Placeholder},
    private_directory, read_record, write_record,
};
use serde::{Deserialize, Serialize};

use crate::{
    cgroup::Hierarchy,
    config::NativeConfig,
    plan::{Identity, RANGE_IDS},
};

/// Where things stand in the state directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout(sandbox_host::Layout);

impl std::ops::Deref for Layout {
    type Target = sandbox_host::Layout;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// One sandbox, as written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its session.
    pub session: SessionId,
    /// Name of its objects.
    pub object_name: String,
    /// Where its groups are.
    pub hierarchy: Hierarchy,
    /// Whose ids it uses.
    pub identity: Identity,
    /// Its pid 1; `None` before there is one.
    pub process: Option<ProcessRecord>,
    /// What was put into the project to keep a place.
    pub placeholders: Vec<Placeholder>,
    /// The workspace on the host.
    pub workspace: model::HostDirectory,
    /// What was asked, for the read-back.
    pub limits: model::Limits,
}

impl Layout {
    /// Makes the directories that are missing.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn prepare(state_directory: &Path) -> io::Result<Self> {
        let layout = Layout(sandbox_host::Layout::prepare(state_directory, "native")?);
        private_directory(&layout.ranges())?;
        Ok(layout)
    }

    fn ranges(&self) -> PathBuf {
        self.root().join("ranges")
    }

    /// Takes a free range of ids for that session. Starts looking at a place that depends on the owner, so that two
    /// installations on one machine rarely use the same ids.
    ///
    /// # Errors
    /// `QuotaExceeded` when none is free.
    pub fn take_range(&self, config: &NativeConfig, session: SessionId) -> io::Result<Identity> {
        let count = config.uid_range_count.max(1);
        let start = u32::from_le_bytes(owner_seed(&config.owner)) % count;
        for index in (0..count).map(|step| (start + step) % count) {
            let Some(base) = index
                .checked_mul(RANGE_IDS)
                .and_then(|offset| config.uid_range_base.checked_add(offset))
            else {
                continue;
            };
            let path = self.ranges().join(index.to_string());
            match File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
            {
                Ok(mut file) => {
                    file.write_all(session.to_string().as_bytes())?;
                    return Ok(Identity::Range { base });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::QuotaExceeded.into())
    }

    /// Gives back the ranges that no session with a directory uses.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn sweep_ranges(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.ranges())? {
            let path = entry?.path();
            let session = fs::read_to_string(&path)
                .ok()
                .and_then(|text| text.parse::<SessionId>().ok());
            if session.is_none_or(|session| !self.instance(session).exists()) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Gives back whatever range that session took.
    ///
    /// # Errors
    /// When the list cannot be read or a lock file cannot be removed.
    pub fn release_ranges_of(&self, session: SessionId) -> io::Result<()> {
        let name = session.to_string();
        for entry in fs::read_dir(self.ranges())? {
            let path = entry?.path();
            // Others are taken and given back meanwhile.
            if fs::read_to_string(&path).is_ok_and(|holder| holder == name) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Gives back the range at that base.
    ///
    /// # Errors
    /// When its lock file cannot be removed.
    pub fn release_range(
        &self,
        config: &NativeConfig,
        session: SessionId,
        identity: Identity,
    ) -> io::Result<()> {
        let Identity::Range { base } = identity else {
            return Ok(());
        };
        let Some(offset) = base.checked_sub(config.uid_range_base) else {
            return Ok(());
        };
        let path = self.ranges().join((offset / RANGE_IDS).to_string());
        match fs::read_to_string(&path) {
            Ok(holder) if holder == session.to_string() => fs::remove_file(path),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn owner_seed(owner: &OwnerId) -> [u8; 4] {
    let bytes = owner.as_bytes();
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}

impl Record {
    /// Removes the placeholders that nobody else needs, and writes the record down without any.
    ///
    /// # Errors
    /// When one cannot be removed; the record keeps them all then.
    pub fn give_up_placeholders(&mut self, instance: &Path) -> io::Result<()> {
        let (workspace, placeholders) = (self.workspace.clone(), self.placeholders.clone());
        placeholder::give_up(instance, &workspace, &placeholders, |left| {
            self.placeholders = left.to_vec();
            self.write(instance)
        })
    }

    /// Writes it; see [`write_record`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, instance: &Path) -> io::Result<()> {
        let about = placeholder::outlived_by(&self.placeholders);
        write_record(instance, self, about)
    }

    /// Reads it; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn read(instance: &Path) -> io::Result<Option<Self>> {
        read_record(instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, Layout, NativeConfig) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(directory.path()).unwrap();
        let mut config =
            NativeConfig::new(directory.path().to_owned(), OwnerId::from_bytes([7; 8]));
        config.uid_range_count = 3;
        (directory, layout, config)
    }

    #[test]
    fn ranges_are_given_once_and_come_back() {
        let (_directory, layout, config) = layout();
        let session = |byte| SessionId::from_bytes([byte; 16]);
        let taken: Vec<_> = (1..=3)
            .map(|byte| layout.take_range(&config, session(byte)).unwrap())
            .collect();
        let mut bases: Vec<_> = taken
            .iter()
            .map(|identity| format!("{identity:?}"))
            .collect();
        bases.sort();
        bases.dedup();
        assert_eq!(bases.len(), 3);
        assert!(layout.take_range(&config, session(4)).is_err());
        layout.release_range(&config, session(4), taken[0]).unwrap();
        assert!(
            layout.take_range(&config, session(4)).is_err(),
            "a range of another session came free"
        );
        layout.release_range(&config, session(1), taken[0]).unwrap();
        assert_eq!(layout.take_range(&config, session(4)).unwrap(), taken[0]);
    }

    #[test]
    fn ranges_of_sessions_that_are_gone_come_free() {
        let (_directory, layout, config) = layout();
        let session = SessionId::from_bytes([1; 16]);
        layout.create_instance(session).unwrap();
        layout.take_range(&config, session).unwrap();
        layout
            .take_range(&config, SessionId::from_bytes([2; 16]))
            .unwrap();
        layout.sweep_ranges().unwrap();
        assert_eq!(fs::read_dir(layout.ranges()).unwrap().count(), 1);
    }

    #[test]
    fn a_range_that_a_killed_server_took_for_a_session_without_record_comes_free() {
        let (_directory, layout, config) = layout();
        let [killed, other] = [1, 2].map(|byte| SessionId::from_bytes([byte; 16]));
        for session in [killed, other] {
            layout.create_instance(session).unwrap();
            layout.take_range(&config, session).unwrap();
        }
        let hierarchy = crate::cgroup::Hierarchy::None;
        crate::removal::remove(&layout, &config, &hierarchy, killed).unwrap();
        let kept: Vec<_> = fs::read_dir(layout.ranges())
            .unwrap()
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        assert_eq!(kept, [other.to_string()]);
    }
}
