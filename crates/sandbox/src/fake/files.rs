//! The virtual files of a simulated sandbox.

use std::collections::BTreeMap;

use model::{
    CERTIFICATES_DIRECTORY, CERTIFICATES_NAME, HOSTS, RESOLVER_CONFIGURATION, SandboxSpec,
};
use wire::{Entry, EntryKind, Fault, FaultKind};

use super::{Break, sandbox::fault};

/// Directories that every sandbox has.
const DIRECTORIES: [&str; 9] = [
    "/",
    "/workspace",
    "/state",
    "/tmp",
    "/run",
    "/home",
    "/home/agent",
    "/usr",
    "/usr/bin",
];

/// A tree of files by absolute path.
pub(super) struct Files {
    nodes: BTreeMap<Vec<u8>, Node>,
}

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) mode: u32,
    pub(super) mtime: i64,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Directory,
    File(Vec<u8>),
    Link(Vec<u8>),
}

impl Node {
    /// What an entry announces, still without content.
    pub(super) fn of(entry: &Entry) -> Self {
        let content = match &entry.kind {
            EntryKind::Directory => Content::Directory,
            EntryKind::File { .. } => Content::File(Vec::new()),
            EntryKind::Link { target } => Content::Link(target.clone()),
        };
        Node {
            content,
            mode: entry.mode,
            mtime: entry.mtime,
        }
    }

    fn kind(&self) -> EntryKind {
        match &self.content {
            Content::Directory => EntryKind::Directory,
            Content::File(content) => EntryKind::File {
                size: content.len() as u64,
            },
            Content::Link(target) => EntryKind::Link {
                target: target.clone(),
            },
        }
    }
}

impl Files {
    /// What a session has from its beginning.
    pub(super) fn of(spec: &SandboxSpec, broken: Option<Break>) -> Self {
        let mut files = Self::new();
        files.append(b"/etc/resolv.conf", RESOLVER_CONFIGURATION.as_bytes());
        files.append(b"/etc/hosts", HOSTS.as_bytes());
        if let Some(certificates) = &spec.certificates
            && broken != Some(Break::LosesCertificates)
        {
            let path = format!("{CERTIFICATES_DIRECTORY}/{CERTIFICATES_NAME}");
            files.append(path.as_bytes(), certificates.as_bytes());
        }
        files
    }

    fn new() -> Self {
        let directory = || Node {
            content: Content::Directory,
            mode: 0o755,
            mtime: 0,
        };
        Files {
            nodes: DIRECTORIES
                .iter()
                .map(|path| (path.as_bytes().to_vec(), directory()))
                .collect(),
        }
    }

    pub(super) fn is_directory(&self, path: &[u8]) -> bool {
        self.nodes
            .get(path)
            .is_some_and(|node| matches!(node.content, Content::Directory))
    }

    pub(super) fn content(&self, path: &[u8]) -> Option<Vec<u8>> {
        match &self.nodes.get(path)?.content {
            Content::File(content) => Some(content.clone()),
            Content::Directory | Content::Link(_) => None,
        }
    }

    /// Appends to a file, which is made with its directories where it is missing.
    pub(super) fn append(&mut self, path: &[u8], data: &[u8]) {
        for (place, _) in path
            .iter()
            .enumerate()
            .filter(|(place, byte)| **byte == b'/' && *place > 0)
        {
            let directory = Node {
                content: Content::Directory,
                mode: 0o755,
                mtime: 0,
            };
            self.nodes
                .entry(path[..place].to_vec())
                .or_insert(directory);
        }
        let empty = Node {
            content: Content::File(Vec::new()),
            mode: 0o644,
            mtime: 0,
        };
        if let Content::File(content) =
            &mut self.nodes.entry(path.to_vec()).or_insert(empty).content
        {
            content.extend(data);
        }
    }

    pub(super) fn remove(&mut self, path: &[u8]) {
        self.nodes.remove(path);
    }

    /// The tree or file there, parents first, with content.
    pub(super) fn tree(&self, path: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, Fault> {
        if !path.starts_with(b"/") || !self.nodes.contains_key(path) {
            return Err(fault(FaultKind::BadPath, "find the path"));
        }
        let below = [path.strip_suffix(b"/").unwrap_or(path), b"/"].concat();
        let entry = |(at, node): (&Vec<u8>, &Node)| {
            let relative = if at == path {
                Vec::new()
            } else {
                at.strip_prefix(&below[..])?.to_vec()
            };
            let content = match &node.content {
                Content::File(content) => content.clone(),
                Content::Directory | Content::Link(_) => Vec::new(),
            };
            Some((
                Entry {
                    path: relative,
                    kind: node.kind(),
                    mode: node.mode,
                    mtime: node.mtime,
                },
                content,
            ))
        };
        Ok(self.nodes.iter().filter_map(entry).collect())
    }

    /// Whether a tree can be put there: into a directory, as something new.
    pub(super) fn check_destination(&self, path: &[u8]) -> Result<(), Fault> {
        let parent = path
            .iter()
            .rposition(|byte| *byte == b'/')
            .map(|end| &path[..end.max(1)]);
        match parent {
            Some(parent) if self.is_directory(parent) => Ok(()),
            _ => Err(fault(FaultKind::BadPath, "find the parent directory")),
        }
    }

    /// Puts a received tree in its place.
    pub(super) fn merge(&mut self, path: &[u8], staged: Vec<(Vec<u8>, Node)>) {
        for (relative, node) in staged {
            let at = if relative.is_empty() {
                path.to_vec()
            } else {
                [path, b"/", &relative].concat()
            };
            self.nodes.insert(at, node);
        }
    }
}
