//! Which mounts may be writable, and how.

use model::{
    AGENT_DIRECTORY, Kernel, ProtectedPath, Protection, STATE_PATH, SandboxSpec, WORKSPACE_PATH,
};
use wire::{Attestation, MountFact};

use super::MountFlaw;

/// Writable places that a sandbox builds itself, with the kind of file system each may be (empty: any). The kernel
/// shows `/proc` and the terminals' file system writable; what may be written in them is not a matter of mounts.
const BUILT_IN: [(&str, &str); 11] = [
    (WORKSPACE_PATH, ""),
    (STATE_PATH, ""),
    ("/tmp", "tmpfs"),
    ("/run", "tmpfs"),
    ("/home", "tmpfs"),
    ("/var/tmp", "tmpfs"),
    ("/dev/shm", "tmpfs"),
    ("/dev/pts", "devpts"),
    ("/dev/mqueue", "mqueue"),
    ("/proc", "proc"),
    ("/dev", "tmpfs"),
];

/// Terminals are devices, made by the kernel alone: their file system cannot be `nodev`.
const TERMINALS: &str = "devpts";

/// Below it each user's home.
const HOMES: &str = "/home/";

/// Single device files, bound one by one where no device can be made: the only mounts that may carry devices. Writing
/// to them reaches the driver, not a file system.
const DEVICES: [&str; 7] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
];

/// Files of `/proc` that tell about the machine rather than the sandbox, or command it. Every backend covers those that
/// are there with a device that is empty.
pub const MASKED_PROC_FILES: [&str; 9] = [
    "kcore",
    "keys",
    "timer_list",
    "sched_debug",
    "latency_stats",
    "interrupts",
    "sysrq-trigger",
    "kmsg",
    "kpagecount",
];

/// Whether that is a device file. In a container it lies on the tmpfs that is the container's `/dev`, whose size is shown at
/// each of them and is nobody's here: nothing can be made at a file.
pub(super) fn is_device(target: &str) -> bool {
    DEVICES.contains(&target)
}

/// Whether that is a file of `/proc` under its cover. Only a file can cover a file, and the covers are made before
/// anything untrusted runs.
pub(super) fn is_cover(target: &str) -> bool {
    target
        .strip_prefix("/proc/")
        .is_some_and(|name| MASKED_PROC_FILES.contains(&name))
}

/// Where an engine makes the devices it makes them as nodes of a `/dev` that belongs to root: whoever is somebody else
/// and has no capability makes nothing there.
pub(super) fn is_roots_dev(inside: &Attestation, mount: &MountFact) -> bool {
    mount.target == "/dev"
        && mount.kind == "tmpfs"
        && inside.uid != 0
        && inside.capabilities == [0; 5]
}

pub(super) fn flaws(spec: &SandboxSpec, inside: &Attestation) -> Vec<MountFlaw> {
    let mounts = &inside.mounts;
    let writable = mounts.iter().filter(|mount| {
        let target = mount.target.as_str();
        !mount.read_only && !is_device(target) && !is_cover(target)
    });
    let mut flaws: Vec<MountFlaw> = writable
        .filter_map(|mount| {
            writable_flaw(spec, inside, mount).map(|flaw| MountFlaw {
                target: mount.target.clone(),
                flaw,
            })
        })
        .collect();
    flaws.extend(unprotected(spec, mounts));
    flaws.extend(agent_flaw(spec, inside).map(|flaw| MountFlaw {
        target: AGENT_DIRECTORY.to_owned(),
        flaw,
    }));
    flaws
}

/// All sandboxes share Claude Code's program: none may change it for the others.
fn agent_flaw(spec: &SandboxSpec, inside: &Attestation) -> Option<&'static str> {
    spec.agent.as_ref()?;
    let mut over = inside
        .mounts
        .iter()
        .filter(|mount| mount.target == AGENT_DIRECTORY)
        .peekable();
    if over.peek().is_none() {
        return Some("Claude Code is not mounted");
    }
    let flags_count = !is_without_privileges(spec, inside);
    over.find_map(|mount| {
        if !mount.read_only {
            Some("Claude Code is not mounted read-only")
        } else if flags_count && (!mount.nosuid || !mount.nodev) {
            Some("Claude Code is mounted without nosuid or nodev")
        } else {
            None
        }
    })
}

fn writable_flaw(
    spec: &SandboxSpec,
    inside: &Attestation,
    mount: &MountFact,
) -> Option<&'static str> {
    if !is_expected(spec, mount) {
        Some("writable")
    } else if is_without_privileges(spec, inside) {
        None
    } else if !mount.nosuid {
        Some("writable without nosuid")
    } else if !mount.nodev && mount.kind != TERMINALS && !is_roots_dev(inside, mount) {
        Some("writable without nodev")
    } else {
        None
    }
}

/// A kernel of the sandbox's own need not show these flags (gVisor's does not): under `no_new_privs` no program gains
/// anything by its set-uid bit, and without capabilities nobody makes a device there; the host's devices are out of reach.
fn is_without_privileges(spec: &SandboxSpec, inside: &Attestation) -> bool {
    spec.kernel() == Kernel::Guest
        && inside.no_new_privs
        && inside.uid != 0
        && inside.capabilities == [0; 5]
}

fn is_expected(spec: &SandboxSpec, mount: &MountFact) -> bool {
    let target = mount.target.as_str();
    let built_in = BUILT_IN
        .iter()
        .any(|(path, kind)| *path == target && (kind.is_empty() || *kind == mount.kind));
    let home = mount.kind == "tmpfs"
        && target
            .strip_prefix(HOMES)
            .is_some_and(|name| !name.contains('/'));
    let asked = spec
        .mounts
        .iter()
        .any(|bind| !bind.read_only && bind.target.as_os_str() == target);
    // A directory on the way to a protected path is mounted over itself, writable.
    let mut pinned = spec
        .protected
        .iter()
        .filter(|path| path.protection == Protection::Pinned);
    built_in || home || asked || pinned.any(|path| target_of(path) == target)
}

/// Every protected path stands under a read-only mount of its own, and nothing writable was mounted over it.
fn unprotected(spec: &SandboxSpec, mounts: &[MountFact]) -> Vec<MountFlaw> {
    let guarded = spec.protected.iter().filter(|path| match path.protection {
        Protection::ReadOnly | Protection::Masked { .. } => true,
        Protection::Pinned => false,
    });
    let is_guarded = |target: &String| {
        let mut over = mounts
            .iter()
            .filter(|mount| mount.target == *target)
            .peekable();
        over.peek().is_some() && over.all(|mount| mount.read_only)
    };
    let missing = guarded.map(target_of).filter(|target| !is_guarded(target));
    missing
        .map(|target| MountFlaw {
            target,
            flaw: "not protected by a read-only mount",
        })
        .collect()
}

fn target_of(path: &ProtectedPath) -> String {
    format!("{WORKSPACE_PATH}/{}", path.relative.display())
}
