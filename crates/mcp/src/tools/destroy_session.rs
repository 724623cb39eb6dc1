//! `destroy_session`

use model::{Action, Outcome, Refusal};

use super::{Definition, Hints, fields, fields::SessionParameters, unexpected};
use crate::{
    call::Caller,
    reply::{DestroyReply, SessionStateName},
};

pub(super) struct DestroySession;

impl Definition for DestroySession {
    const NAME: &'static str = "destroy_session";
    const TITLE: &'static str = "Destroy a session";
    const DESCRIPTION: &'static str = "Ends a session at once: its running executions are killed, their output and \
        everything outside the project is removed. The project's files stay as they are. Fetch other files with \
        transfer_files first. It cannot be undone; destroying again changes nothing. Once started it is carried through, \
        whatever becomes of the request or the connection.";
    const HINTS: Hints = Hints {
        read_only: false,
        destructive: true,
        idempotent: true,
    };
    type Parameters = SessionParameters;
    type Reply = DestroyReply;

    async fn run(parameters: SessionParameters, caller: Caller) -> Result<DestroyReply, Refusal> {
        let Outcome::Destroyed(session) = caller
            .ask(fields::on_session(&parameters, Action::DestroySession)?)
            .await?
        else {
            return Err(unexpected(Self::NAME));
        };
        Ok(DestroyReply {
            session_id: session.to_string(),
            state: SessionStateName::Destroyed,
            message: "The session is gone; the project's files are as it left them.".to_owned(),
        })
    }
}
