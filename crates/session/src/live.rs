//! A session whose supervisor is at hand.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use model::{BackendName, ExecutionId, HostDirectory, SessionId};
use policy::{EntryKind, Policy};
use sandbox::Supervisor;
use tokio::{sync::Notify, task::AbortHandle, time::Instant};

use crate::{
    execution::Execution,
    network::LiveNetwork,
    prompts::LiveAgent,
    protected::{Protects, ScanReport, Scanner},
    sessions::lock,
};

/// See the module.
pub(crate) struct Live {
    pub(crate) id: SessionId,
    pub(crate) owner: String,
    pub(crate) backend: BackendName,
    pub(crate) supervisor: Supervisor,
    pub(crate) workspace: HostDirectory,
    pub(crate) idle: Duration,
    pub(crate) lease: Duration,
    /// Claude Code in it.
    pub(crate) agent: LiveAgent,
    /// What it may reach.
    pub(crate) network: LiveNetwork,
    /// `None` where the workspace is not the user's own directory, so that nothing in it reaches the host.
    scanner: Option<Arc<Mutex<Scanner>>>,
    policy: Arc<Policy>,
    allow_protected_changes: bool,
    clock: Mutex<Clock>,
    running: Mutex<BTreeMap<ExecutionId, Arc<Execution>>>,
    oom_kills: AtomicU64,
    keeper: Mutex<Option<AbortHandle>>,
    /// Wakes the keeper when a deadline moved.
    pub(crate) moved: Notify,
}

/// Both ends of a session, on the monotonic clock: a step of the wall clock neither ends it early nor keeps it alive.
#[derive(Clone, Copy)]
struct Clock {
    expires: Instant,
    last_used: Instant,
}

/// What a [`Live`] is made of, beside its supervisor.
pub(crate) struct Parts {
    pub(crate) id: SessionId,
    pub(crate) owner: String,
    pub(crate) backend: BackendName,
    pub(crate) workspace: HostDirectory,
    pub(crate) idle: Duration,
    pub(crate) lease: Duration,
    pub(crate) expires_at: SystemTime,
    pub(crate) scanner: Option<Scanner>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) allow_protected_changes: bool,
    pub(crate) agent: LiveAgent,
    pub(crate) network: LiveNetwork,
}

impl Live {
    pub(crate) fn new(parts: Parts, supervisor: Supervisor) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Live {
            id: parts.id,
            owner: parts.owner,
            backend: parts.backend,
            supervisor,
            workspace: parts.workspace,
            idle: parts.idle,
            lease: parts.lease,
            agent: parts.agent,
            network: parts.network,
            scanner: parts.scanner.map(|scanner| Arc::new(Mutex::new(scanner))),
            policy: parts.policy,
            allow_protected_changes: parts.allow_protected_changes,
            clock: Mutex::new(Clock {
                expires: now + until(parts.expires_at),
                last_used: now,
            }),
            running: Mutex::default(),
            oom_kills: AtomicU64::new(0),
            keeper: Mutex::new(None),
            moved: Notify::new(),
        })
    }

    /// The session was used just now.
    pub(crate) fn touch(&self) {
        lock(&self.clock).last_used = Instant::now();
    }

    pub(crate) fn set_expiry(&self, at: SystemTime) {
        lock(&self.clock).expires = Instant::now() + until(at);
        self.moved.notify_one();
    }

    /// When its lifetime ends.
    pub(crate) fn expires(&self) -> Instant {
        lock(&self.clock).expires
    }

    /// When its idle time ends, if nothing happens until then. A running execution is not idle.
    pub(crate) fn idle_ends(&self) -> Option<Instant> {
        lock(&self.running)
            .is_empty()
            .then(|| lock(&self.clock).last_used + self.idle)
    }

    /// Takes a place among at most `max` running executions.
    pub(crate) fn enter(&self, execution: &Arc<Execution>, max: u32) -> bool {
        let mut running = lock(&self.running);
        if running.len() >= max as usize {
            return false;
        }
        running.insert(execution.id, execution.clone());
        self.touch();
        true
    }

    /// An execution has ended.
    pub(crate) fn leave(&self, execution: ExecutionId) {
        lock(&self.running).remove(&execution);
        self.touch();
        self.moved.notify_one();
    }

    /// Whether the kernel has killed for memory since the last look. `now`: how often in all.
    pub(crate) fn oom_kills_grew(&self, now: u64) -> bool {
        self.oom_kills.fetch_max(now, Ordering::AcqRel) < now
    }

    pub(crate) fn running(&self) -> Vec<ExecutionId> {
        lock(&self.running).keys().copied().collect()
    }

    /// Executions that nobody will hear of again.
    pub(crate) fn abandon_executions(&self) -> Vec<Arc<Execution>> {
        let running = std::mem::take(&mut *lock(&self.running));
        let abandoned: Vec<_> = running.into_values().collect();
        for execution in &abandoned {
            execution.lose("its session ended");
        }
        abandoned
    }

    pub(crate) fn keep_with(&self, keeper: AbortHandle) {
        *lock(&self.keeper) = Some(keeper);
    }

    pub(crate) fn stop_keeping(&self) {
        if let Some(keeper) = lock(&self.keeper).take() {
            keeper.abort();
        }
    }

    /// Looks for protected files that are new or changed, and moves them aside unless the operator allows them.
    pub(crate) async fn scan(&self) -> ScanReport {
        let Some(scanner) = self.scanner.clone() else {
            return ScanReport::default();
        };
        let (policy, move_aside) = (self.policy.clone(), !self.allow_protected_changes);
        let scanned = tokio::task::spawn_blocking(move || {
            lock(&scanner).scan(&ProtectedBy(&policy), move_aside)
        })
        .await;
        match scanned {
            Ok(Ok(report)) => report,
            Ok(Err(error)) => {
                tracing::warn!(session = %self.id, %error, "the workspace could not be scanned");
                ScanReport {
                    changes: Vec::new(),
                    incomplete: true,
                }
            }
            Err(error) => {
                tracing::error!(session = %self.id, %error, "the scan of the workspace failed");
                ScanReport {
                    changes: Vec::new(),
                    incomplete: true,
                }
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop_keeping();
    }
}

/// The protected paths of the policy.
pub(crate) struct ProtectedBy<'a>(pub(crate) &'a Policy);

impl Protects for ProtectedBy<'_> {
    fn directory(&self, relative: &Path) -> Option<String> {
        self.0
            .protected()
            .matches(relative)
            .map(|rule| rule.reason().to_owned())
    }

    fn file(&self, relative: &Path) -> Option<String> {
        let rule = self.0.protected().matches_entry(relative, EntryKind::Other);
        rule.map(|rule| rule.reason().to_owned())
    }
}

fn until(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::now()).unwrap_or_default()
}
