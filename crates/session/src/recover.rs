//! After a restart, and every now and then: what is on record and what exists are made one again.
//!
//! | on record | sandbox | then |
//! |---|---|---|
//! | live | runs | taken up again: its supervisor dials, its executions are watched on |
//! | live | runs, but its supervisor does not dial | tried again; its lease ends it if it never does |
//! | live | gone | the session is ended as `orphaned` |
//! | not live, or unknown | any remains | removed |

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use model::{ExecutionId, ExecutionState, ReapCause, Refusal, SandboxSpec, SessionId};
use policy::SystemPermit;
use sandbox::{Listed, Supervisor};
use store::{ExecutionChange, ExecutionRecord, Filter, SessionRecord};

use crate::{
    execution::started_at,
    live::{Live, Parts},
    refusals,
    sessions::{Inner, ReapRequest, Sessions, now_ms},
    view,
};

/// How long a supervisor may take to dial again; it tries at least once a second.
const REDIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Executions of a session that are looked at when it is taken up again.
const MAX_EXECUTIONS: u32 = 1_000;

/// Sessions that are taken up side by side: each waits up to a second for its supervisor to dial.
const ADOPTIONS_AT_ONCE: usize = 64;

/// What became of a session that is live on record.
enum Found {
    /// Its supervisor is at hand again.
    Adopted,
    /// Its sandbox is gone, or was never finished.
    Gone,
    /// It runs, and may dial yet: the next round tries again. If it never does, its lease ends it, since nobody renews
    /// that.
    Silent,
}

/// What reconciling did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Sessions that were taken up again.
    pub adopted: Vec<SessionId>,
    /// Sessions that were reported for reaping: their sandbox is gone.
    pub orphaned: Vec<SessionId>,
    /// Sandboxes, or remains of them, that no live session owns; they were removed.
    pub removed: Vec<SessionId>,
}

impl Sessions {
    /// Makes record and reality one. Level-triggered: it can run at any time, and does nothing twice.
    ///
    /// # Errors
    /// When the store or the backend cannot be read; single sessions that fail are logged and tried again next time.
    pub async fn reconcile(&self, permit: SystemPermit) -> Result<Recovered, Refusal> {
        let _ = permit.into_parts();
        // Objects first: a session that is made meanwhile is then on record when its objects are compared.
        let listed = self
            .0
            .setup
            .backend
            .list()
            .await
            .map_err(|error| refusals::backend(&error))?;
        let records = self
            .0
            .stored(|store| {
                store.sessions(Filter {
                    principal: None,
                    live_only: true,
                })
            })
            .await?;
        let mut recovered = Recovered::default();
        let lost: Vec<_> = records
            .iter()
            .filter(|record| self.0.live(record.id).is_none() && !self.0.is_creating(record.id))
            .collect();
        for some in lost.chunks(ADOPTIONS_AT_ONCE) {
            let found = some.iter().map(|record| self.take_up(record, &listed));
            for (record, found) in some.iter().zip(join_all(found).await) {
                match found {
                    Found::Adopted => recovered.adopted.push(record.id),
                    Found::Gone => recovered.orphaned.push(record.id),
                    Found::Silent => {}
                }
            }
        }
        for session in &recovered.orphaned {
            let _ = self.0.setup.reap.send(ReapRequest {
                session: *session,
                because: ReapCause::Orphaned,
            });
        }
        for found in listed {
            let is_live = records.iter().any(|record| record.id == found.session);
            if !is_live
                && self
                    .0
                    .record(found.session)
                    .await?
                    .is_none_or(|record| !record.state.is_live())
            {
                match self.0.setup.backend.destroy(found.session).await {
                    Ok(()) => recovered.removed.push(found.session),
                    Err(error) => {
                        tracing::warn!(session = %found.session, %error, "remains were not removed")
                    }
                }
            }
        }
        Ok(recovered)
    }

    /// Takes up a session that is live on record, if its sandbox is there.
    async fn take_up(&self, record: &SessionRecord, listed: &[Listed]) -> Found {
        if !listed
            .iter()
            .any(|found| found.session == record.id && found.running)
        {
            return Found::Gone;
        }
        match self.adopt(record).await {
            Ok(true) => Found::Adopted,
            Ok(false) => Found::Gone,
            Err(refusal) => {
                tracing::warn!(session = %record.id, %refusal, detail = ?refusal.detail, "not taken up yet");
                Found::Silent
            }
        }
    }

    /// Takes up a session whose sandbox runs. `false`: it cannot be, since its record lacks what is needed.
    async fn adopt(&self, record: &SessionRecord) -> Result<bool, Refusal> {
        let spec: Option<SandboxSpec> = record
            .spec
            .as_deref()
            .and_then(|json| serde_json::from_slice(json).ok());
        let Some(spec) = spec else { return Ok(false) };
        let lease = Duration::from_millis(u64::from(spec.lease_ms));
        let link = self
            .0
            .setup
            .backend
            .connect(record.id)
            .await
            .map_err(|error| refusals::backend(&error))?;
        let (attached, scanner) = tokio::join!(
            Supervisor::attach(link, lease, REDIAL_TIMEOUT),
            self.0
                .scanner(&spec, Some(view::time(record.created_at_ms)))
        );
        let (supervisor, _) = attached.map_err(|error| refusals::supervisor(&error))?;
        let live = Live::new(
            Parts {
                id: record.id,
                owner: record.principal.clone(),
                workspace: spec.workspace,
                idle: Duration::from_millis(record.idle_ms),
                lease,
                expires_at: view::time(record.expires_at_ms),
                scanner: Some(scanner?),
                policy: self.0.setup.policy.clone(),
                allow_protected_changes: self.0.setup.allow_protected_changes,
            },
            supervisor,
        );
        // What the kernel killed before is nobody's news.
        live.oom_kills_grew(self.0.oom_kills(record.id).await);
        self.0.clone().adopt_executions(&live).await?;
        self.0.insert_live(live.clone());
        self.0.keep(&live);
        self.0
            .note(record.id, "the server was restarted; the session goes on")
            .await;
        self.0.scan_and_note(&live).await;
        Ok(true)
    }
}

impl Inner {
    /// Watches on what the supervisor remembers, and closes what it does not.
    async fn adopt_executions(self: Arc<Self>, live: &Arc<Live>) -> Result<(), Refusal> {
        let remembered = live
            .supervisor
            .list()
            .await
            .map_err(|error| refusals::supervisor(&error))?;
        let session = live.id;
        let records = self
            .stored(move |store| store.executions(session, MAX_EXECUTIONS))
            .await?;
        for status in &remembered {
            let id = ExecutionId::from_bytes(status.execution);
            if !records.iter().any(|record| record.id == id) {
                let record = ExecutionRecord {
                    id,
                    session,
                    state: ExecutionState::Running,
                    started_at_ms: started_at(status.duration_us),
                    ended_at_ms: None,
                    timeout_ms: None,
                    exit_code: None,
                    signal: None,
                    oom_killed: false,
                    duration_ms: 0,
                    failure: None,
                    protected_changes: None,
                };
                self.stored(move |store| store.insert_execution(&record))
                    .await?;
            }
            self.adopt_execution(live, status);
        }
        for record in records.iter().filter(|record| !record.state.is_final()) {
            if !remembered
                .iter()
                .any(|status| ExecutionId::from_bytes(status.execution) == record.id)
            {
                let change = ExecutionChange {
                    state: Some(ExecutionState::Failed),
                    ended_at_ms: Some(now_ms()),
                    failure: Some(
                        "it was not running any more when the server came back".to_owned(),
                    ),
                    ..ExecutionChange::default()
                };
                let (id, open) = (record.id, [ExecutionState::Queued, ExecutionState::Running]);
                self.stored(move |store| store.update_execution(id, &open, &change))
                    .await?;
            }
        }
        Ok(())
    }
}
