//! What the outputs read of a record. Fields that a later version of the format adds may be missing, and others are passed
//! over, so that logs of before and after can be exported alike.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::{Actor, Client, Phase};

/// One record, as it tells.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Told {
    /// Version of its format.
    pub v: u32,
    /// Its number.
    pub seq: u64,
    /// When it was written.
    pub timestamp: Timestamp,
    /// What it is.
    pub phase: Phase,
    /// The operation that intent and result share.
    pub op: Option<String>,
    /// What is done.
    pub action: String,
    /// The session that it concerns.
    pub session_id: Option<String>,
    /// Who asked.
    pub actor: Actor,
    /// With which program.
    pub client: Client,
    /// By which way the call came.
    #[serde(default)]
    pub source: Option<Source>,
    /// On what it acts.
    #[serde(default)]
    pub target: Option<Target>,
    /// `allow` or `deny`.
    #[serde(default)]
    pub decision: Option<String>,
    /// Details.
    #[serde(default)]
    pub parameters: BTreeMap<String, Value>,
    /// How it ended; `pending` for an intent.
    pub result: String,
    /// The code of a refusal or failure.
    pub reason: Option<String>,
    /// From intent to result, milliseconds.
    pub duration_ms: Option<u64>,
    /// Its own hash.
    pub hash: String,
}

/// By which way a call came.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Source {
    /// `local`, `http`, `http_unix`, `system`.
    pub transport: String,
    /// The address of the caller, where there is one.
    #[serde(default)]
    pub address: Option<String>,
}

/// On what an action acts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Target {
    /// What it is: `session`, `execution`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Which one.
    #[serde(default)]
    pub id: Option<String>,
}

impl Told {
    /// Reads a line; `None` where it is no record.
    pub fn read(line: &[u8]) -> Option<Told> {
        serde_json::from_slice(line).ok()
    }

    /// A detail that is a text.
    pub fn word(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).and_then(Value::as_str)
    }

    /// A detail that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.parameters.get(name).and_then(Value::as_u64)
    }
}
