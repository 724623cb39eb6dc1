//! The real Claude Code, fetched once for each machine by `scripts/test`; a machine that cannot have it says so loudly.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Machine, skip};

/// Its program, if it was fetched.
pub fn fetched(leg: &str) -> Option<PathBuf> {
    let named = std::env::var_os("AGENT_PROGRAM").map(PathBuf::from);
    let found = named.or_else(usual).filter(|program| program.exists());
    if found.is_none() {
        let why = "Claude Code is not fetched (scripts/test does it, or agent install; AGENT_PROGRAM names one)";
        skip("agent", &format!("{leg}: {why}"));
    }
    found
}

/// Where `scripts/test` puts it.
fn usual() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let store = "claude-code-mcp-test/agent/agent/current/claude";
    cache.or_else(home).map(|cache| cache.join(store))
}

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
