//! The real Claude Code CLI for tests: where it is, or fetched once. It is proprietary: never part of this repository.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::skip::skip;

/// The Python package that bundles the CLI, and the version of the CLI in it. Old ones are deleted from the registry some day.
const PACKAGE: &str = "claude-agent-sdk==0.2.187";

/// The version that these tests were measured with.
const VERSION: &str = "2.1.330";

/// The CLI: `CLAUDE_CODE_BINARY`, or else fetched with pip into `target/claude-code-VERSION`. `None` skips the leg `agent`,
/// loudly.
///
/// # Panics
/// When `REQUIRE` names `agent` and there is no CLI.
pub fn binary() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CLAUDE_CODE_BINARY") {
        let named = PathBuf::from(named);
        assert!(
            named.is_file(),
            "CLAUDE_CODE_BINARY is no file: {}",
            named.display()
        );
        return Some(named);
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    match fetched(&target.join(format!("claude-code-{VERSION}"))) {
        Ok(binary) => Some(binary),
        Err(why) => {
            skip(
                "agent",
                &format!("no Claude Code: {why}; set CLAUDE_CODE_BINARY"),
            );
            None
        }
    }
}

/// Fetches it once, however many tests ask at the same time.
fn fetched(directory: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let lock = File::create(directory.join("lock"))?;
    lock.lock()?;
    let binary = directory.join("claude");
    if binary.is_file() {
        return Ok(binary);
    }
    if directory.join("failed").exists() {
        return Err(io::Error::other(
            "an earlier test could not fetch it; remove target/claude-code-* to try again",
        ));
    }
    let fetched = fetch(directory, &binary);
    if fetched.is_err() {
        File::create(directory.join("failed"))?;
    }
    fetched.map(|()| binary)
}

fn fetch(directory: &Path, binary: &Path) -> io::Result<()> {
    let wheels = tempfile::tempdir_in(directory)?;
    run(Command::new("pip")
        .args([
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
        ])
        .arg(wheels.path())
        .arg(PACKAGE))?;
    let wheel = fs::read_dir(wheels.path())?
        .next()
        .ok_or_else(|| io::Error::other("pip fetched nothing"))??;
    run(Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(wheel.path())
        .arg(wheels.path()))?;
    let unpacked = wheels.path().join("claude_agent_sdk/_bundled/claude");
    fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755))?;
    fs::rename(unpacked, binary)
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let last = told.lines().last().unwrap_or_default();
    Err(io::Error::other(format!(
        "{:?} failed: {last}",
        command.get_program()
    )))
}
