//! One process of Claude Code in the sandbox: its output, line by line and without loss, and its input.

use std::{future::pending, time::Duration};

use futures::future::BoxFuture;
use model::{ConversationId, ExecutionId, PromptOptions, WORKSPACE_PATH};
use sandbox::{
    Supervisor, SupervisorError,
    wire::{Exit, MAX_CHUNK_BYTES, OutputChunk, OutputMode, StartSpec, Stdin, Stream},
};

use crate::{program::Program, protocol::Lines};

/// Output that waits for us; then the program waits.
const WINDOW_BYTES: u64 = 4 * 1024 * 1024;
/// How long one question for output stays open.
const READ_WAIT: Duration = Duration::from_secs(30);
/// How long a process whose output is over may take to end before it is ended, and between SIGTERM and SIGKILL then.
const GRACE: Duration = Duration::from_secs(1);
/// Last words on standard error that are kept, bytes.
const COMPLAINT_BYTES: usize = 2048;
/// How long input may take to be taken.
const INPUT_PATIENCE: Duration = Duration::from_secs(20);
/// Pause before input that was not taken is offered again, and before a failed question is repeated.
const RETRY: Duration = Duration::from_millis(20);
/// How long a start is asked for whose answer does not come.
const START_PATIENCE: Duration = Duration::from_secs(60);

type Reading = BoxFuture<'static, Result<OutputChunk, SupervisorError>>;

/// See the module.
pub(crate) struct Process {
    pub(crate) key: ExecutionId,
    pub(crate) options: PromptOptions,
    pub(crate) lines: Lines,
    /// Offset up to which its output is on record.
    pub(crate) recorded: u64,
    /// It had a prompt with limits of its own, or was told to end: the next one gets another process.
    pub(crate) is_spent: bool,
    /// It was told to end, or had ended before it could be told anything.
    pub(crate) is_told: bool,
    /// When it is killed if it has not ended.
    pub(crate) kill_at: Option<tokio::time::Instant>,
    supervisor: Supervisor,
    output: Option<Reading>,
    errors: Option<Reading>,
    error_offset: u64,
    complaint: Vec<u8>,
}

/// What came of it.
pub(crate) enum Came {
    /// Output from that offset on.
    Output(u64, Vec<u8>),
    /// Nothing to act on.
    Nothing,
    /// Its output is over: it has ended, or its sandbox has.
    End,
}

/// How it ended, for a sentence.
pub(crate) struct Ending {
    pub(crate) words: String,
    pub(crate) complaint: String,
}

impl Process {
    /// Starts one.
    pub(crate) async fn start(
        supervisor: &Supervisor,
        program: &Program,
        conversation: ConversationId,
        resume: bool,
        key: ExecutionId,
        options: PromptOptions,
    ) -> Result<Self, SupervisorError> {
        let spec = StartSpec {
            execution: *key.as_bytes(),
            argv: program.arguments(conversation, resume, &options),
            cwd: WORKSPACE_PATH.as_bytes().to_vec(),
            env: program.environment(),
            stdin: Stdin::Open,
            terminal: None,
            deadline_ms: None,
            grace_ms: 0,
            output: OutputMode::Lossless {
                window_bytes: WINDOW_BYTES,
            },
        };
        let process = Process::found(supervisor, key, options, Lines::default());
        let asked_until = tokio::time::Instant::now() + START_PATIENCE;
        loop {
            // One key is started once, however often it is asked for.
            match supervisor.start(spec.clone()).await {
                Ok(_) => return Ok(process),
                Err(error) if is_passing(&error) && tokio::time::Instant::now() < asked_until => {
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => {
                    // It may run all the same, and nobody would listen to it.
                    let _ = supervisor.cancel(*key.as_bytes(), GRACE).await;
                    return Err(error);
                }
            }
        }
    }

    /// One that an earlier server started, whose output was read up to there.
    pub(crate) fn found(
        supervisor: &Supervisor,
        key: ExecutionId,
        options: PromptOptions,
        lines: Lines,
    ) -> Self {
        Process {
            key,
            recorded: lines.offset(),
            lines,
            // Limits count for a process, not for a prompt.
            is_spent: options.max_turns.is_some() || options.max_budget_micro_usd.is_some(),
            is_told: false,
            options,
            kill_at: None,
            supervisor: supervisor.clone(),
            output: None,
            errors: None,
            error_offset: 0,
            complaint: Vec::new(),
        }
    }

    /// The next thing that comes. Reading on acknowledges what came before, so it must be on record by then.
    pub(crate) async fn next(&mut self) -> Came {
        let (supervisor, key) = (&self.supervisor, *self.key.as_bytes());
        let output = self
            .output
            .get_or_insert_with(|| read(supervisor, key, Stream::Stdout, self.lines.offset()));
        let errors = self
            .errors
            .get_or_insert_with(|| read(supervisor, key, Stream::Stderr, self.error_offset));
        tokio::select! {
            chunk = output => {
                self.output = None;
                self.take_output(chunk).await
            }
            chunk = errors => {
                self.errors = Some(Box::pin(pending()));
                if let Ok(chunk) = chunk {
                    self.take_errors(&chunk);
                }
                Came::Nothing
            }
        }
    }

    async fn take_output(&mut self, chunk: Result<OutputChunk, SupervisorError>) -> Came {
        match chunk {
            Ok(chunk) if !chunk.data.is_empty() => Came::Output(chunk.offset, chunk.data),
            Ok(chunk) if chunk.status.ended => Came::End,
            Ok(_) => Came::Nothing,
            Err(error) if is_passing(&error) => {
                tokio::time::sleep(RETRY).await;
                Came::Nothing
            }
            Err(_) => Came::End,
        }
    }

    fn take_errors(&mut self, chunk: &OutputChunk) {
        self.complaint.extend_from_slice(&chunk.data);
        let excess = self.complaint.len().saturating_sub(COMPLAINT_BYTES);
        self.complaint.drain(..excess);
        self.error_offset = chunk.offset + chunk.data.len() as u64;
        if !(chunk.status.ended && chunk.data.is_empty()) {
            self.errors = None;
        }
    }

    /// Writes a whole message. A piece whose answer is lost is not written again: it may have been taken, and half a message
    /// twice is none.
    pub(crate) async fn write(&mut self, message: &[u8]) -> Result<(), SupervisorError> {
        let writing = async {
            let mut rest = message;
            while !rest.is_empty() {
                let piece = &rest[..rest.len().min(MAX_CHUNK_BYTES)];
                let asked = self
                    .supervisor
                    .write_stdin(*self.key.as_bytes(), piece, false);
                let taken = match asked.await {
                    // It was not asked at all.
                    Err(SupervisorError::TooManyOpen) => 0,
                    answer => answer?,
                };
                rest = &rest[taken.min(rest.len())..];
                if taken < piece.len() {
                    tokio::time::sleep(RETRY).await;
                }
            }
            Ok(())
        };
        tokio::time::timeout(INPUT_PATIENCE, writing)
            .await
            .unwrap_or(Err(SupervisorError::Timeout("writing to Claude Code")))
    }

    /// Closes its input, upon which it ends by itself.
    pub(crate) async fn finish(&mut self, patience: Duration) {
        (self.is_spent, self.is_told) = (true, true);
        self.kill_at = Some(tokio::time::Instant::now() + patience);
        // Where that fails, it has ended already or is killed soon.
        let _ = self
            .supervisor
            .write_stdin(*self.key.as_bytes(), &[], true)
            .await;
    }

    /// Ends it and everything that it started.
    pub(crate) async fn kill(&mut self) {
        (self.is_spent, self.is_told) = (true, true);
        self.kill_at = None;
        // Where that fails, it has ended already or its sandbox has.
        let _ = self.supervisor.cancel(*self.key.as_bytes(), GRACE).await;
    }

    /// How it ended; its output and memory inside are given back.
    pub(crate) async fn ending(&mut self) -> Ending {
        let key = *self.key.as_bytes();
        // Output can be over without an end: its stream was closed. Nobody listens to it then.
        let early = self.supervisor.wait(key, GRACE).await;
        if early.is_ok_and(|status| status.ended.is_none()) {
            let _ = self.supervisor.cancel(key, GRACE).await;
        }
        if let Ok(chunk) = read(&self.supervisor, key, Stream::Stderr, self.error_offset).await {
            self.take_errors(&chunk);
        }
        let words = match self.supervisor.wait(key, READ_WAIT).await {
            Ok(status) => match status.ended.map(|ended| ended.exit) {
                Some(Exit::Code(code)) => format!("it ended with code {code}"),
                Some(Exit::Signal(9)) => "it was killed (signal 9)".to_owned(),
                Some(Exit::Signal(signal)) => format!("it was ended by signal {signal}"),
                Some(Exit::Lost) | None => "it is gone".to_owned(),
            },
            Err(_) => "its sandbox ended".to_owned(),
        };
        let _ = self.supervisor.forget(key).await;
        Ending {
            words,
            complaint: String::from_utf8_lossy(&self.complaint).trim().to_owned(),
        }
    }
}

fn read(supervisor: &Supervisor, key: [u8; 16], stream: Stream, offset: u64) -> Reading {
    let supervisor = supervisor.clone();
    Box::pin(async move {
        supervisor
            .read(key, stream, offset, MAX_CHUNK_BYTES as u32, READ_WAIT)
            .await
    })
}

/// Asked again, it may be answered.
const fn is_passing(error: &SupervisorError) -> bool {
    match error {
        SupervisorError::Timeout(_)
        | SupervisorError::Interrupted(_)
        | SupervisorError::TooManyOpen => true,
        SupervisorError::Fault(_)
        | SupervisorError::Ended
        | SupervisorError::Protocol(_)
        | SupervisorError::Version { .. }
        | SupervisorError::Unsendable(_) => false,
    }
}
