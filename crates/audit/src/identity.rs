//! Under which name a caller stands in the log: a keyed hash, so that who has the log alone can neither read who it was nor
//! try names until one fits.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use ring::hmac;
use rustix::rand::GetRandomFlags;
use zeroize::Zeroizing;

/// Length of the key, bytes: as long as the hash.
const KEY_BYTES: usize = 32;
/// Separates these hashes from other uses of the key.
const DOMAIN: &[u8] = b"claude-code-mcp audit actor v2\0";
/// How the hash of an identity starts: the algorithm.
const PREFIX: &str = "hmac-sha256:";

/// The key of an installation's identity hashes. It is not the log's: it stays the same when the log is another one.
#[derive(Clone)]
pub struct IdentityKey(hmac::Key);

impl std::fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdentityKey")
    }
}

impl IdentityKey {
    /// The key with these bytes.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        IdentityKey(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Reads the key file, or makes it, for its owner alone.
    ///
    /// # Errors
    /// When it cannot be read or made, when others may read it, or when it is not whole: callers would stand in the log
    /// under other names than before.
    pub fn open(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(found) => read(path, &found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
            Err(error) => Err(error),
        }
    }

    /// Whether the key file could be opened; makes nothing.
    ///
    /// # Errors
    /// As for [`IdentityKey::open`], where the file is there.
    pub fn check(path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(found) => read(path, &found).map(drop),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The text that stands for `principal` in `actor.hash` of every record: `hmac-sha256:` and 64 hexadecimal digits.
pub fn identity_hash(key: &IdentityKey, principal: &str) -> String {
    let mut context = hmac::Context::with_key(&key.0);
    context.update(DOMAIN);
    context.update(principal.as_bytes());
    format!("{PREFIX}{}", hex::encode(context.sign()))
}

fn read(path: &Path, found: &fs::Metadata) -> io::Result<IdentityKey> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() {
        return refused("it is no file of this user's");
    }
    if found.mode() & 0o077 != 0 {
        return refused("others may read it: take that right away (chmod 600)");
    }
    let text = Zeroizing::new(fs::read_to_string(path)?);
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    match hex::decode_to_slice(text.trim_end(), &mut bytes[..]) {
        Ok(()) => Ok(IdentityKey::from_bytes(&bytes)),
        Err(_) => refused("it is damaged: it holds 64 hexadecimal digits"),
    }
}

/// Under another name first: the file is there whole or not at all.
fn make(path: &Path) -> io::Result<IdentityKey> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    rustix::rand::getrandom(&mut bytes[..], GetRandomFlags::empty())?;
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(&fresh)?;
    let text = Zeroizing::new(format!("{}\n", hex::encode(&bytes[..])));
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(IdentityKey::from_bytes(&bytes))
}
