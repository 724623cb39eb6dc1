//! The log's keys and the files that they stand in, beside the log, for its owner alone.

use std::{fs::File, io};

use model::OwnerId;
use rustix::rand::GetRandomFlags;
use zeroize::Zeroizing;

use crate::{
    AuditError,
    files::{Place, at},
    ratchet::{self, Held, Ratchet, Seal, VerificationKey},
    record::Link,
    sign::{self, SEED_BYTES, Signer},
};

/// So much of its text is never copied elsewhere in memory.
const MAX_SIGNING_KEY_BYTES: usize = 256;

/// What a log is sealed and signed with.
pub(crate) struct Keys {
    pub signer: Signer,
    ratchet: Ratchet,
    seal: Seal,
    file: File,
    /// The key in use is not in the file yet: the write failed, and an older one is still there.
    behind: Option<Link>,
}

/// The key file of a log that has one.
///
/// # Errors
/// When it is there and cannot be read: its log cannot be continued then.
pub(crate) fn held(place: &Place) -> Result<Option<(File, Held)>, AuditError> {
    let Some(file) = place.open_secret(ratchet::SUFFIX)? else {
        return Ok(None);
    };
    match Held::read(&file) {
        Some(held) => Ok(Some((file, held))),
        None => Err(AuditError::Key {
            path: place.path(ratchet::SUFFIX),
            why: "is damaged",
        }),
    }
}

/// A log with records has no key file.
pub(crate) fn missing(place: &Place) -> AuditError {
    AuditError::Key {
        path: place.path(ratchet::SUFFIX),
        why: "is missing",
    }
}

impl Keys {
    /// The keys of a log that goes on with key number `number`.
    pub fn load(
        place: &Place,
        (file, held): (File, Held),
        number: u64,
    ) -> Result<Keys, AuditError> {
        let missing = |suffix, why| AuditError::Key {
            path: place.path(suffix),
            why,
        };
        let ratchet = held
            .ratchet
            .at(number.max(held.ratchet.number()))
            .ok_or_else(|| missing(ratchet::SUFFIX, "does not belong to the log"))?;
        let signer =
            signer(place)?.ok_or_else(|| missing(sign::SUFFIX, "is missing or damaged"))?;
        Ok(Keys::new(signer, ratchet, file))
    }

    /// Keys of a new log. The verification key is written before the key that it leads to.
    pub fn make(place: &Place, owner: OwnerId) -> Result<Keys, AuditError> {
        let failed = at::<io::Error>("make", &place.path(ratchet::SUFFIX));
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        rustix::rand::getrandom(&mut seed[..], GetRandomFlags::empty())
            .map_err(at("make", &place.path(sign::SUFFIX)))?;
        let name = format!("claude-code-mcp/audit/{owner}");
        let digits = Zeroizing::new(hex::encode(&seed[..]));
        let content = Zeroizing::new(format!("{name} {}\n", *digits));
        place.write_whole(sign::SUFFIX, content.as_bytes())?;
        if let Some(signer) = signer(place)? {
            let public = format!("{}\n", signer.public());
            place.write_whole(sign::PUBLIC_SUFFIX, public.as_bytes())?;
        }
        let held = Held {
            ratchet: Ratchet::random().map_err(&failed)?,
            since: Link::START,
        };
        let text = VerificationKey::first(&held.ratchet).to_text();
        let line = Zeroizing::new(format!("{}\n", *text));
        place.write_whole(ratchet::VERIFICATION_SUFFIX, line.as_bytes())?;
        place.write_whole(ratchet::SUFFIX, &held.to_file())?;
        match self::held(place)? {
            Some((file, held)) => Keys::load(place, (file, held), 0),
            None => Err(failed(io::ErrorKind::NotFound.into())),
        }
    }

    fn new(signer: Signer, ratchet: Ratchet, file: File) -> Keys {
        Keys {
            signer,
            seal: ratchet.seal(),
            ratchet,
            file,
            behind: None,
        }
    }

    /// What the next record is sealed with.
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// Goes on to the next key, since this record is durable; the one before is gone afterwards.
    pub fn move_on(&mut self, since: Link) {
        self.ratchet = self.ratchet.next();
        self.seal = self.ratchet.seal();
        self.behind = Some(since);
        self.catch_up();
    }

    /// Writes the key file, if it is behind. Nothing stops meanwhile: what is behind leads to the key in use.
    pub fn catch_up(&mut self) {
        let Some(since) = self.behind else { return };
        let held = Held {
            ratchet: self.ratchet.clone(),
            since,
        };
        match held.write(&self.file) {
            Ok(()) => self.behind = None,
            Err(error) => {
                tracing::error!(%error, "the audit log's key file cannot be written; it still holds an older key");
            }
        }
    }
}

fn signer(place: &Place) -> Result<Option<Signer>, AuditError> {
    let Some(mut file) = place.open_secret(sign::SUFFIX)? else {
        return Ok(None);
    };
    let mut text = Zeroizing::new(String::with_capacity(MAX_SIGNING_KEY_BYTES));
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    if io::Read::read_to_string(&mut file, &mut text).is_err() {
        return Ok(None);
    }
    let signer = text.trim_end().split_once(' ').and_then(|(name, digits)| {
        hex::decode_to_slice(digits, &mut seed[..]).ok()?;
        Signer::new(&seed, name)
    });
    Ok(signer)
}
