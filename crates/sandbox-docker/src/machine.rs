//! What the engine can enforce, as it says itself; that it does is read back from each container.

use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum};
use model::{Enforcement, Kernel, Layer, LimitName};
use sandbox::{Advice, BackendError, Capability, LimitCapability};
use sandbox_host::{RANGE_IDS, kernel::landlock_abi};

use crate::{
    engine::elsewhere,
    place::{Place, UNMAPPED},
};

/// What is known beside what the engine says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server {
    /// This process is root's.
    pub is_root: bool,
    /// Where the engine stands.
    pub place: Place,
    /// How it is reached, where that is no socket.
    pub transport: Option<&'static str>,
}

/// What was found.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// See [`Capability::rung`].
    pub rung: String,
    /// Of containers that share the host's kernel.
    shared: Capability,
    /// Swapping can be forbidden by itself: version 1 of control groups alone.
    pub swappiness: bool,
    /// The first id of the host's that the ids of its containers stand for.
    pub first_id: u32,
    obstacle: Option<Obstacle>,
}

/// Why an engine cannot carry sessions, whatever the project is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// It stands on another host.
    Elsewhere,
    /// This server is not root's, and so makes no mounts.
    NotRoot,
    /// It lives in a user namespace, where it does not get at what a server of root makes.
    Rootless,
    /// It maps ids in a way that the directories cannot be mapped for.
    Remapped,
    /// It maps ids, and the sandbox is to have a kernel of its own, in which the map cannot be seen.
    RemappedGuest,
}

impl Obstacle {
    /// What a session is refused with.
    pub fn refusal(self) -> BackendError {
        let (why, remedy) = self.words();
        match self {
            Obstacle::Elsewhere => elsewhere(why),
            Obstacle::NotRoot
            | Obstacle::Rootless
            | Obstacle::Remapped
            | Obstacle::RemappedGuest => BackendError::EngineUnfit {
                why: why.to_owned(),
                remedy: remedy.to_owned(),
            },
        }
    }

    /// Why, as a clause, and what to do.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Obstacle::Elsewhere => (
                "it does not see the directories of this host",
                "use an engine of this host, or the native backend: an engine elsewhere cannot carry sessions yet",
            ),
            Obstacle::NotRoot => (
                "the mounts of a project are made by this server, which only one of root can",
                "use the native backend, which needs no root, or run the server as root",
            ),
            Obstacle::Rootless => (
                "it is rootless, and so does not get at the mounts that keep a project's owners and protected files",
                "use the native backend, which is rootless itself where the server is, or a rootful engine",
            ),
            Obstacle::Remapped => (
                "it maps the ids of its containers (userns-remap) to a range that a project cannot be mapped to",
                UNMAPPED,
            ),
            Obstacle::RemappedGuest => (
                "it maps the ids of its containers (userns-remap), which a runtime with a kernel of its own does not show",
                "use a runtime that shares the host's kernel, or an engine without userns-remap",
            ),
        }
    }
}

impl Machine {
    /// Why no sandbox with that kernel can be made on it, if none can.
    pub fn obstacle_to(&self, kernel: Kernel) -> Option<Obstacle> {
        let remapped = kernel == Kernel::Guest && self.first_id != 0;
        self.obstacle
            .or(remapped.then_some(Obstacle::RemappedGuest))
    }

    /// What containers with that kernel get, for callers.
    pub fn capability(&self, kernel: Kernel) -> Capability {
        match kernel {
            Kernel::Shared => self.shared.clone(),
            Kernel::Guest => guest(self.shared.clone()),
        }
    }
}

/// The same with a kernel of the sandbox's own: what is root there is nobody here, and it has no Landlock of the host's.
fn guest(shared: Capability) -> Capability {
    let mut layers = Layer::ALL.to_vec();
    layers.retain(|layer| *layer != Layer::Landlock);
    Capability { layers, ..shared }
}

/// Describes an engine.
///
/// # Errors
/// [`BackendError::Unavailable`] for one that runs no Linux containers or knows no seccomp.
pub(crate) fn describe(info: &SystemInfo, server: &Server) -> Result<Machine, BackendError> {
    let unavailable = |why: &str, remedy: &str| BackendError::Unavailable {
        why: why.to_owned(),
        remedy: remedy.to_owned(),
    };
    if info.os_type.as_deref() != Some("linux") {
        return Err(unavailable(
            "the engine runs no Linux containers",
            "switch it to Linux containers",
        ));
    }
    if !has_option(info, "seccomp") {
        return Err(unavailable(
            "the engine filters no system calls",
            "use an engine that is built with seccomp, on a kernel that has it",
        ));
    }
    let rootless = has_option(info, "rootless");
    let remapped = has_option(info, "userns");
    let posture = match server.place {
        Place::Elsewhere => "docker-remote",
        Place::Here | Place::Unproven if rootless => "docker-rootless",
        Place::Here | Place::Unproven => "docker-rootful",
    };
    let version_2 = matches!(info.cgroup_version, Some(SystemInfoCgroupVersionEnum::_2));
    let mut rung = format!(
        "Docker {}, {}, cgroup v{}",
        info.server_version
            .as_deref()
            .unwrap_or("of unknown version"),
        if rootless { "rootless" } else { "rootful" },
        if version_2 { 2 } else { 1 },
    );
    if remapped {
        rung.push_str(", userns-remap");
    }
    if let Some(transport) = server.transport {
        rung.push_str(", ");
        rung.push_str(transport);
    }
    let first_id = if remapped { first_id(info) } else { Some(0) };
    let obstacle = obstacle(server, rootless, first_id);
    Ok(Machine {
        rung: rung.clone(),
        shared: Capability {
            rung,
            posture: posture.to_owned(),
            layers: layers(remapped),
            limits: LimitName::ALL
                .iter()
                .map(|limit| enforcement(*limit, info, version_2))
                .collect(),
            advice: advice(rootless || remapped, obstacle),
        },
        first_id: first_id.unwrap_or(0),
        swappiness: !version_2,
        obstacle,
    })
}

/// Layers that every container of ours has that shares the host's kernel. A user namespace only where the engine is set up
/// to give its containers one (`userns-remap`).
fn layers(remapped: bool) -> Vec<Layer> {
    let mut layers = Layer::ALL.to_vec();
    layers.retain(|layer| *layer != Layer::GuestKernel);
    if !remapped {
        layers.retain(|layer| *layer != Layer::UserNamespace);
    }
    if landlock_abi() == 0 {
        layers.retain(|layer| *layer != Layer::Landlock);
    }
    layers
}

/// Names under which the engine knows runtimes, sorted.
pub(crate) fn runtimes(info: &SystemInfo) -> Vec<String> {
    let runtimes = info.runtimes.iter().flatten();
    let mut names: Vec<_> = runtimes.map(|(name, _)| name.clone()).collect();
    names.sort();
    names
}

/// The engine names it among its security options.
pub(crate) fn has_option(info: &SystemInfo, name: &str) -> bool {
    let wanted = format!("name={name}");
    let options = info.security_options.iter().flatten();
    options
        .flat_map(|option| option.split(','))
        .any(|part| part == wanted)
}

/// Where the engine says that the ids of its containers begin; `None` where users and groups begin at different ones. It
/// keeps a directory of its own for each range, which is called by both. Read back from each container.
fn first_id(info: &SystemInfo) -> Option<u32> {
    let directory = info.docker_root_dir.as_deref()?.rsplit('/').next()?;
    let (uid, gid) = directory.split_once('.')?;
    let first: u32 = uid.parse().ok().filter(|_| uid == gid)?;
    (first > 0 && first.checked_add(RANGE_IDS).is_some()).then_some(first)
}

fn obstacle(server: &Server, rootless: bool, first_id: Option<u32>) -> Option<Obstacle> {
    if server.place == Place::Elsewhere {
        Some(Obstacle::Elsewhere)
    } else if !server.is_root {
        Some(Obstacle::NotRoot)
    } else if rootless {
        Some(Obstacle::Rootless)
    } else if first_id.is_none() {
        Some(Obstacle::Remapped)
    } else {
        None
    }
}

fn enforcement(limit: LimitName, info: &SystemInfo, version_2: bool) -> LimitCapability {
    let of = |enforcement, mechanism: &str| LimitCapability {
        limit,
        enforcement,
        mechanism: mechanism.to_owned(),
    };
    let group = |offered: Option<bool>, one: &str, two: &str| {
        if offered == Some(true) {
            of(Enforcement::Hard, if version_2 { two } else { one })
        } else {
            of(Enforcement::None, "nothing")
        }
    };
    match limit {
        LimitName::MemoryBytes => group(info.memory_limit, "cgroup v1 memory", "cgroup v2 memory"),
        LimitName::CpuMillis => group(info.cpu_cfs_quota, "cgroup v1 cpu", "cgroup v2 cpu"),
        LimitName::Pids => group(info.pids_limit, "cgroup v1 pids", "cgroup v2 pids"),
        LimitName::OpenFiles => of(Enforcement::Hard, "RLIMIT_NOFILE"),
        LimitName::FileBytes => of(Enforcement::Hard, "RLIMIT_FSIZE"),
        LimitName::TemporaryBytes => of(Enforcement::Hard, "tmpfs size"),
        LimitName::StateBytes => of(Enforcement::Soft, "supervisor"),
    }
}

fn advice(namespaced: bool, obstacle: Option<Obstacle>) -> Vec<Advice> {
    let mut advice = Vec::new();
    if !namespaced {
        advice.push(Advice {
            missing: "containers have no user namespace: a fault of the kernel or of the engine makes whoever uses it root"
                .to_owned(),
            remedy: "use the native backend, which gives each sandbox one, or an engine with userns-remap".to_owned(),
        });
    }
    if let Some(obstacle) = obstacle {
        let (_, remedy) = obstacle.words();
        advice.push(Advice {
            missing: format!("no session can be made: {}", obstacle.refusal()),
            remedy: remedy.to_owned(),
        });
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server of root with an engine of its own host.
    const ROOT: Server = Server {
        is_root: true,
        place: Place::Here,
        transport: None,
    };

    fn engine(options: &[&str]) -> SystemInfo {
        SystemInfo {
            os_type: Some("linux".to_owned()),
            server_version: Some("20.10.24".to_owned()),
            cgroup_version: Some(SystemInfoCgroupVersionEnum::_1),
            memory_limit: Some(true),
            cpu_cfs_quota: Some(true),
            pids_limit: Some(false),
            security_options: Some(options.iter().map(|&option| option.to_owned()).collect()),
            ..SystemInfo::default()
        }
    }

    #[test]
    fn a_rootful_engine_has_no_user_namespace_and_limits_that_it_has_controllers_for() {
        let machine = describe(&engine(&["name=seccomp,profile=default"]), &ROOT).unwrap();
        let capability = machine.capability(Kernel::Shared);
        assert_eq!(capability.rung, "Docker 20.10.24, rootful, cgroup v1");
        assert_eq!(capability.posture, "docker-rootful");
        assert!(!capability.layers.contains(&Layer::UserNamespace));
        assert_eq!(
            capability.enforcement(LimitName::MemoryBytes),
            Enforcement::Hard
        );
        assert_eq!(capability.enforcement(LimitName::Pids), Enforcement::None);
        assert_eq!(machine.obstacle_to(Kernel::Shared), None);
        assert_eq!(machine.first_id, 0);
    }

    #[test]
    fn an_engine_without_seccomp_is_none() {
        assert!(describe(&engine(&["name=seccomp,profile=default"]), &ROOT).is_ok());
        let without = describe(&engine(&["name=apparmor"]), &ROOT);
        assert!(matches!(without, Err(BackendError::Unavailable { .. })));
    }

    fn obstacle(options: &[&str], server: Server) -> Option<Obstacle> {
        let machine = describe(&engine(options), &server).unwrap();
        machine.obstacle_to(Kernel::Shared)
    }

    #[test]
    fn what_keeps_sessions_from_an_engine_is_said() {
        let user = Server {
            is_root: false,
            ..ROOT
        };
        assert_eq!(obstacle(&["name=seccomp", "name=cgroupns"], ROOT), None);
        assert_eq!(obstacle(&["name=seccomp"], user), Some(Obstacle::NotRoot));
        let rootless = ["name=seccomp", "name=rootless"];
        assert_eq!(obstacle(&rootless, ROOT), Some(Obstacle::Rootless));
        // It says of itself that it maps, and not where to.
        let remapped = ["name=seccomp", "name=userns"];
        assert_eq!(obstacle(&remapped, ROOT), Some(Obstacle::Remapped));
        for obstacle in [Obstacle::NotRoot, Obstacle::Rootless, Obstacle::Remapped] {
            let BackendError::EngineUnfit { remedy, .. } = obstacle.refusal() else {
                panic!("{obstacle:?}")
            };
            assert!(remedy.contains("native backend"), "{remedy}");
        }
    }

    #[test]
    fn an_engine_elsewhere_is_remote_whatever_else_it_is() {
        let place = Place::Elsewhere;
        for is_root in [true, false] {
            let server = Server {
                is_root,
                place,
                ..ROOT
            };
            let machine = describe(&engine(&["name=seccomp", "name=rootless"]), &server).unwrap();
            assert_eq!(machine.capability(Kernel::Shared).posture, "docker-remote");
            let refused = machine.obstacle_to(Kernel::Guest).unwrap().refusal();
            assert!(matches!(refused, BackendError::EngineElsewhere { .. }));
        }
    }

    #[test]
    fn an_engine_that_maps_ids_gives_a_user_namespace_that_begins_where_its_directory_says() {
        let describe = |directory: &str| {
            let mut info = engine(&["name=seccomp", "name=userns"]);
            info.docker_root_dir = Some(directory.to_owned());
            describe(&info, &ROOT).unwrap()
        };
        let machine = describe("/var/lib/docker/165536.165536");
        assert_eq!((machine.first_id, machine.obstacle), (165_536, None));
        let layers = machine.capability(Kernel::Shared).layers;
        assert!(layers.contains(&Layer::UserNamespace));
        assert_eq!(
            machine.obstacle_to(Kernel::Guest),
            Some(Obstacle::RemappedGuest)
        );
        for directory in [
            "/var/lib/docker",
            "/var/lib/docker/100000.200000",
            "/d/0.0",
            "/d/4294967295.4294967295",
            "/d/x.x",
        ] {
            let obstacle = describe(directory).obstacle;
            assert_eq!(obstacle, Some(Obstacle::Remapped), "{directory}");
        }
    }

    #[test]
    fn how_the_engine_is_reached_is_part_of_the_rung() {
        let server = Server {
            transport: Some("over TLS"),
            ..ROOT
        };
        let machine = describe(&engine(&["name=seccomp"]), &server).unwrap();
        assert_eq!(
            machine.rung,
            "Docker 20.10.24, rootful, cgroup v1, over TLS"
        );
    }
}
