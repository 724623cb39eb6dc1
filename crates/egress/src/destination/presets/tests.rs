#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;

use super::*;
use crate::destination::is_guarded_port;

fn data() -> Data {
    serde_json::from_str(DATA).unwrap()
}

#[test]
fn the_file_has_the_presets_that_are_promised() {
    let names: Vec<_> = preset_names().collect();
    assert_eq!(
        names,
        ["anthropic", "github", "debian", "crates", "pypi", "npm"]
    );
    assert_eq!(preset("gitlab"), None);
    let debian: Vec<String> = preset("debian")
        .unwrap()
        .iter()
        .map(|entry| entry.rule.to_string())
        .collect();
    assert_eq!(
        debian,
        ["deb.debian.org:80,443", "security.debian.org:80,443"]
    );
}

#[test]
fn each_entry_has_a_reason_of_its_own_and_is_needed() {
    for preset in data().presets {
        assert!(
            preset._reason.len() > 20 && !preset.rules.is_empty(),
            "{}",
            preset.name
        );
        let reasons: HashSet<_> = preset.rules.iter().map(|entry| &entry.reason).collect();
        assert_eq!(reasons.len(), preset.rules.len(), "{}", preset.name);
        for (place, entry) in preset.rules.iter().enumerate() {
            assert!(entry.reason.len() > 10, "{}", entry.rule);
            let others = preset.rules.iter().enumerate();
            for (_, other) in others.filter(|(other, _)| *other != place) {
                assert!(
                    !other.rule.covers(&entry.rule),
                    "{} in {}",
                    entry.rule,
                    other.rule
                );
            }
        }
    }
}

#[test]
fn no_preset_opens_what_is_the_operators_to_open() {
    for entry in data().presets.iter().flat_map(|preset| &preset.rules) {
        assert!(
            !entry.rule.private && !entry.rule.opens_tls(),
            "{}",
            entry.rule
        );
        assert!(
            entry
                .rule
                .ports
                .iter()
                .all(|port| [80, 443].contains(port) && !is_guarded_port(*port)),
            "{}",
            entry.rule
        );
    }
}

#[test]
fn the_model_itself_is_in_no_preset() {
    let api = "api.anthropic.com";
    for entry in data().presets.iter().flat_map(|preset| &preset.rules) {
        assert!(!entry.rule.host.matches(api), "{}", entry.rule);
    }
}

#[test]
fn a_rule_that_is_none_fails_the_whole_file() {
    let broken = DATA.replacen("index.crates.io", "127.0.0.1", 1);
    assert!(broken != DATA && serde_json::from_str::<Data>(&broken).is_err());
    let unknown = DATA.replacen("\"rule\"", "\"private\": true, \"rule\"", 1);
    assert!(unknown != DATA && serde_json::from_str::<Data>(&unknown).is_err());
}
