//! The head file: which record was durable last. A chain alone cannot tell that its last records are missing.
//!
//! It is written after each sync of the log, without a sync of its own, so it may lag behind the log and never runs
//! ahead of it. Its block is allocated at start, so it needs no space on a full disk.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use sha2::{Digest, Sha256};

use crate::record::Link;

/// Suffix of the file.
pub(crate) const SUFFIX: &str = ".head";
/// Size of the file, bytes: all of it is written each time, within one sector.
const BYTES: usize = 256;
const TITLE: &str = "claude-code-mcp audit head v1";

/// What the head file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The last durable record.
    pub link: Link,
    /// Where in the log the `audit.open` record of the last run starts: no intent before it is open.
    pub run_offset: u64,
}

/// The number of the last record that is known to be durable; `None` where no head file stands beside the log.
pub fn durable_seq(log: &Path) -> Option<u64> {
    Head::read_beside(log).map(|head| head.link.seq)
}

impl Head {
    /// Reads the head file beside a log. `None`: none there, or none that is whole.
    pub fn read_beside(log: &Path) -> Option<Head> {
        let mut path = log.as_os_str().to_owned();
        path.push(SUFFIX);
        Head::read(&File::open(path).ok()?)
    }

    /// See [`Head::read_beside`].
    pub fn read(file: &File) -> Option<Head> {
        let mut bytes = [0; BYTES];
        file.read_exact_at(&mut bytes, 0).ok()?;
        Head::parse(std::str::from_utf8(&bytes).ok()?)
    }

    /// Writes the head file in place.
    pub fn write(&self, file: &File) -> io::Result<()> {
        file.write_all_at(self.to_text().as_bytes(), 0)
    }

    fn parse(text: &str) -> Option<Head> {
        let mut words = text.strip_prefix(TITLE)?.split_ascii_whitespace();
        let seq = words.next()?.parse().ok()?;
        let mut hash = [0; 32];
        hex::decode_to_slice(words.next()?, &mut hash).ok()?;
        let run_offset = words.next()?.parse().ok()?;
        let head = Head {
            link: Link { seq, hash },
            run_offset,
        };
        (head.to_text() == text).then_some(head)
    }

    fn to_text(self) -> String {
        let line = format!(
            "{TITLE}\n{} {} {}",
            self.link.seq,
            hex::encode(self.link.hash),
            self.run_offset
        );
        let check = hex::encode(&Sha256::digest(&line)[..8]);
        format!(
            "{:<width$}\n",
            format!("{line}\n{check}"),
            width = BYTES - 1
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_and_any_change_makes_it_no_head() {
        let head = Head {
            link: Link {
                seq: u64::MAX,
                hash: [0xab; 32],
            },
            run_offset: u64::MAX,
        };
        let text = head.to_text();
        assert_eq!(text.len(), BYTES);
        assert_eq!(Head::parse(&text), Some(head));
        for at in 0..BYTES {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(
                std::str::from_utf8(&bytes).ok().and_then(Head::parse),
                None,
                "byte {at}"
            );
        }
    }
}
