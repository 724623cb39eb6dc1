//! Named sets of rules: `profiles/egress-presets.json`.

use std::sync::LazyLock;

use model::EgressRule;
use serde::{Deserialize, Deserializer, de::Error as _};

const DATA: &str = include_str!("../../../../profiles/egress-presets.json");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    #[serde(rename = "about")]
    _about: String,
    presets: Vec<Preset>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Preset {
    name: String,
    #[serde(rename = "reason")]
    _reason: String,
    rules: Vec<PresetRule>,
}

/// One rule of a preset.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetRule {
    /// What it allows.
    #[serde(deserialize_with = "rule")]
    pub rule: EgressRule,
    /// Why.
    pub reason: String,
}

/// Compiled in and read whole by the tests. If it could not be read, there would be no presets: nothing would be allowed by one.
static PRESETS: LazyLock<Vec<Preset>> = LazyLock::new(|| {
    serde_json::from_str::<Data>(DATA)
        .map(|data| data.presets)
        .unwrap_or_default()
});

/// The rules of a preset.
pub fn preset(name: &str) -> Option<&'static [PresetRule]> {
    PRESETS
        .iter()
        .find(|preset| preset.name == name)
        .map(|preset| preset.rules.as_slice())
}

/// The names of all presets, in the order of the file.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|preset| preset.name.as_str())
}

fn rule<'de, D: Deserializer<'de>>(text: D) -> Result<EgressRule, D::Error> {
    String::deserialize(text)?.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests;
