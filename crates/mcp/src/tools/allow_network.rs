//! `allow_network`: a person at the command line lets a session reach more. No model can call it.

use model::{Action, AnsweredBy, Outcome, Refusal, WidenNetwork};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Definition, Hints, fields, unexpected};
use crate::{call::Caller, reply::SessionReply, shape};

pub(super) struct AllowNetwork;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Parameters {
    /// The session.
    #[schemars(length(min = 1, max = 64))]
    session_id: String,
    /// Hosts: host, host:port or host:port,port, the host exact or *.suffix.
    #[schemars(length(min = 1, max = 64))]
    allow: Vec<String>,
}

impl Definition for AllowNetwork {
    const NAME: &'static str = "allow_network";
    const TITLE: &'static str = "Let a session reach more";
    const DESCRIPTION: &'static str = "Lets a session that runs reach further hosts, up to what the operator allows. For a person at the command line.";
    const HINTS: Hints = Hints {
        read_only: false,
        destructive: false,
        idempotent: true,
    };
    type Parameters = Parameters;
    type Reply = SessionReply;

    async fn run(parameters: Parameters, caller: Caller) -> Result<SessionReply, Refusal> {
        let texts = parameters.allow.iter().enumerate();
        let rules =
            texts.map(|(index, text)| fields::network_rule(&format!("allow[{index}]"), text));
        let action = Action::WidenNetwork(WidenNetwork {
            session: fields::session_id(&parameters.session_id)?,
            allow: rules.collect::<Result<_, _>>()?,
            by: match caller.is_person {
                true => AnsweredBy::Person,
                false => AnsweredBy::Caller,
            },
        });
        let Outcome::Session(view) = caller.ask(action).await? else {
            return Err(unexpected(Self::NAME));
        };
        Ok(shape::session(&view))
    }
}
