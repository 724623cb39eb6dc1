//! What a path, a link and a pattern may look like: pure.

use wire::{Fault, FaultKind};

use crate::fault::fault;

/// Directories below each other at most.
pub const MAX_DEPTH: usize = 64;
/// Longest name, bytes (`NAME_MAX`, limits.h).
const MAX_NAME_BYTES: usize = 255;
/// Longest path, bytes (`PATH_MAX`, limits.h).
pub const MAX_PATH_BYTES: usize = 4096;

/// The parts of an absolute path that leads straight down.
pub fn absolute(path: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    let relative = path
        .strip_prefix(b"/")
        .ok_or_else(|| bad("the path is not absolute"))?;
    let relative = relative.strip_suffix(b"/").unwrap_or(relative);
    if relative.is_empty() {
        Ok(Vec::new())
    } else {
        parts(relative)
    }
}

/// The parts of a relative path that leads straight down; none for the empty path, which is the root.
pub fn relative(path: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    if path.is_empty() {
        Ok(Vec::new())
    } else {
        parts(path)
    }
}

fn parts(path: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    if path.len() > MAX_PATH_BYTES {
        return Err(bad("the path is too long"));
    }
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    if parts.len() > MAX_DEPTH {
        return Err(bad("the path is too deep"));
    }
    if parts.iter().any(|part| !plain_name(part)) {
        return Err(bad("a part of the path is no name"));
    }
    Ok(parts)
}

fn plain_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && name.len() <= MAX_NAME_BYTES && !name.contains(&0)
}

/// Whether a link at `path` stays in its tree wherever its target leads.
///
/// `..` may stand only at the target's start: there it counts from the link's own directory, which is a real one, while
/// after a name it would count from wherever that name, a link itself perhaps, leads.
pub fn link_stays(path: &[u8], target: &[u8]) -> bool {
    if target.is_empty()
        || target.starts_with(b"/")
        || target.contains(&0)
        || target.len() > MAX_PATH_BYTES
    {
        return false;
    }
    // The root itself cannot be a link: it would have no directory to stay in.
    let Some(depth) = path
        .iter()
        .filter(|byte| **byte == b'/')
        .count()
        .checked_add(usize::from(!path.is_empty()))
    else {
        return false;
    };
    let mut parts = target
        .split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .peekable();
    let mut up = 0;
    while parts.next_if(|part| *part == b"..").is_some() {
        up += 1;
    }
    depth > up && parts.all(|part| part != b"..")
}

/// Paths that must not be written.
pub struct Refusals {
    patterns: Vec<Pattern>,
}

struct Pattern {
    anywhere: bool,
    parts: Vec<Vec<u8>>,
}

impl Refusals {
    /// Patterns as the wire describes them.
    pub fn parse(patterns: &[Vec<u8>]) -> Result<Self, Fault> {
        let patterns = patterns.iter().map(|pattern| {
            let anywhere = pattern.starts_with(b"**/");
            let parts = relative(if anywhere { &pattern[3..] } else { pattern })?;
            if parts.is_empty() {
                return Err(bad("an empty pattern"));
            }
            Ok(Pattern {
                anywhere,
                parts: parts.into_iter().map(<[u8]>::to_vec).collect(),
            })
        });
        Ok(Refusals {
            patterns: patterns.collect::<Result<_, _>>()?,
        })
    }

    /// Whether an entry there would be, or stand in for, something refused: the path itself, anything below it, and
    /// anything but a directory in place of one of its parents.
    pub fn refuse(&self, path: &[&[u8]], is_directory: bool) -> bool {
        self.patterns.iter().any(|pattern| {
            let starts = if pattern.anywhere { path.len() } else { 1 };
            (0..starts.min(path.len())).any(|start| pattern.matches(&path[start..], is_directory))
        })
    }
}

impl Pattern {
    fn matches(&self, path: &[&[u8]], is_directory: bool) -> bool {
        let common = self
            .parts
            .iter()
            .zip(path)
            .take_while(|(wanted, part)| wanted.as_slice() == **part)
            .count();
        common == self.parts.len() || (!is_directory && common == path.len() && common > 0)
    }
}

fn bad(step: &str) -> Fault {
    fault(FaultKind::BadPath, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_lead_straight_down_are_taken() {
        for good in ["a", "a/b", ".git", "...", "a b", "ü"] {
            assert!(relative(good.as_bytes()).is_ok(), "{good}");
        }
        let (long, deep) = ("x".repeat(256), vec!["d"; MAX_DEPTH + 1].join("/"));
        for bad in [
            "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/./b", "a\0b", &long, &deep,
        ] {
            assert!(relative(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(absolute(b"/a/b/").unwrap(), [b"a".as_slice(), b"b"]);
        assert!(absolute(b"/").unwrap().is_empty());
        for bad in ["", "a", "//a", "/a/../b", "/a//b"] {
            assert!(absolute(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn links_stay_in_their_tree() {
        for (path, target) in [
            ("a", "b"),
            ("d/a", "../b"),
            ("d/e/a", "../../b/c"),
            ("a", "./b"),
            ("d/a", "."),
        ] {
            assert!(
                link_stays(path.as_bytes(), target.as_bytes()),
                "{path} -> {target}"
            );
        }
        let escaping = [
            ("a", ".."),
            ("a", "../b"),
            ("d/a", "../../b"),
            ("a", "/etc/passwd"),
            ("a", ""),
            ("a", "b/../../c"),
            ("d/e/a", "x/.."),
            ("", "b"),
            ("a", "b\0c"),
        ];
        for (path, target) in escaping {
            assert!(
                !link_stays(path.as_bytes(), target.as_bytes()),
                "{path} -> {target}"
            );
        }
    }

    fn refused(patterns: &[&str], path: &str, is_directory: bool) -> bool {
        let patterns: Vec<Vec<u8>> = patterns
            .iter()
            .map(|pattern| pattern.as_bytes().to_vec())
            .collect();
        let parts = relative(path.as_bytes()).unwrap();
        Refusals::parse(&patterns)
            .unwrap()
            .refuse(&parts, is_directory)
    }

    #[test]
    fn refused_paths_are_compared_by_whole_parts() {
        let patterns = [".git/hooks", "**/.envrc"];
        for (path, is_directory) in [
            (".git/hooks", true),
            (".git/hooks/pre-commit", false),
            (".envrc", false),
            ("a/b/.envrc", false),
            (".envrc/x", true),
            (".git", false),
        ] {
            assert!(refused(&patterns, path, is_directory), "{path}");
        }
        for (path, is_directory) in [
            (".git", true),
            (".git/hooks2", false),
            ("a/.git/hooks", true),
            (".git/config", false),
            (".envrc2", false),
            ("envrc", false),
            ("", true),
        ] {
            assert!(!refused(&patterns, path, is_directory), "{path}");
        }
        assert!(
            refused(&["**/.git/hooks"], "a/.git", false),
            "a link or file in place of a parent"
        );
        assert!(!refused(&["**/.git/hooks"], "a/.git", true));
    }
}
