//! Which Claude Code new sessions get: looked for in the store whenever one is made.

use std::{path::Path, sync::Arc};

use agent::install::{InstallError, Installed, Pins, Store};
use model::{Reason, Refusal};
use session::{AgentLookup, AgentProgram};

use crate::config::{AgentChoice, Config};

/// Digits of a hash that people read.
pub(crate) const SHORT_HASH_DIGITS: usize = 12;

/// What a server's sessions ask.
pub(crate) fn lookup(config: &Config) -> AgentLookup {
    let (choice, state) = (config.agent.clone(), config.paths.state_dir.clone());
    Arc::new(move || program(&choice, &state).map_err(|error| refused(&error)))
}

fn program(choice: &AgentChoice, state: &Path) -> Result<Option<AgentProgram>, InstallError> {
    let Some(installed) = chosen(choice, state)? else {
        return Ok(None);
    };
    Ok(Some(AgentProgram {
        directory: installed.host_directory()?,
        description: describe(&installed),
    }))
}

/// The one that the configuration means; `None` where sessions get what their root file system brings.
///
/// # Errors
/// When one is meant that is not there.
pub(crate) fn chosen(
    choice: &AgentChoice,
    state: &Path,
) -> Result<Option<Installed>, InstallError> {
    let store = Store::new(state);
    match choice {
        AgentChoice::None => Ok(None),
        AgentChoice::Auto => store.current(),
        AgentChoice::Hash(hash) => store.find(hash).map(Some),
    }
}

/// In words for people.
pub(crate) fn describe(installed: &Installed) -> String {
    let record = &installed.record;
    let version = record.version.as_deref().unwrap_or("of unknown version");
    let hash: String = record.sha256.chars().take(SHORT_HASH_DIGITS).collect();
    let newer = Pins::built_in()
        .ok()
        .filter(|pins| record.pinned && record.version.as_deref() != Some(pins.version()));
    let standing = match (record.pinned, newer) {
        (false, _) => "not pinned".to_owned(),
        (true, None) => "pinned".to_owned(),
        (true, Some(pins)) => format!(
            "pinned by another release of this program; this one pins {}: claude-code-mcp agent install",
            pins.version()
        ),
    };
    format!("{version}, SHA-256 {hash}, {standing}")
}

fn refused(error: &InstallError) -> Refusal {
    Refusal::new(
        Reason::AgentUnavailable,
        "The Claude Code that this server is configured to use cannot be used.",
        error.hint(),
    )
    .with_cause(error)
}
