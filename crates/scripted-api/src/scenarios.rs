//! The ready scenarios, from `scenarios.toml`.

use serde::Deserialize;

use crate::script::{Script, ScriptError};

const TABLE: &str = include_str!("../scenarios.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    scenario: Vec<Script>,
}

/// All ready scenarios.
///
/// # Errors
/// None in a build that passed its tests.
pub fn scenarios() -> Result<Vec<Script>, ScriptError> {
    let table: Table = toml::from_str(TABLE)?;
    table.scenario.into_iter().map(Script::checked).collect()
}

/// A ready scenario by its name.
///
/// # Errors
/// No scenario has the name.
pub fn scenario(name: &str) -> Result<Script, ScriptError> {
    scenarios()?
        .into_iter()
        .find(|script| script.name == name)
        .ok_or_else(|| ScriptError::Unknown(name.to_owned()))
}

/// All ready scenarios in one script: the prompt chooses by the scenario's name in double brackets, `[[write-test]]`.
///
/// # Errors
/// None in a build that passed its tests.
pub fn by_prompt() -> Result<Script, ScriptError> {
    let turns = scenarios()?.into_iter().flat_map(|script| {
        let mark = format!("[[{}]]", script.name);
        script.turns.into_iter().map(move |mut turn| {
            turn.when.prompt_contains.push(mark.clone());
            turn
        })
    });
    Ok(Script {
        name: "by-prompt".to_owned(),
        description: "The prompt names the scenario in double brackets".to_owned(),
        ..Script::of(turns)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_scenario_is_named_once_and_says_what_it_proves() {
        let scripts = scenarios().unwrap();
        let names: BTreeSet<_> = scripts.iter().map(|script| &script.name).collect();
        assert_eq!(names.len(), scripts.len(), "a name stands twice");
        for script in &scripts {
            for text in [&script.name, &script.description, &script.proves] {
                assert!(!text.is_empty() && !text.contains('\n'), "{}", script.name);
            }
        }
        assert!(scenario("text").is_ok());
        assert!(scenario("nonsense").is_err());
    }
}
