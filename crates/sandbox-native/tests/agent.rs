//! Claude Code's program and its managed settings in a sandbox.

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

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use agent_mount::{program, the_program_is_shared_and_cannot_be_changed, with_program};
use model::RootFileSystem;
use sandbox::{Backend, BackendError};
use support::{Ground, Inside, as_ordinary_user, as_root, host_directory};

async fn the_program_is_read_only_and_shared() {
    let ground = Ground::new();
    let directory = program(ground.directory.path());
    let mut one = ground
        .start_spec(with_program(ground.spec(), &directory))
        .await;
    let mut other = ground
        .start_spec(with_program(ground.spec(), &directory))
        .await;
    the_program_is_shared_and_cannot_be_changed(&mut one.inside, &directory).await;
    the_program_is_shared_and_cannot_be_changed(&mut other.inside, &directory).await;
    ground.native.destroy(one.session).await.unwrap();
    other.destroy().await;
    assert!(directory.join("claude").exists());
    // The control: without either nothing stands there.
    let mut without = ground.start().await;
    without
        .refused("ls /etc/claude-code || ls /opt/claude-code")
        .await;
    without.destroy().await;
}

#[tokio::test]
async fn the_program_is_read_only_and_shared_as_root() {
    if as_root("the_program_is_read_only_and_shared_as_root") {
        the_program_is_read_only_and_shared().await;
    }
}

#[tokio::test]
async fn the_program_is_read_only_and_shared_as_user() {
    if as_ordinary_user("the_program_is_read_only_and_shared_as_user") {
        the_program_is_read_only_and_shared().await;
    }
}

#[tokio::test]
async fn a_program_that_was_exchanged_since_the_decision_is_refused() {
    let ground = Ground::new();
    let directory = program(ground.directory.path());
    let spec = with_program(ground.spec(), &directory);
    fs::rename(&directory, directory.with_extension("old")).unwrap();
    let other = ground.directory.path().join("elsewhere");
    fs::create_dir(&other).unwrap();
    for exchange in [
        (|_, there| fs::create_dir(there)) as fn(&Path, &Path) -> std::io::Result<()>,
        |other, there| {
            fs::remove_dir(there)?;
            std::os::unix::fs::symlink(other, there)
        },
        |_, there| fs::remove_file(there),
    ] {
        exchange(&other, &directory).unwrap();
        let refused = ground.native.create(&spec).await;
        assert!(
            matches!(&refused, Err(BackendError::PathChanged { path }) if *path == directory),
            "{:?}",
            refused.err()
        );
        assert_eq!(ground.census(spec.session), Vec::<String>::new());
    }
    fs::rename(directory.with_extension("old"), &directory).unwrap();
    ground.start_spec(spec).await.destroy().await;
}

/// A root file system that brings a program, settings and other things under the same names.
#[cfg(target_arch = "x86_64")]
fn unpacked(below: &Path) -> PathBuf {
    let root = below.join("root");
    for (from, to) in [
        ("/bin/sh", "bin/sh"),
        (
            "/lib/x86_64-linux-gnu/libc.so.6",
            "lib/x86_64-linux-gnu/libc.so.6",
        ),
        ("/lib64/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
    ] {
        fs::create_dir_all(root.join(to).parent().unwrap()).unwrap();
        fs::copy(from, root.join(to)).unwrap();
    }
    for (path, text) in [
        ("opt/other/file", "other"),
        ("opt/claude-code/claude", "#!/bin/sh\necho theirs\n"),
        ("etc/claude-code/managed-settings.json", "theirs"),
        ("etc/claude-code/managed-settings.d/x.json", "theirs"),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    root
}

#[cfg(target_arch = "x86_64")]
async fn ours_stands_before_what_a_root_file_system_brings() {
    let ground = Ground::new();
    let directory = program(ground.directory.path());
    let root = unpacked(ground.directory.path());
    let mut spec = ground.spec();
    spec.root = RootFileSystem::Directory(host_directory(&root));
    let look = "read -r other < /opt/other/file; echo $other; /opt/claude-code/claude x; \
        for file in /etc/claude-code/*; do echo $file; done";
    // What it brings alone, first.
    let mut running = ground.start_spec(spec.clone()).await;
    assert_eq!(
        look_at(&mut running.inside, look).await,
        "theirs\n/etc/claude-code/managed-settings.d\n/etc/claude-code/managed-settings.json\n"
    );
    running.destroy().await;
    spec.session = model::SessionId::random().unwrap();
    let mut running = ground.start_spec(with_program(spec, &directory)).await;
    assert_eq!(
        look_at(&mut running.inside, look).await,
        "version x\n/etc/claude-code/managed-settings.json\n"
    );
    running.destroy().await;
}

/// The output after the first line, which stands for what is beside.
#[cfg(target_arch = "x86_64")]
async fn look_at(inside: &mut Inside, command: &str) -> String {
    let (_, output) = inside.shell(command).await;
    let rest = output.strip_prefix("other\n");
    rest.unwrap_or_else(|| panic!("{output}")).to_owned()
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn ours_stands_before_what_a_root_file_system_brings_as_root() {
    if as_root("ours_stands_before_what_a_root_file_system_brings_as_root") {
        ours_stands_before_what_a_root_file_system_brings().await;
    }
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn ours_stands_before_what_a_root_file_system_brings_as_user() {
    if as_ordinary_user("ours_stands_before_what_a_root_file_system_brings_as_user") {
        ours_stands_before_what_a_root_file_system_brings().await;
    }
}
