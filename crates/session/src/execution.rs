//! One execution: started by the supervisor, watched until it ends, read by cursors.
//!
//! An execution never hangs on a caller: who waits for it can go away, and it is watched all the same.

use std::{
    os::unix::ffi::OsStrExt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use model::{
    CommandLine, ExecutionId, ExecutionState, ExecutionView, GetExecution, LogLine,
    ProtectedChange, Reason, Refusal, Secret, SessionId, StreamView, Terminal,
};
use policy::{CommandParts, CommandPermit, ExecutionPermit};
use sandbox::{
    Supervisor, SupervisorError,
    wire::{
        Cause, Ended, ExecutionStatus, Exit, MAX_CHUNK_BYTES, OutputChunk, OutputMode, StartSpec,
        Stdin, Stream, StreamStatus, TerminalSize,
    },
};
use store::{ExecutionChange, ExecutionRecord};
use tokio::{sync::watch, time::Instant};

use crate::{
    environment,
    heard::Heard,
    live::Live,
    refusals,
    sessions::{Inner, Sessions, now_ms},
};

/// Output that is kept of each stream of a shell command; older output is dropped.
const KEEP_BYTES: u64 = 8 * 1024 * 1024;
/// Output in one view of each stream; the doors shorten it further for their readers.
const VIEW_BYTES: u64 = 256 * 1024;
/// Between SIGTERM and SIGKILL when an execution is ended from outside: the tree is gone within a second.
const GRACE: Duration = Duration::from_millis(500);
/// How long one question for the end of an execution stays open.
const WATCH_INTERVAL: Duration = Duration::from_secs(30);
/// How long before something that the supervisor could not take is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// See the module.
pub(crate) struct Execution {
    pub(crate) id: ExecutionId,
    pub(crate) session: SessionId,
    pub(crate) owner: String,
    pub(crate) supervisor: Supervisor,
    started: Instant,
    started_at: SystemTime,
    progress: watch::Sender<Progress>,
    pub(crate) heard: Heard,
}

/// Where an execution stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    end: Option<End>,
}

#[derive(Debug, Clone)]
struct End {
    state: ExecutionState,
    exit_code: Option<i32>,
    signal: Option<i32>,
    oom_killed: bool,
    duration_ms: u64,
    stdout: StreamStatus,
    stderr: StreamStatus,
    protected_changes: Vec<ProtectedChange>,
    failure: Option<String>,
}

impl Execution {
    fn new(id: ExecutionId, live: &Live, running_for: Duration) -> Arc<Self> {
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

    fn duration_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl End {
    fn failed(why: &str, duration_ms: u64) -> Self {
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
        }
    }

    fn of(
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
        }
    }

    fn change(&self) -> ExecutionChange {
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
            ..ExecutionChange::default()
        }
    }

    fn sentence(&self) -> String {
        let how = match (self.exit_code, self.signal) {
            (Some(code), _) => format!("{} {code}", self.state.as_str()),
            (None, Some(signal)) => format!("{} by signal {signal}", self.state.as_str()),
            (None, None) => self.state.as_str().to_owned(),
        };
        format!("{how} after {} ms", self.duration_ms)
    }
}

impl Sessions {
    /// Starts a command and waits for its end as long as the permit says.
    ///
    /// # Errors
    /// When the session does not work, has too many executions, or the command cannot be started; nothing runs then.
    pub async fn execute(&self, permit: CommandPermit) -> Result<ExecutionView, Refusal> {
        let mut parts = permit.into_parts();
        let live = self.0.ready(parts.session).await?;
        let id = ExecutionId::random().map_err(|error| Refusal::internal(&error))?;
        let execution = Execution::new(id, &live, Duration::ZERO);
        if !live.enter(&execution, parts.max_running_executions) {
            return Err(Refusal::new(
                Reason::LimitReached,
                format!(
                    "{} executions are running in the session, as many as may.",
                    parts.max_running_executions
                ),
                "Wait until one has ended, or cancel one with cancel_execution.",
            )
            .retry_after_ms(1_000));
        }
        let (stdin, wait) = (parts.stdin.take(), parts.wait);
        let keep_open = parts.keep_stdin_open || parts.terminal.is_some();
        if let Err(refusal) = self
            .start(&live, &execution, &parts, stdin.is_some() || keep_open)
            .await
        {
            live.leave(id);
            return Err(refusal);
        }
        self.0.insert_execution(execution.clone());
        if let Some(stdin) = stdin {
            tokio::spawn(feed(execution.clone(), stdin, !keep_open));
        }
        tokio::spawn(self.0.clone().watch(live.clone(), execution.clone()));
        execution.ended_within(wait).await;
        Ok(self.0.execution_view(&execution, Cursors::tail()).await)
    }

    async fn start(
        &self,
        live: &Arc<Live>,
        execution: &Arc<Execution>,
        parts: &CommandParts,
        stdin_open: bool,
    ) -> Result<(), Refusal> {
        let record = ExecutionRecord {
            id: execution.id,
            session: live.id,
            state: ExecutionState::Running,
            started_at_ms: now_ms(),
            ended_at_ms: None,
            timeout_ms: u64::try_from(parts.deadline.as_millis()).ok(),
            exit_code: None,
            signal: None,
            oom_killed: false,
            duration_ms: 0,
            failure: None,
            protected_changes: None,
        };
        let spec = start_spec(execution.id, parts, stdin_open);
        // Side by side: an execution without a row is found again by its supervisor, a row without one is closed.
        let (stored, started) = tokio::join!(
            self.0.stored(move |store| store.insert_execution(&record)),
            live.supervisor.start(spec)
        );
        match (stored, started) {
            (Ok(()), Ok(_)) => Ok(()),
            (Err(refusal), Ok(_)) => {
                // Not on record, so it must not run.
                let _ = live
                    .supervisor
                    .cancel(*execution.id.as_bytes(), Duration::ZERO)
                    .await;
                Err(refusal)
            }
            (stored, Err(error)) => {
                let refusal = refusals::supervisor(&error);
                if stored.is_ok() {
                    self.0
                        .record_end(execution.id, &End::failed(&refusal.message, 0))
                        .await;
                }
                Err(refusal)
            }
        }
    }

    /// Reads an execution, waiting for news as long as asked.
    ///
    /// # Errors
    /// `execution_not_found`, or when the store fails.
    pub async fn read_execution(
        &self,
        permit: ExecutionPermit,
        read: &GetExecution,
    ) -> Result<ExecutionView, Refusal> {
        let (id, _) = permit.into_parts();
        let cursors = Cursors {
            stdout: Some(read.stdout_cursor),
            stderr: Some(read.stderr_cursor),
        };
        let Some(execution) = self.0.execution(id) else {
            return self.0.stored_execution(id).await;
        };
        if !read.wait.is_zero() {
            execution
                .news(read.stdout_cursor, read.stderr_cursor, read.wait)
                .await;
        }
        if let Some(live) = self.0.live(execution.session) {
            live.touch();
        }
        Ok(self.0.execution_view(&execution, cursors).await)
    }

    /// Ends an execution's whole tree and waits until it is gone.
    ///
    /// # Errors
    /// `execution_not_found`, or when the sandbox does not answer. One that had ended before is no error.
    pub async fn cancel(&self, permit: ExecutionPermit) -> Result<ExecutionView, Refusal> {
        let (id, _) = permit.into_parts();
        let Some(execution) = self.0.execution(id) else {
            return self.0.stored_execution(id).await;
        };
        if !execution.is_final() {
            match execution.supervisor.cancel(*id.as_bytes(), GRACE).await {
                Ok(()) => execution.ended_within(GRACE * 4).await,
                Err(SupervisorError::Ended) => execution.lose("its sandbox ended"),
                Err(error) => return Err(refusals::supervisor(&error)),
            }
        }
        Ok(self.0.execution_view(&execution, Cursors::tail()).await)
    }

    /// Writes to an execution's standard input.
    ///
    /// # Errors
    /// `stdin_closed`, `stdin_full` (nothing was written), `execution_ended`.
    pub async fn respond(
        &self,
        permit: ExecutionPermit,
        data: &Secret<Vec<u8>>,
        close: bool,
    ) -> Result<ExecutionView, Refusal> {
        let (id, _) = permit.into_parts();
        let Some(execution) = self
            .0
            .execution(id)
            .filter(|execution| !execution.is_final())
        else {
            return Err(Refusal::new(
                Reason::ExecutionEnded,
                "The execution has ended.",
                "Start another one.",
            ));
        };
        let mut rest = data.expose().as_slice();
        let deadline = Instant::now() + STDIN_PATIENCE;
        loop {
            let (chunk, after) = rest.split_at(rest.len().min(MAX_CHUNK_BYTES));
            let taken = execution
                .supervisor
                .write_stdin(*id.as_bytes(), chunk, close && after.is_empty())
                .await
                .map_err(|error| refusals::supervisor(&error))?;
            rest = &rest[taken.min(rest.len())..];
            if rest.is_empty() && (taken == chunk.len()) {
                break;
            }
            if Instant::now() >= deadline {
                return Err(stdin_full(data.expose().len() - rest.len()));
            }
            if taken < chunk.len() {
                tokio::time::sleep(RETRY).await;
            }
        }
        if let Some(live) = self.0.live(execution.session) {
            live.touch();
        }
        Ok(self.0.execution_view(&execution, Cursors::tail()).await)
    }

    /// Tells an execution that its terminal changed.
    ///
    /// # Errors
    /// `execution_not_found`, `execution_ended`, or when it has no terminal.
    pub async fn resize(&self, permit: ExecutionPermit, terminal: Terminal) -> Result<(), Refusal> {
        let (id, _) = permit.into_parts();
        let execution = self
            .0
            .execution(id)
            .ok_or_else(refusals::execution_not_found)?;
        let resized = execution
            .supervisor
            .resize(*id.as_bytes(), size(terminal))
            .await;
        resized.map_err(|error| refusals::supervisor(&error))
    }
}

/// How long a call waits for a program to read its standard input.
const STDIN_PATIENCE: Duration = Duration::from_secs(5);

fn stdin_full(taken: usize) -> Refusal {
    Refusal::new(
        Reason::StdinFull,
        format!(
            "The program does not read its standard input; it took {taken} bytes of what was given."
        ),
        "Send the rest once it has read some; get_execution tells what it is doing.",
    )
    .retry_after_ms(1_000)
}

/// Gives an execution the standard input that came with it.
async fn feed(execution: Arc<Execution>, stdin: Secret<Vec<u8>>, close: bool) {
    let mut rest = stdin.expose().as_slice();
    loop {
        let (chunk, after) = rest.split_at(rest.len().min(MAX_CHUNK_BYTES));
        let last = after.is_empty();
        match execution
            .supervisor
            .write_stdin(*execution.id.as_bytes(), chunk, close && last)
            .await
        {
            Ok(taken) if taken == chunk.len() && last => return,
            Ok(taken) => {
                rest = &rest[taken.min(rest.len())..];
                if taken < chunk.len() {
                    tokio::time::sleep(RETRY).await;
                }
            }
            // It ended, or closed its input: what is left has no reader.
            Err(_) => return,
        }
    }
}

fn start_spec(id: ExecutionId, parts: &CommandParts, stdin_open: bool) -> StartSpec {
    let argv = match &parts.command {
        CommandLine::Shell(line) => vec![
            b"/bin/sh".to_vec(),
            b"-c".to_vec(),
            line.as_bytes().to_vec(),
        ],
        CommandLine::Argv(argv) => argv.iter().map(|word| word.as_bytes().to_vec()).collect(),
    };
    StartSpec {
        execution: *id.as_bytes(),
        argv,
        cwd: parts.cwd.as_os_str().as_bytes().to_vec(),
        env: environment::of_execution(&parts.env, parts.terminal.is_some()),
        stdin: if stdin_open { Stdin::Open } else { Stdin::Null },
        terminal: parts.terminal.map(size),
        deadline_ms: u64::try_from(parts.deadline.as_millis()).ok(),
        grace_ms: u32::try_from(GRACE.as_millis()).unwrap_or(u32::MAX),
        output: OutputMode::DropOldest {
            keep_bytes: KEEP_BYTES,
        },
    }
}

const fn size(terminal: Terminal) -> TerminalSize {
    TerminalSize {
        rows: terminal.rows,
        columns: terminal.columns,
    }
}

/// From where output is wanted; `None`: the last part of it.
#[derive(Clone, Copy)]
struct Cursors {
    stdout: Option<u64>,
    stderr: Option<u64>,
}

impl Cursors {
    const fn tail() -> Self {
        Cursors {
            stdout: None,
            stderr: None,
        }
    }
}

impl Inner {
    /// Follows an execution to its end and puts that on record.
    pub(crate) async fn watch(self: Arc<Self>, live: Arc<Live>, execution: Arc<Execution>) {
        let oom_before = self.oom_kills(live.id).await;
        let end = loop {
            match execution
                .supervisor
                .wait(*execution.id.as_bytes(), WATCH_INTERVAL)
                .await
            {
                Ok(status) => {
                    if let Some(ended) = status.ended {
                        let (oom_after, report) =
                            tokio::join!(self.oom_kills(live.id), live.scan());
                        let mut changes = report.changes;
                        if report.incomplete {
                            changes.push(incomplete_scan());
                        }
                        break End::of(&status, ended, oom_after > oom_before, changes);
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
            self.note(
                live.id,
                format!("execution {} {}", execution.id, end.sentence()),
            )
            .await;
        }
    }

    /// Takes up an execution that an earlier server started.
    pub(crate) fn adopt_execution(self: &Arc<Self>, live: &Arc<Live>, status: &ExecutionStatus) {
        let id = ExecutionId::from_bytes(status.execution);
        let execution = Execution::new(id, live, Duration::from_micros(status.duration_us));
        live.enter(&execution, u32::MAX);
        self.insert_execution(execution.clone());
        tokio::spawn(self.clone().watch(live.clone(), execution));
    }

    async fn record_end(&self, id: ExecutionId, end: &End) {
        let change = end.change();
        let open = [ExecutionState::Queued, ExecutionState::Running];
        if let Err(refusal) = self
            .stored(move |store| store.update_execution(id, &open, &change))
            .await
        {
            tracing::warn!(execution = %id, detail = ?refusal.detail, "the end of an execution is not on record");
        }
    }

    async fn oom_kills(&self, session: SessionId) -> u64 {
        self.setup
            .backend
            .stats(session)
            .await
            .ok()
            .and_then(|usage| usage.oom_kills)
            .unwrap_or(0)
    }

    async fn execution_view(&self, execution: &Execution, cursors: Cursors) -> ExecutionView {
        let end = execution.progress.borrow().end.clone();
        let known = end.as_ref().map(|end| (end.stdout, end.stderr));
        let (stdout, stderr) = tokio::join!(
            stream(
                execution,
                Stream::Stdout,
                cursors.stdout,
                known.map(|known| known.0)
            ),
            stream(
                execution,
                Stream::Stderr,
                cursors.stderr,
                known.map(|known| known.1)
            ),
        );
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
            },
            Some(end) => ExecutionView {
                id: execution.id,
                session: execution.session,
                state: end.state,
                exit_code: end.exit_code,
                signal: end.signal,
                oom_killed: end.oom_killed,
                duration_ms: end.duration_ms,
                stdout,
                stderr,
                protected_changes: end.protected_changes,
                failure: end.failure,
            },
        }
    }

    /// An execution that is no longer at hand: its end is on record, its output is gone with its sandbox.
    async fn stored_execution(&self, id: ExecutionId) -> Result<ExecutionView, Refusal> {
        let record = self
            .stored(move |store| store.execution(id))
            .await?
            .ok_or_else(refusals::execution_not_found)?;
        let changes = record
            .protected_changes
            .as_deref()
            .and_then(|json| serde_json::from_slice(json).ok());
        Ok(ExecutionView {
            id,
            session: record.session,
            state: record.state,
            exit_code: record.exit_code,
            signal: record.signal,
            oom_killed: record.oom_killed,
            duration_ms: record.duration_ms,
            stdout: StreamView::default(),
            stderr: StreamView::default(),
            protected_changes: changes.unwrap_or_default(),
            failure: record.failure,
        })
    }
}

fn incomplete_scan() -> ProtectedChange {
    ProtectedChange {
        path: ".".into(),
        moved_to: None,
        reason: "the workspace is too large to be scanned completely; look for new hooks and editor settings yourself"
            .to_owned(),
    }
}

/// Reads a stream from a cursor on, or its last part. `known` is the final status, where there is one.
async fn stream(
    execution: &Execution,
    which: Stream,
    from: Option<u64>,
    known: Option<StreamStatus>,
) -> StreamView {
    let status = match known {
        Some(status) => status,
        None => match read_chunk(execution, which, u64::MAX, 1).await {
            Some(chunk) => chunk.status,
            None => return StreamView::default(),
        },
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
        let Some(chunk) = read_chunk(execution, which, view.cursor, want).await else {
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
    view
}

/// How long reading what is there already is tried again while the supervisor has its hands full.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// What is kept of a stream from an offset on. `None`: its sandbox is gone, or does not answer.
async fn read_chunk(
    execution: &Execution,
    which: Stream,
    offset: u64,
    max_bytes: u32,
) -> Option<OutputChunk> {
    let deadline = Instant::now() + READ_PATIENCE;
    loop {
        let key = *execution.id.as_bytes();
        match execution
            .supervisor
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
                tracing::debug!(execution = %execution.id, %error, "output was not read");
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
                let view = stream(&execution, which, from, known).await;
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

/// When an execution started, for its record after a restart.
pub(crate) fn started_at(duration_us: u64) -> u64 {
    let elapsed = Duration::from_micros(duration_us);
    crate::view::milliseconds(
        SystemTime::now()
            .checked_sub(elapsed)
            .unwrap_or(SystemTime::UNIX_EPOCH),
    )
}
