//! The client of one sandbox's supervisor.
//!
//! A caller's request goes to the desk, from there to the connection and, once its reply is checked, back. One task per
//! sandbox reads and writes; when the supervisor redials, it goes on there. Every wait is bounded: the desk by counts
//! and bytes, the caller by the request's own wait and [`REPLY_MARGIN`].
//!
//! What this does not stop: a supervisor that answers every question plausibly and wrongly. The backend's own reading
//! ([`crate::Inspection`]) is the second opinion.

pub(crate) mod channel;
mod check;
mod connection;
mod desk;
mod error;
mod greeting;
mod relayed;
mod transfer;
mod tree;

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use wire::{
    ExecutionKey, ExecutionStatus, FaultKind, Hello, MAX_CHUNK_BYTES, MAX_WAIT_MS, OutputChunk,
    PROTOCOL_VERSION, RelayTakes, Reply, Request, StartSpec, Stream, TerminalSize, TransferKind,
    TransferSpec,
};

use crate::Link;
use channel::Channel;
use desk::{Desk, TransferTicket, activity};
use greeting::{Arrivals, Greeting};

pub use error::{EndReason, SupervisorError, TransferError};
pub use relayed::Relayed;
pub use transfer::{Export, ExportFrame, Import, TransferLimits};

/// Time for a request to get through and its answer to come back, on top of the wait that it asks for. Generous: a
/// sandbox at its CPU limit answers late, and a redial takes its time.
const REPLY_MARGIN: Duration = Duration::from_secs(10);
/// Time for the supervisor to dial a data connection once it said that it has.
const DATA_CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections from inside that may wait to be taken; one more is closed.
const WAITING_RELAYED: usize = 128;
/// Time for a sandbox to be gone after it was told to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// A handle to one sandbox's supervisor; clones drive the same one. Dropping the last one closes the connection and
/// stops listening; the sandbox then lives on until its lease ends.
///
/// Every method is cancel-safe for the caller's bookkeeping: dropping the future ends the wait and frees its place. A
/// request that was already sent is then carried out or not.
#[derive(Clone)]
pub struct Supervisor {
    handle: Arc<Handle>,
}

struct Handle {
    desk: Arc<Desk>,
    task: JoinHandle<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Supervisor {
    /// Takes the first control connection of the link, reads the supervisor's greeting and accepts it with a lease.
    ///
    /// # Errors
    /// [`SupervisorError::Timeout`] when none greets within `handshake_timeout`, [`SupervisorError::Version`] when it
    /// speaks another protocol, [`SupervisorError::Ended`] when the sandbox ended first, [`SupervisorError::Protocol`]
    /// when what comes is no greeting.
    pub async fn attach(
        link: Link,
        lease: Duration,
        handshake_timeout: Duration,
    ) -> Result<(Supervisor, Hello), SupervisorError> {
        let mut arrivals = Arrivals::new(link);
        let (hello, channel) = timeout(handshake_timeout, first_greeting(&mut arrivals))
            .await
            .map_err(|_| SupervisorError::Timeout("waiting for the supervisor's greeting"))??;
        let desk = Arc::new(Desk::new(milliseconds(lease)));
        let driving = connection::drive(Arc::clone(&desk), arrivals, hello.clone(), channel);
        let handle = Handle {
            desk,
            task: tokio::spawn(driving),
        };
        Ok((
            Supervisor {
                handle: Arc::new(handle),
            },
            *hello,
        ))
    }

    /// The sandbox lives that long from now. Rounded down to milliseconds, at most 49 days.
    ///
    /// # Errors
    /// As every request: [`SupervisorError::Ended`], [`SupervisorError::Protocol`], [`SupervisorError::Timeout`],
    /// [`SupervisorError::TooManyOpen`].
    pub async fn renew_lease(&self, lease: Duration) -> Result<(), SupervisorError> {
        self.done(Request::RenewLease {
            lease_ms: milliseconds(lease),
        })
        .await
    }

    /// Replaces the environment of every later start, `NAME=value` each; a start's own variables win by name. The
    /// supervisor keeps it in its memory as long as the sandbox lives, whatever becomes of this server.
    ///
    /// # Errors
    /// [`SupervisorError::Fault`] with `Invalid` over [`wire::MAX_ENVIRONMENT_BYTES`] or for an entry without `=`;
    /// [`SupervisorError::Unsendable`] over [`wire::MAX_TO_SUPERVISOR_BYTES`].
    pub async fn set_environment(&self, env: Vec<Vec<u8>>) -> Result<(), SupervisorError> {
        self.done(Request::SetEnvironment { env }).await
    }

    /// Starts an execution. Idempotent by key: a second start is answered with the first one's status.
    ///
    /// # Errors
    /// [`SupervisorError::Fault`] with `CannotExecute`, `BadCwd`, `TooMany`, …; [`SupervisorError::Unsendable`] when
    /// arguments and environment are over [`wire::MAX_TO_SUPERVISOR_BYTES`].
    pub async fn start(&self, spec: StartSpec) -> Result<ExecutionStatus, SupervisorError> {
        self.status(Request::Start(Box::new(spec)), Duration::ZERO)
            .await
    }

    /// Writes to standard input; tells how many bytes were taken, which is less than given when the program does not
    /// read or `data` is over [`wire::MAX_CHUNK_BYTES`]. With `close` the input is closed once all of `data` is taken.
    ///
    /// # Errors
    /// [`SupervisorError::Interrupted`] when the connection dropped before the answer: the bytes may have been taken.
    pub async fn write_stdin(
        &self,
        execution: ExecutionKey,
        data: &[u8],
        close: bool,
    ) -> Result<usize, SupervisorError> {
        let taken = data.len().min(MAX_CHUNK_BYTES);
        let request = Request::WriteStdin {
            execution,
            data: data[..taken].to_vec(),
            close: close && taken == data.len(),
        };
        let Reply::Accepted(count) = self.ask(request, Duration::ZERO).await? else {
            return Err(wrong_kind());
        };
        Ok(count as usize)
    }

    /// Sends a signal (1 to 64) to the main process.
    ///
    /// # Errors
    /// [`SupervisorError::Interrupted`] when the connection dropped before the answer.
    pub async fn signal(
        &self,
        execution: ExecutionKey,
        signal: i32,
    ) -> Result<(), SupervisorError> {
        self.done(Request::Signal { execution, signal }).await
    }

    /// Resizes the terminal.
    ///
    /// # Errors
    /// [`SupervisorError::Interrupted`] when the connection dropped before the answer.
    pub async fn resize(
        &self,
        execution: ExecutionKey,
        size: TerminalSize,
    ) -> Result<(), SupervisorError> {
        self.done(Request::Resize { execution, size }).await
    }

    /// Ends the whole tree: SIGTERM, SIGKILL after the grace. Answers at once; [`Supervisor::wait`] for the end.
    ///
    /// # Errors
    /// [`SupervisorError::Fault`] with `UnknownExecution` or `Ended`.
    pub async fn cancel(
        &self,
        execution: ExecutionKey,
        grace: Duration,
    ) -> Result<(), SupervisorError> {
        self.done(Request::Cancel {
            execution,
            grace_ms: milliseconds(grace),
        })
        .await
    }

    /// Reads output from an offset on, waiting up to `wait` (at most [`wire::MAX_WAIT_MS`]) for the first byte. At most
    /// `max_bytes`, and never more than [`wire::MAX_CHUNK_BYTES`]. The chunk's offset is greater than asked where output
    /// is no longer kept, and the stream's end where less than that has come.
    ///
    /// # Errors
    /// [`SupervisorError::Fault`] with `UnknownExecution`.
    pub async fn read(
        &self,
        execution: ExecutionKey,
        stream: Stream,
        offset: u64,
        max_bytes: u32,
        wait: Duration,
    ) -> Result<OutputChunk, SupervisorError> {
        let (wait, wait_ms) = bounded_wait(wait);
        let max_bytes = max_bytes.min(MAX_CHUNK_BYTES as u32);
        let request = Request::Read {
            execution,
            stream,
            offset,
            max_bytes,
            wait_ms,
        };
        let Reply::Output(chunk) = self.ask(request, wait).await? else {
            return Err(wrong_kind());
        };
        Ok(chunk)
    }

    /// Waits for the end of an execution, up to `wait` (at most [`wire::MAX_WAIT_MS`]); its status then.
    ///
    /// # Errors
    /// [`SupervisorError::Fault`] with `UnknownExecution`.
    pub async fn wait(
        &self,
        execution: ExecutionKey,
        wait: Duration,
    ) -> Result<ExecutionStatus, SupervisorError> {
        let (wait, wait_ms) = bounded_wait(wait);
        self.status(Request::Wait { execution, wait_ms }, wait)
            .await
    }

    /// All executions that the supervisor remembers.
    ///
    /// # Errors
    /// As every request.
    pub async fn list(&self) -> Result<Vec<ExecutionStatus>, SupervisorError> {
        let Reply::Executions(list) = self.ask(Request::List, Duration::ZERO).await? else {
            return Err(wrong_kind());
        };
        Ok(list)
    }

    /// Forgets an ended execution and its output. Success also when it is not known: a repeated request finds it gone.
    ///
    /// # Errors
    /// [`SupervisorError::Fault`] when it still runs.
    pub async fn forget(&self, execution: ExecutionKey) -> Result<(), SupervisorError> {
        match self.done(Request::Forget { execution }).await {
            Err(SupervisorError::Fault(fault)) if fault.kind == FaultKind::UnknownExecution => {
                Ok(())
            }
            other => other,
        }
    }

    /// Ends the sandbox; returns once it is gone. What is left of it is removed by [`crate::Backend::destroy`].
    ///
    /// # Errors
    /// [`SupervisorError::Timeout`] when it is not gone soon.
    pub async fn shutdown(&self) -> Result<(), SupervisorError> {
        let desk = &self.handle.desk;
        let submitted = match desk.submit(Request::Shutdown) {
            Err(SupervisorError::Ended) => return Ok(()),
            other => other?,
        };
        let ended = timeout(SHUTDOWN_TIMEOUT, desk.ended()).await;
        drop(submitted);
        match ended {
            Ok(EndReason::Gone) => Ok(()),
            Ok(EndReason::Broken(what)) => Err(SupervisorError::Protocol(what)),
            Err(_) => Err(SupervisorError::Timeout(activity(&Request::Shutdown))),
        }
    }

    /// Resolves once the sandbox is gone or broke its protocol.
    pub async fn ended(&self) -> EndReason {
        self.handle.desk.ended().await
    }

    /// A control connection stands at the moment.
    pub fn is_connected(&self) -> bool {
        self.handle.desk.is_connected()
    }

    /// Reads the tree or file at an absolute path inside.
    ///
    /// # Errors
    /// [`SupervisorError::Fault`] when the supervisor does not open it (a path that cannot be used may also be told by
    /// the first frame: [`TransferError::Refused`] with `BadPath`), [`SupervisorError::TooManyOpen`] when as many
    /// transfers are open as may be, [`SupervisorError::Timeout`] when no data connection comes.
    pub async fn export(
        &self,
        path: &[u8],
        limits: TransferLimits,
    ) -> Result<Export, SupervisorError> {
        let kind = TransferKind::Export {
            path: path.to_vec(),
        };
        let (ticket, channel) = self.open_transfer(kind, limits).await?;
        Ok(Export::new(ticket, channel, limits))
    }

    /// Writes a tree or file to an absolute path inside; `refuse` as in [`wire::TransferKind::Import`].
    ///
    /// # Errors
    /// As for [`Supervisor::export`].
    pub async fn import(
        &self,
        path: &[u8],
        refuse: Vec<Vec<u8>>,
        limits: TransferLimits,
    ) -> Result<Import, SupervisorError> {
        let kind = TransferKind::Import {
            path: path.to_vec(),
            refuse,
        };
        let (ticket, channel) = self.open_transfer(kind, limits).await?;
        Ok(Import::new(ticket, channel, limits))
    }

    /// Listens on a port of the sandbox's loopback interface, until the sandbox ends. What connects there arrives at the
    /// receiver as long as it exists; while it does not, connections are closed at once. The port is the supervisor's
    /// before anything else could take it only when this is called before anything was started.
    ///
    /// # Errors
    /// [`SupervisorError::Fault`] with `System` when the port is taken, and as every request.
    pub async fn open_relay(&self, port: u16) -> Result<mpsc::Receiver<Relayed>, SupervisorError> {
        self.relay(port, RelayTakes::Streams).await
    }

    /// The same for UDP datagrams, too: each arrives as a connection on which one message comes and one answer is awaited,
    /// framed as DNS over TCP is. See [`RelayTakes::StreamsAndDatagrams`].
    ///
    /// # Errors
    /// As for [`Supervisor::open_relay`].
    pub async fn open_relay_with_datagrams(
        &self,
        port: u16,
    ) -> Result<mpsc::Receiver<Relayed>, SupervisorError> {
        self.relay(port, RelayTakes::StreamsAndDatagrams).await
    }

    async fn relay(
        &self,
        port: u16,
        takes: RelayTakes,
    ) -> Result<mpsc::Receiver<Relayed>, SupervisorError> {
        let (taker, relayed) = mpsc::channel(WAITING_RELAYED);
        // First: connections may come before the answer.
        self.handle.desk.expect_relayed(port, taker)?;
        self.done(Request::OpenRelay { port, takes }).await?;
        Ok(relayed)
    }

    async fn open_transfer(
        &self,
        kind: TransferKind,
        limits: TransferLimits,
    ) -> Result<(TransferTicket, Channel), SupervisorError> {
        let (ticket, arrival) = self.handle.desk.expect_transfer()?;
        let spec = TransferSpec {
            transfer: ticket.transfer,
            kind,
            max_entries: limits.max_entries,
            max_bytes: limits.max_bytes,
        };
        self.done(Request::OpenTransfer(spec)).await?;
        match timeout(DATA_CONNECTION_TIMEOUT, arrival).await {
            Ok(Ok(channel)) => Ok((ticket, channel)),
            Ok(Err(_)) => Err(self.handle.desk.end_error()),
            Err(_) => Err(SupervisorError::Timeout("waiting for a data connection")),
        }
    }

    async fn done(&self, request: Request) -> Result<(), SupervisorError> {
        let Reply::Done = self.ask(request, Duration::ZERO).await? else {
            return Err(wrong_kind());
        };
        Ok(())
    }

    async fn status(
        &self,
        request: Request,
        wait: Duration,
    ) -> Result<ExecutionStatus, SupervisorError> {
        let Reply::Status(status) = self.ask(request, wait).await? else {
            return Err(wrong_kind());
        };
        Ok(status)
    }

    async fn ask(&self, request: Request, wait: Duration) -> Result<Reply, SupervisorError> {
        let what = activity(&request);
        let (_slot, answer) = self.handle.desk.submit(request)?;
        match timeout(wait + REPLY_MARGIN, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(self.handle.desk.end_error()),
            Err(_) => Err(SupervisorError::Timeout(what)),
        }
    }
}

/// The first control connection that greets. Data connections before it belong to an earlier server's transfers.
async fn first_greeting(arrivals: &mut Arrivals) -> Result<(Box<Hello>, Channel), SupervisorError> {
    loop {
        match arrivals.next().await {
            None => return Err(SupervisorError::Ended),
            Some(Greeting::Violation(what)) => return Err(SupervisorError::Protocol(what)),
            Some(Greeting::Data(..) | Greeting::Relayed(..)) => {}
            Some(Greeting::Control(hello, _)) if hello.protocol != PROTOCOL_VERSION => {
                return Err(SupervisorError::Version {
                    theirs: hello.protocol,
                    ours: PROTOCOL_VERSION,
                });
            }
            Some(Greeting::Control(hello, channel)) => return Ok((hello, channel)),
        }
    }
}

/// Replies are checked against their request before they are delivered, so this is never seen.
fn wrong_kind() -> SupervisorError {
    SupervisorError::Protocol("a reply is of the wrong kind".to_owned())
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn bounded_wait(wait: Duration) -> (Duration, u32) {
    let wait_ms = milliseconds(wait).min(MAX_WAIT_MS);
    (Duration::from_millis(u64::from(wait_ms)), wait_ms)
}
