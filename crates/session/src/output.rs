//! What is shown of an execution: its state, and its output from a cursor on or the last part of it.

use std::{sync::Arc, time::Duration};

use model::{
    ExecutionId, ExecutionState, ExecutionView, LogLine, NetworkQuestion, Refusal, SessionId,
    StreamView,
};
use sandbox::{
    Supervisor, SupervisorError,
    wire::{MAX_CHUNK_BYTES, OutputChunk, Stream, StreamStatus},
};
use tokio::time::Instant;

use crate::{
    execution::{End, Execution, RETRY},
    prompts::PromptHandle,
    refusals,
    sessions::Inner,
};

/// Output in one view of each stream; the doors shorten it further for their readers.
const VIEW_BYTES: u64 = 256 * 1024;

/// From where output is wanted; `None`: the last part of it.
#[derive(Clone, Copy)]
pub(crate) struct Cursors {
    pub(crate) stdout: Option<u64>,
    pub(crate) stderr: Option<u64>,
}

impl Cursors {
    pub(crate) const fn tail() -> Self {
        Cursors {
            stdout: None,
            stderr: None,
        }
    }
}

impl Inner {
    pub(crate) async fn execution_view(
        &self,
        execution: &Execution,
        cursors: Cursors,
    ) -> ExecutionView {
        let end = execution.progress.borrow().end.clone();
        let network_questions = self.network_questions(execution.session);
        if let Some(prompt) = &execution.prompt {
            let mut view = prompt_view(execution, prompt, end);
            view.network_questions = network_questions;
            return view;
        }
        let known = end.as_ref().map(|end| (end.stdout, end.stderr));
        let (stdout, stderr) = tokio::join!(
            stream(
                &execution.supervisor,
                execution.id,
                Stream::Stdout,
                cursors.stdout,
                known.map(|known| known.0)
            ),
            stream(
                &execution.supervisor,
                execution.id,
                Stream::Stderr,
                cursors.stderr,
                known.map(|known| known.1)
            ),
        );
        let (stdout, stderr) = (stdout.unwrap_or_default(), stderr.unwrap_or_default());
        match end {
            None => ExecutionView {
                id: execution.id,
                session: execution.session,
                state: ExecutionState::Running,
                exit_code: None,
                signal: None,
                oom_killed: false,
                duration_ms: execution.duration_ms(),
                stdout,
                stderr,
                protected_changes: Vec::new(),
                failure: None,
                prompt: None,
                output_lost: false,
                network_questions,
            },
            Some(end) => ExecutionView {
                id: execution.id,
                session: execution.session,
                state: end.state,
                exit_code: end.exit_code,
                signal: end.signal,
                oom_killed: end.oom_killed,
                duration_ms: end.duration_ms,
                output_lost: is_lost(&stdout) || is_lost(&stderr),
                stdout,
                stderr,
                protected_changes: end.protected_changes,
                failure: end.failure,
                prompt: None,
                network_questions,
            },
        }
    }

    /// An execution that can be written to.
    ///
    /// # Errors
    /// `execution_ended`, or why its session is not at hand.
    pub(crate) async fn running_execution(
        &self,
        id: ExecutionId,
    ) -> Result<Arc<Execution>, Refusal> {
        match self.execution(id) {
            Some(execution) if !execution.is_final() => Ok(execution),
            Some(_) => Err(refusals::execution_ended()),
            None => {
                let stored = self.stored_execution(id, Cursors::tail()).await?;
                if stored.state.is_final() {
                    Err(refusals::execution_ended())
                } else {
                    Err(self.not_ready(stored.session).await)
                }
            }
        }
    }

    /// An execution, whether it is at hand or not.
    pub(crate) async fn known_execution(&self, id: ExecutionId) -> Result<ExecutionView, Refusal> {
        match self.execution(id) {
            Some(execution) => Ok(self.execution_view(&execution, Cursors::tail()).await),
            None => self.stored_execution(id, Cursors::tail()).await,
        }
    }

    /// An execution that is no longer at hand: its end is on record, its output with its supervisor as long as that lives.
    pub(crate) async fn stored_execution(
        &self,
        id: ExecutionId,
        cursors: Cursors,
    ) -> Result<ExecutionView, Refusal> {
        let record = self
            .stored(move |store| store.execution(id))
            .await?
            .ok_or_else(refusals::execution_not_found)?;
        let changes = record
            .protected_changes
            .as_deref()
            .and_then(|json| serde_json::from_slice(json).ok());
        let (stdout, stderr) = match self.live(record.session) {
            Some(live) => tokio::join!(
                stream(&live.supervisor, id, Stream::Stdout, cursors.stdout, None),
                stream(&live.supervisor, id, Stream::Stderr, cursors.stderr, None),
            ),
            None => (None, None),
        };
        // What could not start had none, and a prompt has none of its own.
        let output_lost = record.prompt.is_none()
            && record.state != ExecutionState::Failed
            && (stdout.is_none() || stderr.is_none());
        Ok(ExecutionView {
            id,
            session: record.session,
            state: record.state,
            exit_code: record.exit_code,
            signal: record.signal,
            oom_killed: record.oom_killed,
            duration_ms: record.duration_ms,
            stdout: stdout.unwrap_or_default(),
            stderr: stderr.unwrap_or_default(),
            output_lost,
            protected_changes: changes.unwrap_or_default(),
            failure: record.failure,
            prompt: record
                .prompt
                .as_deref()
                .and_then(|json| serde_json::from_slice(json).ok()),
            network_questions: self.network_questions(record.session),
        })
    }

    fn network_questions(&self, session: SessionId) -> Vec<NetworkQuestion> {
        let live = self.live(session);
        live.map(|live| live.network.questions())
            .unwrap_or_default()
    }
}

/// A prompt has no output of its own: what there is to see of it is what it adds up to.
fn prompt_view(execution: &Execution, prompt: &PromptHandle, end: Option<End>) -> ExecutionView {
    let seen = prompt.seen.borrow();
    let mut view = ExecutionView {
        id: execution.id,
        session: execution.session,
        state: match seen.is_queued {
            true => ExecutionState::Queued,
            false => ExecutionState::Running,
        },
        exit_code: None,
        signal: None,
        oom_killed: false,
        duration_ms: execution.duration_ms(),
        stdout: StreamView::default(),
        stderr: StreamView::default(),
        protected_changes: Vec::new(),
        failure: None,
        prompt: Some(Box::new(seen.view.clone())),
        output_lost: false,
        network_questions: Vec::new(),
    };
    if let Some(end) = end {
        view.state = end.state;
        view.exit_code = end.exit_code;
        view.duration_ms = end.duration_ms;
        view.protected_changes = end.protected_changes;
        view.failure = end.failure;
        view.prompt = end.prompt.map(Box::new).or(view.prompt);
    }
    view
}

/// Of a stream that has ended there is more, and nothing of it can be had.
fn is_lost(view: &StreamView) -> bool {
    view.bytes.is_empty() && view.cursor < view.total_bytes
}

/// Reads a stream from a cursor on, or its last part. `known` is the final status, where there is one. `None`: it is not kept.
async fn stream(
    supervisor: &Supervisor,
    id: ExecutionId,
    which: Stream,
    from: Option<u64>,
    known: Option<StreamStatus>,
) -> Option<StreamView> {
    let status = match known {
        Some(status) => status,
        None => read_chunk(supervisor, id, which, u64::MAX, 1).await?.status,
    };
    let oldest = from.unwrap_or_else(|| status.total_bytes.saturating_sub(VIEW_BYTES));
    let start = oldest.max(status.kept_from).min(status.total_bytes);
    let mut view = StreamView {
        offset: start,
        cursor: start,
        total_bytes: status.total_bytes,
        ..StreamView::default()
    };
    let end = status.total_bytes.min(start + VIEW_BYTES);
    while view.cursor < end {
        let want = (end - view.cursor).min(MAX_CHUNK_BYTES as u64);
        let want = u32::try_from(want).unwrap_or(u32::MAX);
        let Some(chunk) = read_chunk(supervisor, id, which, view.cursor, want).await else {
            break;
        };
        if chunk.data.is_empty() {
            break;
        }
        if chunk.offset > view.cursor {
            // Dropped while it was read: what came before is no longer contiguous with it.
            view.bytes.clear();
            view.offset = chunk.offset;
        }
        view.cursor = chunk.offset + chunk.data.len() as u64;
        view.bytes.extend_from_slice(&chunk.data);
    }
    view.truncated = view.offset > from.unwrap_or(0) || view.cursor < view.total_bytes;
    Some(view)
}

/// How long reading what is there already is tried again while the supervisor has its hands full.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// What is kept of a stream from an offset on. `None`: its sandbox is gone, or does not answer.
async fn read_chunk(
    supervisor: &Supervisor,
    id: ExecutionId,
    which: Stream,
    offset: u64,
    max_bytes: u32,
) -> Option<OutputChunk> {
    let deadline = Instant::now() + READ_PATIENCE;
    loop {
        let key = *id.as_bytes();
        match supervisor
            .read(key, which, offset, max_bytes, Duration::ZERO)
            .await
        {
            Ok(chunk) => return Some(chunk),
            Err(SupervisorError::TooManyOpen | SupervisorError::Interrupted(_))
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => {
                tracing::debug!(execution = %id, %error, "output was not read");
                return None;
            }
        }
    }
}

/// Executions of which a session's log shows output.
const LOG_EXECUTIONS: usize = 5;
/// Output of each of their streams in the log.
const LOG_BYTES: u64 = 4 * 1024;

impl Inner {
    /// The last lines of a live session's newest executions.
    pub(crate) async fn output_tails(&self, session: SessionId) -> Vec<LogLine> {
        let mut newest = self.executions_of(session);
        newest.sort_by_key(|execution| execution.started_at);
        let mut lines = Vec::new();
        for execution in newest.into_iter().rev().take(LOG_EXECUTIONS) {
            let known = execution
                .progress
                .borrow()
                .end
                .as_ref()
                .map(|end| (end.stdout, end.stderr));
            for (name, which, known) in [
                ("stdout", Stream::Stdout, known.map(|known| known.0)),
                ("stderr", Stream::Stderr, known.map(|known| known.1)),
            ] {
                let total = known.map_or(u64::MAX, |status| status.total_bytes);
                let from = (total != u64::MAX).then(|| total.saturating_sub(LOG_BYTES));
                let view = stream(&execution.supervisor, execution.id, which, from, known)
                    .await
                    .unwrap_or_default();
                let tail = &view.bytes[view.bytes.len().saturating_sub(LOG_BYTES as usize)..];
                let text = String::from_utf8_lossy(tail);
                let prefix = format!("{} {name}", execution.id);
                lines.extend(text.lines().map(|line| LogLine {
                    at: execution.started_at,
                    text: format!("{prefix}: {line}"),
                }));
            }
        }
        lines
    }
}
