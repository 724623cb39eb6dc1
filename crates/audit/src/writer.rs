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
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::{
    AuditError, Parameter, Phase, Rotation,
    anchor::Anchor,
    keys::Keys,
    ledger::{Ledger, Outside, WriteFailed},
    ratchet::CHECKPOINT_ACTION,
    record::{self, Actor, Body, Client, Link, Middle, Origin},
    recovery::{self, GapDetails, OPEN_FROM},
    reserve::Reserve,
    segments,
    sign::Statement,
};

/// Most records of one write. More wait for the next one.
const MAX_BATCH: usize = 1024;
/// How long reads may wait for their sync, and how often a failed log is tried without being asked.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long results may wait for their sync. Commands that follow one another save one of two syncs each.
const RESULT_INTERVAL: Duration = Duration::from_millis(20);
/// Most records between two checkpoints (`facts/security.md` §1.A).
pub(crate) const CHECKPOINT_RECORDS: u64 = 1_000;
/// Longest time from a record to the checkpoint that covers it.
pub(crate) const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);
/// How long a rotation that failed is not tried again, and how often the age of a file is looked at.
const ROTATION_INTERVAL: Duration = Duration::from_secs(60);
/// How often files are looked for that are no longer kept, apart from rotations.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);
/// The action of a gap.
pub(crate) const GAP_ACTION: &str = "audit.gap";
/// The action of the record that a file begins with, from the second one on.
pub(crate) const ROTATE_ACTION: &str = "audit.rotate";
/// The action that tells which files were removed.
pub(crate) const PRUNED_ACTION: &str = "audit.pruned";

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
    /// Look whether the file was renamed, and go on in a new one then.
    Reopen(oneshot::Sender<Result<(), AuditError>>),
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

/// What a writer works with.
pub(crate) struct Parts {
    pub ledger: Ledger,
    pub reserve: Reserve,
    pub keys: Keys,
    pub anchor: Option<Box<dyn Anchor>>,
    pub rotation: Rotation,
    pub shared: Arc<Shared>,
    pub system: Actor,
}

/// See the module.
pub(crate) struct Writer {
    parts: Parts,
    missed: Missed,
    /// Results that are written and not synced: a failing sync takes them out of the file again.
    unsynced: Vec<Middle>,
    /// What is to be told about the log's files, first of all.
    pending: Vec<Middle>,
    /// Numbers of the intents whose results are still to come.
    open: HashMap<String, u64>,
    checkpoint: Checkpoint,
    /// Rotation is not tried before.
    rotate_after: Instant,
    /// Files that are no longer kept are not looked for before.
    prune_after: Instant,
}

/// How much there is for the next checkpoint to cover.
struct Checkpoint {
    records: u64,
    /// Of the first of them.
    since: Instant,
}

impl Checkpoint {
    fn is_due(&self, more: u64) -> bool {
        let records = self.records + more;
        records >= CHECKPOINT_RECORDS || (self.records > 0 && self.wait().is_zero())
    }

    fn wait(&self) -> Duration {
        CHECKPOINT_INTERVAL.saturating_sub(self.since.elapsed())
    }

    fn count(&mut self, records: u64) {
        if self.records == 0 {
            self.since = Instant::now();
        }
        self.records += records;
    }
}

impl Writer {
    pub fn new(parts: Parts) -> Self {
        Writer {
            parts,
            missed: Missed::default(),
            unsynced: Vec::new(),
            pending: Vec::new(),
            open: HashMap::new(),
            checkpoint: Checkpoint {
                records: 0,
                since: Instant::now(),
            },
            rotate_after: Instant::now(),
            prune_after: Instant::now(),
        }
    }

    /// Works until every sender is gone, then makes everything durable.
    pub fn run(mut self, jobs: &Receiver<Job>) {
        self.tend_files();
        loop {
            let batch = match self.wait(jobs) {
                Ok(first) => std::iter::once(first)
                    .chain(jobs.try_iter())
                    .take(MAX_BATCH)
                    .collect(),
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let queued = &self.parts.shared.queued;
            queued.fetch_sub(batch.len(), Ordering::Relaxed);
            self.handle(batch, false);
            self.parts.keys.catch_up();
            self.tend_files();
        }
        self.handle(Vec::new(), true);
    }

    fn wait(&self, jobs: &Receiver<Job>) -> Result<Job, RecvTimeoutError> {
        if !self.unsynced.is_empty() {
            return jobs.recv_timeout(RESULT_INTERVAL);
        }
        let healthy = self.parts.shared.healthy.load(Ordering::Relaxed);
        if self.parts.ledger.wants_sync() || !healthy {
            return jobs.recv_timeout(IDLE_INTERVAL);
        }
        let checkpoint = (self.checkpoint.records > 0).then(|| self.checkpoint.wait());
        let interval = self.parts.rotation.interval.map(|_| ROTATION_INTERVAL);
        match checkpoint.into_iter().chain(interval).min() {
            Some(wait) => jobs.recv_timeout(wait),
            None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn handle(&mut self, batch: Vec<Job>, last: bool) {
        let idle = batch.is_empty();
        let (mut flushes, mut reopens) = (Vec::new(), Vec::new());
        let mut records = Vec::with_capacity(batch.len());
        for job in batch {
            match job {
                Job::Append {
                    middle,
                    class,
                    reply,
                } => records.push((middle, class, reply)),
                Job::Flush(reply) => flushes.push(reply),
                Job::Reopen(reply) => reopens.push(reply),
            }
        }
        let dropped = &self.parts.shared.dropped_reads;
        self.missed.lost_reads += dropped.swap(0, Ordering::Relaxed);
        let sync = idle
            || last
            || !flushes.is_empty()
            || !reopens.is_empty()
            || records.iter().any(|(_, class, _)| class.waits_for_sync());
        let outcome = match self.commit(records.iter().map(|(middle, ..)| middle), sync, last) {
            Ok(()) => {
                self.parts.shared.healthy.store(true, Ordering::Relaxed);
                for (middle, class, reply) in records {
                    if class == Class::Result && self.parts.ledger.wants_sync() {
                        self.unsynced.push(middle);
                    }
                    answer(reply, Ok(()));
                }
                Ok(())
            }
            Err(failed) => Err(self.fall_back(records, failed)),
        };
        for reply in flushes {
            let _ = reply.send(());
        }
        for reply in reopens {
            let _ = reply.send(outcome.clone());
        }
    }

    /// Everything that waits, in order: the reserve's records, what is to be told, the new records, and a checkpoint if one
    /// is due (or `closing`). All or nothing.
    fn commit<'a>(
        &mut self,
        records: impl Iterator<Item = &'a Middle> + Clone,
        sync: bool,
        closing: bool,
    ) -> Result<(), WriteFailed> {
        self.see_to_the_file()?;
        let now = Timestamp::now();
        let mut lines = self.parts.reserve.lines().to_vec();
        let before = self.parts.ledger.end().seq;
        let mut end = self.end();
        let gap = self
            .missed
            .any()
            .then(|| gap(&self.parts.system, &self.missed.details()));
        let catching_up = !lines.is_empty() || !self.pending.is_empty() || gap.is_some();
        let first = end.seq + 1 + self.pending.len() as u64 + u64::from(gap.is_some());
        for middle in self.pending.iter().chain(&gap) {
            end = end.append(middle, now, self.parts.keys.seal(), &mut lines);
        }
        for middle in records.clone() {
            end = end.append(middle, now, self.parts.keys.seal(), &mut lines);
        }
        let more = end.seq - before;
        let signs = self.checkpoint.is_due(more) || (closing && self.checkpoint.records + more > 0);
        if signs {
            let middle = self.signed(
                CHECKPOINT_ACTION,
                Statement::Checkpoint,
                end,
                "",
                Vec::new(),
            );
            end = end.append(&middle, now, self.parts.keys.seal(), &mut lines);
        }
        let sync = sync || catching_up || signs;
        self.parts.ledger.append(&lines, end, sync)?;
        self.committed(records.zip(first..), more, signs.then_some(end));
        Ok(())
    }

    /// Takes into account what is in the log now.
    fn committed<'a>(
        &mut self,
        records: impl Iterator<Item = (&'a Middle, u64)>,
        count: u64,
        checkpoint: Option<Link>,
    ) {
        for (middle, seq) in records {
            note_open(&mut self.open, middle, seq);
        }
        if !self.parts.ledger.wants_sync() {
            self.unsynced.clear();
        }
        self.missed = Missed::default();
        self.pending.clear();
        if !self.parts.reserve.lines().is_empty()
            && let Err(error) = self.parts.reserve.clear()
        {
            tracing::warn!(%error, "cannot clear the audit log's reserve");
        }
        match checkpoint {
            None => self.checkpoint.count(count),
            Some(end) => {
                self.checkpoint.records = 0;
                self.parts.keys.move_on(end);
                self.note_anchor(end);
            }
        }
    }

    fn note_anchor(&mut self, end: Link) {
        if let Some(anchor) = &mut self.parts.anchor
            && let Err(error) = anchor.note(end.into())
        {
            tracing::warn!(%error, "the end of the audit log cannot be noted in the state database");
        }
    }

    /// A signed event about the records up to `link`.
    fn signed(
        &self,
        action: &str,
        statement: Statement,
        link: Link,
        prefix: &str,
        more: GapDetails,
    ) -> Middle {
        let signature = self.parts.keys.signer.sign(statement, link);
        let mut parameters = record::parameters(&more);
        parameters.extend([
            (format!("{prefix}seq"), link.seq.into()),
            (format!("{prefix}hash"), hex::encode(link.hash).into()),
            ("signature".to_owned(), signature.into()),
        ]);
        event(&self.parts.system, action, None, parameters, "ok")
    }

    /// A log that other programs renamed, removed or cut goes on, and says so; one that they wrote to does not.
    fn see_to_the_file(&mut self) -> Result<(), WriteFailed> {
        let (outside, first) = (self.parts.ledger.outside()?, self.parts.ledger.first().0);
        let told = match outside {
            Outside::Untouched | Outside::Written => return Ok(()),
            Outside::Renamed => {
                self.parts.ledger.take_new_file()?;
                vec![self.header("renamed_outside", Vec::new())]
            }
            Outside::Removed => {
                self.parts.ledger.take_new_file()?;
                let last = self.parts.ledger.end().seq;
                vec![recovery::missing("removed_outside", first, last)]
            }
            Outside::Cut => {
                let (from, aside) = self.parts.ledger.accept_cut()?;
                let last = self.parts.ledger.end().seq;
                let cut = recovery::missing("truncated_outside", from, last);
                std::iter::once(cut).chain(aside).collect()
            }
        };
        tracing::warn!(what = ?outside, "another program changed the audit log's file; the log goes on and says so");
        // What was not durable went with what was cut, or is durable in the old file.
        self.unsynced.clear();
        let system = &self.parts.system;
        let action = match outside {
            Outside::Renamed => ROTATE_ACTION,
            Outside::Untouched | Outside::Removed | Outside::Cut | Outside::Written => GAP_ACTION,
        };
        let told = told.iter().map(|details| {
            let result = if action == GAP_ACTION {
                "unknown"
            } else {
                "ok"
            };
            event(system, action, None, record::parameters(details), result)
        });
        self.pending.extend(told);
        Ok(())
    }

    /// What a new file begins with.
    fn header(&self, because: &str, more: GapDetails) -> GapDetails {
        let last = self.parts.ledger.end();
        let mut details = vec![
            ("because", Parameter::Word(because.to_owned())),
            ("previous_last_seq", Parameter::Number(last.seq)),
            (
                "previous_last_hash",
                Parameter::Word(hex::encode(last.hash)),
            ),
        ];
        if let Some(first) = self.open.values().min() {
            details.push((OPEN_FROM, Parameter::Number(*first)));
        }
        details.extend(more);
        details
    }

    /// Rotates if it is time; a rotation that fails leaves everything as it was.
    fn tend_files(&mut self) {
        let (ledger, now) = (&self.parts.ledger, Timestamp::now());
        let (first_seq, first) = ledger.first();
        let healthy = self.parts.shared.healthy.load(Ordering::Relaxed);
        if !healthy || ledger.end().seq <= first_seq {
            return;
        }
        let due = self.parts.rotation.is_due(ledger.bytes(), first, now);
        if let Some(because) = due.filter(|_| Instant::now() >= self.rotate_after) {
            self.prune_after = Instant::now();
            if let Err(failed) = self.rotate(because) {
                tracing::warn!(error = %failed.source, "the audit log cannot be rotated; it goes on in the same file");
                self.rotate_after = Instant::now() + ROTATION_INTERVAL;
                self.account_for(failed);
            }
        }
        if self.parts.rotation.removes() && Instant::now() >= self.prune_after {
            self.prune_after = Instant::now() + PRUNE_INTERVAL;
            if let Err(failed) = self.prune() {
                tracing::warn!(error = %failed.source, "old files of the audit log cannot be removed");
                self.account_for(failed);
            }
        }
    }

    /// Results that were answered for and went with a failed sync are in the reserve afterwards, or told as lost.
    fn account_for(&mut self, failed: WriteFailed) {
        if failed.rolled_back > 0 {
            let _ = self.fall_back(Vec::new(), failed);
        }
    }

    fn rotate(&mut self, because: &str) -> Result<(), WriteFailed> {
        self.commit(std::iter::empty(), true, true)?;
        let (ledger, now) = (&self.parts.ledger, Timestamp::now());
        let archive = segments::archive_suffix(ledger.first().0);
        let previous = vec![("previous", Parameter::Path(ledger.place().path(&archive)))];
        let parameters = record::parameters(&self.header(because, previous));
        let middle = event(&self.parts.system, ROTATE_ACTION, None, parameters, "ok");
        let mut lines = Vec::new();
        let end = ledger
            .end()
            .append(&middle, now, self.parts.keys.seal(), &mut lines);
        self.parts.ledger.rotate(&lines, end)?;
        self.checkpoint.count(1);
        Ok(())
    }

    /// Removes files that are no longer kept, once the log says so.
    fn prune(&mut self) -> Result<(), WriteFailed> {
        let place = self.parts.ledger.place().path("");
        let segments = segments::open_segments(&place)?;
        let expired = self.parts.rotation.expired(&segments, Timestamp::now());
        let Some((paths, last)) = expired else {
            return Ok(());
        };
        let files = vec![("files", Parameter::Number(paths.len() as u64))];
        let record = self.signed(PRUNED_ACTION, Statement::Pruned, last, "up_to_", files);
        self.commit(std::iter::once(&record), true, false)?;
        let place = self.parts.ledger.place();
        for path in &paths {
            place.remove_name(path.file_name().unwrap_or_default())?;
        }
        let told = |error: AuditError| std::io::Error::other(error.to_string());
        Ok(place.sync().map_err(told)?)
    }

    fn end(&self) -> Link {
        let reserved = self.parts.reserve.end();
        reserved.unwrap_or(self.parts.ledger.end())
    }

    fn fall_back(&mut self, records: Vec<Waiting>, failed: WriteFailed) -> AuditError {
        if self.parts.shared.healthy.swap(false, Ordering::Relaxed) {
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
        refusal()
    }

    fn keep_in_reserve<'a>(&mut self, records: impl Iterator<Item = &'a Middle>) -> bool {
        let now = Timestamp::now();
        let (mut lines, mut end) = (Vec::new(), self.end());
        let mut kept = Vec::new();
        for middle in records {
            end = end.append(middle, now, self.parts.keys.seal(), &mut lines);
            kept.push((middle, end.seq));
        }
        if let Err(error) = self.parts.reserve.append(&lines, end) {
            tracing::error!(%error, "the audit log's reserve cannot be written");
            return false;
        }
        for (middle, seq) in kept {
            note_open(&mut self.open, middle, seq);
        }
        true
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

/// Keeps the numbers of intents without result.
fn note_open(open: &mut HashMap<String, u64>, middle: &Middle, seq: u64) {
    let Some(operation) = &middle.operation else {
        return;
    };
    match middle.phase {
        Phase::Intent => {
            open.insert(operation.clone(), seq);
        }
        Phase::Result => {
            open.remove(operation);
        }
        Phase::Event => {}
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
        source: Origin::new(model::Source::SYSTEM),
        target: session.map(record::Object::session),
        decision: None,
        parameters,
        result: result.to_owned(),
        reason: None,
        duration_ms: None,
    }
    .encode()
}
