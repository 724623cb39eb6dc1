//! Further places that get the log's records: standard error, syslog, journald, a webhook, a second file.
//!
//! ```text
//! call ──► audit log ──► file ◄── follow ── worker (a thread for each sink) ──► sink
//!                                    └── cursor, in the state directory
//! ```
//! A sink never stands between an action and its record: it follows the log's own files, so that the log is the spool. A sink
//! that hangs or is down holds up nobody, and gets what it missed when it is back, also after a restart: in order, each record
//! at least once. Only what is durable is given on, so no sink ever knows a record that the log does not have.
//!
//! What this does not do: keep records for a sink beyond the log's own retention. Records that were pruned before the sink
//! took them are counted, and told to it as `sink.gap`.

mod cursor;
mod file;
mod follow;
mod journald;
mod signal;
mod syslog;
mod webhook;
mod worker;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub use cursor::{LastError, State};
pub use follow::{Batch, Follow, Notice};
pub use syslog::{Facility, SyslogAddress};
pub use webhook::WebhookSettings;

use crate::{export::Format, head::Head};
use signal::Signal;
use worker::Worker;

/// The directory of the sinks' cursors, in the state directory.
pub const DIRECTORY: &str = "audit-sinks";
/// How often the end of the threads is looked for.
const END_POLL: Duration = Duration::from_millis(5);

/// One sink, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkSettings {
    /// Its name; its cursor is called so.
    pub name: String,
    /// What it is.
    pub kind: SinkKind,
    /// In which words it gets records.
    pub format: Format,
    /// When more records wait than that, the oldest are left out, and a `sink.gap` says so. `None`: what the log keeps.
    pub max_lag: Option<u64>,
}

/// What a sink is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkKind {
    /// The server's standard error, where it runs in the foreground.
    Stderr,
    /// A syslog daemon, by RFC 5424.
    Syslog {
        /// Where it listens.
        address: SyslogAddress,
        /// The messages' facility.
        facility: Facility,
    },
    /// systemd's journal, by its own protocol.
    Journald {
        /// Its socket.
        socket: PathBuf,
    },
    /// A service that takes batches by HTTP.
    Webhook(WebhookSettings),
    /// A second file, which should stand on another disk or another machine's.
    File {
        /// Its path.
        path: PathBuf,
    },
}

impl SinkKind {
    /// Its name in the configuration.
    pub const fn as_str(&self) -> &'static str {
        match self {
            SinkKind::Stderr => "stderr",
            SinkKind::Syslog { .. } => "syslog",
            SinkKind::Journald { .. } => "journald",
            SinkKind::Webhook(_) => "webhook",
            SinkKind::File { .. } => "file",
        }
    }
}

/// The log that sinks follow.
#[derive(Debug, Clone)]
pub struct Source {
    /// The log's file.
    pub log: PathBuf,
    /// The state directory: cursors stand in [`DIRECTORY`] below it.
    pub state_directory: PathBuf,
    /// The name of this machine, for formats that have one.
    pub host: String,
}

/// How a sink is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Its name.
    pub name: String,
    /// Records that it has not taken yet.
    pub lag: u64,
    /// Records that it never gets.
    pub missed: u64,
    /// Why it takes nothing at present.
    pub last_error: Option<LastError>,
}

/// Why a sink cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The cursors' directory cannot be made.
    #[error("the directory {path} of the audit sinks cannot be used")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that its settings name cannot be used.
    #[error("the audit sink `{sink}` cannot use {path}: {why}")]
    File {
        /// Which sink.
        sink: String,
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Its thread cannot be started.
    #[error("the audit sink `{sink}` cannot be started")]
    Thread {
        /// Which sink.
        sink: String,
        /// Why.
        source: std::io::Error,
    },
}

/// The sinks of a server. Dropped, they end as they are.
pub struct Sinks {
    stop: Arc<Signal>,
    running: Vec<Running>,
    log: PathBuf,
}

struct Running {
    name: String,
    state: Arc<Mutex<State>>,
    thread: JoinHandle<()>,
}

impl Sinks {
    /// Starts the sinks; each goes on where its cursor is, a new one with the oldest record there is. Waits for none of them.
    ///
    /// # Errors
    /// When what a sink's settings name cannot be used at all. A sink that cannot be reached is no error.
    pub fn start(source: &Source, settings: &[SinkSettings]) -> Result<Sinks, SinkError> {
        let directory = source.state_directory.join(DIRECTORY);
        if !settings.is_empty() {
            cursor::make_directory(&directory).map_err(|error| SinkError::Directory {
                path: directory.clone(),
                source: error,
            })?;
        }
        let stop = Arc::new(Signal::default());
        let running = settings
            .iter()
            .map(|sink| start_one(source, &directory, sink, &stop))
            .collect::<Result<_, _>>()?;
        Ok(Sinks {
            stop,
            running,
            log: source.log.clone(),
        })
    }

    /// Which sinks could not be started, as far as that can be told without starting any: makes and reaches nothing.
    pub fn unusable(settings: &[SinkSettings]) -> Vec<SinkError> {
        let looked = settings.iter().map(|sink| worker::target(sink, ""));
        looked.filter_map(Result::err).collect()
    }

    /// How each of them is doing.
    pub fn health(&self) -> Vec<Health> {
        let end = end_of(&self.log);
        let one = |running: &Running| {
            let state = running.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.health(&running.name, end)
        };
        self.running.iter().map(one).collect()
    }

    /// Has the sinks take what the log holds by now, and ends them. One that is down, or takes longer, is left behind; it
    /// gets the rest after the next start. Blocks.
    pub fn shutdown(self, patience: Duration) {
        self.stop.stop();
        let deadline = Instant::now() + patience;
        for running in &self.running {
            while !running.thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(END_POLL);
            }
            if !running.thread.is_finished() {
                tracing::warn!(
                    sink = running.name,
                    "the audit sink has not taken everything yet"
                );
            }
        }
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

fn start_one(
    source: &Source,
    directory: &Path,
    sink: &SinkSettings,
    stop: &Arc<Signal>,
) -> Result<Running, SinkError> {
    let worker = Worker::new(source, directory, sink, stop.clone())?;
    let state = worker.state();
    let thread = std::thread::Builder::new()
        .name(format!("sink {}", sink.name))
        .spawn(move || worker.run())
        .map_err(|error| SinkError::Thread {
            sink: sink.name.clone(),
            source: error,
        })?;
    Ok(Running {
        name: sink.name.clone(),
        state,
        thread,
    })
}

/// How the sinks of a server stand, by their cursors: for whoever is not that server.
pub fn health_of(log: &Path, state_directory: &Path, names: &[String]) -> Vec<Health> {
    let end = end_of(log);
    let one = |name: &String| {
        let state = State::read(&cursor::path(&state_directory.join(DIRECTORY), name));
        state.unwrap_or_default().health(name, end)
    };
    names.iter().map(one).collect()
}

/// The last durable record of a log.
fn end_of(log: &Path) -> Option<u64> {
    Head::read_beside(log).map(|head| head.link.seq)
}
