//! One server per user and state directory: whoever holds the lock on `server.lock` is it.
//!
//! The lock is the kernel's (`flock`), so it ends with its holder however that ends. The file's content says where the
//! holder listens; it is only believed as far as somebody answers there.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::{
        fs::{FileTypeExt, OpenOptionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use crate::config::{Paths, PathsError, check_private_directory, make_private_directory};

/// Longest content of the lock file, bytes.
const ADDRESS_BYTES: u64 = 4096;

/// Where the elected server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Its process.
    pub pid: u32,
    /// Its socket.
    pub socket: PathBuf,
    /// Its version.
    pub version: String,
}

/// Why this process does not become the server.
#[derive(Debug, thiserror::Error)]
pub enum ElectionError {
    /// The state directory cannot be used.
    #[error("the state directory cannot be used")]
    StateDirectory(#[source] PathsError),
    /// The lock file cannot be used.
    #[error("cannot {step} {path}", path = path.display())]
    LockFile {
        /// What failed.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is a server already.
    #[error("another server runs for this state directory{}", known(address.as_ref()))]
    Taken {
        /// Where, if it says so.
        address: Option<Address>,
    },
    /// There is a server already, and it does not leave its place to this one.
    #[error("a server runs already{}: {why}", known(address.as_ref()))]
    Stays {
        /// Where, if it says so.
        address: Option<Address>,
        /// Why it stays, and how to end it, in its own words.
        why: String,
    },
    /// No place for the socket.
    #[error("no place for the socket: {0}")]
    NoSocket(String),
}

fn known(address: Option<&Address>) -> String {
    address.map_or_else(String::new, |Address { pid, socket, .. }| {
        format!(" (process {pid}, socket {})", socket.display())
    })
}

/// The lock, held. This process is the server until the value is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// Takes the lock, without waiting.
///
/// # Errors
/// [`ElectionError::Taken`] when another process holds it.
pub fn take_lock(paths: &Paths) -> Result<Lock, ElectionError> {
    make_private_directory(&paths.state_dir, paths.uid()).map_err(ElectionError::StateDirectory)?;
    let path = paths.lock_file();
    let file = open_lock_file(&path).map_err(|source| failed("open", &path, source))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { file, path }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ElectionError::Taken {
            address: read_address(paths),
        }),
        Err(errno) => Err(failed("lock", &path, errno.into())),
    }
}

/// Opens a lock file of ours, making it where it is missing. Never through a link.
pub(crate) fn open_lock_file(path: &Path) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).unwrap_or_default();
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
}

/// Where the server of this state directory says that it listens; it may be long gone.
pub fn read_address(paths: &Paths) -> Option<Address> {
    check_private_directory(&paths.state_dir, paths.uid()).ok()?;
    let mut text = String::new();
    File::open(paths.lock_file())
        .ok()?
        .take(ADDRESS_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    serde_json::from_str(&text).ok()
}

/// The elected server's socket, listening. Dropping it removes the socket and gives up the lock, in this order.
#[derive(Debug)]
pub struct Elected {
    listener: Option<UnixListener>,
    socket: PathBuf,
    lock: Lock,
}

impl Lock {
    /// Binds the socket and publishes its address. What a dead server left there is removed: the lock says it is dead.
    ///
    /// # Errors
    /// [`ElectionError::NoSocket`] when none of the candidates can be used.
    pub fn listen(mut self, paths: &Paths, version: &str) -> Result<Elected, ElectionError> {
        let (listener, socket) = bind_first(paths)?;
        let address = Address {
            pid: std::process::id(),
            socket: socket.clone(),
            version: version.to_owned(),
        };
        self.publish(&address)?;
        Ok(Elected {
            listener: Some(listener),
            socket,
            lock: self,
        })
    }

    fn publish(&mut self, address: &Address) -> Result<(), ElectionError> {
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(&serde_json::to_vec(address)?)
        };
        write(&mut self.file).map_err(|source| failed("write", &self.path, source))
    }
}

impl Elected {
    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The listener; once.
    pub(super) fn take_listener(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }

    /// Nobody finds this server any more from here on. It still holds the lock.
    pub(super) fn retire(&self) {
        // Each may be gone already; the next server removes what is left.
        let _ = std::fs::remove_file(&self.socket);
        let _ = self.lock.file.set_len(0);
    }
}

impl Drop for Elected {
    fn drop(&mut self) {
        self.retire();
    }
}

fn bind_first(paths: &Paths) -> Result<(UnixListener, PathBuf), ElectionError> {
    let mut reasons = Vec::new();
    for socket in paths.socket_candidates() {
        match bind(&socket, paths.uid()) {
            Ok(listener) => return Ok((listener, socket)),
            Err(reason) => reasons.push(format!("{}: {reason}", socket.display())),
        }
    }
    Err(ElectionError::NoSocket(reasons.join("; ")))
}

fn bind(socket: &Path, uid: u32) -> Result<UnixListener, String> {
    let directory = socket.parent().ok_or("no directory")?;
    make_private_directory(directory, uid).map_err(|error| describe(&error))?;
    match std::fs::symlink_metadata(socket) {
        Ok(found) if found.file_type().is_socket() => {
            std::fs::remove_file(socket).map_err(|error| error.to_string())?;
        }
        Ok(_) => return Err("something that is no socket stands there".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.to_string()),
    }
    UnixListener::bind(socket).map_err(|error| error.to_string())
}

fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn failed(step: &'static str, path: &Path, source: io::Error) -> ElectionError {
    ElectionError::LockFile {
        step,
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(scratch: &tempfile::TempDir) -> Paths {
        Paths::new(
            scratch.path().join("state"),
            None,
            rustix::process::geteuid().as_raw(),
        )
    }

    #[test]
    fn one_holder_at_a_time_and_the_next_after_it() {
        let scratch = tempfile::tempdir().unwrap();
        let paths = paths(&scratch);
        let first = take_lock(&paths).unwrap().listen(&paths, "1.0.0").unwrap();
        let Err(ElectionError::Taken {
            address: Some(address),
        }) = take_lock(&paths)
        else {
            panic!("two servers")
        };
        assert_eq!(address.socket, first.socket());
        assert_eq!(address.pid, std::process::id());
        drop(first);
        assert!(!address.socket.exists());
        assert_eq!(read_address(&paths), None);
        take_lock(&paths).unwrap();
    }

    #[test]
    fn a_dead_servers_socket_is_replaced_but_nothing_else_is() {
        let scratch = tempfile::tempdir().unwrap();
        let paths = paths(&scratch);
        let socket = paths.state_dir.join("server.sock");
        make_private_directory(&paths.state_dir, paths.uid()).unwrap();
        drop(UnixListener::bind(&socket).unwrap());
        assert!(socket.exists());
        let elected = take_lock(&paths).unwrap().listen(&paths, "1.0.0").unwrap();
        assert_eq!(elected.socket(), socket);
        drop(elected);

        std::fs::write(&socket, "precious").unwrap();
        let elsewhere = take_lock(&paths).unwrap().listen(&paths, "1.0.0").unwrap();
        assert_ne!(elsewhere.socket(), socket);
        drop(elsewhere);
        assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
    }
}
