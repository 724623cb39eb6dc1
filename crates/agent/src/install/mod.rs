//! How Claude Code gets onto this machine: one pinned version, fetched once, checked, shared by all sandboxes.
//!
//! Reading order: [`Pins`] (which one), [`Order`] and [`install`] (the steps), `source` (where its file is), `http` (how it
//! comes), `archive` (the one program in it), [`Store`] (where it stands).
//!
//! ```text
//! lock ──► in the store? ──► room ──► find ──► fetch (goes on) ──► hash ──► unpack ──► hash ──► sync, rename ──► current
//!             │ yes                                                                                              ▲
//!             └──────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A process that is killed leaves a part of a download, with which the next one goes on, and a directory that nobody sees.
//! The program is never executed here.

mod archive;
mod error;
mod http;
mod pins;
mod source;
mod store;

use std::{fs::File, io, path::PathBuf};

use jiff::Timestamp;
pub use ureq::Proxy;
use url::Url;

pub use archive::MAX_PROGRAM_BYTES;
pub use error::InstallError;
pub use http::Network;
pub use pins::{FileFacts, Pin, Pins};
pub use source::{DEFAULT_INDEX, DEFAULT_REGISTRY, Wish, address};
pub use store::{Installed, Record, Store, StoreLock, is_hash};

use archive::extract;
use http::{Http, shown};
use source::{in_index, in_registry};
use store::{check_room, file};

/// Bytes that stay free beside what is written.
const SPARE_BYTES: u64 = 16 << 20;

/// Where the program comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A Python package index.
    Index {
        /// Its address.
        url: Url,
        /// What of it.
        wish: Wish,
        /// How it is reached.
        network: Network,
    },
    /// An npm registry.
    Registry {
        /// Its address.
        url: Url,
        /// How it is reached.
        network: Network,
    },
    /// A program, wheel or package of npm's on this machine.
    File(PathBuf),
}

/// What is to be installed.
#[derive(Debug, Clone)]
pub struct Order {
    /// The pinned program.
    pub pin: Pin,
    /// Where it comes from.
    pub source: Source,
    /// Another program than the pinned one is accepted, and recorded as such.
    pub accept_unpinned: bool,
}

/// What goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Another process changes the store.
    Waiting,
    /// The index is asked.
    Asking,
    /// So much of the archive is here.
    Fetched {
        /// Here.
        bytes: u64,
        /// Of so many, where it is known.
        total: Option<u64>,
    },
    /// So much of the program is out of it.
    Unpacked {
        /// Out.
        bytes: u64,
    },
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The program.
    pub installed: Installed,
    /// It was there before.
    pub was_there: bool,
}

/// Puts the program into the store, and makes it the one that new sandboxes get.
///
/// # Errors
/// Each step can fail; nothing is visible then that was not there before.
pub fn install(
    store: &Store,
    order: &Order,
    tell: &mut dyn FnMut(Progress),
) -> Result<Done, InstallError> {
    let lock = store.lock(|| tell(Progress::Waiting))?;
    store.sweep(&lock)?;
    if order.is_for_the_pin()
        && let Ok(installed) = store.find(&order.pin.program.sha256)
        && store.verify(&installed).is_ok()
    {
        store.choose(&installed.record.sha256)?;
        let current = true;
        return Ok(Done {
            installed: Installed {
                current,
                ..installed
            },
            was_there: true,
        });
    }
    let archive = obtain(store, order, tell)?;
    let done = unpack(store, &lock, order, &archive, tell);
    let disk_failed = matches!(
        done,
        Err(InstallError::File { .. } | InstallError::Room { .. })
    );
    // A bad one is of no use, and of a good one the program is there.
    if let Some(part) = archive.part.filter(|_| !disk_failed) {
        std::fs::remove_file(&part).map_err(file("remove", &part))?;
    }
    done
}

fn unpack(
    store: &Store,
    lock: &StoreLock,
    order: &Order,
    archive: &Archive,
    tell: &mut dyn FnMut(Progress),
) -> Result<Done, InstallError> {
    check_room(store.root(), order.pin.program.bytes + SPARE_BYTES)?;
    let mut making = store.begin(lock)?;
    let extracted = extract(
        &archive.file,
        &archive.name,
        &order.pin,
        &mut making.program,
        tell,
    )?;
    let pinned = extracted.program.sha256 == order.pin.program.sha256;
    if !pinned && !order.accept_unpinned {
        return Err(archive.of_another_program(order, extracted.program.sha256));
    }
    let record = Record {
        sha256: extracted.program.sha256,
        bytes: extracted.program.bytes,
        version: if pinned {
            Some(order.pin.version.clone())
        } else {
            extracted.version
        },
        pinned,
        source: archive.name.clone(),
        installed_at: Timestamp::now(),
    };
    let known = store.find(&record.sha256);
    let was_there = known.is_ok_and(|known| store.verify(&known).is_ok());
    let installed = store.publish(lock, making, record, was_there)?;
    Ok(Done {
        installed,
        was_there,
    })
}

impl Order {
    /// Whether it can only end in the pinned program.
    fn is_for_the_pin(&self) -> bool {
        match &self.source {
            Source::Index { wish, .. } => wish.sdk_version.is_none(),
            Source::Registry { .. } => true,
            Source::File(_) => false,
        }
    }
}

/// A file that brings the program.
struct Archive {
    file: File,
    /// In words for people.
    name: String,
    /// Where it stands, if it was fetched.
    part: Option<PathBuf>,
}

impl Archive {
    /// Whoever names a file is asked; a source that serves another program is not believed.
    fn of_another_program(&self, order: &Order, found: String) -> InstallError {
        let wanted = order.pin.program.sha256.clone();
        let what = format!("the program in {}", self.name);
        if order.is_for_the_pin() {
            InstallError::Mismatch {
                what,
                found,
                wanted,
            }
        } else {
            InstallError::Unpinned {
                what,
                found,
                wanted,
            }
        }
    }
}

fn obtain(
    store: &Store,
    order: &Order,
    tell: &mut dyn FnMut(Progress),
) -> Result<Archive, InstallError> {
    let pin = &order.pin;
    let (http, wanted) = match &order.source {
        Source::File(path) => return named(path),
        Source::Index { url, wish, network } => {
            tell(Progress::Asking);
            let http = Http::new(network);
            let wanted = in_index(&http, url, pin, wish)?;
            (http, wanted)
        }
        Source::Registry { url, network } => (Http::new(network), in_registry(url, pin)?),
    };
    let archive = wanted.bytes.unwrap_or(pin.wheel.bytes);
    check_room(store.root(), archive + pin.program.bytes + SPARE_BYTES)?;
    let part = store.download(&part_name(&wanted.url));
    let fetched = http.fetch(&wanted, &part, tell);
    let file = fetched.map_err(|error| gone(error, order, &wanted.url))?;
    Ok(Archive {
        file,
        name: shown(&wanted.url),
        part: Some(part),
    })
}

/// A file that is listed and not there was withdrawn, too.
fn gone(error: InstallError, order: &Order, url: &Url) -> InstallError {
    let InstallError::Status {
        status: 404 | 410, ..
    } = error
    else {
        return error;
    };
    InstallError::Withdrawn {
        file: file_name(url).to_owned(),
        index: match &order.source {
            Source::Index { url, .. } | Source::Registry { url, .. } => shown(url),
            Source::File(path) => path.display().to_string(),
        },
        newest: None,
    }
}

fn file_name(url: &Url) -> &str {
    url.path().rsplit('/').next().unwrap_or_default()
}

/// One place for each file, whatever index it comes from.
fn part_name(url: &Url) -> String {
    let name = file_name(url);
    let plain = |character: &char| character.is_ascii_alphanumeric() || "._-".contains(*character);
    format!(
        "archive-{}",
        name.chars().filter(plain).take(120).collect::<String>()
    )
}

fn named(path: &std::path::Path) -> Result<Archive, InstallError> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, opened) = opened.map_err(file("open", path))?;
    if !metadata.is_file() {
        return Err(file("read", path)(io::ErrorKind::InvalidInput.into()));
    }
    Ok(Archive {
        file: opened,
        name: path.display().to_string(),
        part: None,
    })
}
