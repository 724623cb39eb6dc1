//! T2.3, S5: what is the host's stays the host's: files, environment, processes, other sessions.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use serde_json::json;

use crate::{
    place::places,
    probe::{PRELUDE, Sandbox, each},
    support::{Machine, program, until, users},
};

#[test]
fn files_of_the_host_are_not_there() {
    each(|sandbox| {
        let base = sandbox.machine.base().to_owned();
        let canaries = [
            base.join("home/canary"),
            base.join("canary"),
            base.join("state/canary"),
        ];
        for canary in &canaries {
            fs::write(canary, "secret").expect("a canary");
            fs::set_permissions(canary, fs::Permissions::from_mode(0o644)).expect("its mode");
            sandbox.machine.give(canary);
            let probe = format!("print reads('{}')", canary.display());
            assert_eq!(sandbox.perl(&probe), "ENOENT", "{canary:?}");
            assert_eq!(sandbox.perl_outside(&probe), "ok", "the control {canary:?}");
        }
        for path in [
            "/etc/shadow",
            "/etc/gshadow",
            "/etc/ssh",
            "/etc/machine-id",
            "/etc/fstab",
            "/etc/ssl/private",
            "/root",
            "/var/lib",
            "/var/log",
            "/boot",
            "/opt",
            "/srv",
            "/mnt",
            "/home/agent/.ssh",
            "/run/docker.sock",
            "/var/run/docker.sock",
            "/run/dbus",
            "/run/systemd",
        ] {
            assert_eq!(
                sandbox.perl(&format!("print -e '{path}' ? 'there' : err()")),
                "ENOENT",
                "{path}"
            );
        }
        let accounts = sandbox.sh("cut -d: -f1 /etc/passwd").out;
        assert_eq!(accounts, "root\nagent\nnobody", "accounts of the host");
        fs::write(sandbox.machine.project.join("canary"), "mine").expect("a canary");
        sandbox
            .machine
            .give(&sandbox.machine.project.join("canary"));
        assert_eq!(
            sandbox
                .sh("find / -name canary -not -path '/proc/*' 2>/dev/null")
                .out,
            "/workspace/canary",
            "the control finds its own only"
        );
    });
}

#[test]
fn no_path_leads_out_of_the_root() {
    each(|sandbox| {
        let outside = sandbox.machine.base().join("home/canary");
        fs::write(&outside, "secret").expect("a canary");
        std::os::unix::fs::symlink(&outside, sandbox.machine.project.join("out")).expect("a link");
        let up = "../".repeat(40);
        for path in [
            "/workspace/out".to_owned(),
            format!("/workspace/{up}{}", &outside.display().to_string()[1..]),
            format!("/proc/self/root{}", outside.display()),
            format!("/proc/self/cwd/{up}{}", &outside.display().to_string()[1..]),
            format!(
                "/run/supervisor/../{up}{}",
                &outside.display().to_string()[1..]
            ),
        ] {
            assert_eq!(
                sandbox.perl(&format!("print reads('{path}')")),
                "ENOENT",
                "{path}"
            );
        }
        let through_pid_1 = sandbox.perl("print reads('/proc/1/root/etc/passwd')");
        assert_eq!(through_pid_1, "EACCES");
        assert_eq!(
            sandbox.perl("print reads('/proc/self/root/etc/passwd')"),
            "ok",
            "the control"
        );
    });
}

#[test]
fn the_environment_of_server_and_client_does_not_come_in() {
    for place in places() {
        let mut machine = place.machine();
        machine.set("ANTHROPIC_API_KEY", "canary-of-the-environment");
        machine.set("AWS_SECRET_ACCESS_KEY", "canary-of-the-environment");
        machine.set("SOMETHING_ELSE", "canary-of-the-environment");
        let mut sandbox = Sandbox::on(
            place,
            machine,
            json!({ "env": { "MINE": "allowed-inside" } }),
        );
        let all = sandbox
            .sh("env; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
            .out;
        assert!(!all.contains("canary"), "{all}");
        assert!(all.contains("MINE=allowed-inside"), "the control: {all}");
        let hidden = sandbox.perl("print reads('/proc/1/environ')");
        if !place.expected().open_files_of_others.contains(&"environ") {
            assert_eq!(hidden, "EACCES");
            continue;
        }
        // What the image and the engine say, which the supervisor takes no notice of, and nothing of the host's.
        let names = sandbox
            .sh("tr '\\0' '\\n' < /proc/1/environ | cut -d= -f1 | sort")
            .out;
        assert_eq!(names, "HOME\nHOSTNAME\nLD_PRELOAD\nPATH");
    }
}

/// Of a server that a client started, and of one in the foreground. That it has the key all the same, the prompts of the
/// end-to-end tests show: they are answered by a provider that takes no other.
#[test]
fn the_servers_own_environment_holds_no_credential() {
    const CANARY: &str = "canary-of-the-server";
    let environment = |pid: i32| {
        fs::read_to_string(format!("/proc/{pid}/environ")).expect("the server's environment")
    };
    let check = |machine: &Machine| {
        let pid = machine.server_pid().expect("a server");
        let seen = environment(pid);
        assert!(
            seen.contains("SOMETHING_ELSE=canary-control"),
            "the control: {seen}"
        );
        assert!(!seen.contains(CANARY), "{seen}");
        let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("its arguments");
        assert!(!arguments.contains(CANARY), "{arguments}");
        let input = fs::read_link(format!("/proc/{pid}/fd/0")).expect("its standard input");
        assert_eq!(input, Path::new("/dev/null"));
    };
    for user in users() {
        let mut machine = Machine::new(user);
        machine.set("SOMETHING_ELSE", "canary-control");
        for name in [
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "AWS_BEARER_TOKEN_BEDROCK",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        ] {
            machine.set(name, CANARY);
        }
        let client = machine.client();
        check(&machine);
        drop(client);
        assert!(machine.cli(&["server", "stop", "--force"]).status.success());
        machine.wait_for_server_end();
        let mut server = machine
            .command(program())
            .arg("serve")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("a server in the foreground");
        until("the server listens", || machine.server_pid().is_some());
        check(&machine);
        server.kill().expect("killed");
        server.wait().expect("ended");
    }
}

#[test]
fn processes_of_the_host_are_neither_seen_nor_reached() {
    each(|sandbox| {
        let mut victim = Command::new("/bin/sleep")
            .arg("98765.25")
            .spawn()
            .expect("a process of the host");
        let look = sandbox.sh("sleep 12345.5 & cat /proc/[0-9]*/cmdline | tr '\\0' ' '; kill %1");
        assert!(!look.out.contains("98765.25"), "{look:#?}");
        assert!(look.out.contains("12345.5"), "the control: {look:#?}");
        let pid = victim.id();
        let reached = sandbox.perl(&format!("print kill('KILL', {pid}) ? 'ok' : err()"));
        assert_eq!(reached, "ESRCH");
        assert!(victim.try_wait().expect("its state").is_none());
        victim.kill().expect("killed");
        victim.wait().expect("ended");
    });
}

#[test]
fn another_sessions_files_and_processes_are_out_of_reach() {
    for place in places() {
        let machine = place.machine();
        machine.write("a/canary-a", "a");
        machine.write("b/canary-b", "b");
        let (a, b) = (machine.project.join("a"), machine.project.join("b"));
        let mut client = machine.client();
        let (first, second) = (client.create(&a), client.create(&b));
        client.output(
            &first,
            "touch /tmp/canary-t /state/canary-s /dev/shm/canary-m",
        );
        let started =
            json!({ "sessionId": first, "command": "exec sleep 13579.5", "waitSeconds": 0 });
        client
            .tool("execute_command", started)
            .expect("an execution");
        let look = "find / -name 'canary-*' -not -path '/proc/*' 2>/dev/null | sort; cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c '[1]3579.5'";
        let seen = client.run(&second, look);
        assert_eq!(seen["stdout"]["text"], "/workspace/canary-b\n0\n");
        let own = client.run(&first, look);
        assert_eq!(
            own["stdout"]["text"],
            "/dev/shm/canary-m\n/state/canary-s\n/tmp/canary-t\n/workspace/canary-a\n1\n",
            "the control"
        );
        let key = "perl -e 'print shmget(4242, 4096, 01600) // \"none\"'";
        client.output(&first, &format!("{key} >/dev/null"));
        let foreign = client.output(&second, "perl -e 'print shmget(4242, 4096, 0) // \"none\"'");
        assert_eq!(foreign, "none", "shared memory of another session");
        let own = client.output(&first, "perl -e 'print shmget(4242, 4096, 0) // \"none\"'");
        assert_ne!(own, "none", "the control");
    }
}

/// What two sessions could meet in without any file: names that the kernel keeps, each for a namespace.
#[test]
fn another_sessions_sockets_queues_and_keys_are_out_of_reach() {
    for place in places() {
        let machine = place.machine();
        machine.write("a/file", "a");
        machine.write("b/file", "b");
        let (a, b) = (machine.project.join("a"), machine.project.join("b"));
        let mut first = Sandbox::on(place, machine, json!({ "projectPath": a }));
        let hold = "socket(my $s, PF_UNIX, SOCK_STREAM, 0); bind($s, pack('S a*', AF_UNIX, \"\\0met\")) or die; listen($s, 5); \
            socket(my $t, PF_INET, SOCK_STREAM, 0); setsockopt($t, SOL_SOCKET, SO_REUSEADDR, 1); \
            bind($t, pack_sockaddr_in(4242, INADDR_LOOPBACK)) or die; listen($t, 5); \
            open(my $f, '>', '/workspace/held'); close $f; sleep 600";
        let script = format!("{PRELUDE}{hold}");
        let holding = json!({ "sessionId": first.session, "argv": ["/usr/bin/perl", "-e", script], "waitSeconds": 0 });
        first
            .client
            .tool("execute_command", holding)
            .expect("an execution");
        crate::support::until("they are held", || a.join("held").exists());
        let look = [
            (
                "an abstract socket",
                "socket(my $s, PF_UNIX, SOCK_STREAM, 0); print connect($s, pack('S a*', AF_UNIX, \"\\0met\")) ? 'ok' : err()",
            ),
            (
                "a port",
                "socket(my $s, PF_INET, SOCK_STREAM, 0); print connect($s, pack_sockaddr_in(4242, INADDR_LOOPBACK)) ? 'ok' : err()",
            ),
        ];
        let queues = [
            ("a message queue", "msgget(4243, 0)", "msgget(4243, 01600)"),
            ("semaphores", "semget(4244, 1, 0)", "semget(4244, 1, 01600)"),
        ];
        for (what, _, make) in queues {
            let made = first.perl(&format!("print defined({make}) ? 'ok' : err()"));
            assert_eq!(made, "ok", "the control of {what} at {place:?}");
        }
        let own = first.session.clone();
        let second = first.client.create(&b);
        for (session, wanted) in [(&second, "ECONNREFUSED"), (&own, "ok")] {
            first.session.clone_from(session);
            for (what, probe) in look {
                assert_eq!(first.perl(probe), wanted, "{what} at {place:?}");
            }
        }
        for (session, wanted) in [(&second, "ENOENT"), (&own, "ok")] {
            first.session.clone_from(session);
            for (what, find, _) in queues {
                let found = first.perl(&format!("print defined({find}) ? 'ok' : err()"));
                assert_eq!(found, wanted, "{what} at {place:?}");
            }
            // Keyrings are the user's, who may be the same in all sessions: nobody has any.
            for call in ["250, 0, -4, 1", "250, 0, -5, 1"] {
                assert_eq!(
                    first.perl(&format!("print call({call})")),
                    "EPERM",
                    "{place:?}"
                );
            }
        }
    }
}

#[test]
fn the_servers_own_files_are_not_there() {
    each(|sandbox| {
        let state = sandbox.machine.state();
        assert!(state.join("audit.jsonl").exists(), "the control");
        for path in [
            state.as_path(),
            &sandbox.machine.base().join("run"),
            program(),
            Path::new("/proc/1/cwd/state.db"),
        ] {
            let found = sandbox.perl(&format!("print -e '{}' ? 'there' : err()", path.display()));
            assert!(
                ["ENOENT", "EACCES"].contains(&found.as_str()),
                "{path:?}: {found}"
            );
        }
    });
}
