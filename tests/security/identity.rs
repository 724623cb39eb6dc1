//! T2.2 and what goes with it: no capability in any set, no new privileges, the filter on every process, nothing gained
//! from set-user-id programs.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::{
    place::places,
    probe::{PRELUDE, Sandbox, each},
    support::skip,
};

const WALLS: [(&str, &str); 7] = [
    ("CapInh", "0000000000000000"),
    ("CapPrm", "0000000000000000"),
    ("CapEff", "0000000000000000"),
    ("CapBnd", "0000000000000000"),
    ("CapAmb", "0000000000000000"),
    ("NoNewPrivs", "1"),
    ("Seccomp", "2"),
];

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
        .unwrap_or_default()
}

#[test]
fn pid_1_a_command_and_its_grandchild_have_no_capability_and_stay_filtered() {
    each(|sandbox| {
        let looks = [
            "cat /proc/1/status",
            "exec cat /proc/self/status",
            "sh -c 'sh -c \"cat /proc/self/status; true\"; true'",
            "(setsid sh -c 'cat /proc/self/status' & wait)",
        ];
        for look in looks {
            let status = sandbox.sh(look).out;
            let untold = sandbox.place.expected().untold;
            for (name, value) in WALLS.into_iter().filter(|(name, _)| !untold.contains(name)) {
                assert_eq!(field(&status, name), value, "{name} in `{look}`");
            }
            assert!(
                field(&status, "Uid").starts_with("1000\t1000\t1000\t1000"),
                "{look}"
            );
        }
        let outside = fs::read_to_string("/proc/self/status").expect("a status");
        assert_ne!(
            field(&outside, "CapBnd"),
            "0000000000000000",
            "the control: the host has capabilities to give"
        );
    });
}

#[test]
fn no_new_privileges_cannot_be_taken_back() {
    each(|sandbox| {
        assert_eq!(sandbox.perl("print call(157, 38, 0, 0, 0, 0)"), "EINVAL");
        assert_eq!(sandbox.perl("print syscall(157, 39, 0, 0, 0, 0)"), "1");
    });
}

#[test]
fn another_identity_cannot_be_taken() {
    each(|sandbox| {
        for (call, name) in [
            ("105, 0", "setuid"),
            ("106, 0", "setgid"),
            ("117, 0, 0, 0", "setresuid"),
            ("116, 0, 0", "setgroups"),
        ] {
            let denied = sandbox.perl(&format!("print call({call})"));
            let single = sandbox.place.expected().other_identity;
            assert!(denied == "EPERM" || denied == single, "{name}: {denied}");
        }
        assert_eq!(sandbox.perl("print call(105, 1000)"), "ok", "the control");
        assert_eq!(
            sandbox.perl_unfiltered("print call(105, 0)"),
            "ok",
            "the control"
        );
    });
}

#[test]
fn a_set_user_id_program_of_the_project_gains_nothing() {
    for place in places() {
        if !rustix::process::geteuid().is_root() {
            skip(
                "root",
                "only root can plant a program that is somebody else's",
            );
            return;
        }
        let machine = place.machine();
        let planted = machine.project.join("planted");
        fs::copy("/usr/bin/id", &planted).expect("a copy");
        std::os::unix::fs::chown(&planted, Some(4_444), Some(4_444)).expect("an owner");
        fs::set_permissions(&planted, fs::Permissions::from_mode(0o6755)).expect("its mode");
        let mut sandbox = Sandbox::on(place, machine, serde_json::json!({}));
        let inside = sandbox.sh("./planted");
        assert!(inside.out.contains("uid=1000"), "{inside:#?}");
        assert!(!inside.out.contains("euid"), "{inside:#?}");
        let outside = Command::new("/usr/bin/setpriv")
            .args(["--reuid", "12345", "--clear-groups", "--regid", "12345"])
            .arg(&planted)
            .output()
            .expect("the control runs");
        let outside = String::from_utf8_lossy(&outside.stdout);
        assert!(outside.contains("euid=4444"), "the control: {outside}");
    }
}

#[test]
fn the_machines_set_user_id_programs_gain_nothing() {
    each(|sandbox| {
        let found = sandbox.sh("find /usr/bin -name su -perm -4000").out;
        if found.is_empty() {
            skip("setuid", "this machine has no set-user-id programs");
            return;
        }
        let name = "su";
        // Whatever it says, its output is full: it stands still there, and its status tells who it is.
        let probe = format!(
            "pipe(my $r, my $w); fcntl($w, F_SETFL, O_NONBLOCK); 1 while syswrite($w, 'x' x 4096); 1 while syswrite($w, 'x'); \
             fcntl($w, F_SETFL, 0); my $c = fork; \
             if (!$c) {{ open(STDIN, '<', '/dev/null'); open(STDOUT, '>&', $w); open(STDERR, '>&', $w); exec '{found}' }} \
             my $status = ''; for (1 .. 2000) {{ open(my $s, '<', \"/proc/$c/status\"); $status = join '', <$s>; \
             last if $status =~ m{{^Name:\\s{name}$}}m && $status =~ /^State:\\sS/m; select(undef, undef, undef, 0.005) }} \
             print grep {{ /^(Name|Uid)/ }} map {{ \"$_\\n\" }} split /\\n/, $status; kill 'KILL', $c;"
        );
        let inside = sandbox.perl(&probe);
        let outside = outside_as_nobody_special(&probe);
        assert_eq!(
            (field(&inside, "Name"), field(&inside, "Uid")),
            (name, "1000\t1000\t1000\t1000")
        );
        if let Some(outside) = outside {
            assert_eq!(field(&outside, "Name"), name, "the control");
            assert!(
                field(&outside, "Uid").starts_with("12345\t0\t"),
                "the control: {outside}"
            );
        }
        let no_new_privileges = sandbox.perl("print syscall(157, 39, 0, 0, 0, 0)");
        assert_eq!(no_new_privileges, "1", "holds where a mount allows the bit");
    });
}

/// A probe on the host itself as a user without privileges, if the tests may become one.
fn outside_as_nobody_special(probe: &str) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let output = Command::new("/usr/bin/setpriv")
        .args(["--reuid", "12345", "--clear-groups", "--regid", "12345"])
        .args(["/usr/bin/perl", "-e", &format!("{PRELUDE}{probe}")])
        .output()
        .expect("the control runs");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
