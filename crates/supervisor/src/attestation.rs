//! What the supervisor reads of its own confinement, before it has started anything.

use std::{fs, io};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    process::{Resource, getegid, geteuid, getpid, getrlimit},
    system::uname,
    thread::no_new_privs,
};
use wire::{Attestation, MAX_MOUNT_FACTS, MountFact};

use crate::confinement::Confinement;

/// Interfaces listed at most, as the wire says.
const MAX_INTERFACES: usize = 16;
/// Bytes of mount points listed at most, so that a greeting always fits into one frame.
const MAX_MOUNT_BYTES: usize = 96 * 1024;
/// Longest description of a kernel, bytes, as the wire says.
const MAX_KERNEL_BYTES: usize = 256;
const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];
/// `Seccomp:` of `/proc/self/status` when a filter is loaded.
const SECCOMP_MODE_FILTER: u32 = 2;
const RLIMITS: [Resource; 4] = [
    Resource::Nofile,
    Resource::Nproc,
    Resource::Fsize,
    Resource::Core,
];

/// Reads `/proc/self` and tries what must fail.
///
/// # Errors
/// When `/proc` cannot be read: a supervisor that cannot see processes cannot end them either.
pub fn read(confinement: &Confinement) -> io::Result<Attestation> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = |name| status_field(&status, name);
    let hex = |name| {
        field(name)
            .and_then(|text| u64::from_str_radix(text, 16).ok())
            .unwrap_or(u64::MAX)
    };
    let number = |name| {
        field(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0u32)
    };
    let mounts = mounts(&String::from_utf8_lossy(&fs::read("/proc/self/mountinfo")?));
    let seccomp_mode = number("Seccomp");
    let (inheritable, permitted) = (hex("CapInh"), hex("CapPrm"));
    let ambient = match field("CapAmb") {
        Some(_) => hex("CapAmb"),
        // Not every kernel tells; they are never more than what is in both of these (capabilities(7)).
        None => inheritable & permitted,
    };
    Ok(Attestation {
        kernel: kernel(),
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
        pid: u32::try_from(getpid().as_raw_nonzero().get()).unwrap_or(0),
        capabilities: [
            inheritable,
            permitted,
            hex("CapEff"),
            hex("CapBnd"),
            ambient,
        ],
        no_new_privs: no_new_privs().unwrap_or(false),
        seccomp_mode,
        seccomp_filters: match field("Seccomp_filters") {
            Some(_) => number("Seccomp_filters"),
            // Some kernels do not count them.
            None => u32::from(seccomp_mode == SECCOMP_MODE_FILTER),
        },
        landlock_abi: confinement.landlock_abi,
        landlock_in_force: confinement.landlock_in_force,
        not_dumpable: confinement.not_dumpable,
        namespaces: NAMESPACES.map(namespace_inode),
        root_read_only: root_is_read_only(&mounts),
        interfaces: interfaces(&fs::read_to_string("/proc/self/net/dev").unwrap_or_default()),
        rlimits: RLIMITS.map(|resource| getrlimit(resource).current.unwrap_or(u64::MAX)),
        mounts,
    })
}

/// A field of `/proc/<pid>/status`.
pub fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// The number in `user:[4026531837]`.
fn namespace_inode(name: &str) -> u64 {
    let Ok(link) = fs::read_link(format!("/proc/self/ns/{name}")) else {
        return 0;
    };
    let text = link.to_string_lossy();
    text.split(['[', ']'])
        .nth(1)
        .and_then(|inode| inode.parse().ok())
        .unwrap_or(0)
}

/// The kernel looks at the mount before it asks any security module, so EROFS is told apart from Landlock's EACCES. A
/// kernel without unnamed files is believed what it says of the mount.
fn root_is_read_only(mounts: &[MountFact]) -> bool {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match openat(CWD, "/", flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::ROFS) => true,
        Err(Errno::OPNOTSUPP) => mounts
            .iter()
            .rfind(|mount| mount.target == "/")
            .is_some_and(|root| root.read_only),
        Ok(_) | Err(_) => false,
    }
}

fn kernel() -> String {
    let name = uname();
    let parts = [name.sysname(), name.release(), name.version()];
    let mut text = parts.map(|part| part.to_string_lossy()).join(" ");
    while text.len() > MAX_KERNEL_BYTES {
        text.pop();
    }
    text
}

/// Names of the interfaces that `/proc/net/dev` lists.
pub fn interfaces(net_dev: &str) -> Vec<String> {
    let names = net_dev
        .lines()
        .skip(2)
        .filter_map(|line| line.split_once(':'));
    names
        .map(|(name, _)| name.trim().chars().take(16).collect())
        .take(MAX_INTERFACES)
        .collect()
}

fn mounts(mountinfo: &str) -> Vec<MountFact> {
    let mut left = MAX_MOUNT_BYTES;
    let fits = |fact: &MountFact| {
        let bytes = fact.target.len() + fact.kind.len() + 32;
        left = left.checked_sub(bytes)?;
        Some(())
    };
    let mut fits = fits;
    mountinfo
        .lines()
        .filter_map(mount_fact)
        .take_while(|fact| fits(fact).is_some())
        .take(MAX_MOUNT_FACTS)
        .collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue` (proc_pid_mountinfo(5)).
fn mount_fact(line: &str) -> Option<MountFact> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(4);
    let (target, options) = (mount.next()?, mount.next()?);
    let mut file_system = file_system.split(' ');
    let (kind, super_options) = (file_system.next()?, file_system.nth(1)?);
    let has = |list: &str, option| list.split(',').any(|found| found == option);
    Some(MountFact {
        target: target
            .replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\134", "\\"),
        kind: kind.to_owned(),
        read_only: has(options, "ro") || has(super_options, "ro"),
        nosuid: has(options, "nosuid"),
        nodev: has(options, "nodev"),
        size_bytes: super_options
            .split(',')
            .find_map(|option| size(option.strip_prefix("size=")?))
            .unwrap_or(0),
    })
}

fn size(text: &str) -> Option<u64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 1024),
        b'm' => (&text[..text.len() - 1], 1024 * 1024),
        b'g' => (&text[..text.len() - 1], 1024 * 1024 * 1024),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_line_gives_its_options_and_size() {
        let facts = mounts(
            "36 35 0:40 / /tmp\\040dir rw,nosuid,nodev shared:1 - tmpfs tmpfs rw,size=65536k,mode=1777\n\
             37 35 8:1 / / rw,relatime - ext4 /dev/sda1 ro,errors=remount-ro\n",
        );
        let tmp = MountFact {
            target: "/tmp dir".into(),
            kind: "tmpfs".into(),
            read_only: false,
            nosuid: true,
            nodev: true,
            size_bytes: 64 * 1024 * 1024,
        };
        assert_eq!(facts[0], tmp);
        assert!(facts[1].read_only && !facts[1].nodev);
    }

    #[test]
    fn a_flood_of_mounts_still_fits_a_frame() {
        let line = format!("36 35 0:40 / /{} rw - tmpfs tmpfs rw\n", "x".repeat(4000));
        let facts = mounts(&line.repeat(600));
        assert!(facts.iter().map(|fact| fact.target.len()).sum::<usize>() <= MAX_MOUNT_BYTES);
        assert!(!facts.is_empty());
    }

    #[test]
    fn interfaces_come_without_the_heading() {
        assert_eq!(
            interfaces("Inter-| Receive\n face |bytes\n    lo:  0 0\n  eth0: 1 2\n"),
            ["lo", "eth0"]
        );
    }
}
