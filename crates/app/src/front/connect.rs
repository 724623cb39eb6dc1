//! Finds the server of this user and state directory, or has one started, and introduces itself.

use std::{
    io::{self, Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use super::{StartError, Started, Starter};
use crate::{
    config::{Paths, PathsError, check_private_directory, make_private_directory},
    server::{
        handshake::{Greeting, MAX_LINE_BYTES, Reply, Verdict},
        open_lock_file, read_address,
    },
};

/// How long a front tries in all. A server that recovers many sessions is up within a few seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a server may take for its reply: it gives one as soon as it has read the greeting.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// A connection on which the server said welcome.
#[derive(Debug)]
pub struct Connected {
    /// The connection; the mode's own bytes follow.
    pub stream: UnixStream,
    /// What the server said.
    pub reply: Reply,
    /// This front had the server started.
    pub started: bool,
}

/// Why a front has no connection.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The state directory cannot be used.
    #[error("the state directory cannot be used")]
    StateDirectory(#[source] PathsError),
    /// The lock of starting fronts cannot be used.
    #[error("cannot use the lock of starting clients")]
    StartLock(#[source] io::Error),
    /// The server could not be started.
    #[error("the server did not start")]
    Start(#[source] StartError),
    /// The server said no.
    #[error("the server refused this client: {0}")]
    Refused(String),
    /// The server does not say anything.
    #[error("the server (process {pid}) does not answer; see {log}")]
    Unresponsive {
        /// The server's process.
        pid: u32,
        /// Its log.
        log: String,
    },
    /// Something else answered, or the connection failed.
    #[error("the connection to the server failed")]
    Connection(#[source] io::Error),
    /// There was no server all the time.
    #[error("no server came up within {} s; see {log}", CONNECT_TIMEOUT.as_secs())]
    Timeout {
        /// Its log.
        log: String,
    },
}

/// Connects to the server, which is started if there is none.
///
/// # Errors
/// See [`FrontError`].
pub fn connect(
    paths: &Paths,
    greeting: &Greeting,
    starter: &dyn Starter,
) -> Result<Connected, FrontError> {
    make_private_directory(&paths.state_dir, paths.uid()).map_err(FrontError::StateDirectory)?;
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let mut started = false;
    while Instant::now() < deadline {
        if let Some(connected) = attempt(paths, greeting)? {
            return Ok(Connected {
                started,
                ..connected
            });
        }
        started |= start(paths, starter, deadline)?;
        std::thread::sleep(RETRY_PAUSE);
    }
    Err(FrontError::Timeout {
        log: paths.log_file().display().to_string(),
    })
}

/// Connects to the server if there is one.
///
/// # Errors
/// See [`FrontError`].
pub fn connect_existing(
    paths: &Paths,
    greeting: &Greeting,
) -> Result<Option<Connected>, FrontError> {
    attempt(paths, greeting)
}

/// Has a server started, unless another front is just doing it. Says whether this one did.
fn start(paths: &Paths, starter: &dyn Starter, deadline: Instant) -> Result<bool, FrontError> {
    let lock = open_lock_file(&paths.start_lock_file()).map_err(FrontError::StartLock)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
        Err(errno) => return Err(FrontError::StartLock(errno.into())),
    }
    // The front that held the lock before may have been successful meanwhile.
    if answers(paths) {
        return Ok(false);
    }
    match starter.start(deadline).map_err(FrontError::Start)? {
        Started::Ready => Ok(true),
        // Somebody called `serve` by hand, or the last server is still leaving: look again.
        Started::AnotherHoldsTheLock => Ok(false),
    }
}

fn answers(paths: &Paths) -> bool {
    read_address(paths).is_some_and(|address| UnixStream::connect(address.socket).is_ok())
}

/// One try. `None`: nobody is there, or whoever was there is leaving.
fn attempt(paths: &Paths, greeting: &Greeting) -> Result<Option<Connected>, FrontError> {
    let Some(address) = read_address(paths) else {
        return Ok(None);
    };
    if !is_ours(&address.socket, paths.uid()) {
        return Ok(None);
    }
    let stream = match UnixStream::connect(&address.socket) {
        Ok(stream) => stream,
        Err(error) if is_absence(&error) => return Ok(None),
        Err(error) => return Err(FrontError::Connection(error)),
    };
    let reply = match introduce(&stream, greeting) {
        Ok(reply) => reply,
        Err(error) if is_absence(&error) => return Ok(None),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) =>
        {
            let log = paths.log_file().display().to_string();
            return Err(FrontError::Unresponsive {
                pid: address.pid,
                log,
            });
        }
        Err(error) => return Err(FrontError::Connection(error)),
    };
    match reply.verdict {
        Verdict::Welcome => Ok(Some(Connected {
            stream,
            reply,
            started: false,
        })),
        Verdict::Leaving if greeting.mode == crate::server::handshake::Mode::Stop => {
            Ok(Some(Connected {
                stream,
                reply,
                started: false,
            }))
        }
        Verdict::Leaving => Ok(None),
        Verdict::Refused => Err(FrontError::Refused(reply.message.unwrap_or_default())),
    }
}

/// Nobody but this user (or root) can have made that socket: its directory is private and so is the socket.
fn is_ours(socket: &std::path::Path, uid: u32) -> bool {
    let private = socket
        .parent()
        .is_some_and(|directory| check_private_directory(directory, uid).is_ok());
    private && std::fs::symlink_metadata(socket).is_ok_and(|found| found.uid() == uid)
}

/// The server is gone, or going: not an error, but a reason to look again.
fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

fn introduce(mut stream: &UnixStream, greeting: &Greeting) -> io::Result<Reply> {
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
    let mut line = serde_json::to_vec(greeting)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let reply = serde_json::from_slice(&read_line(stream)?)?;
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok(reply)
}

/// Reads a line, byte by byte, so that nothing after it is taken. It is short, and read once.
fn read_line(mut stream: &UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() as u64 <= MAX_LINE_BYTES {
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return Ok(line);
        }
        line.push(byte[0]);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the server's first line is too long",
    ))
}
