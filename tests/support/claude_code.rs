//! The real Claude Code for tests: fetched once for each machine by `scripts/test`, with `agent install`. It is proprietary:
//! never part of this repository, and of no image but those that a test removes.
#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::path::PathBuf;

use super::skip::skip;

/// Where `scripts/test` puts it, in the user's cache directory.
const CACHED: &str = "claude-code-mcp-test/agent/agent/current/claude";

/// The program: `CLAUDE_CODE_BINARY`, or the one in the cache. `None` skips the leg `agent`, loudly.
///
/// # Panics
/// When `REQUIRE` names `agent` and there is none, or `CLAUDE_CODE_BINARY` is no file.
pub fn binary() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CLAUDE_CODE_BINARY").map(PathBuf::from) {
        assert!(
            named.is_file(),
            "CLAUDE_CODE_BINARY is no file: {}",
            named.display()
        );
        return Some(named);
    }
    let found = cached().filter(|program| program.is_file());
    if found.is_none() {
        skip(
            "agent",
            "no Claude Code: scripts/test fetches it, or set CLAUDE_CODE_BINARY",
        );
    }
    found
}

fn cached() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    cache.or_else(home).map(|cache| cache.join(CACHED))
}
