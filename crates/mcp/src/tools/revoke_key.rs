//! `revoke_key`: ends a key. Not listed; no model comes upon it.

use model::{Action, Outcome, Refusal};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Definition, Hints, fields, unexpected};
use crate::{call::Caller, reply::RevokedKeyReply, shape};

pub(super) struct RevokeKey;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Parameters {
    /// The key, as create_key or list_keys named it.
    #[schemars(length(min = 1, max = 64))]
    key_id: String,
    /// End its sessions, too. Default: they live until their lifetime or idle time is over.
    #[serde(default)]
    destroy_sessions: bool,
}

impl Definition for RevokeKey {
    const NAME: &'static str = "revoke_key";
    const TITLE: &'static str = "End a key";
    const DESCRIPTION: &'static str =
        "Refuses a key from now on, also in calls that wait. For whoever manages keys.";
    const HINTS: Hints = Hints {
        read_only: false,
        destructive: true,
        idempotent: true,
    };
    type Parameters = Parameters;
    type Reply = RevokedKeyReply;

    async fn run(parameters: Parameters, caller: Caller) -> Result<RevokedKeyReply, Refusal> {
        let action = Action::RevokeKey {
            key: fields::key_id(&parameters.key_id)?,
            destroy_sessions: parameters.destroy_sessions,
        };
        let Outcome::KeyRevoked(revoked) = caller.ask(action).await? else {
            return Err(unexpected(Self::NAME));
        };
        Ok(shape::revoked_key(&revoked))
    }
}
