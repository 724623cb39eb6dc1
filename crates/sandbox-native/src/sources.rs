//! The host's side of every mount, opened without following links and turned into mounts of our own that stand nowhere
//! yet. Root does it before the namespaces exist; an ordinary user's child does it within them.

use std::{
    ffi::OsString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use model::{
    AGENT_DIRECTORY, CERTIFICATES_DIRECTORY, HostDirectory, MANAGED_SETTINGS_DIRECTORY,
    RootFileSystem,
};
use rustix::{
    fs::{AtFlags, CWD, FileType, OFlags, fstat, readlinkat, statat},
    io::Errno,
    mount::{OpenTreeFlags, open_tree},
};

use sandbox_host::{
    NO_DEVICES, NO_EXECUTION, NO_SUID, OwnerMaps, READ_ONLY, agent_directory, open_host_directory,
    open_same, open_verified, open_without_links, own_directory,
};

use crate::{
    enter::{MountAttributes, set_mount_attributes},
    plan::{At, Failure, FailureKind, Plan},
};

/// System directories of the host that are its root file system.
const SYSTEM_ENTRIES: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// What of `/etc` is no secret and programs need.
const ETC_ENTRIES: [&str; 25] = [
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "localtime",
    "timezone",
    "os-release",
    "lsb-release",
    "debian_version",
    "redhat-release",
    "alpine-release",
    "protocols",
    "services",
    "mime.types",
    "bash.bashrc",
    "terminfo",
    "pki",
    "fonts",
    "inputrc",
    "xattr.conf",
    "magic",
    "rpc",
    "host.conf",
];
/// The same by the beginning of the name: configuration of language runtimes.
const ETC_PREFIXES: [&str; 3] = ["java-", "python3", "perl"];
/// Certificates, without the private keys that lie next to them.
const ETC_NESTED: [&str; 2] = ["ssl/certs", "ssl/openssl.cnf"];
/// What an unpacked root file system does not bring: the sandbox builds it.
const BUILT_HERE: [&str; 10] = [
    "dev",
    "proc",
    "sys",
    "tmp",
    "run",
    "home",
    "workspace",
    "state",
    ETC,
    OPT,
];
/// Of these not the whole is shown, but each entry by itself: something of ours stands among them.
const ETC: &str = "etc";
const OPT: &str = "opt";
/// Files of an unpacked `/etc` that the sandbox writes itself.
pub(crate) const ETC_WRITTEN: [&str; 8] = [
    "passwd",
    "group",
    "hosts",
    "hostname",
    "nsswitch.conf",
    "profile",
    "resolv.conf",
    "mtab",
];
/// Devices: name, major, minor.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// One thing at a place of the new root.
pub(crate) struct Placement {
    /// Relative to the new root.
    pub target: PathBuf,
    /// What.
    pub what: Thing,
}

/// What stands at a place.
pub(crate) enum Thing {
    /// A directory.
    Directory(OwnedFd),
    /// A file or device.
    File(OwnedFd),
    /// A symbolic link with this target.
    Link(OsString),
}

/// Everything of the host that a sandbox shows.
pub(crate) struct Sources {
    /// The root's entries, those of `/etc` and the operator's directories.
    pub system: Vec<Placement>,
    /// `/dev`.
    pub devices: Vec<Placement>,
    /// The workspace.
    pub workspace: OwnedFd,
    /// `/state`.
    pub state: OwnedFd,
    /// The directory with the host's socket.
    pub socket: OwnedFd,
    /// The directory with Claude Code's program.
    pub agent: Option<OwnedFd>,
    /// Further mounts, in order.
    pub mounts: Vec<(PathBuf, OwnedFd)>,
}

/// Opens everything.
///
/// # Errors
/// A path that changed or holds a link, an owner that cannot be mapped, a system call.
pub(crate) fn open_all(plan: &Plan, owners: &mut OwnerMaps) -> Result<Sources, Failure> {
    let mut mounts = Vec::new();
    for mount in &plan.spec.mounts {
        mounts.push((
            mount.target.clone(),
            open_host_directory(&mount.source, mount.read_only, owners)?,
        ));
    }
    let mut system = match &plan.spec.root {
        RootFileSystem::HostSystem => host_system()?,
        RootFileSystem::Directory(directory) => unpacked(directory)?,
        // Refused before anything was made.
        RootFileSystem::Image(_) => Vec::new(),
    };
    system.extend(operators(&plan.extra_read_only)?);
    let ours = ours(plan);
    system.retain(|placement| !ours.iter().any(|path| placement.target.starts_with(path)));
    Ok(Sources {
        system,
        devices: devices()?,
        workspace: open_host_directory(&plan.spec.workspace, false, owners)?,
        state: own_directory(&plan.instance.join("state"), NO_SUID | NO_DEVICES)?,
        socket: own_directory(
            &plan.instance.join("socket"),
            READ_ONLY | NO_SUID | NO_DEVICES | NO_EXECUTION,
        )?,
        agent: plan.spec.agent.as_ref().map(agent_directory).transpose()?,
        mounts,
    })
}

/// What stands inside because the session says so, whatever the root file system has there; relative to the root.
fn ours(plan: &Plan) -> Vec<&'static Path> {
    let spec = &plan.spec;
    let agent = spec.agent.as_ref().map(|_| AGENT_DIRECTORY);
    let settings = spec.managed_settings.as_ref();
    let settings = settings.map(|_| MANAGED_SETTINGS_DIRECTORY);
    let certificates = spec.certificates.as_ref();
    let certificates = certificates.map(|_| CERTIFICATES_DIRECTORY);
    let relative = |path: &'static str| Path::new(path).strip_prefix("/").ok();
    agent
        .into_iter()
        .chain(settings)
        .chain(certificates)
        .filter_map(relative)
        .collect()
}

/// Looks at every directory of the host before the namespaces exist: within a user's own, owners have other numbers.
///
/// # Errors
/// As for [`open_verified`].
pub(crate) fn verify_all(plan: &Plan) -> Result<(), Failure> {
    let mounts = plan.spec.mounts.iter().map(|mount| &mount.source);
    let root = match &plan.spec.root {
        RootFileSystem::HostSystem | RootFileSystem::Image(_) => None,
        RootFileSystem::Directory(directory) => Some(directory),
    };
    mounts
        .chain([&plan.spec.workspace])
        .chain(&plan.spec.agent)
        .chain(root)
        .try_for_each(|directory| open_verified(directory).map(drop))
}

/// A read-only mount of that file or directory with all below.
fn detach_system(fd: BorrowedFd<'_>, set: u64) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(fd, "", flags).at("take a system directory")?;
    let attributes = MountAttributes {
        set,
        recursive: true,
        private: true,
        idmap: None,
    };
    set_mount_attributes(tree.as_fd(), attributes).at("restrict a system directory")?;
    Ok(tree)
}

fn host_system() -> Result<Vec<Placement>, Failure> {
    let root =
        open_without_links(CWD, Path::new("/"), OFlags::DIRECTORY).at("open the root directory")?;
    let mut placements = Vec::new();
    for name in SYSTEM_ENTRIES {
        placements.extend(entry(root.as_fd(), Path::new(name), Path::new(name))?);
    }
    let etc = open_without_links(CWD, Path::new("/etc"), OFlags::DIRECTORY).at("open /etc")?;
    let target = |name: &str| Path::new("etc").join(name);
    for name in ETC_ENTRIES.iter().chain(&ETC_NESTED) {
        placements.extend(entry(etc.as_fd(), Path::new(name), &target(name))?);
    }
    for name in names("/etc")? {
        if ETC_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            placements.extend(entry(etc.as_fd(), Path::new(&name), &target(&name))?);
        }
    }
    Ok(placements)
}

fn unpacked(directory: &HostDirectory) -> Result<Vec<Placement>, Failure> {
    let root = open_same(directory)?;
    let mut placements = Vec::new();
    for name in names(&directory.path)?
        .iter()
        .filter(|name| !BUILT_HERE.contains(&name.as_str()))
    {
        placements.extend(entry(root.as_fd(), Path::new(name), Path::new(name))?);
    }
    for place in [ETC, OPT] {
        placements.extend(shared_place(root.as_fd(), &directory.path, place)?);
    }
    placements.retain(|placement| {
        !ETC_WRITTEN
            .iter()
            .any(|name| placement.target == Path::new(ETC).join(name))
    });
    Ok(placements)
}

/// The entries of a directory of that root, each by itself.
fn shared_place(root: BorrowedFd<'_>, path: &Path, place: &str) -> Result<Vec<Placement>, Failure> {
    let directory = match open_without_links(root, Path::new(place), OFlags::DIRECTORY) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        found => found.at(&format!("open /{place} of the root file system"))?,
    };
    let place = Path::new(place);
    let mut placements = Vec::new();
    for name in names(path.join(place))? {
        let name = Path::new(&name);
        placements.extend(entry(directory.as_fd(), name, &place.join(name))?);
    }
    Ok(placements)
}

/// What the operator offers, where it is not visible anyway.
fn operators(directories: &[PathBuf]) -> Result<Vec<Placement>, Failure> {
    let mut placements = Vec::new();
    for path in directories {
        let Ok(target) = path.strip_prefix("/") else {
            continue;
        };
        if SYSTEM_ENTRIES.iter().any(|name| target.starts_with(name)) {
            continue;
        }
        if target == Path::new(OPT) {
            let root = open_without_links(CWD, Path::new("/"), OFlags::DIRECTORY)
                .at("open the root directory")?;
            placements.extend(shared_place(root.as_fd(), Path::new("/"), OPT)?);
            continue;
        }
        let fd = open_without_links(CWD, path, OFlags::empty()).map_err(|_| Failure {
            kind: FailureKind::PathChanged(path.clone()),
            step: format!("open {}, which `extra_read_only` offers", path.display()),
            errno: 0,
        })?;
        placements.extend(handle(&fd, target)?);
    }
    Ok(placements)
}

fn devices() -> Result<Vec<Placement>, Failure> {
    let mut placements = Vec::new();
    for (name, major, minor) in DEVICES {
        let path = Path::new("/dev").join(name);
        let fd = open_without_links(CWD, &path, OFlags::empty()).at("open a device")?;
        let found = fstat(&fd).at("look at a device")?;
        let device = (
            rustix::fs::major(found.st_rdev),
            rustix::fs::minor(found.st_rdev),
        );
        // Checked on the opened file: a path can be swapped for another one (CVE-2025-31133).
        if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice
            || device != (major, minor)
        {
            return Err(Failure {
                kind: FailureKind::PathChanged(path),
                step: "use a device".to_owned(),
                errno: 0,
            });
        }
        let tree = detach_system(fd.as_fd(), NO_SUID | NO_EXECUTION)?;
        placements.push(Placement {
            target: Path::new("dev").join(name),
            what: Thing::File(tree),
        });
    }
    Ok(placements)
}

/// The entry of that name, if there is one.
fn entry(
    directory: BorrowedFd<'_>,
    name: &Path,
    target: &Path,
) -> Result<Option<Placement>, Failure> {
    let found = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        found => found.at("look at a system directory")?,
    };
    if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
        let link = readlinkat(directory, name, Vec::new()).at("read a link of the system")?;
        let link = std::os::unix::ffi::OsStringExt::from_vec(link.into_bytes());
        return Ok(Some(Placement {
            target: target.to_owned(),
            what: Thing::Link(link),
        }));
    }
    let fd = open_without_links(directory, name, OFlags::empty()).at("open a system directory")?;
    handle(&fd, target)
}

fn handle(fd: &OwnedFd, target: &Path) -> Result<Option<Placement>, Failure> {
    let found = fstat(fd).at("look at a system directory")?;
    let tree = || detach_system(fd.as_fd(), READ_ONLY | NO_SUID | NO_DEVICES);
    let what = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => Thing::Directory(tree()?),
        FileType::RegularFile => Thing::File(tree()?),
        // Nothing else of the host belongs inside.
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => return Ok(None),
    };
    Ok(Some(Placement {
        target: target.to_owned(),
        what,
    }))
}

fn names(directory: impl AsRef<Path>) -> Result<Vec<String>, Failure> {
    let entries = std::fs::read_dir(directory).at("list a system directory")?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    Ok(names)
}
