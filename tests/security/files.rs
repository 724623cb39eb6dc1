//! T2.3 and the second wall behind it: a read-only root, writable mounts that carry neither programs with privileges nor
//! devices, Landlock, and the tricks with `/proc` that have led out of other runtimes.

use std::fs;

use serde_json::json;

use crate::{
    place::{Place, in_force},
    probe::{Sandbox, each, snapshot},
    support::program,
};

#[test]
fn the_root_and_the_system_are_read_only() {
    each(|sandbox| {
        for place in [
            "/x",
            "/usr/x",
            "/usr/bin/x",
            "/bin/x",
            "/etc/x",
            "/lib/x",
            "/home/x",
            "/run/supervisor/x",
            "/etc/ssl/certs/x",
        ] {
            let denied = sandbox.perl(&format!("print writes('{place}')"));
            let ways = sandbox.place.expected().read_only;
            assert!(ways.contains(&denied.as_str()), "{place}: {denied}");
        }
        assert_eq!(
            sandbox.perl("print writes('/dev/x')"),
            sandbox.place.expected().making_a_device_file
        );
        for place in [
            "/workspace/x",
            "/state/x",
            "/tmp/x",
            "/home/agent/x",
            "/dev/shm/x",
        ] {
            assert_eq!(
                sandbox.perl(&format!("print writes('{place}')")),
                "ok",
                "the control {place}"
            );
        }
    });
}

#[test]
fn what_is_read_only_cannot_be_renamed_removed_linked_or_made_either() {
    each(|sandbox| {
        for (probe, control) in [
            (
                "rename('/etc/passwd', '/etc/x')",
                "rename('/tmp/a', '/tmp/b')",
            ),
            ("unlink('/etc/passwd')", "unlink('/tmp/a')"),
            ("mkdir('/usr/x')", "mkdir('/tmp/c')"),
            ("symlink('/tmp', '/usr/x')", "symlink('/tmp', '/tmp/d')"),
            ("truncate('/etc/passwd', 0)", "truncate('/tmp/a', 0)"),
        ] {
            let denied = sandbox.perl(&format!("print {probe} ? 'ok' : err()"));
            assert!(
                sandbox
                    .place
                    .expected()
                    .read_only
                    .contains(&denied.as_str())
                    || (probe.starts_with("truncate") && denied == "EACCES"),
                "{probe}: {denied}"
            );
            let allowed =
                sandbox.perl(&format!("writes('/tmp/a'); print {control} ? 'ok' : err()"));
            assert_eq!(allowed, "ok", "{control}");
        }
    });
}

#[test]
fn every_writable_mount_is_known_and_carries_neither_privileges_nor_devices() {
    each(|sandbox| {
        let table = sandbox.sh("cat /proc/self/mountinfo").out;
        let expected = sandbox.place.expected();
        let (mut writable, mut privileged) = (Vec::new(), Vec::new());
        for line in table.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let (target, options) = (fields[4], fields[5]);
            let has = |option: &str| options.split(',').any(|found| found == option);
            // An empty directory or the null device lies there, to hide what the kernel shows.
            let hides = ["/proc/", "/sys/"]
                .iter()
                .any(|place| target.starts_with(place))
                && line.contains(" - tmpfs ")
                && (has("ro") || fields[3] == "/null");
            if expected.shows_mount_flags && !has("nosuid") && !hides {
                assert!(!has("rw"), "{line}");
                privileged.push(target.to_owned());
            }
            if expected.shows_mount_flags && (!target.starts_with("/dev/") || target == "/dev/shm")
            {
                assert!(
                    has("nodev")
                        || target == "/dev"
                        || target.starts_with("/proc/")
                        || hides
                        || expected.mounts_with_privileges.contains(&target),
                    "{line}"
                );
            }
            if has("rw") && !target.starts_with("/dev/") && !hides {
                writable.push(target.to_owned());
            }
        }
        writable.sort();
        privileged.sort();
        assert_eq!(writable, expected.writable_mounts, "{table}");
        assert_eq!(privileged, expected.mounts_with_privileges, "{table}");
    });
}

#[test]
fn landlock_refuses_what_permissions_and_mounts_allow() {
    each(|sandbox| {
        // The file is the process's own, on a writable mount: nothing but the domain is in the way.
        let probe = "print writes('/proc/self/comm')";
        let told = in_force(&sandbox.created, "landlock");
        assert_eq!(told, sandbox.place.expected().has_landlock);
        let denied = sandbox.perl(probe);
        assert_eq!(denied == "EACCES", told, "{denied}");
        assert_ne!(denied, "ok");
        assert_eq!(sandbox.perl_outside(probe), "ok", "the control");
        let owner = sandbox.sh("perl -e 'print +(stat \"/proc/self/comm\")[4]'; echo; id -u");
        assert_eq!(owner.out, "1000\n1000", "the file is the agent's");
    });
}

#[test]
fn a_file_cannot_be_carried_out_of_the_writable_places_by_a_link() {
    each(|sandbox| {
        sandbox.sh("echo x > /tmp/a; echo x > /workspace/a");
        for (from, to) in [
            ("/tmp/a", "/usr/a"),
            ("/workspace/a", "/state/a"),
            ("/etc/passwd", "/tmp/passwd"),
        ] {
            let denied = sandbox.perl(&format!("print link('{from}', '{to}') ? 'ok' : err()"));
            assert!(
                denied == "EXDEV" || denied == "EROFS",
                "{from} to {to}: {denied}"
            );
        }
        assert_eq!(
            sandbox.perl("print link('/tmp/a', '/tmp/b') ? 'ok' : err()"),
            "ok",
            "the control"
        );
    });
}

#[test]
fn a_command_gets_three_descriptors_and_no_more() {
    each(|sandbox| {
        let list = "opendir(my $d, '/proc/self/fd'); my $own = fileno($d); \
                    print join ',', grep { $_ ne $own } sort { $a <=> $b } grep { /\\d/ } readdir $d";
        let count = sandbox.perl(list);
        assert_eq!(count, "0,1,2");
        let with_one = sandbox.perl(&format!("open(my $f, '<', '/dev/null'); {list}"));
        assert_eq!(with_one, "0,1,2,3", "the control");
        for descriptor in 0..3 {
            let what = sandbox.perl(&format!("print readlink('/proc/self/fd/{descriptor}')"));
            assert!(
                what.starts_with("pipe:") || what == "/dev/null",
                "{descriptor}: {what}"
            );
        }
    });
}

#[test]
fn a_working_directory_through_a_leaked_descriptor_is_refused() {
    each(|sandbox| {
        let mut run = |cwd: &str| {
            sandbox.client.tool(
                "execute_command",
                json!({ "sessionId": sandbox.session, "argv": ["/bin/pwd", "-P"], "cwd": cwd, "waitSeconds": 10 }),
            )
        };
        let mut places: Vec<String> = (0..40).map(|n| format!("/proc/self/fd/{n}")).collect();
        places.extend((3..12).map(|n| format!("/proc/1/fd/{n}")));
        places.extend((3..12).map(|n| format!("/dev/fd/{n}/..")));
        places.push("/proc/1/root".to_owned());
        places.push("/proc/1/cwd".to_owned());
        for place in places {
            let refused = run(&place).expect_err("no such directory");
            assert!(
                ["command_not_started", "invalid_argument"]
                    .contains(&refused["code"].as_str().unwrap_or_default()),
                "{place}: {refused:#}"
            );
        }
        let allowed = run("/tmp").expect("the control");
        assert_eq!(allowed["stdout"]["text"], "/tmp\n");
    });
}

/// CVE-2019-5736: a program that is started through `/proc/self/exe` shows whoever starts it to the agent.
#[test]
fn the_supervisors_program_cannot_be_overwritten_through_proc_self_exe() {
    each(|sandbox| {
        let before = supervisors(sandbox);
        assert_eq!(sandbox.perl("print writes('/proc/1/exe')"), "EACCES");
        sandbox.sh("printf '#!/proc/self/exe\\n' > /tmp/again && chmod 755 /tmp/again");
        let started = sandbox.argv(&["/tmp/again"], 5);
        assert_ne!(started.code, 0, "{started:#?}");
        // Started again and again, and opened for writing in the moment in which it is the supervisor's program.
        let race = r#"
            my ($seen, $written) = (0, 0);
            for (1 .. 100) {
                my $c = fork;
                if (!$c) { open(STDERR, '>', '/dev/null'); exec '/tmp/again'; POSIX::_exit(0); }
                for (1 .. 50) {
                    my $t = readlink("/proc/$c/exe") // next;
                    $seen++ if $t =~ m{NAME};
                    my $f;
                    if (sysopen($f, "/proc/$c/exe", O_RDONLY) && readlink("/proc/self/fd/" . fileno($f)) =~ m{NAME}) {
                        $written++ if sysopen(my $g, "/proc/self/fd/" . fileno($f), O_WRONLY);
                        $written++ if sysopen(my $g, "/proc/self/fd/" . fileno($f), O_RDWR);
                    }
                }
                waitpid($c, 0);
            }
            print $written;
        "#;
        let race = race.replace("NAME", sandbox.place.expected().supervisors_program);
        assert_eq!(sandbox.perl(&race), "0");
        let control = "writes('/tmp/f'); open(my $f, '<', '/tmp/f'); \
                       print sysopen(my $g, '/proc/self/fd/' . fileno($f), O_WRONLY) ? 'ok' : err()";
        assert_eq!(sandbox.perl(control), "ok", "the control");
        sandbox.still_works();
        assert_eq!(supervisors(sandbox), before);
    });
}

/// The programs on the host that a supervisor could be started from: the server's, and the file that all containers of a
/// server share.
fn supervisors(sandbox: &Sandbox) -> Vec<Vec<u8>> {
    let mut programs = vec![fs::read(program()).expect("the program")];
    match sandbox.place {
        Place::NativeAsRoot | Place::NativeAsOrdinary => {}
        Place::Docker | Place::DockerGvisor => {
            let shared = sandbox.machine.state().join("docker/supervisor");
            programs.push(fs::read(shared).expect("the shared program"));
        }
    }
    programs
}

#[test]
fn a_destroyed_session_leaves_the_project_as_the_agent_left_it() {
    each(|sandbox| {
        sandbox.destroy();
        assert_eq!(snapshot(&sandbox.machine.project), []);
    });
}
