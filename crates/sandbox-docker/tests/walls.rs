//! What a container of ours is, seen from inside, from the host and from the engine; each refusal beside something of the
//! same kind that goes through.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking and say what they skip"
)]

#[path = "../../../tests/support/agent_mount.rs"]
mod agent_mount;
mod support;
#[path = "../../../tests/support/system_calls.rs"]
mod system_calls;

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    time::{Duration, Instant},
};

use model::{BindMount, Enforcement, LimitName, RootFileSystem, UsageView};
use sandbox::{Backend, BackendError, HostView, verify};
use support::{
    Ground, engine, host_directory, make_image, only_work_is_left, protect_project,
    protected_paths_hold,
};

#[tokio::test]
async fn layers_are_read_back_from_inside_from_the_host_and_from_the_engine() {
    let Some(ground) = Ground::new("layers_are_read_back").await else {
        return;
    };
    let mut running = ground.start().await;
    let status = running.output("cat /proc/self/status").await;
    for wanted in [
        "CapBnd:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "Uid:\t1000\t1000",
        "Gid:\t1000\t1000",
        "Groups:\t1000 \n",
    ] {
        assert!(status.contains(wanted), "{wanted}: {status}");
    }
    let outside = ground.docker.inspect(running.spec.session).await.unwrap();
    for layer in &outside.layers {
        let wanted = layer.layer != model::Layer::UserNamespace;
        assert_eq!(layer.in_force, wanted, "{layer:?}");
    }
    let said = |words: &str| {
        outside
            .layers
            .iter()
            .any(|layer| layer.evidence.contains(words))
    };
    for words in [
        "NetworkMode \"none\"",
        "CapDrop [\"ALL\"]",
        "ReadonlyRootfs Some(true)",
        "User \"1000:1000\"",
    ] {
        assert!(said(words), "{words}: {outside:?}");
    }
    let view = HostView::read().unwrap();
    verify(&running.spec, &running.inside.attestation, &outside, &view).unwrap();
    // The positive control of the verdict: the same container, compared with itself as the host.
    let mut itself = view;
    itself.namespaces = running.inside.attestation.namespaces;
    let mut spec = running.spec.clone();
    spec.layers = vec![(model::Layer::PidNamespace, model::Requirement::Required)];
    assert!(verify(&spec, &running.inside.attestation, &outside, &itself).is_err());
    running.destroy().await;
}

#[tokio::test]
async fn only_the_writable_places_are_writable() {
    let Some(ground) = Ground::new("only_the_writable_places").await else {
        return;
    };
    let mut running = ground.start().await;
    for place in [
        "/tmp",
        "/run",
        "/home/agent",
        "/dev/shm",
        "/state",
        "/workspace",
    ] {
        running
            .output(&format!("echo fine > {place}/file && cat {place}/file"))
            .await;
    }
    for place in [
        "/",
        "/etc",
        "/usr",
        "/bin",
        "/dev",
        "/proc",
        "/proc/sys/kernel",
        "/sys",
        "/sys/fs/cgroup",
        "/run/supervisor",
    ] {
        running.refused(&format!("echo evil > {place}/file")).await;
    }
    for file in [
        "/etc/hosts",
        "/etc/resolv.conf",
        "/run/supervisor/supervisor",
        "/proc/sysrq-trigger",
    ] {
        running
            .refused(&format!("echo evil >> {file} && test -s {file}"))
            .await;
    }
    // Programs may be built and run where there is room.
    running.output("cp /bin/true /tmp/mine && /tmp/mine").await;
    running.destroy().await;
}

#[tokio::test]
async fn claude_codes_program_is_read_only_and_shared() {
    let Some(ground) = Ground::new("claude_codes_program").await else {
        return;
    };
    let directory = agent_mount::program(ground.directory.path());
    let spec = agent_mount::with_program(ground.spec(), &directory);
    let mut running = ground.start_spec(spec).await;
    agent_mount::the_program_is_shared_and_cannot_be_changed(&mut running.inside, &directory).await;
    let outside = ground.docker.inspect(running.spec.session).await.unwrap();
    let view = HostView::read().unwrap();
    verify(&running.spec, &running.inside.attestation, &outside, &view).unwrap();
    running.destroy().await;
    assert!(directory.join("claude").exists());
    // The control of the verdict: a container without the mount is not taken for one with it.
    let mut bare = ground.start().await;
    bare.refused("ls /opt/claude-code").await;
    let outside = ground.docker.inspect(bare.spec.session).await.unwrap();
    let wanted = agent_mount::with_program(bare.spec.clone(), &directory);
    let weakness = verify(&wanted, &bare.inside.attestation, &outside, &view).unwrap_err();
    assert!(
        weakness.to_string().contains("/opt/claude-code"),
        "{weakness}"
    );
    bare.destroy().await;
}

#[tokio::test]
async fn the_network_is_loopback_alone() {
    let Some(ground) = Ground::new("the_network").await else {
        return;
    };
    let mut running = ground.start().await;
    let devices = running.output("sed -n '3,$s/:.*//p' /proc/net/dev").await;
    assert_eq!(devices.trim(), "lo");
    let dial = |address: &str| {
        format!(
            "LC_ALL=C perl -e 'socket(my $s, 2, 1, 0) or die; my @a = split /\\./, \"{address}\"; \
                 connect($s, pack(\"S n C4 x8\", 2, 9, @a)) or print 0+$!'"
        )
    };
    // ENETUNREACH; the control is a refusal by loopback (ECONNREFUSED), which can be reached.
    assert_eq!(running.output(&dial("192.0.2.1")).await, "101");
    assert_eq!(running.output(&dial("127.0.0.1")).await, "111");
    running.destroy().await;
}

#[tokio::test]
async fn system_calls_are_answered_as_the_profile_says() {
    let Some(ground) = Ground::new("system_calls").await else {
        return;
    };
    // The engine's library knows the architecture alone, and ends whoever calls in the numbers of another width.
    let without = ["x32 getpid"];
    let mut running = ground.start().await;
    fs::write(
        ground.project().join("calls.pl"),
        system_calls::program(&without),
    )
    .unwrap();
    let answers = running.output("LC_ALL=C perl /workspace/calls.pl").await;
    system_calls::judge(&without, &answers);
    let x32 = 0x4000_0000_i64 + libc::SYS_getpid;
    let ending = |number: i64| {
        format!(
            "LC_ALL=C perl -e '$c = fork; if (!$c) {{ syscall({number}); exit 7 }} waitpid $c, 0; print $?'"
        )
    };
    assert_eq!(running.output(&ending(x32)).await, libc::SIGSYS.to_string());
    let plain = running.output(&ending(libc::SYS_getpid)).await;
    assert_eq!(plain, (7 << 8).to_string(), "the control");
    running.destroy().await;
}

#[tokio::test]
async fn limits_are_read_back_and_hold() {
    let Some(ground) = Ground::new("limits").await else {
        return;
    };
    let mut spec = ground.spec();
    spec.limits.pids.value = 24;
    spec.limits.memory_bytes.value = 96 << 20;
    spec.limits.cpu_millis.value = 500;
    let mut running = ground.start_spec(spec.clone()).await;
    let found = ground.docker.inspect(spec.session).await.unwrap();
    for limit in &found.limits {
        let asked = spec.limits.get(limit.limit).value;
        assert_eq!(limit.in_force, Some(asked), "{limit:?}");
        let soft = limit.limit == LimitName::StateBytes;
        assert_eq!(limit.enforcement == Enforcement::Soft, soft, "{limit:?}");
    }
    // Bounded bombs, ended by themselves.
    let bomb = "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; echo started";
    let text = running.inside.shell(bomb).await.1;
    assert!(text.to_lowercase().contains("fork"), "{text}");
    // The kernel gives the places back a moment after their processes have ended.
    let idle = |usage: UsageView| usage.pids.is_some_and(|pids| pids < 4);
    while !idle(ground.docker.stats(spec.session).await.unwrap()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.refused("head -c 80m /dev/zero > file").await;
    running.refused("head -c 60m /dev/zero > /tmp/file").await;
    running
        .output("rm /tmp/file && head -c 20m /dev/zero > /tmp/small && rm /tmp/small")
        .await;
    running
        .refused("LC_ALL=C perl -e '$x = \"x\" x (200 << 20); print length $x'")
        .await;
    running
        .output("LC_ALL=C perl -e '$x = \"x\" x (20 << 20); print length $x'")
        .await;
    let usage = ground.docker.stats(spec.session).await.unwrap();
    assert!(usage.oom_kills.is_some_and(|kills| kills > 0), "{usage:?}");
    running.destroy().await;
}

#[tokio::test]
async fn half_a_cpu_is_half_a_cpu() {
    let Some(ground) = Ground::new("half_a_cpu").await else {
        return;
    };
    let mut spec = ground.spec();
    spec.limits.cpu_millis.value = 500;
    let mut running = ground.start_spec(spec.clone()).await;
    let before = ground
        .docker
        .stats(spec.session)
        .await
        .unwrap()
        .cpu_us
        .unwrap();
    let begin = Instant::now();
    running
        .inside
        .shell("timeout 3 sh -c 'while :; do :; done' & timeout 3 sh -c 'while :; do :; done'")
        .await;
    let passed = begin.elapsed();
    let used = Duration::from_micros(
        ground
            .docker
            .stats(spec.session)
            .await
            .unwrap()
            .cpu_us
            .unwrap()
            - before,
    );
    let share = used.as_secs_f64() / passed.as_secs_f64();
    // The lower bound is generous: others use the machine as well.
    assert!((0.3..0.56).contains(&share), "{share}");
    running.destroy().await;
}

#[tokio::test]
async fn files_come_back_owned_by_their_owner() {
    let Some(ground) = Ground::new("files_come_back").await else {
        return;
    };
    for owner in [0, 1000, 1234] {
        let project = ground.directory.path().join(format!("of-{owner}"));
        fs::create_dir(&project).unwrap();
        fs::write(project.join("theirs"), "before").unwrap();
        fs::write(project.join("of-root"), "root's").unwrap();
        for path in [&project, &project.join("theirs")] {
            chown(path, Some(owner), Some(owner)).unwrap();
        }
        let mut spec = ground.spec();
        spec.workspace = host_directory(&project);
        let mut running = ground.start_spec(spec).await;
        let seen = running.output("stat -c %u:%g . theirs; echo more >> theirs; mkdir sub; echo new > sub/file; chmod 700 sub").await;
        assert_eq!(seen, "1000:1000\n1000:1000\n", "{owner}");
        if owner != 0 {
            running.refused("echo evil >> of-root").await;
        }
        running
            .refused("cp /bin/true sub/true && chmod u+s sub/true")
            .await;
        running.destroy().await;
        for name in ["theirs", "sub", "sub/file"] {
            let found = fs::metadata(project.join(name)).unwrap();
            assert_eq!(
                (found.uid(), found.gid()),
                (owner, owner),
                "{name} of {owner}"
            );
        }
        assert_eq!(
            fs::read_to_string(project.join("theirs")).unwrap(),
            "beforemore\n"
        );
    }
}

#[tokio::test]
async fn protected_paths_cannot_be_written_and_leave_nothing_behind() {
    let Some(ground) = Ground::new("protected_paths").await else {
        return;
    };
    let project = ground.project();
    let mut spec = ground.spec();
    spec.protected = protect_project(&project);
    let mut running = ground.start_spec(spec).await;
    protected_paths_hold(&mut running.inside, &project).await;
    let outside = ground.docker.inspect(running.spec.session).await.unwrap();
    let view = HostView::read().unwrap();
    verify(&running.spec, &running.inside.attestation, &outside, &view).unwrap();
    running.destroy().await;
    only_work_is_left(&project);
}

#[tokio::test]
async fn mounts_of_the_caller_are_what_was_asked() {
    let Some(ground) = Ground::new("mounts_of_the_caller").await else {
        return;
    };
    let mut spec = ground.spec();
    for (name, read_only) in [("given", false), ("shown", true)] {
        let path = ground.directory.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("file"), name).unwrap();
        chown(&path, Some(4321), Some(4321)).unwrap();
        spec.mounts.push(BindMount {
            source: host_directory(&path),
            target: format!("/mnt/{name}").into(),
            read_only,
        });
    }
    let mut running = ground.start_spec(spec).await;
    assert_eq!(
        running.output("cat /mnt/given/file /mnt/shown/file").await,
        "givenshown"
    );
    running.output("echo new > /mnt/given/new").await;
    running.refused("echo new > /mnt/shown/new").await;
    running.destroy().await;
    let made = fs::metadata(ground.directory.path().join("given/new")).unwrap();
    assert_eq!(made.uid(), 4321);
}

#[tokio::test]
async fn a_changed_project_is_refused() {
    let Some(ground) = Ground::new("a_changed_project").await else {
        return;
    };
    let mut spec = ground.spec();
    spec.workspace.inode += 1;
    let refused = ground.docker.create(&spec).await.err().unwrap();
    assert!(
        matches!(refused, BackendError::PathChanged { .. }),
        "{refused:?}"
    );
    ground.is_clean().await;
    ground.start().await.destroy().await;
}

#[tokio::test]
async fn what_the_image_says_does_not_count() {
    let Some(ground) = Ground::new("what_the_image_says").await else {
        return;
    };
    // Its entry point is /bin/false, its user root, its label that of another session: that it runs at all is the test.
    let mut running = ground.start().await;
    assert_eq!(running.output("id -u; pwd").await, "1000\n/workspace\n");
    assert!(!running.output("env").await.contains("evil"));
    let name = running.spec.session.object_name(&ground.owner);
    let found = engine()
        .inspect_container(
            &name,
            None::<bollard::query_parameters::InspectContainerOptions>,
        )
        .await
        .unwrap();
    let config = found.config.unwrap();
    assert_eq!(config.healthcheck.unwrap().test.unwrap(), ["NONE"]);
    assert!(found.image.unwrap().starts_with("sha256:"));
    running.destroy().await;
}

#[tokio::test]
async fn an_image_that_declares_volumes_or_is_missing_is_refused() {
    let Some(ground) = Ground::new("an_image_that_declares_volumes").await else {
        return;
    };
    let name = "claude-code-mcp-test-volumes:2";
    make_image(name, "VOLUME /data").await;
    let refused = |image: &str| {
        let mut spec = ground.spec();
        spec.root = RootFileSystem::Image(image.to_owned());
        let docker = ground.docker.clone();
        async move { docker.create(&spec).await.err().unwrap() }
    };
    let with_volumes = refused(name).await;
    assert!(
        matches!(&with_volumes, BackendError::ImageRefused { why, .. } if why.contains("/data")),
        "{with_volumes:?}"
    );
    let missing = refused("claude-code-mcp-test-missing:1").await;
    assert!(
        matches!(&missing, BackendError::Unavailable { why, .. } if why.contains("no image")),
        "{missing:?}"
    );
    for name in ["../../containers/json", "-x", "a b", "a?x=y", ""] {
        let odd = refused(name).await;
        assert!(
            matches!(odd, BackendError::Unsupported(_)),
            "{name}: {odd:?}"
        );
    }
    ground.is_clean().await;
    engine()
        .remove_image(
            name,
            None::<bollard::query_parameters::RemoveImageOptions>,
            None,
        )
        .await
        .unwrap();
}
