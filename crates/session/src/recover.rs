//! After a restart, and every now and then: what is on record and what exists are made one again. A survey says what is
//! to be done; each part of it is a call of its own on the road.
//!
//! | on record | sandbox | then |
//! |---|---|---|
//! | live | runs | taken up again: its supervisor dials, its executions are watched on |
//! | live | runs, but its supervisor does not dial | tried again; its lease ends it if it never does |
//! | live | gone, or never finished | the session is ended as `orphaned` |
//! | not live, or unknown | any remains | removed |

use std::{collections::HashSet, sync::Arc, time::Duration};

use agent::Kept;
use model::{BackendName, ExecutionId, ExecutionState, ReapCause, Refusal, SandboxSpec, SessionId};
use policy::{SystemPermit, SystemVerb};
use sandbox::{Listed, Supervisor, wire::ExecutionStatus};
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

/// Where record and reality differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Live on record, running, and not at hand: to be taken up again.
    pub lost: Vec<SessionId>,
    /// Live on record, and their sandbox is gone or was never finished: to be ended.
    pub orphaned: Vec<SessionId>,
    /// Sandboxes, or remains of them, that no live session owns: to be removed.
    pub remains: Vec<Remains>,
}

/// What is left of a sandbox, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remains {
    /// The session that it was made for.
    pub session: SessionId,
    /// The walls that it is made of.
    pub backend: BackendName,
}

impl Sessions {
    /// The walls whose sessions are surveyed.
    pub fn backends(&self) -> Vec<BackendName> {
        self.0.setup.backends.names().collect()
    }

    /// Compares record and reality of one backend's sessions, so that one that does not answer keeps nobody waiting but
    /// its own. Level-triggered: it can run at any time, and finds nothing twice that was done.
    ///
    /// # Errors
    /// When the store cannot be read, or the backend does not answer, an engine that restarts say: its sessions are
    /// neither ended nor taken up meanwhile.
    pub async fn survey(
        &self,
        permit: SystemPermit,
        backend: BackendName,
    ) -> Result<Survey, Refusal> {
        let SystemVerb::Survey = permit.into_parts() else {
            return Err(refusals::other_permit());
        };
        // Objects first: a session that is made meanwhile is then on record when its objects are compared.
        let listed = self.0.setup.backends.get(backend)?.list().await;
        let listed = listed.map_err(|error| refusals::backend(&error))?;
        let live_only = Filter {
            principal: None,
            live_only: true,
        };
        let records = self
            .0
            .stored(move |store| store.sessions(live_only))
            .await?;
        let records: Vec<_> = records
            .into_iter()
            .filter(|record| record.backend == backend)
            .collect();
        let mut survey = Survey::default();
        for record in records
            .iter()
            .filter(|record| self.0.live(record.id).is_none() && !self.0.is_creating(record.id))
        {
            let runs = |found: &Listed| found.session == record.id && found.running;
            // Its spec stands on record once it was made.
            if record.spec.is_some() && listed.iter().any(runs) {
                survey.lost.push(record.id);
            } else {
                survey.orphaned.push(record.id);
            }
        }
        let live: HashSet<_> = records.iter().map(|record| record.id).collect();
        for session in listed.iter().map(|found| found.session) {
            // What is not among them is looked up by itself: it may be younger than the list.
            if !live.contains(&session) && !self.0.is_owned(session, backend).await? {
                survey.remains.push(Remains { session, backend });
            }
        }
        Ok(survey)
    }

    /// Takes up a session that is live on record and whose sandbox runs. One that is at hand already is left as it is;
    /// one that cannot be taken up, since its record lacks what is needed, is reported for its end.
    ///
    /// # Errors
    /// When it does not dial, and may yet: another try helps then. If it never does, its lease ends it, since nobody
    /// renews that.
    pub async fn adopt(&self, permit: SystemPermit) -> Result<(), Refusal> {
        let SystemVerb::Adopt(session) = permit.into_parts() else {
            return Err(refusals::other_permit());
        };
        if self.0.live(session).is_some() || self.0.is_creating(session) {
            return Ok(());
        }
        let record = self
            .0
            .record(session)
            .await?
            .filter(|record| record.state.is_live())
            .ok_or_else(refusals::session_not_found)?;
        let spec: Option<SandboxSpec> = record
            .spec
            .as_deref()
            .and_then(|json| serde_json::from_slice(json).ok());
        match spec {
            Some(spec) => self.take_up(&record, spec).await,
            None => {
                self.report_orphan(session);
                Err(refusals::not_live(
                    model::SessionState::Failed,
                    Some("its record is damaged"),
                ))
            }
        }
    }

    /// Reports a session whose sandbox is gone: its end is a call of its own.
    pub fn report_orphan(&self, session: SessionId) {
        let _ = self.0.setup.reap.send(ReapRequest {
            session,
            because: ReapCause::Orphaned,
        });
    }

    /// Removes what exists of a sandbox, unless a live session owns it by now.
    ///
    /// # Errors
    /// When something is left; another try may remove it.
    pub async fn remove_remains(
        &self,
        permit: SystemPermit,
        backend: BackendName,
    ) -> Result<(), Refusal> {
        let SystemVerb::RemoveRemains(session) = permit.into_parts() else {
            return Err(refusals::other_permit());
        };
        if self.0.is_owned(session, backend).await? {
            return Ok(());
        }
        let backend = self.0.setup.backends.get(backend)?;
        backend
            .destroy(session)
            .await
            .map_err(|error| refusals::backend(&error))
    }

    async fn take_up(&self, record: &SessionRecord, spec: SandboxSpec) -> Result<(), Refusal> {
        let lease = Duration::from_millis(u64::from(spec.lease_ms));
        let backend = self.0.setup.backends.get(record.backend)?;
        let link = backend
            .connect(record.id)
            .await
            .map_err(|error| refusals::backend(&error))?;
        let (attached, scanner) = tokio::join!(
            Supervisor::attach(link, lease, REDIAL_TIMEOUT),
            self.0
                .scanner(&spec, Some(view::time(record.created_at_ms)))
        );
        let (supervisor, _) = attached.map_err(|error| refusals::supervisor(&error))?;
        let about = record.agent.as_deref();
        let about = about.and_then(|json| serde_json::from_slice(json).ok());
        let about = about.ok_or_else(refusals::made_by_another_version)?;
        let traffic = self.0.setup.egress.traffic.of(record.id, &record.principal);
        let agent = self
            .0
            .live_agent(
                record.id,
                &record.principal,
                &supervisor,
                about,
                None,
                Arc::clone(&traffic),
            )
            .await?;
        let network = self.0.recorded_network(record).await?;
        let settings = self.0.settings();
        let network = self
            .0
            .setup
            .network
            .open(
                record.id,
                network,
                &settings,
                agent.patience(),
                &supervisor,
                traffic,
            )
            .await?;
        let live = Live::new(
            Parts {
                id: record.id,
                agent,
                network,
                owner: record.principal.clone(),
                backend: record.backend,
                workspace: spec.workspace,
                idle: Duration::from_millis(record.idle_ms),
                lease,
                expires_at: view::time(record.expires_at_ms),
                scanner: Some(scanner?),
                policy: settings.policy.clone(),
                allow_protected_changes: settings.allow_protected_changes,
            },
            supervisor,
        );
        // What the kernel killed before is nobody's news.
        live.oom_kills_grew(self.0.oom_kills(record.id, record.backend).await);
        self.0.clone().adopt_executions(&live).await?;
        self.0.insert_live(live.clone());
        self.0.fit_network(&live).await;
        self.0.keep(&live);
        self.0
            .note(record.id, "the server was restarted; the session goes on")
            .await;
        self.0.scan_and_note(&live).await;
        Ok(())
    }
}

impl Inner {
    /// Whether that session is live on record with those walls, or being made.
    async fn is_owned(&self, session: SessionId, backend: BackendName) -> Result<bool, Refusal> {
        let record = self.record(session).await?;
        Ok(record.is_some_and(|record| record.state.is_live() && record.backend == backend))
    }

    /// Watches on what the supervisor remembers, and closes what it does not. Whatever can fail comes first, so that a second
    /// try finds nothing that drives a conversation already.
    async fn adopt_executions(self: Arc<Self>, live: &Arc<Live>) -> Result<(), Refusal> {
        let remembered = live
            .supervisor
            .list()
            .await
            .map_err(|error| refusals::supervisor(&error))?;
        let session = live.id;
        let open = self
            .stored(move |store| store.open_executions(session))
            .await?;
        let open: HashSet<ExecutionId> = open.iter().map(|record| record.id).collect();
        let (of, among) = (Arc::clone(live), open.clone());
        // Journals are read whole, and may be long.
        let kept = tokio::task::spawn_blocking(move || of.agent.kept(of.id, &among))
            .await
            .map_err(|error| Refusal::internal(&error))?;
        let of_conversations: HashSet<ExecutionId> = kept
            .iter()
            .flat_map(|kept| kept.processes())
            .copied()
            .collect();
        let prompts: HashSet<ExecutionId> = kept.iter().flat_map(Kept::prompts).collect();
        let commands: Vec<_> = remembered
            .into_iter()
            .map(|status| (ExecutionId::from_bytes(status.execution), status))
            .filter(|(id, _)| !of_conversations.contains(id))
            .collect();
        for id in &open {
            if !prompts.contains(id) && !commands.iter().any(|(command, _)| command == id) {
                self.close_lost(*id).await?;
            }
        }
        let mut watched = Vec::new();
        for (id, status) in commands {
            let is_new = !open.contains(&id) && self.enter_unknown(session, id, &status).await?;
            // One whose end is on record is nobody's news.
            if is_new || open.contains(&id) || status.ended.is_none() {
                watched.push(status);
            }
        }
        self.adopt_conversations(live, kept);
        for status in &watched {
            self.adopt_execution(live, status);
        }
        Ok(())
    }

    /// An execution that is open on record and that nobody knows of inside.
    async fn close_lost(&self, id: ExecutionId) -> Result<(), Refusal> {
        let change = ExecutionChange {
            state: Some(ExecutionState::Failed),
            ended_at_ms: Some(now_ms()),
            failure: Some("it was not running any more when the server came back".to_owned()),
            ..ExecutionChange::default()
        };
        let open = [ExecutionState::Queued, ExecutionState::Running];
        self.stored(move |store| store.update_execution(id, &open, &change))
            .await?;
        Ok(())
    }

    /// An execution that was started, if it has no row: the server ended in between. Whether it had none.
    async fn enter_unknown(
        &self,
        session: SessionId,
        id: ExecutionId,
        status: &ExecutionStatus,
    ) -> Result<bool, Refusal> {
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
            prompt: None,
        };
        self.stored(move |store| match store.execution(id)? {
            Some(_) => Ok(false),
            None => store.insert_execution(&record).map(|()| true),
        })
        .await
    }
}
