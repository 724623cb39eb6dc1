//! `profiles/seccomp.json`: which system calls a sandbox may make. Each backend brings it into its own form.

use serde::Deserialize;

const PROFILE: &str = include_str!("../../../profiles/seccomp.json");

impl SeccompProfile {
    /// The profile that ships.
    ///
    /// # Errors
    /// When it does not parse; a test parses it.
    pub fn shipped() -> Result<Self, serde_json::Error> {
        serde_json::from_str(PROFILE)
    }
}

/// The profile: what is allowed, allowed under conditions, refused with a certain answer, and what becomes of the rest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeccompProfile {
    /// Answers to the rest.
    pub default: DefaultAnswers,
    /// Allowed.
    pub allow: Vec<Allow>,
    /// Allowed under conditions.
    pub allow_if: Vec<AllowIf>,
    /// Refused by name.
    pub deny: Vec<Deny>,
}

/// Answers to what no list allows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultAnswers {
    /// To calls that no list names: the name of an errno.
    pub unknown: String,
    /// To calls whose conditions do not hold: the name of an errno.
    pub condition: String,
    /// Why.
    pub reason: String,
}

/// Calls that are allowed whatever their arguments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// Names of the calls.
    pub names: Vec<String>,
    /// Why.
    pub reason: String,
}

/// One alternative under which a call is allowed: all its conditions hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowIf {
    /// Name of the call.
    pub name: String,
    /// Conditions, all of which hold.
    pub args: Vec<SeccompArgument>,
    /// Why.
    pub reason: String,
}

/// Calls that are refused with an answer of their own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deny {
    /// Names of the calls.
    pub names: Vec<String>,
    /// Name of the answer.
    pub errno: String,
    /// Why.
    pub reason: String,
}

/// A condition on an argument.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeccompArgument {
    /// Which argument, from 0.
    pub index: u8,
    /// `eq`, `ne`, `le` or `masked_eq`.
    pub op: String,
    /// What it is compared with.
    pub value: u64,
    /// Which of its bits count, for `masked_eq`.
    pub mask: Option<u64>,
    /// How many bits of the argument the kernel reads: 32 or 64.
    pub width: u8,
}
