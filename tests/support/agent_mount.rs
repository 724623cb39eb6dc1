//! What every backend must show of Claude Code's program and its managed settings: there, read-only, shared, ours alone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use model::SandboxSpec;

use super::support::{Inside, host_directory};

pub const SETTINGS: &str = "{\"disableBypassPermissionsMode\": \"disable\"}";

/// A program as the store has it: in a private directory, readable by itself.
pub fn program(below: &Path) -> PathBuf {
    let private = below.join("agent");
    let directory = private.join("sha256-00");
    fs::DirBuilder::new().mode(0o700).create(&private).unwrap();
    fs::create_dir(&directory).unwrap();
    let file = directory.join("claude");
    fs::write(&file, "#!/bin/sh\necho \"version $1\"\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o555)).unwrap();
    directory
}

pub fn with_program(spec: SandboxSpec, directory: &Path) -> SandboxSpec {
    SandboxSpec {
        agent: Some(host_directory(directory)),
        managed_settings: Some(SETTINGS.to_owned()),
        ..spec
    }
}

/// In a sandbox of [`with_program`].
pub async fn the_program_is_shared_and_cannot_be_changed(inside: &mut Inside, directory: &Path) {
    let file = fs::metadata(directory.join("claude")).unwrap();
    let commands = [
        ("/opt/claude-code/claude x", "version x\n".to_owned()),
        // One file, whose pages all sandboxes share.
        (
            "stat -c '%d %i' /opt/claude-code/claude",
            format!("{} {}\n", file.dev(), file.ino()),
        ),
        ("ls /etc/claude-code", "managed-settings.json\n".to_owned()),
        (
            "cat /etc/claude-code/managed-settings.json",
            SETTINGS.to_owned(),
        ),
    ];
    for (command, wanted) in &commands {
        assert_eq!(
            inside.shell(command).await,
            (0, wanted.clone()),
            "{command}"
        );
    }
    for change in [
        "echo x >> /opt/claude-code/claude",
        "touch /opt/claude-code/other",
        "rm -f /opt/claude-code/claude",
        "chmod 777 /opt/claude-code/claude",
        "mv /opt/claude-code /opt/other",
        "echo {} > /etc/claude-code/managed-settings.json",
        "mkdir /etc/claude-code/managed-settings.d",
        "rm -rf /etc/claude-code",
    ] {
        let (code, output) = inside.shell(change).await;
        assert_ne!(code, 0, "{change} went through: {output}");
    }
    // The control: the same commands work where the agent may write.
    let control = "cd /tmp && cp /opt/claude-code/claude . && chmod 777 claude && echo x >> claude \
        && touch other && mkdir d && mv d e && rm -rf claude e";
    assert_eq!(inside.shell(control).await, (0, String::new()));
    for (command, wanted) in &commands {
        assert_eq!(
            inside.shell(command).await,
            (0, wanted.clone()),
            "{command}"
        );
    }
    assert_eq!(fs::read_dir(directory).unwrap().count(), 1);
}
