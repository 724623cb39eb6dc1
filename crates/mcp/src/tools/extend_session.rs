//! `extend_session`

use std::time::Duration;

use model::{Action, Outcome, Refusal};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Definition, Hints, fields, unexpected};
use crate::{call::Caller, reply::SessionReply, shape};

pub(super) struct ExtendSession;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Parameters {
    /// The session, as create_session or list_sessions named it: s- and 32 hexadecimal digits.
    #[schemars(length(min = 1, max = 64))]
    session_id: String,
    /// By how many seconds its end is moved; capped by maxSessionSeconds of get_server_info, counted from its start.
    #[schemars(range(min = 1, max = fields::MAX_LIFETIME_SECONDS))]
    seconds: u64,
}

impl TryFrom<Parameters> for Action {
    type Error = Refusal;

    fn try_from(parameters: Parameters) -> Result<Action, Refusal> {
        Ok(Action::ExtendSession {
            session: fields::session_id(&parameters.session_id)?,
            by: Duration::from_secs(parameters.seconds),
        })
    }
}

impl Definition for ExtendSession {
    const NAME: &'static str = "extend_session";
    const TITLE: &'static str = "Let a session live longer";
    const DESCRIPTION: &'static str = "Moves the end of a session's life (expiresAt) by so many seconds, up to the \
        operator's maximum. Use it when work needs longer than planned: at expiresAt the session ends, whatever runs in \
        it. Read the new expiresAt from the reply, as it may have been capped. Calling it twice extends twice. It does not \
        change idleSeconds, and cannot bring an ended session back. A disconnect or a cancelled request does not undo it.";
    const HINTS: Hints = Hints {
        read_only: false,
        destructive: false,
        idempotent: false,
    };
    type Parameters = Parameters;
    type Reply = SessionReply;

    async fn run(parameters: Parameters, caller: Caller) -> Result<SessionReply, Refusal> {
        let Outcome::Session(view) = caller.ask(Action::try_from(parameters)?).await? else {
            return Err(unexpected(Self::NAME));
        };
        Ok(shape::session(&view))
    }
}
