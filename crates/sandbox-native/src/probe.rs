//! What this machine lets us do, found out by doing it: the ladder.
//!
//! ```text
//! root, cgroup v2 | v1                 all of it
//! user with subordinate ids, …         limits of memory and CPU need a delegated control group
//! user, single id, …                   the same, and no second id inside
//! nothing                              user namespaces are blocked: explained, never weakened
//! ```

use std::{fs, path::Path};

use model::{Enforcement, Layer, LimitName};
use sandbox::{Advice, BackendError, Capability, LimitCapability};

use crate::{
    cgroup::{self, Hierarchy},
    config::NativeConfig,
    enter,
    helpers::Helpers,
    plan::{Answer, Failure, Identity, Order, RANGE_IDS},
};

/// What was found.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Which ids sandboxes get. For root the base is only an example.
    pub identity: Identity,
    /// Where limits are enforced.
    pub hierarchy: Hierarchy,
    /// The same for callers.
    pub capability: Capability,
}

/// Tries the rungs from the top.
///
/// # Errors
/// [`BackendError::Unavailable`] with the reason of the lowest rung.
pub(crate) fn probe(config: &NativeConfig, helpers: &Helpers) -> Result<Machine, BackendError> {
    let mut advice = Vec::new();
    let mut last = None;
    for identity in candidates(config) {
        match helpers.ask(&Order::Probe(identity), None)?.0 {
            Answer::Probed => {
                let hierarchy = cgroup::detect(&config.cgroup);
                return Ok(describe(identity, hierarchy, advice));
            }
            Answer::Failed(failure) => {
                if matches!(identity, Identity::Subordinate { .. }) {
                    advice.push(Advice {
                        missing: format!("subordinate ids are configured and do not work (cannot {})", failure.step),
                        remedy: "check that newuidmap and newgidmap are installed set-user-id (package uidmap)".to_owned(),
                    });
                }
                last = Some(failure);
            }
            Answer::Created { .. } => {}
        }
    }
    Err(last.map_or_else(
        || BackendError::Unavailable {
            why: "no way was tried".to_owned(),
            remedy: String::new(),
        },
        |failure| unavailable(&failure, &Settings::read()),
    ))
}

fn candidates(config: &NativeConfig) -> Vec<Identity> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    if uid == 0 {
        return vec![Identity::Range {
            base: config.uid_range_base,
        }];
    }
    let name = account_name(uid);
    let find = |file: &str| subordinate(&fs::read_to_string(file).ok()?, uid, name.as_deref());
    let mut found = Vec::new();
    if let (Some(uid_start), Some(gid_start)) = (find("/etc/subuid"), find("/etc/subgid")) {
        found.push(Identity::Subordinate {
            uid,
            gid,
            uid_start,
            gid_start,
        });
    }
    found.push(Identity::Single { uid, gid });
    found
}

fn account_name(uid: u32) -> Option<String> {
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    let uid = uid.to_string();
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

/// The first range of a subordinate id file that is long enough, for the user by name or number.
fn subordinate(file: &str, uid: u32, name: Option<&str>) -> Option<u32> {
    let number = uid.to_string();
    file.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let holder = fields.next()?;
        let start = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        ((Some(holder) == name || holder == number) && count >= RANGE_IDS).then_some(start)
    })
}

fn describe(identity: Identity, hierarchy: Hierarchy, mut advice: Vec<Advice>) -> Machine {
    let (who, posture) = match identity {
        Identity::Range { .. } => ("root", "embedded-root"),
        Identity::Subordinate { .. } => ("user with subordinate ids", "embedded-rootless"),
        Identity::Single { .. } => ("user, single id", "embedded-rootless"),
    };
    if matches!(identity, Identity::Single { .. }) {
        advice.push(Advice {
            missing: "no subordinate ids: programs inside cannot change to another user".to_owned(),
            remedy: "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 <user>, and install uidmap".to_owned(),
        });
    }
    let limits: Vec<_> = LimitName::ALL
        .iter()
        .map(|limit| enforcement(*limit, &hierarchy))
        .collect();
    if limits.iter().any(|found| {
        found.limit == LimitName::MemoryBytes && found.enforcement != Enforcement::Hard
    }) {
        advice.push(Advice {
            missing: "no control group for us: memory is only watched and CPU is not limited".to_owned(),
            remedy: "run the server in a delegated group: systemd-run --user --scope -p Delegate=yes claude-code-mcp serve"
                .to_owned(),
        });
    }
    let mut layers = Layer::ALL.to_vec();
    layers.retain(|layer| *layer != Layer::GuestKernel);
    if enter::landlock_abi() == 0 {
        layers.retain(|layer| *layer != Layer::Landlock);
        advice.push(Advice {
            missing: "the kernel has no Landlock".to_owned(),
            remedy:
                "boot with `landlock` among the modules of `lsm=`, or use a kernel of 5.13 or later"
                    .to_owned(),
        });
    }
    let rung = format!("{who}, {}", hierarchy.name());
    let capability = Capability {
        rung,
        posture: posture.to_owned(),
        layers,
        limits,
        advice,
    };
    Machine {
        identity,
        hierarchy,
        capability,
    }
}

/// How that limit will be enforced.
pub(crate) fn enforcement(limit: LimitName, hierarchy: &Hierarchy) -> LimitCapability {
    let of = |enforcement, mechanism: &str| LimitCapability {
        limit,
        enforcement,
        mechanism: mechanism.to_owned(),
    };
    if let Some(mechanism) = hierarchy.holds(limit) {
        return of(Enforcement::Hard, mechanism);
    }
    match limit {
        LimitName::MemoryBytes => of(Enforcement::Soft, "supervisor"),
        LimitName::CpuMillis => of(Enforcement::None, "nothing"),
        LimitName::Pids => of(Enforcement::Hard, "RLIMIT_NPROC"),
        LimitName::OpenFiles => of(Enforcement::Hard, "RLIMIT_NOFILE"),
        LimitName::FileBytes => of(Enforcement::Hard, "RLIMIT_FSIZE"),
        LimitName::TemporaryBytes => of(Enforcement::Hard, "tmpfs size"),
        LimitName::StateBytes => of(Enforcement::Soft, "supervisor"),
    }
}

/// What the kernel says about user namespaces. Read only to explain a refusal, never to predict one.
#[derive(Debug, Clone, Default)]
struct Settings {
    max_user_namespaces: Option<u64>,
    unprivileged_userns_clone: Option<u64>,
    apparmor_restricts: Option<u64>,
}

impl Settings {
    fn read() -> Self {
        let number = |path: &str| {
            fs::read_to_string(Path::new("/proc/sys").join(path))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        Settings {
            max_user_namespaces: number("user/max_user_namespaces"),
            unprivileged_userns_clone: number("kernel/unprivileged_userns_clone"),
            apparmor_restricts: number("kernel/apparmor_restrict_unprivileged_userns"),
        }
    }
}

fn unavailable(failure: &Failure, settings: &Settings) -> BackendError {
    let (why, remedy) = explain(failure, settings);
    BackendError::Unavailable {
        why: why.to_owned(),
        remedy: remedy.to_owned(),
    }
}

fn explain(failure: &Failure, settings: &Settings) -> (String, &'static str) {
    let denied = [libc::EPERM, libc::EACCES].contains(&failure.errno);
    if settings.max_user_namespaces == Some(0) || failure.errno == libc::ENOSPC {
        let why =
            "user namespaces are switched off (user.max_user_namespaces) or used up".to_owned();
        return (why, "sysctl -w user.max_user_namespaces=15000");
    }
    if denied && settings.unprivileged_userns_clone == Some(0) {
        let why =
            "ordinary users may not make user namespaces (kernel.unprivileged_userns_clone=0)"
                .to_owned();
        return (why, "sysctl -w kernel.unprivileged_userns_clone=1");
    }
    if denied && settings.apparmor_restricts.is_some_and(|value| value > 0) {
        let why =
            "AppArmor takes the rights away from user namespaces of programs without a profile \
                   (kernel.apparmor_restrict_unprivileged_userns=1)"
                .to_owned();
        return (
            why,
            "install profiles/apparmor/claude-code-mcp into /etc/apparmor.d and run apparmor_parser -r on it",
        );
    }
    if failure.step == "mount /proc" {
        let why = "parts of /proc are masked here, as in most containers, so that no new one may be mounted".to_owned();
        return (
            why,
            "run the server outside of the container, or with an unmasked /proc (systempaths=unconfined)",
        );
    }
    let reason = std::io::Error::from_raw_os_error(failure.errno);
    (
        format!("cannot {}: {reason}", failure.step),
        "see `doctor`; a container around us may forbid namespaces",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::FailureKind;

    fn failed(step: &str, errno: i32) -> Failure {
        Failure {
            kind: FailureKind::Step,
            step: step.to_owned(),
            errno,
        }
    }

    fn check(failure: &Failure, settings: &Settings, why: &str, remedy: &str) {
        let found = explain(failure, settings);
        assert!(
            found.0.contains(why) && found.1.contains(remedy),
            "{found:?}"
        );
    }

    #[test]
    fn every_known_block_is_named_with_its_remedy() {
        let clone = |errno| failed("enter new namespaces", errno);
        let open = Settings {
            max_user_namespaces: Some(9),
            ..Settings::default()
        };
        check(
            &clone(libc::ENOSPC),
            &open,
            "used up",
            "max_user_namespaces",
        );
        let off = Settings {
            max_user_namespaces: Some(0),
            ..Settings::default()
        };
        check(
            &clone(libc::EPERM),
            &off,
            "switched off",
            "max_user_namespaces",
        );
        let debian = Settings {
            unprivileged_userns_clone: Some(0),
            ..open.clone()
        };
        check(
            &clone(libc::EPERM),
            &debian,
            "unprivileged_userns_clone",
            "unprivileged_userns_clone=1",
        );
        let ubuntu = Settings {
            apparmor_restricts: Some(1),
            unprivileged_userns_clone: Some(1),
            ..open.clone()
        };
        check(
            &failed("make mounts private", libc::EACCES),
            &ubuntu,
            "AppArmor",
            "apparmor_parser",
        );
        check(
            &failed("mount /proc", libc::EPERM),
            &open,
            "masked",
            "unmasked",
        );
        check(
            &clone(libc::EPERM),
            &open,
            "cannot enter new namespaces",
            "doctor",
        );
    }

    #[test]
    fn subordinate_ranges_are_found_by_name_or_number_and_must_be_long_enough() {
        let file = "other:100000:65536\nme:1:10\nme:165536:65536\n1001:300000:70000\n";
        assert_eq!(subordinate(file, 1000, Some("me")), Some(165_536));
        assert_eq!(subordinate(file, 1001, None), Some(300_000));
        assert_eq!(subordinate(file, 7, Some("nobody")), None);
    }

    #[test]
    fn without_a_control_group_processes_are_limited_hard_memory_soft_and_cpu_not() {
        let found = |limit| enforcement(limit, &Hierarchy::None).enforcement;
        assert_eq!(found(LimitName::Pids), Enforcement::Hard);
        assert_eq!(found(LimitName::MemoryBytes), Enforcement::Soft);
        assert_eq!(found(LimitName::CpuMillis), Enforcement::None);
        assert_eq!(found(LimitName::StateBytes), Enforcement::Soft);
    }
}
