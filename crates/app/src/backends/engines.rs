//! Which Docker engine is used: the one that is configured, else the first of those that are looked for that can carry
//! sessions. The others are passed over, and that is said.

use std::{path::Path, time::Duration};

use model::OwnerId;
use sandbox::{Backend, BackendError, Capability};
use sandbox_docker::{Docker, DockerConfig, images::ImageRules};

use crate::config::Config;

/// How long a command about images waits for each engine before it looks at the next.
const IMAGE_PATIENCE: Duration = Duration::from_secs(8);

/// An engine that answers.
pub(crate) struct Engine {
    /// The backend on it.
    pub docker: Docker,
    /// Where it is.
    pub name: String,
    /// What it can enforce.
    pub capability: Capability,
    /// Why no session can be made right now, if none can.
    pub obstacle: Option<BackendError>,
}

/// An engine that is not used although it was looked at.
pub(crate) struct PassedOver {
    /// Where it is.
    pub name: String,
    /// Why.
    pub why: BackendError,
}

/// What came of looking.
pub(crate) struct Choice {
    /// The one to use: it can carry sessions, or it answers and none can.
    pub engine: Result<Engine, BackendError>,
    /// The others.
    pub passed_over: Vec<PassedOver>,
}

/// Looks at one after the other, each with that patience.
pub(crate) async fn choose(
    candidates: Vec<DockerConfig>,
    image: &str,
    patience: Duration,
) -> Choice {
    let mut passed_over = Vec::new();
    let mut answering = None;
    let mut failed = None;
    for settings in candidates {
        let name = settings.engine_name();
        match tokio::time::timeout(patience, look(settings, image)).await {
            Ok(Ok(engine)) if engine.obstacle.is_none() => {
                passed_over.extend(answering.and_then(passed));
                passed_over.extend(failed);
                return Choice {
                    engine: Ok(engine),
                    passed_over,
                };
            }
            Ok(Ok(engine)) if answering.is_none() => answering = Some(engine),
            Ok(Ok(engine)) => passed_over.extend(passed(engine)),
            Ok(Err(why)) => passed_over.extend(failed.replace(PassedOver { name, why })),
            Err(_) => {
                let why = BackendError::Timeout(format!("asking the engine at {name}"));
                passed_over.extend(failed.replace(PassedOver { name, why }));
            }
        }
    }
    match (answering, failed) {
        (Some(engine), failed) => {
            passed_over.extend(failed);
            Choice {
                engine: Ok(engine),
                passed_over,
            }
        }
        (None, failed) => Choice {
            engine: Err(failed.map_or_else(no_engine, |failed| failed.why)),
            passed_over,
        },
    }
}

/// The first that can carry sessions once it has an image; where none can, the one that is asked first. Nothing is asked
/// where there is no choice.
pub(crate) async fn carrying(all: DockerConfig) -> DockerConfig {
    let mut candidates = all.candidates();
    candidates.retain(DockerConfig::may_exist);
    if candidates.len() < 2 {
        return candidates.pop().unwrap_or(all);
    }
    for settings in candidates {
        let asked = tokio::time::timeout(IMAGE_PATIENCE, can_carry(&settings)).await;
        if asked.is_ok_and(|can| can.unwrap_or(false)) {
            return settings;
        }
    }
    all
}

/// Asked with a directory that is gone afterwards: no session is made.
async fn can_carry(settings: &DockerConfig) -> Result<bool, BackendError> {
    let step = |source| BackendError::Step {
        step: "make a scratch directory".to_owned(),
        source,
    };
    let scratch = tempfile::tempdir().map_err(step)?;
    let docker = Docker::open(DockerConfig {
        state_directory: scratch.path().to_owned(),
        ..settings.clone()
    })?;
    Ok(docker.engine_obstacle().await?.is_none())
}

fn passed(engine: Engine) -> Option<PassedOver> {
    let (name, why) = (engine.name, engine.obstacle?);
    Some(PassedOver { name, why })
}

async fn look(settings: DockerConfig, image: &str) -> Result<Engine, BackendError> {
    let name = settings.engine_name();
    let docker = Docker::open(settings)?;
    Ok(Engine {
        name,
        capability: docker.capability().await?,
        obstacle: docker.obstacle(image).await?,
        docker,
    })
}

/// How engines are found.
pub(crate) fn docker_config(config: &Config, state: &Path, owner: OwnerId) -> DockerConfig {
    let mut docker = DockerConfig::new(state.to_owned(), owner);
    docker.docker_host.clone_from(&config.docker_host);
    docker.tcp = config.docker_tcp.clone();
    docker.image_rules = ImageRules {
        max_age: config.image_max_age,
        digest: config.image_digest.clone(),
    };
    docker.runtime_directory = config.paths.runtime_dir().map(ToOwned::to_owned);
    docker
}

pub(crate) fn no_engine() -> BackendError {
    BackendError::Unavailable {
        why: "no Docker engine listens".to_owned(),
        remedy: "start one, or set DOCKER_HOST".to_owned(),
    }
}
