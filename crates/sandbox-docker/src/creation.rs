//! One sandbox: the image, its directory, placeholders, mounts, socket, then the container. Either all of it exists
//! afterwards or nothing.

use std::{
    fs, io,
    os::unix::{fs::chown, net::UnixListener},
    path::{Path, PathBuf},
};

use bollard::models::ImageInspect;
use jiff::Timestamp;
use model::{AGENT_GID, AGENT_UID, Kernel, RootFileSystem, SandboxSpec};
use sandbox::{
    BackendError,
    carrier::{Key, Streams},
    wire::CarrierKey,
};
use sandbox_host::{Layout, link, placeholder};

use crate::{
    engine::Engine,
    host_config::{Making, PROGRAM_NAME, container},
    images::{ImageRules, is_image_name},
    inspection::{self, Live},
    machine::Machine,
    place,
    record::Record,
    staging::{self, Staged},
};

/// A sandbox that runs.
pub(crate) struct Created {
    pub live: Live,
    pub road: Road,
}

/// How its supervisor's connections arrive.
pub(crate) enum Road {
    /// At the host's socket, which is mounted into it.
    Socket(UnixListener),
    /// Over its standard streams, which may be there already.
    Streams(Key, Option<Streams>),
}

/// What creation needs to know besides the spec.
pub(crate) struct Ground<'server> {
    pub engine: &'server Engine,
    pub layout: &'server Layout,
    pub machine: &'server Machine,
    pub image_rules: &'server ImageRules,
    pub seccomp: &'server str,
    pub attached_streams: bool,
    pub program: &'server Path,
}

/// Where a sandbox is to be made, and of what.
pub(crate) struct Begun {
    image: String,
    instance: PathBuf,
}

/// What comes before anything that is to be undone.
///
/// # Errors
/// See [`sandbox::Backend::create`].
pub(crate) async fn begin(ground: &Ground<'_>, spec: &SandboxSpec) -> Result<Begun, BackendError> {
    let image = find_image(ground, spec).await?;
    let (layout, session) = (ground.layout.clone(), spec.session);
    let instance = blocking(move || match layout.create_instance(session) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(BackendError::AlreadyExists)
        }
        instance => instance.map_err(|source| step("make the session's directory", source)),
    });
    Ok(Begun {
        image,
        instance: instance.await?,
    })
}

/// The image by its id, so that nobody can put another one in its place meanwhile.
async fn find_image(ground: &Ground<'_>, spec: &SandboxSpec) -> Result<String, BackendError> {
    let RootFileSystem::Image(name) = &spec.root else {
        return Err(BackendError::Unsupported(
            "a root file system that is no image".to_owned(),
        ));
    };
    match admitted(ground.engine, ground.image_rules, name).await {
        Err(BackendError::NotFound) => Err(no_image(name)),
        found => found,
    }
}

/// The id of the image, if it is there and the operator's rules allow it.
pub(crate) async fn admitted(
    engine: &Engine,
    rules: &ImageRules,
    name: &str,
) -> Result<String, BackendError> {
    let image = look_up(engine, rules, name).await?;
    rules.admit(
        name,
        &image.ok_or(BackendError::NotFound)?,
        Timestamp::now(),
    )
}

pub(crate) fn no_image(name: &str) -> BackendError {
    BackendError::Unavailable {
        why: format!("the engine has no image {name}"),
        remedy: "make it: `claude-code-mcp image build`; or name one that the engine has: DEFAULT_CLAUDE_IMAGE"
            .to_owned(),
    }
}

/// The image of that name; where it has none on this engine, the one with the pinned digest.
pub(crate) async fn look_up(
    engine: &Engine,
    rules: &ImageRules,
    name: &str,
) -> Result<Option<ImageInspect>, BackendError> {
    if !is_image_name(name) {
        return Err(BackendError::Unsupported(format!(
            "an image called {name:?}"
        )));
    }
    let found = engine.image(name).await?;
    match &rules.digest {
        Some(digest) if found.is_none() => engine.image(&format!("{name}@{digest}")).await,
        Some(_) | None => Ok(found),
    }
}

/// Makes it.
///
/// # Errors
/// See [`sandbox::Backend::create`]; whatever came before is to be removed then.
pub(crate) async fn build(
    ground: &Ground<'_>,
    begun: &Begun,
    spec: &SandboxSpec,
) -> Result<Created, BackendError> {
    let Begun { image, instance } = begun;
    let key = carrier_key(ground, spec)?;
    let staged = blocking({
        let (instance, spec) = (instance.clone(), spec.clone());
        let program = ground.program.to_owned();
        let first_id = ground.machine.first_id;
        move || prepare(&instance, &program, &spec, (key, first_id))
    })
    .await?;
    let making = Making {
        image,
        seccomp: ground.seccomp,
        swappiness: ground.machine.swappiness,
        staged: &staged,
        attached: key.is_some(),
    };
    let name = spec.session.object_name(&spec.owner);
    let id = ground
        .engine
        .create(&name, container(spec, &making))
        .await?;
    let road = match key {
        None => Road::Socket(listen(instance.clone()).await?),
        // Before anything is written to them.
        Some(key) => Road::Streams(Key::First(key), Some(ground.engine.attach(&id).await?)),
    };
    ground.engine.start(&id).await?;
    let live = place::arrived(ground.engine, &spec.owner, spec.session).await?;
    match spec.kernel() {
        Kernel::Guest => inspection::mounted(&live, &staged)?,
        Kernel::Shared => place::mapped(live.pid, ground.machine.first_id).await?,
    }
    blocking({
        let (instance, spec, pid) = (instance.clone(), spec.clone(), live.pid);
        move || {
            // A kernel of its own shows the host nothing of its mounts: its supervisor does, before it is believed.
            if spec.kernel() == Kernel::Shared {
                staging::arrived(pid, &instance, &spec)?;
            }
            staging::remove(&instance).map_err(|source| step("take the mounts away", source))
        }
    })
    .await?;
    Ok(Created { live, road })
}

/// Binds the socket of a session.
///
/// # Errors
/// When it cannot be bound.
pub(crate) async fn listen(instance: PathBuf) -> Result<UnixListener, BackendError> {
    blocking(move || {
        link::bind(&instance).map_err(|source| step("listen for the supervisor", source))
    })
    .await
}

/// A key where frames travel over the standard streams: a kernel of the sandbox's own cannot dial a socket of the host's.
fn carrier_key(
    ground: &Ground<'_>,
    spec: &SandboxSpec,
) -> Result<Option<CarrierKey>, BackendError> {
    if !ground.attached_streams && spec.kernel() == Kernel::Shared {
        return Ok(None);
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| step("make a key", io::Error::other(error)))?;
    Ok(Some(CarrierKey::new(key)))
}

/// All that happens on the host before there is a container.
fn prepare(
    instance: &Path,
    program: &Path,
    spec: &SandboxSpec,
    (key, first_id): (Option<CarrierKey>, u32),
) -> Result<Vec<Staged>, BackendError> {
    let mut record = Record::of(spec);
    record.carrier_key = key;
    record
        .write(instance)
        .map_err(|source| step("write the record", source))?;
    placeholder::keep_free(instance, &spec.workspace, &spec.protected, |placeholders| {
        record.placeholders = placeholders.to_vec();
        record.write(instance)
    })?;
    let agent = (Some(first_id + AGENT_UID), Some(first_id + AGENT_GID));
    chown(instance.join("state"), agent.0, agent.1)
        .map_err(|source| step("give the state directory to the agent", source))?;
    fs::hard_link(program, instance.join("socket").join(PROGRAM_NAME))
        .map_err(|source| step("lay the supervisor ready", source))?;
    Ok(staging::make(instance, spec, first_id)?)
}

/// Runs `work` where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
) -> Result<T, BackendError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| step("finish a blocking step", io::Error::other(error)))?
}

pub(crate) fn step(step: &str, source: io::Error) -> BackendError {
    BackendError::Step {
        step: step.to_owned(),
        source,
    }
}
