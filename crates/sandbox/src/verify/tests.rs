use std::path::PathBuf;

use model::{
    BindMount, HostDirectory, Kernel, Limit, LimitInForce, Limits, OwnerId, ProtectedPath,
    Protection, RootFileSystem, RuntimeClass, SessionId,
};
use wire::MountFact;

use super::*;

const HOSTS_KERNEL: &str = "Linux of the host";

fn host() -> HostView {
    HostView {
        namespaces: [1, 2, 3, 4, 5, 6, 7],
        kernel: HOSTS_KERNEL.to_owned(),
    }
}

/// A good sandbox, to be weakened in one place.
#[derive(Clone)]
struct Case {
    spec: SandboxSpec,
    inside: wire::Attestation,
    outside: Inspection,
    host: HostView,
}

fn directory() -> HostDirectory {
    HostDirectory {
        path: "/project".into(),
        device: 1,
        inode: 2,
        uid: 1000,
        gid: 1000,
    }
}

fn mount(target: &str, kind: &str, read_only: bool, size_bytes: u64) -> MountFact {
    MountFact {
        target: target.into(),
        kind: kind.into(),
        read_only,
        nosuid: true,
        nodev: true,
        size_bytes,
    }
}

fn good_spec() -> SandboxSpec {
    let limit = Limit::default_of(100);
    let protect = |relative: &str, protection| ProtectedPath {
        relative: relative.into(),
        protection,
    };
    // Of those that share the host's kernel; see `good_guest` for the others.
    let everything = Layer::ALL
        .into_iter()
        .filter(|layer| *layer != Layer::GuestKernel);
    SandboxSpec {
        session: SessionId::from_bytes([1; 16]),
        owner: OwnerId::from_bytes([2; 8]),
        root: RootFileSystem::HostSystem,
        runtime: None,
        workspace: directory(),
        protected: vec![
            protect(".git", Protection::Pinned),
            protect(".git/hooks", Protection::ReadOnly),
        ],
        mounts: vec![BindMount {
            source: directory(),
            target: PathBuf::from("/data"),
            read_only: false,
        }],
        agent: Some(directory()),
        managed_settings: Some("{}".to_owned()),
        certificates: None,
        limits: Limits {
            memory_bytes: limit,
            cpu_millis: limit,
            pids: Limit {
                value: 100,
                named: true,
            },
            open_files: limit,
            file_bytes: limit,
            temporary_bytes: limit,
            state_bytes: limit,
        },
        accept_soft_limits: false,
        layers: everything
            .map(|layer| (layer, Requirement::Required))
            .collect(),
        lease_ms: 1000,
    }
}

fn good_inside() -> wire::Attestation {
    wire::Attestation {
        kernel: HOSTS_KERNEL.to_owned(),
        uid: 1000,
        gid: 1000,
        pid: 1,
        capabilities: [0; 5],
        no_new_privs: true,
        seccomp_mode: 2,
        seccomp_filters: 1,
        landlock_abi: 7,
        landlock_in_force: true,
        not_dumpable: true,
        namespaces: [11, 12, 13, 14, 15, 16, 17],
        root_read_only: true,
        interfaces: vec!["lo".into()],
        rlimits: [100, 100, 100, 0],
        mounts: vec![
            mount("/", "ext4", true, 0),
            mount("/workspace", "ext4", false, 0),
            mount("/workspace/.git", "ext4", false, 0),
            mount("/workspace/.git/hooks", "ext4", true, 0),
            mount("/state", "ext4", false, 0),
            mount("/data", "ext4", false, 0),
            mount("/opt/claude-code", "ext4", true, 0),
            mount("/tmp", "tmpfs", false, 60),
            mount("/home/agent", "tmpfs", false, 40),
            mount("/proc", "proc", false, 0),
            MountFact {
                nosuid: false,
                nodev: false,
                ..mount("/dev/null", "devtmpfs", false, 0)
            },
        ],
    }
}

fn good() -> Case {
    let seen_outside = [
        LimitName::MemoryBytes,
        LimitName::CpuMillis,
        LimitName::Pids,
        LimitName::StateBytes,
    ];
    Case {
        spec: good_spec(),
        inside: good_inside(),
        outside: outside(seen_outside.into_iter().map(hard).collect()),
        host: host(),
    }
}

fn hard(limit: LimitName) -> LimitInForce {
    LimitInForce {
        limit,
        asked: 100,
        in_force: Some(100),
        enforcement: Enforcement::Hard,
        mechanism: "cgroup".into(),
    }
}

fn outside(limits: Vec<LimitInForce>) -> Inspection {
    Inspection {
        running: true,
        rung: "test".into(),
        layers: Vec::new(),
        limits,
    }
}

fn judge(case: &Case) -> Result<Attestation, Weakness> {
    verify(&case.spec, &case.inside, &case.outside, &case.host)
}

impl Case {
    fn limit(&mut self, limit: LimitName) -> &mut LimitInForce {
        self.outside
            .limits
            .iter_mut()
            .find(|found| found.limit == limit)
            .unwrap()
    }

    fn mount(&mut self, target: &str) -> &mut MountFact {
        self.inside
            .mounts
            .iter_mut()
            .find(|mount| mount.target == target)
            .unwrap()
    }

    fn outside_says(&mut self, layer: Layer, in_force: bool) {
        self.outside.layers.push(LayerInForce {
            layer,
            in_force,
            evidence: "seen".into(),
        });
    }
}

type Weaken = fn(&mut Case);

#[test]
fn a_good_sandbox_passes_and_everything_is_listed_in_order() {
    let attestation = judge(&good()).unwrap();
    let (held, others): (Vec<_>, Vec<_>) =
        attestation.layers.iter().partition(|found| found.in_force);
    assert_eq!(held.len(), 13);
    assert_eq!(others[0].layer, Layer::GuestKernel, "the host's is its own");
    assert!(attestation.layers.is_sorted_by_key(|found| found.layer));
    let names: Vec<LimitName> = attestation.limits.iter().map(|found| found.limit).collect();
    assert_eq!(names, LimitName::ALL);
    assert!(
        attestation
            .limits
            .iter()
            .all(|found| found.in_force == Some(100))
    );
}

#[test]
fn every_weakened_layer_is_refused_by_name() {
    let table: [(Layer, Weaken); 23] = [
        (Layer::UserNamespace, |case| case.inside.namespaces[0] = 1),
        (Layer::UserNamespace, |case| case.inside.namespaces[0] = 0),
        (Layer::UserNamespace, |case| case.host.namespaces[0] = 0),
        (Layer::MountNamespace, |case| case.inside.namespaces[1] = 2),
        (Layer::PidNamespace, |case| case.inside.namespaces[2] = 3),
        (Layer::PidNamespace, |case| case.inside.pid = 2),
        (Layer::NetworkNamespace, |case| {
            case.inside.namespaces[3] = 4
        }),
        (Layer::NetworkNamespace, |case| {
            case.inside.interfaces.push("eth0".into())
        }),
        (Layer::IpcNamespace, |case| case.inside.namespaces[4] = 5),
        (Layer::UtsNamespace, |case| case.inside.namespaces[5] = 6),
        (Layer::CgroupNamespace, |case| case.inside.namespaces[6] = 7),
        (Layer::Seccomp, |case| case.inside.seccomp_mode = 1),
        (Layer::Seccomp, |case| case.inside.seccomp_filters = 0),
        (Layer::NoNewPrivileges, |case| {
            case.inside.no_new_privs = false
        }),
        (Layer::EmptyCapabilities, |case| {
            case.inside.capabilities[3] = 1 << 40
        }),
        (Layer::EmptyCapabilities, |case| {
            case.inside.capabilities[4] = 1
        }),
        (Layer::ReadOnlyRoot, |case| {
            case.inside.root_read_only = false
        }),
        (Layer::Landlock, |case| case.inside.landlock_abi = 0),
        (Layer::Landlock, |case| {
            case.inside.landlock_in_force = false
        }),
        (Layer::NotRoot, |case| case.inside.uid = 0),
        (Layer::NotRoot, |case| case.inside.gid = 0),
        (Layer::NotRoot, |case| {
            case.outside_says(Layer::NotRoot, false)
        }),
        (Layer::Seccomp, |case| {
            case.outside_says(Layer::Seccomp, false)
        }),
    ];
    for (row, (layer, weaken)) in table.into_iter().enumerate() {
        let mut case = good();
        weaken(&mut case);
        let weakness = judge(&case).expect_err(&format!("row {row}, {layer:?}"));
        let named: Vec<Layer> = weakness.layers.iter().map(|found| found.layer).collect();
        assert_eq!(named, [layer], "row {row}");
        assert!(
            weakness.to_string().contains(&format!("{layer:?}")),
            "{weakness}"
        );

        // The same weakness in a layer that is only wanted is reported, not refused.
        for (_, requirement) in &mut case.spec.layers {
            *requirement = Requirement::WhereAvailable;
        }
        let attestation = judge(&case).unwrap();
        assert!(
            attestation
                .layers
                .iter()
                .any(|found| found.layer == layer && !found.in_force),
            "row {row}"
        );
    }
}

/// A sandbox with a kernel of its own, as gVisor shows itself: numbers of namespaces that mean nothing, no Landlock, and
/// mounts without their flags.
fn good_guest() -> Case {
    let mut case = good();
    case.spec.runtime = Some(RuntimeClass {
        name: "runsc".to_owned(),
        kernel: Kernel::Guest,
    });
    case.spec
        .layers
        .retain(|(layer, _)| *layer != Layer::Landlock);
    case.spec
        .layers
        .push((Layer::GuestKernel, Requirement::Required));
    case.inside.kernel = "Linux of the guest".to_owned();
    case.inside.namespaces = [0, 0, 3, 0, 0, 0, 0];
    case.inside.landlock_abi = 0;
    for mount in &mut case.inside.mounts {
        (mount.nosuid, mount.nodev) = (false, false);
    }
    case.outside_says(Layer::GuestKernel, true);
    case
}

#[test]
fn a_kernel_of_its_own_counts_when_both_sides_show_it() {
    let attestation = judge(&good_guest()).unwrap();
    let missing = attestation.layers.iter().filter(|found| !found.in_force);
    let missing: Vec<_> = missing.map(|found| found.layer).collect();
    assert_eq!(missing, [Layer::Landlock]);
    let table: [(&str, Weaken); 5] = [
        ("the host's kernel answers", |case| {
            case.inside.kernel = HOSTS_KERNEL.to_owned();
        }),
        ("none tells its name", |case| case.inside.kernel.clear()),
        ("the host's is unknown", |case| case.host.kernel.clear()),
        ("the outside does not affirm it", |case| {
            case.outside.layers.clear();
        }),
        ("the outside contradicts", |case| {
            case.outside_says(Layer::GuestKernel, false);
        }),
    ];
    for (what, weaken) in table {
        let mut case = good_guest();
        weaken(&mut case);
        let weakness = judge(&case).expect_err(what);
        let named: Vec<Layer> = weakness.layers.iter().map(|found| found.layer).collect();
        assert!(named.contains(&Layer::GuestKernel), "{what}: {named:?}");
    }
}

/// What a guest need not show is held by what it must show.
#[test]
fn a_guests_mounts_need_no_flags_only_without_privileges() {
    assert!(judge(&good_guest()).is_ok());
    let table: [Weaken; 4] = [
        |case| case.inside.no_new_privs = false,
        |case| case.inside.capabilities[2] = 1,
        |case| case.inside.uid = 0,
        |case| case.spec.runtime = None,
    ];
    for (row, weaken) in table.into_iter().enumerate() {
        let mut case = good_guest();
        weaken(&mut case);
        let flaws = judge(&case).expect_err("a flaw").mounts;
        assert!(
            flaws
                .iter()
                .any(|flaw| flaw.flaw == "writable without nosuid"),
            "row {row}: {flaws:?}"
        );
    }
}

#[test]
fn an_unknown_host_namespace_counts_when_the_outside_affirms_it() {
    let mut case = good();
    case.host = HostView::default();
    assert_eq!(judge(&case).unwrap_err().layers.len(), 7);
    for layer in judge(&case).unwrap_err().layers {
        case.outside_says(layer.layer, true);
    }
    assert!(judge(&case).is_ok());
}

#[test]
fn a_writable_root_mount_contradicts_a_read_only_root() {
    let mut case = good();
    case.mount("/").read_only = false;
    let weakness = judge(&case).unwrap_err();
    assert_eq!(weakness.layers[0].layer, Layer::ReadOnlyRoot);
    assert_eq!(weakness.mounts[0].target, "/");
}

#[test]
fn every_weakened_limit_is_refused_by_name() {
    let table: [(LimitName, Weaken); 12] = [
        (LimitName::MemoryBytes, |case| {
            case.limit(LimitName::MemoryBytes).in_force = Some(101)
        }),
        (LimitName::MemoryBytes, |case| {
            case.limit(LimitName::MemoryBytes).in_force = None
        }),
        (LimitName::MemoryBytes, |case| {
            case.limit(LimitName::MemoryBytes).enforcement = Enforcement::None
        }),
        (LimitName::CpuMillis, |case| {
            case.limit(LimitName::CpuMillis).in_force = Some(u64::MAX)
        }),
        (LimitName::Pids, |case| {
            case.limit(LimitName::Pids).enforcement = Enforcement::Soft
        }),
        (LimitName::Pids, |case| {
            case.outside
                .limits
                .retain(|found| found.limit != LimitName::Pids)
        }),
        (LimitName::OpenFiles, |case| case.inside.rlimits[0] = 101),
        (LimitName::FileBytes, |case| case.inside.rlimits[2] = 101),
        (LimitName::FileBytes, |case| {
            case.inside.rlimits[2] = u64::MAX;
            case.spec.limits.file_bytes.named = true;
        }),
        (LimitName::TemporaryBytes, |case| {
            case.mount("/tmp").size_bytes = 61
        }),
        (LimitName::TemporaryBytes, |case| {
            case.mount("/tmp").size_bytes = 0;
            case.spec.limits.temporary_bytes.named = true;
        }),
        (LimitName::StateBytes, |case| {
            case.limit(LimitName::StateBytes).enforcement = Enforcement::Soft;
            case.spec.limits.state_bytes.named = true;
        }),
    ];
    for (row, (limit, weaken)) in table.into_iter().enumerate() {
        let mut case = good();
        weaken(&mut case);
        let weakness = judge(&case).expect_err(&format!("row {row}, {limit:?}"));
        let named: Vec<LimitName> = weakness.limits.iter().map(|found| found.limit).collect();
        assert_eq!(named, [limit], "row {row}");
        assert!(weakness.to_string().contains(limit.as_str()), "{weakness}");
    }
}

#[test]
fn a_named_soft_limit_passes_only_where_the_operator_accepts_it() {
    let mut case = good();
    case.limit(LimitName::Pids).enforcement = Enforcement::Soft;
    assert!(judge(&case).is_err());
    case.spec.accept_soft_limits = true;
    assert!(judge(&case).is_ok());
    *case.limit(LimitName::Pids) = LimitInForce {
        in_force: None,
        enforcement: Enforcement::None,
        ..hard(LimitName::Pids)
    };
    assert!(judge(&case).is_err(), "no limit at all is not a soft one");
}

#[test]
fn a_default_limit_that_nothing_enforces_is_reported() {
    let mut case = good();
    case.outside
        .limits
        .retain(|found| found.limit != LimitName::CpuMillis);
    let limits = judge(&case).unwrap().limits;
    let cpu = limits
        .iter()
        .find(|found| found.limit == LimitName::CpuMillis)
        .unwrap();
    assert_eq!((cpu.in_force, cpu.enforcement), (None, Enforcement::None));
}

#[test]
fn every_flawed_mount_is_refused_by_name() {
    let table: [(&str, Weaken); 15] = [
        ("/opt/claude-code", |case| {
            case.inside
                .mounts
                .retain(|mount| mount.target != "/opt/claude-code")
        }),
        ("/opt/claude-code", |case| {
            case.mount("/opt/claude-code").nosuid = false
        }),
        ("/opt/claude-code", |case| {
            case.mount("/opt/claude-code").nodev = false
        }),
        ("/usr", |case| {
            case.inside.mounts.push(mount("/usr", "ext4", false, 0))
        }),
        ("/run/supervisor", |case| {
            case.inside
                .mounts
                .push(mount("/run/supervisor", "ext4", false, 0))
        }),
        ("/home/agent/x", |case| {
            case.inside
                .mounts
                .push(mount("/home/agent/x", "ext4", false, 0))
        }),
        ("/proc/sys", |case| {
            case.inside
                .mounts
                .push(mount("/proc/sys", "proc", false, 0))
        }),
        ("/dev/sda", |case| {
            case.inside
                .mounts
                .push(mount("/dev/sda", "devtmpfs", false, 0))
        }),
        ("/tmp", |case| case.mount("/tmp").kind = "ext4".into()),
        ("/tmp", |case| case.mount("/tmp").nosuid = false),
        ("/workspace", |case| case.mount("/workspace").nodev = false),
        ("/data", |case| case.spec.mounts[0].read_only = true),
        ("/workspace/.git", |case| {
            case.spec
                .protected
                .retain(|path| path.protection != Protection::Pinned)
        }),
        ("/workspace/.git/hooks", |case| {
            case.inside
                .mounts
                .retain(|mount| mount.target != "/workspace/.git/hooks")
        }),
        ("/workspace/.envrc", |case| {
            let protection = Protection::Masked { directory: false };
            case.spec.protected.push(ProtectedPath {
                relative: ".envrc".into(),
                protection,
            });
        }),
    ];
    for (target, weaken) in table {
        let mut case = good();
        weaken(&mut case);
        let weakness = judge(&case).expect_err(target);
        let named: Vec<&str> = weakness
            .mounts
            .iter()
            .map(|flaw| flaw.target.as_str())
            .collect();
        assert_eq!(named, [target]);
        assert!(weakness.to_string().contains(target), "{weakness}");
    }
}

#[test]
fn a_program_that_can_be_changed_is_a_flaw_twice() {
    let mut case = good();
    case.mount("/opt/claude-code").read_only = false;
    let weakness = judge(&case).unwrap_err();
    assert!(
        weakness.mounts.len() == 2
            && weakness
                .mounts
                .iter()
                .all(|flaw| flaw.target == "/opt/claude-code"),
        "{weakness}"
    );
    // The control: a sandbox that was not promised the program needs no mount for it.
    let mut case = good();
    case.spec.agent = None;
    case.inside
        .mounts
        .retain(|mount| mount.target != "/opt/claude-code");
    judge(&case).unwrap();
}

#[test]
fn a_dead_or_traceable_supervisor_is_refused() {
    let mut case = good();
    case.inside.not_dumpable = false;
    assert_eq!(judge(&case).unwrap_err().supervisor.len(), 1);
    let mut case = good();
    case.outside.running = false;
    assert_eq!(judge(&case).unwrap_err().supervisor.len(), 1);
}

#[test]
fn one_weakness_names_all_that_is_missing() {
    let mut case = good();
    case.inside.no_new_privs = false;
    case.inside.seccomp_mode = 0;
    case.inside.rlimits[0] = 200;
    case.mount("/tmp").nosuid = false;
    let weakness = judge(&case).unwrap_err();
    let counts = (
        weakness.layers.len(),
        weakness.limits.len(),
        weakness.mounts.len(),
    );
    assert_eq!(counts, (2, 1, 1));
}

/// What an engine makes: devices as nodes in a `/dev` of root's, and covers of files of `/proc` that are one of them.
fn with_an_engines_mounts(change: impl FnOnce(&mut Case)) -> Result<Attestation, Weakness> {
    let mut case = good();
    let dev = |target| MountFact {
        nodev: false,
        ..mount(target, "tmpfs", false, 1 << 26)
    };
    let mounts = ["/dev", "/proc/keys", "/proc/timer_list"].map(dev);
    case.inside.mounts.extend(mounts);
    change(&mut case);
    judge(&case)
}

#[test]
fn an_engines_devices_pass_and_hold_nothing_of_the_agents() {
    let attestation = with_an_engines_mounts(|_| {}).unwrap();
    let temporary = |found: &&LimitInForce| found.limit == LimitName::TemporaryBytes;
    let found = attestation.limits.iter().find(temporary).unwrap();
    assert_eq!(found.in_force, Some(100));
}

#[test]
fn an_engines_devices_pass_only_where_the_agent_can_make_none() {
    let table: [(&str, Weaken); 4] = [
        ("/dev", |case| case.inside.capabilities[2] = 1 << 27),
        ("/dev", |case| case.inside.uid = 0),
        ("/dev", |case| case.mount("/dev").nosuid = false),
        ("/proc/other", |case| {
            case.mount("/proc/keys").target = "/proc/other".into();
        }),
    ];
    for (target, weaken) in table {
        let weakness = with_an_engines_mounts(weaken).unwrap_err();
        assert!(
            weakness.mounts.iter().any(|flaw| flaw.target == target),
            "{target}: {weakness}"
        );
    }
}

/// A server in a container binds the container's device files, which lie on a tmpfs of 64 MiB: once for each was counted.
#[test]
fn devices_on_the_tmpfs_of_a_container_are_no_temporary_space() {
    let total = |case: &Case| {
        let attestation = judge(case).expect("a good sandbox");
        let temporary = attestation.limits.iter();
        temporary
            .filter(|found| found.limit == LimitName::TemporaryBytes)
            .filter_map(|found| found.in_force)
            .sum::<u64>()
    };
    let before = total(&good());
    let mut case = good();
    for device in ["/dev/null", "/dev/zero", "/dev/urandom"] {
        case.inside.mounts.retain(|mount| mount.target != device);
        case.inside
            .mounts
            .push(mount(device, "tmpfs", false, 64 << 20));
    }
    assert_eq!(total(&case), before);
    // The control: a directory beside them counts.
    case.inside
        .mounts
        .push(mount("/dev/other", "tmpfs", false, 64 << 20));
    assert!(judge(&case).is_err());
}
