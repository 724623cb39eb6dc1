//! Text of a log on a terminal. The log spells out whatever could move a cursor, but who could write the file could put
//! anything there; what is printed moves nothing either way.

/// The text on one line, with control, format and line-separating characters spelled out.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // What the log spelled out already has its backslash.
            '"' | '\'' | '\\' => out.push(character),
            _ => out.extend(character.escape_debug()),
        }
    }
    out
}

/// A line of JSON that says the same and holds no such character.
pub(super) fn printable_json(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for character in line.chars() {
        if character == '\\' || character == '"' || character.escape_debug().len() == 1 {
            out.push(character);
            continue;
        }
        if character == '\'' {
            out.push(character);
            continue;
        }
        let mut units = [0; 2];
        for unit in character.encode_utf16(&mut units) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[2J\u{9b}31m\u{202e}b\u{2028}c\u{e0041}d\r\n\t\0'\"\u{301}";

    fn moves_nothing(text: &str) -> bool {
        text.chars()
            .all(|c| "'\"\\".contains(c) || c.escape_debug().len() == 1)
    }

    #[test]
    fn nothing_that_is_printed_moves_the_cursor() {
        assert!(!moves_nothing(HOSTILE), "the control");
        assert!(moves_nothing(&printable(HOSTILE)));
        assert_eq!(
            printable("session.create \"x\" it's é"),
            "session.create \"x\" it's é"
        );
    }

    #[test]
    fn a_line_of_json_keeps_its_meaning() {
        let value = serde_json::json!({ "a": HOSTILE, "b\u{1b}": ["\\", "it's"] });
        let line = value.to_string();
        let safe = printable_json(&line);
        assert!(moves_nothing(&safe));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&safe).unwrap(),
            value
        );
    }
}
