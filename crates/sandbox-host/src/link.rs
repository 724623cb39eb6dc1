//! Where a sandbox's supervisor dials in.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixListener as StdUnixListener},
    },
    path::Path,
};

use rustix::fs::{Mode, OFlags};
use sandbox::{Connection, Link};
use tokio::{
    io::unix::AsyncFd,
    net::{UnixListener, UnixStream},
    sync::mpsc,
};

use crate::{
    kernel,
    process::{ended, reap},
};

/// Connections that wait to be taken: a control connection and the data connections of a few transfers.
const WAITING_CONNECTIONS: usize = 16;
/// Foreign peers that are logged for one sandbox; whoever goes on must not fill the log.
const MAX_LOGGED_PEERS: u32 = 5;
/// The socket's name in its directory.
pub const SOCKET_NAME: &str = "host.sock";

/// Binds the socket, in place of the one of an earlier server. Anybody may connect, but nobody gets to its directory
/// except through the sandbox's mount, and [`serve`] asks the kernel who it is.
///
/// # Errors
/// When it cannot be bound.
pub fn bind(instance: &Path) -> io::Result<StdUnixListener> {
    let directory = instance.join("socket");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let handle = rustix::fs::open(&directory, flags, Mode::empty())?;
    // The address of a socket holds 108 bytes; the state directory's path may be longer.
    let path = Path::new("/proc/self/fd")
        .join(handle.as_raw_fd().to_string())
        .join(SOCKET_NAME);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdUnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts for as long as the sandbox lives and somebody holds the link.
///
/// # Errors
/// Outside of a runtime with IO.
pub fn serve(listener: StdUnixListener, pid: i32, pidfd: OwnedFd) -> io::Result<Link> {
    let listener = UnixListener::from_std(listener)?;
    let pidfd = kernel::watch(pidfd)?;
    let (sender, connections) = mpsc::channel(WAITING_CONNECTIONS);
    tokio::spawn(accept_until_the_end(listener, pid, pidfd, sender));
    Ok(Link { connections })
}

async fn accept_until_the_end(
    listener: UnixListener,
    pid: i32,
    pidfd: AsyncFd<OwnedFd>,
    sender: mpsc::Sender<Connection>,
) {
    let mut strangers = 0_u32;
    loop {
        let stream = tokio::select! {
            biased;
            _ = pidfd.readable() => break,
            () = sender.closed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a sandbox's socket accepts nothing for now");
                    // Out of descriptors, mostly: without a pause this would spin.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        if is_first_process(&stream, pid) && is_alive(&pidfd) {
            // Waits while the channel is full: that is the bound.
            tokio::select! {
                biased;
                _ = pidfd.readable() => break,
                sent = sender.send(Box::new(stream)) => if sent.is_err() { return },
            }
        } else {
            strangers = strangers.saturating_add(1);
            if strangers <= MAX_LOGGED_PEERS {
                tracing::warn!(
                    strangers,
                    "a process other than the supervisor dialed a sandbox's socket and was refused"
                );
            }
        }
    }
    reap(pidfd.get_ref());
}

/// The kernel noted who connected; while that process lives, no other one has its number.
fn is_first_process(stream: &UnixStream, pid: i32) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.pid() == Some(pid))
}

fn is_alive(pidfd: &AsyncFd<OwnedFd>) -> bool {
    !ended(pidfd.get_ref())
}
