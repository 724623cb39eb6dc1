//! What goes wrong on the way, each with a stable code and the next thing to do.

use std::{io, path::PathBuf};

/// Why there is no Claude Code in the store afterwards that was not there before.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The built-in table does not parse.
    #[error("the built-in profiles/claude-code.json is malformed")]
    Pins(#[source] serde_json::Error),
    /// The built-in table contradicts itself.
    #[error("the built-in profiles/claude-code.json has {0:?} where a digest belongs")]
    PinsInconsistent(String),
    /// No pin for this machine.
    #[error("no Claude Code is pinned for {here}, only for {}", .known.join(" and "))]
    Platform {
        /// This machine.
        here: String,
        /// What is pinned.
        known: Vec<String>,
    },
    /// A URL that cannot be used.
    #[error("{url} {why}")]
    Url {
        /// Which, without a password.
        url: String,
        /// Why, as a phrase after it.
        why: &'static str,
    },
    /// Nothing answers.
    #[error("{url} cannot be reached")]
    Unreachable {
        /// Which, without a password.
        url: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// An answer that is none.
    #[error("{url} answered with status {status}")]
    Status {
        /// Which, without a password.
        url: String,
        /// HTTP's code.
        status: u16,
    },
    /// An answer in another form than asked for.
    #[error("{url} {why}")]
    Answer {
        /// Which, without a password.
        url: String,
        /// What is wrong with it, as a phrase after it.
        why: String,
    },
    /// The pinned file is no longer offered.
    #[error("{index} does not have {file}: it was withdrawn, or never was there{}", instead(.newest.as_deref()))]
    Withdrawn {
        /// The file.
        file: String,
        /// Who had it.
        index: String,
        /// The newest version that is offered instead.
        newest: Option<String>,
    },
    /// The pinned file is marked as not to be used.
    #[error("{file} was withdrawn (yanked) by its makers: {reason}{}", instead(.newest.as_deref()))]
    Yanked {
        /// The file.
        file: String,
        /// What they say.
        reason: String,
        /// The newest version that is offered instead.
        newest: Option<String>,
    },
    /// A download that ended early or stood still, more than once.
    #[error("the download of {url} ended after {got} bytes of {wanted}")]
    Cut {
        /// Which, without a password.
        url: String,
        /// What came.
        got: u64,
        /// What should have come, or a question mark.
        wanted: String,
        /// Why.
        #[source]
        source: Option<io::Error>,
    },
    /// More than there can be.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What.
        what: String,
        /// The bound.
        limit: u64,
    },
    /// Not the file that was pinned.
    #[error("{what} has the SHA-256 {found}, but {wanted} is pinned")]
    Mismatch {
        /// What.
        what: String,
        /// Its hash.
        found: String,
        /// The hash that it should have.
        wanted: String,
    },
    /// A file that no pin knows, and nobody said that this is meant.
    #[error("{what} has the SHA-256 {found}, which is not the pinned one ({wanted})")]
    Unpinned {
        /// What.
        what: String,
        /// Its hash.
        found: String,
        /// The hash of the pin.
        wanted: String,
    },
    /// An archive that is damaged, hostile, or holds no program.
    #[error("{what} {why}")]
    Archive {
        /// Which.
        what: String,
        /// What is wrong with it, as a phrase after it.
        why: String,
    },
    /// No room.
    #[error("{path} has {available} bytes free, and {needed} are needed", path = path.display())]
    Room {
        /// Where.
        path: PathBuf,
        /// Free bytes.
        available: u64,
        /// Needed bytes.
        needed: u64,
    },
    /// A file of the store, or one that was named.
    #[error("cannot {step} {path}", path = path.display())]
    File {
        /// What was done.
        step: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was asked for is not in the store.
    #[error("{0}")]
    NotInstalled(String),
    /// A sandbox has it.
    #[error("Claude Code {sha256} is mounted into a session (process {pid})")]
    InUse {
        /// Which.
        sha256: String,
        /// A process that sees it.
        pid: String,
    },
    /// What is in the store is not what was put there.
    #[error("{path} {why}", path = path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why, as a phrase after it.
        why: String,
    },
}

const NO_ROOM: &str = "Make room there, remove old ones (claude-code-mcp agent remove --unused), or use another \
    --state-dir.";

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
}

fn instead(version: Option<&str>) -> String {
    version.map_or_else(String::new, |version| {
        format!("; the newest one there is {version}")
    })
}

impl InstallError {
    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            InstallError::Pins(_) | InstallError::PinsInconsistent(_) => "internal",
            InstallError::Platform { .. } => "agent_platform_unknown",
            InstallError::Url { .. } => "agent_url_refused",
            InstallError::Unreachable { .. } => "agent_source_unreachable",
            InstallError::Status { .. } | InstallError::Answer { .. } => "agent_source_failed",
            InstallError::Withdrawn { .. } | InstallError::Yanked { .. } => "agent_pin_withdrawn",
            InstallError::Cut { .. } => "agent_download_interrupted",
            InstallError::TooLarge { .. } | InstallError::Archive { .. } => "agent_archive_refused",
            InstallError::Mismatch { .. } => "agent_hash_mismatch",
            InstallError::Unpinned { .. } => "agent_unpinned",
            InstallError::Room { .. } => "agent_no_space",
            InstallError::File { source, .. } if is_full(source) => "agent_no_space",
            InstallError::File { .. } => "agent_file_failed",
            InstallError::NotInstalled(_) => "agent_not_installed",
            InstallError::InUse { .. } => "agent_in_use",
            InstallError::Damaged { .. } => "agent_damaged",
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            InstallError::Pins(_) | InstallError::PinsInconsistent(_) => {
                "This is a fault of the program; please report it.".to_owned()
            }
            InstallError::Platform { .. } => {
                "Fetch Claude Code in another way and register it: claude-code-mcp agent install --use PATH".to_owned()
            }
            InstallError::Url { .. } => {
                "Name an https:// address with --index (plain http:// only on this machine).".to_owned()
            }
            InstallError::Unreachable { .. } => {
                "Check the network, HTTPS_PROXY and SSL_CERT_FILE; name a mirror with --index (or UV_INDEX_URL, for npm \
                 npm_config_registry); or bring the file from another machine: claude-code-mcp agent install --from-file FILE"
                    .to_owned()
            }
            InstallError::Status { .. } | InstallError::Answer { .. } => {
                "Name another index with --index, try --source npm, or bring the file: --from-file FILE".to_owned()
            }
            InstallError::Withdrawn { newest, .. } | InstallError::Yanked { newest, .. } => {
                withdrawn(newest.as_deref(), matches!(self, InstallError::Yanked { .. }))
            }
            InstallError::Cut { .. } => {
                "Run it again: what was fetched is kept, and the download goes on from there.".to_owned()
            }
            InstallError::TooLarge { .. } | InstallError::Archive { .. } => {
                "Nothing was installed. Fetch the file again, or from another source.".to_owned()
            }
            InstallError::Mismatch { .. } => {
                "Nothing was installed, and what was fetched is deleted. Somebody between here and the makers changed it, or \
                 the index serves another build: try another index, and do not use this file."
                    .to_owned()
            }
            InstallError::Unpinned { .. } => {
                "If you trust it, add --accept-unpinned; its hash is then recorded as not checked by us.".to_owned()
            }
            InstallError::Room { .. } => NO_ROOM.to_owned(),
            InstallError::File { source, .. } if is_full(source) => NO_ROOM.to_owned(),
            InstallError::File { .. } => "Check the path and its permissions.".to_owned(),
            InstallError::NotInstalled(_) => {
                "List what there is: claude-code-mcp agent list; install: claude-code-mcp agent install".to_owned()
            }
            InstallError::InUse { .. } => {
                "End the sessions that use it first: claude-code-mcp session list, claude-code-mcp session destroy.".to_owned()
            }
            InstallError::Damaged { .. } => {
                "Remove it and install it anew: claude-code-mcp agent remove HASH, claude-code-mcp agent install".to_owned()
            }
        }
    }
}

fn withdrawn(newest: Option<&str>, still_there: bool) -> String {
    let mut ways = vec![
        "Update claude-code-mcp, whose newer releases pin a newer one".to_owned(),
        "bring the pinned file from a machine or cache that has it (--from-file FILE)".to_owned(),
    ];
    if let Some(version) = newest {
        ways.push(format!(
            "take the newest on your own judgement (--sdk-version {version} --accept-unpinned)"
        ));
    }
    if still_there {
        ways.push("or take it although it is withdrawn (--accept-yanked)".to_owned());
    }
    format!("{}.", ways.join("; "))
}
