//! The one Landlock domain that the supervisor puts itself into: everything it starts inherits it, nothing can leave it.

use landlock::{
    ABI, Access, AccessFs, LandlockStatus, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior},
};
use wire::SupervisorArguments;

/// The rights that are handled. Not the newest: from ABI 9 on Landlock can also restrict connecting to sockets by path,
/// and the host's socket must stay reachable for every reconnect.
const HANDLED: ABI = ABI::V6;

/// Devices and small places that programs write to whatever the session's writable roots are.
const WRITABLE_DEVICES: [&str; 9] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/shm",
];

/// What the confinement came to.
pub struct Confinement {
    /// ABI of the kernel, 0 without Landlock.
    pub landlock_abi: u32,
    /// An access that worked before was refused after, by nothing but the domain.
    pub landlock_in_force: bool,
    /// `PR_GET_DUMPABLE` says 0.
    pub not_dumpable: bool,
}

/// Enters the domain and stops being dumpable.
///
/// # Errors
/// Only when the rules cannot be built. A kernel without Landlock is no error here: the attestation says so and the
/// host decides.
pub fn confine(arguments: &SupervisorArguments) -> Result<Confinement, String> {
    // The probe needs files of /proc/self that belong to us, which they do only as long as we are dumpable.
    let probes: Vec<Probe> = PROBES
        .into_iter()
        .filter(|probe| probe.works(&arguments.writable))
        .collect();
    let status = restrict(&arguments.writable)
        .map_err(|error| format!("cannot enter the Landlock domain: {error}"))?;
    let refused = probes
        .first()
        .is_some_and(|probe| probe.attempt() == Err(Errno::ACCESS));
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| format!("cannot stop being dumpable: {errno}"))?;
    Ok(Confinement {
        landlock_abi: abi_number(status.landlock),
        landlock_in_force: refused && status.ruleset != RulesetStatus::NotEnforced,
        not_dumpable: dumpable_behavior() == Ok(DumpableBehavior::NotDumpable),
    })
}

fn restrict(writable: &[String]) -> Result<landlock::RestrictionStatus, RulesetError> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(HANDLED))?
        .scope(Scope::from_all(HANDLED))?
        .create()?;
    let ruleset = allow_reading(ruleset)?
        .add_rules(path_beneath_rules(
            WRITABLE_DEVICES,
            AccessFs::from_all(HANDLED),
        ))?
        .add_rules(path_beneath_rules(writable, AccessFs::from_all(HANDLED)))?;
    ruleset.restrict_self()
}

fn allow_reading(ruleset: RulesetCreated) -> Result<RulesetCreated, RulesetError> {
    let root: Result<PathFd, PathFdError> = PathFd::new("/");
    match root {
        Ok(root) => ruleset.add_rule(PathBeneath::new(root, AccessFs::from_read(HANDLED))),
        // Without the rule nothing can be read: tighter, never wider.
        Err(_) => Ok(ruleset),
    }
}

/// An access that plain permissions allow and the domain must refuse.
///
/// Each one is tried before the domain is entered (the positive control) and once after. The process, its credentials
/// and the file are the same, so a refusal with EACCES can come from the domain alone; a read-only mount would already
/// have failed the control.
struct Probe {
    path: &'static str,
    flags: OFlags,
}

const PROBES: [Probe; 4] = [
    Probe {
        path: "/proc/self/comm",
        flags: OFlags::WRONLY,
    },
    // An unnamed file: created, never visible, gone on close.
    Probe {
        path: "/run",
        flags: OFlags::WRONLY.union(OFlags::TMPFILE),
    },
    Probe {
        path: "/var/tmp",
        flags: OFlags::WRONLY.union(OFlags::TMPFILE),
    },
    Probe {
        path: "/",
        flags: OFlags::WRONLY.union(OFlags::TMPFILE),
    },
];

impl Probe {
    fn works(&self, writable: &[String]) -> bool {
        let allowed = writable
            .iter()
            .any(|root| std::path::Path::new(self.path).starts_with(root));
        !allowed && self.attempt().is_ok()
    }

    fn attempt(&self) -> Result<(), Errno> {
        openat(
            CWD,
            self.path,
            self.flags | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )
        .map(drop)
    }
}

fn abi_number(status: LandlockStatus) -> u32 {
    match status {
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => kernel_abi
            .and_then(|abi| u32::try_from(abi).ok())
            .unwrap_or(effective_abi as u32),
    }
}
