//! The walls of a sandbox, from inside and outside, as root and as an ordinary user. Every refusal has its control: the
//! same thing works where it may.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking and say what they skip"
)]

mod support;
#[path = "../../../tests/support/system_calls.rs"]
mod system_calls;

use std::{fs, os::unix::fs::MetadataExt};

use model::{BindMount, Enforcement, LimitName, RootFileSystem};
use sandbox::Backend;
use support::{
    Ground, as_ordinary_user, as_root, host_directory, only_work_is_left, protect_project,
    protected_paths_hold,
};

/// Each scenario runs on both rungs.
macro_rules! on_both_rungs {
    ($($scenario:ident),* $(,)?) => {
        mod root {
            use super::*;
            $(#[tokio::test] async fn $scenario() {
                if as_root(concat!("root::", stringify!($scenario))) { super::$scenario().await }
            })*
        }
        mod user {
            use super::*;
            $(#[tokio::test] async fn $scenario() {
                if as_ordinary_user(concat!("user::", stringify!($scenario))) { super::$scenario().await }
            })*
        }
    };
}

on_both_rungs!(
    only_the_writable_places_are_writable,
    no_capability_no_privilege_and_two_filters_in_every_process,
    the_network_is_loopback_alone,
    nothing_of_the_hosts_secrets_is_visible,
    system_calls_are_answered_as_the_profile_says,
    the_supervisor_cannot_be_hurt_from_inside,
    protected_paths_cannot_be_written_and_leave_nothing_behind,
    limits_are_read_back_and_hold,
    what_an_execution_left_takes_no_room_from_the_next,
    what_is_in_force_is_seen_from_outside,
    everyday_programs_run,
    a_changed_project_is_refused,
    operators_directories_are_read_only_at_the_same_path,
    mounts_of_the_caller_are_what_was_asked,
    an_unpacked_root_file_system_is_read_only_and_cannot_redirect_us,
);

async fn only_the_writable_places_are_writable() {
    let ground = Ground::new();
    let mut running = ground.start().await;
    for place in [
        "/workspace",
        "/state",
        "/tmp",
        "/home/agent",
        "/run",
        "/dev/shm",
    ] {
        running
            .output(&format!("echo x > {place}/file && cat {place}/file"))
            .await;
    }
    for place in [
        "/",
        "/usr",
        "/etc",
        "/dev",
        "/proc/sys/kernel/hostname",
        "/run/supervisor",
        "/bin",
        "/lib",
    ] {
        let target = if place.starts_with("/proc") {
            place.to_owned()
        } else {
            format!("{place}/file")
        };
        running.refused(&format!("echo x > {target}")).await;
    }
    let mounts = running.output("cat /proc/self/mountinfo").await;
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (target, options) = (fields[4], fields[5]);
        assert!(options.contains("nosuid"), "{line}");
        assert!(
            !line.contains(" shared:") && !line.contains(" master:"),
            "{line}"
        );
        let device =
            target == "/dev" || target.starts_with("/dev/") || target.starts_with("/proc/");
        assert!(options.contains("nodev") || device, "{line}");
    }
    assert!(running.refused("ls /sys").await.contains("No such file"));
    let outside = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !outside.contains(&running.session.to_string()),
        "a mount leaked to the host"
    );
    running.destroy().await;
}

async fn no_capability_no_privilege_and_two_filters_in_every_process() {
    let ground = Ground::new();
    let mut running = ground.start().await;
    let status = running.output("cat /proc/self/status").await;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            status.contains(&format!("{set}:\t0000000000000000")),
            "{status}"
        );
    }
    assert!(
        status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"),
        "{status}"
    );
    assert_eq!(
        running.output("id -u; id -g; id -un").await,
        "1000\n1000\nagent\n"
    );
    // Neither descriptors nor the environment of the server arrive; the shell's own three and ls's one.
    assert_eq!(running.output("ls /proc/self/fd | wc -l").await, "4\n");
    assert!(
        running
            .output("tr '\\0' ' ' < /proc/1/cmdline")
            .await
            .starts_with("supervisor --socket ")
    );
    let signals = running.output("grep SigIgn /proc/self/status").await;
    assert!(signals.ends_with("0000000000000000\n"), "{signals}");
    running.destroy().await;
}

async fn the_network_is_loopback_alone() {
    let ground = Ground::new();
    let mut running = ground.start().await;
    assert_eq!(running.output("ls /proc/self/net/dev_snmp6 2>/dev/null || tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await, "lo\n");
    let program = "import socket,sys
s=socket.socket(); s.bind(('127.0.0.1',0)); s.listen(); c=socket.create_connection(s.getsockname()); print('loopback')
try: socket.create_connection(('192.0.2.1',80),2)
except OSError as e: print(e.errno)";
    let python = format!("python3 -c \"{program}\"");
    if running.shell("test -x /usr/bin/python3").await.0 == 0 {
        // ENETUNREACH
        assert_eq!(
            running
                .output(&python.replace("python3", "/usr/bin/python3"))
                .await,
            "loopback\n101\n"
        );
    }
    running.destroy().await;
}

async fn nothing_of_the_hosts_secrets_is_visible() {
    let ground = Ground::new();
    let secret = ground.directory.path().join("secret");
    fs::write(&secret, "host secret").unwrap();
    let mut running = ground.start().await;
    for path in [
        "/etc/shadow",
        "/etc/ssh",
        "/etc/ssl/private",
        "/root",
        "/var/lib",
        "/etc/sudoers",
        "/boot",
        "/etc/gitconfig",
    ] {
        running.refused(&format!("ls {path}")).await;
    }
    running.refused(&format!("cat {}", secret.display())).await;
    assert_eq!(
        running.output("ls /home; ls /run; ls -A /tmp").await,
        "agent\nsupervisor\n"
    );
    assert!(!running.output("cat /etc/passwd").await.contains("/root:"));
    // Only processes of the sandbox: pid 1, a stub, the shell, ls.
    let count: u32 = running
        .output("ls -d /proc/[0-9]* | wc -l")
        .await
        .trim()
        .parse()
        .unwrap();
    let names = running.output("cat /proc/[0-9]*/stat").await;
    assert!(count <= 6, "{count}: {names}");
    for masked in [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/interrupts",
    ] {
        let read = running
            .output(&format!("test ! -e {masked} || head -c 100 {masked}"))
            .await;
        assert_eq!(read, "", "{masked} tells something");
    }
    assert_ne!(running.output("head -c 100 /proc/stat").await, "");
    running.destroy().await;
}

/// What Perl, part of every Debian, can call by number on x86-64.
#[cfg(target_arch = "x86_64")]
async fn system_calls_are_answered_as_the_profile_says() {
    let ground = Ground::new();
    let mut running = ground.start().await;
    fs::write(
        ground.project().join("calls.pl"),
        system_calls::program(&[]),
    )
    .unwrap();
    let answers = running.output("perl /workspace/calls.pl").await;
    system_calls::judge(&[], &answers);
    running.destroy().await;
}

async fn the_supervisor_cannot_be_hurt_from_inside() {
    let ground = Ground::new();
    let mut running = ground.start().await;
    running
        .shell("for s in 1 2 3 9 15 19 20; do kill -$s 1; done")
        .await;
    running.refused("head -c 1 /proc/1/mem").await;
    running.refused("echo 999 > /proc/1/oom_score_adj").await;
    running.refused("ls /proc/1/fd").await;
    assert_eq!(running.output("echo alive").await, "alive\n");
    running.destroy().await;
}

async fn protected_paths_cannot_be_written_and_leave_nothing_behind() {
    let ground = Ground::new();
    let project = ground.project();
    let mut spec = ground.spec();
    spec.protected = protect_project(&project);
    let mut running = ground.start_spec(spec).await;
    protected_paths_hold(&mut running.inside, &project).await;
    running.destroy().await;
    only_work_is_left(&project);
}

async fn limits_are_read_back_and_hold() {
    let ground = Ground::new();
    let mut spec = ground.spec();
    spec.limits.pids.value = 24;
    spec.limits.memory_bytes.value = 96 << 20;
    let mut running = ground.start_spec(spec.clone()).await;
    let found = ground.native.inspect(running.session).await.unwrap();
    for limit in &found.limits {
        if limit.enforcement == Enforcement::Hard {
            assert_eq!(
                limit.in_force,
                Some(spec.limits.get(limit.limit).value),
                "{limit:?}"
            );
        }
    }
    // A bounded bomb: at most 60 attempts, ended by itself.
    let bomb = "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; echo started";
    let text = running.shell(bomb).await.1;
    assert!(
        text.to_lowercase().contains("fork") || text.contains("unavailable"),
        "{text}"
    );
    assert_eq!(running.output("echo alive").await, "alive\n");
    assert!(
        running
            .refused("head -c 80m /dev/zero > file")
            .await
            .to_lowercase()
            .contains("file")
    );
    running
        .output("rm -f file; head -c 10m /dev/zero > file")
        .await;
    assert!(
        running
            .refused("head -c 40m /dev/zero > /tmp/file")
            .await
            .contains("No space")
    );
    running
        .output("head -c 20m /dev/zero > /tmp/file2 || true; rm -f /tmp/*")
        .await;
    assert_eq!(running.output("ulimit -n; ulimit -c").await, "512\n0\n");
    let memory = found
        .limits
        .iter()
        .find(|limit| limit.limit == LimitName::MemoryBytes);
    if memory.is_some_and(|limit| limit.enforcement == Enforcement::Hard) {
        let (code, _) = running
            .shell("perl -e '$x = \"a\" x (300<<20); print length $x'")
            .await;
        assert_ne!(code, 0, "300 MB within 96 MB");
        assert_eq!(
            running
                .output("perl -e '$x = \"a\" x (20<<20); print length $x'")
                .await,
            (20 << 20).to_string()
        );
        let usage = ground.native.stats(running.session).await.unwrap();
        assert!(
            usage.oom_kills >= Some(1) && usage.pids >= Some(1) && usage.memory_bytes > Some(0),
            "{usage:?}"
        );
    }
    running.destroy().await;
}

async fn what_an_execution_left_takes_no_room_from_the_next() {
    let ground = Ground::new();
    let mut spec = ground.spec();
    spec.limits.pids.value = 24;
    let mut running = ground.start_spec(spec).await;
    for _ in 0..40 {
        // As many as the limit lets be; they are swept when their shell has ended.
        let full = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done";
        let text = running.shell(full).await.1;
        assert!(text.to_lowercase().contains("fork"), "{text}");
        assert_eq!(running.output("echo alive").await, "alive\n");
    }
    running.destroy().await;
}

async fn what_is_in_force_is_seen_from_outside() {
    let ground = Ground::new();
    let running = ground.start().await;
    let found = ground.native.inspect(running.session).await.unwrap();
    assert!(found.running && found.layers.len() == 12, "{found:?}");
    for layer in &found.layers {
        assert!(layer.in_force, "{layer:?}");
    }
    let attestation = &running.inside.attestation;
    assert_eq!(
        (attestation.uid, attestation.pid, attestation.capabilities),
        (1000, 1, [0; 5])
    );
    assert!(
        attestation.no_new_privs && attestation.root_read_only && attestation.seccomp_mode == 2
    );
    assert_eq!(attestation.interfaces, ["lo"]);
    running.destroy().await;
}

async fn everyday_programs_run() {
    let ground = Ground::new();
    let mut running = ground.start().await;
    running.output("mkdir d && cd d && touch a && ls -la && cp -a a b && tar cf ../t.tar . && tar xf ../t.tar && sort /etc/services | head -1").await;
    let programs = [
        ("/usr/bin/perl", "perl -e 'print 6*7'", "42"),
        (
            "/usr/bin/python3",
            "/usr/bin/python3 -c 'import threading,subprocess,multiprocessing; t=threading.Thread(target=print,args=(6*7,)); t.start(); t.join(); subprocess.run([\"true\"],check=True)'",
            "42",
        ),
        (
            "/usr/bin/node",
            "node -e 'const{Worker}=require(\"worker_threads\");new Worker(\"require(\\\"fs\\\")\",{eval:true}).on(\"exit\",()=>{require(\"child_process\").execSync(\"true\");require(\"os\").networkInterfaces();console.log(6*7)})'",
            "42",
        ),
        (
            "/usr/bin/git",
            "/usr/bin/git init -q g && cd g && /usr/bin/git -c user.name=a -c user.email=a@b commit -q --allow-empty -m 42 && /usr/bin/git log --format=%s",
            "42",
        ),
        (
            "/usr/bin/gcc",
            "printf '#include <stdio.h>\\nint main(void){puts(\"42\");}' > m.c && gcc -o m m.c && ./m",
            "42",
        ),
    ];
    for (program, command, wanted) in programs {
        if running.shell(&format!("test -x {program}")).await.0 == 0 {
            assert!(running.output(command).await.contains(wanted), "{program}");
        } else {
            support::skip("toolchains", &format!("{program} is not on this machine"));
        }
    }
    running.destroy().await;
}

async fn a_changed_project_is_refused() {
    let ground = Ground::new();
    let spec = ground.spec();
    fs::rename(ground.project(), ground.directory.path().join("moved")).unwrap();
    fs::create_dir(ground.project()).unwrap();
    let refused = ground.native.create(&spec).await.err().unwrap();
    assert!(
        matches!(refused, sandbox::BackendError::PathChanged { .. }),
        "{refused:?}"
    );
    fs::remove_dir(ground.project()).unwrap();
    std::os::unix::fs::symlink(ground.directory.path().join("moved"), ground.project()).unwrap();
    let refused = ground.native.create(&spec).await.err().unwrap();
    assert!(
        matches!(refused, sandbox::BackendError::PathChanged { .. }),
        "{refused:?}"
    );
    assert_eq!(ground.census(spec.session), Vec::<String>::new());
    let mut moved = spec;
    moved.workspace = host_directory(&ground.directory.path().join("moved"));
    ground.start_spec(moved).await.destroy().await;
}

async fn operators_directories_are_read_only_at_the_same_path() {
    let tools = tempfile::Builder::new()
        .prefix("tools-")
        .tempdir_in("/var/tmp")
        .unwrap();
    fs::set_permissions(
        tools.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    fs::write(tools.path().join("tool"), "content").unwrap();
    let ground = Ground::with(|config| config.extra_read_only = vec![tools.path().to_owned()]);
    let mut running = ground.start().await;
    let path = tools.path().display();
    assert_eq!(running.output(&format!("cat {path}/tool")).await, "content");
    assert!(
        running
            .refused(&format!("echo x > {path}/tool"))
            .await
            .contains("Read-only")
    );
    assert_eq!(running.output("ls /var/tmp | wc -l").await, "1\n");
    running.destroy().await;
    assert!(fs::metadata(tools.path()).unwrap().nlink() >= 1);
}

async fn mounts_of_the_caller_are_what_was_asked() {
    let ground = Ground::new();
    let (data, share) = (
        ground.directory.path().join("data"),
        ground.directory.path().join("share"),
    );
    for directory in [&data, &share] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("file"), "content").unwrap();
    }
    let mut spec = ground.spec();
    spec.mounts = vec![
        BindMount {
            source: host_directory(&data),
            target: "/mnt/data".into(),
            read_only: true,
        },
        BindMount {
            source: host_directory(&share),
            target: "/mnt/share".into(),
            read_only: false,
        },
    ];
    let mut running = ground.start_spec(spec.clone()).await;
    assert_eq!(
        running.output("cat /mnt/data/file /mnt/share/file").await,
        "contentcontent"
    );
    assert!(
        running
            .refused("echo x > /mnt/data/new")
            .await
            .contains("Read-only")
    );
    running.output("echo x > /mnt/share/new").await;
    running.destroy().await;
    assert_eq!(
        fs::metadata(share.join("new")).unwrap().uid(),
        fs::metadata(&share).unwrap().uid()
    );
    for target in ["relative", "/", "/mnt/../etc"] {
        spec.session = model::SessionId::random().unwrap();
        spec.mounts[0].target = target.into();
        assert!(ground.native.create(&spec).await.is_err(), "{target}");
        assert_eq!(ground.census(spec.session), Vec::<String>::new());
    }
}

#[cfg(target_arch = "x86_64")]
async fn an_unpacked_root_file_system_is_read_only_and_cannot_redirect_us() {
    let ground = Ground::new();
    let root = ground.directory.path().join("root");
    let files = [
        ("/bin/sh", "bin/sh"),
        (
            "/lib/x86_64-linux-gnu/libc.so.6",
            "lib/x86_64-linux-gnu/libc.so.6",
        ),
        ("/lib64/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
    ];
    for (from, to) in files {
        fs::create_dir_all(root.join(to).parent().unwrap()).unwrap();
        fs::copy(from, root.join(to)).unwrap();
    }
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(root.join("etc/passwd"), "evil:x:0:0::/:/bin/sh\n").unwrap();
    fs::write(root.join("etc/image-release"), "1").unwrap();
    let victim = ground.directory.path().join("victim");
    fs::create_dir(&victim).unwrap();
    for name in ["dev", "proc", "tmp", "run", "workspace", "state", "home"] {
        std::os::unix::fs::symlink(&victim, root.join(name)).unwrap();
    }
    let mut spec = ground.spec();
    spec.root = RootFileSystem::Directory(host_directory(&root));
    let mut running = ground.start_spec(spec).await;
    running
        .output(
            "test -f /etc/image-release && test -c /dev/null && test -d /proc/1 && echo x > /tmp/x",
        )
        .await;
    let accounts = running
        .output("while read -r line; do echo $line; done < /etc/passwd")
        .await;
    assert!(
        accounts.contains("agent") && !accounts.contains("evil"),
        "{accounts}"
    );
    running.refused("echo x > /bin/new").await;
    running.refused("test -d /usr").await;
    running.destroy().await;
    assert_eq!(fs::read_dir(victim).unwrap().count(), 0);
}
