//! Texts that cannot forge a line, hide in one, or blow one up.
//!
//! JSON alone would do for the file, but people look at logs with `cat`, `jq -r` and browsers. So whatever is not a
//! plain printable character (controls, terminal escapes, line and paragraph separators, bidirectional and invisible
//! format characters, lone combining marks, bytes that are no UTF-8) is spelled out as `\n`, `\u{202e}` or `\xff`
//! before it becomes JSON, and a backslash is doubled.

use std::{os::unix::ffi::OsStrExt, path::Path};

use sha2::{Digest, Sha256};

/// Longest word, bytes after escaping. Names of programs and sessions are far shorter.
pub const MAX_WORD_BYTES: usize = 128;
/// Longest path, bytes after escaping. With all else a record then stays within [`crate::record::MAX_RECORD_BYTES`].
pub const MAX_PATH_BYTES: usize = 1024;
/// Digits of the digest that stands in for what was cut off.
const CUT_DIGEST_BYTES: usize = 8;

/// A word, escaped and capped.
pub(crate) fn word(text: &str) -> String {
    printable(text.as_bytes(), MAX_WORD_BYTES)
}

/// A path, escaped and capped.
pub(crate) fn path(path: &Path) -> String {
    printable(path.as_os_str().as_bytes(), MAX_PATH_BYTES)
}

/// At most `cap` bytes of the escaped text, then a mark with length and digest of the whole where it was cut.
fn printable(bytes: &[u8], cap: usize) -> String {
    let mut text = String::with_capacity(bytes.len().min(cap));
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let before = text.len();
            push_escaped(&mut text, character);
            if text.len() > cap {
                text.truncate(before);
                return cut(text, bytes);
            }
        }
        for byte in chunk.invalid() {
            if text.len() + "\\xff".len() > cap {
                return cut(text, bytes);
            }
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

fn push_escaped(text: &mut String, character: char) {
    match character {
        // Quotes need no second escape: JSON gives them theirs.
        '"' | '\'' => text.push(character),
        _ => text.extend(character.escape_debug()),
    }
}

fn cut(mut text: String, whole: &[u8]) -> String {
    let digest = Sha256::digest(whole);
    text.push_str(&format!(
        "…[{} bytes, sha256 {}]",
        whole.len(),
        hex::encode(&digest[..CUT_DIGEST_BYTES])
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(word(text), expected);
    }

    #[test]
    fn plain_texts_stay_readable() {
        check("claude-code 2.1 \"x\" 'y'", "claude-code 2.1 \"x\" 'y'");
        check("Straße 東京 עברית", "Straße 東京 עברית");
    }

    #[test]
    fn what_could_forge_or_hide_is_spelled_out() {
        check("a\nb\r\t\0", "a\\nb\\r\\t\\0");
        check("\u{1b}[2J\u{7f}\u{9b}31m", "\\u{1b}[2J\\u{7f}\\u{9b}31m");
        check("a\u{2028}b\u{2029}\u{85}", "a\\u{2028}b\\u{2029}\\u{85}");
        check(
            "\u{202e}\u{2066}\u{200f}\u{feff}\u{200b}",
            "\\u{202e}\\u{2066}\\u{200f}\\u{feff}\\u{200b}",
        );
        check("\u{e0041}\u{301}", "\\u{e0041}\\u{301}");
        check("\\n", "\\\\n");
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        assert_eq!(
            path(Path::new(OsStr::from_bytes(b"/a\xff\xfeb"))),
            "/a\\xff\\xfeb"
        );
    }

    #[test]
    fn a_long_text_is_cut_and_told_apart_by_its_digest() {
        let cut = word(&"x".repeat(1 << 20));
        assert!(
            cut.starts_with(&"x".repeat(MAX_WORD_BYTES)) && cut.len() < MAX_WORD_BYTES + 48,
            "{cut}"
        );
        assert!(cut.contains("1048576 bytes"));
        assert_ne!(cut, word(&format!("{}y", "x".repeat((1 << 20) - 1))));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn only_printable_characters_come_out(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let text = printable(&bytes, MAX_WORD_BYTES);
            prop_assert!(text.len() <= MAX_WORD_BYTES + 64);
            prop_assert!(text.chars().all(|c| c == '"' || c == '\'' || c == '\\' || c.escape_debug().len() == 1));
        }
    }
}
