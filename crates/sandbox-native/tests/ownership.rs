//! The table of ownership: whatever the agent makes in a project belongs to the project's owner afterwards.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking and say what they skip"
)]

mod support;

use std::{fs, os::unix::fs::MetadataExt};

use sandbox::{Backend, BackendError};
use support::{Ground, STRANGER, as_ordinary_user, as_root};

async fn files_come_back_owned_by(ground: &Ground, owner: u32) {
    ground.give_project_to(owner);
    fs::write(ground.project().join("theirs"), "before").unwrap();
    std::os::unix::fs::chown(ground.project().join("theirs"), Some(owner), Some(owner)).unwrap();
    fs::write(ground.project().join("of-root"), "root's").unwrap();
    let mut running = ground.start().await;
    let seen = running.output("stat -c %u:%g . theirs; echo more >> theirs; mkdir sub; echo new > sub/file; chmod 700 sub").await;
    assert_eq!(seen, "1000:1000\n1000:1000\n");
    running.output("echo state > /state/kept").await;
    if owner != 0 {
        running.refused("echo evil >> of-root").await;
    }
    running.destroy().await;
    for name in ["theirs", "sub", "sub/file"] {
        let found = fs::metadata(ground.project().join(name)).unwrap();
        assert_eq!(
            (found.uid(), found.gid()),
            (owner, owner),
            "{name} of {owner}"
        );
    }
    assert_eq!(
        fs::read_to_string(ground.project().join("theirs")).unwrap(),
        "beforemore\n"
    );
}

#[tokio::test]
async fn root_on_a_disk() {
    if as_root("root_on_a_disk") {
        for owner in [0, 1000, 1234] {
            files_come_back_owned_by(&Ground::new(), owner).await;
        }
    }
}

#[tokio::test]
async fn root_on_a_tmpfs() {
    if as_root("root_on_a_tmpfs") {
        for owner in [0, 1000, 1234] {
            let directory = tempfile::tempdir_in("/dev/shm").unwrap();
            files_come_back_owned_by(&Ground::in_directory(directory, |_| {}), owner).await;
        }
    }
}

#[tokio::test]
async fn an_ordinary_user_keeps_its_files() {
    if !as_ordinary_user("an_ordinary_user_keeps_its_files") {
        return;
    }
    let ground = Ground::new();
    let mut running = ground.start().await;
    assert_eq!(
        running.output("echo x > file; stat -c %u:%g file").await,
        "1000:1000\n"
    );
    running.destroy().await;
    let owner = rustix::process::geteuid().as_raw();
    assert_eq!(
        fs::metadata(ground.project().join("file")).unwrap().uid(),
        owner
    );
}

#[tokio::test]
async fn an_ordinary_user_cannot_offer_somebody_elses_project() {
    if !as_ordinary_user("an_ordinary_user_cannot_offer_somebody_elses_project") {
        return;
    }
    let ground = Ground::new();
    let mut spec = ground.spec();
    spec.workspace = support::host_directory("/usr/share".as_ref());
    let refused = ground.native.create(&spec).await.err().unwrap();
    assert!(
        matches!(&refused, BackendError::WorkspaceNotMappable(why) if why.contains("copy")),
        "{refused:?}"
    );
    assert_eq!(ground.census(spec.session), Vec::<String>::new());
}

#[tokio::test]
async fn two_sandboxes_of_root_share_no_id() {
    if !as_root("two_sandboxes_of_root_share_no_id") {
        return;
    }
    let ground = Ground::new();
    ground.give_project_to(STRANGER);
    let mut one = ground.start().await;
    let mut other = ground.start().await;
    let (first, second) = (
        one.output("cat /proc/self/uid_map").await,
        other.output("cat /proc/self/uid_map").await,
    );
    assert_ne!(first, second);
    assert!(
        first.split_whitespace().next_back() == Some("65536"),
        "{first}"
    );
    ground.native.destroy(one.session).await.unwrap();
    other.destroy().await;
}
