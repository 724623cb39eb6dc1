//! What is kept of a conversation on the host: one JSON object a line, in the order in which things happened. It is the
//! transcript that its owner can read, and from it a server that was killed finds out where the conversation stands. The
//! first line names the format; a journal of another one is refused, not guessed at.
//!
//! Output of the program is written here before it is acknowledged inside, so nothing of it is lost in between; pieces of
//! answers are not kept, as the whole answer follows. Each byte of output is written twice at most, and no more than
//! [`MAX_BYTES`] in all. Not synchronised: the sandbox does not outlive the machine either.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{ExecutionId, PromptOptions, PromptView};
use serde::{Deserialize, Serialize};

use crate::conversation::now_ms;

/// The format that is written and read. 1 had no line that said so.
const FORMAT: u32 = 2;
/// Size from which on only what decides is kept of the program's output, bytes.
const FULL_BYTES: u64 = 64 * 1024 * 1024;
/// Size from which on only ends are taken, bytes: what a sandbox says must not fill the host's disk.
pub const MAX_BYTES: u64 = 128 * 1024 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "entry",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Entry {
    /// The first line.
    Journal {
        /// Its format.
        format: u32,
    },
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
        /// The line as it came, JSON; absent where it was too long or is none.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        line: Option<String>,
    },
    /// More of a line that is not complete, which was acknowledged. It goes on with the entry before if it begins where that
    /// ended, and begins a line if not.
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
        /// The last that there is to see of it; its `stop` says how it ended.
        view: Box<PromptView>,
        /// Why it failed, in a sentence.
        failure: Option<String>,
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

    /// Must be on record even where nothing else has room: there are few, and they are short.
    const fn is_end(&self) -> bool {
        matches!(
            self,
            Entry::Ended { .. } | Entry::Gone { .. } | Entry::Answered { .. }
        )
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
    /// Half a line stands at its end and cannot be taken away.
    is_broken: bool,
}

impl Journal {
    /// Opens or makes it, readable by the server's user alone, and gives what stands in it, with milliseconds since 1970, to
    /// `take`. A last line that was cut off is taken away.
    ///
    /// # Errors
    /// When the file cannot be used, or `InvalidData` where a line in it is not ours or its format is another.
    pub fn open(path: &Path, mut take: impl FnMut(u64, Entry)) -> io::Result<Journal> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.open(path)?;
        let mut reader = BufReader::new(&file);
        let (mut bytes, mut line) = (0, Vec::new());
        loop {
            line.clear();
            let count = reader.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                break;
            }
            if bytes == 0 {
                check_format(&line)?;
            } else {
                let Stamped { at_ms, entry } = serde_json::from_slice(&line)?;
                take(at_ms, entry);
            }
            bytes += count as u64;
        }
        let is_broken = false;
        let mut journal = Journal {
            file,
            bytes,
            is_broken,
        };
        // Only where something is cut off, as it would count as a change.
        if !line.is_empty() {
            journal.take_back()?;
        }
        journal.file.seek(SeekFrom::Start(bytes))?;
        if bytes == 0 {
            journal.add(&Entry::Journal { format: FORMAT })?;
        }
        Ok(journal)
    }

    /// Adds a line, or nothing.
    ///
    /// # Errors
    /// When it cannot be written, or [`is_too_long`].
    pub fn add(&mut self, entry: &Entry) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("half a line stands at its end"));
        }
        if self.bytes >= MAX_BYTES && !entry.is_end() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let at_ms = now_ms();
        let mut line = serde_json::to_vec(&Stamped { at_ms, entry })?;
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            // What follows must not stand behind half a line.
            self.is_broken = self.take_back().is_err();
            return Err(error);
        }
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Takes away what stands behind the last whole line.
    fn take_back(&mut self) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.file.seek(SeekFrom::Start(self.bytes)).map(|_| ())
    }

    /// Only what decides is kept from now on.
    pub const fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES
    }
}

/// Whether an entry was refused for the journal's length alone: the conversation has said all that is kept of one.
pub fn is_too_long(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::FileTooLarge
}

fn check_format(line: &[u8]) -> io::Result<()> {
    match serde_json::from_slice::<Stamped<Entry>>(line).map(|line| line.entry) {
        Ok(Entry::Journal { format: FORMAT }) => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the journal was written by another version (this one reads format {FORMAT})"),
        )),
    }
}

pub(crate) fn partial_bytes(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let id = ExecutionId::from_bytes([7; 16]);
        let conversation = "6f1f9a52-5e8d-4c37-9b0e-0a4cf2b7d911".parse().unwrap();
        vec![
            Entry::Prompt {
                execution: id,
                text: "do\nit".to_owned(),
                options: PromptOptions::default(),
                deadline_ms: Some(5),
            },
            Entry::Output {
                end: 12,
                line: Some(r#"{"type": "result", "entry": "not ours", "atMs": 3e15}"#.to_owned()),
            },
            Entry::partial(14, &[0xff, b'\n']),
            Entry::Ended {
                execution: id,
                view: Box::new(PromptView::new(conversation)),
                failure: None,
            },
        ]
    }

    fn open(path: &Path) -> io::Result<(Journal, Vec<Entry>)> {
        let mut entries = Vec::new();
        let journal = Journal::open(path, |_, entry| entries.push(entry))?;
        Ok((journal, entries))
    }

    fn fresh() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        (directory, path)
    }

    #[test]
    fn a_journal_reads_back_what_was_written_and_loses_at_most_the_line_that_was_cut() {
        let (_directory, path) = fresh();
        let (mut journal, found) = open(&path).unwrap();
        assert_eq!(found, []);
        for entry in entries() {
            journal.add(&entry).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(open(&path).unwrap().1, entries());
        let mut counts = Vec::new();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, found) = open(&path).unwrap();
            assert_eq!(found, entries()[..found.len()]);
            journal.add(&entries()[3]).unwrap();
            assert_eq!(open(&path).unwrap().1.len(), found.len() + 1);
            counts.push(found.len());
        }
        counts.dedup();
        assert_eq!(counts, [0, 1, 2, 3]);
    }

    #[test]
    fn a_journal_of_another_format_is_refused_and_left_as_it_is() {
        let (_directory, path) = fresh();
        let prompt = r#"{"atMs":1,"entry":"gone","process":"07070707070707070707070707070707"}"#;
        for first in [
            prompt,
            r#"{"atMs":1,"entry":"journal","format":3}"#,
            "{}",
            "",
        ] {
            let text = format!("{first}\n{prompt}\n");
            std::fs::write(&path, &text).unwrap();
            let error = open(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{first}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn opening_a_whole_journal_is_no_change_of_it() {
        let (_directory, path) = fresh();
        open(&path).unwrap().0.add(&entries()[0]).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(long_ago).unwrap();
        open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().modified().unwrap(), long_ago);
    }

    #[test]
    fn what_failed_to_be_written_is_taken_back_and_where_that_fails_nothing_follows() {
        let (_directory, path) = fresh();
        let mut journal = open(&path).unwrap().0;
        journal.file.write_all(b"{\"atMs\":1,\"ent").unwrap();
        journal.take_back().unwrap();
        journal.add(&entries()[0]).unwrap();
        assert_eq!(open(&path).unwrap().1, entries()[..1]);
        let writable = std::mem::replace(&mut journal.file, File::open(&path).unwrap());
        assert!(journal.add(&entries()[3]).is_err());
        journal.file = writable;
        assert!(journal.add(&entries()[3]).is_err(), "behind half a line");
        assert_eq!(open(&path).unwrap().1, entries()[..1]);
    }

    #[test]
    fn a_journal_has_an_end_but_for_ends() {
        let (_directory, path) = fresh();
        let mut journal = open(&path).unwrap().0;
        journal.bytes = MAX_BYTES - 1;
        journal.add(&entries()[1]).unwrap();
        for entry in &entries()[..3] {
            assert!(is_too_long(&journal.add(entry).unwrap_err()));
        }
        journal.add(&entries()[3]).unwrap();
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let (_directory, path) = fresh();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(open(&path).is_err());
    }
}
