//! Whether a Docker engine of this machine can carry sessions, and what using it means.

use std::time::Duration;

use sandbox::{Backend, BackendError};
use sandbox_docker::Docker;
use serde::Serialize;

use super::capability::{Missing, scratch, why};
use crate::{backends::docker_config, config::Config};

/// How long an engine may take for all that is asked of it.
const PATIENCE: Duration = Duration::from_secs(8);

/// See the module.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EngineReport {
    /// Sessions can be made on it right now.
    pub(super) usable: bool,
    /// Whoever may speak to it is root on this machine.
    pub(super) equals_root: bool,
    pub(super) posture: String,
    pub(super) rung: String,
    pub(super) image: String,
    pub(super) missing: Vec<Missing>,
}

/// Asks the engine, with a scratch directory for a state directory, so that a running server is not disturbed.
pub(super) async fn probe(config: &Config) -> EngineReport {
    let asked = tokio::time::timeout(PATIENCE, ask(config)).await;
    let late = || Err(BackendError::Timeout("asking the engine".to_owned()));
    asked.unwrap_or_else(|_| late()).unwrap_or_else(|error| {
        let (what, remedy) = why(&error);
        EngineReport {
            usable: false,
            equals_root: false,
            posture: String::new(),
            rung: String::new(),
            image: config.image.clone(),
            missing: vec![Missing { what, remedy }],
        }
    })
}

async fn ask(config: &Config) -> Result<EngineReport, BackendError> {
    let (scratch, owner) = scratch()?;
    let docker = Docker::open(docker_config(config, scratch.path(), owner))?;
    let capability = docker.capability().await?;
    let usable = docker.is_usable(&config.image).await?;
    let mut missing: Vec<_> = capability
        .advice
        .into_iter()
        .map(|advice| Missing {
            what: advice.missing,
            remedy: advice.remedy,
        })
        .collect();
    if let Some(obstacle) = docker.image_obstacle(&config.image).await? {
        let (what, remedy) = why(&obstacle);
        missing.push(Missing { what, remedy });
    }
    Ok(EngineReport {
        usable,
        equals_root: capability.posture != "docker-rootless",
        posture: capability.posture,
        rung: capability.rung,
        image: config.image.clone(),
        missing,
    })
}
