//! The verbs of sessions, and the registry of those that are live.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use model::{
    BackendName, ExecutionId, HostDirectory, ProviderUsageView, ReapCause, Refusal, SessionId,
    SessionState, SessionView, UsageView,
};
use policy::{ExtendPermit, ListingPermit, Policy, SessionPermit, SystemPermit, SystemVerb};
use sandbox::HostView;
use store::{Filter, SessionChange, SessionRecord, Store};
use tokio::sync::mpsc;

use crate::{
    backends::Backends,
    execution::Execution,
    inline_files::Pieces,
    live::Live,
    network::{Network, WaysOut},
    providers::{Egress, Relaying},
    queue::Queue,
    refusals,
    settings::Settings,
    turns::TurnLog,
    view,
};

/// How long a call waits for a session that the server has on record and not yet at hand: after a restart its supervisor
/// dials within a second.
const ADOPTION_PATIENCE: Duration = Duration::from_secs(3);
/// How often it looks.
const ADOPTION_INTERVAL: Duration = Duration::from_millis(20);

/// What sessions are built on.
pub struct Setup {
    /// Desired state.
    pub store: Store,
    /// The walls.
    pub backends: Backends,
    /// Which Claude Code new sandboxes get.
    pub agent: AgentLookup,
    /// The decisions' data that work needs: protected paths.
    pub policy: Arc<Policy>,
    /// What a sandbox must differ from.
    pub host_view: HostView,
    /// Protected paths that a session makes may stay; they are only reported.
    pub allow_protected_changes: bool,
    /// The way to model providers.
    pub egress: Egress,
    /// The way to other hosts.
    pub network: Network,
    /// Where prompts that had to wait are put on record when they begin.
    pub turns: Arc<dyn TurnLog>,
    /// Directory of the conversations' journals, one directory for each session below it.
    pub transcripts: PathBuf,
    /// Where sessions that must be ended are reported: whoever listens puts a call on the road.
    pub reap: mpsc::UnboundedSender<ReapRequest>,
}

/// The Claude Code of new sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentProgram {
    /// The host's directory with its program.
    pub directory: HostDirectory,
    /// Which one it is, in words for people.
    pub description: String,
}

/// Looks for it anew for each session: it may be installed while the server runs. `None`: sandboxes have what their root
/// file system brings. An error refuses the session.
pub type AgentLookup = Arc<dyn Fn() -> Result<Option<AgentProgram>, Refusal> + Send + Sync>;

/// A session that the server must end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReapRequest {
    /// Which.
    pub session: SessionId,
    /// Why.
    pub because: ReapCause,
}

/// What stays as long as the server runs; the rest of its [`Setup`] is [`Settings`].
pub(crate) struct Fixed {
    pub(crate) store: Store,
    pub(crate) backends: Backends,
    pub(crate) host_view: HostView,
    pub(crate) egress: Relaying,
    pub(crate) network: WaysOut,
    pub(crate) turns: Arc<dyn TurnLog>,
    pub(crate) transcripts: PathBuf,
    pub(crate) reap: mpsc::UnboundedSender<ReapRequest>,
}

/// All sessions of this server. Clones share them.
#[derive(Clone)]
pub struct Sessions(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) setup: Fixed,
    pub(crate) settings: RwLock<Arc<Settings>>,
    live: Mutex<HashMap<SessionId, Arc<Live>>>,
    creating: Mutex<HashSet<SessionId>>,
    executions: Mutex<HashMap<ExecutionId, Arc<Execution>>>,
    pub(crate) pieces: Pieces,
    /// New sessions without a place yet.
    pub(crate) queue: Queue,
}

/// Ended executions of live sessions that are kept at hand; older ones are read from the store and their supervisor.
const MAX_ENDED_AT_HAND: usize = 256;

impl Sessions {
    /// No session is live yet: see [`Sessions::recover`].
    pub fn new(setup: Setup) -> Self {
        let (live, executions) = (Mutex::default(), Mutex::default());
        let creating = Mutex::default();
        let (egress, providers) = setup.egress.split();
        let (network, credentials) = setup.network.split();
        let settings = Settings {
            policy: setup.policy,
            agent: setup.agent,
            allow_protected_changes: setup.allow_protected_changes,
            providers,
            credentials,
        };
        Sessions(Arc::new(Inner {
            setup: Fixed {
                store: setup.store,
                backends: setup.backends,
                host_view: setup.host_view,
                egress,
                network,
                turns: setup.turns,
                transcripts: setup.transcripts,
                reap: setup.reap,
            },
            settings: RwLock::new(Arc::new(settings)),
            live,
            creating,
            executions,
            pieces: Pieces::default(),
            queue: Queue::default(),
        }))
    }

    /// Who owns a session; `None` for one that never was.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn owner(&self, session: SessionId) -> Result<Option<String>, Refusal> {
        if let Some(live) = self.0.live(session) {
            return Ok(Some(live.owner.clone()));
        }
        Ok(self.0.record(session).await?.map(|record| record.principal))
    }

    /// The session of an execution that is at hand.
    pub fn session_at_hand(&self, execution: ExecutionId) -> Option<SessionId> {
        self.0.execution(execution).map(|found| found.session)
    }

    /// Session and owner of an execution; `None` for one that never was.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn execution_owner(
        &self,
        execution: ExecutionId,
    ) -> Result<Option<(SessionId, String)>, Refusal> {
        if let Some(found) = self.0.execution(execution) {
            return Ok(Some((found.session, found.owner.clone())));
        }
        let Some(record) = self
            .0
            .stored(move |store| store.execution(execution))
            .await?
        else {
            return Ok(None);
        };
        Ok(self
            .owner(record.session)
            .await?
            .map(|owner| (record.session, owner)))
    }

    /// Times of a live session, for deciding on an extension: created, expires.
    ///
    /// # Errors
    /// When the store fails, or the session is not live.
    pub async fn times(
        &self,
        session: SessionId,
    ) -> Result<Option<(SystemTime, SystemTime)>, Refusal> {
        let record = self.0.record(session).await?;
        Ok(record.map(|record| {
            (
                view::time(record.created_at_ms),
                view::time(record.expires_at_ms),
            )
        }))
    }

    /// The project directory of a session.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn project(&self, session: SessionId) -> Result<Option<std::path::PathBuf>, Refusal> {
        Ok(self
            .0
            .record(session)
            .await?
            .map(|record| record.project_path))
    }

    /// How many sessions hold a place.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn count(&self) -> Result<u32, Refusal> {
        let live = self.all_with_a_place().await?;
        Ok(u32::try_from(live.len()).unwrap_or(u32::MAX))
    }

    async fn all_with_a_place(&self) -> Result<Vec<SessionRecord>, Refusal> {
        let all = Filter {
            principal: None,
            live_only: true,
        };
        self.0.stored(move |store| store.sessions(all)).await
    }

    /// How many of them are that owner's.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn count_of(&self, owner: String) -> Result<u32, Refusal> {
        let live = self
            .0
            .stored(move |store| {
                store.sessions(Filter {
                    principal: Some(&owner),
                    live_only: true,
                })
            })
            .await?;
        Ok(u32::try_from(live.len()).unwrap_or(u32::MAX))
    }

    /// The same, whose they are: how many each owner has.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn count_by_owner(&self) -> Result<BTreeMap<String, u32>, Refusal> {
        let live = self.all_with_a_place().await?;
        let mut counts = BTreeMap::new();
        for session in live {
            *counts.entry(session.principal).or_default() += 1;
        }
        Ok(counts)
    }

    /// Live sessions, oldest first; with `ended` those that are only on record, too.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(
        &self,
        permit: ListingPermit,
        ended: bool,
    ) -> Result<Vec<SessionView>, Refusal> {
        let owner = permit.into_parts();
        let records = self
            .0
            .stored(move |store| {
                store.sessions(Filter {
                    principal: owner.as_deref(),
                    live_only: !ended,
                })
            })
            .await?;
        let mut views = Vec::with_capacity(records.len());
        for record in records {
            views.push(self.0.view(&record).await);
        }
        Ok(views)
    }

    /// One session, ended ones included as long as they are remembered.
    ///
    /// # Errors
    /// `session_not_found`, or when the store fails.
    pub async fn get(&self, permit: SessionPermit) -> Result<SessionView, Refusal> {
        let (session, _) = permit.into_parts();
        let record = self
            .0
            .record(session)
            .await?
            .ok_or_else(refusals::session_not_found)?;
        Ok(self.0.view(&record).await)
    }

    /// Ends a session and removes everything of it. Success also when it had ended before.
    ///
    /// # Errors
    /// When something of it is left; the reconciler goes on removing it.
    pub async fn destroy(&self, permit: SessionPermit) -> Result<SessionId, Refusal> {
        let (session, _) = permit.into_parts();
        self.0
            .end(
                session,
                SessionState::Destroyed,
                "it was destroyed by its owner",
            )
            .await?;
        Ok(session)
    }

    /// Ends a session for a reason of the server's own.
    ///
    /// # Errors
    /// As for [`Sessions::destroy`].
    pub async fn reap(
        &self,
        permit: SystemPermit,
        because: ReapCause,
    ) -> Result<SessionId, Refusal> {
        let SystemVerb::Reap(session) = permit.into_parts() else {
            return Err(refusals::other_permit());
        };
        let state = match because {
            ReapCause::Lifetime | ReapCause::Idle => SessionState::Expired,
            ReapCause::SandboxEnded | ReapCause::Orphaned => SessionState::Failed,
            ReapCause::KeyRevoked => SessionState::Destroyed,
        };
        self.0.end(session, state, because.sentence()).await?;
        Ok(session)
    }

    /// Moves a session's end of life.
    ///
    /// # Errors
    /// When it is not live, or the store fails.
    pub async fn extend(&self, permit: ExtendPermit) -> Result<SessionView, Refusal> {
        let (session, expires_at) = permit.into_parts();
        let live = self.0.ready(session).await?;
        let change = SessionChange {
            expires_at_ms: Some(view::milliseconds(expires_at)),
            ..SessionChange::default()
        };
        let moved = self
            .0
            .stored(move |store| store.update_session(session, &LIVE, &change))
            .await?;
        if !moved {
            return Err(self.0.not_ready(session).await);
        }
        live.set_expiry(expires_at);
        self.0.note(session, "its end of life was moved").await;
        let record = self
            .0
            .record(session)
            .await?
            .ok_or_else(refusals::session_not_found)?;
        Ok(self.0.view(&record).await)
    }

    /// Waits until what was used of model providers is on record, at most that long. Whether it is.
    pub async fn flush_usage(&self, patience: Duration) -> bool {
        let Some(book) = self.0.setup.egress.usage.clone() else {
            return true;
        };
        tokio::task::spawn_blocking(move || book.flush(patience))
            .await
            .unwrap_or(false)
    }

    /// Removes what is remembered of sessions that ended longer ago than `age`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget_ended(&self, age: Duration) -> Result<u64, Refusal> {
        let before = now_ms().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let forgotten = self
            .0
            .stored(move |store| store.purge_ended_before(before))
            .await?;
        self.0.pieces.sweep();
        self.0.remove_transcripts().await?;
        Ok(forgotten)
    }
}

/// States in which a session holds a place.
pub(crate) const LIVE: [SessionState; 5] = [
    SessionState::Creating,
    SessionState::Ready,
    SessionState::Busy,
    SessionState::Paused,
    SessionState::Unknown,
];

impl Inner {
    pub(crate) fn live(&self, session: SessionId) -> Option<Arc<Live>> {
        lock(&self.live).get(&session).cloned()
    }

    pub(crate) fn all_live(&self) -> Vec<Arc<Live>> {
        lock(&self.live).values().cloned().collect()
    }

    /// This server is making that session right now; one that is `creating` on record only was left by another server.
    pub(crate) fn is_creating(&self, session: SessionId) -> bool {
        lock(&self.creating).contains(&session)
    }

    /// Marks a session as being made, until the mark is dropped.
    pub(crate) fn creating(self: &Arc<Self>, session: SessionId) -> Creating {
        lock(&self.creating).insert(session);
        Creating {
            inner: self.clone(),
            session,
        }
    }

    pub(crate) fn insert_live(&self, live: Arc<Live>) {
        lock(&self.live).insert(live.id, live);
    }

    pub(crate) fn remove_live(&self, session: SessionId) -> Option<Arc<Live>> {
        lock(&self.live).remove(&session)
    }

    pub(crate) fn execution(&self, execution: ExecutionId) -> Option<Arc<Execution>> {
        lock(&self.executions).get(&execution).cloned()
    }

    pub(crate) fn executions_of(&self, session: SessionId) -> Vec<Arc<Execution>> {
        lock(&self.executions)
            .values()
            .filter(|execution| execution.session == session)
            .cloned()
            .collect()
    }

    pub(crate) fn insert_execution(&self, execution: Arc<Execution>) {
        lock(&self.executions).insert(execution.id, execution);
    }

    /// Lets go of ended executions whose session has ended, and of the others once there are many.
    pub(crate) fn forget_ended_executions(&self) {
        let live: HashSet<SessionId> = lock(&self.live).keys().copied().collect();
        let mut executions = lock(&self.executions);
        executions.retain(|_, known| !known.is_final() || live.contains(&known.session));
        if executions.values().filter(|known| known.is_final()).count() > MAX_ENDED_AT_HAND {
            executions.retain(|_, known| !known.is_final());
        }
    }

    /// Runs a blocking piece of store work off the async threads.
    pub(crate) async fn stored<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, store::StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let store = self.setup.store.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result.map_err(|error| Refusal::internal(&error)),
            Err(error) => Err(Refusal::internal(&error)),
        }
    }

    pub(crate) async fn record(
        &self,
        session: SessionId,
    ) -> Result<Option<SessionRecord>, Refusal> {
        self.stored(move |store| store.session(session)).await
    }

    /// Adds a line to a session's log. Best effort: a log line never fails an action that happened.
    pub(crate) async fn note(&self, session: SessionId, text: impl Into<String>) {
        let (text, at) = (text.into(), now_ms());
        if let Err(refusal) = self
            .stored(move |store| store.add_event(session, at, &text))
            .await
        {
            tracing::warn!(%session, detail = ?refusal.detail, "a line of the session's log was lost");
        }
    }

    /// The live session, or why there is none. One that an earlier server made is waited for while it is taken up.
    pub(crate) async fn ready(&self, session: SessionId) -> Result<Arc<Live>, Refusal> {
        let deadline = tokio::time::Instant::now() + ADOPTION_PATIENCE;
        loop {
            if let Some(live) = self.live(session) {
                return Ok(live);
            }
            let record = self.record(session).await?;
            let is_lost = record.is_some_and(|record| {
                matches!(record.state, SessionState::Ready | SessionState::Busy)
            });
            if !is_lost || tokio::time::Instant::now() >= deadline {
                return Err(self.not_ready(session).await);
            }
            tokio::time::sleep(ADOPTION_INTERVAL).await;
        }
    }

    /// Why a session cannot work.
    pub(crate) async fn not_ready(&self, session: SessionId) -> Refusal {
        match self.record(session).await {
            Ok(Some(record)) => refusals::not_live(record.state, record.ended_because.as_deref()),
            Ok(None) => refusals::session_not_found(),
            Err(refusal) => refusal,
        }
    }

    pub(crate) async fn view(&self, record: &SessionRecord) -> SessionView {
        let live = self.live(record.id);
        let usage = match &live {
            Some(_) => self.usage(record.id, record.backend).await,
            None => None,
        };
        let provider_usage = match live.as_ref().and_then(|live| live.agent.relay.as_ref()) {
            Some(relay) => Some(view::provider_usage(relay)),
            None => self.recorded_usage(record.id).await,
        };
        let name = record.id.object_name(&self.setup.store.owner());
        let network_questions = live.as_ref().map(|live| live.network.questions());
        SessionView {
            provider_usage,
            network_questions: network_questions.unwrap_or_default(),
            ..view::session(record, name, usage, live.map(|live| live.running()))
        }
    }

    /// Resources in use, where its walls tell.
    pub(crate) async fn usage(
        &self,
        session: SessionId,
        backend: BackendName,
    ) -> Option<UsageView> {
        let backend = self.setup.backends.get(backend).ok()?;
        backend.stats(session).await.ok()
    }

    /// What a session that is not at hand has used of its provider, if anything.
    async fn recorded_usage(&self, session: SessionId) -> Option<ProviderUsageView> {
        let recorded = self
            .stored(move |store| store.session_usage(session))
            .await
            .ok()
            .filter(|recorded| *recorded != store::UsageRecord::default())?;
        Some(view::recorded_usage(&crate::usage::used(&recorded)))
    }
}

/// See [`Inner::creating`].
pub(crate) struct Creating {
    inner: Arc<Inner>,
    session: SessionId,
}

impl Drop for Creating {
    fn drop(&mut self) {
        lock(&self.inner.creating).remove(&self.session);
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

/// A lock whose holder panicked holds data that is still consistent: every critical section here is one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
