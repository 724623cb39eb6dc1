//! What the embedded runtime can enforce here.

use std::os::unix::fs::PermissionsExt;

use model::{Enforcement, Layer, LimitName, OwnerId};
use sandbox::{Backend, BackendError, Capability};
use sandbox_native::{Native, NativeConfig};
use serde::Serialize;
use tempfile::TempDir;

use crate::{backends::native_root, config::Config};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BackendReport {
    pub(super) name: &'static str,
    /// A sandbox can be built.
    pub(super) usable: bool,
    pub(super) posture: String,
    pub(super) rung: String,
    pub(super) layers: Vec<LayerReport>,
    pub(super) limits: Vec<LimitReport>,
    pub(super) missing: Vec<Missing>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayerReport {
    pub(super) layer: Layer,
    pub(super) available: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LimitReport {
    pub(super) limit: &'static str,
    pub(super) enforcement: Enforcement,
    pub(super) mechanism: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Missing {
    pub(super) what: String,
    pub(super) remedy: String,
}

/// Probes the backend in a scratch directory, so that a running server is not disturbed.
pub(super) async fn probe(config: &Config) -> BackendReport {
    match try_probe(config).await {
        Ok(capability) => available(&capability),
        Err(error) => unavailable(&error),
    }
}

/// A state directory and an owner for the length of one look.
pub(super) fn scratch() -> Result<(TempDir, OwnerId), BackendError> {
    let step = |step: &str, source| BackendError::Step {
        step: step.to_owned(),
        source,
    };
    let directory = tempfile::Builder::new()
        .prefix("claude-code-mcp-doctor-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir()
        .map_err(|source| step("make a scratch directory", source))?;
    let owner = OwnerId::random()
        .map_err(|error| step("make a random identifier", std::io::Error::other(error)))?;
    Ok((directory, owner))
}

async fn try_probe(config: &Config) -> Result<Capability, BackendError> {
    let (scratch, owner) = scratch()?;
    let mut native = NativeConfig::new(scratch.path().to_path_buf(), owner);
    native.extra_read_only.clone_from(&config.extra_read_only);
    native_root(config)?;
    Native::open(native)?.capability().await
}

fn available(capability: &Capability) -> BackendReport {
    BackendReport {
        name: "native",
        usable: true,
        posture: capability.posture.clone(),
        rung: capability.rung.clone(),
        layers: Layer::ALL
            .into_iter()
            .map(|layer| LayerReport {
                layer,
                available: capability.layers.contains(&layer),
            })
            .collect(),
        limits: LimitName::ALL
            .into_iter()
            .map(|limit| LimitReport {
                limit: limit.as_str(),
                enforcement: capability.enforcement(limit),
                mechanism: mechanism(capability, limit),
            })
            .collect(),
        missing: capability
            .advice
            .iter()
            .map(|advice| Missing {
                what: advice.missing.clone(),
                remedy: advice.remedy.clone(),
            })
            .collect(),
    }
}

fn mechanism(capability: &Capability, limit: LimitName) -> String {
    let found = capability.limits.iter().find(|found| found.limit == limit);
    found.map_or_else(String::new, |found| found.mechanism.clone())
}

/// What is wrong, and what to do where that is known.
pub(super) fn why(error: &BackendError) -> (String, String) {
    match error {
        BackendError::Unavailable { why, remedy }
        | BackendError::EngineUnfit { why, remedy }
        | BackendError::ImageRefused { why, remedy } => (why.clone(), remedy.clone()),
        BackendError::Step { source, .. } => (format!("{error}: {source}"), String::new()),
        BackendError::EngineElsewhere { .. }
        | BackendError::NotFound
        | BackendError::RuntimeUnknown { .. }
        | BackendError::AlreadyExists
        | BackendError::LimitUnenforceable { .. }
        | BackendError::LayerUnavailable { .. }
        | BackendError::WorkspaceNotMappable(_)
        | BackendError::PathChanged { .. }
        | BackendError::ProtectedGone { .. }
        | BackendError::Unsupported(_)
        | BackendError::Timeout(_) => (error.to_string(), String::new()),
    }
}

fn unavailable(error: &BackendError) -> BackendReport {
    let (what, remedy) = why(error);
    BackendReport {
        name: "native",
        usable: false,
        posture: String::new(),
        rung: String::new(),
        layers: Vec::new(),
        limits: Vec::new(),
        missing: vec![Missing { what, remedy }],
    }
}
