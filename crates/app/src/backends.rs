//! Which walls this machine offers, and which of them sessions get that name none: decided once per server start.

pub(crate) mod engines;

use std::{fs, os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use anyhow::Context;
use model::{BackendName, HostDirectory, OwnerId, RootFileSystem};
use sandbox::{Backend, BackendError, Capability};
use sandbox_docker::DockerConfig;
use sandbox_native::{Native, NativeConfig};
use session::Backends;

pub(crate) use engines::docker_config;

use crate::config::{BackendChoice, Config};

/// How long a server that was not told which walls to use waits for an engine: one that hangs must not keep it from
/// starting with the embedded ones.
const ENGINE_PATIENCE: Duration = Duration::from_secs(2);

/// How long one that was told to use an engine waits for each: longer than the backend does for one answer, which then says
/// what was asked.
const CONFIGURED_PATIENCE: Duration = Duration::from_secs(30);

/// What was found.
pub(crate) struct Found {
    /// All that work here.
    pub backends: Backends,
    /// Their names, those of sessions that name none first.
    pub names: Vec<BackendName>,
    /// What the first of them can enforce.
    pub capability: Capability,
    /// Engines that are not used, and why: for the operator and for callers.
    pub notes: Vec<String>,
}

/// One backend that works here.
struct Working {
    backend: Arc<dyn Backend>,
    root: RootFileSystem,
    capability: Capability,
    /// Sessions can be made right now, without anything else being done.
    ready: bool,
}

/// Looks for all, and chooses.
///
/// # Errors
/// When the one that is configured, or any, cannot be used.
pub(crate) async fn find(config: &Config, owner: OwnerId) -> anyhow::Result<Found> {
    let (embedded, (engine, notes)) = tokio::join!(native(config, owner), docker(config, owner));
    for note in &notes {
        tracing::warn!("{note}");
    }
    let (first, second) = match config.backend {
        BackendChoice::Native => (embedded.map_err(told).context(NO_NATIVE)?, engine.ok()),
        BackendChoice::Docker => (engine.map_err(told).context(NO_DOCKER)?, embedded.ok()),
        BackendChoice::Auto => match (embedded, engine) {
            (Ok(embedded), Ok(engine)) if !engine.ready => (embedded, Some(engine)),
            (embedded, Ok(engine)) => (engine, embedded.ok()),
            (embedded, Err(_)) => (embedded.map_err(told).context(NO_NATIVE)?, None),
        },
    };
    let capability = first.capability.clone();
    let all: Vec<_> = std::iter::once(first).chain(second).collect();
    let has_engine = all
        .iter()
        .any(|found| found.backend.name() == BackendName::Docker);
    let lost = not_on_engines(config).filter(|_| has_engine);
    let notes = notes
        .into_iter()
        .chain(lost.map(|(what, remedy)| format!("On Docker, {what}; what to do: {remedy}.")))
        .collect();
    Ok(Found {
        names: all.iter().map(|found| found.backend.name()).collect(),
        backends: Backends::new(all.into_iter().map(|found| (found.backend, found.root))),
        capability,
        notes,
    })
}

/// Why sessions of the embedded runtime have no root file system, where no other walls may be used.
pub(crate) fn root_problem(config: &Config) -> Option<anyhow::Error> {
    match config.backend {
        BackendChoice::Native => {
            let root = native_root(config).map_err(told).context(NO_NATIVE);
            root.err()
        }
        BackendChoice::Auto | BackendChoice::Docker => None,
    }
}

/// What of the configuration sessions on an engine do not get, and what to do about it.
pub(crate) fn not_on_engines(config: &Config) -> Option<(&'static str, &'static str)> {
    (!config.extra_read_only.is_empty()).then_some((
        "sessions see nothing of `extra_read_only`",
        "put the tools into the image, or use `backend = \"native\"`",
    ))
}

const NO_NATIVE: &str = "no sandbox can be built on this machine";
const NO_DOCKER: &str = "the configured Docker engine cannot be used";

/// With what to do, which is no part of what the error says of itself.
fn told(error: BackendError) -> anyhow::Error {
    match remedy(&error) {
        Some(remedy) => anyhow::anyhow!("{error}; what to do: {remedy}"),
        None => error.into(),
    }
}

fn remedy(error: &BackendError) -> Option<&str> {
    if let BackendError::Unavailable { remedy, .. }
    | BackendError::EngineUnfit { remedy, .. }
    | BackendError::ImageRefused { remedy, .. } = error
    {
        Some(remedy)
    } else {
        None
    }
}

async fn native(config: &Config, owner: OwnerId) -> Result<Working, BackendError> {
    let backend = open_native(config, owner)?;
    let capability = backend.capability().await?;
    Ok(Working {
        backend: Arc::new(backend),
        root: native_root(config)?,
        capability,
        ready: true,
    })
}

/// What sessions of the embedded runtime see as their root file system.
///
/// # Errors
/// When the configured directory is not there, or others could change what sessions run.
pub(crate) fn native_root(config: &Config) -> Result<RootFileSystem, BackendError> {
    let Some(configured) = &config.native_root else {
        return Ok(RootFileSystem::HostSystem);
    };
    let unusable = |why: String| BackendError::Unavailable {
        why: format!("the configured native_root {} {why}", configured.display()),
        remedy: "make one: `claude-code-mcp image unpack`".to_owned(),
    };
    let found = fs::canonicalize(configured)
        .and_then(|path| Ok((fs::metadata(&path)?, path)))
        .map_err(|error| unusable(format!("cannot be used: {error}")))?;
    let (metadata, path) = found;
    if !metadata.is_dir() {
        return Err(unusable("is no directory".to_owned()));
    }
    let own = rustix::process::geteuid().as_raw();
    if ![0, own].contains(&metadata.uid()) || metadata.mode() & 0o022 != 0 {
        return Err(unusable("can be changed by others".to_owned()));
    }
    // A root file system without a shell runs nothing; the machine's own has one.
    if fs::symlink_metadata(path.join("bin/sh")).is_err() {
        return Err(unusable("holds no /bin/sh".to_owned()));
    }
    Ok(RootFileSystem::Directory(HostDirectory {
        device: metadata.dev(),
        inode: metadata.ino(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        path,
    }))
}

fn open_native(config: &Config, owner: OwnerId) -> Result<Native, BackendError> {
    let mut native = NativeConfig::new(config.paths.state_dir.clone(), owner);
    native.extra_read_only.clone_from(&config.extra_read_only);
    Native::open(native)
}

/// The engine that is used, and what is to be said of others.
async fn docker(config: &Config, owner: OwnerId) -> (Result<Working, BackendError>, Vec<String>) {
    let is_configured = config.backend == BackendChoice::Docker;
    let mut candidates = docker_config(config, &config.paths.state_dir, owner).candidates();
    if candidates.len() > 1 || !is_configured {
        candidates.retain(DockerConfig::may_exist);
    }
    let patience = if is_configured {
        CONFIGURED_PATIENCE
    } else {
        ENGINE_PATIENCE
    };
    let engines::Choice {
        engine,
        passed_over,
    } = engines::choose(candidates, &config.image, patience).await;
    let mut said: Vec<_> = passed_over
        .iter()
        .map(|one| not_used(&one.name, &one.why))
        .collect();
    match &engine {
        Ok(engine) => {
            let unfit = engine.obstacle.as_ref().filter(|why| bars_all(why));
            said.extend(unfit.map(|why| not_used(&engine.name, why)));
        }
        // Where nobody asked for one and none is there, there is nothing to say.
        Err(why) if config.docker_host.is_some() => {
            let name = config.docker_host.as_deref().unwrap_or_default();
            said.push(not_used(name, why));
        }
        Err(error) => tracing::debug!(%error, "no Docker engine is used"),
    }
    let working = engine.map(|engine| Working {
        backend: Arc::new(engine.docker),
        root: RootFileSystem::Image(config.image.clone()),
        capability: engine.capability,
        ready: engine.obstacle.is_none(),
    });
    (working, said)
}

/// It keeps every session from the engine, whatever its image is.
fn bars_all(why: &BackendError) -> bool {
    matches!(
        why,
        BackendError::EngineElsewhere { .. } | BackendError::EngineUnfit { .. }
    )
}

fn not_used(name: &str, why: &BackendError) -> String {
    match remedy(why) {
        Some(remedy) => {
            format!("The Docker engine at {name} is not used: {why}; what to do: {remedy}.")
        }
        None => format!("The Docker engine at {name} is not used: {why}."),
    }
}
