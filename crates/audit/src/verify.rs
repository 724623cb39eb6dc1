//! Checking a log: its chain, its MACs, its signatures, and that nothing is missing.

mod check;
mod report;

use std::{fs::File, io, path::Path};

use rustix::fs::FlockOperation;

use crate::{
    Anchored, PublicKey, VerificationKey,
    head::Head,
    lines::LogLines,
    ratchet::{self, Held},
    record::Link,
    segments, sign,
};

use check::Check;
pub use report::{Fault, FaultKind, OpenIntent, VerifyError, VerifyReport, Warning};

/// What a log is checked against, beside what stands in it.
#[derive(Debug, Default)]
pub struct Verification {
    /// The key to check MACs with; without it, `NAME.verify-key` beside the log is used if it is there.
    pub key: Option<VerificationKey>,
    /// The key to check signatures with; without it, the one whose secret half stands beside the log, or else the one that
    /// the log names itself.
    pub public_key: Option<PublicKey>,
    /// What is known of the log's end from elsewhere.
    pub anchors: Vec<Anchored>,
    /// The first record that must be there: those before are known to be gone, though no `audit.pruned` says so.
    pub from_seq: Option<u64>,
}

/// As [`Verification::run`], with what stands beside the log.
///
/// # Errors
/// [`VerifyError::Tampered`] names the first bad record.
pub fn verify(path: &Path) -> Result<VerifyReport, VerifyError> {
    Verification::default().run(path)
}

/// What was found beside a log.
struct Beside {
    durable: Vec<Link>,
    has_head: bool,
    verification_key: Option<VerificationKey>,
    public_key: Option<PublicKey>,
}

impl Beside {
    fn read(path: &Path) -> Beside {
        let open = |suffix: &str| {
            let mut path = path.as_os_str().to_owned();
            path.push(suffix);
            File::open(path).ok()
        };
        let text = |suffix| io::read_to_string(open(suffix)?).ok();
        let head = Head::read_beside(path);
        let held = open(ratchet::SUFFIX).and_then(|file| Held::read(&file));
        let links = [head.map(|head| head.link), held.map(|held| held.since)];
        Beside {
            durable: links
                .into_iter()
                .flatten()
                .filter(|link| *link != Link::START)
                .collect(),
            has_head: head.is_some(),
            verification_key: text(ratchet::VERIFICATION_SUFFIX)
                .and_then(|text| VerificationKey::parse(&text)),
            public_key: text(sign::PUBLIC_SUFFIX).and_then(|text| PublicKey::parse(&text)),
        }
    }
}

impl Verification {
    /// Checks all files of a log: every record's hash and spelling, the chain, the MACs if there is a verification key, the
    /// signatures of checkpoints, and that nothing is missing before what is known to have been durable: from `NAME.head`,
    /// `NAME.key` and the anchors. A server may go on writing and rotating meanwhile.
    ///
    /// # Errors
    /// [`VerifyError::Tampered`] names the first bad record.
    pub fn run(self, path: &Path) -> Result<VerifyReport, VerifyError> {
        // What was durable is read before the files: it never runs ahead of them.
        let beside = Beside::read(path);
        let segments = segments::open_segments(path)?;
        if segments.last().is_none_or(|last| last.path != path) {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        }
        let current = segments
            .last()
            .map(|last| last.file.try_clone())
            .transpose()?;
        let mut check = Check::new(self, beside);
        let mut lines = LogLines::new(segments);
        while let Some(line) = lines.next()? {
            let (bytes, complete) = match check.takes(line.bytes, line.complete) {
                Ok(true) => continue,
                Ok(false) => (line.bytes.to_vec(), line.complete),
                Err(kind) => return Err(check.fault_here(kind, &lines)),
            };
            match check.jumps(&bytes, complete, &mut lines)? {
                Ok(true) => continue,
                Ok(false) => {}
                Err(kind) => return Err(check.fault_here(kind, &lines)),
            }
            let unfinished = check.is_unfinished(complete, &mut lines)?;
            if unfinished && current.as_ref().is_some_and(is_being_written) {
                check.warn(Warning::WriteInProgress);
                break;
            }
            return Err(check.fault_at(&bytes, complete, &mut lines)?);
        }
        check.finish(&lines)
    }
}

/// A server holds the log's lock.
fn is_being_written(file: &File) -> bool {
    matches!(
        rustix::fs::flock(file, FlockOperation::NonBlockingLockShared),
        Err(rustix::io::Errno::WOULDBLOCK)
    )
}
