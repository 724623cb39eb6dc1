//! Files whose content comes with the call, or goes back with its reply: whoever has no disk here carries them so.

use std::path::PathBuf;

use crate::{Secret, SessionId, UploadId};

/// Content of one call or one reply, bytes.
pub const MAX_INLINE_BYTES: usize = 256 * 1024;

/// See [`crate::Action::WriteFile`].
#[derive(Debug, Clone)]
pub struct WriteFile {
    /// Which session.
    pub session: SessionId,
    /// Where the file is to stand inside. Not looked at while more pieces are to come.
    pub destination: PathBuf,
    /// This piece of it.
    pub content: Secret<Vec<u8>>,
    /// The file of which this is a further piece; it is the first, or all, otherwise.
    pub upload: Option<UploadId>,
    /// Where the piece begins, bytes. Pieces come one after another.
    pub offset: u64,
    /// It is the last one, so the file is put in its place.
    pub is_last: bool,
}

/// See [`crate::Action::ReadFile`].
#[derive(Debug, Clone)]
pub struct ReadFile {
    /// Which session.
    pub session: SessionId,
    /// The file inside. Not looked at where `download` names a copy.
    pub source: PathBuf,
    /// The copy that an earlier reply named; the file itself, as it is now, otherwise.
    pub download: Option<UploadId>,
    /// From which byte on.
    pub offset: u64,
    /// Bytes at most.
    pub length: u64,
}

/// What was taken of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileWritten {
    /// The session.
    pub session: SessionId,
    /// Under which name further pieces come; `None` when the file stands in its place.
    pub upload: Option<UploadId>,
    /// Bytes of the file so far, or in all.
    pub bytes: u64,
    /// SHA-256 of them.
    pub sha256: [u8; 32],
}

/// What was read of a file.
#[derive(Debug, Clone)]
pub struct FileChunk {
    /// The session.
    pub session: SessionId,
    /// The bytes. Content of an untrusted program.
    pub content: Vec<u8>,
    /// Where they begin in the file.
    pub offset: u64,
    /// Bytes of the whole file.
    pub total_bytes: u64,
    /// SHA-256 of the whole file.
    pub sha256: [u8; 32],
    /// Under which name the rest is read; `None` when nothing is left.
    pub download: Option<UploadId>,
}
