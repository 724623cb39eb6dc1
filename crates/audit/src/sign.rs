//! Signed checkpoints: what the log said at a time, for who has the public key alone.
//!
//! The signed text is that of a C2SP checkpoint (`c2sp.org/tlog-checkpoint`): the log's name, the number of records, and
//! in place of a tree's root the hash of the last record, each with a line feed. Public keys are spelled as its signed
//! notes have them: `name+id+key`, the id being the first four bytes of SHA-256 over name, line feed, algorithm and key.
//!
//! What this does not stop: who takes the machine has the signing key as well. A checkpoint proves something to who has
//! noted it elsewhere, or trusts that the machine was whole when it was signed; the MACs (`ratchet.rs`) prove more.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};

use crate::record::Link;

/// Suffix of the file with the signing key.
pub(crate) const SUFFIX: &str = ".signing-key";
/// Suffix of the file with the public key.
pub(crate) const PUBLIC_SUFFIX: &str = ".public-key";
/// Length of the seed of a signing key, bytes.
pub(crate) const SEED_BYTES: usize = 32;
const PUBLIC_BYTES: usize = 32;
/// Ed25519, in signed notes.
const ALGORITHM: u8 = 1;

/// What a signature is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statement {
    /// The log ended with that record.
    Checkpoint,
    /// The records up to that one were removed by the operator's wish.
    Pruned,
}

impl Statement {
    fn text(self, name: &str, link: Link) -> String {
        let what = match self {
            Statement::Checkpoint => "",
            Statement::Pruned => "/pruned",
        };
        let hash = BASE64.encode(link.hash);
        format!("{name}{what}\n{}\n{hash}\n", link.seq)
    }
}

/// Signs for a log.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    name: String,
}

impl Signer {
    /// With the key that grows from this seed; `None` when it does not.
    pub fn new(seed: &[u8; SEED_BYTES], name: &str) -> Option<Signer> {
        Some(Signer {
            pair: Ed25519KeyPair::from_seed_unchecked(seed).ok()?,
            name: name.to_owned(),
        })
    }

    /// The signature, base64.
    pub fn sign(&self, statement: Statement, link: Link) -> String {
        let text = statement.text(&self.name, link);
        BASE64.encode(self.pair.sign(text.as_bytes()))
    }

    pub fn public(&self) -> PublicKey {
        let mut key = [0; PUBLIC_BYTES];
        key.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey {
            name: self.name.clone(),
            key,
        }
    }
}

/// What checkpoints are checked with. Its text is `name+id+key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: [u8; PUBLIC_BYTES],
}

impl PublicKey {
    /// Reads its text.
    pub fn parse(text: &str) -> Option<PublicKey> {
        // No `+` in names; in base64 there may be.
        let (name, rest) = text.trim().split_once('+')?;
        let (_, encoded) = rest.split_once('+')?;
        let bytes = BASE64.decode(encoded).ok()?;
        let (algorithm, key) = bytes.split_first()?;
        let key = PublicKey {
            name: name.to_owned(),
            key: key.try_into().ok()?,
        };
        (*algorithm == ALGORITHM && key.to_string() == text.trim()).then_some(key)
    }

    pub(crate) fn verifies(&self, statement: Statement, link: Link, signature: &str) -> bool {
        let text = statement.text(&self.name, link);
        let key = UnparsedPublicKey::new(&ED25519, self.key);
        BASE64
            .decode(signature)
            .is_ok_and(|signature| key.verify(text.as_bytes(), &signature).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed: Vec<u8> = std::iter::once(ALGORITHM).chain(self.key).collect();
        let id = Sha256::new()
            .chain_update(&self.name)
            .chain_update(b"\n")
            .chain_update(&typed)
            .finalize();
        let (id, key) = (hex::encode(&id[..4]), BASE64.encode(&typed));
        write!(f, "{}+{id}+{key}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_statement_record_and_key_alone() {
        let signer = |seed| Signer::new(&[seed; SEED_BYTES], "claude-code-mcp/audit/07").unwrap();
        let link = Link {
            seq: 9,
            hash: [3; 32],
        };
        let signature = signer(1).sign(Statement::Checkpoint, link);
        let public = PublicKey::parse(&signer(1).public().to_string()).unwrap();
        assert!(public.verifies(Statement::Checkpoint, link, &signature));
        assert!(!public.verifies(Statement::Pruned, link, &signature));
        for other in [
            Link { seq: 10, ..link },
            Link {
                hash: [4; 32],
                ..link
            },
        ] {
            assert!(!public.verifies(Statement::Checkpoint, other, &signature));
        }
        let other = signer(2).public();
        assert!(!other.verifies(Statement::Checkpoint, link, &signature));
        let text = public.to_string();
        assert_eq!(PublicKey::parse(&format!("{text}\n")), Some(public));
        assert_eq!(PublicKey::parse(&text.replace("audit/", "audit-")), None);
    }
}
