//! What is written down about each sandbox, so that a later server finds all of it. The engine's labels say the rest.

use std::{
    io,
    path::{Path, PathBuf},
};

use model::{HostDirectory, Kernel, Limits, OwnerId, RuntimeClass, SandboxSpec, SessionId};
use sandbox::wire::CarrierKey;
use sandbox_host::{
    placeholder::{self, Placeholder},
    read_record, write_record,
};
use serde::{Deserialize, Serialize};

/// Label of a container: the installation that owns it.
pub(crate) const OWNER_LABEL: &str = "claude-code-mcp.owner";
/// Label of a container: its session.
pub(crate) const SESSION_LABEL: &str = "claude-code-mcp.session";

/// Where the mounts of one session stand on the host until its container has them.
pub(crate) fn staging(instance: &Path) -> PathBuf {
    instance.join("staging")
}

/// One sandbox, as written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its session.
    pub session: SessionId,
    /// The installation.
    pub owner: OwnerId,
    /// What was put into the project to keep a place.
    pub placeholders: Vec<Placeholder>,
    /// The workspace on the host.
    pub workspace: HostDirectory,
    /// What was asked, for the read-back.
    pub limits: Limits,
    /// How the engine was told to run it.
    #[serde(default)]
    pub runtime: Option<RuntimeClass>,
    /// Frames travel over its standard streams, under this key.
    #[serde(default)]
    pub carrier_key: Option<CarrierKey>,
}

impl Record {
    /// Of a sandbox that is to be made.
    pub fn of(spec: &SandboxSpec) -> Self {
        Record {
            session: spec.session,
            owner: spec.owner,
            placeholders: Vec::new(),
            workspace: spec.workspace.clone(),
            limits: spec.limits,
            runtime: spec.runtime.clone(),
            carrier_key: None,
        }
    }

    /// Whose kernel it was to have.
    pub fn kernel(&self) -> Kernel {
        self.runtime
            .as_ref()
            .map_or(Kernel::Shared, |class| class.kernel)
    }

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
