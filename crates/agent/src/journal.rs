//! What is kept of a conversation on the host: one JSON object a line, in the order in which things happened. It is the
//! transcript that its owner can read, and from it a server that was killed finds out where the conversation stands.
//!
//! Output of the program is written here before it is acknowledged inside, so nothing of it is lost in between; pieces of
//! answers are not kept, as the whole answer follows. Not synchronised: the sandbox does not outlive the machine either.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{ExecutionId, PromptOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Size from which on only what decides is kept of the program's output, bytes.
const FULL_BYTES: u64 = 64 * 1024 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "entry",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Entry {
    /// Somebody asks for something.
    Prompt {
        /// The prompt's execution.
        execution: ExecutionId,
        /// Its words.
        text: String,
        /// How it is to be done.
        options: PromptOptions,
        /// When it ends at the latest, milliseconds since 1970.
        deadline_ms: Option<u64>,
    },
    /// A process of Claude Code is started.
    Process {
        /// Its execution in the sandbox.
        process: ExecutionId,
        /// What it was started for.
        options: PromptOptions,
    },
    /// A prompt has its turn.
    Begun {
        /// The prompt's execution.
        execution: ExecutionId,
        /// The `uuid` of its message.
        message: String,
    },
    /// The whole message was written.
    Sent {
        /// The prompt's execution.
        execution: ExecutionId,
    },
    /// A line of the process's output.
    Output {
        /// Offset after it in the process's output.
        end: u64,
        /// The line; absent where it was too long, or the journal is full.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        event: Option<Value>,
    },
    /// The beginning of a line, which was acknowledged.
    Partial {
        /// Offset after it.
        end: u64,
        /// Its bytes, base64.
        bytes: String,
    },
    /// A request of the process was answered.
    Answered {
        /// The request's id.
        request: String,
    },
    /// A prompt ended.
    Ended {
        /// The prompt's execution.
        execution: ExecutionId,
    },
    /// The process is gone.
    Gone {
        /// Its execution in the sandbox.
        process: ExecutionId,
    },
}

impl Entry {
    pub(crate) fn partial(end: u64, bytes: &[u8]) -> Self {
        Entry::Partial {
            end,
            bytes: STANDARD.encode(bytes),
        }
    }
}

/// A line as it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stamped<E> {
    pub(crate) at_ms: u64,
    #[serde(flatten)]
    pub(crate) entry: E,
}

/// See the module.
#[derive(Debug)]
pub struct Journal {
    file: File,
    bytes: u64,
}

impl Journal {
    /// Opens or makes it, readable by the server's user alone, and reads what stands in it. A last line that was cut off is
    /// taken away.
    ///
    /// # Errors
    /// When the file cannot be used, or a line in it is not ours.
    pub fn open(path: &Path) -> io::Result<(Journal, Vec<Entry>)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let mut file = options.open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let complete = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |last| last + 1);
        file.set_len(complete as u64)?;
        file.seek(SeekFrom::End(0))?;
        let entries = text[..complete]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| Ok(serde_json::from_slice::<Stamped<Entry>>(line)?.entry))
            .collect::<io::Result<_>>()?;
        let bytes = complete as u64;
        Ok((Journal { file, bytes }, entries))
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When it cannot be written; half a line is then taken away by the next [`Journal::open`].
    pub fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let at_ms = since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        let mut line = serde_json::to_vec(&Stamped { at_ms, entry })?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Only what decides is kept from now on.
    pub const fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES
    }
}

pub(crate) fn partial_bytes(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entries() -> Vec<Entry> {
        let id = ExecutionId::from_bytes([7; 16]);
        vec![
            Entry::Prompt {
                execution: id,
                text: "do\nit".to_owned(),
                options: PromptOptions::default(),
                deadline_ms: Some(5),
            },
            Entry::Output {
                end: 12,
                event: Some(json!({"type": "result", "entry": "not ours", "atMs": 3})),
            },
            Entry::partial(14, &[0xff, b'\n']),
            Entry::Ended { execution: id },
        ]
    }

    #[test]
    fn a_journal_reads_back_what_was_written_and_loses_at_most_the_line_that_was_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        let (mut journal, found) = Journal::open(&path).unwrap();
        assert_eq!(found, []);
        for entry in entries() {
            journal.add(&entry).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, entries());
        let mut counts = Vec::new();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, found) = Journal::open(&path).unwrap();
            assert_eq!(found, entries()[..found.len()]);
            journal.add(&entries()[3]).unwrap();
            assert_eq!(Journal::open(&path).unwrap().1.len(), found.len() + 1);
            counts.push(found.len());
        }
        counts.dedup();
        assert_eq!(counts, [0, 1, 2, 3]);
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(Journal::open(&path).is_err());
    }
}
