//! Executions in replies.

use std::path::Path;

use model::{ExecutionState, ExecutionView, ProtectedChange};

use super::stream::{self, Shown};
use crate::{
    reply::{ExecutionKind, ExecutionReply, ProtectedChangeReply},
    text,
};

/// Protected changes that one reply lists; a message says when there were more.
const MAX_PROTECTED_CHANGES: usize = 50;

/// An execution as it was read.
pub(crate) struct Observed {
    /// The first read.
    pub(crate) first: ExecutionView,
    /// A later read near the end of the streams.
    pub(crate) last: Option<ExecutionView>,
    /// The caller gave cursors: it reads page by page.
    pub(crate) paged: bool,
}

/// The reply for an execution.
pub(crate) fn execution(observed: &Observed) -> ExecutionReply {
    let newest = observed.last.as_ref().unwrap_or(&observed.first);
    let shown = |pick: fn(&ExecutionView) -> &model::StreamView| {
        let first = pick(&observed.first);
        let last = observed
            .last
            .as_ref()
            .map(pick)
            .filter(|_| first.cursor < pick(newest).total_bytes);
        Shown {
            first,
            last,
            paged: observed.paged,
            ended: newest.state.is_final(),
        }
    };
    let (mut stdout, mut stderr) =
        stream::both(shown(|view| &view.stdout), shown(|view| &view.stderr));
    stdout.truncated |= newest.output_lost;
    stderr.truncated |= newest.output_lost;
    let partial = stdout.truncated || stderr.truncated;
    ExecutionReply {
        execution_id: newest.id.to_string(),
        session_id: newest.session.to_string(),
        kind: ExecutionKind::Command,
        state: newest.state.into(),
        exit_code: newest.exit_code,
        signal: newest.signal,
        oom_killed: newest.oom_killed,
        duration_ms: newest.duration_ms,
        stdout,
        stderr,
        protected_changes: newest
            .protected_changes
            .iter()
            .take(MAX_PROTECTED_CHANGES)
            .map(protected)
            .collect(),
        failure: newest.failure.as_deref().map(text::sentence),
        prompt: None,
        message: message(newest, partial),
    }
}

fn protected(change: &ProtectedChange) -> ProtectedChangeReply {
    let path = |path: &Path| text::sentence(&path.to_string_lossy());
    ProtectedChangeReply {
        path: path(&change.path),
        moved_to: change.moved_to.as_deref().map(path),
        reason: text::sentence(&change.reason),
    }
}

fn message(view: &ExecutionView, partial: bool) -> String {
    let mut message = standing(view);
    if view.oom_killed {
        message.push_str(" The session ran out of memory, so processes were killed.");
    }
    if view.output_lost {
        message.push_str(
            " Its output is no longer kept: a session keeps that of its latest executions, until it ends.",
        );
    } else if partial {
        message.push_str(
            " Part of the output is not shown: read it with get_execution from omittedFrom or cursor, or filter it inside.",
        );
    }
    let changes = view.protected_changes.len();
    if changes > 0 {
        message.push_str(&format!(
            " It touched {changes} paths that the host would execute or trust: see protectedChanges and tell the user.",
        ));
    }
    message
}

fn standing(view: &ExecutionView) -> String {
    let id = view.id;
    let took = format!("after {:.1} s", view.duration_ms as f64 / 1000.0);
    match (view.state, view.exit_code, view.signal) {
        (ExecutionState::Queued, ..) => {
            format!(
                "Waiting for its turn; call get_execution with executionId {id} to go on waiting."
            )
        }
        (ExecutionState::Running, ..) => format!(
            "Still running {took}; call get_execution with executionId {id} to go on waiting, or cancel_execution to end it."
        ),
        (ExecutionState::Exited, Some(0), _) => format!("Exited with code 0 {took}."),
        (ExecutionState::Exited, Some(code), _) => {
            format!("Exited with code {code} {took}; the program says in its output why.")
        }
        (ExecutionState::Exited, None, _) => format!("Exited {took}."),
        (ExecutionState::Killed, _, Some(signal)) => format!("Killed by signal {signal} {took}."),
        (ExecutionState::Killed, _, None) => format!("Killed {took}."),
        (ExecutionState::TimedOut, ..) => {
            format!(
                "Killed {took} because its timeoutSeconds were over; the output so far is kept."
            )
        }
        (ExecutionState::Failed, ..) => {
            format!(
                "Could not be run to its end {took}; failure says why. The output so far is kept."
            )
        }
    }
}
