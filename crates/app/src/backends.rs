//! Which walls this machine offers, and which of them sessions get that name none: decided once per server start.

use std::{fs, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use model::{BackendName, HostDirectory, OwnerId, RootFileSystem};
use sandbox::{Backend, BackendError, Capability};
use sandbox_docker::{Docker, DockerConfig, images::ImageRules};
use sandbox_native::{Native, NativeConfig};
use session::Backends;

use crate::config::{BackendChoice, Config};

/// How long a server that was not told which walls to use waits for an engine: one that hangs must not keep it from
/// starting with the embedded ones.
const ENGINE_PATIENCE: Duration = Duration::from_secs(2);

/// What was found.
pub(crate) struct Found {
    /// All that work here.
    pub backends: Backends,
    /// Their names, those of sessions that name none first.
    pub names: Vec<BackendName>,
    /// What the first of them can enforce.
    pub capability: Capability,
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
    let (embedded, engine) = tokio::join!(native(config, owner), docker(config, owner));
    let (first, second) = match config.backend {
        BackendChoice::Native => (embedded.map_err(told).context(NO_NATIVE)?, engine.ok()),
        BackendChoice::Docker => (engine.map_err(told).context(NO_DOCKER)?, embedded.ok()),
        BackendChoice::Auto => match (embedded, engine) {
            (Ok(embedded), Ok(engine)) if !engine.ready => (embedded, Some(engine)),
            (embedded, Ok(engine)) => (engine, embedded.ok()),
            (embedded, Err(error)) => {
                tracing::debug!(%error, "no Docker engine is used");
                (embedded.map_err(told).context(NO_NATIVE)?, None)
            }
        },
    };
    let capability = first.capability.clone();
    let all: Vec<_> = std::iter::once(first).chain(second).collect();
    Ok(Found {
        names: all.iter().map(|found| found.backend.name()).collect(),
        backends: Backends::new(all.into_iter().map(|found| (found.backend, found.root))),
        capability,
    })
}

const NO_NATIVE: &str = "no sandbox can be built on this machine";
const NO_DOCKER: &str = "the configured Docker engine cannot be used";

/// With what to do, which is no part of what the error says of itself.
fn told(error: BackendError) -> anyhow::Error {
    if let BackendError::Unavailable { remedy, .. } = &error {
        anyhow::anyhow!("{error}; what to do: {remedy}")
    } else {
        error.into()
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

async fn docker(config: &Config, owner: OwnerId) -> Result<Working, BackendError> {
    let settings = docker_config(config, &config.paths.state_dir, owner);
    if config.backend != BackendChoice::Docker && !settings.socket_exists() {
        return Err(no_engine());
    }
    let backend = Docker::open(settings)?;
    let look = async {
        let capability = backend.capability().await?;
        let ready = backend.is_usable(&config.image).await?;
        Ok((capability, ready))
    };
    let (capability, ready) = if config.backend == BackendChoice::Docker {
        look.await?
    } else {
        tokio::time::timeout(ENGINE_PATIENCE, look)
            .await
            .unwrap_or_else(|_| Err(BackendError::Timeout("asking the engine".to_owned())))?
    };
    Ok(Working {
        backend: Arc::new(backend),
        root: RootFileSystem::Image(config.image.clone()),
        capability,
        ready,
    })
}

/// How an engine is found.
pub(crate) fn docker_config(config: &Config, state: &Path, owner: OwnerId) -> DockerConfig {
    let mut docker = DockerConfig::new(state.to_owned(), owner);
    docker.docker_host.clone_from(&config.docker_host);
    docker.image_rules = ImageRules {
        max_age: config.image_max_age,
        digest: config.image_digest.clone(),
    };
    docker.runtime_directory = config.paths.runtime_dir().map(ToOwned::to_owned);
    docker
}

fn no_engine() -> BackendError {
    BackendError::Unavailable {
        why: "no Docker engine listens".to_owned(),
        remedy: "start one, or set DOCKER_HOST".to_owned(),
    }
}
