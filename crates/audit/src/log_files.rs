//! The files of a log.

use std::{
    io,
    path::{Path, PathBuf},
};

/// The files that the log at that path stands in, oldest first.
///
/// # Errors
/// When its directory cannot be read.
pub fn log_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(vec![path.to_owned()])
}
