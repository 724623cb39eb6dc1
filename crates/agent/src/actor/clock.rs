//! What happens by time alone: deadlines, stalls, questions that nobody answers, processes that idle.

use std::time::Duration;

use model::{ExecutionId, PermissionAnswer, PromptStop};
use tokio::time::Instant;

use super::{Actor, Current, questions::NOBODY};
use crate::{
    conversation::{now_ms, until},
    turn::Phase,
};

impl Actor {
    pub(super) async fn on_time(&mut self) {
        let now = Instant::now();
        let too_late = now_ms();
        let late: Vec<ExecutionId> = self
            .waiting
            .iter()
            .map(|waiting| &waiting.prompt)
            .chain(self.current.iter().map(|current| &current.prompt))
            .filter(|prompt| {
                prompt
                    .deadline_ms
                    .is_some_and(|deadline| deadline <= too_late)
            })
            .map(|prompt| prompt.execution)
            .collect();
        for execution in late {
            self.end_prompt(execution, PromptStop::TimedOut).await;
        }
        if let Some(process) = &self.process
            && process.kill_at.is_some_and(|at| at <= now)
        {
            self.kill_process().await;
        }
        if self.current.is_none() && now >= self.idle_since + self.setup.patience.idle {
            self.rest().await;
        }
        let Some(current) = &mut self.current else {
            return;
        };
        if current.resend_at.is_some_and(|at| at <= now) {
            current.resend_at = None;
            // It may hold half a message. Its end is seen by its output; the message is sent again then.
            return self.kill_process().await;
        }
        if let Some(ending) = &mut current.ending
            && ending.kill_at <= now
        {
            ending.kill_at = now + self.setup.patience.interrupt;
            return self.kill_process().await;
        }
        let denied: Vec<String> = current
            .asked
            .iter()
            .filter(|asked| asked.denied_at <= now)
            .map(|asked| asked.request.clone())
            .collect();
        for request in denied {
            self.answer(&request, &PermissionAnswer::Deny(NOBODY.to_owned()))
                .await;
        }
        if let Some(execution) = self.stalled(now) {
            self.end_prompt(execution, PromptStop::Stalled).await;
        }
    }

    /// The current prompt, if nothing has come for too long and nobody else is waited for.
    fn stalled(&self, now: Instant) -> Option<ExecutionId> {
        let current = self.current.as_ref()?;
        let at = current.last_event + self.stall_patience(current)?;
        (at <= now).then_some(current.prompt.execution)
    }

    /// Tools may take as long as the prompt; what waits for an answer has a deadline of its own.
    fn stall_patience(&self, current: &Current) -> Option<Duration> {
        if current.ending.is_some() || !current.asked.is_empty() {
            return None;
        }
        match current.turn.phase() {
            Phase::Model => Some(self.setup.patience.model),
            Phase::Streaming => Some(self.setup.patience.stream),
            Phase::Tools => None,
        }
    }

    pub(super) fn next_due(&self) -> Instant {
        let now = Instant::now();
        let mut due = now + Duration::from_secs(3600);
        let mut by = |at: Option<Instant>| {
            if let Some(at) = at {
                due = due.min(at);
            }
        };
        let deadlines = self.waiting.iter().map(|waiting| &waiting.prompt);
        let deadlines = deadlines.chain(self.current.iter().map(|current| &current.prompt));
        for prompt in deadlines {
            let is_ending = self.current.as_ref().is_some_and(|current| {
                current.prompt.execution == prompt.execution && current.ending.is_some()
            });
            by(prompt
                .deadline_ms
                .filter(|_| !is_ending)
                .map(|at| now + until(at)));
        }
        if let Some(process) = &self.process {
            by(process.kill_at);
            let is_idle = self.current.is_none() && process.kill_at.is_none();
            by(is_idle.then(|| self.idle_since + self.setup.patience.idle));
        }
        if let Some(current) = &self.current {
            by(current.resend_at);
            by(current.ending.as_ref().map(|ending| ending.kill_at));
            for asked in &current.asked {
                by(Some(asked.denied_at));
            }
            by(self
                .stall_patience(current)
                .map(|patience| current.last_event + patience));
        }
        due
    }
}
