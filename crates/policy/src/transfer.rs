//! May these files be copied?

use std::path::{Path, PathBuf};

use model::{
    MAX_INLINE_BYTES, Principal, ReadFile, Reason, Refusal, STATE_PATH, Scope, SessionId,
    TransferDirection, TransferFiles, WORKSPACE_PATH, WriteFile,
};

use crate::{
    Policy, TransferParts, TransferPermit, mounts,
    protected::Rule,
    roles::{Need, Work},
    roots::Roots,
};

/// Entries of one transfer: a large checkout with its dependencies.
pub const MAX_TRANSFER_ENTRIES: u64 = 200_000;
/// Content of one transfer, bytes: as much as the default of a session's state.
pub const MAX_TRANSFER_BYTES: u64 = 2 << 30;

/// Content of a file that goes in pieces with calls and replies, bytes: 256 calls. What is larger goes another way.
pub const MAX_INLINE_FILE_BYTES: u64 = 64 << 20;

/// A file of a session may be read or written, by content.
#[derive(Debug)]
#[must_use = "a permit that is dropped was a decision for nothing"]
pub struct FilePermit {
    session: SessionId,
    owner: String,
    container: PathBuf,
    refuse: Vec<String>,
}

/// What a [`FilePermit`] allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileParts {
    /// Which session.
    pub session: SessionId,
    /// Who asks: what is under way belongs to them alone.
    pub owner: String,
    /// The file inside: absolute and clean.
    pub container: PathBuf,
    /// As [`TransferParts::refuse`].
    pub refuse: Vec<String>,
}

impl FilePermit {
    /// What was decided.
    pub fn into_parts(self) -> FileParts {
        let FilePermit {
            session,
            owner,
            container,
            refuse,
        } = self;
        FileParts {
            session,
            owner,
            container,
            refuse,
        }
    }
}

/// Trees of a sandbox that files go to and come from: those that the session may write.
const CONTAINER_TREES: [&str; 4] = [WORKSPACE_PATH, STATE_PATH, "/tmp", "/home/agent"];

/// The host's end of a transfer.
struct HostSide {
    root: PathBuf,
    relative: PathBuf,
}

impl Policy {
    /// Decides on a transfer. `owner` is who owns the session, `None` when there is no such session; `project` is its
    /// project directory, canonical.
    ///
    /// The decision is about the text of the paths only. Whoever carries it out opens `host_root` first and everything
    /// else beneath it, following no link, and asks [`crate::ProtectedPaths::matches_entry`] for each entry it writes.
    ///
    /// # Errors
    /// [`Reason::SessionNotFound`] for an unknown or foreign session; [`Reason::PathNotAllowed`],
    /// [`Reason::PathForbidden`], [`Reason::PathProtected`] or [`Reason::InvalidArgument`] for the paths.
    pub fn admit_transfer(
        &self,
        principal: &Principal,
        asked: &TransferFiles,
        owner: Option<&str>,
        project: &Path,
    ) -> Result<TransferPermit, Refusal> {
        self.require_owner(principal, owner, Need::new(Work::New, Scope::Files))?;
        if principal.remote().is_some() {
            return Err(no_host_path(asked.direction));
        }
        let (host, container, refuse) = match asked.direction {
            TransferDirection::ToContainer => {
                let host = self.host_side(principal, &asked.source, project, "sourcePath")?;
                let container = container_side(&asked.destination, "destPath")?;
                let refuse = match container.strip_prefix(WORKSPACE_PATH) {
                    Ok(relative) => self.refuse_below(relative, "destPath")?,
                    // Nothing outside the workspace ever reaches the host.
                    Err(_) => Vec::new(),
                };
                (host, container, refuse)
            }
            TransferDirection::FromContainer => {
                let container = container_side(&asked.source, "sourcePath")?;
                let host = self.host_side(principal, &asked.destination, project, "destPath")?;
                let refuse = self.refuse_below(&host.relative, "destPath")?;
                (host, container, refuse)
            }
        };
        Ok(TransferPermit {
            parts: TransferParts {
                session: asked.session,
                direction: asked.direction,
                host_root: host.root,
                host_relative: host.relative,
                container,
                refuse,
                max_entries: MAX_TRANSFER_ENTRIES,
                max_bytes: MAX_TRANSFER_BYTES,
            },
        })
    }

    /// Decides on a file whose content comes with the call.
    ///
    /// # Errors
    /// As for [`Policy::admit_transfer`]; [`Reason::TooLarge`] for a piece or a file beyond its bounds.
    pub fn admit_write_file(
        &self,
        principal: &Principal,
        asked: &WriteFile,
        owner: Option<&str>,
    ) -> Result<FilePermit, Refusal> {
        self.require_owner(principal, owner, Need::new(Work::New, Scope::Files))?;
        let length = asked.content.expose().len();
        let end = asked.offset.saturating_add(length as u64);
        if length > MAX_INLINE_BYTES || end > MAX_INLINE_FILE_BYTES {
            let message = format!(
                "{length} bytes that end at {end} are more than one call or one file may bring."
            );
            let hint = format!(
                "Send at most {MAX_INLINE_BYTES} bytes with a call and {MAX_INLINE_FILE_BYTES} for a file; inside, fetch larger \
                 ones with a command."
            );
            return Err(Refusal::new(Reason::TooLarge, message, hint).in_field("content"));
        }
        let container = container_side(&asked.destination, "destPath")?;
        let refuse = match container.strip_prefix(WORKSPACE_PATH) {
            Ok(relative) => self.refuse_below(relative, "destPath")?,
            Err(_) => Vec::new(),
        };
        Ok(FilePermit {
            session: asked.session,
            owner: principal.name(),
            container,
            refuse,
        })
    }

    /// Decides on a file whose content goes back with the reply.
    ///
    /// # Errors
    /// As for [`Policy::admit_transfer`].
    pub fn admit_read_file(
        &self,
        principal: &Principal,
        asked: &ReadFile,
        owner: Option<&str>,
    ) -> Result<FilePermit, Refusal> {
        self.require_owner(principal, owner, Need::new(Work::New, Scope::Files))?;
        Ok(FilePermit {
            session: asked.session,
            owner: principal.name(),
            container: container_side(&asked.source, "sourcePath")?,
            refuse: Vec::new(),
        })
    }

    fn host_side(
        &self,
        principal: &Principal,
        path: &Path,
        project: &Path,
        field: &str,
    ) -> Result<HostSide, Refusal> {
        let path = mounts::clean(path, field)?;
        if let Some(why) = self.forbidden.why_forbidden(&path) {
            let message = format!("Files are never copied to or from this path: {why}.");
            return Err(Refusal::new(
                Reason::PathForbidden,
                message,
                "Name a path below the project.",
            )
            .in_field(field));
        }
        let roots = Roots::of(principal, &self.config.project_roots, &self.forbidden);
        // The project may lie outside today's roots: it was below one when the session was created.
        let root = if path.starts_with(project) {
            project
        } else {
            roots.require(&path, field)?
        };
        let relative = path
            .strip_prefix(root)
            .map(Path::to_owned)
            .unwrap_or_default();
        Ok(HostSide {
            root: root.to_owned(),
            relative,
        })
    }

    fn refuse_below(&self, destination: &Path, field: &str) -> Result<Vec<String>, Refusal> {
        match self.protected.touches(destination) {
            Some(rule) => Err(protected(rule, field)),
            None => Ok(self.protected.refuse_patterns(destination)),
        }
    }
}

/// A remote caller has no disk here: content goes with the call and comes with the reply.
fn no_host_path(direction: TransferDirection) -> Refusal {
    let (field, hint) = match direction {
        TransferDirection::ToContainer => (
            "sourcePath",
            "Leave `sourcePath` out and give the file's `content`, or `contentBase64`.",
        ),
        TransferDirection::FromContainer => (
            "destPath",
            "Leave `destPath` out: the reply brings the file's content.",
        ),
    };
    let message = "A remote caller names no path of the server's disk.";
    Refusal::new(Reason::PathNotAllowed, message, hint).in_field(field)
}

fn protected(rule: &Rule, field: &str) -> Refusal {
    let message = format!(
        "The host would execute or trust `{}`. {}",
        rule.path().display(),
        rule.reason()
    );
    let hint = "Copy it under another name, and let a person put it in place.";
    Refusal::new(Reason::PathProtected, message, hint).in_field(field)
}

fn container_side(path: &Path, field: &str) -> Result<PathBuf, Refusal> {
    let path = mounts::clean(path, field)?;
    if CONTAINER_TREES.iter().any(|tree| path.starts_with(tree)) {
        return Ok(path);
    }
    let message = "Inside a session, files are copied to and from /workspace, /state, /tmp and /home/agent only.";
    Err(Refusal::new(
        Reason::PathNotAllowed,
        message,
        "Name a path below one of these.",
    )
    .in_field(field))
}
