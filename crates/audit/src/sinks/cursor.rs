//! How far a sink is, kept in a file of the state directory so that a next server goes on from there.
//!
//! The file is written whole under another name and put in its place, after each batch that was taken. What a crash loses of
//! it makes the sink get records twice, never miss one.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Health;

/// How far a sink is, and how it is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The last record that it took; 0 before the first.
    pub seq: u64,
    /// The hash of that record, which tells another log from this one.
    pub hash: String,
    /// Records that it never gets, because they were pruned or too many.
    pub missed: u64,
    /// Why it takes nothing at present.
    pub last_error: Option<LastError>,
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// Since when: RFC 3339.
    pub since: String,
    /// What went wrong last.
    pub message: String,
}

impl State {
    /// What the file says. `None` where there is none, or none that can be read: the sink then begins anew.
    pub(super) fn read(path: &Path) -> Option<State> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        let mut file = private(&new)?;
        file.write_all(serde_json::to_string(self)?.as_bytes())?;
        file.sync_data()?;
        fs::rename(&new, path)
    }

    pub(super) fn health(&self, name: &str, end: Option<u64>) -> Health {
        Health {
            name: name.to_owned(),
            lag: end.map_or(0, |end| end.saturating_sub(self.seq)),
            missed: self.missed,
            last_error: self.last_error.clone(),
        }
    }
}

/// The file of that sink.
pub(super) fn path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.json"))
}

/// For the server's user alone.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    }
}

fn private(path: &Path) -> io::Result<File> {
    // What stands there was left by a server that was killed; a link is never followed.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_a_broken_one_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = path(directory.path(), "hook");
        assert_eq!(State::read(&file), None);
        let state = State {
            seq: 7,
            hash: "ab".to_owned(),
            missed: 2,
            last_error: Some(LastError {
                since: "2026-11-22T10:53:02Z".to_owned(),
                message: "no answer".to_owned(),
            }),
        };
        state.write(&file).unwrap();
        state.write(&file).unwrap();
        assert_eq!(State::read(&file), Some(state));
        fs::write(&file, "{\"seq\":").unwrap();
        assert_eq!(State::read(&file), None);
    }
}
