//! Who owns what: mappings of ids between the host, the mounts and the inside.
//!
//! Inside, the agent is always [`AGENT_UID`]. Behind it stands either an id of the sandbox's own range (root), with
//! mounts that show the project's owner as the agent, or the calling user itself.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt::Write as _,
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::Command,
};

use model::{AGENT_GID, AGENT_UID, HostDirectory};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::{
    enter::{self, MountAttributes, Side, set_mount_attributes},
    plan::{At, Failure, FailureKind, Identity, RANGE_IDS},
};

/// Longest life of a process that only carries a mapping: a parent that needs more is gone.
const CARRIER_LIFE: std::time::Duration = std::time::Duration::from_secs(10);

/// How the user namespace of a process is filled.
///
/// # Errors
/// When the kernel or the set-user-id programs for subordinate ranges refuse.
pub(crate) fn map_process(pid: Pid, identity: Identity) -> Result<(), Failure> {
    let raw = pid.as_raw_nonzero();
    match identity {
        Identity::Range { base } => {
            let map = format!("0 {base} {RANGE_IDS}\n");
            write_map(raw, "uid_map", &map).at("map user ids")?;
            write_map(raw, "gid_map", &map).at("map group ids")
        }
        Identity::Subordinate {
            uid,
            gid,
            uid_start,
            gid_start,
        } => {
            run_mapper("newuidmap", raw, uid, uid_start, AGENT_UID)
                .at("map subordinate user ids")?;
            run_mapper("newgidmap", raw, gid, gid_start, AGENT_GID).at("map subordinate group ids")
        }
        Identity::Single { uid, gid } => {
            // Without this the kernel lets no ordinary user map a group: dropping a group could grant access.
            write_map(raw, "setgroups", "deny").at("forbid changes of groups")?;
            write_map(raw, "uid_map", &format!("{AGENT_UID} {uid} 1\n")).at("map the user id")?;
            write_map(raw, "gid_map", &format!("{AGENT_GID} {gid} 1\n")).at("map the group id")
        }
    }
}

fn write_map(pid: impl std::fmt::Display, file: &str, content: &str) -> io::Result<()> {
    // The kernel takes a map in a single write only.
    File::options()
        .write(true)
        .open(format!("/proc/{pid}/{file}"))?
        .write_all(content.as_bytes())
}

fn run_mapper(
    program: &str,
    pid: impl std::fmt::Display,
    own: u32,
    start: u32,
    agent: u32,
) -> io::Result<()> {
    let after = RANGE_IDS - agent - 1;
    let extents = [
        (0, start, agent),
        (agent, own, 1),
        (agent + 1, start + agent, after),
    ];
    let numbers = extents
        .iter()
        .flat_map(|(inside, outside, count)| [*inside, *outside, *count]);
    let status = Command::new(program)
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}

/// The mappings of mounts, one for each owner that occurs.
pub(crate) struct OwnerMaps {
    identity: Identity,
    made: BTreeMap<(u32, u32), OwnedFd>,
}

impl OwnerMaps {
    /// For sandboxes of that identity.
    pub fn new(identity: Identity) -> Self {
        OwnerMaps {
            identity,
            made: BTreeMap::new(),
        }
    }

    /// Makes what `directory`'s owner owns belong to the agent inside, and the other way round.
    ///
    /// # Errors
    /// [`FailureKind::NotMappable`] when the file system cannot, or the directory is not the calling user's.
    pub fn apply(
        &mut self,
        mount: BorrowedFd<'_>,
        directory: &HostDirectory,
        read_only: bool,
    ) -> Result<(), Failure> {
        match self.identity {
            Identity::Range { base } => self.apply_range(base, mount, directory, read_only),
            Identity::Subordinate { uid, .. } | Identity::Single { uid, .. } => {
                if read_only || directory.uid == uid {
                    return Ok(());
                }
                Err(not_mappable(format!(
                    "it belongs to user {}, and the server runs as user {uid}",
                    directory.uid
                )))
            }
        }
    }

    fn apply_range(
        &mut self,
        base: u32,
        mount: BorrowedFd<'_>,
        directory: &HostDirectory,
        read_only: bool,
    ) -> Result<(), Failure> {
        let owner = (directory.uid, directory.gid);
        let namespace = match self.made.entry(owner) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => place.insert(mapping_namespace(base, owner)?),
        };
        let idmap = Some(namespace.as_fd());
        let change = MountAttributes {
            idmap,
            ..MountAttributes::default()
        };
        match set_mount_attributes(mount, change) {
            Ok(()) => Ok(()),
            // What is only read can do without: the agent then sees it as any other user of the host would.
            Err(_) if read_only => Ok(()),
            Err(error) => {
                let code = error.raw_os_error().unwrap_or(0);
                Err(not_mappable(format!(
                    "its file system does not map owners (error {code})"
                )))
            }
        }
    }
}

fn not_mappable(why: String) -> Failure {
    let hint = "use the workspace mode `copy`, which works on a private copy";
    Failure {
        kind: FailureKind::NotMappable(format!("{why}; {hint}")),
        step: "map owners".to_owned(),
        errno: 0,
    }
}

/// A user namespace whose maps say: the owner on disk is the agent, everybody else keeps the place within the range.
fn mapping_namespace(base: u32, owner: (u32, u32)) -> Result<OwnedFd, Failure> {
    let step = "make a mapping of owners";
    let child = match enter::clone_into(enter::USER_NAMESPACE, None).at(step)? {
        Side::Parent(child) => child,
        Side::Child => {
            // Only there to carry the namespace until the parent has a descriptor of it, and then killed.
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            std::thread::sleep(CARRIER_LIFE);
            enter::end_now(1)
        }
    };
    let pid = child.pid.as_raw_nonzero();
    let result = write_map(pid, "uid_map", &owner_map(base, owner.0, AGENT_UID))
        .and_then(|()| write_map(pid, "gid_map", &owner_map(base, owner.1, AGENT_GID)))
        .and_then(|()| File::open(format!("/proc/{pid}/ns/user")));
    let killed = pidfd_send_signal(&child.pidfd, Signal::KILL);
    let reaped = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
    let file = result.at(step)?;
    killed.and(reaped).at(step)?;
    Ok(file.into())
}

/// The lines of a map from ids on disk to ids of the host, with `owner` and `agent` swapped.
fn owner_map(base: u32, owner: u32, agent: u32) -> String {
    let mut lines = format!("{owner} {} 1\n", base + agent);
    if owner < RANGE_IDS && owner != agent {
        let _ = writeln!(lines, "{agent} {} 1", base + owner);
    }
    let mut marks = vec![agent];
    if owner < RANGE_IDS {
        marks.push(owner);
    }
    marks.sort_unstable();
    marks.dedup();
    let mut start = 0;
    for mark in marks.into_iter().chain([RANGE_IDS]) {
        if mark > start {
            let _ = writeln!(lines, "{start} {} {}", base + start, mark - start);
        }
        start = mark + 1;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn table(owner: u32) -> BTreeMap<u32, u32> {
        let mut ids = BTreeMap::new();
        for line in owner_map(1_000_000, owner, 1000).lines() {
            let numbers: Vec<u32> = line
                .split(' ')
                .map(|number| number.parse().unwrap())
                .collect();
            for step in 0..numbers[2] {
                assert!(
                    ids.insert(numbers[0] + step, numbers[1] + step).is_none(),
                    "{owner}: id mapped twice"
                );
            }
        }
        ids
    }

    #[test]
    fn the_owner_becomes_the_agent_and_no_id_is_mapped_twice() {
        for owner in [0, 1, 999, 1000, 1001, 1234, 65_535, 65_536, 4_000_000_000] {
            let ids = table(owner);
            assert_eq!(ids[&owner], 1_001_000, "{owner}");
            let images: std::collections::BTreeSet<_> = ids.values().collect();
            assert_eq!(
                images.len(),
                ids.len(),
                "{owner}: two ids look the same inside"
            );
            assert!(
                images.iter().all(|id| (1_000_000..1_065_536).contains(*id)),
                "{owner}: outside of the range"
            );
        }
    }

    #[test]
    fn other_owners_keep_their_place_in_the_range() {
        let ids = table(1234);
        assert_eq!(
            (ids[&0], ids[&33], ids[&65_535]),
            (1_000_000, 1_000_033, 1_065_535)
        );
        assert_eq!(ids[&1000], 1_001_234);
    }
}
