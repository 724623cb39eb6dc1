//! Where control groups can be made, found by making one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sandbox_host::mount_points;

use super::{Controllers, Hierarchy, PARENT, write};
use crate::config::CgroupChoice;

/// Controllers without which a version 2 group is of no use to us.
const NEEDED: [&str; 2] = ["memory", "pids"];
/// One that is switched on where it is offered.
const WELCOME: &str = "cpu";
/// The leaf that this process moves to when it stands where groups are to be made: version 2 allows no processes next
/// to groups with controllers.
const LEAF: &str = "claude-code-mcp-server";

/// The best place that this process can use, found by making a group there.
pub(crate) fn detect(choice: &CgroupChoice) -> Hierarchy {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match choice {
        CgroupChoice::Disabled => Hierarchy::None,
        CgroupChoice::Below(directory) => version_2(directory).unwrap_or(Hierarchy::None),
        CgroupChoice::Automatic => version_2_candidates(&mounts, &own)
            .iter()
            .find_map(|directory| version_2(directory))
            .or_else(|| version_1(&mounts))
            .unwrap_or(Hierarchy::None),
    }
}

/// The root of the hierarchy, for root; else the own group and the one above, which is where a delegated subtree starts
/// when the server stands in a leaf of it.
fn version_2_candidates(mounts: &str, own: &str) -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    for mount in mount_points(mounts, "cgroup2").map(|(point, _)| point) {
        candidates.push(mount.clone());
        if let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")) {
            let group = mount.join(path);
            candidates.extend(
                group
                    .parent()
                    .filter(|parent| parent.starts_with(&mount))
                    .map(Path::to_owned),
            );
            candidates.push(group);
        }
    }
    candidates
}

fn version_2(directory: &Path) -> Option<Hierarchy> {
    let offered = fs::read_to_string(directory.join("cgroup.controllers")).ok()?;
    let offers = |name: &str| offered.split_whitespace().any(|found| found == name);
    if !NEEDED.iter().all(|name| offers(name)) {
        return None;
    }
    let parent = directory.join(PARENT);
    switch_controllers_on(directory, &offers).ok()?;
    make_directory(&parent).ok()?;
    switch_controllers_on(&parent, &offers).ok()?;
    let probe = parent.join(probe_name());
    fs::create_dir(&probe).ok()?;
    let usable = ["memory.max", "pids.max"]
        .iter()
        .all(|file| probe.join(file).exists());
    let _ = fs::remove_dir(&probe);
    usable.then_some(Hierarchy::Version2(parent))
}

fn switch_controllers_on(directory: &Path, offers: &impl Fn(&str) -> bool) -> io::Result<()> {
    let file = directory.join("cgroup.subtree_control");
    for name in NEEDED
        .into_iter()
        .chain([WELCOME])
        .filter(|name| offers(name))
    {
        match write(&file, &format!("+{name}")) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                step_aside(directory)?;
                write(&file, &format!("+{name}"))?;
            }
            other => other?,
        }
    }
    Ok(())
}

/// Moves this process out of the way. Where others stand there, too, that does not help, and the place is not used.
fn step_aside(directory: &Path) -> io::Result<()> {
    let leaf = directory.join(LEAF);
    make_directory(&leaf)?;
    write(&leaf.join("cgroup.procs"), &std::process::id().to_string())
}

/// Two servers may probe at once.
fn probe_name() -> String {
    format!("probe-{}", std::process::id())
}

fn version_1(mounts: &str) -> Option<Hierarchy> {
    let find = |controller: &str| {
        let mut points = mount_points(mounts, "cgroup");
        let point = points
            .find(|(_, options)| options.split(',').any(|option| option == controller))?
            .0;
        let parent = point.join(PARENT);
        make_directory(&parent).ok()?;
        // That the parent is there says nothing: root's server may have made it.
        let probe = parent.join(probe_name());
        fs::create_dir(&probe).ok()?;
        fs::remove_dir(&probe).ok().map(|()| point)
    };
    let controllers = Controllers {
        memory: find("memory"),
        pids: find("pids"),
        cpu: find("cpu"),
        cpuacct: find("cpuacct"),
        freezer: find("freezer"),
    };
    let any = controllers.all().next().is_some();
    any.then_some(Hierarchy::Version1(controllers))
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 20 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                          31 30 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
                          32 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn mount_points_are_found_by_type_and_controller() {
        let found: Vec<_> = mount_points(HYBRID, "cgroup").collect();
        assert_eq!(
            found,
            [(
                PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"),
                "rw,cpu,cpuacct"
            )]
        );
        assert_eq!(mount_points(HYBRID, "cgroup2").count(), 1);
    }

    #[test]
    fn the_root_comes_first_then_the_group_above_then_the_own_one() {
        let found = version_2_candidates(HYBRID, "1:cpu:/x\n0::/user.slice/run.scope/server\n");
        let base = Path::new("/sys/fs/cgroup/unified");
        let wanted = [
            base.to_owned(),
            base.join("user.slice/run.scope"),
            base.join("user.slice/run.scope/server"),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_version_2_directory_without_the_needed_controllers_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(version_2(directory.path()), None);
        fs::write(directory.path().join("cgroup.controllers"), "cpu io").unwrap();
        assert_eq!(version_2(directory.path()), None);
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "something was made there"
        );
    }
}
