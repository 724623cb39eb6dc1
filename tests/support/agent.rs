//! The real Claude Code installed on a test's machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Machine;

/// Brings it to a place that the machine's user can read.
pub fn bring(machine: &Machine, program: &Path) -> PathBuf {
    let program = fs::canonicalize(program).expect("the program");
    let place = machine.base().join("claude-to-install");
    if fs::hard_link(&program, &place).is_err() {
        fs::copy(&program, &place).expect("a copy of the program");
    }
    place
}

/// Installs it as the machine's user.
pub fn install(machine: &Machine, program: &Path) {
    let place = bring(machine, program);
    let file = place.display().to_string();
    let done = machine.cli(&["agent", "install", "--from-file", &file]);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}
