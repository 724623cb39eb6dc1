//! T2.1: system calls that the filter keeps from the agent. The answer is compared, not only the failure: `EPERM` is the
//! filter's word for what is denied, `ENOSYS` for what should look absent. The control is the same call outside the filter,
//! with all capabilities in namespaces of its own, or a harmless variant of it inside; it must get another answer.
//!
//! What this does not show: calls that need capabilities of the whole machine (`init_module`, `kexec_load`, `swapon`) get
//! `EPERM` from the kernel anyway, so their control is only that the probe itself works.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::probe::{Sandbox, each};

/// The control of a probe.
enum Control {
    /// The same outside the filter answers this.
    Unfiltered(&'static str),
    /// This inside answers that.
    Inside(&'static str, &'static str),
    /// The same where the kernel knows the call; else another call works.
    InsideIfKnown(&'static str, &'static str),
}
use Control::{Inside, InsideIfKnown, Unfiltered};

fn check(probe: &str, expected: &str, control: &Control) {
    let script = |probe: &str| format!("print do {{ {probe} }};");
    each(|sandbox| {
        let place = sandbox.place.expected();
        let denied = sandbox.perl(&script(probe));
        let is_absent = expected == "ENOSYS" && place.absent.contains(&denied.as_str());
        assert!(is_absent || denied == expected, "{probe}: {denied}");
        match control {
            InsideIfKnown(..) if !place.knows_newer_calls => {
                assert_eq!(sandbox.perl(&script("call(39)")), "ok");
            }
            Unfiltered(answer) => {
                assert_ne!(*answer, expected);
                assert_eq!(sandbox.perl_unfiltered(&script(probe)), *answer, "{probe}");
            }
            Inside(allowed, answer) | InsideIfKnown(allowed, answer) => {
                assert_eq!(sandbox.perl(&script(allowed)), *answer, "{allowed}");
            }
        }
    });
}

macro_rules! attacks {
    ($($name:ident: $probe:expr, $expected:literal, $control:expr;)*) => {
        $(#[test]
        fn $name() {
            check($probe, $expected, &$control);
        })*
    };
}

/// `clone` with flags: the child, if there is one, ends at once.
macro_rules! clone_with {
    ($flag:literal) => {
        concat!(
            "my $r = syscall(56, ",
            $flag,
            " | 17, 0, 0, 0, 0); POSIX::_exit(0) if $r == 0; $r == -1 ? err() : 'ok'"
        )
    };
}

/// `socket` with a family, a kind and a protocol.
macro_rules! socket {
    ($arguments:literal) => {
        concat!(
            "my $r = syscall(41, ",
            $arguments,
            "); $r == -1 ? err() : 'ok'"
        )
    };
}

const WORKS: Control = Inside("call(39)", "ok");
const CLONES: Control = Inside(clone_with!("0"), "ok");
const SOCKETS: Control = Inside(socket!("2, 1, 0"), "ok");

// Numbers are those of x86_64, the only architecture that the tests know.
attacks! {
    mount: "call(165, 'none', '/tmp', 'tmpfs', 0, 0)", "EPERM", Unfiltered("ok");
    umount2: "call(166, '/proc', 2)", "EPERM", Unfiltered("ok");
    pivot_root: "call(155, '/nowhere', '/nowhere')", "EPERM", Unfiltered("ENOENT");
    chroot: "call(161, '/tmp')", "EPERM", Unfiltered("ok");
    open_tree: "call(428, -100, '/usr', 1)", "EPERM", Unfiltered("ok");
    move_mount: "call(429, -1, '', -1, '', 0)", "EPERM", Unfiltered("ENOENT");
    fsopen: "call(430, 'tmpfs', 0)", "EPERM", Unfiltered("ok");
    fsmount: "call(432, -1, 0, 0)", "EPERM", Unfiltered("EBADF");
    mount_setattr: "call(442, -100, '/tmp', 0, \"\\0\" x 32, 32)", "EPERM", Unfiltered("ok");

    unshare_user_namespace: "call(272, 0x10000000)", "EPERM", Unfiltered("ok");
    unshare_mount_namespace: "call(272, 0x20000)", "EPERM", Unfiltered("ok");
    unshare_network_namespace: "call(272, 0x40000000)", "EPERM", Unfiltered("ok");
    unshare_pid_namespace: "call(272, 0x20000000)", "EPERM", Unfiltered("ok");
    unshare_cgroup_namespace: "call(272, 0x2000000)", "EPERM", Unfiltered("ok");
    setns: "open(my $f, '<', '/proc/self/ns/net'); call(308, fileno($f), 0)", "EPERM", Unfiltered("ok");
    setns_of_the_supervisor: "my $p = syscall(434, 1, 0); call(308, $p + 0, 0x20000)", "EPERM", InsideIfKnown("my $p = syscall(434, 1, 0); $p >= 0 ? 'ok' : err()", "ok");
    clone_user_namespace: clone_with!("0x10000000"), "EPERM", CLONES;
    clone_mount_namespace: clone_with!("0x20000"), "EPERM", Unfiltered("ok");
    clone_pid_namespace: clone_with!("0x20000000"), "EPERM", Unfiltered("ok");
    clone_network_namespace: clone_with!("0x40000000"), "EPERM", Unfiltered("ok");
    clone_ipc_namespace: clone_with!("0x8000000"), "EPERM", Unfiltered("ok");
    clone_uts_namespace: clone_with!("0x4000000"), "EPERM", Unfiltered("ok");
    clone_cgroup_namespace: clone_with!("0x2000000"), "EPERM", Unfiltered("ok");
    clone3: "my $a = pack('Q11', 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0); my $r = syscall(435, $a, 88); POSIX::_exit(0) if $r == 0; $r == -1 ? err() : 'ok'", "ENOSYS", Unfiltered("ok");

    ptrace: "call(101, 16, 0x3ffffffe, 0, 0)", "EPERM", Unfiltered("ESRCH");
    process_vm_readv: "call(310, 0x3ffffffe, 0, 0, 0, 0, 0)", "EPERM", Unfiltered("ok");
    process_vm_writev: "call(311, 0x3ffffffe, 0, 0, 0, 0, 0)", "EPERM", Unfiltered("ok");
    process_madvise: "call(440, -1, 0, 0, 0, 0)", "EPERM", Unfiltered("EBADF");
    kcmp: "call(312, $$, $$, 0, 0, 0)", "EPERM", Unfiltered("ok");
    pidfd_getfd: "my $p = syscall(434, $$ + 0, 0); call(438, $p, 0, 0)", "EPERM", Unfiltered("ok");
    move_pages: "call(279, $$ + 0, 0, 0, 0, 0, 0)", "EPERM", Unfiltered("ok");

    bpf: "call(321, 0, \"\\0\" x 512, 100000)", "EPERM", Unfiltered("E2BIG");
    perf_event_open: "call(298, 0, 0, -1, -1, 0)", "EPERM", Unfiltered("EFAULT");
    userfaultfd: "call(323, 0xffff)", "EPERM", Unfiltered("EINVAL");
    io_uring_setup: "call(425, 0, \"\\0\" x 512)", "EPERM", Unfiltered("EINVAL");
    io_uring_enter: "call(426, -1, 0, 0, 0, 0, 0)", "EPERM", Unfiltered("EBADF");
    keyctl: "call(250, 0, -3, 0)", "EPERM", Unfiltered("ok");
    add_key: "call(248, 'user', 'x', 'y', 1, -1)", "EPERM", Unfiltered("ok");
    request_key: "call(249, 'user', 'x', 0, 0)", "EPERM", Unfiltered("ENOKEY");
    name_to_handle_at: "call(303, -100, '/tmp', pack('Ii', 128, 0) . \"\\0\" x 128, \"\\0\" x 8, 0)", "EPERM", Unfiltered("ok");
    open_by_handle_at: "call(304, -1, pack('Ii', 8, 1) . \"\\0\" x 8, 0)", "EPERM", Unfiltered("EBADF");
    memfd_secret: "call(447, 0xffff)", "EPERM", Unfiltered("EINVAL");
    vmsplice: "call(278, -1, 0, 0, 0)", "EPERM", Unfiltered("EBADF");
    fanotify_init: "call(300, 0x200, 0)", "EPERM", Unfiltered("ok");
    seccomp: "call(317, 1, 0, 0)", "ENOSYS", Unfiltered("EFAULT");
    prctl_set_seccomp: "call(157, 22, 2, 0, 0, 0)", "EPERM", Unfiltered("EFAULT");

    mknod_character_device: "call(133, '/tmp/device', 0020666, 0x103)", "EPERM", Inside("call(133, '/tmp/pipe', 0010666, 0)", "ok");
    mknod_block_device: "call(133, '/tmp/device', 0060666, 0xfe00)", "EPERM", Inside("call(133, '/tmp/pipe', 0010666, 0)", "ok");
    mknodat_block_device_in_the_workspace: "call(259, -100, '/workspace/device', 0060666, 0xfe00)", "EPERM", Inside("call(259, -100, '/workspace/pipe', 0010666, 0)", "ok");
    chmod_set_user_id: "open(my $f, '>', '/workspace/x'); call(90, '/workspace/x', 04755)", "EPERM", Inside("call(90, '/workspace/x', 0755)", "ok");
    fchmod_set_group_id: "open(my $f, '>', '/workspace/x'); call(91, fileno($f), 02755)", "EPERM", Inside("open(my $f, '>', '/workspace/x'); call(91, fileno($f), 0755)", "ok");
    fchmodat_set_user_id: "open(my $f, '>', '/workspace/x'); call(268, -100, '/workspace/x', 04755)", "EPERM", Inside("call(268, -100, '/workspace/x', 0755)", "ok");
    fchmodat2_set_user_id: "open(my $f, '>', '/workspace/x'); call(452, -100, '/workspace/x', 04755, 0)", "EPERM", InsideIfKnown("call(452, -100, '/workspace/x', 0755, 0)", "ok");
    open_set_user_id: "call(2, '/workspace/y', 0101, 06755)", "EPERM", Inside("call(2, '/workspace/y', 0101, 0755)", "ok");
    openat_set_user_id: "call(257, -100, '/workspace/y', 0101, 06755)", "EPERM", Inside("call(257, -100, '/workspace/y', 0101, 0755)", "ok");
    creat_set_user_id: "call(85, '/workspace/y', 04755)", "EPERM", Inside("call(85, '/workspace/y', 0755)", "ok");

    init_module: "call(175, 0, 0, '')", "EPERM", WORKS;
    finit_module: "call(313, -1, '', 0)", "EPERM", WORKS;
    delete_module: "call(176, 'nosuchmodule', 0)", "EPERM", WORKS;
    kexec_load: "call(246, 0, 1, 0, 0)", "EPERM", WORKS;
    reboot: "call(169, 0, 0, 0, 0)", "EPERM", Unfiltered("EINVAL");
    swapon: "call(167, '', 0)", "EPERM", WORKS;
    swapoff: "call(168, '')", "EPERM", WORKS;
    clock_settime: "call(227, 0, 0)", "EPERM", Unfiltered("EFAULT");
    settimeofday: "call(164, 1, 0)", "EPERM", Unfiltered("EFAULT");
    adjtimex: "call(159, 0)", "EPERM", Unfiltered("EFAULT");
    sethostname: "call(170, 'x', -1)", "EPERM", Inside("call(63, \"\\0\" x 512)", "ok");
    syslog: "call(103, 3, \"\\0\" x 128, 100)", "EPERM", WORKS;
    acct: "call(163, '/nosuchfile')", "EPERM", WORKS;
    quotactl: "call(179, 0, 0, 0, 0)", "EPERM", Unfiltered("ENODEV");
    ioperm: "call(173, 0, 1, 0)", "EPERM", WORKS;
    iopl: "call(172, 0)", "EPERM", WORKS;
    personality_without_randomization: "call(135, 0x0040000)", "EPERM", InsideIfKnown("call(135, 0xffffffff)", "ok");
    personality_read_implies_exec: "call(135, 0x0400000)", "EPERM", Unfiltered("ok");

    socket_packet: socket!("17, 3, 0"), "EPERM", Unfiltered("ok");
    socket_vsock: socket!("40, 1, 0"), "EPERM", Unfiltered("ok");
    socket_alg: socket!("38, 5, 0"), "EPERM", SOCKETS;
    socket_xdp: socket!("44, 3, 0"), "EPERM", SOCKETS;
    socket_key: socket!("15, 3, 2"), "EPERM", SOCKETS;
    socket_bluetooth: socket!("31, 3, 0"), "EPERM", SOCKETS;
    socket_netlink_audit: socket!("16, 3, 9"), "EPERM", Inside(socket!("16, 3, 0"), "ok");
    socket_netlink_netfilter: socket!("16, 3, 12"), "EPERM", Inside(socket!("16, 3, 0"), "ok");
    socket_netlink_uevent: socket!("16, 3, 15"), "EPERM", Unfiltered("ok");
    socket_netlink_generic: socket!("16, 3, 16"), "EPERM", Unfiltered("ok");
    socket_raw: socket!("2, 3, 1"), "EPERM", Unfiltered("ok");

    tiocsti: "call(16, 0, 0x5412, 'x')", "EPERM", Inside("call(16, 0, 0x5413, \"\\0\" x 8)", "ENOTTY");
    tiocsti_with_high_bits: "call(16, 0, 0x100005412, 'x')", "EPERM", Inside("call(16, 0, 0x100005413, \"\\0\" x 8)", "ENOTTY");
    tioclinux: "call(16, 0, 0x541c, 'x')", "EPERM", Unfiltered("ENOTTY");
    unknown_calls_look_absent: "call(999)", "ENOSYS", WORKS;
}

/// A call that is newer than an engine's library has no number there, so that the answer is the one for unknown calls.
#[test]
fn lsm_list_modules() {
    each(|sandbox| {
        let probe = "print call(461, 0, 0, 0)";
        assert_eq!(sandbox.perl(probe), sandbox.place.expected().newest_calls);
        assert_eq!(sandbox.perl_unfiltered(probe), "EFAULT", "the control");
    });
}

/// The same numbers with another width mean other calls of the kernel's.
#[test]
fn x32_calls() {
    each(|sandbox| {
        let probe = |number: &str| {
            format!(
                "my $c = fork; if (!$c) {{ my $r = syscall({number}); POSIX::_exit($r == -1 ? $! + 0 : 0) }} \
                 waitpid($c, 0); my $e = $? >> 8; \
                 print $? & 127 ? 'signal ' . ($? & 127) : $e ? $names{{$e}} : 'ok'"
            )
        };
        let answer = sandbox.perl(&probe("0x40000000 + 39"));
        assert_eq!(answer, sandbox.place.expected().x32);
        assert_eq!(sandbox.perl(&probe("39")), "ok", "the control");
    });
}

/// The numbers of the other architecture mean other calls: the filter ends whoever uses them.
#[test]
fn int80_calls_of_another_architecture() {
    each(|sandbox| {
        if !sandbox.place.expected().ends_other_architectures {
            return int80_calls_are_judged_as_all_others(sandbox);
        }
        let calls = |name: &str, call: [u8; 2]| {
            let path = sandbox.machine.project.join(name);
            fs::write(&path, one_call(20, call, &ENDS_WITH_7)).expect("a program");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
            sandbox.machine.give(&path);
            path
        };
        let (old, plain) = (calls("old", [0xcd, 0x80]), calls("plain", [0x0f, 0x05]));
        // The kernel must have such calls, else it is the kernel that refuses.
        let outside = sandbox.machine.command(&old).status().expect("it runs");
        assert_eq!(outside.code(), Some(7), "the control outside");
        let ran = sandbox.argv(&["/workspace/old"], 10);
        assert_eq!(ran.all["signal"], 31, "SIGSYS: {ran:#?}");
        assert!(plain.exists());
        let ran = sandbox.argv(&["/workspace/plain"], 10);
        assert_eq!(ran.code, 7, "the control: {ran:#?}");
    });
}

/// `mount` has another number in 32 bits (21), and `getuid` too (24), so that what is answered tells which table it was.
fn int80_calls_are_judged_as_all_others(sandbox: &mut Sandbox) {
    let mut answer = |number: u8, call: [u8; 2]| {
        let path = sandbox.machine.project.join("called");
        fs::write(&path, one_call(number, call, &ENDS_WITH_THE_ERROR)).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        sandbox.argv(&["/workspace/called"], 10).code
    };
    let (old, plain) = ([0xcd, 0x80], [0x0f, 0x05]);
    let (mount, getuid) = (165, 102);
    assert_eq!(answer(mount, old), 1, "EPERM");
    assert_eq!(answer(mount, plain), 1, "EPERM");
    assert_eq!(answer(getuid, old), answer(getuid, plain), "the control");
    assert_eq!(answer(getuid, plain), (-1000_i64) & 0xff, "the control");
}

/// `exit(7)`.
const ENDS_WITH_7: [u8; 12] = [0xb8, 60, 0, 0, 0, 0xbf, 7, 0, 0, 0, 0x0f, 0x05];
/// `exit` with what the call answered, negated: the number of an error.
const ENDS_WITH_THE_ERROR: [u8; 11] = [0x89, 0xc7, 0xf7, 0xdf, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];

/// A program of 64 bits that makes one call, such as `getpid` in the numbers of 32 bits (20) or `writev` of nothing in those
/// of 64, by that instruction, and then ends by a plain call.
fn one_call(number: u8, instruction: [u8; 2], end: &[u8]) -> Vec<u8> {
    const AT: u64 = 0x40_0000;
    let mut code = vec![0xb8, number, 0, 0, 0, 0x31, 0xd2]; // mov eax, number; xor edx, edx
    code.extend(instruction);
    code.extend(end);
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 62] {
        elf.extend(half.to_le_bytes()); // a program, for x86_64
    }
    elf.extend(1_u32.to_le_bytes());
    for word in [AT + 64 + 56, 64, 0] {
        elf.extend(word.to_le_bytes()); // its entry, its one segment, no sections
    }
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]); // loaded, readable and executable
    let size = 64 + 56 + code.len() as u64;
    for word in [0, AT, AT, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}
