//! Why a command about images did not do it.

use std::{io, path::PathBuf};

use model::Reason;
use sandbox::BackendError;

use super::unpack::UnpackError;

/// See the module. Nothing is left of what failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] BackendError),
    /// A name that no image can have.
    #[error("{0:?} is no name for an image")]
    Name(String),
    /// There is no such image.
    #[error("the engine has no image {0}")]
    Missing(String),
    /// The base could not be fetched.
    #[error("the base image {base} cannot be fetched from its registry")]
    Pull {
        /// Which.
        base: String,
        /// Why.
        #[source]
        source: BackendError,
    },
    /// The base declares volumes, which no later step can take away.
    #[error(
        "the base image {base} declares volumes ({volumes}), and no session can be made of such an image"
    )]
    Volumes {
        /// Which.
        base: String,
        /// Where.
        volumes: String,
    },
    /// The build on a base failed.
    #[error("the build on {base} failed{}", said(last))]
    Build {
        /// Which.
        base: String,
        /// What it said last.
        last: String,
        /// Why.
        #[source]
        source: BackendError,
    },
    /// What makes images of packages is not there.
    #[error("mmdebstrap, which makes the base from Debian packages, is not installed")]
    NoMmdebstrap,
    /// It could not be run.
    #[error("cannot {step}")]
    Step {
        /// What, as a phrase after "cannot".
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("mmdebstrap failed{}", said(last))]
    Mmdebstrap {
        /// What it said last.
        last: String,
    },
    /// It was stopped, and left something that is not deleted blindly.
    #[error("mmdebstrap did not clean up after itself: {path} is left", path = path.display())]
    LeftBehind {
        /// What.
        path: PathBuf,
    },
    /// The caller wanted no more.
    #[error("interrupted; nothing is left of it")]
    Interrupted,
    /// Unpacking.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

fn said(last: &str) -> String {
    if last.is_empty() {
        String::new()
    } else {
        format!("; it said last:\n{last}")
    }
}

impl ImageError {
    /// The stable code.
    pub fn reason(&self) -> Reason {
        match self {
            ImageError::Engine(BackendError::ImageRefused { .. }) => Reason::ImageRefused,
            ImageError::Engine(BackendError::Unavailable { .. } | BackendError::Unsupported(_)) => {
                Reason::BackendUnavailable
            }
            ImageError::Engine(_) | ImageError::Step { .. } | ImageError::LeftBehind { .. } => {
                Reason::Internal
            }
            ImageError::Name(_) => Reason::InvalidArgument,
            ImageError::Missing(_) => Reason::ImageNotFound,
            ImageError::Pull { .. }
            | ImageError::Volumes { .. }
            | ImageError::Build { .. }
            | ImageError::NoMmdebstrap
            | ImageError::Mmdebstrap { .. }
            | ImageError::Interrupted => Reason::ImageNotBuilt,
            ImageError::Unpack(error) => error.reason(),
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        let hint = match self {
            ImageError::Engine(
                BackendError::Unavailable { remedy, .. }
                | BackendError::ImageRefused { remedy, .. },
            ) => return remedy.clone(),
            ImageError::Engine(_) | ImageError::Step { .. } => {
                "try again; the engine's log may say more"
            }
            ImageError::Name(_) => "write it as name:tag",
            ImageError::Missing(_) => {
                "see `claude-code-mcp image list`, or make one: `claude-code-mcp image build`"
            }
            ImageError::Pull { .. } => {
                "where no registry is reachable: `claude-code-mcp image build --bootstrap` makes the base from Debian \
                 packages, and `--base IMAGE` takes one that the engine has"
            }
            ImageError::Volumes { .. } => "name a base without volumes, debian:bookworm-slim say",
            ImageError::Build { .. } => {
                "a base needs a shell, sed, and apt-get, apk or dnf with a way to its packages, unless it has git, ripgrep, \
                 python3 and ca-certificates"
            }
            ImageError::NoMmdebstrap => {
                "apt-get install mmdebstrap, or leave --bootstrap out and take the base from a registry"
            }
            ImageError::Mmdebstrap { .. } => {
                "see whether `apt-get update` works on this machine: its sources and proxies are used"
            }
            ImageError::LeftBehind { .. } => "see that nothing is mounted below it, then delete it",
            ImageError::Interrupted => "start it again when it suits",
            ImageError::Unpack(error) => error.hint(),
        };
        hint.to_owned()
    }
}
