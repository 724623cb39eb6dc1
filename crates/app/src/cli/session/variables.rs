//! Variables for what runs inside.

use std::collections::BTreeMap;

use super::super::{CliError, Context, arguments::EnvironmentArguments};

/// The variables that the flags name, later ones winning.
pub(in crate::cli) fn variables(
    context: &Context,
    arguments: &EnvironmentArguments,
) -> Result<BTreeMap<String, String>, CliError> {
    let mut variables = BTreeMap::new();
    for name in &arguments.env_from {
        let value = context
            .environment
            .get(name)
            .and_then(|value| value.to_str());
        let value = value.ok_or_else(|| {
            CliError::Usage(format!("--env-from {name}: no such variable is set here"))
        })?;
        variables.insert(name.clone(), value.to_owned());
    }
    for text in &arguments.env {
        // Not the text itself in the error: it may hold a secret.
        let (name, value) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| {
                CliError::Usage(
                    "--env takes NAME=VALUE; --env-from NAME passes a variable on".into(),
                )
            })?;
        variables.insert(name.to_owned(), value.to_owned());
    }
    Ok(variables)
}
