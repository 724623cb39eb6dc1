//! How a run begins: what is known of the log is brought together, what a crash left is put right, and all of it is told in
//! the run's first records.

use std::{fs::File, sync::Arc};

use jiff::Timestamp;
use rustix::fs::OFlags;

use crate::{
    AuditConfig, AuditError, Parameter,
    anchor::Anchor,
    files::{Place, at},
    head::{self, Head},
    keys::{self, Keys},
    ledger::{self, Ledger, WriteFailed},
    ratchet::OPEN_ACTION,
    record::{self, Actor, Link, Sound},
    recovery::{self, Known, Recovered},
    reserve::{self, Reserve},
    writer::{self, Parts, ROTATE_ACTION, Shared},
};

/// Prepares everything that the writer works with; `file` is locked.
pub(crate) fn start(
    place: Place,
    file: File,
    mut config: AuditConfig,
) -> Result<Parts, AuditError> {
    ledger::settle_rotation(&place, &file)?;
    let held = keys::held(&place)?;
    let head = Head::read_beside(&config.path);
    let anchored = anchored(config.anchor.as_deref_mut())?;
    let known = Known {
        head,
        durable: [head.map(|head| head.link), anchored]
            .into_iter()
            .chain([held.as_ref().map(|(_, held)| held.since)])
            .flatten()
            .filter(|link| *link != Link::START)
            .collect(),
        key: held.as_ref().map(|(_, held)| held.ratchet.clone()),
    };
    let recovered = recovery::recover(&place, &file, &known)?;
    let has_records = recovered.key > 0;
    let keys = match held {
        Some(held) => Keys::load(&place, held, recovered.key)?,
        None if has_records => return Err(keys::missing(&place)),
        None => Keys::make(&place, config.owner)?,
    };
    let (head_file, _) = place.open_file(head::SUFFIX, OFlags::empty())?;
    let (reserve_file, _) = place.open_file(reserve::SUFFIX, OFlags::empty())?;
    let (reserve, misfit) = Reserve::open(reserve_file, recovered.end.link)
        .map_err(at("prepare the reserve beside", &config.path))?;
    let mut opening = Opening {
        recovered,
        keys,
        system: Actor::new(&config.identity_key, "system"),
        lines: Vec::new(),
    };
    if let Some(misfit) = misfit {
        let told = put_reserve_aside(&place, &misfit)?;
        opening.recovered.gaps.push(told);
    }
    place.sync()?;
    let found = |is_there| if is_there { "found" } else { "missing" };
    let facts = vec![
        ("owner", Parameter::Word(config.owner.to_string())),
        (
            "version",
            Parameter::Word(env!("CARGO_PKG_VERSION").to_owned()),
        ),
        (
            "public_key",
            Parameter::Word(opening.keys.signer.public().to_string()),
        ),
        ("head", Parameter::Word(found(head.is_some()).to_owned())),
        (
            "anchor",
            Parameter::Word(found(anchored.is_some()).to_owned()),
        ),
    ];
    opening.write(place, file, head_file, reserve, config, facts)
}

fn anchored(anchor: Option<&mut (dyn Anchor + 'static)>) -> Result<Option<Link>, AuditError> {
    let Some(anchor) = anchor else {
        return Ok(None);
    };
    let read = anchor
        .read()
        .map_err(|error| AuditError::Anchor(Arc::from(error)))?;
    Ok(read.map(Link::from))
}

/// What a run writes first.
struct Opening {
    recovered: Recovered,
    keys: Keys,
    system: Actor,
    lines: Vec<u8>,
}

impl Opening {
    fn write(
        mut self,
        place: Place,
        file: File,
        head: File,
        mut reserve: Reserve,
        mut config: AuditConfig,
        facts: Vec<(&'static str, Parameter)>,
    ) -> Result<Parts, AuditError> {
        let before = self.recovered.end;
        let (end, run_offset) = self.lines(&reserve, facts);
        let fresh = (before.link.seq + 1, Timestamp::now());
        let first = self.recovered.first.unwrap_or(fresh);
        let mut ledger = Ledger::new(place, file, head, before, run_offset, first);
        ledger
            .append(&self.lines, end, true)
            .map_err(|failed: WriteFailed| at("write", &config.path)(failed.source))?;
        self.keys.move_on(end);
        if let Some(anchor) = &mut config.anchor {
            anchor
                .note(end.into())
                .map_err(|error| AuditError::Anchor(Arc::from(error)))?;
        }
        reserve.clear().map_err(|source| AuditError::Unavailable {
            why: "its reserve cannot be cleared",
            source: Some(Arc::new(source)),
        })?;
        Ok(Parts {
            ledger,
            reserve,
            keys: self.keys,
            anchor: config.anchor,
            rotation: config.rotation,
            shared: Arc::new(Shared::default()),
            system: self.system,
        })
    }

    /// The reserve's records, where this file comes from, gaps, results of the killed run, and last `audit.open`. Returns
    /// the chain's end and where in the file `audit.open` starts.
    fn lines(
        &mut self,
        reserve: &Reserve,
        mut facts: Vec<(&'static str, Parameter)>,
    ) -> (Link, u64) {
        let now = Timestamp::now();
        let mut end = reserve.end().unwrap_or(self.recovered.end.link);
        self.lines.extend_from_slice(reserve.lines());
        for line in reserve.lines().split(|byte| *byte == b'\n') {
            if let Some(sound) = Sound::read(line) {
                self.recovered.open.note(&sound, line);
            }
        }
        let mut told = Vec::new();
        if let Some(previous) = &self.recovered.continues {
            let details = [
                ("because", Parameter::Word("renamed_outside".to_owned())),
                ("previous", Parameter::Path(previous.path.clone())),
            ];
            let details = record::parameters(&details);
            told.push(writer::event(
                &self.system,
                ROTATE_ACTION,
                None,
                details,
                "ok",
            ));
        }
        let gaps = self.recovered.gaps.iter();
        told.extend(gaps.map(|details| writer::gap(&self.system, details)));
        let results = std::mem::take(&mut self.recovered.open).into_results();
        let before = told.len();
        told.extend(results.map(record::Body::encode));
        let closed = told.len() - before;
        for middle in &told {
            end = end.append(middle, now, self.keys.seal(), &mut self.lines);
        }
        let run_offset = self.recovered.end.bytes + self.lines.len() as u64;
        facts.push(("recovered", Parameter::Number(closed as u64)));
        let parameters = record::parameters(&facts);
        let open = writer::event(&self.system, OPEN_ACTION, None, parameters, "ok");
        end = end.append(&open, now, self.keys.seal(), &mut self.lines);
        (end, run_offset)
    }
}

/// Records of the reserve that do not continue the log: kept as they are, beside it.
fn put_reserve_aside(place: &Place, misfit: &[u8]) -> Result<recovery::GapDetails, AuditError> {
    use std::io::Write;
    let suffix = format!("{}-{}", reserve::SUFFIX, recovery::now_ms());
    let mut file = place.create_file(&suffix)?;
    file.write_all(misfit)
        .and_then(|()| file.sync_all())
        .map_err(at("write", &place.path(&suffix)))?;
    Ok(vec![
        ("kind", Parameter::Word("reserve_misfit".to_owned())),
        ("bytes", Parameter::Number(misfit.len() as u64)),
        ("kept_in", Parameter::Path(place.path(&suffix))),
    ])
}
