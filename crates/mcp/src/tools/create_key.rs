//! `create_key`: makes a key for a remote caller. Not listed; no model comes upon it.

use std::time::Duration;

use model::{Action, CreateKey as Create, Outcome, Refusal, Scope, ScopeError};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Definition, Hints, fields, unexpected};
use crate::{arguments::invalid, call::Caller, reply::NewKeyReply, shape};

/// Longest life of a key, seconds: ten years.
const MAX_VALID_SECONDS: u64 = 3650 * 24 * 3600;

pub(super) struct CreateKey;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Parameters {
    /// What people call it.
    #[schemars(length(min = 1, max = 64))]
    name: String,
    /// What it may do: sessions:read, sessions:run, files, network, admin.
    #[schemars(length(min = 1, max = 5), inner(length(min = 1, max = 32)))]
    scopes: Vec<String>,
    /// Directories below which its projects are. A remote caller names them relative to its own.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = fields::MAX_PATH_BYTES)))]
    roots: Vec<String>,
    /// Live sessions that it may have at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    max_sessions: Option<u32>,
    /// Calls a minute that it may make.
    #[schemars(range(min = 1, max = 1_000_000))]
    calls_per_minute: Option<u32>,
    /// How long it is valid; until it is revoked otherwise.
    #[schemars(range(min = 1, max = MAX_VALID_SECONDS))]
    expires_seconds: Option<u64>,
}

impl Parameters {
    fn into_action(self, is_remote: bool) -> Result<Action, Refusal> {
        let scopes = self.scopes.iter().map(|word| {
            word.parse::<Scope>()
                .map_err(|error: ScopeError| invalid("scopes", format!("In `scopes`, {error}.")))
        });
        let roots = self
            .roots
            .iter()
            .map(|root| fields::project_path("roots", root, is_remote));
        fields::no_controls("name", &self.name)?;
        Ok(Action::CreateKey(Box::new(Create {
            scopes: scopes.collect::<Result<_, _>>()?,
            roots: roots.collect::<Result<_, _>>()?,
            name: self.name,
            max_sessions: self.max_sessions,
            calls_per_minute: self.calls_per_minute,
            valid_for: self.expires_seconds.map(Duration::from_secs),
        })))
    }
}

impl Definition for CreateKey {
    const NAME: &'static str = "create_key";
    const TITLE: &'static str = "Make a key for a remote caller";
    const DESCRIPTION: &'static str = "Makes a key with which somebody can use this server from elsewhere. The reply shows it once. For whoever manages keys.";
    const HINTS: Hints = Hints {
        read_only: false,
        destructive: false,
        idempotent: false,
    };
    type Parameters = Parameters;
    type Reply = NewKeyReply;

    async fn run(parameters: Parameters, caller: Caller) -> Result<NewKeyReply, Refusal> {
        let action = parameters.into_action(caller.is_remote())?;
        let Outcome::KeyMade(made) = caller.ask(action).await? else {
            return Err(unexpected(Self::NAME));
        };
        Ok(shape::new_key(&made))
    }
}
