//! The log, as callers see it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::ThreadId,
    time::Duration,
};

use model::OwnerId;
use rustix::{fs::OFlags, rand::GetRandomFlags};
use tokio::sync::oneshot;

use crate::{
    Anchor, AuditError, Closing, Durability, Entry, Event, IdentityKey, Intent, Rotation,
    files::{self, Place},
    ratchet,
    record::{self, Actor, Middle},
    start,
    writer::{self, Class, Job, Parts, Shared, Writer},
};

/// Longest wait for a record to be durable. A disk that takes longer does not work, and callers have timeouts of their
/// own (`facts/security.md` §1.A).
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(2);
/// Most records that wait for the writer: beyond that, intents of changes are refused and reads are counted only. At
/// the promised 2,000 operations a second this is what [`MAX_WAIT`] lets through, twice.
const MAX_QUEUED: usize = 8_192;

/// Where the log is, and what it works with.
pub struct AuditConfig {
    /// The log file (`MCP_AUDIT_LOG`); its directory must exist and be writable by nobody else. Older files of the log, its
    /// keys, `NAME.head` and `NAME.reserve` stand beside it.
    pub path: PathBuf,
    /// The installation; the name under which the log is signed is made of it.
    pub owner: OwnerId,
    /// What hashes of callers are made with.
    pub identity_key: IdentityKey,
    /// When the log goes on in a new file, and what is kept.
    pub rotation: Rotation,
    /// Where else the log's end is noted.
    pub anchor: Option<Box<dyn Anchor>>,
}

impl AuditConfig {
    /// A log that is never rotated and noted nowhere else.
    pub fn new(path: PathBuf, owner: OwnerId, identity_key: IdentityKey) -> Self {
        AuditConfig {
            path,
            owner,
            identity_key,
            rotation: Rotation::default(),
            anchor: None,
        }
    }
}

/// The open log. Cheap to clone; the file is closed and unlocked when the last clone and the last [`Entry`] are gone.
#[derive(Clone)]
pub struct AuditLog(Arc<Inner>);

struct Inner {
    jobs: Option<mpsc::Sender<Job>>,
    shared: Arc<Shared>,
    identity_key: IdentityKey,
    system: Actor,
    /// Random, so that operations of two runs never share an id.
    run: String,
    next_operation: AtomicU64,
    writer: ThreadId,
    /// Disconnected when the writer has ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl AuditLog {
    /// Opens the log, or makes it: locks it, repairs a torn end, closes intents of a killed run with `unknown`, and
    /// records `audit.open`. All of this is durable when it returns. Blocks.
    ///
    /// # Errors
    /// When records could not be written safely there, or what stands there is not a log that can be continued. See
    /// [`AuditError`].
    pub fn open(config: AuditConfig) -> Result<AuditLog, AuditError> {
        let place = Place::open(&config.path)?;
        let (file, _) = place.open_file("", OFlags::APPEND)?;
        files::lock(&file, place.path(""))?;
        let identity_key = config.identity_key.clone();
        let parts = start::start(place, file, config)?;
        AuditLog::run(parts, identity_key)
    }

    /// Whether a log could be opened there, as far as that can be told without opening it: makes, locks and changes nothing.
    ///
    /// # Errors
    /// Those of [`AuditLog::open`] that are about the directory, the log's file and its key file.
    pub fn check(path: &Path) -> Result<(), AuditError> {
        let place = Place::open(path)?;
        place.open_existing("")?;
        // Its content is not looked at: a server that runs may be writing it.
        place.open_secret(ratchet::SUFFIX)?;
        Ok(())
    }

    fn run(parts: Parts, identity_key: IdentityKey) -> Result<AuditLog, AuditError> {
        let failed = |step| {
            move |source: std::io::Error| AuditError::Unavailable {
                why: step,
                source: Some(Arc::new(source)),
            }
        };
        let mut run = [0; 8];
        rustix::rand::getrandom(&mut run, GetRandomFlags::empty())
            .map_err(|error| failed("no random bytes from the kernel")(error.into()))?;
        let shared = parts.shared.clone();
        shared.healthy.store(true, Ordering::Relaxed);
        let system = parts.system.clone();
        let writer = Writer::new(parts);
        let (jobs, waiting) = mpsc::channel();
        let (ending, ended) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                writer.run(&waiting);
                drop(ending);
            })
            .map_err(failed("its writer cannot be started"))?;
        Ok(AuditLog(Arc::new(Inner {
            jobs: Some(jobs),
            shared,
            identity_key,
            system,
            run: hex::encode(run),
            next_operation: AtomicU64::new(1),
            writer: thread.thread().id(),
            ended: Mutex::new(ended),
        })))
    }

    /// Records that an action is about to start; see [`Durability`] for what is certain when this returns. Waits 2 s at
    /// most. Must run on a tokio runtime with its timer.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`], for [`Durability::Durable`] alone: then nothing may be changed.
    pub async fn begin(&self, intent: Intent, durability: Durability) -> Result<Entry, AuditError> {
        // From here on the entry reports `aborted` when this call is given up, also in the middle of the wait.
        let entry = self.entry(intent, durability);
        let class = match durability {
            Durability::Buffered => return Ok(entry),
            Durability::Durable => Class::Refusable,
            Durability::Reserve => Class::Unstoppable,
        };
        match (self.append(entry.intent(), class).await, durability) {
            (Ok(()), _) | (Err(_), Durability::Reserve) => Ok(entry),
            (Err(NotWritten::Refused(error)), _) => {
                entry.disarm();
                Err(error)
            }
            // It may be written yet, so its result will be, too.
            (Err(NotWritten::Late), _) => Err(NotWritten::Late.into()),
        }
    }

    /// Records what is over already and lets nothing pass, such as a refusal: one line, and nobody waits for it. What could not
    /// be written is counted in a gap.
    pub fn write_behind(&self, intent: Intent, closing: Closing) {
        self.entry(intent, Durability::Buffered)
            .close_later(closing);
    }

    /// Records something that nobody asked for. It is durable, if only in the reserve, when this returns.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`] when it is neither.
    pub async fn event(&self, event: Event) -> Result<(), AuditError> {
        let parameters = record::parameters(&event.parameters);
        let middle = writer::event(
            &self.0.system,
            event.action,
            event.session,
            parameters,
            "ok",
        );
        Ok(self.append(middle, Class::Needed).await?)
    }

    fn entry(&self, intent: Intent, durability: Durability) -> Entry {
        let number = self.0.next_operation.fetch_add(1, Ordering::Relaxed);
        let actor = Actor::new(&self.0.identity_key, &intent.principal);
        let operation = format!("{}-{number}", self.0.run);
        Entry::new(self.clone(), operation, intent, actor, durability)
    }

    /// Whether the last write worked. A log that failed is tried again with each record, and once a second.
    pub fn is_healthy(&self) -> bool {
        self.0.shared.healthy.load(Ordering::Relaxed)
    }

    /// Waits until everything handed over so far is written and synced, or could not be; 2 s at most.
    pub async fn flush(&self) {
        let (reply, answer) = oneshot::channel();
        if self.send(Job::Flush(reply)) {
            let _ = tokio::time::timeout(MAX_WAIT, answer).await;
        }
    }

    /// Looks whether the log's file was renamed, removed or emptied by another program, and goes on in a new one then:
    /// what `SIGHUP` is for. Without it the next record finds out. Everything handed over before is durable afterwards.
    /// Waits 2 s at most.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`] when no file can be written there.
    pub async fn reopen(&self) -> Result<(), AuditError> {
        let (reply, answer) = oneshot::channel();
        if !self.send(Job::Reopen(reply)) {
            return Err(NotWritten::Late.into());
        }
        match tokio::time::timeout(MAX_WAIT, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(NotWritten::Late.into()),
        }
    }

    /// Hands a record to the writer and waits for what became of it.
    pub(crate) async fn append(&self, middle: Middle, class: Class) -> Result<(), NotWritten> {
        if class == Class::Refusable && self.is_full() {
            let refusal = AuditError::Unavailable {
                why: "too many records wait for the disk",
                source: None,
            };
            return Err(NotWritten::Refused(refusal));
        }
        let (reply, answer) = oneshot::channel();
        let ended = || {
            NotWritten::Refused(AuditError::Unavailable {
                why: "its writer has ended",
                source: None,
            })
        };
        if !self.send(Job::Append {
            middle,
            class,
            reply: Some(reply),
        }) {
            return Err(ended());
        }
        match tokio::time::timeout(MAX_WAIT, answer).await {
            Ok(Ok(outcome)) => outcome.map_err(NotWritten::Refused),
            Ok(Err(_)) => Err(ended()),
            Err(_) => Err(NotWritten::Late),
        }
    }

    /// Hands a record to the writer and does not wait.
    pub(crate) fn append_later(&self, middle: Middle, class: Class) {
        if class == Class::Read && self.is_full() {
            self.0.shared.dropped_reads.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.send(Job::Append {
            middle,
            class,
            reply: None,
        });
    }

    fn is_full(&self) -> bool {
        self.0.shared.queued.load(Ordering::Relaxed) >= MAX_QUEUED
    }

    fn send(&self, job: Job) -> bool {
        self.0.shared.queued.fetch_add(1, Ordering::Relaxed);
        self.0
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok())
    }
}

/// The last handle waits for the writer, so that whoever opens the log next finds it unlocked and whole. A disk that
/// hangs is not waited for.
impl Drop for Inner {
    fn drop(&mut self) {
        self.jobs = None;
        if std::thread::current().id() != self.writer
            && let Ok(ended) = self.ended.get_mut()
        {
            let _ = ended.recv_timeout(MAX_WAIT);
        }
    }
}

/// Why a record is not known to be durable.
pub(crate) enum NotWritten {
    /// It is not in the log and never will be.
    Refused(AuditError),
    /// No answer in time: it may come.
    Late,
}

impl From<NotWritten> for AuditError {
    fn from(not_written: NotWritten) -> Self {
        match not_written {
            NotWritten::Refused(error) => error,
            NotWritten::Late => AuditError::Unavailable {
                why: "the disk did not answer within 2 s",
                source: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log whose writer never takes anything: a disk that hangs.
    fn hung() -> (AuditLog, mpsc::Receiver<Job>) {
        let (jobs, waiting) = mpsc::channel();
        let (_, ended) = mpsc::channel();
        let identity_key = IdentityKey::from_bytes(&[7; 32]);
        let log = AuditLog(Arc::new(Inner {
            jobs: Some(jobs),
            shared: Arc::new(Shared::default()),
            system: Actor::new(&identity_key, "system"),
            identity_key,
            run: "0".repeat(16),
            next_operation: AtomicU64::new(1),
            writer: std::thread::current().id(),
            ended: Mutex::new(ended),
        }));
        (log, waiting)
    }

    fn intent() -> Intent {
        Intent {
            action: "session.create",
            session: None,
            principal: "uid:0".to_owned(),
            client: model::ClientInfo::default(),
            source: model::Source::LOCAL,
            target: None,
            parameters: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_disk_that_hangs_stops_changes_after_two_seconds_and_never_a_destroy_or_a_read() {
        let (log, waiting) = hung();
        let started = std::time::Instant::now();
        let (durable, reserve) = tokio::join!(
            log.begin(intent(), Durability::Durable),
            log.begin(intent(), Durability::Reserve)
        );
        assert!(matches!(durable, Err(AuditError::Unavailable { .. })));
        assert!(reserve.is_ok());
        let waited = started.elapsed();
        assert!(waited >= MAX_WAIT && waited < MAX_WAIT * 2, "{waited:?}");
        let read = log.begin(intent(), Durability::Buffered).await;
        assert!(read.is_ok() && started.elapsed() < MAX_WAIT * 2);
        drop((durable, reserve, read));
        // Both intents, and after them the result `aborted` of each, and of the read.
        assert_eq!(waiting.try_iter().count(), 5);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_changes_at_once_and_drops_reads() {
        let (log, waiting) = hung();
        log.0.shared.queued.store(MAX_QUEUED, Ordering::Relaxed);
        let started = std::time::Instant::now();
        assert!(log.begin(intent(), Durability::Durable).await.is_err());
        drop(log.begin(intent(), Durability::Buffered).await);
        assert!(started.elapsed() < MAX_WAIT);
        assert_eq!(waiting.try_iter().count(), 0);
        assert_eq!(log.0.shared.dropped_reads.load(Ordering::Relaxed), 1);
    }
}
