//! The one writer. It takes all records that wait, writes them with one write and one sync, and answers.
//!
//! When the log takes no writes:
//!
//! | record | what happens |
//! |---|---|
//! | intent of a change | refused: nothing may be changed |
//! | intent of a destroy, results, events | the reserve; when that fails too, counted as lost |
//! | reads | counted as lost |
//!
//! Results do not wait for the disk: they are written at once and synced with the next record that does, or after
//! [`RESULT_INTERVAL`]. A crash of the program loses none; one of the machine leaves intents whose results the next start
//! tells as unknown, as with any that was cut off in the middle.
//!
//! The first write that works again brings the reserve's records and an `audit.gap` record with the counts.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::{
    AuditError, Parameter,
    ledger::{Ledger, WriteFailed},
    record::{self, Actor, Body, Client, Link, Middle},
    recovery::GapDetails,
    reserve::Reserve,
};

/// Most records of one write. More wait for the next one.
const MAX_BATCH: usize = 1024;
/// How long reads may wait for their sync, and how often a failed log is tried without being asked.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long results may wait for their sync. Commands that follow one another save one of two syncs each.
const RESULT_INTERVAL: Duration = Duration::from_millis(20);
/// The action of a gap.
pub(crate) const GAP_ACTION: &str = "audit.gap";

/// What becomes of a record when the log takes no writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Refused.
    Refusable,
    /// The reserve; if that fails, the action goes on all the same.
    Unstoppable,
    /// The reserve; if that fails, the caller learns it.
    Needed,
    /// Like [`Class::Needed`], but written is enough for the caller.
    Result,
    /// Counted as lost.
    Read,
}

/// Work for the writer.
pub(crate) enum Job {
    /// A record.
    Append {
        middle: Middle,
        class: Class,
        reply: Option<oneshot::Sender<Result<(), AuditError>>>,
    },
    /// Answer when everything before is durable.
    Flush(oneshot::Sender<()>),
}

/// What the callers and the writer both see.
#[derive(Default)]
pub(crate) struct Shared {
    /// The last write worked.
    pub healthy: AtomicBool,
    /// Jobs that wait.
    pub queued: AtomicUsize,
    /// Reads that were not even queued.
    pub dropped_reads: AtomicU64,
}

/// What is not in the log although it happened, since the last gap record.
#[derive(Default)]
struct Missed {
    refused: u64,
    reserved: u64,
    lost: u64,
    lost_reads: u64,
}

/// See the module.
pub(crate) struct Writer {
    pub ledger: Ledger,
    pub reserve: Reserve,
    pub shared: Arc<Shared>,
    pub system: Actor,
    missed: Missed,
    /// Results that are written and not synced: a failing sync takes them out of the file again.
    unsynced: Vec<Middle>,
}

impl Writer {
    pub fn new(ledger: Ledger, reserve: Reserve, shared: Arc<Shared>, system: Actor) -> Self {
        Writer {
            ledger,
            reserve,
            shared,
            system,
            missed: Missed::default(),
            unsynced: Vec::new(),
        }
    }

    /// Works until every sender is gone, then makes everything durable.
    pub fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let batch = match self.wait(jobs) {
                Ok(first) => std::iter::once(first)
                    .chain(jobs.try_iter())
                    .take(MAX_BATCH)
                    .collect(),
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            self.shared.queued.fetch_sub(batch.len(), Ordering::Relaxed);
            self.handle(batch, false);
        }
        self.handle(Vec::new(), true);
    }

    fn wait(&self, jobs: &Receiver<Job>) -> Result<Job, RecvTimeoutError> {
        let unfinished = self.ledger.wants_sync() || !self.shared.healthy.load(Ordering::Relaxed);
        if !self.unsynced.is_empty() {
            return jobs.recv_timeout(RESULT_INTERVAL);
        }
        if unfinished {
            return jobs.recv_timeout(IDLE_INTERVAL);
        }
        jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
    }

    fn handle(&mut self, batch: Vec<Job>, last: bool) {
        let idle = batch.is_empty();
        let mut flushes = Vec::new();
        let mut records = Vec::with_capacity(batch.len());
        for job in batch {
            match job {
                Job::Append {
                    middle,
                    class,
                    reply,
                } => records.push((middle, class, reply)),
                Job::Flush(reply) => flushes.push(reply),
            }
        }
        self.missed.lost_reads += self.shared.dropped_reads.swap(0, Ordering::Relaxed);
        let sync = idle
            || last
            || !flushes.is_empty()
            || records.iter().any(|(_, class, _)| class.waits_for_sync());
        match self.commit(records.iter().map(|(middle, ..)| middle), sync) {
            Ok(()) => {
                self.shared.healthy.store(true, Ordering::Relaxed);
                for (middle, class, reply) in records {
                    if class == Class::Result && self.ledger.wants_sync() {
                        self.unsynced.push(middle);
                    }
                    answer(reply, Ok(()));
                }
            }
            Err(failed) => self.fall_back(records, failed),
        }
        for reply in flushes {
            let _ = reply.send(());
        }
    }

    /// Everything that waits, in order: the reserve's records, the gap, the new records. All or nothing.
    fn commit<'a>(
        &mut self,
        records: impl Iterator<Item = &'a Middle>,
        sync: bool,
    ) -> Result<(), WriteFailed> {
        let now = Timestamp::now();
        let mut lines = self.reserve.lines().to_vec();
        let catching_up = !lines.is_empty() || self.missed.any();
        let mut end = self.end();
        if self.missed.any() {
            end = end.append(&gap(&self.system, &self.missed.details()), now, &mut lines);
        }
        for middle in records {
            end = end.append(middle, now, &mut lines);
        }
        self.ledger.append(&lines, end, sync || catching_up)?;
        if !self.ledger.wants_sync() {
            self.unsynced.clear();
        }
        self.missed = Missed::default();
        if !self.reserve.lines().is_empty()
            && let Err(error) = self.reserve.clear()
        {
            tracing::warn!(%error, "cannot clear the audit log's reserve");
        }
        Ok(())
    }

    fn end(&self) -> Link {
        self.reserve.end().unwrap_or(self.ledger.end())
    }

    fn fall_back(&mut self, records: Vec<Waiting>, failed: WriteFailed) {
        if self.shared.healthy.swap(false, Ordering::Relaxed) {
            tracing::error!(error = %failed.source, "the audit log cannot be written");
        }
        let results = match failed.rolled_back {
            0 => Vec::new(),
            _ => std::mem::take(&mut self.unsynced),
        };
        self.missed.lost_reads += failed.rolled_back.saturating_sub(results.len() as u64);
        let source = Arc::new(failed.source);
        let refusal = || AuditError::Unavailable {
            why: "the write failed",
            source: Some(source.clone()),
        };
        let (mut needed, mut rest): (Vec<_>, Vec<_>) = records
            .into_iter()
            .partition(|(_, class, _)| class.is_needed());
        for (_, class, reply) in rest.drain(..) {
            match class {
                Class::Refusable => self.missed.refused += 1,
                Class::Read | Class::Unstoppable | Class::Needed | Class::Result => {
                    self.missed.lost_reads += 1;
                }
            }
            answer(reply, Err(refusal()));
        }
        let count = (results.len() + needed.len()) as u64;
        let wanted = results
            .iter()
            .chain(needed.iter().map(|(middle, ..)| middle));
        let kept = count == 0 || self.keep_in_reserve(wanted);
        *if kept {
            &mut self.missed.reserved
        } else {
            &mut self.missed.lost
        } += count;
        for (_, class, reply) in needed.drain(..) {
            let proceeds = kept || class == Class::Unstoppable;
            answer(reply, if proceeds { Ok(()) } else { Err(refusal()) });
        }
    }

    fn keep_in_reserve<'a>(&mut self, records: impl Iterator<Item = &'a Middle>) -> bool {
        let now = Timestamp::now();
        let (mut lines, mut end) = (Vec::new(), self.end());
        for middle in records {
            end = end.append(middle, now, &mut lines);
        }
        let kept = self.reserve.append(&lines, end);
        if let Err(error) = &kept {
            tracing::error!(%error, "the audit log's reserve cannot be written");
        }
        kept.is_ok()
    }
}

type Waiting = (
    Middle,
    Class,
    Option<oneshot::Sender<Result<(), AuditError>>>,
);

impl Class {
    const fn is_needed(self) -> bool {
        match self {
            Class::Unstoppable | Class::Needed | Class::Result => true,
            Class::Refusable | Class::Read => false,
        }
    }

    const fn waits_for_sync(self) -> bool {
        match self {
            Class::Refusable | Class::Unstoppable | Class::Needed => true,
            Class::Result | Class::Read => false,
        }
    }
}

/// The caller may have given up: then nobody listens, which is fine.
fn answer(reply: Option<oneshot::Sender<Result<(), AuditError>>>, outcome: Result<(), AuditError>) {
    if let Some(reply) = reply {
        let _ = reply.send(outcome);
    }
}

impl Missed {
    fn any(&self) -> bool {
        self.refused + self.reserved + self.lost + self.lost_reads > 0
    }

    fn details(&self) -> GapDetails {
        vec![
            ("kind", Parameter::Word("write_failed".to_owned())),
            ("refused", Parameter::Number(self.refused)),
            ("from_reserve", Parameter::Number(self.reserved)),
            ("lost", Parameter::Number(self.lost)),
            ("lost_reads", Parameter::Number(self.lost_reads)),
        ]
    }
}

/// A record that says that something is missing.
pub(crate) fn gap(system: &Actor, details: &GapDetails) -> Middle {
    event(
        system,
        GAP_ACTION,
        None,
        record::parameters(details),
        "unknown",
    )
}

/// A record of something that nobody asked for.
pub(crate) fn event(
    system: &Actor,
    action: &str,
    session: Option<model::SessionId>,
    parameters: BTreeMap<String, serde_json::Value>,
    result: &str,
) -> Middle {
    Body {
        phase: record::Phase::Event,
        op: None,
        action: action.to_owned(),
        session_id: session,
        actor: system.clone(),
        client: Client::default(),
        parameters,
        result: result.to_owned(),
        reason: None,
        duration_ms: None,
    }
    .encode()
}
