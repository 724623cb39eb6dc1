//! What `doctor` finds out about an engine beside what sessions need: versions of it and of what it stands on, the known
//! faults of those ([`stand`]), the runtimes that it offers, whether speaking to it is being root ([`access()`]); and, by one
//! short sandbox, what its walls do ([`Docker::try_walls`]) and how its containers stand to a benchmark ([`Item`]).
//!
//! What this does not show: a fault that nobody knows, and whether a distribution repaired an old version.

mod access;
mod advisories;
mod benchmark;
mod trial;
mod version;

use bollard::models::SystemVersion;
use sandbox::BackendError;
use serde::Serialize;

pub use access::{Access, EngineKind, Opening, Socket, access};
pub use advisories::{Behavior, Component, Standing, TableError, Verdict, stand};
pub use benchmark::{Item, ItemState};
pub use trial::{TRIAL_LEASE, Trial, TrialFailure};

use crate::{Docker, machine};

/// What an engine is.
#[derive(Debug, Clone)]
pub struct About {
    /// Versions of it and of what it stands on.
    pub versions: Versions,
    /// Names under which it knows runtimes, sorted.
    pub runtimes: Vec<String>,
    /// Its containers live on when it restarts.
    pub live_restore: bool,
    /// Whether speaking to it is being root.
    pub access: Access,
}

/// Versions as they are told; `None` for what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// Of the engine.
    pub engine: Option<String>,
    /// Of containerd.
    pub containerd: Option<String>,
    /// Of runc.
    pub runc: Option<String>,
    /// Of the kernel, `uname -r`.
    pub kernel: Option<String>,
}

impl Versions {
    /// The longest form that the engine has: only a component's commit shows which build of a distribution it is.
    fn read(version: &SystemVersion, kernel: String) -> Versions {
        let component = |name: &str| {
            let mut components = version.components.iter().flatten();
            let component = components.find(|component| component.name == name)?;
            let details = component.details.as_ref();
            let commit = details.and_then(|details| details.get("GitCommit"));
            let longer = commit.filter(|commit| commit.starts_with(component.version.as_str()));
            Some(longer.unwrap_or(&component.version).clone())
        };
        Versions {
            engine: component("Engine").or_else(|| version.version.clone()),
            containerd: component("containerd"),
            runc: component("runc"),
            kernel: Some(kernel),
        }
    }

    fn of(&self, component: Component) -> Option<&str> {
        match component {
            Component::Engine => self.engine.as_deref(),
            Component::Containerd => self.containerd.as_deref(),
            Component::Runc => self.runc.as_deref(),
            Component::Kernel => self.kernel.as_deref(),
        }
    }
}

impl Docker {
    /// Asks the engine what it is. Makes nothing.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn about(&self) -> Result<About, BackendError> {
        let (info, version) = (self.engine().info().await?, self.engine().version().await?);
        let kernel = rustix::system::uname();
        let kernel = kernel.release().to_string_lossy().into_owned();
        Ok(About {
            access: access(self.config(), Some(&info)),
            versions: Versions::read(&version, kernel),
            runtimes: machine::runtimes(&info),
            live_restore: info.live_restore_enabled == Some(true),
        })
    }
}
