//! How a secret can stand in what is sent: as it is, in base64 (whatever stands before it there), in hexadecimal digits.

use aho_corasick::AhoCorasick;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// The spellings of one secret.
#[derive(Clone)]
pub(crate) struct Spellings {
    all: Vec<Vec<u8>>,
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
        Spellings {
            finder: AhoCorasick::new(&all).ok(),
            all,
        }
    }

    /// Whether one of them stands in these bytes.
    pub(crate) fn stand_in(&self, bytes: &[u8]) -> bool {
        self.finder
            .as_ref()
            .is_none_or(|finder| finder.is_match(bytes))
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
