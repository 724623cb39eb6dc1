//! The name of a host, as whatever is inside wrote it: parsed once, then compared, resolved and dialed in one spelling.
//!
//! A name that two readers may read differently is no name here. Every spelling of an address is refused: what is reached
//! is named, or rules would speak of something else than the connection.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use model::{HostPattern, MAX_HOST_BYTES};

/// Longest text that is looked at, bytes: four of UTF-8 for each that a name may have.
const MAX_RAW_BYTES: usize = 4 * MAX_HOST_BYTES;

/// Most characters of a refused text that are shown.
const MAX_SHOWN_CHARS: usize = 80;

/// A host's name: lower case, ASCII (international names in their `xn--` form), without a dot at its end, never an address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// A text that names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing.
    #[error("the host is empty")]
    Empty,
    /// Longer than a name may be (RFC 1035, section 2.3.4).
    #[error("the host is longer than {MAX_HOST_BYTES} bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("the host is no text")]
    NotText,
    /// An address, in whatever spelling.
    #[error("{0:?} is an address, not a name")]
    Address(String),
    /// Anything else that no host is called.
    #[error("{0:?} is no name of a host: letters, digits, hyphens and dots are expected")]
    Form(String),
}

impl HostName {
    /// Reads a host as it stood in a request.
    ///
    /// # Errors
    /// Addresses in any spelling (`127.1`, `0x7f000001`, `017700000001`, `[::1]`, with a zone), and everything that is not
    /// made of labels of letters, digits, hyphens and underscores after the mapping of UTS 46.
    pub fn parse(raw: &[u8]) -> Result<HostName, NameError> {
        if raw.is_empty() {
            return Err(NameError::Empty);
        }
        if raw.len() > MAX_RAW_BYTES {
            return Err(NameError::TooLong);
        }
        let text = std::str::from_utf8(raw).map_err(|_| NameError::NotText)?;
        if is_address(text) {
            return Err(NameError::Address(shown(text)));
        }
        let mapped = Uts46::new()
            .to_ascii(
                raw,
                AsciiDenyList::URL,
                Hyphens::CheckFirstLast,
                DnsLength::Ignore,
            )
            .map_err(|_| NameError::Form(shown(text)))?;
        let name = mapped.strip_suffix('.').unwrap_or(&mapped);
        // Once more: full-width digits and other dots have become plain ones.
        if is_address(name) {
            return Err(NameError::Address(shown(text)));
        }
        if name.len() > MAX_HOST_BYTES {
            return Err(NameError::TooLong);
        }
        // The alphabet of rules is the alphabet of names: what no rule can be written for is not asked for either.
        match name.parse::<HostPattern>() {
            Ok(HostPattern::Exact(name)) => Ok(HostName(name)),
            Ok(HostPattern::Below(_)) | Err(_) => Err(NameError::Form(shown(text))),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether some reader of names would take a text for an address: what the standard library parses, with brackets, a zone or a
/// port; and what ends in a number, which `inet_aton` and the URL standard read as IPv4 in decimal, octal and hexadecimal.
fn is_address(text: &str) -> bool {
    let bare = text.trim_start_matches('[');
    let bare = bare.split(['%', ']']).next().unwrap_or_default();
    bare.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok() || ends_in_number(text)
}

/// WHATWG URL, "ends in a number checker".
fn ends_in_number(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let last = text.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()))
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN_CHARS).collect()
}

impl AsRef<str> for HostName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
