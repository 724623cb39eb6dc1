//! What is in force in a running container, read back twice: from the engine, and from `/proc/<pid>` and the control
//! groups. A layer counts only where neither contradicts.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use bollard::models::{ContainerInspectResponse, HostConfig, HostConfigCgroupnsModeEnum};
use model::{
    Enforcement, Kernel, Layer, LayerInForce, LimitInForce, LimitName, Limits, OwnerId,
    RuntimeClass, SessionId,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sandbox::{BackendError, Inspection};
use sandbox_host::{Groups, Outside, ended, host_has_swap};

use crate::{
    creation::{blocking, step},
    engine::Engine,
    host_config::{agent, seccomp_option},
    record::{OWNER_LABEL, SESSION_LABEL},
    staging::Staged,
};

/// A container of ours, running or not.
pub(crate) struct Owned {
    /// Its id.
    pub id: String,
    /// All that the engine says of it.
    pub found: ContainerInspectResponse,
}

/// A container whose pid 1 lives.
pub(crate) struct Live {
    /// Its id.
    pub id: String,
    /// Its pid 1, as this server sees it.
    pub pid: i32,
    /// A handle of that.
    pub pidfd: OwnedFd,
    /// Its control groups.
    pub groups: Groups,
    /// It stands still.
    pub paused: bool,
    /// All that the engine says of it.
    pub found: ContainerInspectResponse,
}

/// The container of that session, if its labels say that it is ours: a name can be anybody's.
///
/// # Errors
/// When the engine does not answer.
pub(crate) async fn owned(
    engine: &Engine,
    owner: &OwnerId,
    session: SessionId,
) -> Result<Option<Owned>, BackendError> {
    let Some(found) = engine.container(&session.object_name(owner)).await? else {
        return Ok(None);
    };
    let labels = found
        .config
        .as_ref()
        .and_then(|config| config.labels.as_ref());
    let says =
        |name: &str, value: String| labels.and_then(|labels| labels.get(name)) == Some(&value);
    let ours = says(OWNER_LABEL, owner.to_string()) && says(SESSION_LABEL, session.to_string());
    match found.id.clone() {
        Some(id) if ours => Ok(Some(Owned { id, found })),
        Some(_) | None => Ok(None),
    }
}

/// The same, if its pid 1 lives.
///
/// # Errors
/// When the engine does not answer.
pub(crate) async fn live(
    engine: &Engine,
    owner: &OwnerId,
    session: SessionId,
) -> Result<Option<Live>, BackendError> {
    let Some(Owned { id, found }) = owned(engine, owner, session).await? else {
        return Ok(None);
    };
    blocking(move || Ok(first_process(id, found))).await
}

/// A handle of exactly the container's first process. Its control group tells it from a later process of that number:
/// looked at after the handle was opened, so if it is the container's now, the handle is.
fn first_process(id: String, found: ContainerInspectResponse) -> Option<Live> {
    let state = found.state.as_ref()?;
    let pid = i32::try_from(state.pid?)
        .ok()
        .filter(|_| state.running == Some(true))?;
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let groups = Groups::of_process(pid).ok()?;
    let paused = state.paused == Some(true);
    (memberships.contains(&id) && !ended(&pidfd)).then_some(Live {
        id,
        pid,
        pidfd,
        groups,
        paused,
        found,
    })
}

/// What was asked of the engine.
pub(crate) struct Asked<'record> {
    /// For the reply alone.
    pub limits: &'record Limits,
    /// See [`model::SandboxSpec::runtime`].
    pub runtime: Option<&'record RuntimeClass>,
    /// The system-call profile in the engine's form.
    pub seccomp: &'record str,
}

impl Asked<'_> {
    fn kernel(&self) -> Kernel {
        self.runtime.map_or(Kernel::Shared, |class| class.kernel)
    }
}

/// Reads what is in force.
///
/// # Errors
/// [`BackendError::NotFound`] when it ended meanwhile.
pub(crate) fn inspect(
    live: &Live,
    asked: &Asked<'_>,
    rung: String,
) -> Result<Inspection, BackendError> {
    let outside = Outside::read(live.pid);
    // What was read is its own only if it lived to the end of the reading.
    if ended(&live.pidfd) {
        return Err(BackendError::NotFound);
    }
    let outside = outside.map_err(|source| step("look at the sandbox", source))?;
    let said = said_by_engine(&live.found, asked.seccomp);
    let layers = match asked.runtime {
        Some(class) if class.kernel == Kernel::Guest => {
            guest_layers(class, &live.found, &outside, &said)
        }
        Some(_) | None => outside
            .layers
            .iter()
            .map(|layer| combine(layer, &said))
            .collect(),
    };
    let read_back = |limit| match asked.kernel() {
        Kernel::Guest if live.groups.mechanism(limit).is_none() => None,
        Kernel::Guest | Kernel::Shared => Some(read_back(limit, asked.limits, live, &outside)),
    };
    let limits = LimitName::ALL.into_iter().filter_map(read_back).collect();
    Ok(Inspection {
        running: true,
        rung,
        layers,
        limits,
    })
}

/// What the engine says of a layer, as words for the evidence.
type Said = (Layer, bool, String);

/// The process that the host sees is the guest's kernel: what keeps it in says nothing of what it keeps in. So the engine's
/// word for the layers, and for the kernel that the engine runs it as asked, in namespaces of its own and filtered.
fn guest_layers(
    class: &RuntimeClass,
    found: &ContainerInspectResponse,
    outside: &Outside,
    said: &[Said],
) -> Vec<LayerInForce> {
    let runtime = found
        .host_config
        .as_ref()
        .and_then(|config| config.runtime.clone())
        .unwrap_or_default();
    let mut layers: Vec<_> = said
        .iter()
        .map(|(layer, in_force, words)| LayerInForce {
            layer: *layer,
            in_force: *in_force,
            evidence: format!("the engine: {words}"),
        })
        .collect();
    let kept_in = |layer: Layer| {
        let mut read = outside.layers.iter();
        read.any(|read| read.layer == layer && read.in_force)
    };
    let around = [Layer::MountNamespace, Layer::NetworkNamespace];
    let missing: Vec<_> = around
        .into_iter()
        .filter(|layer| !kept_in(*layer))
        .collect();
    layers.push(LayerInForce {
        layer: Layer::GuestKernel,
        in_force: runtime == class.name && missing.is_empty(),
        evidence: format!("the engine: Runtime {runtime:?}; its process lacks {missing:?}"),
    });
    layers.sort_by_key(|layer| layer.layer);
    layers
}

/// Whether the engine has mounted all that was asked, and nothing else of the host.
///
/// # Errors
/// [`BackendError::Step`] for the first difference.
pub(crate) fn mounted(live: &Live, staged: &[Staged]) -> Result<(), BackendError> {
    let shown = live.found.mounts.as_deref().unwrap_or_default();
    let same = |staged: &Staged| {
        let is = |text: &Option<String>, path: &Path| text.as_deref().map(Path::new) == Some(path);
        shown.iter().any(|shown| {
            is(&shown.source, &staged.source)
                && is(&shown.destination, &staged.target)
                && shown.rw == Some(!staged.told_read_only)
        })
    };
    let foreign = shown.iter().any(|shown| {
        let binds = shown.typ.as_deref() == Some("bind");
        let source = shown.source.as_deref().map(Path::new);
        binds && !staged.iter().any(|staged| source == Some(&staged.source))
    });
    match staged.iter().find(|staged| !same(staged)) {
        Some(missing) => Err(step(
            &format!(
                "find the mount at {} in the container",
                missing.target.display()
            ),
            io::ErrorKind::NotFound.into(),
        )),
        None if foreign => Err(step(
            "keep other mounts out of the container",
            io::ErrorKind::InvalidData.into(),
        )),
        None => Ok(()),
    }
}

fn combine(read: &LayerInForce, said: &[Said]) -> LayerInForce {
    let Some((_, in_force, words)) = said.iter().find(|(layer, ..)| *layer == read.layer) else {
        return read.clone();
    };
    LayerInForce {
        layer: read.layer,
        in_force: read.in_force && *in_force,
        evidence: format!("{}; the engine: {words}", read.evidence),
    }
}

fn said_by_engine(found: &ContainerInspectResponse, seccomp: &str) -> Vec<Said> {
    let none = HostConfig::default();
    let config = found.host_config.as_ref().unwrap_or(&none);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mode = |layer, name: &str, value: &Option<String>, wanted: &str| {
        let value = text(value);
        (layer, value == wanted, format!("{name} {value:?}"))
    };
    let options = config.security_opt.as_deref().unwrap_or_default();
    let has = |option: &str| options.iter().any(|found| found == option);
    let (added, dropped) = (
        config.cap_add.as_deref().unwrap_or_default(),
        config.cap_drop.as_deref().unwrap_or_default(),
    );
    let privileged = config.privileged != Some(false);
    let user = found.config.as_ref().and_then(|config| config.user.clone());
    vec![
        mode(
            Layer::NetworkNamespace,
            "NetworkMode",
            &config.network_mode,
            "none",
        ),
        mode(Layer::PidNamespace, "PidMode", &config.pid_mode, ""),
        mode(Layer::IpcNamespace, "IpcMode", &config.ipc_mode, "private"),
        mode(Layer::UtsNamespace, "UTSMode", &config.uts_mode, ""),
        (
            Layer::CgroupNamespace,
            config.cgroupns_mode == Some(HostConfigCgroupnsModeEnum::PRIVATE),
            format!("CgroupnsMode {:?}", config.cgroupns_mode),
        ),
        (
            Layer::Seccomp,
            has(&seccomp_option(seccomp)),
            "its profile compared with ours".to_owned(),
        ),
        (
            Layer::NoNewPrivileges,
            has("no-new-privileges"),
            "no-new-privileges among its security options".to_owned(),
        ),
        (
            Layer::EmptyCapabilities,
            added.is_empty() && dropped == ["ALL"] && !privileged,
            format!("CapAdd {added:?}, CapDrop {dropped:?}, privileged {privileged}"),
        ),
        (
            Layer::ReadOnlyRoot,
            config.readonly_rootfs == Some(true),
            format!("ReadonlyRootfs {:?}", config.readonly_rootfs),
        ),
        mode(Layer::NotRoot, "User", &user, &agent()),
    ]
}

fn read_back(limit: LimitName, asked: &Limits, live: &Live, outside: &Outside) -> LimitInForce {
    let (in_force, enforcement, mechanism) = match live.groups.mechanism(limit) {
        Some(mechanism) => {
            let swaps = limit == LimitName::MemoryBytes && live.groups.can_swap(host_has_swap());
            let enforcement = if swaps {
                Enforcement::Soft
            } else {
                Enforcement::Hard
            };
            (live.groups.read_back(limit), enforcement, mechanism)
        }
        None => carried(limit, outside),
    };
    LimitInForce {
        limit,
        asked: asked.get(limit).value,
        in_force,
        // What nothing holds is not held by a controller that is not there.
        enforcement: in_force.map_or(Enforcement::None, |_| enforcement),
        mechanism: mechanism.to_owned(),
    }
}

/// Limits that the process carries itself.
fn carried(limit: LimitName, outside: &Outside) -> (Option<u64>, Enforcement, &'static str) {
    let (enforcement, mechanism) = match limit {
        LimitName::OpenFiles => (Enforcement::Hard, "RLIMIT_NOFILE"),
        LimitName::FileBytes => (Enforcement::Hard, "RLIMIT_FSIZE"),
        LimitName::TemporaryBytes => (Enforcement::Hard, "tmpfs size"),
        LimitName::StateBytes => (Enforcement::Soft, "supervisor"),
        LimitName::MemoryBytes | LimitName::CpuMillis | LimitName::Pids => {
            (Enforcement::None, "nothing")
        }
    };
    (outside.read_back(limit), enforcement, mechanism)
}

#[cfg(test)]
pub(crate) mod tests {
    use bollard::models::{ContainerConfig, ContainerCreateBody};
    use model::{HostDirectory, Limit, RootFileSystem, SandboxSpec};

    use super::*;
    use crate::host_config::{Making, container};

    const PROFILE: &str = "{}";

    /// What a session's container is asked for.
    pub(crate) fn asked() -> ContainerCreateBody {
        let limit = Limit::default_of(1 << 20);
        let spec = SandboxSpec {
            session: SessionId::from_bytes([1; 16]),
            owner: OwnerId::from_bytes([2; 8]),
            root: RootFileSystem::Image("image".to_owned()),
            runtime: None,
            workspace: HostDirectory {
                path: "/project".into(),
                device: 1,
                inode: 2,
                uid: 3,
                gid: 3,
            },
            protected: Vec::new(),
            mounts: Vec::new(),
            agent: None,
            managed_settings: None,
            certificates: None,
            limits: Limits {
                memory_bytes: limit,
                cpu_millis: limit,
                pids: limit,
                open_files: limit,
                file_bytes: limit,
                temporary_bytes: limit,
                state_bytes: limit,
            },
            accept_soft_limits: false,
            layers: Vec::new(),
            lease_ms: 1_000,
        };
        let making = Making {
            attached: false,
            image: "sha256:00",
            seccomp: PROFILE,
            swappiness: true,
            staged: &[],
        };
        container(&spec, &making)
    }

    /// What an engine says that took the body as it is, but for one change.
    fn said_after(change: impl FnOnce(&mut HostConfig, &mut ContainerConfig)) -> Vec<Said> {
        let body = asked();
        let mut host_config = body.host_config.unwrap();
        let mut config = ContainerConfig {
            user: body.user,
            ..ContainerConfig::default()
        };
        change(&mut host_config, &mut config);
        let found = ContainerInspectResponse {
            host_config: Some(host_config),
            config: Some(config),
            ..ContainerInspectResponse::default()
        };
        said_by_engine(&found, PROFILE)
    }

    #[test]
    fn an_engine_that_did_as_asked_confirms_every_layer() {
        let said = said_after(|_, _| {});
        assert!(said.iter().all(|(_, in_force, _)| *in_force), "{said:?}");
    }

    #[test]
    fn an_engine_that_weakened_one_layer_contradicts_just_that() {
        type Weaken = fn(&mut HostConfig, &mut ContainerConfig);
        let table: [(Layer, Weaken); 16] = [
            (Layer::NetworkNamespace, |host, _| {
                host.network_mode = Some("host".into())
            }),
            (Layer::NetworkNamespace, |host, _| host.network_mode = None),
            (Layer::PidNamespace, |host, _| {
                host.pid_mode = Some("host".into())
            }),
            (Layer::IpcNamespace, |host, _| {
                host.ipc_mode = Some("shareable".into())
            }),
            (Layer::UtsNamespace, |host, _| {
                host.uts_mode = Some("host".into())
            }),
            (Layer::CgroupNamespace, |host, _| {
                host.cgroupns_mode = Some(HostConfigCgroupnsModeEnum::HOST);
            }),
            (Layer::Seccomp, |host, _| {
                host.security_opt = Some(vec![
                    "no-new-privileges".into(),
                    "seccomp=unconfined".into(),
                ]);
            }),
            (Layer::NoNewPrivileges, |host, _| {
                host.security_opt = Some(vec![seccomp_option(PROFILE)]);
            }),
            (Layer::EmptyCapabilities, |host, _| {
                host.cap_add = Some(vec!["SYS_ADMIN".into()])
            }),
            (Layer::EmptyCapabilities, |host, _| host.cap_drop = None),
            (Layer::EmptyCapabilities, |host, _| {
                host.cap_drop = Some(vec!["MKNOD".into()])
            }),
            (Layer::EmptyCapabilities, |host, _| {
                host.privileged = Some(true)
            }),
            (Layer::ReadOnlyRoot, |host, _| {
                host.readonly_rootfs = Some(false)
            }),
            (Layer::ReadOnlyRoot, |host, _| host.readonly_rootfs = None),
            (Layer::NotRoot, |_, config| config.user = Some("0:0".into())),
            (Layer::NotRoot, |_, config| config.user = None),
        ];
        for (weakened, weaken) in table {
            for (layer, in_force, words) in said_after(weaken) {
                assert_eq!(
                    in_force,
                    layer != weakened,
                    "{weakened:?}: {layer:?} {words}"
                );
            }
        }
    }

    #[test]
    fn neither_view_outvotes_the_other() {
        let read = |in_force| LayerInForce {
            layer: Layer::Seccomp,
            in_force,
            evidence: "Seccomp: 2".to_owned(),
        };
        let said = |in_force| [(Layer::Seccomp, in_force, "words".to_owned())];
        for (kernel, engine) in [(true, true), (true, false), (false, true), (false, false)] {
            let found = combine(&read(kernel), &said(engine));
            assert_eq!(found.in_force, kernel && engine, "{kernel} {engine}");
        }
    }
}
