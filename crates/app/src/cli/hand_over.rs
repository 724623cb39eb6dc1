//! Credentials in the environment of whoever starts a server come to the server, but not into its own environment, which
//! the commands that it runs would inherit and `/proc` would show as long as it lives.
//!
//! ```text
//! serve ─ variables with credentials ─► a file in memory ─ standard input ─► serve --credentials-on-stdin
//! ```
//! What this does not stop: the client that starts a server has them in its own environment, as whoever started that has.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, Write},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use model::Secret;
use rustix::fs::{MemfdFlags, memfd_create};

use super::context::this_program;
use crate::config::{Environment, is_secret};

/// Tells a server to read them.
const FLAG: &str = "--credentials-on-stdin";
/// Most that they may be together, bytes. The environment of a process holds no more in one variable.
const MAX_BYTES: u64 = 128 * 1024;

/// Has the command find the credentials on its standard input, and not in its environment.
pub(super) fn to(command: &mut Command, environment: &Environment) -> io::Result<()> {
    let found: BTreeMap<&str, &str> = environment
        .secrets()
        .filter_map(|(name, value)| Some((name, value.to_str()?)))
        .collect();
    let text = Secret::new(serde_json::to_string(&found)?);
    let mut memory = File::from(memfd_create("credentials", MemfdFlags::CLOEXEC)?);
    memory.write_all(text.expose().as_bytes())?;
    memory.rewind()?;
    for (name, _) in environment.secrets() {
        command.env_remove(name);
    }
    command.arg(FLAG).stdin(Stdio::from(memory));
    Ok(())
}

/// Becomes the same program with the same arguments, with a clean environment, if this one is not. Returns if it is clean.
pub(super) fn to_oneself(environment: &Environment) -> io::Result<()> {
    if environment.secrets().next().is_none() {
        return Ok(());
    }
    let mut command = Command::new(this_program());
    command.args(std::env::args_os().skip(1));
    to(&mut command, environment)?;
    Err(command.exec())
}

/// Takes what [`to`] handed over. Standard input is `/dev/null` from then on, so that nobody reads it again.
pub(super) fn take(environment: Environment) -> io::Result<Environment> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(MAX_BYTES)
        .read_to_string(&mut text)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let text = Secret::new(text);
    let found: BTreeMap<String, String> = serde_json::from_str(text.expose())
        // The parser's own error could show what stands there.
        .map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "no credentials on standard input",
            )
        })?;
    Ok(environment.with(found.into_iter().filter(|(name, _)| is_secret(name))))
}
