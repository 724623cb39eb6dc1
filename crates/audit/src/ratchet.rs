//! The keys that records are sealed with. After each record that [`moves_on`] the next key is derived from the one in use,
//! written to the key file, and the one before is erased there. Who takes the machine finds the key of now,
//! and with it cannot seal a record as of before: rewriting what is older than the last `audit.open` or
//! `audit.checkpoint` shows to whoever has the verification key, which is the first key of all.
//!
//! ```text
//! verification key = key 0 ──next──▶ key 1 ──next──▶ key 2 …        next: HMAC(key n, "next")
//!                      │ mac            │ mac                       mac:  HMAC(key n, "mac")
//!                      ▼                ▼
//!              up to audit.open   up to audit.checkpoint …
//! ```
//!
//! A record that moves on is durable before its successor's key is written, so after a crash the key file is level with
//! the log or behind it, and a key that is behind leads to the one that is wanted. A key file that is ahead says that
//! records are missing, and which.
//!
//! What this does not stop: rewriting what came after the last key change ([`crate::writer::CHECKPOINT_INTERVAL`]), records
//! that are forged from then on, and blocks that a file system or an SSD keeps of what was overwritten.

use std::{fs::File, io, os::unix::fs::FileExt};

use ring::hmac;
use rustix::rand::GetRandomFlags;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::record::{Link, MAC_BYTES, Sound};

/// Suffix of the key file.
pub(crate) const SUFFIX: &str = ".key";
/// Suffix of the file with the verification key, until the operator takes it away.
pub(crate) const VERIFICATION_SUFFIX: &str = ".verify-key";
/// Records after which the next key is used.
pub(crate) const OPEN_ACTION: &str = "audit.open";
/// See [`OPEN_ACTION`].
pub(crate) const CHECKPOINT_ACTION: &str = "audit.checkpoint";
const KEY_BYTES: usize = 32;
const NEXT: &[u8] = b"claude-code-mcp audit key v1 next";
const MAC: &[u8] = b"claude-code-mcp audit key v1 mac";
const TITLE: &str = "claude-code-mcp audit key v1";
const VERIFICATION_TITLE: &str = "claude-code-mcp-audit-verification-key-v1:";
/// Bytes of a slot that are written, within one sector.
const SLOT_BYTES: usize = 256;
/// Distance of the two slots: no block of a disk holds both.
const SLOT_DISTANCE: usize = 4096;
/// Most keys between two that are known, one for each record that moves on: two thousand a minute for a month.
const MAX_STEPS: u64 = 1 << 26;

/// Whether the record after one of this action is sealed with the next key.
pub(crate) fn moves_on(action: &str) -> bool {
    action == CHECKPOINT_ACTION || action == OPEN_ACTION
}

/// A key, and its number. Key 0 is the verification key.
#[derive(Clone)]
pub(crate) struct Ratchet {
    number: u64,
    key: Zeroizing<[u8; KEY_BYTES]>,
}

impl Ratchet {
    /// A first key, from the kernel's generator.
    pub fn random() -> io::Result<Ratchet> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        rustix::rand::getrandom(&mut key[..], GetRandomFlags::empty())?;
        Ok(Ratchet { number: 0, key })
    }

    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The next key. There is no way back.
    pub fn next(&self) -> Ratchet {
        Ratchet {
            number: self.number.saturating_add(1),
            key: self.derive(NEXT),
        }
    }

    /// The key with that number; `None` for one of the past, and for one that no log reaches.
    pub fn at(&self, number: u64) -> Option<Ratchet> {
        if number.checked_sub(self.number)? > MAX_STEPS {
            return None;
        }
        let mut ratchet = self.clone();
        while ratchet.number < number {
            ratchet = ratchet.next();
        }
        Some(ratchet)
    }

    /// What records are sealed with.
    pub fn seal(&self) -> Seal {
        Seal {
            number: self.number,
            key: hmac::Key::new(hmac::HMAC_SHA256, &self.derive(MAC)[..]),
        }
    }

    fn derive(&self, purpose: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key[..]);
        let mut derived = Zeroizing::new([0; KEY_BYTES]);
        derived.copy_from_slice(hmac::sign(&key, purpose).as_ref());
        derived
    }
}

/// Makes the MACs of records.
pub(crate) struct Seal {
    number: u64,
    key: hmac::Key,
}

impl Seal {
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The MAC of a record with that digest.
    pub fn mac(&self, digest: &[u8; 32]) -> [u8; MAC_BYTES] {
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&hmac::sign(&self.key, digest).as_ref()[..MAC_BYTES]);
        mac
    }

    /// Whether this record was sealed with this key. A checker compares what stands in a file: nobody measures it.
    pub fn fits(&self, sound: &Sound<'_>) -> bool {
        self.mac(&sound.digest) == sound.mac
    }
}

/// The key that every record of a log can be checked with: its first one.
#[derive(Clone)]
pub struct VerificationKey(Ratchet);

impl std::fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VerificationKey")
    }
}

impl VerificationKey {
    pub(crate) fn first(ratchet: &Ratchet) -> Self {
        VerificationKey(ratchet.clone())
    }

    pub(crate) fn ratchet(&self) -> Ratchet {
        self.0.clone()
    }

    /// Reads the text that [`VerificationKey::to_text`] gives.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim().strip_prefix(VERIFICATION_TITLE)?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(digits, &mut key[..]).ok()?;
        Some(VerificationKey(Ratchet { number: 0, key }))
    }

    /// The key as one line of text, to be kept where this machine is not.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "{VERIFICATION_TITLE}{}",
            *Zeroizing::new(hex::encode(&self.0.key[..]))
        ))
    }
}

/// What the key file holds: a key, and the record after which it is used.
#[derive(Clone)]
pub(crate) struct Held {
    pub ratchet: Ratchet,
    pub since: Link,
}

impl Held {
    /// The content of a new key file.
    pub fn to_file(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(vec![0; 2 * SLOT_DISTANCE]);
        let at = self.slot();
        bytes[at..at + SLOT_BYTES].copy_from_slice(self.to_text().as_bytes());
        bytes
    }

    /// Reads the key file. A crash may leave two keys in it: the later one counts. `None`: none is whole.
    pub fn read(file: &File) -> Option<Held> {
        let slot = |at: usize| {
            let mut bytes = Zeroizing::new([0; SLOT_BYTES]);
            file.read_exact_at(&mut bytes[..], at as u64).ok()?;
            Held::parse(std::str::from_utf8(&bytes[..]).ok()?)
        };
        let found = [slot(0), slot(SLOT_DISTANCE)];
        found
            .into_iter()
            .flatten()
            .max_by_key(|held| held.ratchet.number)
    }

    /// Writes the key file: this key first, then the one before is erased. Both exist already as blocks, so a full disk
    /// is no hindrance.
    pub fn write(&self, file: &File) -> io::Result<()> {
        let (at, other) = (self.slot(), SLOT_DISTANCE - self.slot());
        file.write_all_at(self.to_text().as_bytes(), at as u64)?;
        file.sync_data()?;
        file.write_all_at(&[0; SLOT_BYTES], other as u64)?;
        file.sync_data()
    }

    const fn slot(&self) -> usize {
        if self.ratchet.number.is_multiple_of(2) {
            0
        } else {
            SLOT_DISTANCE
        }
    }

    fn parse(text: &str) -> Option<Held> {
        let mut words = text.strip_prefix(TITLE)?.split_ascii_whitespace();
        let number = words.next()?.parse().ok()?;
        let seq = words.next()?.parse().ok()?;
        let mut hash = [0; 32];
        hex::decode_to_slice(words.next()?, &mut hash).ok()?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(words.next()?, &mut key[..]).ok()?;
        let held = Held {
            ratchet: Ratchet { number, key },
            since: Link { seq, hash },
        };
        (*held.to_text() == text).then_some(held)
    }

    fn to_text(&self) -> Zeroizing<String> {
        let mut digits = hex::encode(&self.ratchet.key[..]);
        let mut line = format!(
            "{TITLE}\n{} {} {} {digits}",
            self.ratchet.number,
            self.since.seq,
            hex::encode(self.since.hash),
        );
        let check = hex::encode(&Sha256::digest(&line)[..8]);
        let text = Zeroizing::new(format!(
            "{line}\n{check}{:padding$}\n",
            "",
            padding = SLOT_BYTES - line.len() - check.len() - 2
        ));
        digits.zeroize();
        line.zeroize();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(number: u64) -> Held {
        Held {
            ratchet: Ratchet {
                number,
                key: Zeroizing::new([0xab; KEY_BYTES]),
            },
            since: Link {
                seq: u64::MAX,
                hash: [0xcd; 32],
            },
        }
    }

    #[test]
    fn keys_lead_forward_alone_and_each_seals_otherwise() {
        let first = Ratchet::random().unwrap();
        let third = first.at(3).unwrap();
        assert_eq!(third.number(), 3);
        assert_eq!(third.key, first.next().next().next().key);
        assert!(third.at(2).is_none() && first.at(u64::MAX).is_none());
        let macs: Vec<_> = (0..4)
            .map(|at| first.at(at).unwrap().seal().mac(&[7; 32]))
            .collect();
        assert!((1..4).all(|at| macs[at] != macs[at - 1]));
        let text = VerificationKey::first(&first).to_text();
        assert_eq!(
            VerificationKey::parse(&format!("{}\n", *text))
                .unwrap()
                .ratchet()
                .key,
            first.key
        );
        assert!(VerificationKey::parse(&text[1..]).is_none());
    }

    #[test]
    fn a_key_file_holds_the_later_key_alone_and_any_change_of_it_is_found() {
        let file = tempfile::tempfile().unwrap();
        for number in [u64::MAX - 1, u64::MAX] {
            file.write_all_at(&held(number).to_file(), 0).unwrap();
            assert_eq!(Held::read(&file).unwrap().ratchet.number, number);
            let slot = held(number).slot();
            let good = held(number).to_text();
            for at in 0..SLOT_BYTES {
                file.write_all_at(&[good.as_bytes()[at] ^ 1], (slot + at) as u64)
                    .unwrap();
                assert!(Held::read(&file).is_none(), "byte {at}");
                file.write_all_at(&[good.as_bytes()[at]], (slot + at) as u64)
                    .unwrap();
            }
            assert!(Held::read(&file).is_some());
        }
        file.write_all_at(&held(4).to_file(), 0).unwrap();
        let next = Held {
            ratchet: held(4).ratchet.next(),
            since: Link::START,
        };
        next.write(&file).unwrap();
        let mut all = vec![0; 2 * SLOT_DISTANCE];
        file.read_exact_at(&mut all, 0).unwrap();
        let old = hex::encode([0xab; KEY_BYTES]);
        assert!(!all.windows(64).any(|window| window == old.as_bytes()));
        assert_eq!(Held::read(&file).unwrap().ratchet.number, 5);
    }
}
