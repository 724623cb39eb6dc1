//! The stream door: carries one execution's bytes between a client's terminal or pipes and the road.
//!
//! Output is read by long polls with cursors, as every other client does it, so nothing is lost when the client is
//! slow: it stays in the session's spool. A client that leaves ends its terminal's execution, as a closed window does;
//! any other execution goes on and can be read later.

mod pace;

use std::{sync::Arc, time::Duration};

use control::Road;
use mcp::reply::ErrorReply;
use model::{
    Action, Awaited, Call, ClientInfo, Credentials, ExecuteCommand, ExecutionId, ExecutionView,
    GetExecution, Outcome, Reason, Refusal, Secret, Source, StreamView, Terminal,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, WriteHalf},
    sync::{Mutex, Notify, mpsc},
};
use tokio_util::sync::CancellationToken;

use pace::Pace;

use super::handshake::{GREETING_TIMEOUT, GreetingError, read_line};
use crate::stream::{
    ClientFrame, Ending, FrameError, MAX_REQUEST_BYTES, ServerFrame, StreamRequest,
};

/// Pause before input that found standard input full is offered again.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// Frames of the client that wait to be carried out. It has one input under way at most, the rest is tiny.
const WAITING_FRAMES: usize = 8;

/// Who is at the door.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) credentials: Credentials,
    pub(super) client: ClientInfo,
}

/// Why a stream ended before its execution.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("the request did not come")]
    Request(#[source] GreetingError),
    #[error("the client broke the protocol, or its connection failed")]
    Frame(#[source] FrameError),
    #[error("cannot write to the client")]
    Write(#[source] std::io::Error),
    #[error("the road gave an answer of another kind")]
    Unexpected,
}

/// The road, for one caller.
#[derive(Clone)]
struct Walker {
    road: Arc<dyn Road>,
    caller: Caller,
}

impl Walker {
    async fn act(&self, action: Action) -> Result<Outcome, Refusal> {
        let Caller {
            credentials,
            client,
        } = self.caller.clone();
        self.road
            .handle(Call {
                credentials,
                client,
                source: Source::LOCAL,
                action,
            })
            .await
    }
}

type Writer<S> = Arc<Mutex<WriteHalf<S>>>;

/// Serves one stream connection.
pub(super) async fn serve<S>(
    mut stream: S,
    road: Arc<dyn Road>,
    caller: Caller,
    stop: CancellationToken,
) -> Result<(), StreamError>
where
    S: AsyncRead + AsyncWrite + tokio::io::AsyncBufRead + Unpin + Send + 'static,
{
    let request: StreamRequest = read_line(&mut stream, MAX_REQUEST_BYTES, GREETING_TIMEOUT)
        .await
        .map_err(StreamError::Request)?;
    let walker = Walker { road, caller };
    let has_terminal = request.terminal.is_some();
    let (reader, writer) = tokio::io::split(stream);
    let writer: Writer<S> = Arc::new(Mutex::new(writer));
    let execution = match start(&walker, request).await {
        Ok(execution) => execution,
        Err(refusal) => return send(&writer, refused(&refusal)).await,
    };
    send(&writer, ServerFrame::Started(execution.to_string())).await?;
    let stirred = Notify::new();
    let (frames, waiting) = mpsc::channel(WAITING_FRAMES);
    let served = tokio::select! {
        served = carry_output(&walker, execution, &writer, &stirred) => served,
        // The client's frames end before the execution does: it left.
        left = read_frames(BufReader::new(reader), frames) => {
            if has_terminal {
                // Refused only when it has ended by itself.
                let _ = walker.act(Action::CancelExecution(execution)).await;
            }
            left
        }
        never = carry_input(&walker, execution, waiting, &writer, &stirred) => never,
        () = stop.cancelled() => send(&writer, refused(&shutting_down())).await,
    };
    let _ = writer.lock().await.shutdown().await;
    served
}

async fn start(walker: &Walker, request: StreamRequest) -> Result<ExecutionId, Refusal> {
    let command = Action::ExecuteCommand(ExecuteCommand::try_from(request)?);
    let Outcome::Execution(view) = walker.act(command).await? else {
        return Err(Refusal::internal(&StreamError::Unexpected));
    };
    Ok(view.id)
}

async fn read_frames<R>(mut reader: R, frames: mpsc::Sender<ClientFrame>) -> Result<(), StreamError>
where
    R: AsyncRead + Unpin,
{
    while let Some(frame) = ClientFrame::read(&mut reader)
        .await
        .map_err(StreamError::Frame)?
    {
        if frames.send(frame).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Carries the client's frames out until it leaves; then waits for ever, since whoever reads them ends the connection.
async fn carry_input<S: AsyncRead + AsyncWrite + Send>(
    walker: &Walker,
    execution: ExecutionId,
    mut waiting: mpsc::Receiver<ClientFrame>,
    writer: &Writer<S>,
    stirred: &Notify,
) -> Result<(), StreamError> {
    let (inputs, mut offered) = mpsc::channel::<(Vec<u8>, bool)>(1);
    let feed = async {
        while let Some((bytes, close)) = offered.recv().await {
            offer(walker, execution, bytes, close).await;
            stirred.notify_one();
            send(writer, ServerFrame::Accepted).await?;
        }
        Ok(())
    };
    let dispatch = async {
        while let Some(frame) = waiting.recv().await {
            match frame {
                // The channel is closed only when `feed` has failed, which ends the connection.
                ClientFrame::Input(bytes) => drop(inputs.send((bytes, false)).await),
                ClientFrame::InputEnd => drop(inputs.send((Vec::new(), true)).await),
                ClientFrame::Cancel => drop(walker.act(Action::CancelExecution(execution)).await),
                ClientFrame::Resize(size) => {
                    let terminal = Terminal {
                        rows: size.rows,
                        columns: size.columns,
                    };
                    drop(
                        walker
                            .act(Action::ResizeTerminal {
                                execution,
                                terminal,
                            })
                            .await,
                    );
                }
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        failed = feed => failed,
        never = dispatch => never,
    }
}

/// Hands input over, waiting while the program reads nothing. Input for a program that has closed its standard input,
/// or has ended, is dropped, as in a pipe that nobody reads.
async fn offer(walker: &Walker, execution: ExecutionId, bytes: Vec<u8>, close: bool) {
    loop {
        let data = Secret::new(bytes.clone());
        match walker
            .act(Action::RespondExecution {
                execution,
                data,
                close,
            })
            .await
        {
            Err(refusal) if matches!(refusal.reason, Reason::StdinFull | Reason::RateLimited) => {
                tokio::time::sleep(pause_of(&refusal)).await;
            }
            Err(refusal) => return tracing::debug!(%refusal, "input was not taken"),
            Ok(_) => return,
        }
    }
}

async fn carry_output<S: AsyncWrite>(
    walker: &Walker,
    execution: ExecutionId,
    writer: &Writer<S>,
    stirred: &Notify,
) -> Result<(), StreamError> {
    let (mut stdout_cursor, mut stderr_cursor) = (0, 0);
    let mut pace = Pace::new();
    loop {
        let wait = pace.next(stirred).await;
        let look = Action::GetExecution(GetExecution {
            execution,
            stdout_cursor,
            stderr_cursor,
            wait,
            awaited: Awaited::News,
        });
        let outcome = match walker.act(look).await {
            Ok(outcome) => outcome,
            Err(refusal) if refusal.reason == Reason::RateLimited => {
                tokio::time::sleep(pause_of(&refusal)).await;
                continue;
            }
            Err(refusal) => return send(writer, refused(&refusal)).await,
        };
        let Outcome::Execution(view) = outcome else {
            return Err(StreamError::Unexpected);
        };
        pace.learn(view.stdout.bytes.len() + view.stderr.bytes.len());
        let ending = pass_on(&view, stdout_cursor, stderr_cursor, writer).await?;
        if let Some(ending) = ending {
            return send(writer, ServerFrame::Ended(ending)).await;
        }
        (stdout_cursor, stderr_cursor) = (view.stdout.cursor, view.stderr.cursor);
    }
}

/// Sends what a look brought; gives the end if the execution has ended and all of it is sent.
async fn pass_on<S: AsyncWrite>(
    view: &ExecutionView,
    stdout_cursor: u64,
    stderr_cursor: u64,
    writer: &Writer<S>,
) -> Result<Option<Ending>, StreamError> {
    let lost = lost(&view.stdout, stdout_cursor) + lost(&view.stderr, stderr_cursor);
    if lost > 0 {
        send(writer, ServerFrame::Lost(lost)).await?;
    }
    if !view.stdout.bytes.is_empty() {
        send(writer, ServerFrame::Stdout(view.stdout.bytes.clone())).await?;
    }
    if !view.stderr.bytes.is_empty() {
        send(writer, ServerFrame::Stderr(view.stderr.bytes.clone())).await?;
    }
    let complete = |stream: &StreamView| stream.cursor >= stream.total_bytes;
    let ended = view.state.is_final() && complete(&view.stdout) && complete(&view.stderr);
    Ok(ended.then(|| ending(view)))
}

const fn lost(stream: &StreamView, cursor: u64) -> u64 {
    stream.offset.saturating_sub(cursor)
}

fn ending(view: &ExecutionView) -> Ending {
    let changes = view
        .protected_changes
        .iter()
        .map(|change| match &change.moved_to {
            Some(place) => format!(
                "{} was moved to {}: {}",
                change.path.display(),
                place.display(),
                change.reason
            ),
            None => format!("{} changed: {}", change.path.display(), change.reason),
        });
    let memory = view
        .oom_killed
        .then(|| "a process was killed for memory".to_owned());
    Ending {
        state: view.state.as_str().to_owned(),
        exit_code: view.exit_code,
        signal: view.signal,
        notes: view
            .failure
            .clone()
            .into_iter()
            .chain(memory)
            .chain(changes)
            .collect(),
    }
}

fn pause_of(refusal: &Refusal) -> Duration {
    refusal
        .retry_after_ms
        .map_or(FULL_PAUSE, Duration::from_millis)
}

fn refused(refusal: &Refusal) -> ServerFrame {
    ServerFrame::Refused(ErrorReply::from(refusal).error)
}

fn shutting_down() -> Refusal {
    let hint = "The execution goes on while its session lives; connect again.";
    Refusal::new(Reason::ShuttingDown, "The server is shutting down.", hint)
}

async fn send<S: AsyncWrite>(writer: &Writer<S>, frame: ServerFrame) -> Result<(), StreamError> {
    let mut writer = writer.lock().await;
    frame.write(&mut *writer).await.map_err(StreamError::Write)
}
