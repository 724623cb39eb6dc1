//! What callers do with executions: start, read, end, answer, resize.

use std::{os::unix::ffi::OsStrExt, sync::Arc, time::Duration};

use model::{
    Awaited, CommandLine, ExecutionId, ExecutionState, ExecutionView, GetExecution, NetworkTarget,
    Reason, Refusal, Secret, Terminal,
};
use policy::{CommandParts, CommandPermit, ExecutionPermit};
use sandbox::{
    SupervisorError,
    wire::{MAX_CHUNK_BYTES, OutputMode, StartSpec, Stdin, TerminalSize},
};
use store::ExecutionRecord;
use tokio::time::Instant;

use crate::{
    environment,
    execution::{End, Execution, RETRY},
    live::Live,
    output::Cursors,
    refusals,
    sessions::{Sessions, now_ms},
};

/// Output that is kept of each stream of a shell command; older output is dropped.
const KEEP_BYTES: u64 = 8 * 1024 * 1024;
/// Between SIGTERM and SIGKILL when an execution is ended from outside: the tree is gone within a second.
const GRACE: Duration = Duration::from_millis(500);

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
            return Err(refusals::too_many_executions(parts.max_running_executions));
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
        tokio::spawn(self.0.clone().watch(live.clone(), execution.clone()));
        if let Some(stdin) = stdin {
            let mut input = Input::new(stdin, !keep_open);
            // What is taken at once is given before the call is over, so that its audited operation covers it.
            if input.give(&execution).await {
                tokio::spawn(feed(execution.clone(), input));
            }
        }
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
            prompt: None,
        };
        let spec = start_spec(execution.id, parts, stdin_open, live.network.is_open());
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
            return self.0.stored_execution(id, cursors).await;
        };
        if !read.wait.is_zero() {
            match &read.awaited {
                Awaited::News if execution.prompt.is_some() => {
                    execution.ended_or_asking(read.wait).await;
                }
                Awaited::News => {
                    execution
                        .news(read.stdout_cursor, read.stderr_cursor, read.wait)
                        .await;
                }
                Awaited::Progress => execution.progressed(read.wait).await,
                Awaited::End => execution.ended_or_asking(read.wait).await,
                Awaited::Answered { question } => execution.answered(question, read.wait).await,
                Awaited::EndOrWish => self.ended_or_wish(&execution, read.wait).await,
                Awaited::NetworkAnswered(target) => {
                    self.network_answered(&execution, target, read.wait).await;
                }
            }
        }
        if let Some(live) = self.0.live(execution.session) {
            live.touch();
        }
        Ok(self.0.execution_view(&execution, cursors).await)
    }

    async fn ended_or_wish(&self, execution: &Execution, wait: Duration) {
        match self.0.live(execution.session) {
            Some(live) => tokio::select! {
                () = execution.ended_or_asking(wait) => {}
                () = live.network.asks() => {}
            },
            None => execution.ended_or_asking(wait).await,
        }
    }

    /// Returns at once where the session is gone: then nobody waits.
    async fn network_answered(
        &self,
        execution: &Execution,
        target: &NetworkTarget,
        wait: Duration,
    ) {
        if let Some(live) = self.0.live(execution.session) {
            // Elapsed is as good an answer.
            let _ = tokio::time::timeout(wait, live.network.answered(target)).await;
        }
    }

    /// Ends an execution's whole tree and waits until it is gone.
    ///
    /// # Errors
    /// `execution_not_found`, or when the sandbox does not answer. One that had ended before is no error.
    pub async fn cancel(&self, permit: ExecutionPermit) -> Result<ExecutionView, Refusal> {
        let (id, _) = permit.into_parts();
        let Some(execution) = self.0.execution(id) else {
            let view = self.0.stored_execution(id, Cursors::tail()).await?;
            // Runs, but its session is not yet taken up again: success would promise what nobody does.
            return if view.state.is_final() {
                Ok(view)
            } else {
                Err(self.0.not_ready(view.session).await)
            };
        };
        if let Some(prompt) = execution.prompt.as_ref().filter(|_| !execution.is_final()) {
            prompt.cancel(&execution).await;
        } else if !execution.is_final() {
            match execution.supervisor.cancel(*id.as_bytes(), GRACE).await {
                Ok(()) => execution.ended_within(GRACE * 4).await,
                Err(SupervisorError::Ended) => execution.lose("its sandbox ended"),
                Err(error) => return Err(refusals::supervisor(&error)),
            }
        }
        Ok(self.0.execution_view(&execution, Cursors::tail()).await)
    }

    /// Writes to an execution's standard input. To close it where it is closed, or where the execution has ended, is done already.
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
        let is_done = |refusal: &Refusal| {
            let is_closed = matches!(refusal.reason, Reason::StdinClosed | Reason::ExecutionEnded);
            is_closed && close && data.expose().is_empty()
        };
        let execution = match self.0.running_execution(id).await {
            Err(refusal) if is_done(&refusal) => return self.0.known_execution(id).await,
            execution => execution?,
        };
        if execution.prompt.is_some() {
            return Err(refusals::no_stdin());
        }
        let mut rest = data.expose().as_slice();
        let deadline = Instant::now() + STDIN_PATIENCE;
        loop {
            let (chunk, after) = rest.split_at(rest.len().min(MAX_CHUNK_BYTES));
            let written = execution
                .supervisor
                .write_stdin(*id.as_bytes(), chunk, close && after.is_empty())
                .await
                .map_err(|error| refusals::supervisor(&error));
            let taken = match written {
                Err(refusal) if is_done(&refusal) => 0,
                written => written?,
            };
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
        let execution = self.0.running_execution(id).await?;
        if execution.prompt.is_some() {
            return Err(refusals::no_stdin());
        }
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

/// The standard input that came with an execution.
struct Input {
    bytes: Secret<Vec<u8>>,
    /// How much of it was taken.
    taken: usize,
    /// Whether nothing comes after it.
    close: bool,
}

impl Input {
    const fn new(bytes: Secret<Vec<u8>>, close: bool) -> Self {
        Input {
            bytes,
            taken: 0,
            close,
        }
    }

    /// Gives what is taken now. Whether some is left that may be taken later.
    async fn give(&mut self, execution: &Execution) -> bool {
        loop {
            let rest = &self.bytes.expose()[self.taken..];
            let (piece, after) = rest.split_at(rest.len().min(MAX_CHUNK_BYTES));
            let (offered, last) = (piece.len(), after.is_empty());
            let written = execution
                .supervisor
                .write_stdin(*execution.id.as_bytes(), piece, self.close && last)
                .await;
            // It ended, or closed its input: what is left has no reader.
            let Ok(taken) = written else { return false };
            self.taken += taken.min(offered);
            if taken < offered {
                return true;
            }
            if last {
                return false;
            }
        }
    }
}

/// Gives an execution the rest of its input, as the program reads.
async fn feed(execution: Arc<Execution>, mut input: Input) {
    tokio::time::sleep(RETRY).await;
    while input.give(&execution).await {
        tokio::time::sleep(RETRY).await;
    }
}

fn start_spec(
    id: ExecutionId,
    parts: &CommandParts,
    stdin_open: bool,
    has_network: bool,
) -> StartSpec {
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
        env: environment::of_execution(&parts.env, parts.terminal.is_some(), has_network),
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
