//! Output of untrusted programs, made harmless for the terminal of a person and the eyes of a model.
//!
//! What is kept: every visible character, tab and newline. `\r\n` and a lone `\r` become a newline. Terminal escape
//! sequences (ECMA-48 CSI, OSC and other strings, two-byte escapes) are removed. Every other character that acts
//! without being seen is spelled out as `\u{...}`: C0 and C1 controls, bidirectional controls, zero-width and other
//! invisible characters, tag characters. Bytes that are no UTF-8 become U+FFFD.
//!
//! What this does not stop: visible text that lies. Whoever reads it must treat it as data.
//!
//! A character or escape sequence that is cut off at the end of what is known so far is held back: it is not counted as
//! read, so that the next read starts with it whole.

mod units;
mod window;

pub(crate) use window::{Window, head, tail};

use units::Units;

/// Longest sentence in a reply, bytes of text: reasons and hints, which a sandbox can have a hand in.
const MAX_SENTENCE_BYTES: usize = 1024;
/// Longest name that is repeated to the caller, bytes of text.
const MAX_NAME_BYTES: usize = 80;

/// Whether a character would not be seen for what it is in a single line.
pub(crate) fn acts_unseen_in_line(character: char) -> bool {
    matches!(character, '\t' | '\n') || units::acts_unseen(character)
}

/// One line of clean text, cut off where it is too long.
pub(crate) fn sentence(text: &str) -> String {
    line(text, MAX_SENTENCE_BYTES)
}

/// A name that somebody else chose, fit to stand in one of our sentences.
pub(crate) fn name(text: &str) -> String {
    line(text, MAX_NAME_BYTES)
}

/// Clean text without newlines of at most `limit` bytes, and an ellipsis where it was cut.
pub(crate) fn line(text: &str, limit: usize) -> String {
    let mut line = String::new();
    for unit in Units::new(text.as_bytes(), true) {
        let mut piece = String::new();
        unit.piece.write(&mut piece);
        if line.len() + piece.len() > limit {
            line.push('\u{2026}');
            break;
        }
        line.push_str(if piece == "\n" { " " } else { &piece });
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clean(bytes: &[u8]) -> String {
        head(bytes, usize::MAX, true).text
    }

    #[test]
    fn what_acts_unseen_is_removed_or_spelled_out() {
        let table: &[(&[u8], &str)] = &[
            (b"plain\ttext\n", "plain\ttext\n"),
            ("é漢😀✔\u{fe0f}".as_bytes(), "é漢😀✔\u{fe0f}"),
            // Line ends.
            (b"a\r\nb", "a\nb"),
            (b"10%\r20%\r", "10%\n20%\n"),
            // Escape sequences.
            (b"\x1b[31mred\x1b[0m", "red"),
            (b"\x1b[38;2;1;2;3;48;5;7mrgb\x1b[m", "rgb"),
            (b"\x1b[?25l\x1b[2J\x1b[Hx", "x"),
            (b"\x1b]0;title\x07x", "x"),
            (b"\x1b]8;;http://evil/\x1b\\link\x1b]8;;\x1b\\", "link"),
            (b"\x1bPq#0;2\x1b\\x", "x"),
            (b"\x1b(B\x1b=\x1b7x", "x"),
            (b"\x1b]52;c;aGk=\x07x", "x"),
            // Not quite sequences: the escape shows, and what follows stays.
            (b"\x1b[31\x01m", "\\u{1b}[31\\u{1}m"),
            (b"\x1b[31", "\\u{1b}[31"),
            (b"\x1b]0;never ends", "\\u{1b}]0;never ends"),
            (b"\x1b", "\\u{1b}"),
            (b"\x1b\x1b[31mx", "\\u{1b}x"),
            (b"\x1b\xc3\xa9", "\\u{1b}é"),
            // Controls.
            (b"a\x00b\x07c\x08d\x7f", "a\\u{0}b\\u{7}c\\u{8}d\\u{7f}"),
            ("\u{9b}31mx\u{85}".as_bytes(), "\\u{9b}31mx\\u{85}"),
            (b"a\x0bb\x0cc", "a\\u{b}b\\u{c}c"),
            // Bidirectional and invisible characters.
            (
                "\u{202e}txt\u{202c}\u{2066}\u{2069}".as_bytes(),
                "\\u{202e}txt\\u{202c}\\u{2066}\\u{2069}",
            ),
            (
                "a\u{200b}b\u{feff}\u{ad}\u{2060}".as_bytes(),
                "a\\u{200b}b\\u{feff}\\u{ad}\\u{2060}",
            ),
            (
                "\u{e0041}\u{e0100}\u{3164}".as_bytes(),
                "\\u{e0041}\\u{e0100}\\u{3164}",
            ),
            ("\u{2028}\u{2029}".as_bytes(), "\\u{2028}\\u{2029}"),
            // No UTF-8: overlong, surrogates, lone and cut off bytes.
            (b"a\xffb", "a\u{fffd}b"),
            (b"\xc0\xaf", "\u{fffd}\u{fffd}"),
            (b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"),
            (b"a\xe6\xbc", "a\u{fffd}"),
            (b"\xf0\x9f\x98x", "\u{fffd}x"),
            (b"\x80\x81", "\u{fffd}\u{fffd}"),
        ];
        for (bytes, expected) in table {
            assert_eq!(
                clean(bytes),
                *expected,
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn an_endless_escape_sequence_is_given_up() {
        let mut bytes = b"\x1b]0;".to_vec();
        bytes.extend([b'x'; 10_000]);
        let window = head(&bytes, usize::MAX, false);
        assert_eq!(window.end, bytes.len());
        let csi = head(
            &[b"\x1b[".as_slice(), &[b'1'; 1000]].concat(),
            usize::MAX,
            false,
        );
        assert_eq!(csi.end, 1002);
    }

    #[test]
    fn what_is_cut_off_is_held_back_until_it_is_whole() {
        for whole in ["é", "漢", "😀", "\u{1b}[31m", "\u{1b}]0;t\u{7}", "\r\n"] {
            let text = format!("a{whole}");
            for cut in 1..text.len() {
                let window = head(&text.as_bytes()[..cut], usize::MAX, false);
                assert_eq!(
                    (window.text.as_str(), window.end),
                    ("a", 1),
                    "{whole:?} cut at {cut}"
                );
            }
            assert_eq!(head(text.as_bytes(), usize::MAX, false).end, text.len());
        }
    }

    #[test]
    fn a_tail_begins_with_a_whole_line_or_character() {
        let lines: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        let window = tail(lines.as_bytes(), 0, 100, true);
        assert!(
            window.text.starts_with("line 9") && window.text.ends_with("line 999\n"),
            "{}",
            window.text
        );
        assert_eq!(window.text, lines[window.start..]);
        let wide = "漢".repeat(1000);
        let window = tail(wide.as_bytes(), 0, 100, true);
        assert_eq!(window.text, wide[window.start..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn nothing_unseen_comes_through(bytes in prop::collection::vec(any::<u8>(), 0..200), budget in 0usize..300) {
            let shown = head(&bytes, budget, true);
            let end = tail(&bytes, 0, budget, true);
            for window in [&shown, &end] {
                prop_assert!(window.text.len() <= budget);
                prop_assert!(!window.text.chars().any(units::acts_unseen));
            }
        }

        #[test]
        fn reading_in_pieces_is_reading_at_once(text in "(\\PC|\u{1b}\\[31m|\r\n|\n){0,60}", cut in 1usize..40) {
            let (mut position, mut read) = (0, String::new());
            let bytes = text.as_bytes();
            let mut known = 0;
            while position < bytes.len() {
                known = (known + cut).min(bytes.len());
                let window = head(&bytes[position..known], usize::MAX, known == bytes.len());
                position += window.end;
                read.push_str(&window.text);
            }
            prop_assert_eq!(read, clean(bytes));
        }
    }
}
