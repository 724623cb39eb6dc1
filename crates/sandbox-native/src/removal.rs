//! Taking a sandbox away, whatever state it is in. Every step may find its work done already.

use std::{
    ffi::OsString,
    fs::{self},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use model::SessionId;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{AtFlags, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, unlinkat},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::{
    cgroup::Hierarchy,
    config::NativeConfig,
    link,
    record::{Layout, ProcessRecord, Record, boot_id, start_ticks},
};

/// How long a killed process may take; longer only in an uninterruptible call of the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// A handle of exactly that process; `None` when it is gone, whoever has its number now.
pub(crate) fn living(process: &ProcessRecord) -> Option<OwnedFd> {
    let pid = Pid::from_raw(process.pid)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // Looked at after the handle was opened: if it is the same process now, the handle is its.
    let same =
        start_ticks(process.pid).ok()? == process.start_ticks && boot_id().ok()? == process.boot_id;
    (same && !link::ended(&pidfd)).then_some(pidfd)
}

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
    let trash = layout.trash().join(session.to_string());
    match fs::rename(&instance, &trash) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        moved => moved?,
    }
    delete(&trash)?;
    match record {
        Some(record) => layout.release_range(config, session, record.identity),
        // A server that was killed before its helper wrote one had taken a range already.
        None => layout.release_ranges_of(session),
    }
}

/// The kernel ends all of a pid namespace with its first process.
fn kill(pidfd: &OwnedFd) -> io::Result<()> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Err(Errno::SRCH) | Ok(()) => {}
        Err(error) => return Err(error.into()),
    }
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    link::reap(pidfd);
    Ok(())
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

/// Deletes what earlier calls left in the trash.
///
/// # Errors
/// When something stays.
pub(crate) fn empty_trash(layout: &Layout) -> io::Result<()> {
    for entry in fs::read_dir(layout.trash())? {
        delete(&entry?.path())?;
    }
    Ok(())
}

/// Deletes a tree of whatever depth, with two descriptors and no recursion: what has entries of its own is moved up to
/// the top first. A tree made by an agent may be deeper than descriptors or the stack reach.
///
/// # Errors
/// When something stays.
pub(crate) fn delete(path: &Path) -> io::Result<()> {
    let top = match open_directory(rustix::fs::CWD, path.as_os_str().to_owned()) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return fs::remove_file(path),
        top => top?,
    };
    let mut moved = 0_u64;
    loop {
        let directories = clear(top.as_fd(), None)?;
        if directories.is_empty() {
            break;
        }
        for name in directories {
            let directory = open_directory(top.as_fd(), name.clone())?;
            clear(directory.as_fd(), Some((top.as_fd(), &mut moved)))?;
            unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
        }
    }
    fs::remove_dir(path)
}

/// Removes all files of a directory, and moves its directories to `up` or returns their names.
fn clear(
    directory: BorrowedFd<'_>,
    mut up: Option<(BorrowedFd<'_>, &mut u64)>,
) -> io::Result<Vec<OsString>> {
    let mut directories = Vec::new();
    // Read completely first: names that come while reading could be missed or met twice.
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name: OsString =
            std::os::unix::ffi::OsStringExt::from_vec(entry.file_name().to_bytes().to_vec());
        if name != "." && name != ".." {
            names.push((name, entry.file_type()));
        }
    }
    for (name, kind) in names {
        if kind != FileType::Directory {
            match unlinkat(directory, &name, AtFlags::empty()) {
                Err(Errno::ISDIR) => {}
                removed => {
                    removed?;
                    continue;
                }
            }
        }
        if unlinkat(directory, &name, AtFlags::REMOVEDIR).is_ok() {
            continue;
        }
        match &mut up {
            None => directories.push(name),
            Some((top, moved)) => {
                // Moving a directory writes to it: its name for the one above changes.
                chmodat(directory, &name, Mode::RWXU, AtFlags::empty())?;
                loop {
                    **moved += 1;
                    match renameat(directory, &name, *top, format!(".moved-{}", **moved)) {
                        // The agent may have used the name.
                        Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                        renamed => break renamed?,
                    }
                }
            }
        }
    }
    Ok(directories)
}

fn open_directory(at: BorrowedFd<'_>, name: OsString) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(at, &name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(at, &name, Mode::RWXU, AtFlags::empty())?;
            openat(at, &name, flags, Mode::empty())
        }
        opened => {
            let opened = opened?;
            // Readable, but perhaps not writable or searchable.
            rustix::fs::fchmod(&opened, Mode::RWXU)?;
            Ok(opened)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_tree_deeper_than_descriptors_reach_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("deep");
        fs::create_dir(&top).unwrap();
        let mut at = open_directory(rustix::fs::CWD, top.clone().into()).unwrap();
        for _ in 0..1_500 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open_directory(at.as_fd(), "d".into()).unwrap();
        }
        drop(at);
        delete(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn unreadable_directories_links_and_the_names_we_use_are_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        fs::create_dir_all(outside.join("kept")).unwrap();
        let top = directory.path().join("top");
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        fs::create_dir_all(top.join(".moved-1/x")).unwrap();
        fs::write(top.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, top.join("a/link")).unwrap();
        fs::set_permissions(top.join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        delete(&top).unwrap();
        assert!(!top.exists() && outside.join("kept").exists());
        delete(&top).unwrap();
    }

    #[test]
    fn a_process_of_another_start_is_not_taken_for_the_recorded_one() {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let mut record = ProcessRecord::of(pid).unwrap();
        assert!(living(&record).is_some());
        record.start_ticks += 1;
        assert!(living(&record).is_none());
    }
}
