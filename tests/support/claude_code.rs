//! The real Claude Code CLI for tests: where it is, or fetched once, as `agent install` does it. It is proprietary: never part
//! of this repository.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use agent::install::{
    DEFAULT_INDEX, InstallError, Network, Order, Pins, Proxy, Source, Store, Wish, address, install,
};

use crate::skip::skip;

/// The CLI: `CLAUDE_CODE_BINARY`, or else the pinned one, fetched into `target/claude-code` from `UV_INDEX_URL` or PyPI.
/// `None` skips the leg `agent`, loudly.
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
    match fetched() {
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

/// Fetches it once, however many tests ask at the same time: the store has a lock.
fn fetched() -> Result<PathBuf, InstallError> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/claude-code");
    fs::create_dir_all(&directory).expect("target can be written");
    let store = Store::new(&directory);
    if let Ok(Some(installed)) = store.current() {
        return Ok(installed.program());
    }
    let index = std::env::var("UV_INDEX_URL");
    let order = Order {
        pin: Pins::built_in()?.here()?,
        source: Source::Index {
            url: address(index.as_deref().unwrap_or(DEFAULT_INDEX))?,
            wish: Wish {
                accept_yanked: true,
                ..Wish::default()
            },
            network: Network {
                proxy: Proxy::try_from_env(),
                ..Network::default()
            },
        },
        accept_unpinned: false,
    };
    let done = install(&store, &order, &mut |_| {})?;
    Ok(done.installed.program())
}
