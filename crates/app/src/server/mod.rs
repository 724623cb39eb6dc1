//! The elected server: accepts, greets, hands each connection to its door, ends when nobody needs it.
//!
//! What it leaves to others: decisions (the road), sessions (the house), the protocol of each door.

mod clients;
mod connection;
mod election;
pub mod handshake;
mod house;
mod log_file;
mod stream_door;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use clients::Clients;
use connection::Host;
pub(crate) use election::open_lock_file;
pub use election::{Address, Elected, ElectionError, Lock, read_address, take_lock};
pub use house::{ChangedKey, House, ReloadOutcome, Reloaded};
pub use log_file::{LogWriter, open_log_file};

/// Connections at one time. Each is a client process of the same user; a desktop has a handful.
const MAX_CONNECTIONS: usize = 256;
/// How long connections may drain and the house may close at the end. With what surrounds it, the process is gone
/// within 5 s of a signal.
const CLOSING_TIMEOUT: Duration = Duration::from_millis(4500);
/// Pause after a failed accept: out of descriptors, most likely, and not for long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a server runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Version in the handshake.
    pub version: String,
    /// End after that long without client and session; `None` for a server that stays.
    pub idle_exit: Option<Duration>,
    /// The server's own user.
    pub uid: u32,
    /// Where MCP is served over HTTP, if it is.
    pub http: Option<String>,
}

/// Why a server could not run.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the server's socket")]
pub struct ServerError(#[source] io::Error);

/// Serves until `stop` is cancelled, a client tells it to leave, or it is idle. Sessions live on; the socket is gone
/// and the lock given up when this returns.
///
/// # Errors
/// When the socket cannot be used.
pub async fn run(
    mut elected: Elected,
    house: Arc<dyn House>,
    options: Options,
    stop: CancellationToken,
) -> Result<(), ServerError> {
    let listener = elected
        .take_listener()
        .ok_or_else(|| ServerError(io::ErrorKind::NotConnected.into()))?;
    listener.set_nonblocking(true).map_err(ServerError)?;
    let listener = UnixListener::from_std(listener).map_err(ServerError)?;
    let clients = Clients::default();
    let host = Arc::new(Host {
        house: Arc::clone(&house),
        clients: clients.clone(),
        options: options.clone(),
        started: Instant::now(),
        stop: stop.clone(),
    });
    let tasks = TaskTracker::new();
    tokio::select! {
        () = stop.cancelled() => tracing::info!("told to stop"),
        () = until_idle(&clients, house.as_ref(), options.idle_exit) => tracing::info!("idle: nobody needs this server"),
        () = accept_forever(listener, host, &tasks) => {}
    }
    elected.retire();
    stop.cancel();
    close(&tasks, house.as_ref()).await;
    Ok(())
}

/// Runs until it is dropped; the listener is closed then.
async fn accept_forever(listener: UnixListener, host: Arc<Host>, tasks: &TaskTracker) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let host = Arc::clone(&host);
                tasks.spawn(async move {
                    connection::serve(stream, &host).await;
                    drop(place);
                });
            }
            Err(_) => refuse(&stream, &host.options.version),
        }
    }
}

fn refuse(stream: &UnixStream, version: &str) {
    tracing::warn!("refused a connection: {MAX_CONNECTIONS} are open");
    let sentence = format!("the server has {MAX_CONNECTIONS} connections already");
    let line = connection::refusal_line(version, &sentence);
    // A new connection's buffer takes a short line at once; a client that cannot read it finds the connection closed.
    let _ = stream.try_write(&line);
}

async fn until_idle(clients: &Clients, house: &dyn House, idle_exit: Option<Duration>) {
    let Some(idle_exit) = idle_exit else {
        return std::future::pending().await;
    };
    loop {
        clients.none_for(idle_exit).await;
        if house.live_sessions().await == 0 && clients.close_if_empty() {
            return;
        }
    }
}

async fn close(tasks: &TaskTracker, house: &dyn House) {
    tasks.close();
    let closing = async {
        tokio::join!(tasks.wait(), house.shutdown());
    };
    if tokio::time::timeout(CLOSING_TIMEOUT, closing)
        .await
        .is_err()
    {
        tracing::warn!("connections or the house did not close in time");
    }
}

/// A token that is cancelled by SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers cannot be set.
pub fn stop_on_signals() -> io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = token.cancelled() => {}
        }
        token.cancel();
    });
    Ok(stop)
}

/// SIGHUP, from now on: until it is waited for, one that comes is kept.
///
/// # Errors
/// When the handler cannot be set.
pub fn hangups() -> io::Result<tokio::signal::unix::Signal> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::hangup())
}

/// Lets the house read its configuration again whenever SIGHUP comes. Signals that come while it does so count as one.
pub async fn reload_on_hangups(
    mut hangups: tokio::signal::unix::Signal,
    house: Arc<dyn House>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            received = hangups.recv() => match received {
                Some(()) => drop(house.reload().await),
                None => return,
            },
        }
    }
}
