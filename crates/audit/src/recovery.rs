//! What an earlier run left: where its chain ends, which of its intents have no result, what a crash tore.
//!
//! | found after the last good record | then |
//! |---|---|
//! | nothing | go on |
//! | bytes that were never durable (a torn write) | kept aside in `NAME.torn-…`, cut off, `audit.gap` |
//! | less than the head file knows to have been durable | `audit.gap` with the numbers that are missing |
//! | a bad record that was durable once | [`AuditError::Broken`]; nothing is touched |
//! | no record of ours at all | [`AuditError::Foreign`]; nothing is touched |

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    time::SystemTime,
};

use crate::{
    AuditError, Parameter, Phase,
    files::{Place, at},
    head::Head,
    ledger::Position,
    lines::Lines,
    record::{Body, Link, MAX_RECORD_BYTES, Record, Sound},
};

/// The action that starts a run: no intent before it is open.
pub(crate) const OPEN_ACTION: &str = "audit.open";
/// How every log starts.
const FIRST_BYTES: &[u8] = b"{\"v\":1,\"seq\":1,";

/// What to record about something missing.
pub(crate) type GapDetails = Vec<(&'static str, Parameter)>;

/// Where to go on.
pub(crate) struct Recovered {
    pub end: Position,
    pub open: OpenOperations,
    pub gaps: Vec<GapDetails>,
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
pub(crate) fn recover(
    place: &Place,
    file: &File,
    head: Option<Head>,
) -> Result<Recovered, AuditError> {
    let path = place.path("");
    let failed = at::<io::Error>("read", &path);
    let start = head
        .and_then(|head| start_of_run(file, head))
        .unwrap_or(Position::START);
    let scan = Scan::run(file, start, head).map_err(&failed)?;
    let known = head.map_or(0, |head| head.link.seq);
    let broken = |seq| {
        Err(AuditError::Broken {
            path: path.clone(),
            seq,
        })
    };
    if scan.contradicts_head {
        return broken(known);
    }
    let end = scan.end;
    let missing = known.saturating_sub(end.link.seq);
    let mut gaps = Vec::new();
    match (scan.bad, missing) {
        (false, 0) => {}
        (false, _) => gaps.push(vec![
            ("kind", Parameter::Word("tail_missing".to_owned())),
            ("missing_from_seq", Parameter::Number(end.link.seq + 1)),
            ("missing_to_seq", Parameter::Number(known)),
        ]),
        (true, 0) => {
            let rest = Rest::look(file, end).map_err(&failed)?;
            match (end.link == Link::START, head) {
                (true, _) if !rest.is_torn_first_record => {
                    return Err(AuditError::Foreign { path: path.clone() });
                }
                (false, None) if rest.has_sound_record => return broken(end.link.seq + 1),
                (true | false, _) => gaps.push(put_aside(place, file, end)?),
            }
        }
        (true, _) => return broken(end.link.seq + 1),
    }
    Ok(Recovered {
        end,
        open: scan.open,
        gaps,
    })
}

/// Where the last run starts, if what the head file says about that is true.
fn start_of_run(file: &File, head: Head) -> Option<Position> {
    let mut lines = lines_from(file, head.run_offset).ok()?;
    let line = lines.next().ok()??;
    let sound = Sound::read(line.bytes).filter(|sound| sound.action == OPEN_ACTION)?;
    let before = Link {
        seq: sound.seq.checked_sub(1)?,
        hash: sound.prev,
    };
    Some(Position {
        bytes: head.run_offset,
        link: before,
    })
}

fn lines_from(mut file: &File, offset: u64) -> io::Result<Lines<BufReader<&File>>> {
    file.seek(SeekFrom::Start(offset))?;
    Ok(Lines::new(BufReader::with_capacity(1 << 16, file), offset))
}

struct Scan {
    end: Position,
    open: OpenOperations,
    /// Something that is not the next record stands after `end`.
    bad: bool,
    contradicts_head: bool,
}

impl Scan {
    fn run(file: &File, start: Position, head: Option<Head>) -> io::Result<Scan> {
        let mut scan = Scan {
            end: start,
            open: OpenOperations::default(),
            bad: false,
            contradicts_head: false,
        };
        let mut lines = lines_from(file, start.bytes)?;
        while let Some(line) = lines.next()? {
            let sound = Sound::read(line.bytes)
                .filter(|sound| line.complete && scan.end.link.accepts(sound));
            let Some(sound) = sound else {
                scan.bad = true;
                break;
            };
            scan.end = Position {
                bytes: line.end,
                link: sound.link(),
            };
            scan.contradicts_head |=
                head.is_some_and(|head| head.link.seq == sound.seq && head.link.hash != sound.hash);
            scan.open.note(&sound, line.bytes);
        }
        Ok(scan)
    }
}

/// What stands after the last good record.
struct Rest {
    has_sound_record: bool,
    is_torn_first_record: bool,
}

impl Rest {
    fn look(file: &File, end: Position) -> io::Result<Rest> {
        let mut lines = lines_from(file, end.bytes)?;
        let mut rest = Rest {
            has_sound_record: false,
            is_torn_first_record: false,
        };
        let mut first = true;
        while let Some(line) = lines.next()? {
            let shared = line.bytes.len().min(FIRST_BYTES.len());
            let like_ours = line.bytes[..shared] == FIRST_BYTES[..shared];
            rest.is_torn_first_record =
                first && like_ours && !line.complete && line.bytes.len() <= MAX_RECORD_BYTES;
            rest.has_sound_record |= Sound::read(line.bytes).is_some();
            first = false;
        }
        Ok(rest)
    }
}

/// Copies what stands after `end` into a file of its own, then cuts it off.
fn put_aside(place: &Place, mut file: &File, end: Position) -> Result<GapDetails, AuditError> {
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
