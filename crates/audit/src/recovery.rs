//! What an earlier run left: where its chain ends, which of its intents have no result, what a crash tore.
//!
//! | found after the last good record | then |
//! |---|---|
//! | nothing | go on |
//! | bytes that were never durable (a torn write) | kept aside in `NAME.torn-…`, cut off, `audit.gap` |
//! | less than is known to have been durable | `audit.gap` with the numbers that are missing; the chain goes on after them |
//! | a bad record that was durable once | [`AuditError::Broken`]; nothing is touched |
//! | a record that the key in use did not seal | [`AuditError::Broken`]; nothing is touched |
//! | no record of ours at all | [`AuditError::Foreign`]; nothing is touched |
//!
//! What was durable is known from the head file, the anchor and the key file.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
    time::SystemTime,
};

use jiff::Timestamp;

use crate::{
    AuditError, Parameter, Phase,
    files::{Place, at},
    head::Head,
    ledger::Position,
    lines::Lines,
    ratchet::{OPEN_ACTION, Ratchet, Seal},
    record::{Body, FIRST_BYTES, Link, MAX_RECORD_BYTES, Record, Sound},
    segments::{self, Segment},
    writer::{GAP_ACTION, ROTATE_ACTION},
};

/// How a log of before the format had keys starts.
const OLDER_BYTES: &[u8] = b"{\"v\":1,\"seq\":1,";
/// Detail of a file's header: the first record whose operation is not over.
pub(crate) const OPEN_FROM: &str = "open_from_seq";

/// What to record about something missing.
pub(crate) type GapDetails = Vec<(&'static str, Parameter)>;

/// What is known of the log from elsewhere.
pub(crate) struct Known {
    pub head: Option<Head>,
    /// Records that were durable once.
    pub durable: Vec<Link>,
    /// The key of the next record, or one before it.
    pub key: Option<Ratchet>,
}

impl Known {
    fn last(&self) -> Link {
        let last = self.durable.iter().max_by_key(|link| link.seq);
        last.copied().unwrap_or(Link::START)
    }

    fn contradicts(&self, found: Link) -> bool {
        self.durable
            .iter()
            .any(|link| link.seq == found.seq && link.hash != found.hash)
    }
}

/// Where to go on.
pub(crate) struct Recovered {
    pub end: Position,
    /// Number and time of the current file's first record.
    pub first: Option<(u64, Timestamp)>,
    /// Number of the key of the next record.
    pub key: u64,
    pub open: OpenOperations,
    pub gaps: Vec<GapDetails>,
    /// The log's last file, where the current one is new.
    pub continues: Option<Segment>,
}

/// Lines of intents without result, by operation. Parsed only at the end: a run may have had millions.
#[derive(Default)]
pub(crate) struct OpenOperations(BTreeMap<String, Vec<u8>>);

impl OpenOperations {
    /// Takes a record and its line into account.
    pub fn note(&mut self, sound: &Sound<'_>, line: &[u8]) {
        match (sound.phase, sound.op) {
            (Phase::Intent, Some(operation)) => {
                self.0.insert(operation.to_owned(), line.to_vec());
            }
            (Phase::Result, Some(operation)) => {
                self.0.remove(operation);
            }
            (Phase::Intent | Phase::Result, None) | (Phase::Event, _) => {}
        }
    }

    /// A result `unknown` for each.
    pub fn into_results(self) -> impl Iterator<Item = Body> {
        let intents = self
            .0
            .into_values()
            .filter_map(|line| serde_json::from_slice::<Record>(&line).ok());
        intents.map(|intent| Body {
            phase: Phase::Result,
            parameters: BTreeMap::from([("recovered".to_owned(), true.into())]),
            result: "unknown".to_owned(),
            ..intent.body
        })
    }
}

/// Looks at a log and makes it end in a whole record.
pub(crate) fn recover(place: &Place, file: &File, known: &Known) -> Result<Recovered, AuditError> {
    let path = place.path("");
    let failed = at::<io::Error>("read", &path);
    let mut older = segments::open_segments(&path).map_err(&failed)?;
    older.retain(|segment| segment.path != path);
    if file.metadata().map_err(&failed)?.len() == 0
        && let Some(last) = older.pop()
    {
        return recover_new_file(last, &older, known, &path);
    }
    let start = known.head.and_then(|head| start_of_run(file, head));
    let scan = Scan::run(file, start, known).map_err(&failed)?;
    let mut recovered = judge(place, file, &scan, known)?;
    if recovered.end.bytes == 0
        && let Some(last) = older.pop()
    {
        let torn = recovered.gaps.drain(..1);
        let mut recovered = recover_new_file(last, &older, known, &path)?;
        recovered.gaps.splice(..0, torn);
        return Ok(recovered);
    }
    recovered.open = scan.open_with(file, &older).map_err(&failed)?;
    Ok(recovered)
}

fn judge(place: &Place, file: &File, scan: &Scan, known: &Known) -> Result<Recovered, AuditError> {
    let path = place.path("");
    let failed = at::<io::Error>("read", &path);
    let broken = |seq| {
        Err(AuditError::Broken {
            path: path.clone(),
            seq,
        })
    };
    if let Some(seq) = scan.refuted {
        return broken(seq);
    }
    let (mut end, last) = (scan.end, known.last());
    let is_missing = last.seq > end.link.seq;
    let mut gaps = Vec::new();
    if scan.bad {
        let rest = Rest::look(file, end).map_err(&failed)?;
        let nothing_known = known.durable.is_empty();
        match end.link == Link::START {
            true if rest.is_older_format => return Err(AuditError::Format { path }),
            true if !rest.is_torn_first_record => return Err(AuditError::Foreign { path }),
            false if is_missing || (nothing_known && rest.has_sound_record) => {
                return broken(end.link.seq + 1);
            }
            true | false => gaps.push(put_aside(place, file, end)?),
        }
    }
    if is_missing {
        gaps.push(tail_missing(&mut end, last));
    }
    Ok(Recovered {
        end,
        first: scan.first,
        key: scan.next_key,
        open: OpenOperations::default(),
        gaps,
        continues: None,
    })
}

/// The current file is new: the log ends in the one before.
fn recover_new_file(
    last: Segment,
    older: &[Segment],
    known: &Known,
    path: &Path,
) -> Result<Recovered, AuditError> {
    let failed = at::<io::Error>("read", &last.path);
    let scan = Scan::run(&last.file, None, known).map_err(&failed)?;
    if scan.bad || scan.refuted.is_some() {
        let seq = scan.refuted.unwrap_or(scan.end.link.seq + 1);
        let path = last.path;
        return Err(AuditError::Broken { path, seq });
    }
    tracing::warn!(path = %path.display(), "the audit log's file is new; the log goes on in it");
    let mut end = Position {
        bytes: 0,
        link: scan.end.link,
    };
    let mut gaps = Vec::new();
    if known.last().seq > end.link.seq {
        gaps.push(tail_missing(&mut end, known.last()));
    }
    Ok(Recovered {
        end,
        first: None,
        key: scan.next_key,
        open: scan.open_with(&last.file, older).map_err(&failed)?,
        gaps,
        continues: Some(last),
    })
}

/// The chain goes on after the records that are missing: numbers are never used again.
fn tail_missing(end: &mut Position, last: Link) -> GapDetails {
    let first = end.link.seq + 1;
    end.link = last;
    missing("tail_missing", first, last.seq)
}

/// A gap with the numbers of what is missing.
pub(crate) fn missing(kind: &str, from: u64, to: u64) -> GapDetails {
    vec![
        ("kind", Parameter::Word(kind.to_owned())),
        (MISSING_FROM, Parameter::Number(from)),
        (MISSING_TO, Parameter::Number(to)),
    ]
}

const MISSING_FROM: &str = "missing_from_seq";
const MISSING_TO: &str = "missing_to_seq";

/// The first and the last record that are missing, if this is a gap that says so.
pub(crate) fn told_missing(sound: &Sound<'_>, line: &[u8]) -> Option<(u64, u64)> {
    let record = parse(sound, GAP_ACTION, line)?;
    let number = |name| record.body.parameters.get(name)?.as_u64();
    Some((number(MISSING_FROM)?, number(MISSING_TO)?))
}

/// The whole record, if it is an event of that action.
pub(crate) fn parse(sound: &Sound<'_>, action: &str, line: &[u8]) -> Option<Record> {
    let wanted = sound.phase == Phase::Event && sound.action == action;
    wanted.then(|| serde_json::from_slice(line).ok()).flatten()
}

/// Where the last run starts, if what the head file says about that is true.
fn start_of_run(file: &File, head: Head) -> Option<Position> {
    let mut lines = lines_from(file, head.run_offset).ok()?;
    let line = lines.next().ok()??;
    let sound = Sound::read(line.bytes).filter(|sound| sound.action == OPEN_ACTION)?;
    Some(Position {
        bytes: head.run_offset,
        link: sound.link_before()?,
    })
}

fn lines_from(mut file: &File, offset: u64) -> io::Result<Lines<BufReader<&File>>> {
    file.seek(SeekFrom::Start(offset))?;
    Ok(Lines::new(BufReader::with_capacity(1 << 16, file), offset))
}

/// What a file holds from a place on.
pub(crate) struct Scan {
    /// After the last good record.
    pub end: Position,
    /// Number and time of its first record.
    first: Option<(u64, Timestamp)>,
    /// The scan starts with a file that is not the log's first.
    is_later_file: bool,
    /// The first record whose operation was not over when that file was begun.
    open_from: Option<u64>,
    next_key: u64,
    open: OpenOperations,
    /// Something that is not the next record stands after `end`.
    pub bad: bool,
    /// A sound record that is not what was durable once, or that the key did not seal.
    refuted: Option<u64>,
}

impl Scan {
    /// From `start`, or the file's start.
    pub fn run(file: &File, start: Option<Position>, known: &Known) -> io::Result<Scan> {
        let mut scan = Scan {
            end: start.unwrap_or(Position::START),
            first: first_of(file)?,
            is_later_file: false,
            open_from: None,
            next_key: 0,
            open: OpenOperations::default(),
            bad: false,
            refuted: None,
        };
        let mut seals = Seals::new(known.key.clone());
        // Records are missing here, which a gap must tell.
        let mut jump: Option<(Position, u64)> = None;
        let mut lines = lines_from(file, scan.end.bytes)?;
        while let Some(line) = lines.next()? {
            let sound = Sound::read(line.bytes).filter(|_| line.complete);
            let Some(sound) = sound.filter(|sound| scan.takes(sound, &mut jump)) else {
                scan.bad = true;
                break;
            };
            scan.end = Position {
                bytes: line.end,
                link: sound.link(),
            };
            scan.next_key = sound.next_key();
            if scan.refuted.is_none() && (known.contradicts(sound.link()) || !seals.fit(&sound)) {
                scan.refuted = Some(sound.seq);
            }
            scan.note_header(&sound, line.bytes);
            scan.open.note(&sound, line.bytes);
            if jump.is_some_and(|(before, to)| {
                told_missing(&sound, line.bytes)
                    .is_some_and(|told| told.0 <= before.link.seq + 1 && told.1 == to)
            }) {
                jump = None;
            }
        }
        if let Some((before, _)) = jump {
            (scan.end, scan.bad) = (before, true);
        }
        Ok(scan)
    }

    fn takes(&mut self, sound: &Sound<'_>, jump: &mut Option<(Position, u64)>) -> bool {
        let end = self.end;
        if end.link.accepts(sound) {
            return true;
        }
        let Some(before) = sound.link_before() else {
            return false;
        };
        if end == Position::START {
            self.is_later_file = true;
            return true;
        }
        let is_jump = before.seq > end.link.seq && jump.is_none();
        if is_jump {
            *jump = Some((end, before.seq));
        }
        is_jump
    }

    /// What a file that goes on with a log says of the operations before it. Mostly that is its first record; records of the
    /// reserve come before.
    fn note_header(&mut self, sound: &Sound<'_>, line: &[u8]) {
        if self.is_later_file && self.open_from.is_none() {
            self.open_from = parse(sound, ROTATE_ACTION, line)
                .and_then(|record| record.body.parameters.get(OPEN_FROM)?.as_u64());
        }
    }

    /// The open operations, with those of before this file.
    fn open_with(self, file: &File, older: &[Segment]) -> io::Result<OpenOperations> {
        let Some(from) = self.open_from else {
            return Ok(self.open);
        };
        let mut open = OpenOperations::default();
        let last_before = older
            .iter()
            .rposition(|segment| segment.first_seq.is_some_and(|seq| seq <= from));
        let older = older[last_before.unwrap_or(0)..].iter();
        for file in older.map(|segment| &segment.file).chain([file]) {
            let mut lines = lines_from(file, 0)?;
            while let Some(line) = lines.next()? {
                let sound = Sound::read(line.bytes);
                if let Some(sound) = sound.filter(|sound| sound.seq >= from) {
                    open.note(&sound, line.bytes);
                }
            }
        }
        Ok(open)
    }
}

/// Number and time of a file's first record.
fn first_of(file: &File) -> io::Result<Option<(u64, Timestamp)>> {
    let mut lines = lines_from(file, 0)?;
    let first = lines.next()?.and_then(|line| {
        let sound = Sound::read(line.bytes)?;
        Some((sound.seq, sound.timestamp.parse().ok()?))
    });
    Ok(first)
}

/// Checks the MACs of records whose keys are still known.
struct Seals {
    ratchet: Option<Ratchet>,
    seal: Option<Seal>,
}

impl Seals {
    fn new(ratchet: Option<Ratchet>) -> Self {
        let seal = ratchet.as_ref().map(Ratchet::seal);
        Seals { ratchet, seal }
    }

    fn fit(&mut self, sound: &Sound<'_>) -> bool {
        let Some(ratchet) = &self.ratchet else {
            return true;
        };
        if sound.key < ratchet.number() {
            return true;
        }
        if sound.key > ratchet.number() {
            let Some(next) = ratchet.at(sound.key) else {
                return false;
            };
            (self.seal, self.ratchet) = (Some(next.seal()), Some(next));
        }
        self.seal.as_ref().is_some_and(|seal| seal.fits(sound))
    }
}

/// What stands after the last good record.
struct Rest {
    has_sound_record: bool,
    is_torn_first_record: bool,
    is_older_format: bool,
}

impl Rest {
    fn look(file: &File, end: Position) -> io::Result<Rest> {
        let mut lines = lines_from(file, end.bytes)?;
        let mut rest = Rest {
            has_sound_record: false,
            is_torn_first_record: false,
            is_older_format: false,
        };
        let mut first = true;
        while let Some(line) = lines.next()? {
            let shared = line.bytes.len().min(FIRST_BYTES.len());
            let like_ours = line.bytes[..shared] == FIRST_BYTES[..shared];
            rest.is_torn_first_record =
                first && like_ours && !line.complete && line.bytes.len() <= MAX_RECORD_BYTES;
            rest.is_older_format |= first && line.bytes.starts_with(OLDER_BYTES);
            rest.has_sound_record |= Sound::read(line.bytes).is_some();
            first = false;
        }
        Ok(rest)
    }
}

/// Copies what stands after `end` into a file of its own, then cuts it off.
pub(crate) fn put_aside(
    place: &Place,
    mut file: &File,
    end: Position,
) -> Result<GapDetails, AuditError> {
    let suffix = format!(".torn-{}", now_ms());
    let mut aside = place.create_file(&suffix)?;
    let mut move_rest = || -> io::Result<u64> {
        file.seek(SeekFrom::Start(end.bytes))?;
        let bytes = io::copy(&mut file.by_ref(), &mut aside)?;
        aside.sync_all()?;
        Ok(bytes)
    };
    let bytes = move_rest().map_err(at("put aside the torn end of", &place.path("")))?;
    place.sync()?;
    file.set_len(end.bytes)
        .and_then(|()| file.sync_all())
        .map_err(at("cut the torn end of", &place.path("")))?;
    tracing::warn!(bytes, aside = %place.path(&suffix).display(), "the audit log had a torn end; it was put aside");
    Ok(vec![
        ("kind", Parameter::Word("torn_tail".to_owned())),
        ("bytes", Parameter::Number(bytes)),
        ("kept_in", Parameter::Path(place.path(&suffix))),
    ])
}

/// Milliseconds since 1970, for names of files.
pub(crate) fn now_ms() -> u128 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis()
}
