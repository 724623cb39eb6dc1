//! What the audit log hears of a prompt that had to wait, when its turn comes: the call that gave it may be long over, and what is
//! done for it now (a start of Claude Code, the message) lies in no call. Nothing of what was said: that call has its digest.

use std::sync::Arc;

use audit::{AuditLog, Closing, Durability, Entry, Intent, Parameter, Target};
use model::{ClientInfo, ExecutionId, Reason, SessionId, Source};
use session::{Beginning, Operation, TurnLog, Turns};

use crate::road::audit_unavailable;

/// A prompt begins, in the log.
const BEGIN: &str = "prompt.begin";
/// With which program, in the log: for who gave the prompt the server acts by itself.
const CLIENT: &str = "prompt queue";

/// The log of all prompts of a server that had to wait.
pub struct TurnAudit(AuditLog);

impl TurnAudit {
    /// They are written to that log.
    pub fn new(audit: AuditLog) -> Self {
        TurnAudit(audit)
    }
}

impl TurnLog for TurnAudit {
    fn of(&self, session: SessionId, owner: &str) -> Arc<dyn Turns> {
        Arc::new(SessionTurns {
            audit: self.0.clone(),
            session,
            owner: owner.to_owned(),
        })
    }
}

/// One session's.
struct SessionTurns {
    audit: AuditLog,
    session: SessionId,
    /// Nobody else gives it prompts.
    owner: String,
}

impl SessionTurns {
    fn intent(&self, prompt: ExecutionId) -> Intent {
        Intent {
            action: BEGIN,
            session: Some(self.session),
            principal: self.owner.clone(),
            client: ClientInfo {
                name: CLIENT.to_owned(),
                version: String::new(),
            },
            source: Source::SYSTEM,
            target: Some(Target {
                kind: "execution",
                id: prompt.to_string(),
            }),
            parameters: vec![("execution", Parameter::Word(prompt.to_string()))],
        }
    }
}

impl Turns for SessionTurns {
    fn begin(&self, prompt: ExecutionId) -> Beginning<'_> {
        Box::pin(async move {
            let begun = self.audit.begin(self.intent(prompt), Durability::Durable);
            let entry = begun.await.map_err(|error| {
                tracing::warn!(session = %self.session, %prompt, %error, "a prompt did not begin");
                audit_unavailable(&error)
            })?;
            Ok(Box::new(Begun(entry)) as Box<dyn Operation>)
        })
    }
}

/// One that is on record.
struct Begun(Entry);

impl Operation for Begun {
    fn end(self: Box<Self>, how: Result<(), Reason>) {
        self.0.close_later(match how {
            Ok(()) => Closing::Ok,
            Err(reason) => Closing::Failed(reason),
        });
    }
}

#[cfg(test)]
mod tests;
