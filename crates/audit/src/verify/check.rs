//! The state of a check.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
};

use super::{
    Beside, Fault, FaultKind, OpenIntent, Verification, VerifyError, VerifyReport, Warning,
};
use crate::{
    Phase, PublicKey,
    lines::LogLines,
    ratchet::{CHECKPOINT_ACTION, OPEN_ACTION, Ratchet, Seal},
    record::{Link, Sound},
    recovery::{parse, told_missing},
    sign::Statement,
    spelling,
    writer::{GAP_ACTION, PRUNED_ACTION},
};

/// Most warnings and open intents that a report lists; the rest is only counted in `records`.
const MAX_LISTED: usize = 1_000;
/// Actions of the log itself start with this.
const OWN_ACTIONS: &str = "audit.";

/// The chain so far.
pub(super) struct Check {
    /// Records that were durable once.
    durable: Vec<Link>,
    from_seq: Option<u64>,
    public_key: Option<PublicKey>,
    macs: Option<Macs>,
    /// Number of the next record's key.
    key: u64,
    link: Link,
    report: VerifyReport,
    last_timestamp: String,
    open: HashMap<String, (u64, String)>,
}

/// Checks MACs.
struct Macs {
    ratchet: Ratchet,
    seal: Seal,
}

impl Check {
    pub fn new(verification: Verification, beside: Beside) -> Self {
        let Verification {
            key,
            public_key,
            anchors,
            from_seq,
        } = verification;
        let anchors = anchors.into_iter().map(Link::from);
        let has_key_beside = beside.verification_key.is_some();
        let macs = key.or(beside.verification_key).map(|key| Macs {
            seal: key.ratchet().seal(),
            ratchet: key.ratchet(),
        });
        let no_head = (!beside.has_head).then_some(Warning::NoHead);
        let report = VerifyReport {
            files: 0,
            records: 0,
            first_seq: 0,
            last_seq: 0,
            last_hash: String::new(),
            pruned_up_to: None,
            checkpoints: 0,
            macs_checked: macs.is_some(),
            verification_key_beside: has_key_beside,
            public_key: None,
            open_intents: Vec::new(),
            warnings: no_head.into_iter().collect(),
        };
        Check {
            public_key: public_key.or(beside.public_key),
            durable: beside.durable.into_iter().chain(anchors).collect(),
            from_seq,
            macs,
            key: 0,
            link: Link::START,
            report,
            last_timestamp: String::new(),
            open: HashMap::new(),
        }
    }

    /// Takes the next record. False: this is not it.
    pub fn takes(&mut self, line: &[u8], complete: bool) -> Result<bool, FaultKind> {
        let Some(sound) = Sound::read(line).filter(|_| complete) else {
            return Ok(false);
        };
        if !self.link.accepts(&sound) {
            return Ok(false);
        }
        if sound.key != self.key {
            return Err(FaultKind::Forged);
        }
        self.take(&sound, line)?;
        Ok(true)
    }

    /// Takes a record before which others are missing, if the log itself says so further on.
    pub fn jumps(
        &mut self,
        line: &[u8],
        complete: bool,
        lines: &mut LogLines,
    ) -> io::Result<Result<bool, FaultKind>> {
        let sound = Sound::read(line).filter(|sound| complete && sound.seq > self.link.seq + 1);
        let Some((sound, before)) =
            sound.and_then(|sound| sound.link_before().map(|before| (sound, before)))
        else {
            return Ok(Ok(false));
        };
        let is_start = self.link == Link::START;
        if is_start && self.from_seq.is_some_and(|from| sound.seq <= from) {
            self.warn(Warning::StartsAt { seq: sound.seq });
        } else {
            let settled = self.is_told(line, before)? || {
                let mark = lines.mark();
                let told = self.is_told_later(before, lines)?;
                lines.restore(mark);
                told
            };
            if !settled || sound.key < self.key {
                return Ok(Ok(false));
            }
        }
        self.link = before;
        Ok(self.take(&sound, line).map(|()| true))
    }

    fn is_told_later(&mut self, before: Link, lines: &mut LogLines) -> io::Result<bool> {
        while let Some(line) = lines.next()? {
            if self.is_told(line.bytes, before)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether this line says that the records up to `before` are missing or were removed.
    fn is_told(&mut self, line: &[u8], before: Link) -> io::Result<bool> {
        let Some(sound) = Sound::read(line).filter(|sound| sound.action.starts_with(OWN_ACTIONS))
        else {
            return Ok(false);
        };
        if let Some((from, to)) = told_missing(&sound, line) {
            return Ok(from <= self.link.seq + 1 && to == before.seq);
        }
        let Some(record) = parse(&sound, PRUNED_ACTION, line) else {
            return Ok(false);
        };
        let pruned = signed(&record.body.parameters, "up_to_");
        let told = pruned.is_some_and(|(link, _)| link.seq > before.seq || link == before);
        if told && self.link == Link::START {
            self.report.pruned_up_to = Some(before.seq);
        }
        Ok(told && self.link == Link::START)
    }

    fn take(&mut self, sound: &Sound<'_>, line: &[u8]) -> Result<(), FaultKind> {
        if !spelling::is_canonical(line) {
            return Err(FaultKind::NotCanonical);
        }
        if self.macs.as_mut().is_some_and(|macs| !macs.fit(sound)) {
            return Err(FaultKind::Forged);
        }
        let known = self.durable.iter().find(|link| link.seq == sound.seq);
        if known.is_some_and(|link| link.hash != sound.hash) {
            return Err(FaultKind::Forked);
        }
        if sound.action.starts_with(OWN_ACTIONS) {
            self.own(sound, line)?;
        }
        // All timestamps have the same width, so their order is that of their texts.
        if sound.timestamp < self.last_timestamp.as_str() {
            self.warn(Warning::ClockRegress { seq: sound.seq });
        }
        self.last_timestamp.clear();
        self.last_timestamp.push_str(sound.timestamp);
        match (sound.phase, sound.op) {
            (Phase::Intent, Some(operation)) => {
                let intent = (sound.seq, sound.action.to_owned());
                self.open.insert(operation.to_owned(), intent);
            }
            (Phase::Result, Some(operation)) => drop(self.open.remove(operation)),
            (Phase::Intent | Phase::Result | Phase::Event, _) => {}
        }
        self.link = sound.link();
        self.key = sound.next_key();
        if self.report.records == 0 {
            self.report.first_seq = sound.seq;
        }
        self.report.records += 1;
        Ok(())
    }

    /// A record about the log itself.
    fn own(&mut self, sound: &Sound<'_>, line: &[u8]) -> Result<(), FaultKind> {
        if sound.action == GAP_ACTION {
            self.warn(Warning::Gap { seq: sound.seq });
        } else if let Some(record) = parse(sound, OPEN_ACTION, line) {
            let named = record.body.parameters.get("public_key");
            let named = named.and_then(|key| PublicKey::parse(key.as_str()?));
            self.public_key = self.public_key.take().or(named);
        } else if let Some(record) = parse(sound, CHECKPOINT_ACTION, line) {
            let signed = signed(&record.body.parameters, "");
            let is_good = signed.is_some_and(|(link, signature)| {
                sound.link_before() == Some(link)
                    && self.is_signed(Statement::Checkpoint, link, signature)
            });
            if !is_good {
                return Err(FaultKind::BadSignature);
            }
            self.report.checkpoints += 1;
        } else if let Some(record) = parse(sound, PRUNED_ACTION, line) {
            let signed = signed(&record.body.parameters, "up_to_");
            let is_good = signed.is_some_and(|(link, signature)| {
                link.seq < sound.seq && self.is_signed(Statement::Pruned, link, signature)
            });
            if !is_good {
                return Err(FaultKind::BadSignature);
            }
        }
        Ok(())
    }

    fn is_signed(&self, statement: Statement, link: Link, signature: &str) -> bool {
        self.public_key
            .as_ref()
            .is_some_and(|key| key.verifies(statement, link, signature))
    }

    pub fn warn(&mut self, warning: Warning) {
        if self.report.warnings.len() < MAX_LISTED {
            self.report.warnings.push(warning);
        }
    }

    /// Whether this is a last line without its end after which nothing durable is missing.
    pub fn is_unfinished(&self, complete: bool, lines: &mut LogLines) -> io::Result<bool> {
        if complete || self.is_missing_some() {
            return Ok(false);
        }
        let mark = lines.mark();
        let is_last = lines.next()?.is_none();
        lines.restore(mark);
        Ok(is_last)
    }

    fn is_missing_some(&self) -> bool {
        self.durable.iter().any(|link| link.seq > self.link.seq)
    }

    pub fn finish(mut self, lines: &LogLines) -> Result<VerifyReport, VerifyError> {
        if self.is_missing_some() {
            let (file, line) = lines.place();
            return Err(self.fault(FaultKind::TailMissing, file, line + 1));
        }
        let open = std::mem::take(&mut self.open).into_iter();
        let open: BTreeMap<_, _> = open
            .map(|(operation, (seq, action))| (seq, (operation, action)))
            .collect();
        let open_intents = open
            .into_iter()
            .take(MAX_LISTED)
            .map(|(seq, (operation, action))| OpenIntent {
                seq,
                operation,
                action,
            });
        Ok(VerifyReport {
            files: lines.files(),
            last_seq: self.link.seq,
            last_hash: hex::encode(self.link.hash),
            public_key: self.public_key,
            open_intents: open_intents.collect(),
            ..self.report
        })
    }

    /// What is wrong with the line that was read last.
    pub fn fault_here(&self, kind: FaultKind, lines: &LogLines) -> VerifyError {
        let (file, line) = lines.place();
        self.fault(kind, file, line)
    }

    fn fault(&self, kind: FaultKind, file: &Path, line: u64) -> VerifyError {
        VerifyError::Tampered(Box::new(Fault {
            seq: self.link.seq + 1,
            file: file.to_owned(),
            line,
            kind,
        }))
    }

    /// What is wrong with the line that is not the next record, judged by what follows it.
    pub fn fault_at(
        &self,
        line: &[u8],
        complete: bool,
        lines: &mut LogLines,
    ) -> io::Result<VerifyError> {
        let (file, number) = lines.place();
        let file = file.to_owned();
        let sound = Sound::read(line).filter(|_| complete);
        let expected = self.link.seq + 1;
        let is_later = sound.as_ref().is_some_and(|sound| sound.seq > expected);
        let after = After::look(lines, self.link, is_later)?;
        let kind = match sound {
            Some(sound) if sound.seq < expected => FaultKind::Inserted,
            Some(sound) if sound.seq == expected => FaultKind::Forked,
            Some(_) if after.expected_comes_later => FaultKind::Reordered,
            Some(_) => FaultKind::Deleted,
            None if after.next_continues => FaultKind::Inserted,
            None if complete && line.ends_with(b"\"}") => FaultKind::Edited,
            None => FaultKind::TruncatedLine,
        };
        Ok(self.fault(kind, &file, number))
    }
}

impl Macs {
    fn fit(&mut self, sound: &Sound<'_>) -> bool {
        if sound.key != self.ratchet.number() {
            let Some(ratchet) = self.ratchet.at(sound.key) else {
                return false;
            };
            self.seal = ratchet.seal();
            self.ratchet = ratchet;
        }
        self.seal.fits(sound)
    }
}

/// The record that a signed event is about, and the signature.
fn signed<'a>(
    parameters: &'a BTreeMap<String, serde_json::Value>,
    prefix: &str,
) -> Option<(Link, &'a str)> {
    let seq = parameters.get(&format!("{prefix}seq"))?.as_u64()?;
    let mut hash = [0; 32];
    let digits = parameters.get(&format!("{prefix}hash"))?.as_str()?;
    hex::decode_to_slice(digits, &mut hash).ok()?;
    let signature = parameters.get("signature")?.as_str()?;
    Some((Link { seq, hash }, signature))
}

/// What follows a bad line.
struct After {
    /// The next line is the record that should have stood there.
    next_continues: bool,
    /// A record with the number that should have stood there comes later.
    expected_comes_later: bool,
}

impl After {
    /// Only a sound record out of its place needs the search to the end.
    fn look(rest: &mut LogLines, link: Link, to_the_end: bool) -> io::Result<After> {
        let mut after = After {
            next_continues: false,
            expected_comes_later: false,
        };
        let mut is_first = true;
        while let Some(line) = rest.next()? {
            let sound = Sound::read(line.bytes);
            let continues = sound.as_ref().is_some_and(|sound| link.accepts(sound));
            after.next_continues |= is_first && continues;
            after.expected_comes_later |= sound.is_some_and(|sound| sound.seq == link.seq + 1);
            is_first = false;
            if after.expected_comes_later || !to_the_end {
                break;
            }
        }
        Ok(after)
    }
}
