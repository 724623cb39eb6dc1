//! One execution, and how it ends. It never hangs on a caller: who waits for it can go away, and it is watched all the same.
//!
//! Reading order: this noun, `commands` (what callers do with executions), `watch` (who follows one to its end), `output`
//! (what is shown of it), `heard` (who waits for news).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use agent::Progress as PromptProgress;
use model::{ExecutionId, ExecutionState, PromptStop, PromptView, ProtectedChange, SessionId};
use sandbox::{
    Supervisor,
    wire::{Cause, Ended, ExecutionStatus, Exit, StreamStatus},
};
use store::ExecutionChange;
use tokio::{sync::watch, time::Instant};

use crate::{heard::Heard, live::Live, prompts::PromptHandle, sessions::now_ms};

/// How long before something that the supervisor could not take is tried again.
pub(crate) const RETRY: Duration = Duration::from_millis(20);

/// See the module.
pub(crate) struct Execution {
    pub(crate) id: ExecutionId,
    pub(crate) session: SessionId,
    pub(crate) owner: String,
    pub(crate) supervisor: Supervisor,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) heard: Heard,
    /// What it is beside an execution; `None` for a command.
    pub(crate) prompt: Option<PromptHandle>,
}

/// Where an execution stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) end: Option<End>,
}

/// How an execution ended.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) state: ExecutionState,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) oom_killed: bool,
    pub(crate) duration_ms: u64,
    pub(crate) stdout: StreamStatus,
    pub(crate) stderr: StreamStatus,
    pub(crate) protected_changes: Vec<ProtectedChange>,
    pub(crate) failure: Option<String>,
    pub(crate) prompt: Option<PromptView>,
}

impl Execution {
    pub(crate) fn new(id: ExecutionId, live: &Live, running_for: Duration) -> Arc<Self> {
        Execution::made(id, live, running_for, None)
    }

    pub(crate) fn of_prompt(id: ExecutionId, live: &Live, prompt: PromptHandle) -> Arc<Self> {
        Execution::made(id, live, Duration::ZERO, Some(prompt))
    }

    fn made(
        id: ExecutionId,
        live: &Live,
        running_for: Duration,
        prompt: Option<PromptHandle>,
    ) -> Arc<Self> {
        Arc::new(Execution {
            id,
            session: live.id,
            owner: live.owner.clone(),
            supervisor: live.supervisor.clone(),
            started: Instant::now()
                .checked_sub(running_for)
                .unwrap_or_else(Instant::now),
            started_at: SystemTime::now()
                .checked_sub(running_for)
                .unwrap_or(SystemTime::UNIX_EPOCH),
            progress: watch::Sender::new(Progress::default()),
            heard: Heard::default(),
            prompt,
        })
    }

    pub(crate) fn is_final(&self) -> bool {
        self.progress.borrow().end.is_some()
    }

    /// Waits for its end, at most that long.
    pub(crate) async fn ended_within(&self, wait: Duration) {
        let mut progress = self.progress.subscribe();
        // Elapsed is as good an answer as ended; the sender lives in `self`.
        let _ =
            tokio::time::timeout(wait, progress.wait_for(|progress| progress.end.is_some())).await;
    }

    /// Its end will not be heard of: its sandbox is gone.
    pub(crate) fn lose(&self, why: &str) {
        let duration_ms = self.duration_ms();
        self.progress.send_if_modified(|progress| {
            if progress.end.is_some() {
                return false;
            }
            progress.end = Some(End::failed(why, duration_ms));
            true
        });
    }

    pub(crate) fn duration_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl End {
    pub(crate) fn failed(why: &str, duration_ms: u64) -> Self {
        End {
            state: ExecutionState::Failed,
            exit_code: None,
            signal: None,
            oom_killed: false,
            duration_ms,
            stdout: StreamStatus::default(),
            stderr: StreamStatus::default(),
            protected_changes: Vec::new(),
            failure: Some(why.to_owned()),
            prompt: None,
        }
    }

    /// The end of a prompt. Its exit code says whether Claude Code was done.
    pub(crate) fn of_prompt(
        progress: PromptProgress,
        duration_ms: u64,
        protected_changes: Vec<ProtectedChange>,
    ) -> Self {
        let (state, exit_code) = match &progress.view.stop {
            Some(PromptStop::Completed) => (ExecutionState::Exited, Some(0)),
            Some(
                PromptStop::TurnLimit
                | PromptStop::BudgetLimit
                | PromptStop::SpendingLimit { .. }
                | PromptStop::Provider { .. }
                | PromptStop::Refused,
            ) => (ExecutionState::Exited, Some(1)),
            Some(PromptStop::Interrupted) => (ExecutionState::Killed, None),
            Some(PromptStop::TimedOut) => (ExecutionState::TimedOut, None),
            Some(PromptStop::Stalled | PromptStop::AgentEnded) | None => {
                (ExecutionState::Failed, None)
            }
        };
        End {
            state,
            exit_code,
            protected_changes,
            failure: progress.failure,
            prompt: Some(progress.view),
            ..End::failed("", duration_ms)
        }
    }

    pub(crate) fn of(
        status: &ExecutionStatus,
        ended: Ended,
        oom_killed: bool,
        protected_changes: Vec<ProtectedChange>,
    ) -> Self {
        let (exit_code, signal) = match ended.exit {
            Exit::Code(code) => (Some(code), None),
            Exit::Signal(signal) => (None, Some(signal)),
            Exit::Lost => (None, None),
        };
        let state = match (ended.cause, ended.exit) {
            (Cause::Deadline, _) => ExecutionState::TimedOut,
            (Cause::Itself, Exit::Code(_)) => ExecutionState::Exited,
            (Cause::Itself, Exit::Signal(_) | Exit::Lost)
            | (Cause::Cancelled | Cause::SoftLimit | Cause::StubKilled, _) => {
                ExecutionState::Killed
            }
        };
        let failure = match ended.cause {
            Cause::SoftLimit => Some("it went over a limit of its session".to_owned()),
            Cause::StubKilled => Some(
                "something inside the session killed the process that watched over it".to_owned(),
            ),
            Cause::Itself | Cause::Deadline | Cause::Cancelled => None,
        };
        End {
            state,
            exit_code,
            signal,
            oom_killed,
            duration_ms: status.duration_us / 1000,
            stdout: status.stdout,
            stderr: status.stderr,
            protected_changes,
            failure,
            prompt: None,
        }
    }

    pub(crate) fn change(&self) -> ExecutionChange {
        ExecutionChange {
            state: Some(self.state),
            ended_at_ms: Some(now_ms()),
            exit_code: self.exit_code,
            signal: self.signal,
            oom_killed: Some(self.oom_killed),
            duration_ms: Some(self.duration_ms),
            failure: self.failure.clone(),
            protected_changes: serde_json::to_vec(&self.protected_changes)
                .ok()
                .filter(|_| !self.protected_changes.is_empty()),
            prompt: self
                .prompt
                .as_ref()
                .and_then(|prompt| serde_json::to_vec(prompt).ok()),
            ..ExecutionChange::default()
        }
    }

    pub(crate) fn sentence(&self) -> String {
        let how = match (self.exit_code, self.signal) {
            (Some(code), _) => format!("{} {code}", self.state.as_str()),
            (None, Some(signal)) => format!("{} by signal {signal}", self.state.as_str()),
            (None, None) => self.state.as_str().to_owned(),
        };
        format!("{how} after {} ms", self.duration_ms)
    }
}

/// When an execution started, for its record after a restart.
pub(crate) fn started_at(duration_us: u64) -> u64 {
    let elapsed = Duration::from_micros(duration_us);
    crate::view::milliseconds(
        SystemTime::now()
            .checked_sub(elapsed)
            .unwrap_or(SystemTime::UNIX_EPOCH),
    )
}
