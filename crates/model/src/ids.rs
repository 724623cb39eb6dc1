//! Identifiers. All are random, so a name is never guessed; none of them is a capability by itself.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A text that is not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a valid {kind}: expected `{prefix}` followed by {digits} lower-case hexadecimal digits"
)]
pub struct IdError {
    kind: &'static str,
    prefix: &'static str,
    digits: usize,
}

fn parse_hex<const N: usize>(text: &str, prefix: &str) -> Option<[u8; N]> {
    let digits = text.strip_prefix(prefix)?.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $prefix:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// A new random identifier from the kernel's generator.
            ///
            /// # Errors
            /// When the kernel gives no random bytes (it does, once booted).
            pub fn random() -> Result<Self, getrandom::Error> {
                let mut bytes = [0; $bytes];
                getrandom::fill(&mut bytes)?;
                Ok(Self(bytes))
            }

            /// The identifier with these bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The bytes of the identifier, as they travel on the wire.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex(text, $prefix).map(Self).ok_or(IdError { kind: $kind, prefix: $prefix, digits: $bytes * 2 })
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

identifier!(
    /// A session: one sandbox, its files, executions and audit trail. `s-` and 32 hexadecimal digits.
    SessionId, 16, "s-", "session id"
);
identifier!(
    /// One execution in a session. `x-` and 32 hexadecimal digits.
    ExecutionId, 16, "x-", "execution id"
);
identifier!(
    /// The installation (state directory) that owns sandboxes; part of each object's name, so that two servers on one
    /// machine never touch each other's. `o-` and 16 hexadecimal digits.
    OwnerId, 8, "o-", "owner id"
);

identifier!(
    /// A file that goes into a session or out of it in pieces. `u-` and 32 hexadecimal digits.
    UploadId, 16, "u-", "upload id"
);

impl SessionId {
    /// The deterministic name of this session's container, cgroup and other objects: a lost reply to a create call is
    /// found again by this name.
    pub fn object_name(&self, owner: &OwnerId) -> String {
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        format!("claude-code-{}-{}", hex(&owner.0[..4]), hex(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_reads_back_what_it_prints(bytes: [u8; 16]) {
            let id = SessionId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
        }

        #[test]
        fn no_other_text_is_an_id(text in "\\PC{0,40}") {
            if let Ok(id) = text.parse::<ExecutionId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn upper_case_and_foreign_prefixes_are_refused() {
        let digits = "0123456789abcdef0123456789abcdef";
        assert!(format!("s-{digits}").parse::<SessionId>().is_ok());
        for wrong in [
            digits.to_owned(),
            format!("x-{digits}"),
            format!("s-{}", digits.to_uppercase()),
            format!("s-{digits}0"),
        ] {
            assert!(wrong.parse::<SessionId>().is_err(), "{wrong}");
        }
    }
}
