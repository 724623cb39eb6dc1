//! What callers hand to the log. Nothing here can carry content or a secret into it: texts are short words and paths,
//! everything else is a digest and a length.

use std::path::PathBuf;

use model::{ClientInfo, Reason, SessionId, Source};

/// What is about to happen.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The action's name: `session.create`, `execution.start`, …
    pub action: &'static str,
    /// The session that it concerns, when it is known already; see [`crate::Entry::set_session`].
    pub session: Option<SessionId>,
    /// [`model::Principal::name`] of who asks.
    pub principal: String,
    /// With which program, as it names itself.
    pub client: ClientInfo,
    /// By which way.
    pub source: Source,
    /// What it is about; the session where nothing else is named.
    pub target: Option<Target>,
    /// What was asked for; see [`Parameter`]. At most [`crate::MAX_PARAMETERS`] are kept.
    pub parameters: Vec<(&'static str, Parameter)>,
}

/// What an action is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `session`, `execution`, `project`, `key`, …
    pub kind: &'static str,
    /// Its identifier or path: escaped, and capped at [`crate::MAX_PATH_BYTES`].
    pub id: String,
}

/// Something that happened without anybody asking: `server.start`, `server.stop`, `server.posture`, `session.expired`,
/// `session.reaped`, …
#[derive(Debug, Clone)]
pub struct Event {
    /// The event's name.
    pub action: &'static str,
    /// The session that it concerns.
    pub session: Option<SessionId>,
    /// Details.
    pub parameters: Vec<(&'static str, Parameter)>,
}

/// One value of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    /// A number.
    Number(u64),
    /// A short, identifier-like text. Escaped, and capped at [`crate::MAX_WORD_BYTES`].
    Word(String),
    /// A path. Escaped, and capped at [`crate::MAX_PATH_BYTES`].
    Path(PathBuf),
    /// Anything else (prompts, commands, file contents, values of variables): digest and length only.
    Content {
        /// SHA-256 of the content.
        sha256: [u8; 32],
        /// Its length, bytes.
        bytes: u64,
    },
}

impl Parameter {
    /// Digest and length of a content that must not be in the log.
    pub fn content(content: &[u8]) -> Self {
        use sha2::{Digest, Sha256};
        Parameter::Content {
            sha256: Sha256::digest(content).into(),
            bytes: content.len() as u64,
        }
    }
}

/// How sure a record must be before the action goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// For every change: the intent is on disk when [`crate::AuditLog::begin`] returns, else nothing may be changed.
    Durable,
    /// For destroy, cancel and expire, which must work on a full disk: the intent goes to the log, else to a reserve
    /// whose blocks were allocated at start, else the action proceeds and a gap is recorded later.
    Reserve,
    /// For reads: one line when the entry closes, not waited for. What could not be written is counted in a gap.
    Buffered,
}

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// It was done.
    Ok,
    /// It was not allowed.
    Denied(Reason),
    /// It was allowed and went wrong.
    Failed(Reason),
    /// It was given up.
    Aborted,
}
