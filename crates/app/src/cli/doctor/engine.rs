//! Whether a Docker engine of this machine can carry sessions, and what using it means.

use std::{path::Path, time::Duration};

use model::OwnerId;
use sandbox::BackendError;
use sandbox_docker::{
    DockerConfig,
    doctor::{Access, EngineKind, Standing, Versions, access, stand},
};
use serde::Serialize;

use super::{
    capability::{Missing, scratch, why},
    walls::{self, WallsReport},
};
use crate::{
    backends::{
        engines::{Choice, PassedOver, choose, docker_config},
        not_on_engines,
    },
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
    /// What kind of engine it is, whether speaking to it is being root, and why.
    pub(super) access: Option<Access>,
    pub(super) rung: String,
    pub(super) image: String,
    /// Versions of the engine and of what it stands on; `null` where it does not answer.
    pub(super) versions: Option<Versions>,
    /// Runtimes that it offers; which of them sessions may have is configured (`runtime_classes`).
    pub(super) runtimes: Vec<String>,
    /// How it stands to known faults: by what a trial showed, else by version and by what of ours keeps sessions from them.
    pub(super) advisories: Vec<Standing>,
    pub(super) missing: Vec<Missing>,
    /// What became of trying the walls; `null` where that was not asked.
    pub(super) walls: Option<WallsReport>,
}

/// Asks the engine, with a scratch directory for a state directory, so that a running server is not disturbed. `try_walls`:
/// starts a sandbox on it, too.
pub(super) async fn probe(config: &Config, try_walls: bool) -> EngineReport {
    let walls = match try_walls {
        true => Some(walls::probe(config).await),
        false => None,
    };
    let asked = tokio::time::timeout(PATIENCE, ask(config, walls.as_ref())).await;
    let late = || Err(BackendError::Timeout("asking the engine".to_owned()));
    let report = asked
        .unwrap_or_else(|_| late())
        .unwrap_or_else(|error| silent(config, &error));
    EngineReport { walls, ..report }
}

/// Of an engine that does not answer, or that sessions cannot use.
fn silent(config: &Config, error: &BackendError) -> EngineReport {
    let (what, remedy) = why(error);
    let access = scratch()
        .ok()
        .map(|(scratch, owner)| access(&docker_config(config, scratch.path(), owner), None));
    EngineReport {
        usable: false,
        engine: String::new(),
        equals_root: access.as_ref().is_some_and(|access| access.equals_root),
        posture: match access.as_ref().map(|access| access.kind) {
            Some(EngineKind::Remote) => "docker-remote".to_owned(),
            Some(_) | None => String::new(),
        },
        access,
        rung: String::new(),
        image: config.image.clone(),
        versions: None,
        runtimes: Vec::new(),
        advisories: Vec::new(),
        missing: vec![Missing { what, remedy }],
        walls: None,
    }
}

async fn ask(config: &Config, walls: Option<&WallsReport>) -> Result<EngineReport, BackendError> {
    let (scratch, owner) = scratch()?;
    let Choice {
        engine,
        passed_over,
    } = chosen(config, scratch.path(), owner).await;
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
    missing.extend(not_on_engines(config).map(|(what, remedy)| Missing {
        what: what.to_owned(),
        remedy: remedy.to_owned(),
    }));
    let unknown = config.runtime_classes.iter();
    let unknown = unknown.filter(|class| !about.runtimes.contains(&class.name));
    missing.extend(unknown.map(|class| Missing {
        what: format!("the engine has no runtime `{}`, which `runtime_classes` names", class.name),
        remedy: "register it with the engine (`runtimes` in its daemon.json), or take it off the list".to_owned(),
    }));
    let findings = walls.map(WallsReport::findings).unwrap_or_default();
    Ok(EngineReport {
        advisories: stand(&about.versions, &findings).map_err(|error| BackendError::Step {
            step: "read the table of advisories".to_owned(),
            source: std::io::Error::other(error),
        })?,
        versions: Some(about.versions),
        runtimes: about.runtimes,
        usable,
        engine: engine.name,
        // On this machine: one elsewhere makes root there.
        equals_root: about.access.equals_root && capability.posture != "docker-remote",
        access: Some(about.access),
        posture: capability.posture,
        rung: capability.rung,
        image: config.image.clone(),
        missing,
        walls: None,
    })
}

/// The engine that a server would use, with that state directory.
pub(super) async fn chosen(config: &Config, state: &Path, owner: OwnerId) -> Choice {
    let mut candidates = docker_config(config, state, owner).candidates();
    if candidates.len() > 1 {
        candidates.retain(DockerConfig::may_exist);
    }
    choose(candidates, &config.image, PATIENCE).await
}

fn not_used(engine: PassedOver) -> Missing {
    let (why, remedy) = why(&engine.why);
    Missing {
        what: format!("the engine at {} is passed over: {why}", engine.name),
        remedy,
    }
}
