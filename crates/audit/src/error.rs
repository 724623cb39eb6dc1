//! Why the log refuses.

use std::{io, path::PathBuf, sync::Arc};

/// Why the audit log could not be opened or written. An error of [`crate::AuditLog::begin`] means: nothing may be
/// changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuditError {
    /// The path names no file in a directory.
    #[error("the audit log's path {path:?} names no file", path = path.display().to_string())]
    BadPath {
        /// The configured path.
        path: PathBuf,
    },
    /// The log or one of the files beside it cannot be opened or written.
    #[error("cannot {step} {path:?}", path = path.display().to_string())]
    Open {
        /// What failed, as a phrase after "cannot".
        step: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// Others could replace or change the log.
    #[error("the audit log {path:?} is not safe here: {why}", path = path.display().to_string())]
    Unsafe {
        /// Which file or directory.
        path: PathBuf,
        /// What is wrong with it and what to do.
        why: &'static str,
    },
    /// The file holds something else; it was not touched.
    #[error("{path:?} is not an audit log of this program; it was left untouched", path = path.display().to_string())]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
    /// The chain is broken in a record that was durable once. It was not touched: see [`crate::verify`].
    #[error("the audit log {path:?} is broken at record {seq}: move it aside to keep it as evidence, then start again", path = path.display().to_string())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// The first bad record.
        seq: u64,
    },
    /// A key of the log is not there as it must be, so the log cannot be continued. It was not touched.
    #[error("the audit log's key {path:?} {why}: restore it, or move the log and all files beside it aside, then start again", path = path.display().to_string())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it, as a phrase after its name.
        why: &'static str,
    },
    /// The log was written by an earlier version of this program, which had no keys. It was not touched.
    #[error("the audit log {path:?} has the format of an earlier version: move it and the files beside it aside, then start again", path = path.display().to_string())]
    Format {
        /// Which file.
        path: PathBuf,
    },
    /// Where the log's end is noted outside of it cannot be read or written.
    #[error("the end of the audit log cannot be noted outside of it")]
    Anchor(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// Another process writes this log.
    #[error("the audit log {path:?} is in use by another process", path = path.display().to_string())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// The record is not on disk, so nothing may be changed.
    #[error("the audit log cannot be written: {why}")]
    Unavailable {
        /// What stood in the way.
        why: &'static str,
        /// Why, where the system said so.
        #[source]
        source: Option<Arc<io::Error>>,
    },
}
