//! How a session ends, and what it is found to have left in its project.

use std::sync::Arc;

use model::{Reason, Refusal, SessionId, SessionState};
use store::SessionChange;

use crate::{
    live::{Live, ProtectedBy},
    protected::ScanReport,
    refusals,
    sessions::{Inner, LIVE, now_ms},
    view,
};

impl Inner {
    /// Removes the walls of a session that is on record.
    async fn take_down(&self, session: SessionId) -> Result<(), Refusal> {
        let record = self
            .record(session)
            .await?
            .ok_or_else(refusals::session_not_found)?;
        let backend = self.setup.backends.get(record.backend)?;
        backend
            .destroy(session)
            .await
            .map_err(|error| refusals::backend(&error))
    }

    /// Ends a session: first on record, so that nothing new starts, then its walls, then what it left in the project.
    pub(crate) async fn end(
        &self,
        session: SessionId,
        state: SessionState,
        because: &str,
    ) -> Result<(), Refusal> {
        let change = SessionChange {
            state: Some(state),
            ended_because: Some(because.to_owned()),
            ended_at_ms: Some(now_ms()),
            ..SessionChange::default()
        };
        let ended_now = self
            .stored(move |store| store.update_session(session, &LIVE, &change))
            .await?;
        if ended_now {
            self.queue.place_is_free();
        }
        let live = self.remove_live(session);
        self.pieces.forget(session);
        if let Some(live) = &live {
            live.stop_keeping();
        }
        let destroyed = self.take_down(session).await;
        match live {
            Some(live) => {
                for execution in live.abandon_executions() {
                    self.record_loss(&execution).await;
                }
                self.scan_and_note(&live).await;
            }
            None if ended_now => {
                if let Err(refusal) = self.scan_unseen(session).await {
                    tracing::warn!(%session, %refusal, detail = ?refusal.detail, "the workspace could not be scanned");
                }
            }
            None => {}
        }
        self.forget_ended_executions();
        if ended_now {
            self.note(session, format!("session {}: {because}", state.as_str()))
                .await;
        }
        destroyed.map_err(|why| {
            let mut refusal = Refusal::new(
                Reason::Internal,
                "The session is ended, but something of it is still being removed.",
                "The server goes on removing it; nothing is left for you to do.",
            );
            refusal.detail = why.detail.or(Some(why.message));
            refusal
        })
    }

    /// What the session's processes left in the project, unseen by any execution's own scan.
    pub(crate) async fn scan_and_note(&self, live: &Arc<Live>) {
        let report = live.scan().await;
        self.note_changes(live.id, report).await;
    }

    /// The same for a session that this server never had at hand.
    async fn scan_unseen(&self, session: SessionId) -> Result<(), Refusal> {
        let Some(record) = self.record(session).await? else {
            return Ok(());
        };
        let spec = record
            .spec
            .as_deref()
            .and_then(|json| serde_json::from_slice(json).ok());
        let Some(spec) = spec else { return Ok(()) };
        let mut scanner = self
            .scanner(&spec, Some(view::time(record.created_at_ms)))
            .await?;
        let settings = self.settings();
        let scanned = tokio::task::spawn_blocking(move || {
            let move_aside = !settings.allow_protected_changes;
            scanner.scan(&ProtectedBy(&settings.policy), move_aside)
        })
        .await;
        match scanned {
            Ok(Ok(report)) => self.note_changes(session, report).await,
            Ok(Err(error)) => {
                tracing::warn!(%session, %error, "the workspace could not be scanned")
            }
            Err(error) => return Err(Refusal::internal(&error)),
        }
        Ok(())
    }

    async fn note_changes(&self, session: SessionId, report: ScanReport) {
        if report.incomplete {
            self.note(
                session,
                "the workspace could not be scanned completely for protected paths",
            )
            .await;
        }
        for change in report.changes {
            let text = match change.moved_to {
                Some(moved) => format!("protected path {:?} was moved to {moved:?}", change.path),
                None => format!("protected path {:?} was changed", change.path),
            };
            self.note(session, text).await;
        }
    }
}
