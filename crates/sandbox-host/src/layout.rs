//! Where a backend keeps what it must not forget: one directory for each session under `<state directory>/<backend>/`.
//!
//! ```text
//! <backend>/sessions/<session id>/record.json   written before anything untrusted runs
//!                                 socket/       the host's socket, mounted read-only inside
//!                                 state/        /state
//! <backend>/trash/                              on its way out
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use model::SessionId;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    deletion::delete,
    placeholder::{RECORD_NAME, SESSIONS_NAME},
};

/// Where things stand in the state directory.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the directories that are missing.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn prepare(state_directory: &Path, backend: &str) -> io::Result<Self> {
        // Links on the way would defeat the check that no path holds one.
        private_directory(state_directory)?;
        let root = fs::canonicalize(state_directory)?.join(backend);
        let layout = Layout { root };
        for directory in [layout.root.clone(), layout.sessions(), layout.trash()] {
            private_directory(&directory)?;
        }
        Ok(layout)
    }

    /// The backend's own directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn sessions(&self) -> PathBuf {
        self.root.join(SESSIONS_NAME)
    }

    /// Where directories go before they are deleted.
    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// The directory of one session.
    pub fn instance(&self, session: SessionId) -> PathBuf {
        self.sessions().join(session.to_string())
    }

    /// Makes the directory of one session.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one.
    pub fn create_instance(&self, session: SessionId) -> io::Result<PathBuf> {
        let instance = self.instance(session);
        fs::DirBuilder::new().mode(0o700).create(&instance)?;
        // Both are seen inside as mounts of their own; nobody outside gets past the directory above.
        fs::DirBuilder::new()
            .mode(0o755)
            .create(instance.join("socket"))?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(instance.join("state"))?;
        Ok(instance)
    }

    /// Sessions of which anything is left.
    ///
    /// # Errors
    /// When the list cannot be read completely.
    pub fn list(&self) -> io::Result<Vec<SessionId>> {
        let mut sessions = Vec::new();
        for entry in fs::read_dir(self.sessions())? {
            let name = entry?.file_name();
            match name.to_str().and_then(|name| name.parse().ok()) {
                Some(session) => sessions.push(session),
                None => tracing::warn!(
                    ?name,
                    "a foreign name among the sessions' directories is left alone"
                ),
            }
        }
        sessions.sort_unstable();
        Ok(sessions)
    }

    /// Deletes the directory of that session. Success also when there was none.
    ///
    /// # Errors
    /// When something stays; a later call goes on.
    pub fn discard(&self, session: SessionId) -> io::Result<()> {
        let trash = self.trash().join(session.to_string());
        match fs::rename(self.instance(session), &trash) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
        delete(&trash)
    }

    /// Deletes what earlier calls left in the trash.
    ///
    /// # Errors
    /// When something stays.
    pub fn empty_trash(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.trash())? {
            delete(&entry?.path())?;
        }
        Ok(())
    }
}

/// Makes a directory for nobody else, with those above it.
///
/// # Errors
/// When it cannot be made.
pub fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// What a record is about outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlives {
    /// The server.
    Server,
    /// The machine's power: placeholders stand in the user's project until somebody who knows of them removes them.
    Machine,
}

/// Writes a session's record so that a reader sees the old one or the new one, never a part; and flushes it to the disk
/// where it must be found after the power failed.
///
/// # Errors
/// When it cannot be written.
pub fn write_record(instance: &Path, record: &impl Serialize, about: Outlives) -> io::Result<()> {
    let temporary = instance.join("record.new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    match about {
        Outlives::Server => fs::rename(temporary, instance.join(RECORD_NAME)),
        Outlives::Machine => {
            file.sync_all()?;
            fs::rename(temporary, instance.join(RECORD_NAME))?;
            // Its name, and that of its directory.
            let directories = instance.ancestors().take(2);
            directories
                .map(File::open)
                .try_for_each(|directory| directory?.sync_all())
        }
    }
}

/// Reads a session's record; `None` when there is none.
///
/// # Errors
/// When it cannot be read or is damaged.
pub fn read_record<T: DeserializeOwned>(instance: &Path) -> io::Result<Option<T>> {
    match fs::read(instance.join(RECORD_NAME)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
