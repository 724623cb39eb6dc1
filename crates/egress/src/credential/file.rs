//! Files with a key, read again when they change.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use model::Secret;
use rustix::fs::OFlags;

use super::{
    Carried, CredentialError, Form,
    source::{Fetch, Fetched, Fetching},
};

/// Longest file with a key, bytes.
const MAX_KEY_BYTES: u64 = 8192;
/// A file is looked at again after that long, when a request needs its key.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the last key serves while its file is missing, empty or open to others: longer than any program takes to
/// write a new one in its place.
const GRACE: Duration = Duration::from_secs(10);

/// Who may read a file with a key beside its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Nobody: mode 0600 or 0400.
    OwnerOnly,
    /// A credential that systemd made: it may belong to root with the service's user in its access control list, which
    /// shows as a right of the group to read (`systemd.exec(5)`).
    Systemd,
    /// Nobody but the owner may write it; it may be readable, as files without a key of their own are.
    OwnerWrites,
}

/// Why a file with a key is not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be opened or read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is a link: whoever can change the link chooses the file.
    #[error("it is a symbolic link: name the file itself")]
    Link,
    /// It is a directory, a pipe, a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// Its owner could change it.
    #[error("it belongs to another user: it must belong to the server's own, or to root")]
    Foreign,
    /// Others could read or change it.
    #[error("it is open to others than its owner: chmod 600 it")]
    Open,
    /// Longer than a key can be.
    #[error("it is longer than {0} bytes")]
    TooLong(u64),
    /// Nothing that a header can carry.
    #[error("it does not hold one key: {0}")]
    Malformed(#[source] CredentialError),
}

/// A file with a key.
pub(crate) struct KeyFile {
    path: PathBuf,
    guard: Guard,
    form: Form,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    last: Option<(Stamp, Carried)>,
    bad_since: Option<Instant>,
}

/// What changes when a file is written or replaced.
#[derive(PartialEq, Eq)]
struct Stamp([i64; 4], [u64; 3]);

impl KeyFile {
    /// Reads it for the first time.
    pub(crate) fn open(path: PathBuf, guard: Guard, form: Form) -> Result<Self, KeyFileError> {
        let key_file = KeyFile {
            path,
            guard,
            form,
            seen: Mutex::default(),
        };
        let read = key_file.read(None)?;
        key_file.seen().last = read;
        Ok(key_file)
    }

    /// What stands there, unless it is what was seen with that stamp.
    fn read(&self, known: Option<&Stamp>) -> Result<Option<(Stamp, Carried)>, KeyFileError> {
        let (file, metadata) = open(&self.path, self.guard)?;
        let stamp = Stamp::of(&metadata);
        if known == Some(&stamp) {
            return Ok(None);
        }
        let text = Secret::new(read(file, MAX_KEY_BYTES)?);
        let key = Secret::new(text.expose().trim().to_owned());
        let carried = Carried::of(self.form, &key).map_err(KeyFileError::Malformed)?;
        Ok(Some((stamp, carried)))
    }

    /// The newest key. Reading is a few system calls on a local file, at most once a second.
    fn look(&self) -> Result<Carried, CredentialError> {
        let mut seen = self.seen();
        match self.read(seen.last.as_ref().map(|(stamp, _)| stamp)) {
            Ok(read) => {
                if seen.bad_since.take().is_some() {
                    tracing::info!(path = %self.path.display(), "the file with a key can be used again");
                }
                if let Some(read) = read {
                    tracing::info!(path = %self.path.display(), "the file with a key has changed: new requests carry the new one");
                    seen.last = Some(read);
                }
            }
            Err(error) => {
                let is_new = seen.bad_since.is_none();
                let since = *seen.bad_since.get_or_insert_with(Instant::now);
                if is_new {
                    tracing::warn!(path = %self.path.display(), error = %super::chain(&error), "the file with a key cannot be used; the last key serves for {} s", GRACE.as_secs());
                }
                if since.elapsed() >= GRACE {
                    return Err(CredentialError::Source {
                        what: "the file with the key",
                        why: "cannot be used any more (missing, open to others, or no key)",
                    });
                }
            }
        }
        match &seen.last {
            Some((_, carried)) => Ok(carried.clone()),
            None => Err(CredentialError::Source {
                what: "the file with the key",
                why: "was never read",
            }),
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetch for KeyFile {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(async {
            Ok(Fetched {
                carried: self.look()?,
                end: SystemTime::now().checked_add(LOOK_EVERY),
                expiry: None,
            })
        })
    }

    fn at_once(&self) -> Option<Result<Carried, CredentialError>> {
        Some(self.look())
    }

    fn least_age(&self) -> Duration {
        Duration::ZERO
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Stamp(
            [
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.ctime(),
                metadata.ctime_nsec(),
            ],
            [metadata.dev(), metadata.ino(), metadata.size()],
        )
    }
}

/// Opens a file that `guard` lets through. What is looked at is what was opened.
pub(super) fn open(path: &Path, guard: Guard) -> Result<(File, Metadata), KeyFileError> {
    // Not through a link, and not waiting for the writer of a pipe.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)
        .map_err(|error| match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::LOOP) => KeyFileError::Link,
            _ => KeyFileError::Read(error),
        })?;
    let metadata = file.metadata().map_err(KeyFileError::Read)?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile);
    }
    let ours = rustix::process::geteuid().as_raw();
    if metadata.uid() != ours && metadata.uid() != 0 {
        return Err(KeyFileError::Foreign);
    }
    let closed_to_others = match guard {
        Guard::OwnerOnly => 0o077,
        Guard::Systemd if metadata.uid() == 0 => 0o037,
        Guard::Systemd => 0o077,
        Guard::OwnerWrites => 0o022,
    };
    if metadata.mode() & closed_to_others != 0 {
        return Err(KeyFileError::Open);
    }
    Ok((file, metadata))
}

/// All of it, if it is no longer than that.
pub(super) fn read(file: File, max_bytes: u64) -> Result<String, KeyFileError> {
    let mut text = String::new();
    file.take(max_bytes + 1)
        .read_to_string(&mut text)
        .map_err(KeyFileError::Read)?;
    if text.len() as u64 > max_bytes {
        return Err(KeyFileError::TooLong(max_bytes));
    }
    Ok(text)
}
