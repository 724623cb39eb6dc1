//! Taking a sandbox away, whatever state it is in. Every step may find its work done already.

use std::{fs, io};

use model::SessionId;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sandbox_host::{kill, living};

use crate::{
    cgroup::Hierarchy,
    config::NativeConfig,
    record::{Layout, Record},
};

/// Removes everything of that session.
///
/// # Errors
/// The first step that did not succeed; a later call goes on.
pub(crate) fn remove(
    layout: &Layout,
    config: &NativeConfig,
    hierarchy: &Hierarchy,
    session: SessionId,
) -> io::Result<()> {
    let instance = layout.instance(session);
    let mut record = Record::read(&instance).unwrap_or_else(|error| {
        tracing::error!(%session, %error, "the record is damaged; what bears the session's name is removed all the same");
        None
    });
    let object_name = session.object_name(&config.owner);
    let hierarchies = [
        Some(hierarchy),
        record.as_ref().map(|record| &record.hierarchy),
    ];
    for hierarchy in hierarchies.into_iter().flatten() {
        // What is frozen in version 1 does not die.
        let _ = hierarchy.freeze(&object_name, false);
    }
    if let Some(pidfd) = record
        .as_ref()
        .and_then(|record| living(record.process.as_ref()?))
    {
        kill(&pidfd)?;
    }
    for hierarchy in hierarchies.into_iter().flatten() {
        kill_members(hierarchy, &object_name)?;
        hierarchy.remove(&object_name)?;
    }
    if let Some(record) = &mut record {
        record.give_up_placeholders(&instance)?;
    }
    layout.discard(session)?;
    match record {
        Some(record) => layout.release_range(config, session, record.identity),
        // A server that was killed before its helper wrote one had taken a range already.
        None => layout.release_ranges_of(session),
    }
}

/// Processes of the groups that no record knows: their helper died before it could write one.
fn kill_members(hierarchy: &Hierarchy, object_name: &str) -> io::Result<()> {
    for group in hierarchy.groups(object_name) {
        let Ok(members) = fs::read_to_string(group.join("cgroup.procs")) else {
            continue;
        };
        for pid in members
            .lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?))
        {
            let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
                continue;
            };
            // Still a member, so the handle is that of a member and not of a later process of its number.
            let still = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            let number = pid.as_raw_nonzero().to_string();
            if still.lines().any(|line| line == number) {
                kill(&pidfd)?;
            }
        }
    }
    Ok(())
}
