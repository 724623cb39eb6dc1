//! Who owns what: the agent inside stands for the owner of the project, whoever that is, by mounts that map owners.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt::Write as _,
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use model::{AGENT_GID, AGENT_UID, HostDirectory};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::{
    failure::{At, Failure, FailureKind},
    kernel::{self, MountAttributes, Side, set_mount_attributes},
};

/// Ids of a user namespace made by root: as many as a distribution's accounts may use.
pub const RANGE_IDS: u32 = 65_536;
/// Longest life of a process that only carries a mapping: a parent that needs more is gone.
const CARRIER_LIFE: std::time::Duration = std::time::Duration::from_secs(10);

/// How mounts show the owners of their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Root maps the owner to the agent of a range of ids that begins at `base`: 0 where the sandbox has no user
    /// namespace of its own.
    Mapped {
        /// First host id.
        base: u32,
    },
    /// The agent is the calling user: what is not that user's cannot be written.
    Caller {
        /// The user.
        uid: u32,
    },
}

/// Fills `uid_map` or `gid_map` of a process.
///
/// # Errors
/// When the kernel refuses the map.
pub fn write_map(pid: impl std::fmt::Display, file: &str, content: &str) -> io::Result<()> {
    // The kernel takes a map in a single write only.
    File::options()
        .write(true)
        .open(format!("/proc/{pid}/{file}"))?
        .write_all(content.as_bytes())
}

/// The mappings of mounts, one for each owner that occurs.
pub struct OwnerMaps {
    owners: Owners,
    made: BTreeMap<(u32, u32), OwnedFd>,
}

impl OwnerMaps {
    /// For sandboxes of those owners.
    pub fn new(owners: Owners) -> Self {
        OwnerMaps {
            owners,
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
        match self.owners {
            Owners::Mapped { base } => self.apply_range(base, mount, directory, read_only),
            Owners::Caller { uid } => {
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
    let child = match kernel::clone_into(kernel::USER_NAMESPACE, None).at(step)? {
        Side::Parent(child) => child,
        Side::Child => {
            // Only there to carry the namespace until the parent has a descriptor of it, and then killed.
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            std::thread::sleep(CARRIER_LIFE);
            kernel::end_now(1)
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
