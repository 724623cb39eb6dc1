//! The file system that a sandbox sees: a new tmpfs root with the host's system directories, own `/dev`, `/proc` and
//! `/etc`, sized tmpfs, and the session's mounts. Built by descriptors, then pivoted into.

use std::{
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path},
};

use model::{
    AGENT_DIRECTORY, AGENT_GID, AGENT_UID, CERTIFICATES_DIRECTORY, CERTIFICATES_NAME, HOSTS,
    LimitName, MANAGED_SETTINGS_DIRECTORY, MANAGED_SETTINGS_NAME, RESOLVER_CONFIGURATION,
    SandboxSpec,
};
use rustix::{
    fs::{Mode, OFlags, mkdirat, openat, symlinkat},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
    },
    process::{chdir, fchdir, pivot_root},
};

use sandbox::MASKED_PROC_FILES;
use sandbox_host::{
    MIN_TEMPORARY_BYTES, NO_DEVICES, NO_EXECUTION, NO_SUID, READ_ONLY, Temporary, cover,
    open_beneath, protect, tree_of,
};

use crate::{
    enter::{MountAttributes, set_mount_attributes},
    inside::open_directory,
    plan::{At, Failure, Identity, Plan},
    sources::{Placement, Sources, Thing},
};

/// Where the new root stands while it is built: any directory that every system has. What is there is only hidden, in
/// the new mount namespace.
const BUILDING_SITE: &str = "/usr";
/// Size of the root, bytes, beside what the session brings: mount points, links and a few small files.
const SKELETON_BYTES: u64 = 1024 * 1024;
/// The first port that whoever is not root of the machine may listen on, in this network namespace alone: the one for
/// names. The supervisor takes it before anything untrusted runs.
const FIRST_PORT: (&str, &str) = ("sys/net/ipv4/ip_unprivileged_port_start", "53");
/// What `/proc` tells about the machine rather than the sandbox, besides [`MASKED_PROC_FILES`]: hidden directories.
const MASKED_DIRECTORIES: [&str; 3] = ["scsi", "asound", "acpi"];
/// What `/proc` lets root of the machine change: read-only.
const READ_ONLY_PROC: [&str; 4] = ["sys", "bus", "fs", "irq"];

/// Builds it and makes it the root of this mount namespace.
///
/// # Errors
/// The step that failed.
pub(crate) fn build(plan: &Plan, sources: Sources) -> Result<(), Failure> {
    let temporary = Temporary::split(plan.spec.limits.get(LimitName::TemporaryBytes).value);
    let root = tmpfs(
        TmpfsOptions {
            bytes: SKELETON_BYTES + own_bytes(&plan.spec),
            mode: "755",
            owner: owner_of_root(plan),
        },
        NO_SUID,
    )?;
    move_mount(
        &root,
        "",
        rustix::fs::CWD,
        BUILDING_SITE,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .at("mount the new root")?;
    let root = root.as_fd();
    for placement in sources.system {
        place(root, placement)?;
    }
    write_etc(root)?;
    for (directory, name, content) in own_files(&plan.spec) {
        let directory = relative(Path::new(directory))?;
        make_directories(root, directory)?;
        write_file(root, &directory.join(name), content)?;
    }
    build_dev(root, sources.devices, &temporary, plan)?;
    build_proc(root)?;
    build_temporary(root, &temporary)?;
    attach(root, Path::new("workspace"), &sources.workspace)?;
    attach(root, Path::new("state"), &sources.state)?;
    attach(root, Path::new("run/supervisor"), &sources.socket)?;
    if let Some(agent) = &sources.agent {
        attach(root, relative(Path::new(AGENT_DIRECTORY))?, agent)?;
    }
    for (target, mount) in &sources.mounts {
        attach(root, relative(target)?, mount)?;
    }
    let workspace = open_beneath(root, Path::new("workspace")).at("open the workspace")?;
    protect(workspace.as_fd(), &plan.spec.protected)?;
    pivot(root)
}

/// Files that the session brings, each alone in its directory: directory, name, content.
fn own_files(spec: &SandboxSpec) -> impl Iterator<Item = (&str, &str, &str)> {
    let settings = (
        MANAGED_SETTINGS_DIRECTORY,
        MANAGED_SETTINGS_NAME,
        &spec.managed_settings,
    );
    let certificates = (
        CERTIFICATES_DIRECTORY,
        CERTIFICATES_NAME,
        &spec.certificates,
    );
    let files = [settings, certificates].into_iter();
    files.filter_map(|(directory, name, content)| Some((directory, name, content.as_deref()?)))
}

fn own_bytes(spec: &SandboxSpec) -> u64 {
    own_files(spec)
        .map(|(_, _, content)| content.len() as u64)
        .sum()
}

/// Root's sandboxes have an id 0 inside that nobody uses; for a user's the agent is often all there is.
fn owner_of_root(plan: &Plan) -> u32 {
    match plan.identity {
        Identity::Range { .. } | Identity::Subordinate { .. } => 0,
        Identity::Single { .. } => AGENT_UID,
    }
}

struct TmpfsOptions {
    bytes: u64,
    mode: &'static str,
    owner: u32,
}

fn tmpfs(options: TmpfsOptions, attributes: u64) -> Result<OwnedFd, Failure> {
    let step = "make a tmpfs";
    let bytes = options.bytes.max(MIN_TEMPORARY_BYTES);
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).at(step)?;
    let settings = [
        ("source", "tmpfs".to_owned()),
        ("size", bytes.to_string()),
        ("nr_inodes", Temporary::inodes(bytes).to_string()),
        ("mode", options.mode.to_owned()),
        ("uid", options.owner.to_string()),
        (
            "gid",
            if options.owner == 0 { 0 } else { AGENT_GID }.to_string(),
        ),
    ];
    for (key, value) in settings {
        fsconfig_set_string(context.as_fd(), key, value).at(step)?;
    }
    mount_of(context, attributes, step)
}

fn mount_of(context: OwnedFd, attributes: u64, step: &str) -> Result<OwnedFd, Failure> {
    fsconfig_create(context.as_fd()).at(step)?;
    let attributes =
        MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(u32::MAX));
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).at(step)
}

/// A path inside, without its leading slash.
///
/// # Errors
/// When it is not absolute or has `..` in it.
fn relative(path: &Path) -> Result<&Path, Failure> {
    let plain = path
        .components()
        .skip(1)
        .all(|part| matches!(part, Component::Normal(_)));
    match path.strip_prefix("/") {
        Ok(relative) if plain && !relative.as_os_str().is_empty() => Ok(relative),
        _ => Err(Failure::at(
            "use a mount's target",
            &std::io::Error::from_raw_os_error(libc::EINVAL),
        )),
    }
}

/// Puts a mount at a place, whose directories are made where the skeleton lacks them.
fn attach(root: BorrowedFd<'_>, target: &Path, mount: &OwnedFd) -> Result<(), Failure> {
    make_directories(root, target)?;
    cover(
        open_beneath(root, target).at("open a mount point")?.as_fd(),
        mount.as_fd(),
    )
}

/// Part by part from what was just opened: a link that a root file system brought would lead out of it.
fn make_directories(root: BorrowedFd<'_>, path: &Path) -> Result<(), Failure> {
    let step = "make a mount point";
    let mut made = root.try_clone_to_owned().at(step)?;
    for part in path.components().map(Component::as_os_str) {
        match mkdirat(&made, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Failure::at(step, &error.into())),
        }
        made = open_beneath(made.as_fd(), Path::new(part)).at(step)?;
    }
    Ok(())
}

fn place(root: BorrowedFd<'_>, placement: Placement) -> Result<(), Failure> {
    if let Some(parent) = placement.target.parent() {
        make_directories(root, parent)?;
    }
    match placement.what {
        Thing::Link(to) => symlinkat(to, root, &placement.target).at("make a link"),
        Thing::Directory(mount) => attach(root, &placement.target, &mount),
        Thing::File(mount) => {
            write_file(root, &placement.target, "")?;
            cover(
                open_beneath(root, &placement.target)
                    .at("open a mount point")?
                    .as_fd(),
                mount.as_fd(),
            )
        }
    }
}

fn write_file(root: BorrowedFd<'_>, path: &Path, content: &str) -> Result<(), Failure> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let step = "write a file of /etc";
    let file = openat(root, path, flags, Mode::from_raw_mode(0o644)).at(step)?;
    std::fs::File::from(file)
        .write_all(content.as_bytes())
        .at(step)
}

/// Accounts, names and shells of the sandbox's own; the host's would tell about its users.
fn write_etc(root: BorrowedFd<'_>) -> Result<(), Failure> {
    make_directories(root, Path::new("etc"))?;
    let passwd = format!(
        "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\nagent:x:{AGENT_UID}:{AGENT_GID}:agent:/home/agent:/bin/sh\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    );
    let group = format!("root:x:0:\nagent:x:{AGENT_GID}:\nnogroup:x:65534:\n");
    let files = [
        ("etc/passwd", passwd.as_str()),
        ("etc/group", group.as_str()),
        ("etc/hosts", HOSTS),
        ("etc/hostname", "sandbox\n"),
        (
            "etc/nsswitch.conf",
            "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
        ),
        ("etc/profile", "PS1='sandbox:\\w\\$ '\numask 022\n"),
        ("etc/resolv.conf", RESOLVER_CONFIGURATION),
    ];
    files
        .iter()
        .try_for_each(|(path, content)| write_file(root, Path::new(path), content))?;
    symlinkat("/proc/self/mounts", root, "etc/mtab").at("make a link")
}

fn build_dev(
    root: BorrowedFd<'_>,
    devices: Vec<Placement>,
    temporary: &Temporary,
    plan: &Plan,
) -> Result<(), Failure> {
    let options = TmpfsOptions {
        bytes: MIN_TEMPORARY_BYTES,
        mode: "755",
        owner: owner_of_root(plan),
    };
    let dev = tmpfs(options, NO_SUID | NO_EXECUTION)?;
    attach(root, Path::new("dev"), &dev)?;
    devices
        .into_iter()
        .try_for_each(|device| place(root, device))?;
    let links = [
        ("/proc/self/fd", "dev/fd"),
        ("/proc/self/fd/0", "dev/stdin"),
        ("/proc/self/fd/1", "dev/stdout"),
        ("/proc/self/fd/2", "dev/stderr"),
        ("pts/ptmx", "dev/ptmx"),
    ];
    links
        .iter()
        .try_for_each(|(to, path)| symlinkat(*to, root, *path))
        .at("make a link of /dev")?;
    attach(root, Path::new("dev/pts"), &terminals()?)?;
    let options = TmpfsOptions {
        bytes: temporary.shared_memory,
        mode: "1777",
        owner: owner_of_root(plan),
    };
    attach(
        root,
        Path::new("dev/shm"),
        &tmpfs(options, NO_SUID | NO_DEVICES)?,
    )?;
    let read_only = MountAttributes {
        set: READ_ONLY,
        ..MountAttributes::default()
    };
    set_mount_attributes(dev.as_fd(), read_only).at("make /dev read-only")
}

/// Terminals of the sandbox's own: none of the host's can be reached or used up.
fn terminals() -> Result<OwnedFd, Failure> {
    let step = "make the terminals";
    let context = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC).at(step)?;
    fsconfig_set_string(context.as_fd(), "source", "devpts").at(step)?;
    fsconfig_set_flag(context.as_fd(), "newinstance").at(step)?;
    fsconfig_set_string(context.as_fd(), "ptmxmode", "0666").at(step)?;
    fsconfig_set_string(context.as_fd(), "mode", "0620").at(step)?;
    mount_of(context, NO_SUID | NO_EXECUTION, step)
}

fn build_proc(root: BorrowedFd<'_>) -> Result<(), Failure> {
    let proc = mount_proc()?;
    // On a kernel that refuses, the supervisor does not get the port, and a session that is to use names is refused.
    let _ = open_ports(proc.as_fd());
    attach(root, Path::new("proc"), &proc)?;
    let proc = open_beneath(root, Path::new("proc")).at("open /proc")?;
    let null = open_beneath(root, Path::new("dev/null")).at("open /dev/null")?;
    for name in MASKED_PROC_FILES {
        if let Some(target) = optional(proc.as_fd(), name)? {
            cover(
                target.as_fd(),
                tree_of(null.as_fd(), READ_ONLY | NO_SUID | NO_EXECUTION)?.as_fd(),
            )?;
        }
    }
    for name in MASKED_DIRECTORIES {
        if let Some(target) = optional(proc.as_fd(), name)? {
            let options = TmpfsOptions {
                bytes: MIN_TEMPORARY_BYTES,
                mode: "555",
                owner: AGENT_UID,
            };
            cover(
                target.as_fd(),
                tmpfs(options, READ_ONLY | NO_SUID | NO_DEVICES | NO_EXECUTION)?.as_fd(),
            )?;
        }
    }
    for name in READ_ONLY_PROC {
        if let Some(target) = optional(proc.as_fd(), name)? {
            let tree = tree_of(
                target.as_fd(),
                READ_ONLY | NO_SUID | NO_DEVICES | NO_EXECUTION,
            )?;
            cover(target.as_fd(), tree.as_fd())?;
        }
    }
    Ok(())
}

/// By the new `/proc`: the one around us may be read-only.
fn open_ports(proc: BorrowedFd<'_>) -> std::io::Result<()> {
    let (path, first) = FIRST_PORT;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = openat(proc, path, flags, Mode::empty())?;
    std::fs::File::from(file).write_all(first.as_bytes())
}

/// A `/proc` of the new pid namespace.
///
/// # Errors
/// `EPERM` where the one around us is masked, as in many containers.
pub(crate) fn mount_proc() -> Result<OwnedFd, Failure> {
    let step = "mount /proc";
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).at(step)?;
    fsconfig_set_string(context.as_fd(), "source", "proc").at(step)?;
    mount_of(context, NO_SUID | NO_DEVICES | NO_EXECUTION, step)
}

fn optional(directory: BorrowedFd<'_>, name: &str) -> Result<Option<OwnedFd>, Failure> {
    match open_beneath(directory, Path::new(name)) {
        Err(Errno::NOENT) => Ok(None),
        found => found.at("open a part of /proc").map(Some),
    }
}

fn build_temporary(root: BorrowedFd<'_>, temporary: &Temporary) -> Result<(), Failure> {
    let places = [
        ("tmp", temporary.tmp, "1777"),
        ("home/agent", temporary.home, "700"),
        ("run", temporary.run, "755"),
    ];
    for (path, bytes, mode) in places {
        let options = TmpfsOptions {
            bytes,
            mode,
            owner: AGENT_UID,
        };
        attach(
            root,
            Path::new(path),
            &tmpfs(options, NO_SUID | NO_DEVICES)?,
        )?;
    }
    Ok(())
}

/// Makes the new root the root and lets go of the old one.
fn pivot(root: BorrowedFd<'_>) -> Result<(), Failure> {
    fchdir(root).at("enter the new root")?;
    // Both at one place: the old root comes to lie on top and is taken off, no directory is needed for it.
    pivot_root(".", ".").at("change the root")?;
    unmount(".", UnmountFlags::DETACH).at("let go of the old root")?;
    chdir("/").at("enter the new root")?;
    let root = open_directory("/").at("open the new root")?;
    let read_only = MountAttributes {
        set: READ_ONLY | NO_SUID | NO_DEVICES,
        ..MountAttributes::default()
    };
    set_mount_attributes(root.as_fd(), read_only).at("make the root read-only")
}
