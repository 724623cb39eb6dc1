//! The key files beside a log, for the commands about them.

use std::path::Path;

use zeroize::Zeroizing;

use crate::{
    AuditError, PublicKey, VerificationKey,
    files::{Place, at},
    keys, ratchet, sign,
};

/// So much is overwritten: more than the text of a key.
const ERASED_BYTES: usize = 256;

/// What stands beside a log.
#[derive(Debug)]
pub struct KeyFiles {
    /// What its checkpoints are checked with; `None` before the first record.
    pub public_key: Option<PublicKey>,
    /// Number of the key in use, and of the record after which it is: what is older cannot be forged with what is on this
    /// machine.
    pub current: Option<(u64, u64)>,
    /// The verification key has not been taken away yet.
    pub has_verification_key: bool,
}

impl KeyFiles {
    /// Looks at the files beside the log `path`.
    ///
    /// # Errors
    /// When they cannot be read, or are not for their owner alone.
    pub fn read(path: &Path) -> Result<KeyFiles, AuditError> {
        let place = Place::open(path)?;
        let held = keys::held(&place)?;
        let public = read_text(&place, sign::PUBLIC_SUFFIX)?;
        Ok(KeyFiles {
            public_key: public.and_then(|text| PublicKey::parse(&text)),
            current: held.map(|(_, held)| (held.ratchet.number(), held.since.seq)),
            has_verification_key: read_text(&place, ratchet::VERIFICATION_SUFFIX)?.is_some(),
        })
    }
}

/// The verification key of the log `path`; `None`: it was taken away, or there is no log yet.
///
/// # Errors
/// When the file cannot be read, is not for its owner alone, or is damaged.
pub fn verification_key(path: &Path) -> Result<Option<VerificationKey>, AuditError> {
    let place = Place::open(path)?;
    let suffix = ratchet::VERIFICATION_SUFFIX;
    let Some(text) = read_text(&place, suffix)? else {
        return Ok(None);
    };
    let key = VerificationKey::parse(&text).ok_or_else(|| AuditError::Key {
        path: place.path(suffix),
        why: "is damaged",
    })?;
    Ok(Some(key))
}

/// Removes the verification key of the log `path` from this machine.
///
/// # Errors
/// When the file cannot be written or removed.
pub fn remove_verification_key(path: &Path) -> Result<(), AuditError> {
    let place = Place::open(path)?;
    erase(&place, ratchet::VERIFICATION_SUFFIX)
}

/// Overwritten before it is removed, so far as the file system writes in place.
fn erase(place: &Place, suffix: &str) -> Result<(), AuditError> {
    let path = place.path(suffix);
    if let Some(file) = place.open_secret(suffix)? {
        let zeros = [b'0'; ERASED_BYTES];
        std::os::unix::fs::FileExt::write_all_at(&file, &zeros, 0)
            .and_then(|()| file.sync_all())
            .map_err(at("erase", &path))?;
    }
    place.remove(suffix).map_err(at("remove", &path))?;
    place.sync()
}

fn read_text(place: &Place, suffix: &str) -> Result<Option<Zeroizing<String>>, AuditError> {
    let Some(file) = place.open_secret(suffix)? else {
        return Ok(None);
    };
    let text = std::io::read_to_string(file).map_err(at("read", &place.path(suffix)))?;
    Ok(Some(Zeroizing::new(text)))
}
