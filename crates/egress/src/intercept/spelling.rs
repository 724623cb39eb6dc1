//! How a secret can stand in what is sent: as it is, in base64 (whatever stands before it there), in hexadecimal digits,
//! percent-encoded, and as text of JSON that escapes its slashes.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// What is percent-encoded where it must be: all but the unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The spellings of one secret.
#[derive(Clone)]
pub(crate) struct Spellings {
    all: Arc<[Vec<u8>]>,
    /// Nothing where it could not be built: then everything holds it.
    finder: Option<AhoCorasick>,
}

impl Spellings {
    pub(crate) fn new(secret: &[u8]) -> Self {
        let mut all = vec![
            secret.to_vec(),
            hex::encode(secret).into_bytes(),
            hex::encode_upper(secret).into_bytes(),
        ];
        for before in 0..3 {
            all.extend(in_base64(secret, before));
        }
        all.extend(in_percent(secret));
        all.extend(in_json(secret));
        all.retain(|spelling| !spelling.is_empty());
        Spellings {
            // The automaton that is fastest takes a hundred times the memory.
            finder: AhoCorasick::builder()
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(&all)
                .ok(),
            all: all.into(),
        }
    }

    /// Whether one of them stands in these bytes.
    pub(crate) fn stand_in(&self, bytes: &[u8]) -> bool {
        self.finder
            .as_ref()
            .is_none_or(|finder| finder.is_match(bytes))
    }

    /// Whether so much of one stands there, at the end of all, that it tells the secret.
    pub(crate) fn is_told_by(&self, end: &[u8]) -> bool {
        let told = |spelling: &Vec<u8>| spelling.starts_with(end) && end.len() > spelling.len() / 2;
        self.all.iter().any(told)
    }

    /// Bytes at the end with which one of them may begin.
    pub(crate) fn begun_at_the_end(&self, bytes: &[u8]) -> usize {
        let begun = |spelling: &Vec<u8>| {
            let longest = (spelling.len() - 1).min(bytes.len());
            (1..=longest)
                .rev()
                .find(|count| bytes.ends_with(&spelling[..*count]))
                .unwrap_or_default()
        };
        self.all.iter().map(begun).max().unwrap_or_default()
    }
}

/// As parts of a target are written (RFC 3986, section 2.1), by those who encode all that can be and those who encode what
/// must be, in both cases of the digits.
fn in_percent(secret: &[u8]) -> [Vec<u8>; 4] {
    let all = percent_encode(secret, NON_ALPHANUMERIC).to_string();
    let due = percent_encode(secret, RESERVED).to_string();
    let lower = |text: &str| {
        let mut parts = text.split('%');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| {
            let (digits, rest) = part.split_at(part.len().min(2));
            format!("{text}%{}{rest}", digits.to_ascii_lowercase())
        })
    };
    [lower(&all), lower(&due), all, due].map(String::into_bytes)
}

/// With its slashes escaped, as many writers of JSON do.
fn in_json(secret: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(secret).ok()?;
    text.contains('/')
        .then(|| text.replace('/', "\\/").into_bytes())
}

/// The characters that are the same whatever stands around the secret, when so many bytes, modulo 3, stand before it.
fn in_base64(secret: &[u8], before: usize) -> [Vec<u8>; 2] {
    let bytes = [&[0; 2][..before], secret].concat();
    let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    [
        STANDARD_NO_PAD.encode(&bytes).as_bytes()[first..end].to_vec(),
        URL_SAFE_NO_PAD.encode(&bytes).as_bytes()[first..end].to_vec(),
    ]
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn each_spelling_is_found_and_a_part_of_it_is_not() {
        let secret = b"s3cret~value?of/length+";
        let spellings = Spellings::new(secret);
        for before in ["", "a", "ab", "abc", "user:"] {
            for after in ["", "z", "zy"] {
                let all = [before.as_bytes(), secret, after.as_bytes()].concat();
                for text in [
                    all.clone(),
                    STANDARD.encode(&all).into_bytes(),
                    URL_SAFE_NO_PAD.encode(&all).into_bytes(),
                    hex::encode(&all).into_bytes(),
                    hex::encode_upper(&all).into_bytes(),
                    percent_encode(&all, NON_ALPHANUMERIC)
                        .to_string()
                        .into_bytes(),
                    percent_encode(&all, RESERVED).to_string().into_bytes(),
                    percent_encode(&all, RESERVED)
                        .to_string()
                        .replace("%2F", "%2f")
                        .replace("%3F", "%3f")
                        .replace("%2B", "%2b")
                        .into_bytes(),
                    String::from_utf8_lossy(&all)
                        .replace('/', "\\/")
                        .into_bytes(),
                ] {
                    assert!(spellings.stand_in(&text), "{before} {after}");
                }
            }
        }
        for other in [&b""[..], &secret[1..], &secret[..secret.len() - 1]] {
            assert!(!spellings.stand_in(other));
            assert!(!spellings.stand_in(STANDARD.encode(other).as_bytes()));
        }
    }
}
