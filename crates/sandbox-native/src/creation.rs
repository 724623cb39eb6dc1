//! One sandbox, from the server's side: its directory, its ids, its socket, then the helper. Either all of it exists
//! afterwards or nothing.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{fs::chown, net::UnixListener},
    },
    path::Path,
};

use model::{AGENT_GID, AGENT_UID, LimitName, SandboxSpec};
use sandbox::BackendError;
use sandbox_host::{link, supervisor_arguments};

use crate::{
    config::NativeConfig,
    helpers::Helpers,
    plan::{Answer, Identity, Order, Plan},
    probe::Machine,
    record::Layout,
    removal,
    seccomp::Filter,
};

/// A sandbox that runs.
pub(crate) struct Created {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub listener: UnixListener,
}

/// What creation needs to know besides the spec.
pub(crate) struct Ground<'server> {
    pub config: &'server NativeConfig,
    pub layout: &'server Layout,
    pub machine: &'server Machine,
    pub program: &'server OwnedFd,
    pub extra_read_only: &'server [std::path::PathBuf],
    pub filter: &'server Filter,
    pub helpers: &'server Helpers,
}

/// Makes it.
///
/// # Errors
/// See [`sandbox::Backend::create`].
pub(crate) fn create(ground: &Ground<'_>, spec: SandboxSpec) -> Result<Created, BackendError> {
    let session = spec.session;
    let instance = match ground.layout.create_instance(session) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(BackendError::AlreadyExists);
        }
        instance => instance.map_err(|source| step("make the session's directory", source))?,
    };
    take_identity(ground, &spec)
        .and_then(|identity| build(ground, &instance, identity, &spec))
        .inspect_err(|_| undo(ground, &spec))
}

fn take_identity(ground: &Ground<'_>, spec: &SandboxSpec) -> Result<Identity, BackendError> {
    match ground.machine.identity {
        Identity::Range { .. } => ground
            .layout
            .take_range(ground.config, spec.session)
            .map_err(|source| step("take a range of user ids", source)),
        user @ (Identity::Subordinate { .. } | Identity::Single { .. }) => Ok(user),
    }
}

/// The helper has undone what it did; this removes what the server did, and what a killed helper left.
fn undo(ground: &Ground<'_>, spec: &SandboxSpec) {
    let removed = removal::remove(
        ground.layout,
        ground.config,
        &ground.machine.hierarchy,
        spec.session,
    );
    if let Err(error) = removed {
        tracing::error!(session = %spec.session, %error, "remains of a failed creation stay until the next start");
    }
}

fn build(
    ground: &Ground<'_>,
    instance: &Path,
    identity: Identity,
    spec: &SandboxSpec,
) -> Result<Created, BackendError> {
    if let Identity::Range { base } = identity {
        // Owned by the agent on the disk, too: what it marks set-user-id then is nobody's.
        chown(
            instance.join("state"),
            Some(base + AGENT_UID),
            Some(base + AGENT_GID),
        )
        .map_err(|source| step("give the state directory to the agent", source))?;
    }
    let listener =
        link::bind(instance).map_err(|source| step("listen for the supervisor", source))?;
    let hierarchy = &ground.machine.hierarchy;
    let watches_memory = hierarchy.holds(LimitName::MemoryBytes).is_none();
    let plan = Plan {
        spec: spec.clone(),
        instance: instance.to_owned(),
        object_name: spec.session.object_name(&ground.config.owner),
        identity,
        hierarchy: ground.machine.hierarchy.clone(),
        extra_read_only: ground.extra_read_only.to_owned(),
        supervisor_arguments: supervisor_arguments(spec, watches_memory).to_argv(),
        filter: ground.filter.clone(),
    };
    let order = Order::Create(Box::new(plan));
    let (answer, pidfd) = ground.helpers.ask(&order, Some(ground.program))?;
    match (answer, pidfd) {
        (Answer::Created { pid }, Some(pidfd)) => Ok(Created {
            pid,
            pidfd,
            listener,
        }),
        (Answer::Failed(failure), _) => Err(failure.into()),
        (Answer::Created { .. } | Answer::Probed, _) => Err(step(
            "understand the helper",
            io::ErrorKind::InvalidData.into(),
        )),
    }
}

fn step(step: &str, source: io::Error) -> BackendError {
    BackendError::Step {
        step: step.to_owned(),
        source,
    }
}
