//! What can be said of a path by its text alone.

use std::{
    ffi::OsStr,
    path::{Component, Path, PathBuf},
};

/// Longest path, bytes: Linux's `PATH_MAX` without its NUL.
pub(crate) const MAX_PATH_BYTES: usize = 4095;
/// Longest part of a path, bytes: `NAME_MAX` of every common file system.
const MAX_PART_BYTES: usize = 255;

/// Why a text is no path that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("must not be empty")]
    Empty,
    #[error("must be an absolute path; `~` and variables are not expanded")]
    Relative,
    #[error("must be a name, not an absolute path")]
    Absolute,
    #[error("must not contain `..`")]
    Parent,
    #[error("must not contain NUL, line breaks, or other control or text-direction characters")]
    Control,
    #[error("must be valid UTF-8")]
    NotUtf8,
    #[error("is too long: at most 4095 bytes, and 255 for each part")]
    TooLong,
}

/// The path without `//`, `/./` and a slash at its end, which mean nothing to the kernel. `..` is refused instead, for
/// what it means depends on links.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Flaw> {
    let text = path.to_str().ok_or(Flaw::NotUtf8)?;
    if text.is_empty() {
        return Err(Flaw::Empty);
    }
    if text.len() > MAX_PATH_BYTES {
        return Err(Flaw::TooLong);
    }
    if text.chars().any(is_deceptive) {
        return Err(Flaw::Control);
    }
    if !path.is_absolute() {
        return Err(Flaw::Relative);
    }
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => return Err(Flaw::Parent),
            Component::Normal(part) if part.len() > MAX_PART_BYTES => return Err(Flaw::TooLong),
            Component::Normal(part) => clean.push(part),
        }
    }
    Ok(clean)
}

/// The name of something below a directory that is not named: as [`absolute`], without a slash at its beginning. Empty for
/// `.`, the directory itself.
pub(crate) fn relative(path: &Path) -> Result<PathBuf, Flaw> {
    if path.as_os_str().is_empty() {
        return Err(Flaw::Empty);
    }
    if path.is_absolute() {
        return Err(Flaw::Absolute);
    }
    let clean = absolute(&Path::new("/").join(path))?;
    Ok(clean
        .strip_prefix("/")
        .map(Path::to_owned)
        .unwrap_or_default())
}

/// A character that makes a log line or a question to a person show something else than the path.
pub(crate) fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// One of the two contains the other, or they are equal.
pub(crate) fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// The parts of a relative or absolute path that are names.
pub(crate) fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::RootDir | Component::CurDir | Component::ParentDir | Component::Prefix(_) => {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_nothing_to_the_kernel_is_folded() {
        for (text, clean) in [
            ("/a/b", "/a/b"),
            ("/a//b/", "/a/b"),
            ("//a/./b/.", "/a/b"),
            ("/", "/"),
            ("/a/b c", "/a/b c"),
        ] {
            assert_eq!(
                absolute(Path::new(text)).as_deref(),
                Ok(Path::new(clean)),
                "{text}"
            );
        }
    }

    #[test]
    fn flaws_are_told_apart() {
        let long = format!("/{}", "a/".repeat(3000));
        let part = format!("/{}", "a".repeat(256));
        let cases: [(&str, Flaw); 12] = [
            ("", Flaw::Empty),
            ("a/b", Flaw::Relative),
            ("./a", Flaw::Relative),
            ("~/a", Flaw::Relative),
            ("$HOME/a", Flaw::Relative),
            ("/a/../b", Flaw::Parent),
            ("/..", Flaw::Parent),
            ("/a\0b", Flaw::Control),
            ("/a\nb", Flaw::Control),
            ("/a/\u{202e}b", Flaw::Control),
            (&long, Flaw::TooLong),
            (&part, Flaw::TooLong),
        ];
        for (text, flaw) in cases {
            assert_eq!(absolute(Path::new(text)), Err(flaw), "{text:?}");
        }
    }
}
