//! `deny_network`: a person at the command line says no to what a session wants to reach. No model can call it.

use model::{Action, AnswerNetwork, AnsweredBy, NetworkTarget, Outcome, Refusal};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Definition, Hints, fields, unexpected};
use crate::{arguments::invalid, call::Caller, reply::SessionReply, shape};

pub(super) struct DenyNetwork;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Parameters {
    /// The session.
    #[schemars(length(min = 1, max = 64))]
    session_id: String,
    /// What it wants to reach: host or host:port, the host exact.
    #[schemars(length(min = 1, max = 300))]
    target: String,
}

impl Definition for DenyNetwork {
    const NAME: &'static str = "deny_network";
    const TITLE: &'static str = "Say no to what a session wants to reach";
    const DESCRIPTION: &'static str = "Says no to a host that a session wants to reach, for as long as the session lives: nobody is asked about it again. For a person at the command line.";
    const HINTS: Hints = Hints {
        read_only: false,
        destructive: false,
        idempotent: true,
    };
    type Parameters = Parameters;
    type Reply = SessionReply;

    async fn run(parameters: Parameters, caller: Caller) -> Result<SessionReply, Refusal> {
        let action = Action::AnswerNetwork(AnswerNetwork {
            session: fields::session_id(&parameters.session_id)?,
            target: target(&parameters.target)?,
            allow: false,
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

fn target(text: &str) -> Result<NetworkTarget, Refusal> {
    let rule = fields::network_rule("target", text)?;
    match rule.ports.as_slice() {
        [port] => Ok(NetworkTarget {
            host: rule.host.to_string(),
            port: *port,
        }),
        _ => Err(invalid(
            "target",
            "`target` names more than one port; name one.",
        )),
    }
}
