//! What a stream of file entries may hold, either way: checked before anything of it is believed or sent.

use std::collections::{HashMap, hash_map::Entry as Slot};

use wire::{Entry, EntryKind, MAX_CHUNK_BYTES};

use super::{TransferError, TransferLimits};

/// Longest path of an entry, bytes (`PATH_MAX` of Linux).
pub(super) const MAX_PATH_BYTES: usize = 4096;
/// Longest name in a path, bytes (`NAME_MAX` of Linux).
const MAX_NAME_BYTES: usize = 255;
/// Bytes of paths that are remembered of one transfer, to tell parents and doubles: a tree of half a million entries.
const MAX_REMEMBERED_BYTES: usize = 64 * 1024 * 1024;
/// Permission bits that travel.
const MODE_MASK: u32 = 0o777;

/// Follows one transfer entry by entry.
pub(super) struct TreeCheck {
    limits: TransferLimits,
    entries: u64,
    bytes: u64,
    remembered_bytes: usize,
    /// Every path so far, and whether it is a directory.
    seen: HashMap<Vec<u8>, bool>,
    /// Bytes of the current file that are still to come.
    missing: u64,
}

impl TreeCheck {
    pub(super) fn new(limits: TransferLimits) -> Self {
        TreeCheck {
            limits,
            entries: 0,
            bytes: 0,
            remembered_bytes: 0,
            seen: HashMap::new(),
            missing: 0,
        }
    }

    /// Takes the next entry, or says why not.
    pub(super) fn entry(&mut self, entry: &Entry) -> Result<(), TransferError> {
        self.whole_file()?;
        if self.entries >= self.limits.max_entries {
            return Err(TransferError::TooManyEntries(self.limits.max_entries));
        }
        if entry.mode & !MODE_MASK != 0 {
            return Err(invalid("mode bits beyond 0777", &entry.path));
        }
        self.place(&entry.path)?;
        match &entry.kind {
            EntryKind::Directory => {}
            EntryKind::File { size } => self.announce(*size)?,
            EntryKind::Link { target } => check_link(&entry.path, target)?,
        }
        self.remember(entry)?;
        self.entries += 1;
        Ok(())
    }

    /// Takes content of the current file.
    pub(super) fn data(&mut self, bytes: usize) -> Result<(), TransferError> {
        let count = bytes as u64;
        if bytes == 0 || bytes > MAX_CHUNK_BYTES {
            return Err(TransferError::Invalid(
                "an empty or oversized piece of content".to_owned(),
            ));
        }
        if count > self.missing {
            return Err(TransferError::Invalid(
                "more content than announced".to_owned(),
            ));
        }
        self.missing -= count;
        Ok(())
    }

    /// Nothing is missing: entries and bytes of content so far.
    pub(super) fn complete(&self) -> Result<(u64, u64), TransferError> {
        self.whole_file()?;
        if self.entries == 0 {
            return Err(TransferError::Invalid("no entry at all".to_owned()));
        }
        Ok((self.entries, self.bytes))
    }

    fn whole_file(&self) -> Result<(), TransferError> {
        if self.missing > 0 {
            return Err(TransferError::Invalid(
                "less content than announced".to_owned(),
            ));
        }
        Ok(())
    }

    /// Sizes count when they are announced, so a file that is too large is refused before its content comes.
    fn announce(&mut self, size: u64) -> Result<(), TransferError> {
        let total = self
            .bytes
            .checked_add(size)
            .filter(|total| *total <= self.limits.max_bytes);
        self.bytes = total.ok_or(TransferError::TooManyBytes(self.limits.max_bytes))?;
        self.missing = size;
        Ok(())
    }

    /// The first entry is the root; every other stands in a directory that came before.
    fn place(&self, path: &[u8]) -> Result<(), TransferError> {
        if self.entries == 0 {
            return if path.is_empty() {
                Ok(())
            } else {
                Err(invalid("an entry before the root", path))
            };
        }
        if path.is_empty() || path.len() > MAX_PATH_BYTES || path.contains(&0) {
            return Err(invalid("an impossible path", path));
        }
        if !path.split(|byte| *byte == b'/').all(is_plain_name) {
            return Err(invalid("a path that is not clean", path));
        }
        let parent = path
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(&[][..], |end| &path[..end]);
        match self.seen.get(parent) {
            Some(true) => Ok(()),
            Some(false) | None => Err(invalid("an entry outside a directory", path)),
        }
    }

    fn remember(&mut self, entry: &Entry) -> Result<(), TransferError> {
        self.remembered_bytes += entry.path.len();
        if self.remembered_bytes > MAX_REMEMBERED_BYTES {
            return Err(TransferError::TooManyEntries(self.entries));
        }
        match self.seen.entry(entry.path.clone()) {
            Slot::Occupied(_) => Err(invalid("an entry twice", &entry.path)),
            Slot::Vacant(slot) => {
                slot.insert(matches!(entry.kind, EntryKind::Directory));
                Ok(())
            }
        }
    }
}

fn is_plain_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && name.len() <= MAX_NAME_BYTES
}

/// A link stays inside the tree when its target is relative and climbs only at its start, no higher than the root: its
/// parents are real directories, and every further link on the way obeys the same rule.
fn check_link(path: &[u8], target: &[u8]) -> Result<(), TransferError> {
    let impossible = target.is_empty() || target.len() > MAX_PATH_BYTES || target.contains(&0);
    if path.is_empty() || impossible {
        return Err(invalid("an impossible link", path));
    }
    if target[0] == b'/' || leaves_the_tree(path, target) {
        return Err(TransferError::LinkLeaves {
            path: path.to_vec(),
        });
    }
    Ok(())
}

fn leaves_the_tree(path: &[u8], target: &[u8]) -> bool {
    const UP: &[u8] = b"..";
    let depth = path.iter().filter(|byte| **byte == b'/').count();
    let mut parts = target
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .peekable();
    let mut climbs = 0;
    while parts.next_if(|part| *part == UP).is_some() {
        climbs += 1;
    }
    climbs > depth || parts.any(|part| part == UP)
}

fn invalid(what: &str, path: &[u8]) -> TransferError {
    TransferError::Invalid(format!("{what} at {:?}", String::from_utf8_lossy(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TransferLimits = TransferLimits {
        max_entries: 10,
        max_bytes: 100,
    };

    fn entry(path: &str, kind: EntryKind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0o644,
            mtime: 0,
        }
    }
    fn directory(path: &str) -> Entry {
        entry(path, EntryKind::Directory)
    }
    fn link(path: &str, target: &str) -> Entry {
        entry(
            path,
            EntryKind::Link {
                target: target.into(),
            },
        )
    }

    fn check(entries: &[Entry]) -> Result<(), TransferError> {
        let mut tree = TreeCheck::new(LIMITS);
        entries.iter().try_for_each(|entry| tree.entry(entry))
    }

    /// A root, `a`, `a/b` and then the entry.
    fn below(entry: Entry) -> Result<(), TransferError> {
        check(&[directory(""), directory("a"), directory("a/b"), entry])
    }

    #[test]
    fn an_honest_tree_passes() {
        for good in [
            directory("a/b/c"),
            entry("a/b/file", EntryKind::File { size: 100 }),
            link("a/b/up", "../../top"),
            link("a/b/flat", "x/y"),
            link("a/here", "./b"),
        ] {
            assert_eq!(below(good.clone()), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn hostile_entries_are_refused() {
        for path in [
            "",
            "/x",
            "a//x",
            "a/./x",
            "a/../x",
            "../x",
            "a/b/..",
            "a/x/",
            "x\0y",
            "unknown/x",
            "a",
            ".",
            "..",
        ] {
            assert!(below(directory(path)).is_err(), "{path:?}");
        }
        for target in [
            "",
            "/etc/passwd",
            "../../..",
            "../../../x",
            "x/../../..",
            "x/..",
            "y\0",
        ] {
            assert!(below(link("a/b/l", target)).is_err(), "{target:?}");
        }
        assert!(below(directory(&"n".repeat(MAX_NAME_BYTES + 1))).is_err());
        assert!(
            below(Entry {
                mode: 0o4755,
                ..directory("s")
            })
            .is_err()
        );
        assert!(check(&[link("", "x")]).is_err());
        assert!(check(&[directory("a")]).is_err());
    }

    #[test]
    fn nothing_stands_in_a_file_or_behind_a_link() {
        assert!(check(&[directory(""), link("l", "a"), directory("l/x")]).is_err());
        assert!(
            check(&[
                directory(""),
                entry("f", EntryKind::File { size: 0 }),
                directory("f/x")
            ])
            .is_err()
        );
    }

    #[test]
    fn limits_and_announced_sizes_hold() {
        let file = |path, size| entry(path, EntryKind::File { size });
        let mut tree = TreeCheck::new(LIMITS);
        tree.entry(&directory("")).unwrap();
        tree.entry(&file("f", 60)).unwrap();
        assert!(tree.data(61).is_err());
        tree.data(59).unwrap();
        assert!(tree.complete().is_err(), "a byte is missing");
        assert!(tree.entry(&directory("d")).is_err(), "a byte is missing");
        tree.data(1).unwrap();
        assert_eq!(tree.complete(), Ok((2, 60)));
        assert_eq!(
            tree.entry(&file("g", 41)),
            Err(TransferError::TooManyBytes(100))
        );
        let many: Vec<Entry> = std::iter::once(String::new())
            .chain((0..10).map(|n| n.to_string()))
            .map(|path| directory(&path))
            .collect();
        assert_eq!(check(&many[..10]), Ok(()));
        assert_eq!(check(&many), Err(TransferError::TooManyEntries(10)));
    }
}
