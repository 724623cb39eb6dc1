//! Which Claude Code new sessions get.

use serde::Serialize;

use crate::{
    agent_program::{chosen, describe},
    config::{AgentChoice, Config},
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AgentReport {
    /// Which one, in words for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) found: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

/// Nothing is read but names and sizes: `agent verify` reads it all.
pub(super) fn examine(config: &Config) -> AgentReport {
    let found = chosen(&config.agent, &config.paths.state_dir).and_then(|found| {
        let Some(installed) = found else {
            return Ok(None);
        };
        installed.host_directory()?;
        Ok(Some(describe(&installed)))
    });
    let wanted = config.agent != AgentChoice::None;
    match found {
        Ok(Some(found)) => AgentReport {
            found: Some(found),
            problem: None,
            remedy: None,
        },
        Ok(None) => AgentReport {
            found: None,
            problem: None,
            remedy: wanted.then(|| "claude-code-mcp agent install".to_owned()),
        },
        Err(error) => AgentReport {
            found: None,
            problem: Some(error.to_string()),
            remedy: Some(error.hint()),
        },
    }
}
