//! Why the store refuses.

use std::{io, path::PathBuf};

/// Why the store could not be opened, read or written. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite says no.
    #[error("the state database failed to {step}")]
    Database {
        /// What failed, as a phrase after "failed to".
        step: &'static str,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A file operation beside SQLite failed.
    #[error("cannot {step} {path:?}", path = path.display().to_string())]
    File {
        /// What failed, as a phrase after "cannot".
        step: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A newer program wrote the file; this one would damage it.
    #[error(
        "the state database has schema {found}, this program knows {supported}: use the newer program"
    )]
    Newer {
        /// Schema of the file.
        found: i64,
        /// Schema of this program.
        supported: i64,
    },
    /// The file is a database of something else; it was not touched.
    #[error("{path:?} is not a state database of this program; it was left untouched", path = path.display().to_string())]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
    /// A column holds a text or value that this program does not know.
    #[error("the state database holds an unknown {column}: {value:?}")]
    UnknownValue {
        /// Which column.
        column: &'static str,
        /// What it holds, capped.
        value: String,
    },
    /// A number does not fit into the database (2^63 − 1 at most).
    #[error("{column} is out of range")]
    OutOfRange {
        /// Which column.
        column: &'static str,
    },
    /// No random identifier could be made.
    #[error("no random bytes from the kernel")]
    Random(#[source] getrandom::Error),
    /// A thread panicked while it held the connection.
    #[error("the state database was left in the middle of an operation")]
    Poisoned,
}
