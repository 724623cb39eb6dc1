//! What was looked up on the host before a decision: policy itself looks at nothing.

use std::{collections::BTreeMap, path::PathBuf};

use model::HostDirectory;

/// What stands at a path that a caller named, looked up with all links resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathFacts {
    /// Nothing.
    Missing,
    /// A file, socket, device, …
    NotDirectory,
    /// Something that the server may not look at.
    Unreadable,
    /// More than one: a name stands below several roots of a caller.
    Ambiguous,
    /// A directory; its canonical path, not the one that the caller named.
    Directory(HostDirectory),
}

/// What stands at a relative path of the project, looked up without following any link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Nothing.
    Missing,
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, socket, device or pipe: nothing that can be mounted over itself.
    Other,
}

/// Everything that must be known to decide on a new session.
#[derive(Debug, Clone)]
pub struct CreateFacts {
    /// The project directory.
    pub project: PathFacts,
    /// The caller's mounts, in their order.
    pub mounts: Vec<PathFacts>,
    /// Each of [`crate::Policy::protected_candidates`], below the project. A candidate that is absent here was not
    /// looked up, and the session is refused.
    pub existing: BTreeMap<PathBuf, EntryKind>,
}
