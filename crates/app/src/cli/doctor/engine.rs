//! Whether a Docker engine of this machine can carry sessions, and what using it means.

use std::time::Duration;

use sandbox::BackendError;
use sandbox_docker::{
    DockerConfig,
    doctor::{Standing, Versions, stand},
};
use serde::Serialize;

use super::capability::{Missing, scratch, why};
use crate::{
    backends::engines::{Choice, PassedOver, choose, docker_config},
    config::Config,
};

/// How long an engine may take for all that is asked of it.
const PATIENCE: Duration = Duration::from_secs(8);

/// See the module.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EngineReport {
    /// Sessions can be made on it right now.
    pub(super) usable: bool,
    /// Where it is; empty where none answers.
    pub(super) engine: String,
    /// Whoever may speak to it is root on this machine.
    pub(super) equals_root: bool,
    pub(super) posture: String,
    pub(super) rung: String,
    pub(super) image: String,
    /// Versions of the engine and of what it stands on; `null` where it does not answer.
    pub(super) versions: Option<Versions>,
    /// Runtimes that it offers; which of them sessions may have is configured (`runtime_classes`).
    pub(super) runtimes: Vec<String>,
    /// How it stands to known faults: by version, and by what of ours keeps sessions from them.
    pub(super) advisories: Vec<Standing>,
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
            engine: String::new(),
            equals_root: false,
            posture: String::new(),
            rung: String::new(),
            image: config.image.clone(),
            versions: None,
            runtimes: Vec::new(),
            advisories: Vec::new(),
            missing: vec![Missing { what, remedy }],
        }
    })
}

async fn ask(config: &Config) -> Result<EngineReport, BackendError> {
    let (scratch, owner) = scratch()?;
    let mut candidates = docker_config(config, scratch.path(), owner).candidates();
    if candidates.len() > 1 {
        candidates.retain(DockerConfig::may_exist);
    }
    let Choice {
        engine,
        passed_over,
    } = choose(candidates, &config.image, PATIENCE).await;
    let engine = engine?;
    let (docker, capability) = (engine.docker, engine.capability);
    let usable = engine.obstacle.is_none();
    let mut missing: Vec<_> = passed_over.into_iter().map(not_used).collect();
    let advice = capability.advice.into_iter().map(|advice| Missing {
        what: advice.missing,
        remedy: advice.remedy,
    });
    missing.extend(advice);
    if let Some(obstacle) = docker.image_obstacle(&config.image).await? {
        let (what, remedy) = why(&obstacle);
        missing.push(Missing { what, remedy });
    }
    let about = docker.about().await?;
    if !about.live_restore {
        missing.push(Missing {
            what: "sessions end when the engine restarts".to_owned(),
            remedy: "set \"live-restore\": true in the engine's daemon.json".to_owned(),
        });
    }
    let unknown = config.runtime_classes.iter();
    let unknown = unknown.filter(|class| !about.runtimes.contains(&class.name));
    missing.extend(unknown.map(|class| Missing {
        what: format!("the engine has no runtime `{}`, which `runtime_classes` names", class.name),
        remedy: "register it with the engine (`runtimes` in its daemon.json), or take it off the list".to_owned(),
    }));
    Ok(EngineReport {
        advisories: stand(&about.versions).map_err(|error| BackendError::Step {
            step: "read the table of advisories".to_owned(),
            source: std::io::Error::other(error),
        })?,
        versions: Some(about.versions),
        runtimes: about.runtimes,
        usable,
        engine: engine.name,
        equals_root: capability.posture == "docker-rootful",
        posture: capability.posture,
        rung: capability.rung,
        image: config.image.clone(),
        missing,
    })
}

fn not_used(engine: PassedOver) -> Missing {
    let (why, remedy) = why(&engine.why);
    Missing {
        what: format!("the engine at {} is passed over: {why}", engine.name),
        remedy,
    }
}
