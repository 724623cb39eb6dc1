//! The ladder, rung by rung: what the backend says of a machine is what it found by doing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking and say what they skip"
)]

mod support;

use std::{os::unix::process::ExitStatusExt, path::Path, process::Command};

use sandbox::{Backend, BackendError};
use support::{Ground, as_ordinary_user, as_root, is_root};

/// Set in the process that a shell script has prepared a special machine for.
const PREPARED: &str = "SANDBOX_NATIVE_TEST_PREPARED";

/// True in the prepared process. Else runs the script, whose last act is to execute this test again.
fn on_a_machine_made_by(test: &str, unshare: &[&str], script: &str) -> bool {
    if std::env::var(PREPARED).is_ok_and(|prepared| prepared == test) {
        return true;
    }
    let again = format!("exec \"$@\" --exact {test} --nocapture --test-threads=1");
    let status = Command::new("unshare")
        .args(unshare)
        .args(["sh", "-ec", script, "sh"])
        .args(["sh", "-c", &again, "sh"])
        .arg(std::env::current_exe().unwrap())
        .env(PREPARED, test)
        .current_dir("/")
        .status()
        .unwrap();
    assert!(
        status.success(),
        "{test}: {:?} {:?}",
        status.code(),
        status.signal()
    );
    false
}

#[tokio::test]
async fn root_gets_hard_limits_wherever_a_controller_is() {
    if !as_root("root_gets_hard_limits_wherever_a_controller_is") {
        return;
    }
    let capability = Ground::new().native.capability().await.unwrap();
    assert!(
        capability.rung.starts_with("root, ") && capability.posture == "embedded-root",
        "{capability:?}"
    );
}

#[tokio::test]
async fn a_user_without_subordinate_ids_has_a_single_one_and_is_told_what_is_missing() {
    let test = "a_user_without_subordinate_ids_has_a_single_one_and_is_told_what_is_missing";
    if !as_ordinary_user(test) {
        return;
    }
    let ground = Ground::new();
    let capability = ground.native.capability().await.unwrap();
    if capability.rung.starts_with("user, single id") {
        assert!(
            capability
                .advice
                .iter()
                .any(|advice| advice.remedy.contains("--add-subuids")),
            "{capability:?}"
        );
        let mut running = ground.start().await;
        let map = running.output("cat /proc/self/uid_map").await;
        assert_eq!(map.split_whitespace().next_back(), Some("1"), "{map}");
        running.destroy().await;
    } else {
        support::skip(
            "single-id",
            &format!("{test}: this user has subordinate ids"),
        );
    }
}

/// An account that every Debian has, with a group of the same number: the programs for subordinate ids look both up.
const ACCOUNT: (&str, u32) = ("daemon", 1);

#[tokio::test]
async fn a_user_with_subordinate_ids_gets_a_whole_range() {
    let test = "a_user_with_subordinate_ids_gets_a_whole_range";
    let prepared = std::env::var_os(PREPARED).is_some();
    if !prepared && (!is_root() || !Path::new("/usr/bin/newuidmap").exists()) {
        support::skip(
            "subordinate-ids",
            &format!("{test}: not root, or no newuidmap"),
        );
        return;
    }
    let (name, uid) = ACCOUNT;
    let script = format!(
        "mount --make-rprivate /; echo {name}:300000:65536 > /dev/shm/subid.$$; \
         mount --bind /dev/shm/subid.$$ /etc/subuid; mount --bind /dev/shm/subid.$$ /etc/subgid; \
         rm /dev/shm/subid.$$; exec setpriv --reuid={uid} --regid={uid} --clear-groups \"$@\""
    );
    if !on_a_machine_made_by(test, &["-m"], &script) {
        return;
    }
    let ground = Ground::new();
    let capability = ground.native.capability().await.unwrap();
    assert!(
        capability.rung.starts_with("user with subordinate ids"),
        "{capability:?}"
    );
    let mut running = ground.start().await;
    let map = running.output("cat /proc/self/uid_map").await;
    assert_eq!(map.lines().count(), 3, "{map}");
    assert_eq!(
        running
            .output("id -u; id -G; stat -c %u / /workspace")
            .await,
        "1000\n1000\n0\n1000\n"
    );
    running.output("echo x > file").await;
    running.destroy().await;
    let owner = std::os::unix::fs::MetadataExt::uid(
        &std::fs::metadata(ground.project().join("file")).unwrap(),
    );
    assert_eq!(owner, uid);
}

#[tokio::test]
async fn forbidden_user_namespaces_are_explained_and_nothing_weaker_is_built() {
    let test = "forbidden_user_namespaces_are_explained_and_nothing_weaker_is_built";
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"";
    if !on_a_machine_made_by(test, &["-Ur"], script) {
        return;
    }
    let ground = Ground::new();
    let refused = ground.native.capability().await.err().unwrap();
    let BackendError::Unavailable { why, remedy } = &refused else {
        panic!("{refused:?}")
    };
    assert!(
        why.contains("user namespaces") && remedy.contains("max_user_namespaces"),
        "{refused:?}"
    );
    let spec = ground.spec();
    assert!(matches!(
        ground.native.create(&spec).await,
        Err(BackendError::Unavailable { .. })
    ));
    assert_eq!(
        std::fs::read_dir(ground.directory.path().join("state/native/sessions"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn a_masked_proc_is_explained() {
    let test = "a_masked_proc_is_explained";
    if !is_root() && std::env::var_os(PREPARED).is_none() {
        support::skip("root", &format!("{test}: not root"));
        return;
    }
    let script = "mount --make-rprivate /; mount --bind /dev/null /proc/cpuinfo; \
                  exec setpriv --reuid=54321 --regid=54321 --clear-groups \"$@\"";
    if !on_a_machine_made_by(test, &["-m"], script) {
        return;
    }
    let refused = Ground::new().native.capability().await.err().unwrap();
    let BackendError::Unavailable { why, .. } = &refused else {
        panic!("{refused:?}")
    };
    assert!(why.contains("/proc are masked"), "{refused:?}");
}
