//! Whose ids stand behind those inside: how a user namespace is filled.
//!
//! Inside, the agent is always [`AGENT_UID`]. Behind it stands either an id of the sandbox's own range (root), with
//! mounts that show the project's owner as the agent, or the calling user itself.

use std::{io, process::Command};

use model::{AGENT_GID, AGENT_UID};
use rustix::process::Pid;
use sandbox_host::write_map;

use crate::plan::{At, Failure, Identity, RANGE_IDS};

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
