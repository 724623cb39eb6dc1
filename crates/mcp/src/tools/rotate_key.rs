//! `rotate_key`: makes a key that takes the place of another. Not listed; no model comes upon it.

use std::time::Duration;

use model::{Action, Outcome, Refusal};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Definition, Hints, fields, unexpected};
use crate::{call::Caller, reply::NewKeyReply, shape};

/// How long both keys are valid where nothing is said, seconds: a day.
const DEFAULT_OVERLAP_SECONDS: u64 = 24 * 3600;
/// How long they can be, seconds: 30 days.
const MAX_OVERLAP_SECONDS: u64 = 30 * 24 * 3600;

pub(super) struct RotateKey;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Parameters {
    /// The key, as create_key or list_keys named it.
    #[schemars(length(min = 1, max = 64))]
    key_id: String,
    /// How long the old key stays valid beside the new one, seconds. Default: a day.
    #[schemars(range(max = MAX_OVERLAP_SECONDS))]
    overlap_seconds: Option<u64>,
}

impl Definition for RotateKey {
    const NAME: &'static str = "rotate_key";
    const TITLE: &'static str = "Put a new key in the place of another";
    const DESCRIPTION: &'static str = "Makes a key with the rights of another, whose sessions are its sessions; the other one stays valid for a \
        while. The reply shows the new one once. For whoever manages keys.";
    const HINTS: Hints = Hints {
        read_only: false,
        destructive: false,
        idempotent: false,
    };
    type Parameters = Parameters;
    type Reply = NewKeyReply;

    async fn run(parameters: Parameters, caller: Caller) -> Result<NewKeyReply, Refusal> {
        let overlap = parameters
            .overlap_seconds
            .unwrap_or(DEFAULT_OVERLAP_SECONDS);
        let action = Action::RotateKey {
            key: fields::key_id(&parameters.key_id)?,
            overlap: Duration::from_secs(overlap),
        };
        let Outcome::KeyMade(made) = caller.ask(action).await? else {
            return Err(unexpected(Self::NAME));
        };
        Ok(shape::new_key(&made))
    }
}
