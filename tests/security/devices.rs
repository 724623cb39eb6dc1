//! T2.3: the devices that a program needs, and none of the machine's; what `/proc` and `/sys` say about the machine.

use std::{fs, process::Command};

use crate::{
    probe::{Sandbox, each},
    support::{Machine, skip, users},
};

#[test]
fn there_are_no_devices_but_the_harmless_ones() {
    each(|sandbox| {
        let look = "find /dev /workspace /state /tmp /run /home | while read -r f; do \
                    if [ ! -L \"$f\" ] && { [ -b \"$f\" ] || [ -c \"$f\" ]; }; then echo \"$f\"; fi; done | sort";
        let found = sandbox.sh(look).out;
        assert_eq!(
            found,
            "/dev/full\n/dev/null\n/dev/pts/ptmx\n/dev/random\n/dev/tty\n/dev/urandom\n/dev/zero"
        );
        for name in [
            "mem",
            "kmem",
            "port",
            "kmsg",
            "kvm",
            "fuse",
            "vda",
            "sda",
            "loop0",
            "loop-control",
            "net/tun",
            "vhost-net",
            "console",
            "tty0",
            "hpet",
            "uinput",
            "snapshot",
            "mapper/control",
        ] {
            assert_eq!(
                sandbox.perl(&format!("print reads('/dev/{name}')")),
                "ENOENT",
                "{name}"
            );
        }
        assert_eq!(
            sandbox.perl("print reads('/dev/zero')"),
            "ok",
            "the control"
        );
    });
}

#[test]
fn a_device_file_of_the_project_opens_nothing() {
    for user in users() {
        if !rustix::process::geteuid().is_root() {
            skip("root", "only root can plant a device");
            return;
        }
        let machine = Machine::new(user);
        let made = Command::new("/usr/bin/mknod")
            .args(["-m", "666"])
            .arg(machine.project.join("zero"))
            .args(["c", "1", "5"])
            .status()
            .expect("mknod runs");
        assert!(made.success());
        machine.give(&machine.project.join("zero"));
        let mut sandbox = Sandbox::on(machine, serde_json::json!({}));
        assert_eq!(sandbox.perl("print reads('/workspace/zero')"), "EACCES");
        let path = sandbox.machine.project.join("zero");
        let outside = sandbox.perl_outside(&format!("print reads('{}')", path.display()));
        assert_eq!(outside, "ok", "the control");
    }
}

#[test]
fn what_proc_tells_about_the_machine_is_hidden() {
    each(|sandbox| {
        for name in [
            "kcore",
            "keys",
            "timer_list",
            "sched_debug",
            "latency_stats",
            "interrupts",
            "sysrq-trigger",
            "kmsg",
            "kpagecount",
            "scsi/scsi",
            "acpi/wakeup",
        ] {
            let look = format!(
                "my $r = reads('/proc/{name}'); print $r eq 'ok' ? -s '/proc/{name}' || do {{ open(my $f, '<', '/proc/{name}'); length(<$f> // '') }} : $r"
            );
            let found = sandbox.perl(&look);
            assert!(["ENOENT", "0"].contains(&found.as_str()), "{name}: {found}");
        }
        assert_eq!(
            sandbox.perl("print reads('/proc/uptime')"),
            "ok",
            "the control"
        );
        let addresses = sandbox
            .sh("cut -d' ' -f1 /proc/kallsyms 2>/dev/null | sort -u | head -n 2")
            .out;
        assert!(
            addresses.is_empty() || addresses.chars().all(|c| c == '0'),
            "kernel addresses: {addresses}"
        );
    });
}

#[test]
fn the_machines_settings_cannot_be_changed() {
    each(|sandbox| {
        let before = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("a setting");
        for name in [
            "sys/kernel/core_pattern",
            "sys/kernel/modprobe",
            "sys/kernel/hostname",
            "sys/kernel/sysrq",
            "sys/vm/panic_on_oom",
            "sys/vm/overcommit_memory",
            "sys/fs/suid_dumpable",
            "sys/net/ipv4/ip_forward",
            "sys/user/max_user_namespaces",
            "sys/kernel/ns_last_pid",
            "sysrq-trigger",
            "irq/default_smp_affinity",
        ] {
            let denied = sandbox.perl(&format!("print writes('/proc/{name}')"));
            assert!(
                ["EROFS", "EACCES", "ENOENT", "EPERM"].contains(&denied.as_str()),
                "{name}: {denied}"
            );
        }
        // The very setting that is not writable is readable: it is there, and it is the write that is refused.
        assert_eq!(
            sandbox.perl("print reads('/proc/sys/kernel/core_pattern')"),
            "ok",
            "the control"
        );
        let open = "print sysopen(my $f, '/proc/sys/kernel/core_pattern', O_WRONLY) ? 'ok' : err()";
        assert!(["EROFS", "EACCES"].contains(&sandbox.perl(open).as_str()));
        assert_eq!(
            fs::read_to_string("/proc/sys/kernel/core_pattern").expect("a setting"),
            before
        );
    });
}

#[test]
fn there_is_no_sys_and_no_cgroup_file_system() {
    each(|sandbox| {
        for path in [
            "/sys",
            "/sys/fs/cgroup",
            "/sys/kernel/uevent_helper",
            "/sys/firmware",
        ] {
            assert_eq!(
                sandbox.perl(&format!("print -e '{path}' ? 'ok' : err()")),
                "ENOENT",
                "{path}"
            );
        }
        assert_eq!(sandbox.perl("print -e '/proc' ? 'ok' : err()"), "ok");
        let mounted = sandbox.sh("grep -c cgroup /proc/self/mountinfo").out;
        assert_eq!(mounted, "0");
    });
}
