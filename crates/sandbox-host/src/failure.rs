//! Why a step on this machine did not happen: small enough to travel between processes.

use std::{io, path::PathBuf};

use sandbox::BackendError;
use serde::{Deserialize, Serialize};

/// Why it did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// The step, as a phrase after "cannot".
    pub step: String,
    /// `errno`; 0 where no system call failed.
    pub errno: i32,
}

/// Kinds of failure that the caller can do something about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// A system call.
    Step,
    /// A path is not what it was, or holds a link.
    PathChanged(PathBuf),
    /// Protected paths of the workspace, relative to it, that existed when the decision fell.
    ProtectedGone(Vec<PathBuf>),
    /// The owner of a directory cannot be mapped; why and what to do.
    NotMappable(String),
}

impl Failure {
    /// A step that failed.
    pub fn at(step: impl Into<String>, error: &io::Error) -> Self {
        Failure {
            kind: FailureKind::Step,
            step: step.into(),
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

/// Names the step of a system call that failed.
pub trait At<T> {
    /// See [`Failure::at`].
    fn at(self, step: &str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::at(step, &error.into()))
    }
}

impl From<Failure> for BackendError {
    fn from(failure: Failure) -> Self {
        match failure.kind {
            FailureKind::Step => BackendError::Step {
                step: failure.step,
                source: io::Error::from_raw_os_error(failure.errno),
            },
            FailureKind::PathChanged(path) => BackendError::PathChanged { path },
            FailureKind::ProtectedGone(paths) => BackendError::ProtectedGone { paths },
            FailureKind::NotMappable(why) => BackendError::WorkspaceNotMappable(why),
        }
    }
}
