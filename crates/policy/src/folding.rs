//! Names as the least careful file system of a shared checkout compares them: a project on a Linux host may lie on a
//! disk of macOS or Windows, where git, editors and shells take `.GIT` or `git~1` for `.git`.

use std::{borrow::Cow, ffi::OsStr};

/// A name without case, without the code points that HFS+ ignores (git's `next_hfs_char` lists them), without the stream,
/// dots and spaces at its end that NTFS drops, and with NTFS's short name of `.git` spelled out.
pub(crate) fn fold(name: &OsStr) -> Cow<'_, str> {
    // What is not UTF-8 exists on Linux alone, where only the exact bytes count.
    let name = name.to_string_lossy();
    if is_plain(&name) {
        return name;
    }
    let visible: String = name
        .chars()
        .filter(|character| !is_ignored(*character))
        .flat_map(char::to_lowercase)
        .collect();
    let without_stream = visible.split(':').next().unwrap_or_default();
    match without_stream.trim_end_matches(['.', ' ']) {
        "git~1" => Cow::Borrowed(".git"),
        folded => Cow::Owned(folded.to_owned()),
    }
}

/// Nothing to fold: true of nearly every name, and a scan asks for a great many.
fn is_plain(name: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii() && !byte.is_ascii_uppercase() && byte != b':' && byte != b'~';
    name.bytes().all(plain) && !name.ends_with(['.', ' '])
}

fn is_ignored(character: char) -> bool {
    matches!(character, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn guises_of_a_name_fold_to_it() {
        for guise in [
            ".git",
            ".GIT",
            ".git.",
            ".git ..",
            ".g\u{200d}it",
            ".git::$DATA",
            "git~1",
            "GIT~1",
            "\u{feff}.Git",
        ] {
            assert_eq!(fold(OsStr::new(guise)), ".git", "{guise:?}");
        }
        for other in ["git", ".gi", ".gitx", "git~2", "..git", " .git", ".ｇｉｔ"] {
            assert_ne!(fold(OsStr::new(other)), ".git", "{other:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_short_cut_changes_nothing(name in "[a-z0-9._-]{1,12}") {
            prop_assume!(is_plain(&name));
            let long_way = format!("{name}.");
            prop_assert_eq!(fold(OsStr::new(&name)), fold(OsStr::new(&long_way)));
        }
    }
}
