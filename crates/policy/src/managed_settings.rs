//! What Claude Code inside must obey whatever the project says: `profiles/managed-settings.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::PolicyError;

const FILE: &str = "managed-settings.json";
const DATA: &str = include_str!("../../../profiles/managed-settings.json");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Data {
    #[serde(rename = "about")]
    _about: String,
    settings: Map<String, Value>,
    reasons: BTreeMap<String, String>,
}

/// The file as Claude Code reads it.
pub(crate) fn load() -> Result<String, PolicyError> {
    text(DATA)
}

fn text(data: &str) -> Result<String, PolicyError> {
    let syntax = |source| PolicyError::ProfileSyntax { file: FILE, source };
    let data: Data = serde_json::from_str(data).map_err(syntax)?;
    check(&data).map_err(|why| PolicyError::Profile { file: FILE, why })?;
    serde_json::to_string_pretty(&data.settings).map_err(syntax)
}

fn check(data: &Data) -> Result<(), String> {
    let unreasoned = data.settings.keys().find(|key| {
        let reason = data.reasons.get(*key);
        reason.is_none_or(|reason| reason.trim().is_empty())
    });
    if let Some(key) = unreasoned {
        return Err(format!("`{key}` has no reason"));
    }
    let idle = data.reasons.keys();
    match idle
        .into_iter()
        .find(|key| !data.settings.contains_key(*key))
    {
        Some(key) => Err(format!("the reason for `{key}` has no setting")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_file_is_sound() {
        let settings: Value = serde_json::from_str(&load().unwrap()).unwrap();
        assert!(settings.is_object());
    }

    #[test]
    fn a_setting_without_a_reason_and_a_reason_without_a_setting_are_found() {
        let file = |settings: &str, reasons: &str| {
            text(&format!(
                r#"{{"about": "", "settings": {{{settings}}}, "reasons": {{{reasons}}}}}"#
            ))
        };
        assert_eq!(
            file(r#""a": 1"#, r#""a": "why""#).unwrap(),
            "{\n  \"a\": 1\n}"
        );
        for (settings, reasons) in [
            (r#""a": 1"#, ""),
            (r#""a": 1"#, r#""a": " ""#),
            ("", r#""a": "why""#),
        ] {
            let refused = file(settings, reasons);
            assert!(
                matches!(refused, Err(PolicyError::Profile { .. })),
                "{settings} {reasons}"
            );
        }
    }
}
