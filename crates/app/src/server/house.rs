//! What the server needs of the house behind it: one road, a count, an end.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use control::Road;
use serde::{Deserialize, Serialize};

use crate::config::FileLookedFor;

/// The house behind the doors, built by [`crate::wiring::build`].
#[async_trait]
pub trait House: Send + Sync + 'static {
    /// The one road that every call passes.
    fn road(&self) -> Arc<dyn Road>;

    /// Somebody from elsewhere has a key that is good.
    fn has_keys(&self) -> bool;

    /// Sessions that hold a place among `MAX_CONCURRENT_SESSIONS`. A server with one does not end for being idle.
    async fn live_sessions(&self) -> u32;

    /// Whose they are: how many each owner has, by the owner's name. Nothing where that is not known.
    async fn session_owners(&self) -> BTreeMap<String, u32>;

    /// Reads the configuration again and puts in force what can be, whole or not at all. It is finished also when nobody
    /// waits for it any more.
    async fn reload(&self) -> Reloaded;

    /// Stops what runs in this process. Sessions live on; their lease decides. Bounded by the caller.
    async fn shutdown(&self);
}

/// What came of reading the configuration again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reloaded {
    /// In one word.
    pub outcome: ReloadOutcome,
    /// Keys with another value than before, in the order of the reference page.
    #[serde(default)]
    pub changed: Vec<ChangedKey>,
    /// Keys whose new value counts only after a restart, also such of earlier times.
    #[serde(default)]
    pub needs_restart: Vec<String>,
    /// Live sessions from which something of the network was taken.
    #[serde(default)]
    pub narrowed_sessions: u32,
    /// Why nothing changed: sentences with places.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Which file the server reads; nothing where that is not known.
    #[serde(default)]
    pub source: Option<FileLookedFor>,
}

/// See [`Reloaded`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadOutcome {
    /// Something is written otherwise, and what can count counts.
    Changed,
    /// All is written as before. Files that are named were read again.
    Unchanged,
    /// Something is wrong with it: nothing changed.
    Rejected,
}

/// See [`Reloaded`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangedKey {
    /// The key.
    pub key: String,
    /// `at_once`, `new_sessions` or `restart`.
    pub applies: String,
}
