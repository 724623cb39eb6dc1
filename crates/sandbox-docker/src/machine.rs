//! What the engine of this machine can enforce, as it says itself; that it does is read back from each container.

use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum};
use model::{Enforcement, Kernel, Layer, LimitName};
use sandbox::{Advice, BackendError, Capability, LimitCapability};
use sandbox_host::kernel::landlock_abi;

/// What was found.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// See [`Capability::rung`].
    pub rung: String,
    /// Of containers that share the host's kernel.
    shared: Capability,
    /// Swapping can be forbidden by itself: version 1 of control groups alone.
    pub swappiness: bool,
    /// Why workspaces cannot be mounted so that their owners and their protected paths are kept, if they cannot.
    pub obstacle: Option<&'static str>,
}

impl Machine {
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
pub(crate) fn describe(info: &SystemInfo, is_root: bool) -> Result<Machine, BackendError> {
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
    let posture = if rootless {
        "docker-rootless"
    } else if has_option(info, "userns") {
        "docker-userns-remapped"
    } else {
        "docker-rootful"
    };
    let version_2 = matches!(info.cgroup_version, Some(SystemInfoCgroupVersionEnum::_2));
    let rung = format!(
        "Docker {}, {}, cgroup v{}",
        info.server_version
            .as_deref()
            .unwrap_or("of unknown version"),
        if rootless { "rootless" } else { "rootful" },
        if version_2 { 2 } else { 1 },
    );
    let obstacle = obstacle(info, is_root, rootless);
    Ok(Machine {
        rung: rung.clone(),
        shared: Capability {
            rung,
            posture: posture.to_owned(),
            layers: layers(),
            limits: LimitName::ALL
                .iter()
                .map(|limit| enforcement(*limit, info, version_2))
                .collect(),
            advice: advice(rootless, obstacle),
        },
        swappiness: !version_2,
        obstacle,
    })
}

/// Layers that every container of ours has that shares the host's kernel. No user namespace: an engine gives its containers one only where it is set up to
/// (`userns-remap`, rootless), and those are refused for now.
fn layers() -> Vec<Layer> {
    let mut layers = Layer::ALL.to_vec();
    layers.retain(|layer| !matches!(layer, Layer::UserNamespace | Layer::GuestKernel));
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

fn obstacle(info: &SystemInfo, is_root: bool, rootless: bool) -> Option<&'static str> {
    if !is_root {
        Some("this backend makes the mounts of a project itself, which only a server of root can")
    } else if rootless {
        Some("a rootless engine does not see the mounts that a server of root makes")
    } else if has_option(info, "userns") {
        Some("the engine maps the ids of its containers (userns-remap)")
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

fn advice(rootless: bool, obstacle: Option<&'static str>) -> Vec<Advice> {
    let mut advice = Vec::new();
    if !rootless {
        advice.push(Advice {
            missing: "containers have no user namespace: a fault of the kernel or of the engine makes whoever uses it root"
                .to_owned(),
            remedy: "use the native backend, which gives each sandbox one".to_owned(),
        });
    }
    if let Some(obstacle) = obstacle {
        advice.push(Advice {
            missing: format!("no project can be mounted: {obstacle}"),
            remedy: "use the native backend, or a server of root with a rootful engine without userns-remap".to_owned(),
        });
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let machine = describe(&engine(&["name=seccomp,profile=default"]), true).unwrap();
        let capability = machine.capability(Kernel::Shared);
        assert_eq!(capability.rung, "Docker 20.10.24, rootful, cgroup v1");
        assert_eq!(capability.posture, "docker-rootful");
        assert!(!capability.layers.contains(&Layer::UserNamespace));
        assert_eq!(
            capability.enforcement(LimitName::MemoryBytes),
            Enforcement::Hard
        );
        assert_eq!(capability.enforcement(LimitName::Pids), Enforcement::None);
        assert_eq!(machine.obstacle, None);
    }

    #[test]
    fn an_engine_without_seccomp_is_none() {
        assert!(describe(&engine(&["name=seccomp,profile=default"]), true).is_ok());
        let without = describe(&engine(&["name=apparmor"]), true);
        assert!(matches!(without, Err(BackendError::Unavailable { .. })));
    }

    #[test]
    fn what_keeps_projects_from_being_mounted_is_said() {
        let obstacle =
            |options: &[&str], is_root| describe(&engine(options), is_root).unwrap().obstacle;
        assert!(obstacle(&["name=seccomp"], false).is_some());
        assert!(obstacle(&["name=seccomp", "name=rootless"], true).is_some());
        assert!(obstacle(&["name=seccomp", "name=userns"], true).is_some());
        assert!(obstacle(&["name=seccomp", "name=cgroupns"], true).is_none());
    }
}
