//! What a fake says of itself: the truth about the sandbox that its spec describes, unless its options say otherwise.

use model::{
    AGENT_DIRECTORY, AGENT_GID, AGENT_UID, Enforcement, Layer, LayerInForce, LimitInForce,
    LimitName, Protection, STATE_PATH, SandboxSpec, WORKSPACE_PATH,
};
use wire::{MAX_MOUNT_FACTS, MountFact};

use super::{Break, FakeOptions};
use crate::{Capability, Inspection, LimitCapability};

const RUNG: &str = "simulated";
/// Inodes of the simulated namespaces, far from those that a kernel hands out first.
const FIRST_NAMESPACE: u64 = 9_000_000_000;

impl FakeOptions {
    /// How this "machine" enforces a limit.
    pub(super) fn enforcement(&self, limit: LimitName) -> Enforcement {
        let lowered = self.enforcement.iter().find(|(name, _)| *name == limit);
        lowered.map_or(Enforcement::Hard, |(_, enforcement)| *enforcement)
    }

    /// The value in force where a sandbox was asked for another.
    fn value(&self, spec: &SandboxSpec, limit: LimitName) -> u64 {
        let asked = spec.limits.get(limit).value;
        if self.broken == Some(Break::HoldsNoLimits) {
            return asked.saturating_mul(2);
        }
        let weakened = self.weakened_limits.iter().find(|(name, _)| *name == limit);
        weakened.map_or(asked, |(_, value)| *value)
    }

    fn has(&self, layer: Layer) -> bool {
        !self.absent_layers.contains(&layer)
    }
}

pub(super) fn capability(options: &FakeOptions) -> Capability {
    let limit = |limit: LimitName| LimitCapability {
        limit,
        enforcement: options.enforcement(limit),
        mechanism: RUNG.to_owned(),
    };
    Capability {
        rung: RUNG.to_owned(),
        posture: "fake".to_owned(),
        layers: Layer::ALL.to_vec(),
        limits: LimitName::ALL.into_iter().map(limit).collect(),
        advice: Vec::new(),
    }
}

pub(super) fn inspection(spec: &SandboxSpec, options: &FakeOptions, running: bool) -> Inspection {
    let layer = |layer: &Layer| LayerInForce {
        layer: *layer,
        in_force: options.has(*layer),
        evidence: RUNG.to_owned(),
    };
    let seen_outside = [
        LimitName::MemoryBytes,
        LimitName::CpuMillis,
        LimitName::Pids,
        LimitName::StateBytes,
    ];
    let limit = |limit: LimitName| {
        let enforcement = options.enforcement(limit);
        LimitInForce {
            limit,
            asked: spec.limits.get(limit).value,
            in_force: (enforcement != Enforcement::None).then(|| options.value(spec, limit)),
            enforcement,
            mechanism: RUNG.to_owned(),
        }
    };
    Inspection {
        running,
        rung: RUNG.to_owned(),
        layers: Layer::ALL.iter().map(layer).collect(),
        limits: seen_outside.into_iter().map(limit).collect(),
    }
}

pub(super) fn attestation(spec: &SandboxSpec, options: &FakeOptions) -> wire::Attestation {
    let namespaces = [
        Layer::UserNamespace,
        Layer::MountNamespace,
        Layer::PidNamespace,
        Layer::NetworkNamespace,
        Layer::IpcNamespace,
        Layer::UtsNamespace,
        Layer::CgroupNamespace,
    ];
    let mut inodes = [0; 7];
    for (place, (inode, layer)) in inodes.iter_mut().zip(namespaces).enumerate() {
        *inode = if options.has(layer) {
            FIRST_NAMESPACE + place as u64
        } else {
            0
        };
    }
    let root = !options.has(Layer::NotRoot);
    let value = |limit| options.value(spec, limit);
    wire::Attestation {
        kernel: if options.has(Layer::GuestKernel) {
            RUNG.to_owned()
        } else {
            String::new()
        },
        uid: if root { 0 } else { AGENT_UID },
        gid: if root { 0 } else { AGENT_GID },
        pid: 1,
        capabilities: if options.has(Layer::EmptyCapabilities) {
            [0; 5]
        } else {
            [1; 5]
        },
        no_new_privs: options.has(Layer::NoNewPrivileges),
        seccomp_mode: if options.has(Layer::Seccomp) { 2 } else { 0 },
        seccomp_filters: u32::from(options.has(Layer::Seccomp)),
        landlock_abi: 7,
        landlock_in_force: options.has(Layer::Landlock),
        not_dumpable: true,
        namespaces: inodes,
        root_read_only: options.has(Layer::ReadOnlyRoot),
        interfaces: vec!["lo".to_owned()],
        rlimits: [
            value(LimitName::OpenFiles),
            value(LimitName::Pids),
            value(LimitName::FileBytes),
            0,
        ],
        mounts: mounts(
            spec,
            value(LimitName::TemporaryBytes),
            options.has(Layer::ReadOnlyRoot),
        ),
    }
}

fn mounts(spec: &SandboxSpec, temporary_bytes: u64, root_read_only: bool) -> Vec<MountFact> {
    let mount = |target: String, kind: &str, read_only: bool, size_bytes: u64| MountFact {
        target,
        kind: kind.to_owned(),
        read_only,
        nosuid: true,
        nodev: true,
        size_bytes,
    };
    let mut mounts = vec![
        mount("/".to_owned(), "ext4", root_read_only, 0),
        mount(WORKSPACE_PATH.to_owned(), "ext4", false, 0),
        mount(STATE_PATH.to_owned(), "ext4", false, 0),
        mount("/tmp".to_owned(), "tmpfs", false, temporary_bytes),
    ];
    if spec.agent.is_some() {
        mounts.push(mount(AGENT_DIRECTORY.to_owned(), "ext4", true, 0));
    }
    for bind in &spec.mounts {
        mounts.push(mount(
            bind.target.display().to_string(),
            "ext4",
            bind.read_only,
            0,
        ));
    }
    for path in &spec.protected {
        let target = format!("{WORKSPACE_PATH}/{}", path.relative.display());
        mounts.push(mount(
            target,
            "ext4",
            path.protection != Protection::Pinned,
            0,
        ));
    }
    mounts.truncate(MAX_MOUNT_FACTS);
    mounts
}
