//! API keys: their text, what one may be asked to be, and what can be seen of one.
//!
//! ```text
//! ccmcp_abcdefghij23_<43 characters of base64url: 256 random bits>_0AbCdE
//! └──┬──┘└────┬─────┘ └───────────────────┬────────────────────┘   └─┬─┘
//!  for secret  id, which is no secret     secret                     CRC-32 of all before, base 62
//!  scanners
//! ```
//!
//! The check digits let a scanner tell a key from a look-alike, and a mistyped key from an unknown one, without asking anybody.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration, time::SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroize;

use crate::{Scopes, Secret, SessionId};

/// What every key begins with.
pub const API_KEY_PREFIX: &str = "ccmcp_";
/// Characters of a key's id: 60 bits.
const ID_LENGTH: usize = 12;
/// Alphabet of ids: base 32, lower case.
const ID_ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Characters of a secret.
const SECRET_LENGTH: usize = 43;
/// Digits of the check.
const CHECK_LENGTH: usize = 6;
/// Alphabet of the check.
const CHECK_ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Which key. No secret: it stands in lists and in the audit log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; ID_LENGTH]);

impl KeyId {
    /// A new random id.
    ///
    /// # Errors
    /// When the kernel gives no random bytes (it does, once booted).
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; ID_LENGTH];
        getrandom::fill(&mut bytes)?;
        Ok(KeyId(bytes.map(|byte| ID_ALPHABET[usize::from(byte % 32)])))
    }

    /// The name under which the line of keys that began with this one owns sessions.
    pub fn owner_name(&self) -> String {
        format!("key:{self}")
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        // Only bytes of the alphabet are ever in it.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no key, or no id of one. It does not say which part: the text may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API key of this server, or a mistyped one")]
pub struct KeyError;

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes: [u8; ID_LENGTH] = text.as_bytes().try_into().map_err(|_| KeyError)?;
        let is_id = bytes.iter().all(|byte| ID_ALPHABET.contains(byte));
        is_id.then_some(KeyId(bytes)).ok_or(KeyError)
    }
}

/// A key in its parts. Well-formed, and nothing more: whether it is one of ours is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Which.
    pub id: KeyId,
    /// The text of its secret.
    pub secret: Secret<String>,
}

impl ApiKey {
    /// A new one.
    ///
    /// # Errors
    /// When the kernel gives no random bytes (it does, once booted).
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        let secret = Secret::new(URL_SAFE_NO_PAD.encode(bytes));
        bytes.zeroize();
        Ok(ApiKey {
            id: KeyId::random()?,
            secret,
        })
    }

    /// The whole text, as it is shown once.
    pub fn text(&self) -> Secret<String> {
        let capacity = API_KEY_PREFIX.len() + ID_LENGTH + SECRET_LENGTH + CHECK_LENGTH + 2;
        let mut text = String::with_capacity(capacity);
        text.push_str(API_KEY_PREFIX);
        text.push_str(self.id.as_str());
        text.push('_');
        text.push_str(self.secret.expose());
        let check = check(&text);
        text.push('_');
        text.push_str(&check);
        Secret::new(text)
    }

    /// Takes a text apart.
    ///
    /// # Errors
    /// When it has not the form of a key, or its check digits are wrong.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let rest = text.strip_prefix(API_KEY_PREFIX).ok_or(KeyError)?;
        let (before, digits) = text.rsplit_once('_').ok_or(KeyError)?;
        let id = rest.get(..ID_LENGTH).ok_or(KeyError)?.parse()?;
        let secret = before
            .get(API_KEY_PREFIX.len() + ID_LENGTH..)
            .and_then(|tail| tail.strip_prefix('_'))
            .ok_or(KeyError)?;
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if secret.len() != SECRET_LENGTH
            || !secret.bytes().all(is_base64)
            || check(before) != digits
        {
            return Err(KeyError);
        }
        Ok(ApiKey {
            id,
            secret: Secret::new(secret.to_owned()),
        })
    }
}

/// The check digits of that text.
fn check(text: &str) -> String {
    let mut rest = crc32fast::hash(text.as_bytes());
    let mut digits = [b'0'; CHECK_LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = CHECK_ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits.map(char::from).iter().collect()
}

/// See [`crate::Action::CreateKey`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateKey {
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// Directories below which its projects are.
    pub roots: Vec<PathBuf>,
    /// Live sessions that it may have at once; the server's own bound otherwise.
    pub max_sessions: Option<u32>,
    /// Calls a minute that it may make; the server's own bound otherwise.
    pub calls_per_minute: Option<u32>,
    /// How long it is valid; until it is revoked otherwise.
    pub valid_for: Option<Duration>,
}

/// A key, as whoever manages keys sees it: all but its secret, which nobody sees again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyView {
    /// Which.
    pub id: KeyId,
    /// The first key of its line: sessions belong to `key:` and this id, so that they stay when a key is rotated.
    pub identity: KeyId,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// Directories below which its projects are. Shown only to who manages keys at this machine.
    pub roots: Vec<PathBuf>,
    /// See [`CreateKey::max_sessions`].
    pub max_sessions: Option<u32>,
    /// See [`CreateKey::calls_per_minute`].
    pub calls_per_minute: Option<u32>,
    /// When it was made.
    pub created_at: SystemTime,
    /// From when on it is refused.
    pub expires_at: Option<SystemTime>,
    /// When it was revoked.
    pub revoked_at: Option<SystemTime>,
    /// When it was last used, to a minute.
    pub last_used_at: Option<SystemTime>,
    /// The key that came in its place.
    pub replaced_by: Option<KeyId>,
}

/// Where a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It is accepted.
    Active,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl KeyState {
    /// The word in lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            KeyState::Active => "active",
            KeyState::Expired => "expired",
            KeyState::Revoked => "revoked",
        }
    }
}

impl KeyView {
    /// Where it stands at that time.
    pub fn state(&self, now: SystemTime) -> KeyState {
        if self.revoked_at.is_some() {
            KeyState::Revoked
        } else if self.expires_at.is_some_and(|end| now >= end) {
            KeyState::Expired
        } else {
            KeyState::Active
        }
    }
}

/// A key that was just made: the only time that its text is seen.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The whole text.
    pub text: Secret<String>,
    /// The rest of it.
    pub key: KeyView,
    /// The key in whose place it comes, with its end.
    pub replaces: Option<KeyView>,
}

/// A key that was revoked.
#[derive(Debug, Clone)]
pub struct RevokedKey {
    /// As it stands now.
    pub key: KeyView,
    /// Its sessions that were ended with it.
    pub destroyed: Vec<SessionId>,
    /// Its sessions that live on.
    pub left: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_reads_back_and_has_the_promised_form() {
        let key = ApiKey::random().unwrap();
        let text = key.text();
        let text = text.expose();
        assert_eq!(ApiKey::parse(text), Ok(key.clone()));
        assert_eq!(text.len(), 69);
        assert!(text.starts_with("ccmcp_"));
        assert!(!format!("{key:?}").contains(key.secret.expose()));
        assert_ne!(ApiKey::random().unwrap(), key);
    }

    #[test]
    fn a_key_with_any_character_changed_is_no_key() {
        let text = ApiKey::random().unwrap().text();
        let text = text.expose();
        for position in 0..text.len() {
            for other in ["A", "b", "7", "_", "-", "é"] {
                let mut wrong = text.clone();
                wrong.replace_range(position..=position, other);
                assert_eq!(
                    ApiKey::parse(&wrong).is_ok(),
                    wrong == *text,
                    "{position} {other}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn no_other_text_is_a_key(text in "(ccmcp_)?[a-z2-7]{0,14}_?\\PC{0,60}") {
            prop_assert_eq!(ApiKey::parse(&text), Err(KeyError));
        }
    }
}
