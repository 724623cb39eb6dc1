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
    /// The file is damaged.
    #[error("the state database is damaged: {found}")]
    Damaged {
        /// What the check found first.
        found: String,
    },
}

/// Names the step that failed.
pub(crate) fn failed_to(step: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| StoreError::Database { step, source }
}

impl StoreError {
    /// The file itself is damaged, as opposed to busy, full or not ours.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            StoreError::Database { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
            ),
            StoreError::Damaged { .. } => true,
            StoreError::File { .. }
            | StoreError::Newer { .. }
            | StoreError::Foreign { .. }
            | StoreError::UnknownValue { .. }
            | StoreError::OutOfRange { .. }
            | StoreError::Random(_) => false,
        }
    }
}
