//! What becomes of system calls inside, as `profiles/seccomp.json` says: one table for every backend, asked by Perl.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;

const EPERM: i32 = libc::EPERM;
const ENOSYS: i32 = libc::ENOSYS;

/// Name, number, arguments, and the answer: an errno, or 0.
const CALLS: &[(&str, i64, &str, i32)] = &[
    ("unshare user", libc::SYS_unshare, "0x10000000", EPERM),
    ("setns", libc::SYS_setns, "0,0", EPERM),
    (
        "clone newuser",
        libc::SYS_clone,
        "0x10000011,0,0,0,0",
        EPERM,
    ),
    ("clone3", libc::SYS_clone3, "0,0", ENOSYS),
    ("mount", libc::SYS_mount, "0,0,0,0,0", EPERM),
    ("fsopen", libc::SYS_fsopen, "0,0", EPERM),
    ("open_tree", libc::SYS_open_tree, "0,0,0", EPERM),
    ("move_mount", libc::SYS_move_mount, "0,0,0,0,0", EPERM),
    ("pivot_root", libc::SYS_pivot_root, "0,0", EPERM),
    ("chroot", libc::SYS_chroot, "0", EPERM),
    ("ptrace traceme", libc::SYS_ptrace, "0,0,0,0", EPERM),
    (
        "process_vm_readv",
        libc::SYS_process_vm_readv,
        "1,0,0,0,0,0",
        EPERM,
    ),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, "0,0,0", EPERM),
    ("kcmp", libc::SYS_kcmp, "1,1,0,0,0", EPERM),
    ("userfaultfd", libc::SYS_userfaultfd, "0", EPERM),
    ("io_uring_setup", libc::SYS_io_uring_setup, "1,0", EPERM),
    ("bpf", libc::SYS_bpf, "0,0,0", EPERM),
    (
        "perf_event_open",
        libc::SYS_perf_event_open,
        "0,0,0,0,0",
        EPERM,
    ),
    ("keyctl", libc::SYS_keyctl, "0,0,0,0,0", EPERM),
    ("add_key", libc::SYS_add_key, "0,0,0,0,0", EPERM),
    ("memfd_secret", libc::SYS_memfd_secret, "0", EPERM),
    (
        "open_by_handle_at",
        libc::SYS_open_by_handle_at,
        "0,0,0",
        EPERM,
    ),
    ("personality", libc::SYS_personality, "0x40000", EPERM),
    ("syslog", libc::SYS_syslog, "3,0,0", EPERM),
    ("clock_settime", libc::SYS_clock_settime, "0,0", EPERM),
    ("adjtimex", libc::SYS_adjtimex, "0", EPERM),
    ("quotactl", libc::SYS_quotactl, "0,0,0,0", EPERM),
    ("vmsplice", libc::SYS_vmsplice, "0,0,0,0", EPERM),
    ("seccomp", libc::SYS_seccomp, "1,0,0", ENOSYS),
    ("prctl seccomp", libc::SYS_prctl, "22,2,0,0,0", EPERM),
    ("unknown call", 4000, "0", ENOSYS),
    ("x32 getpid", 0x4000_0000 + libc::SYS_getpid, "0", ENOSYS),
    ("socket AF_ALG", libc::SYS_socket, "38,5,0", EPERM),
    ("socket AF_VSOCK", libc::SYS_socket, "40,1,0", EPERM),
    ("socket AF_PACKET", libc::SYS_socket, "17,3,0", EPERM),
    ("socket netlink audit", libc::SYS_socket, "16,3,9", EPERM),
    ("socket netlink route", libc::SYS_socket, "16,3,0", 0),
    ("socket unix", libc::SYS_socket, "1,1,0", 0),
    ("socket inet", libc::SYS_socket, "2,1,0", 0),
    ("socket inet6", libc::SYS_socket, "10,1,0", 0),
    (
        "mknod device",
        libc::SYS_mknodat,
        "-100,'/tmp/d',0x21b6,0x103",
        EPERM,
    ),
    ("mknod fifo", libc::SYS_mknodat, "-100,'/tmp/p',0x11b6,0", 0),
    ("TIOCSTI", libc::SYS_ioctl, "0,0x5412,0", EPERM),
    ("TIOCLINUX", libc::SYS_ioctl, "0,0x541C,0", EPERM),
    (
        "chmod setuid",
        libc::SYS_fchmodat,
        "-100,'/tmp/p',0x9ff",
        EPERM,
    ),
    ("chmod plain", libc::SYS_fchmodat, "-100,'/tmp/p',0x1ff", 0),
    (
        "create setuid",
        libc::SYS_openat,
        "-100,'/tmp/s',0x41,0x9ff",
        EPERM,
    ),
    ("personality query", libc::SYS_personality, "0xffffffff", 0),
    ("getpid", libc::SYS_getpid, "0", 0),
    (
        "landlock version",
        libc::SYS_landlock_create_ruleset,
        "0,0,1",
        0,
    ),
    ("prlimit of another", libc::SYS_prlimit64, "1,7,0,0", EPERM),
    (
        "pin the supervisor",
        libc::SYS_sched_setaffinity,
        "1,0,0",
        EPERM,
    ),
    (
        "slow the supervisor",
        libc::SYS_setpriority,
        "0,1,19",
        EPERM,
    ),
    ("slow the whole uid", libc::SYS_setpriority, "2,0,19", EPERM),
    ("slow oneself", libc::SYS_setpriority, "0,0,5", 0),
    // The kernel reads these as 32 bits: what stands above must not hide them.
    (
        "prctl seccomp, hidden",
        libc::SYS_prctl,
        "0x100000016,2,0,0,0",
        EPERM,
    ),
    ("TIOCSTI, hidden", libc::SYS_ioctl, "0,0x100005412,0", EPERM),
    (
        "TIOCLINUX, hidden",
        libc::SYS_ioctl,
        "0,0x10000541C,0",
        EPERM,
    ),
    (
        "slow the supervisor, hidden",
        libc::SYS_setpriority,
        "0,0x100000001,19",
        EPERM,
    ),
    (
        "pin the supervisor, hidden",
        libc::SYS_sched_setaffinity,
        "0x100000001,0,0",
        EPERM,
    ),
    ("prctl name", libc::SYS_prctl, "4,1,0,0,0", 0),
];

fn calls(
    without: &[&str],
) -> impl Iterator<Item = &'static (&'static str, i64, &'static str, i32)> {
    CALLS
        .iter()
        .filter(move |(name, ..)| !without.contains(name))
}

/// Makes every call but those named, and prints the errno of each.
pub fn program(without: &[&str]) -> String {
    let mut program = String::from("$|=1; $d='/tmp/d'; $p='/tmp/p'; $s='/tmp/s';\n");
    for (_, number, arguments, _) in calls(without) {
        // A string must be a variable: Perl takes it for a buffer that the call may fill.
        let arguments = arguments
            .replace("'/tmp/d'", "$d")
            .replace("'/tmp/p'", "$p")
            .replace("'/tmp/s'", "$s");
        let call = format!("$r=syscall({number},{arguments})");
        writeln!(program, "$!=0; {call}; print(($r==-1?0+$!:0),\"\\n\");").unwrap();
    }
    program
}

/// Compares what it printed.
pub fn judge(without: &[&str], answers: &str) {
    let answers: Vec<i32> = answers.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(answers.len(), calls(without).count());
    for ((name, _, _, wanted), answer) in calls(without).zip(answers) {
        assert_eq!(answer, *wanted, "{name}");
    }
}
