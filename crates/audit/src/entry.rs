//! An action in progress.

use std::time::Instant;

use model::{Reason, SessionId};

use crate::{
    AuditError, AuditLog, Closing, Durability, Intent, Parameter, Phase,
    record::{self, Actor, Body, Client, Middle, Object, Origin},
    writer::Class,
};

/// An action whose result is still to come. Dropped without [`Entry::close`], its result is `aborted`.
#[must_use = "an entry that is dropped records `aborted`"]
pub struct Entry {
    log: AuditLog,
    operation: String,
    intent: Intent,
    /// What became known on the way.
    found: Vec<(&'static str, Parameter)>,
    actor: Actor,
    durability: Durability,
    started: Instant,
    /// The result is recorded, or must not be.
    settled: bool,
}

impl Entry {
    pub(crate) fn new(
        log: AuditLog,
        operation: String,
        intent: Intent,
        actor: Actor,
        durability: Durability,
    ) -> Self {
        Entry {
            log,
            operation,
            intent,
            found: Vec::new(),
            actor,
            durability,
            started: Instant::now(),
            settled: false,
        }
    }

    /// The id that intent and result share.
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// Names the session that the action made; the result carries it.
    pub fn set_session(&mut self, session: SessionId) {
        self.intent.session = Some(session);
    }

    /// Adds a detail that was not known before; the result carries it.
    pub fn note(&mut self, name: &'static str, value: Parameter) {
        self.found.push((name, value));
    }

    /// Records the result and waits for nothing: for who cannot, such as a drop.
    pub fn close_later(mut self, closing: Closing) {
        let (result, reason) = words(closing);
        let (middle, class) = self.settle(result, reason);
        self.log.append_later(middle, class);
    }

    /// Records the result. For a change it is written when this returns, so that the end of this program does not lose
    /// it, and synced a moment later; a read is not waited for.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`] when the result of a change is not on disk, not even in the reserve. The action is
    /// over all the same; the next gap record counts it.
    pub async fn close(mut self, closing: Closing) -> Result<(), AuditError> {
        let (result, reason) = words(closing);
        let (middle, class) = self.settle(result, reason);
        match class {
            Class::Read => {
                self.log.append_later(middle, class);
                Ok(())
            }
            Class::Refusable | Class::Unstoppable | Class::Needed | Class::Result => {
                Ok(self.log.append(middle, class).await?)
            }
        }
    }

    /// The line before the action.
    pub(crate) fn intent(&self) -> Middle {
        self.body(Phase::Intent, "pending", None, None).encode()
    }

    /// The intent was refused: there is nothing to give a result to.
    pub(crate) fn disarm(mut self) {
        self.settled = true;
    }

    /// The line after the action. Sent by the caller without a pause, so that it is sent exactly once.
    fn settle(&mut self, result: &str, reason: Option<Reason>) -> (Middle, Class) {
        self.settled = true;
        let duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let class = match self.durability {
            Durability::Durable | Durability::Reserve => Class::Result,
            Durability::Buffered => Class::Read,
        };
        (
            self.body(Phase::Result, result, reason, Some(duration_ms))
                .encode(),
            class,
        )
    }

    fn body(
        &self,
        phase: Phase,
        result: &str,
        reason: Option<Reason>,
        duration_ms: Option<u64>,
    ) -> Body {
        let mut details = match (phase, self.durability) {
            (Phase::Result, Durability::Durable | Durability::Reserve) => Vec::new(),
            (Phase::Intent | Phase::Result | Phase::Event, _) => self.intent.parameters.clone(),
        };
        details.extend(self.found.iter().cloned());
        Body {
            phase,
            op: Some(self.operation.clone()),
            action: self.intent.action.to_owned(),
            session_id: self.intent.session,
            actor: self.actor.clone(),
            client: Client::new(&self.intent.client),
            source: Origin::new(self.intent.source),
            target: self
                .intent
                .target
                .as_ref()
                .map(Object::new)
                .or(self.intent.session.map(Object::session)),
            decision: decision(phase, result).map(str::to_owned),
            parameters: record::parameters(&details),
            result: result.to_owned(),
            reason: reason.map(|reason| reason.code().to_owned()),
            duration_ms,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.settled {
            let (middle, class) = self.settle("aborted", None);
            self.log.append_later(middle, class);
        }
    }
}

/// What was decided, as far as the result tells: what failed was allowed, and what was given up may not have been decided.
fn decision(phase: Phase, result: &str) -> Option<&'static str> {
    match (phase, result) {
        (Phase::Result, "ok" | "failed") => Some("allow"),
        (Phase::Result, "denied") => Some("deny"),
        (Phase::Intent | Phase::Result | Phase::Event, _) => None,
    }
}

const fn words(closing: Closing) -> (&'static str, Option<Reason>) {
    match closing {
        Closing::Ok => ("ok", None),
        Closing::Denied(reason) => ("denied", Some(reason)),
        Closing::Failed(reason) => ("failed", Some(reason)),
        Closing::Aborted => ("aborted", None),
    }
}
