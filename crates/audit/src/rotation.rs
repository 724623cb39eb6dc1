//! When the log goes on in a new file, and which old ones are no longer kept.

use std::{path::PathBuf, time::Duration};

use jiff::{SignedDuration, Timestamp};

use crate::{record::Link, segments::Segment};

/// When to rotate and what to keep. The default: never, and everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotation {
    /// A file of this size is the last of its records' files, bytes; it is exceeded by what is written in one go.
    pub size_bytes: Option<u64>,
    /// A file whose first record is as old as this is not written any more.
    pub interval: Option<Duration>,
    /// So many files are kept beside the current one.
    pub keep_files: Option<u32>,
    /// A file is kept for so long after its last record.
    pub keep: Option<Duration>,
}

impl Rotation {
    /// Whether files are removed at all.
    pub(crate) const fn removes(&self) -> bool {
        self.keep_files.is_some() || self.keep.is_some()
    }

    /// Why a file of that size and with that first record is full, if it is.
    pub(crate) fn is_due(
        &self,
        bytes: u64,
        first: Timestamp,
        now: Timestamp,
    ) -> Option<&'static str> {
        if self.size_bytes.is_some_and(|limit| bytes >= limit) {
            return Some("size");
        }
        self.interval
            .is_some_and(|interval| is_older(first, interval, now))
            .then_some("interval")
    }

    /// Files that are no longer kept, and the last record in them. `segments` are all of the log, oldest first. Only whole
    /// files go, the oldest first.
    pub(crate) fn expired(
        &self,
        segments: &[Segment],
        now: Timestamp,
    ) -> Option<(Vec<PathBuf>, Link)> {
        let older = segments.len().saturating_sub(1);
        let too_many = self
            .keep_files
            .map_or(0, |keep| older.saturating_sub(keep as usize));
        let too_old = self.keep.map_or(0, |keep| {
            let ended = |at: usize| {
                let next = segments.get(at + 1)?;
                next.with_first(|sound| sound.timestamp.parse::<Timestamp>().ok())?
            };
            (0..older)
                .take_while(|at| ended(*at).is_some_and(|ended| is_older(ended, keep, now)))
                .count()
        });
        let expired = too_many.max(too_old);
        let last = segments
            .get(expired)?
            .with_first(|sound| sound.link_before())??;
        let paths = segments[..expired]
            .iter()
            .map(|segment| segment.path.clone());
        (expired > 0).then(|| (paths.collect(), last))
    }
}

fn is_older(time: Timestamp, than: Duration, now: Timestamp) -> bool {
    SignedDuration::try_from(than).is_ok_and(|than| now.duration_since(time) >= than)
}
