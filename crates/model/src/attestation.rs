//! What protects a running sandbox, read back from the kernel after start: never what was merely asked for.

use serde::{Deserialize, Serialize};

use crate::limits::LimitInForce;

/// A layer of protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Layer {
    /// Own user namespace.
    UserNamespace,
    /// Own mount namespace.
    MountNamespace,
    /// Own pid namespace.
    PidNamespace,
    /// Own network namespace with nothing but `lo`.
    NetworkNamespace,
    /// Own IPC namespace.
    IpcNamespace,
    /// Own UTS namespace.
    UtsNamespace,
    /// Own cgroup namespace.
    CgroupNamespace,
    /// The system-call filter of the profile.
    Seccomp,
    /// `no_new_privs`.
    NoNewPrivileges,
    /// All five capability sets empty.
    EmptyCapabilities,
    /// Root file system mounted read-only.
    ReadOnlyRoot,
    /// A Landlock domain round the supervisor and all it starts.
    Landlock,
    /// The agent's uid is not 0, inside and outside.
    NotRoot,
    /// System calls are answered by a kernel of the sandbox's own, never by the host's.
    GuestKernel,
}

impl Layer {
    /// Every layer, in their order.
    pub const ALL: [Layer; 14] = [
        Layer::UserNamespace,
        Layer::MountNamespace,
        Layer::PidNamespace,
        Layer::NetworkNamespace,
        Layer::IpcNamespace,
        Layer::UtsNamespace,
        Layer::CgroupNamespace,
        Layer::Seccomp,
        Layer::NoNewPrivileges,
        Layer::EmptyCapabilities,
        Layer::ReadOnlyRoot,
        Layer::Landlock,
        Layer::NotRoot,
        Layer::GuestKernel,
    ];
}

/// How much a profile insists on a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Requirement {
    /// Without it the session is refused.
    Required,
    /// In force wherever the kernel offers it; its absence is reported.
    WhereAvailable,
}

/// One layer, as asked and as read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerInForce {
    /// Which layer.
    pub layer: Layer,
    /// Whether it was found in force.
    pub in_force: bool,
    /// What was read: `Seccomp: 2, 3 filters`, `CapEff 0 …`. Never a path of the host.
    pub evidence: String,
}

/// The protection of one running sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attestation {
    /// Layers, in the order of [`Layer`].
    pub layers: Vec<LayerInForce>,
    /// Limits, in the order of [`crate::LimitName`].
    pub limits: Vec<LimitInForce>,
    /// What this backend could reach on this machine: `root`, `user with subordinate ids`, …
    pub rung: String,
}
