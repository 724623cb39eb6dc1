//! Section 5 (container runtime) of the CIS Docker Benchmark, numbered as docker-bench-security 1.6 does, judged over a
//! container as the engine itself reads it back.
//!
//! What this does not show: that the engine does as it says. That is the trial's and the attestation's business.

use bollard::models::{
    ContainerConfig, ContainerInspectResponse, HostConfig, LocalNodeState, MountPoint,
    RestartPolicyNameEnum, SystemInfo,
};
use model::SUPERVISOR_DIRECTORY;
use serde::Serialize;

use crate::{host_config::PROGRAM_NAME, machine::has_option};

/// Restarts that the benchmark allows at most (5.15).
const MAX_RESTARTS: i64 = 5;
/// Ports below are privileged (5.8).
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;
/// Directories of the host that nothing may be mounted from (5.6); `/` itself is one, too.
const SENSITIVE: [&str; 7] = ["/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr"];
/// Names of sockets of engines (5.32).
const ENGINE_SOCKETS: [&str; 4] = ["docker.sock", "containerd.sock", "podman.sock", "crio.sock"];

/// How a container stands to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ItemState {
    /// As the benchmark wants it.
    Pass,
    /// Not so.
    Fail,
    /// There is nothing to judge here, and the evidence says why.
    NotApplicable,
}

/// An item and how the container stands to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// `5.1` to `5.32`.
    pub id: String,
    /// What it asks for.
    pub title: &'static str,
    /// How the container stands to it.
    pub state: ItemState,
    /// What the engine says, in its own names of fields.
    pub evidence: String,
}

type Judged = (ItemState, String);

/// What an item is judged by.
struct Read<'read> {
    container: &'read ContainerInspectResponse,
    config: ContainerConfig,
    host: HostConfig,
    mounts: &'read [MountPoint],
    info: &'read SystemInfo,
}

type Check = fn(&Read<'_>) -> Judged;

/// In the benchmark's order: the place is the number.
const ITEMS: [(&str, Check); 32] = [
    ("swarm mode is off", swarm),
    ("an AppArmor profile is in force", apparmor),
    ("SELinux options are set", selinux),
    ("capabilities are restricted", capabilities),
    ("the container is not privileged", |read| {
        told("Privileged", &read.host.privileged, |found| {
            *found != Some(true)
        })
    }),
    (
        "no sensitive directory of the host is mounted",
        sensitive_mounts,
    ),
    ("no sshd runs in it", first_program),
    ("no privileged port is mapped", privileged_ports),
    ("only needed ports are open", |read| ports(read, |_| false)),
    ("the host's network namespace is not shared", |read| {
        not_host("NetworkMode", &read.host.network_mode)
    }),
    ("memory is limited", |read| {
        positive("Memory", read.host.memory)
    }),
    ("CPU is limited", cpu),
    ("the root file system is read-only", |read| {
        told("ReadonlyRootfs", &read.host.readonly_rootfs, |found| {
            *found == Some(true)
        })
    }),
    ("incoming traffic is bound to an interface", |read| {
        ports(read, |address| !["", "0.0.0.0", "::"].contains(&address))
    }),
    ("restarts are bounded", restarts),
    ("the host's process namespace is not shared", |read| {
        not_host("PidMode", &read.host.pid_mode)
    }),
    ("the host's IPC namespace is not shared", |read| {
        not_host("IpcMode", &read.host.ipc_mode)
    }),
    ("no device of the host is given", devices),
    ("resource limits of processes are set", |read| {
        told(
            "Ulimits",
            &read.host.ulimits.as_ref().map(Vec::len),
            |found| found.is_some_and(|count| count > 0),
        )
    }),
    ("no mount is shared with the host", propagation),
    ("the host's UTS namespace is not shared", |read| {
        not_host("UTSMode", &read.host.uts_mode)
    }),
    ("system calls are filtered", seccomp),
    (
        "no process was started in it with privileges (exec)",
        executions,
    ),
    ("no process was started in it as root (exec)", executions),
    ("its control group is the engine's own choice", |read| {
        told("CgroupParent", &read.host.cgroup_parent, |found| {
            found.as_deref().unwrap_or_default().is_empty()
        })
    }),
    ("no further privileges can be acquired", no_new_privileges),
    ("its health is checked", health),
    ("the image is named by its content", image),
    ("processes are limited", |read| {
        positive("PidsLimit", read.host.pids_limit)
    }),
    ("the default bridge is not used", |read| {
        told("NetworkMode", &read.host.network_mode, |found| {
            !["", "default", "bridge"].contains(&found.as_deref().unwrap_or_default())
        })
    }),
    ("the host's user namespace is not asked for", |read| {
        not_host("UsernsMode", &read.host.userns_mode)
    }),
    ("no socket of an engine is mounted", engine_sockets),
];

/// Judges every item.
pub(crate) fn judge(container: &ContainerInspectResponse, info: &SystemInfo) -> Vec<Item> {
    let read = Read {
        container,
        config: container.config.clone().unwrap_or_default(),
        host: container.host_config.clone().unwrap_or_default(),
        mounts: container.mounts.as_deref().unwrap_or_default(),
        info,
    };
    let item = |(index, (title, check)): (usize, &(&'static str, Check))| {
        let (state, evidence) = check(&read);
        Item {
            id: format!("5.{}", index + 1),
            title,
            state,
            evidence,
        }
    };
    ITEMS.iter().enumerate().map(item).collect()
}

fn passes(passes: bool, evidence: String) -> Judged {
    let state = if passes {
        ItemState::Pass
    } else {
        ItemState::Fail
    };
    (state, evidence)
}

fn told<T: std::fmt::Debug>(field: &str, value: &T, is_fine: fn(&T) -> bool) -> Judged {
    passes(is_fine(value), format!("{field} {}", bare(value)))
}

/// What an engine may leave out, without the word for that.
fn bare(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    let inner = text
        .strip_prefix("Some(")
        .and_then(|rest| rest.strip_suffix(')'));
    inner.map(str::to_owned).unwrap_or(text)
}

fn positive(field: &str, value: Option<i64>) -> Judged {
    told(field, &value, |value| value.is_some_and(|value| value > 0))
}

fn not_host(field: &str, value: &Option<String>) -> Judged {
    told(field, value, |value| {
        let value = value.as_deref().unwrap_or_default();
        value != "host" && !value.starts_with("container:")
    })
}

fn swarm(read: &Read<'_>) -> Judged {
    let state = read
        .info
        .swarm
        .as_ref()
        .and_then(|swarm| swarm.local_node_state);
    told("Swarm.LocalNodeState", &state, |state| {
        matches!(
            state,
            None | Some(LocalNodeState::EMPTY | LocalNodeState::INACTIVE)
        )
    })
}

fn apparmor(read: &Read<'_>) -> Judged {
    if !has_option(read.info, "apparmor") {
        return (
            ItemState::NotApplicable,
            "the engine has no AppArmor; Landlock confines the supervisor and all that it starts"
                .to_owned(),
        );
    }
    told(
        "AppArmorProfile",
        &read.container.app_armor_profile,
        |found| !["", "unconfined"].contains(&found.as_deref().unwrap_or_default()),
    )
}

fn selinux(read: &Read<'_>) -> Judged {
    if !has_option(read.info, "selinux") {
        return (
            ItemState::NotApplicable,
            "the engine has no SELinux".to_owned(),
        );
    }
    told("ProcessLabel", &read.container.process_label, |found| {
        found.as_deref().is_some_and(|label| !label.is_empty())
    })
}

fn capabilities(read: &Read<'_>) -> Judged {
    let (added, dropped) = (
        read.host.cap_add.as_deref().unwrap_or_default(),
        read.host.cap_drop.as_deref().unwrap_or_default(),
    );
    let all = dropped.iter().any(|name| name == "ALL");
    passes(
        added.is_empty() && all,
        format!("CapAdd {added:?}, CapDrop {dropped:?}"),
    )
}

fn sensitive_mounts(read: &Read<'_>) -> Judged {
    let sources = read
        .mounts
        .iter()
        .filter_map(|mount| mount.source.as_deref());
    let is_sensitive = |source: &&str| {
        let path = std::path::Path::new(source);
        path == std::path::Path::new("/") || SENSITIVE.iter().any(|root| path.starts_with(root))
    };
    let found: Vec<_> = sources.filter(is_sensitive).collect();
    let count = read.mounts.len();
    passes(
        found.is_empty(),
        format!("of {count} Mounts from there: {found:?}"),
    )
}

fn first_program(read: &Read<'_>) -> Judged {
    let ours = format!("{SUPERVISOR_DIRECTORY}/{PROGRAM_NAME}");
    let found = read.container.path.as_deref().unwrap_or_default();
    passes(found == ours, format!("Path {found:?} is its only program"))
}

/// Ports of the host that lead into it, with the host's address.
fn mapped(read: &Read<'_>) -> Vec<(String, String)> {
    let bindings = read.host.port_bindings.iter().flatten();
    let bindings = bindings.flat_map(|(_, bindings)| bindings.iter().flatten());
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    bindings
        .map(|binding| (text(&binding.host_ip), text(&binding.host_port)))
        .collect()
}

fn ports(read: &Read<'_>, is_fine: fn(&str) -> bool) -> Judged {
    let mapped = mapped(read);
    let fine = mapped.iter().all(|(address, _)| is_fine(address));
    let all = read.host.publish_all_ports == Some(true);
    passes(
        fine && !all,
        format!("PortBindings {mapped:?}, PublishAllPorts {all}"),
    )
}

fn privileged_ports(read: &Read<'_>) -> Judged {
    let mapped = mapped(read);
    let is_fine = |port: &str| {
        port.parse::<u16>()
            .is_ok_and(|port| port >= FIRST_UNPRIVILEGED_PORT)
    };
    passes(
        mapped.iter().all(|(_, port)| is_fine(port)),
        format!("PortBindings {mapped:?}"),
    )
}

fn cpu(read: &Read<'_>) -> Judged {
    let (quota, shares, nano) = (
        read.host.cpu_quota,
        read.host.cpu_shares,
        read.host.nano_cpus,
    );
    let is_set = [quota, shares, nano]
        .into_iter()
        .flatten()
        .any(|value| value > 0);
    passes(
        is_set,
        format!(
            "CpuQuota {}, CpuShares {}, NanoCpus {}",
            bare(&quota),
            bare(&shares),
            bare(&nano)
        ),
    )
}

fn restarts(read: &Read<'_>) -> Judged {
    let policy = read.host.restart_policy.clone().unwrap_or_default();
    let (name, count) = (policy.name, policy.maximum_retry_count.unwrap_or(0));
    let fine = match name {
        None | Some(RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO) => true,
        Some(RestartPolicyNameEnum::ON_FAILURE) => (1..=MAX_RESTARTS).contains(&count),
        Some(RestartPolicyNameEnum::ALWAYS | RestartPolicyNameEnum::UNLESS_STOPPED) => false,
    };
    passes(
        fine,
        format!("RestartPolicy {}, at most {count}", bare(&name)),
    )
}

fn devices(read: &Read<'_>) -> Judged {
    let count = read.host.devices.as_ref().map_or(0, Vec::len);
    let requests = read.host.device_requests.as_ref().map_or(0, Vec::len);
    passes(
        count + requests == 0,
        format!("{count} Devices, {requests} DeviceRequests"),
    )
}

fn propagation(read: &Read<'_>) -> Judged {
    let modes = read
        .mounts
        .iter()
        .filter_map(|mount| mount.propagation.as_deref());
    let shared: Vec<_> = modes.filter(|mode| mode.ends_with("shared")).collect();
    passes(
        shared.is_empty(),
        format!("of {} Mounts shared: {}", read.mounts.len(), shared.len()),
    )
}

fn seccomp(read: &Read<'_>) -> Judged {
    let options = read.host.security_opt.as_deref().unwrap_or_default();
    let found = options
        .iter()
        .find_map(|option| option.strip_prefix("seccomp"));
    let profile = found.map(|found| found.trim_start_matches(['=', ':']));
    let evidence = match profile {
        None => "the engine's own profile".to_owned(),
        Some("unconfined") => "SecurityOpt \"seccomp=unconfined\"".to_owned(),
        Some(profile) => format!("SecurityOpt with a profile of {} bytes", profile.len()),
    };
    passes(profile != Some("unconfined"), evidence)
}

/// The server's list of calls has no exec at all; somebody else's would show.
fn executions(read: &Read<'_>) -> Judged {
    let count = read.container.exec_ids.as_ref().map_or(0, Vec::len);
    passes(
        count == 0,
        format!("{count} ExecIDs, and the server asks for none"),
    )
}

fn no_new_privileges(read: &Read<'_>) -> Judged {
    let options = read.host.security_opt.as_deref().unwrap_or_default();
    let fine = |option: &String| {
        [
            "no-new-privileges",
            "no-new-privileges=true",
            "no-new-privileges:true",
        ]
        .contains(&option.as_str())
    };
    let found = options.iter().any(fine);
    passes(
        found,
        format!("SecurityOpt with no-new-privileges: {found}"),
    )
}

/// A health check is a program of the image that the engine starts in the container: never here.
fn health(read: &Read<'_>) -> Judged {
    let test = read
        .config
        .healthcheck
        .as_ref()
        .and_then(|check| check.test.clone());
    match test.as_deref() {
        Some([never]) if never == "NONE" => (
            ItemState::NotApplicable,
            "Healthcheck [\"NONE\"]: the lease ends a sandbox whose supervisor is not renewed"
                .to_owned(),
        ),
        test => passes(
            false,
            format!("Healthcheck {test:?}: the image decides what is started"),
        ),
    }
}

fn image(read: &Read<'_>) -> Judged {
    told("Config.Image", &read.config.image, |found| {
        found
            .as_deref()
            .is_some_and(|name| name.contains("sha256:"))
    })
}

fn engine_sockets(read: &Read<'_>) -> Judged {
    let sources = read
        .mounts
        .iter()
        .filter_map(|mount| mount.source.as_deref());
    let found: Vec<_> = sources
        .filter(|source| ENGINE_SOCKETS.iter().any(|name| source.ends_with(name)))
        .collect();
    passes(
        found.is_empty(),
        format!("of {} Mounts such sockets: {found:?}", read.mounts.len()),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bollard::models::{DeviceMapping, HealthConfig, PortBinding, RestartPolicy, SwarmInfo};

    use super::*;
    use crate::inspection::tests::asked;

    /// What an engine with AppArmor and SELinux says of a session's container.
    fn good() -> (ContainerInspectResponse, SystemInfo) {
        let body = asked();
        let container = ContainerInspectResponse {
            path: body.entrypoint.as_ref().map(|program| program[0].clone()),
            app_armor_profile: Some("docker-default".to_owned()),
            process_label: Some("system_u:system_r:container_t:s0:c1,c2".to_owned()),
            mounts: Some(vec![MountPoint {
                source: Some("/var/lib/claude-code-mcp/docker/x/state".to_owned()),
                propagation: Some("rprivate".to_owned()),
                ..MountPoint::default()
            }]),
            config: Some(ContainerConfig {
                image: body.image,
                healthcheck: body.healthcheck,
                ..ContainerConfig::default()
            }),
            host_config: body.host_config,
            ..ContainerInspectResponse::default()
        };
        let options = [
            "name=apparmor",
            "name=selinux",
            "name=seccomp,profile=default",
        ];
        let info = SystemInfo {
            security_options: Some(options.map(str::to_owned).to_vec()),
            ..SystemInfo::default()
        };
        (container, info)
    }

    fn states(container: &ContainerInspectResponse, info: &SystemInfo) -> Vec<(String, ItemState)> {
        let items = judge(container, info);
        items
            .into_iter()
            .map(|item| (item.id, item.state))
            .collect()
    }

    #[test]
    fn a_sessions_container_passes_every_item_that_applies() {
        let (container, info) = good();
        for item in judge(&container, &info) {
            let wanted = match item.id.as_str() {
                "5.27" => ItemState::NotApplicable,
                _ => ItemState::Pass,
            };
            assert_eq!(item.state, wanted, "{item:?}");
        }
    }

    #[test]
    fn without_a_module_of_the_kernel_its_item_does_not_apply() {
        let (container, mut info) = good();
        info.security_options = None;
        let states = states(&container, &info);
        for id in ["5.2", "5.3"] {
            assert!(
                states.contains(&(id.to_owned(), ItemState::NotApplicable)),
                "{id}"
            );
        }
    }

    type Worsen = fn(&mut Worse<'_>);

    struct Worse<'worse> {
        container: &'worse mut ContainerInspectResponse,
        config: ContainerConfig,
        host: HostConfig,
        info: &'worse mut SystemInfo,
    }

    impl Worse<'_> {
        fn port(&mut self, address: &str, port: &str) {
            let binding = PortBinding {
                host_ip: Some(address.to_owned()),
                host_port: Some(port.to_owned()),
            };
            let bindings = HashMap::from([("80/tcp".to_owned(), Some(vec![binding]))]);
            self.host.port_bindings = Some(bindings);
        }

        fn mount(&mut self, source: &str, propagation: &str) {
            self.container.mounts = Some(vec![MountPoint {
                source: Some(source.to_owned()),
                propagation: Some(propagation.to_owned()),
                ..MountPoint::default()
            }]);
        }
    }

    /// A bad container for each item, and all items that it must fail.
    const BAD: [(&[&str], Worsen); 34] = [
        (&["5.1"], |bad| {
            bad.info.swarm = Some(SwarmInfo {
                local_node_state: Some(LocalNodeState::ACTIVE),
                ..SwarmInfo::default()
            });
        }),
        (&["5.2"], |bad| {
            bad.container.app_armor_profile = Some("unconfined".to_owned())
        }),
        (&["5.3"], |bad| {
            bad.container.process_label = Some(String::new())
        }),
        (&["5.4"], |bad| {
            bad.host.cap_add = Some(vec!["NET_RAW".to_owned()])
        }),
        (&["5.4"], |bad| bad.host.cap_drop = None),
        (&["5.5"], |bad| bad.host.privileged = Some(true)),
        (&["5.6"], |bad| bad.mount("/", "rprivate")),
        (&["5.6"], |bad| bad.mount("/etc/ssh", "rprivate")),
        (&["5.7"], |bad| {
            bad.container.path = Some("/usr/sbin/sshd".to_owned())
        }),
        (&["5.8", "5.9"], |bad| bad.port("127.0.0.1", "80")),
        (&["5.9"], |bad| bad.port("127.0.0.1", "8080")),
        (&["5.10"], |bad| {
            bad.host.network_mode = Some("host".to_owned())
        }),
        (&["5.11"], |bad| bad.host.memory = Some(0)),
        (&["5.12"], |bad| bad.host.cpu_quota = None),
        (&["5.13"], |bad| bad.host.readonly_rootfs = Some(false)),
        (&["5.9", "5.14"], |bad| bad.port("0.0.0.0", "8080")),
        (&["5.15"], |bad| {
            bad.host.restart_policy = Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::ALWAYS),
                maximum_retry_count: None,
            });
        }),
        (&["5.16"], |bad| bad.host.pid_mode = Some("host".to_owned())),
        (&["5.16"], |bad| {
            bad.host.pid_mode = Some("container:other".to_owned())
        }),
        (&["5.17"], |bad| bad.host.ipc_mode = Some("host".to_owned())),
        (&["5.18"], |bad| {
            bad.host.devices = Some(vec![DeviceMapping::default()])
        }),
        (&["5.19"], |bad| bad.host.ulimits = None),
        (&["5.20"], |bad| bad.mount("/srv/x", "rshared")),
        (&["5.21"], |bad| bad.host.uts_mode = Some("host".to_owned())),
        (&["5.22"], |bad| {
            let options = ["no-new-privileges", "seccomp=unconfined"];
            bad.host.security_opt = Some(options.map(str::to_owned).to_vec());
        }),
        (&["5.23", "5.24"], |bad| {
            bad.container.exec_ids = Some(vec!["e".to_owned()])
        }),
        (&["5.25"], |bad| {
            bad.host.cgroup_parent = Some("/other".to_owned())
        }),
        (&["5.26"], |bad| {
            bad.host.security_opt = Some(vec!["seccomp={}".to_owned()])
        }),
        (&["5.27"], |bad| {
            bad.config.healthcheck = Some(HealthConfig {
                test: Some(vec!["CMD".to_owned(), "/bin/evil".to_owned()]),
                ..HealthConfig::default()
            });
        }),
        (&["5.28"], |bad| {
            bad.config.image = Some("image:latest".to_owned())
        }),
        (&["5.29"], |bad| bad.host.pids_limit = None),
        (&["5.30"], |bad| {
            bad.host.network_mode = Some("bridge".to_owned())
        }),
        (&["5.31"], |bad| {
            bad.host.userns_mode = Some("host".to_owned())
        }),
        (&["5.32"], |bad| bad.mount("/srv/docker.sock", "rprivate")),
    ];

    #[test]
    fn a_bad_container_fails_just_what_it_is_bad_at() {
        for (wanted, worsen) in BAD {
            let (mut container, mut info) = good();
            let mut bad = Worse {
                config: container.config.clone().unwrap(),
                host: container.host_config.clone().unwrap(),
                container: &mut container,
                info: &mut info,
            };
            worsen(&mut bad);
            let (config, host) = (bad.config, bad.host);
            container.config = Some(config);
            container.host_config = Some(host);
            let states = states(&container, &info);
            let failed = states.iter().filter(|(_, state)| *state == ItemState::Fail);
            let failed: Vec<_> = failed.map(|(id, _)| id.as_str()).collect();
            assert_eq!(failed, wanted);
        }
        for number in 1..=ITEMS.len() {
            let id = format!("5.{number}");
            let is_tried = BAD.iter().any(|(ids, _)| ids.contains(&id.as_str()));
            assert!(is_tried, "no bad container for {id}");
        }
    }
}
