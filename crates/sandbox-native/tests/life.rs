//! Creation, connection, end and removal: what is left, who may speak, and what survives a server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking and say what they skip"
)]

mod support;

use std::{fs, os::unix::net::UnixStream, path::PathBuf, time::Duration};

use model::{Enforcement, LimitName};
use sandbox::{Backend, BackendError};
use sandbox_native::Native;
use support::{Ground, Inside, as_ordinary_user, as_root, helper};

async fn a_second_server_finds_and_connects() {
    let ground = Ground::new();
    let mut running = ground.start().await;
    running.output("echo kept > /state/file").await;
    drop(running.link);
    drop(running.inside);
    let second = Native::open(ground.config.clone()).unwrap();
    let listed = second.list().await.unwrap();
    assert!(listed.len() == 1 && listed[0].session == running.session && listed[0].running);
    let mut link = second.connect(running.session).await.unwrap();
    let dialed = tokio::time::timeout(Duration::from_secs(20), link.connections.recv()).await;
    let mut inside = Inside::greet(dialed.expect("the supervisor dials again").unwrap()).await;
    assert_eq!(
        inside.shell("cat /state/file").await,
        (0, "kept\n".to_owned())
    );
    second.destroy(running.session).await.unwrap();
    assert_eq!(ground.census(running.session), Vec::<String>::new());
    assert!(matches!(
        second.connect(running.session).await,
        Err(BackendError::NotFound)
    ));
    second.destroy(running.session).await.unwrap();
}

#[tokio::test]
async fn a_second_server_finds_and_connects_as_root() {
    if as_root("a_second_server_finds_and_connects_as_root") {
        a_second_server_finds_and_connects().await;
    }
}

#[tokio::test]
async fn a_second_server_finds_and_connects_as_user() {
    if as_ordinary_user("a_second_server_finds_and_connects_as_user") {
        a_second_server_finds_and_connects().await;
    }
}

#[tokio::test]
async fn only_the_supervisor_may_dial() {
    let ground = Ground::new();
    let mut running = ground.start().await;
    let socket = ground.directory.path().join(format!(
        "state/native/sessions/{}/socket/host.sock",
        running.session
    ));
    // A stranger on the host, and the agent itself, which has the supervisor's uid.
    let stranger = UnixStream::connect(&socket).unwrap();
    let dial = "perl -MIO::Socket::UNIX -e '$s=IO::Socket::UNIX->new(Peer=>\"/run/supervisor/host.sock\") or die $!; print \"connected \"; print defined(<$s>) ? \"spoken to\" : \"hung up\"'";
    assert_eq!(running.output(dial).await, "connected hung up");
    stranger
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut byte = [0];
    assert_eq!(
        std::io::Read::read(&mut &stranger, &mut byte).unwrap(),
        0,
        "the stranger was not hung up on"
    );
    assert!(running.link.connections.try_recv().is_err());
    assert_eq!(
        running.output("echo the supervisor is heard").await,
        "the supervisor is heard\n"
    );
    running.destroy().await;
}

#[tokio::test]
async fn the_channel_closes_when_the_sandbox_ends() {
    let ground = Ground::new();
    let mut running = ground.start().await;
    ground.native.destroy(running.session).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(5), running.link.connections.recv()).await;
    assert!(end.unwrap().is_none());
    assert!(matches!(
        ground.native.inspect(running.session).await,
        Err(BackendError::NotFound)
    ));
    assert!(matches!(
        ground.native.stats(running.session).await,
        Err(BackendError::NotFound)
    ));
}

#[tokio::test]
async fn a_session_exists_once() {
    let ground = Ground::new();
    let spec = ground.spec();
    let running = ground.start_spec(spec.clone()).await;
    assert!(matches!(
        ground.native.create(&spec).await,
        Err(BackendError::AlreadyExists)
    ));
    assert!(ground.native.inspect(spec.session).await.unwrap().running);
    running.destroy().await;
}

#[tokio::test]
async fn a_dead_sandbox_is_listed_until_it_is_removed() {
    let ground = Ground::new();
    let mut running = ground.start().await;
    let record = ground.directory.path().join(format!(
        "state/native/sessions/{}/record.json",
        running.session
    ));
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    let pid = i32::try_from(record["process"]["pid"].as_i64().unwrap()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    assert!(running.link.connections.recv().await.is_none());
    let listed = ground.native.list().await.unwrap();
    assert!(listed.len() == 1 && !listed[0].running);
    running.destroy().await;
    assert_eq!(ground.native.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_tree_of_the_agents_does_not_keep_the_session_from_being_removed() {
    let ground = Ground::new();
    let mut running = ground.start().await;
    let deep = "perl -e 'chdir \"/state\"; for (1..1500) { mkdir \"d\"; chdir \"d\" }; mkdir \"/state/locked\"; mkdir \"/state/locked/x\"; chmod 0, \"/state/locked\"'";
    running.output(deep).await;
    running.destroy().await;
}

#[tokio::test]
async fn another_owners_sandbox_is_left_alone() {
    let (one, other) = (Ground::new(), Ground::new());
    let mut running = one.start().await;
    assert_eq!(other.native.list().await.unwrap(), []);
    other.native.destroy(running.session).await.unwrap();
    assert_eq!(running.output("echo alive").await, "alive\n");
    running.destroy().await;
}

#[tokio::test]
async fn a_paused_sandbox_stands_still_and_can_be_destroyed() {
    if !as_root("a_paused_sandbox_stands_still_and_can_be_destroyed") {
        return;
    }
    let ground = Ground::new();
    let mut running = ground.start().await;
    ground.native.pause(running.session).await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(200), running.inside.shell("true"))
            .await
            .is_err()
    );
    ground.native.resume(running.session).await.unwrap();
    ground.native.pause(running.session).await.unwrap();
    running.destroy().await;
}

#[tokio::test]
async fn a_named_limit_that_cannot_be_hard_is_refused_before_anything_is_made() {
    let ground = Ground::with(|config| config.cgroup = sandbox_native::CgroupChoice::Disabled);
    let capability = ground.native.capability().await.unwrap();
    assert_eq!(
        capability.enforcement(LimitName::MemoryBytes),
        Enforcement::Soft
    );
    let mut spec = ground.spec();
    spec.limits.memory_bytes.named = true;
    let refused = ground.native.create(&spec).await.err().unwrap();
    assert!(
        matches!(
            refused,
            BackendError::LimitUnenforceable {
                limit: LimitName::MemoryBytes,
                ..
            }
        ),
        "{refused:?}"
    );
    assert_eq!(ground.census(spec.session), Vec::<String>::new());
    spec.accept_soft_limits = true;
    ground.start_spec(spec).await.destroy().await;
}

/// A helper under `strace`, which does that at the `when`th call of that name.
fn failing_helper(config: &mut sandbox_native::NativeConfig, call: &str, fault: &str, when: u32) {
    config.helper_arguments = [
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &format!("trace={call}"),
        "-e",
        &format!("inject={call}:{fault}:when={when}"),
        helper().to_str().unwrap(),
        "__sandbox-helper",
    ]
    .map(str::to_owned)
    .to_vec();
    config.helper = PathBuf::from("/usr/bin/strace");
}

/// Calls of creation and which of them fail: early, in the middle and late ones.
const FAILURES: [(&str, &[u32]); 18] = [
    ("openat2", &[1, 9, 40]),
    ("open_tree", &[1, 8, 30]),
    ("mount_setattr", &[1, 9, 30]),
    ("mkdir", &[1, 3]),
    ("clone3", &[1, 2]),
    ("rename", &[1]),
    ("unshare", &[1]),
    ("fsopen", &[1, 2, 4]),
    ("fsconfig", &[1, 9]),
    ("fsmount", &[1, 3, 6]),
    ("move_mount", &[1, 12, 40]),
    ("pivot_root", &[1]),
    ("umount2", &[1]),
    ("setsid", &[1]),
    ("capset", &[1]),
    ("setresuid", &[1, 2]),
    ("seccomp", &[1]),
    ("execveat", &[1]),
];

/// Calls at which the helper is killed: before the new process exists, with its first mapping, before and after its record
/// is written, and when it runs already and only the answer is missing.
const DEATHS: [(&str, &[u32]); 4] = [
    ("openat2", &[1, 20]),
    ("clone3", &[1, 2]),
    ("rename", &[1, 2]),
    ("sendmsg", &[1]),
];

async fn nothing_is_left_after(fault: &str, moments: &[(&str, &[u32])]) {
    for (call, moments) in moments {
        for when in *moments {
            let ground = Ground::new();
            let mut config = ground.config.clone();
            failing_helper(&mut config, call, fault, *when);
            let native = Native::open(config).unwrap();
            let mut spec = ground.spec();
            spec.protected = vec![support::protected(
                ".envrc",
                model::Protection::Masked { directory: false },
            )];
            let failed = native.create(&spec).await;
            assert!(failed.is_err(), "{call} {when} did not fail");
            assert_eq!(
                ground.census(spec.session),
                Vec::<String>::new(),
                "{fault} {call} {when}"
            );
            let left = fs::read_dir(ground.project()).unwrap().count();
            assert_eq!(left, 0, "{fault} {call} {when}: a placeholder is left");
        }
    }
}

fn has_strace(test: &str) -> bool {
    let there = PathBuf::from("/usr/bin/strace").exists();
    if !there {
        support::skip("strace", &format!("{test}: no strace"));
    }
    there
}

fn can_inject(test: &str) -> bool {
    has_strace(test) && as_root(test)
}

/// The new process of an ordinary user opens its mounts itself, while the helper's own steps go on. Here it has failed long
/// before the helper's next step, which then fails, too; the reason is the new process's.
#[tokio::test]
async fn what_failed_in_the_new_process_is_told_when_the_helper_comes_late() {
    const TEST: &str = "what_failed_in_the_new_process_is_told_when_the_helper_comes_late";
    if !has_strace(TEST) || !as_ordinary_user(TEST) {
        return;
    }
    let tools = tempfile::tempdir_in("/var/tmp").unwrap();
    let ground = Ground::with(|config| config.extra_read_only = vec![tools.path().to_owned()]);
    let mut config = ground.config.clone();
    failing_helper(&mut config, "rename", "delay_enter=300000", 1);
    let native = Native::open(config).unwrap();
    drop(tools);
    let spec = ground.spec();
    let refused = native.create(&spec).await.err().unwrap();
    assert!(
        matches!(refused, BackendError::PathChanged { .. }),
        "{refused:?}"
    );
    assert_eq!(ground.census(spec.session), Vec::<String>::new());
}

#[tokio::test]
async fn a_failure_at_any_step_leaves_nothing() {
    if can_inject("a_failure_at_any_step_leaves_nothing") {
        nothing_is_left_after("error=EIO", &FAILURES).await;
    }
}

#[tokio::test]
async fn a_helper_that_is_killed_leaves_nothing() {
    if can_inject("a_helper_that_is_killed_leaves_nothing") {
        nothing_is_left_after("signal=KILL", &DEATHS).await;
    }
}
