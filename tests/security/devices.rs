//! T2.3: the devices that a program needs, and none of the machine's; what `/proc` and `/sys` say about the machine.

use std::{fs, process::Command};

use crate::{
    place::places,
    probe::{Sandbox, each},
    support::skip,
};

#[test]
fn there_are_no_devices_but_the_harmless_ones() {
    each(|sandbox| {
        let look = "find /dev /workspace /state /tmp /run /home | while read -r f; do \
                    if [ ! -L \"$f\" ] && { [ -b \"$f\" ] || [ -c \"$f\" ]; }; then echo \"$f\"; fi; done | sort";
        let found = sandbox.sh(look).out;
        let more = sandbox.place.expected().more_devices;
        let found: Vec<&str> = found.lines().filter(|name| !more.contains(name)).collect();
        assert_eq!(
            found,
            [
                "/dev/full",
                "/dev/null",
                "/dev/pts/ptmx",
                "/dev/random",
                "/dev/tty",
                "/dev/urandom",
                "/dev/zero"
            ]
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
            let answer = sandbox.perl(&format!("print reads('/dev/{name}')"));
            let is_the_guests = more.contains(&format!("/dev/{name}").as_str());
            assert!(
                answer == "ENOENT" || (is_the_guests && answer != "ok"),
                "{name}: {answer}"
            );
        }
        // A device of the guest's kernel makes no interface for whoever has no capabilities (TUNSETIFF), where it is at all.
        let tun = "sysopen(my $f, '/dev/net/tun', O_RDWR) or do { print err(); exit }; \
                   print ioctl($f, 0x400454ca, my $request = pack('a16 S x22', 'tun0', 0x1001)) ? 'ok' : err()";
        let answer = sandbox.perl(tun);
        assert!(["ENOENT", "EPERM"].contains(&answer.as_str()), "{answer}");
        assert_eq!(
            sandbox.perl("print reads('/dev/zero')"),
            "ok",
            "the control"
        );
    });
}

#[test]
fn a_device_file_of_the_project_or_of_a_mount_opens_nothing() {
    for place in places() {
        if !rustix::process::geteuid().is_root() {
            skip("root", "only root can plant a device");
            return;
        }
        let mut machine = place.machine();
        let mounts = machine.base().join("mounts");
        let roots = format!("{}:{}", machine.project.display(), mounts.display());
        machine.set("CLAUDE_CODE_MCP_PROJECT_ROOTS", &roots);
        let (shown, given) = (mounts.join("shown"), mounts.join("given"));
        for directory in [&shown, &given] {
            fs::create_dir_all(directory).expect("a directory");
            fs::write(directory.join("file"), "x").expect("a file");
            machine.give(directory);
            machine.give(&directory.join("file"));
        }
        for directory in [&machine.project, &shown, &given] {
            let device = directory.join("zero");
            let made = Command::new("/usr/bin/mknod")
                .args(["-m", "666"])
                .arg(&device)
                .args(["c", "1", "5"])
                .status()
                .expect("mknod runs");
            assert!(made.success());
            machine.give(&device);
        }
        // What is mounted read-only is mounted once more by some runtimes, which must not take the other restrictions away.
        let mounts = serde_json::json!([
            { "hostPath": shown, "containerPath": "/mnt/shown" },
            { "hostPath": given, "containerPath": "/mnt/given", "readOnly": false },
        ]);
        let mut sandbox = Sandbox::on(place, machine, serde_json::json!({ "mcpMounts": mounts }));
        for device in ["/workspace/zero", "/mnt/shown/zero", "/mnt/given/zero"] {
            let denied = sandbox.perl(&format!("print reads('{device}')"));
            assert_eq!(denied, "EACCES", "{device}");
        }
        assert_eq!(sandbox.perl("print reads('/mnt/shown/file')"), "ok");
        assert_eq!(sandbox.perl("print writes('/mnt/shown/file')"), "EROFS");
        assert_eq!(sandbox.perl("print writes('/mnt/given/file')"), "ok");
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
            // CVE-2025-31133: what lies over it is the null device itself, and nothing that a container could put there.
            let cover = format!(
                "print -d '/proc/{name}' || !-e _ || -f _ ? 'none' : join ':', map {{ ($_ >> 8 & 255, $_ & 255) }} (stat _)[6]"
            );
            let found = sandbox.perl(&cover);
            assert!(["none", "1:3"].contains(&found.as_str()), "{name}: {found}");
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
        let setting = sandbox.place.expected().readable_setting;
        assert_eq!(
            sandbox.perl(&format!("print reads('{setting}')")),
            "ok",
            "the control"
        );
        let open = format!("print sysopen(my $f, '{setting}', O_WRONLY) ? 'ok' : err()");
        assert!(["EROFS", "EACCES"].contains(&sandbox.perl(&open).as_str()));
        assert_eq!(
            fs::read_to_string("/proc/sys/kernel/core_pattern").expect("a setting"),
            before
        );
    });
}

#[test]
fn sys_is_absent_or_only_shown_and_there_is_no_cgroup_file_system() {
    each(|sandbox| {
        let shown = sandbox.place.expected().shows_sys;
        let found = sandbox.perl("print -e '/sys' ? 'ok' : err()");
        assert_eq!(found, if shown { "ok" } else { "ENOENT" });
        for path in [
            "/sys/x",
            "/sys/kernel/uevent_helper",
            "/sys/kernel/mm/ksm/run",
            "/sys/class/net/lo/mtu",
            "/sys/fs/cgroup/x",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/cgroup.procs",
        ] {
            let denied = sandbox.perl(&format!(
                "print sysopen(my $f, '{path}', O_WRONLY | O_CREAT) ? 'ok' : err()"
            ));
            let denials = ["ENOENT", "EROFS", "EACCES"];
            assert!(denials.contains(&denied.as_str()), "{path}: {denied}");
        }
        // The directories that tell about the machine are empty: only their own two names.
        for path in [
            "/sys/firmware",
            "/sys/fs/cgroup",
            "/sys/devices/virtual/powercap",
        ] {
            let entries = sandbox.perl(&format!(
                "opendir(my $d, '{path}') or do {{ print err(); exit }}; print scalar grep {{ !/^\\./ }} readdir $d"
            ));
            assert!(
                ["ENOENT", "0"].contains(&entries.as_str()),
                "{path}: {entries}"
            );
        }
        assert_eq!(sandbox.perl("print -e '/proc' ? 'ok' : err()"), "ok");
        let kinds = sandbox
            .sh("sed 's/.* - //' /proc/self/mountinfo | cut -d' ' -f1 | grep -c cgroup")
            .out;
        assert_eq!(kinds, "0");
    });
}
