//! Which limits are in force.

use model::{Enforcement, LimitInForce, LimitName, Limits, SandboxSpec};

use super::{
    WeakLimit,
    mounts::{is_cover, is_device, is_roots_dev},
};
use crate::Inspection;

/// `RLIM_INFINITY`: no limit.
const UNLIMITED: u64 = u64::MAX;
/// Places in [`wire::Attestation::rlimits`].
const RLIMIT_NOFILE: usize = 0;
const RLIMIT_FSIZE: usize = 2;

pub(super) fn in_force(
    asked: &Limits,
    inside: &wire::Attestation,
    outside: &Inspection,
) -> Vec<LimitInForce> {
    let find = |limit: LimitName| match limit {
        LimitName::OpenFiles => rlimit(inside, RLIMIT_NOFILE, "RLIMIT_NOFILE"),
        LimitName::FileBytes => rlimit(inside, RLIMIT_FSIZE, "RLIMIT_FSIZE"),
        LimitName::TemporaryBytes => tmpfs_sizes(inside),
        LimitName::MemoryBytes | LimitName::CpuMillis | LimitName::Pids | LimitName::StateBytes => {
            read_outside(limit, outside)
        }
    };
    let fill = |limit: LimitName| {
        let (in_force, enforcement, mechanism) = find(limit);
        LimitInForce {
            limit,
            asked: asked.get(limit).value,
            in_force,
            enforcement,
            mechanism,
        }
    };
    LimitName::ALL.into_iter().map(fill).collect()
}

type Found = (Option<u64>, Enforcement, String);

fn nothing(mechanism: &str) -> Found {
    (None, Enforcement::None, mechanism.to_owned())
}

fn rlimit(inside: &wire::Attestation, index: usize, mechanism: &str) -> Found {
    match inside.rlimits[index] {
        UNLIMITED => nothing(mechanism),
        value => (Some(value), Enforcement::Hard, mechanism.to_owned()),
    }
}

/// All tmpfs together in which the agent can write. One without a size may take half of the machine's memory, so then nothing holds.
fn tmpfs_sizes(inside: &wire::Attestation) -> Found {
    const MECHANISM: &str = "tmpfs size";
    let writable = inside
        .mounts
        .iter()
        .filter(|mount| mount.kind == "tmpfs" && !mount.read_only)
        .filter(|mount| !is_cover(&mount.target) && !is_device(&mount.target))
        .filter(|mount| !is_roots_dev(inside, mount));
    let total = writable
        .map(|mount| mount.size_bytes)
        .try_fold(0u64, |total, size| match size {
            0 => None,
            size => total.checked_add(size),
        });
    total.map_or_else(
        || nothing(MECHANISM),
        |total| (Some(total), Enforcement::Hard, MECHANISM.to_owned()),
    )
}

fn read_outside(limit: LimitName, outside: &Inspection) -> Found {
    match outside.limits.iter().find(|found| found.limit == limit) {
        Some(found) => (found.in_force, found.enforcement, found.mechanism.clone()),
        None => nothing("none"),
    }
}

/// Limits that do not hold as asked.
pub(super) fn weaknesses(spec: &SandboxSpec, limits: &[LimitInForce]) -> Vec<WeakLimit> {
    let describe = |found: &LimitInForce| WeakLimit {
        limit: found.limit,
        asked: found.asked,
        in_force: found.in_force,
        enforcement: found.enforcement,
    };
    limits
        .iter()
        .filter(|found| !holds(spec, found))
        .map(describe)
        .collect()
}

fn holds(spec: &SandboxSpec, found: &LimitInForce) -> bool {
    let as_strict_as_asked = match (found.in_force, found.enforcement) {
        (Some(value), Enforcement::Soft | Enforcement::Hard) => value <= found.asked,
        // A default that this machine cannot enforce at all is reported, not refused.
        (None, Enforcement::None) => true,
        // A claim without a value, or a value that nothing enforces.
        (None, Enforcement::Soft | Enforcement::Hard) | (Some(_), Enforcement::None) => false,
    };
    let named = spec.limits.get(found.limit).named;
    let strong_enough = match found.enforcement {
        Enforcement::Hard => true,
        Enforcement::Soft => !named || spec.accept_soft_limits,
        Enforcement::None => !named,
    };
    as_strict_as_asked && strong_enough
}
