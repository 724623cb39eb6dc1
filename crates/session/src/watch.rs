//! Follows executions to their end and puts that on record.

use std::{sync::Arc, time::Duration};

use model::{BackendName, ExecutionId, ExecutionState, ProtectedChange, SessionId};
use sandbox::{SupervisorError, wire::ExecutionStatus};

use crate::{
    execution::{End, Execution, RETRY},
    live::Live,
    sessions::Inner,
};

/// How long one question for the end of an execution stays open.
const WATCH_INTERVAL: Duration = Duration::from_secs(30);

impl Inner {
    /// Follows an execution to its end and puts that on record.
    pub(crate) async fn watch(self: Arc<Self>, live: Arc<Live>, execution: Arc<Execution>) {
        let end = loop {
            match execution
                .supervisor
                .wait(*execution.id.as_bytes(), WATCH_INTERVAL)
                .await
            {
                Ok(status) => {
                    if let Some(ended) = status.ended {
                        let (oom_kills, report) =
                            tokio::join!(self.oom_kills(live.id, live.backend), live.scan());
                        let mut changes = report.changes;
                        if report.incomplete {
                            changes.push(incomplete_scan());
                        }
                        break End::of(&status, ended, live.oom_kills_grew(oom_kills), changes);
                    }
                }
                Err(
                    SupervisorError::Timeout(_)
                    | SupervisorError::Interrupted(_)
                    | SupervisorError::TooManyOpen,
                ) => {
                    tokio::time::sleep(RETRY).await;
                }
                Err(
                    error @ (SupervisorError::Fault(_)
                    | SupervisorError::Ended
                    | SupervisorError::Protocol(_)
                    | SupervisorError::Version { .. }
                    | SupervisorError::Unsendable(_)),
                ) => {
                    tracing::info!(execution = %execution.id, %error, "an execution was lost");
                    break End::failed("its sandbox ended", execution.duration_ms());
                }
            }
        };
        self.settle(&live, &execution, end).await;
    }

    /// An execution has ended: who waits for it hears of it, and its end is put on record.
    pub(crate) async fn settle(&self, live: &Live, execution: &Execution, end: End) {
        execution.progress.send_if_modified(|progress| {
            let first = progress.end.is_none();
            if first {
                progress.end = Some(end);
            }
            first
        });
        live.leave(execution.id);
        let end = execution.progress.borrow().end.clone();
        if let Some(end) = end {
            self.record_end(execution.id, &end).await;
            let what = match execution.prompt {
                Some(_) => "prompt",
                None => "command",
            };
            let text = format!("{what} {} {}", execution.id, end.sentence());
            self.note(live.id, text).await;
        }
        // On record now: who asks later is answered from there.
        self.forget_ended_executions();
    }

    /// Takes up an execution that an earlier server started.
    pub(crate) fn adopt_execution(self: &Arc<Self>, live: &Arc<Live>, status: &ExecutionStatus) {
        let id = ExecutionId::from_bytes(status.execution);
        let execution = Execution::new(id, live, Duration::from_micros(status.duration_us));
        live.enter(&execution, u32::MAX);
        self.insert_execution(execution.clone());
        tokio::spawn(self.clone().watch(live.clone(), execution));
    }

    /// Puts the end of an execution on record whose session ended first.
    pub(crate) async fn record_loss(&self, execution: &Execution) {
        let end = execution.progress.borrow().end.clone();
        if let Some(end) = end {
            self.record_end(execution.id, &end).await;
        }
    }

    pub(crate) async fn record_end(&self, id: ExecutionId, end: &End) {
        let change = end.change();
        let open = [ExecutionState::Queued, ExecutionState::Running];
        if let Err(refusal) = self
            .stored(move |store| store.update_execution(id, &open, &change))
            .await
        {
            tracing::warn!(execution = %id, detail = ?refusal.detail, "the end of an execution is not on record");
        }
    }

    /// How often the kernel has killed a process of the session for memory.
    pub(crate) async fn oom_kills(&self, session: SessionId, backend: BackendName) -> u64 {
        self.usage(session, backend)
            .await
            .and_then(|usage| usage.oom_kills)
            .unwrap_or(0)
    }
}

pub(crate) fn incomplete_scan() -> ProtectedChange {
    ProtectedChange {
        path: ".".into(),
        moved_to: None,
        reason: "the workspace is too large to be scanned completely; look for new hooks and editor settings yourself"
            .to_owned(),
    }
}
