//! The log for other programs and for people: which records ([`Filter`]), in which words ([`Format`]).
//!
//! Everything here reads lines that are written; nothing stands between an action and its record.

mod cef;
mod filter;
mod ocsf;
mod reader;
mod told;

pub use filter::{Filter, Pattern};
pub use reader::{Line, Reader};
pub use told::Told;

/// In which words a record is given on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// The line as it stands in the log, so that its hash can be checked elsewhere.
    #[default]
    Jsonl,
    /// An event of the Open Cybersecurity Schema Framework, version [`OCSF_VERSION`], one JSON object per line.
    Ocsf,
    /// ArcSight's Common Event Format, version 0.
    Cef,
}

/// The version of the schema that [`Format::Ocsf`] keeps to. Later versions of the same major number take its events, too.
pub const OCSF_VERSION: &str = ocsf::VERSION;

impl Format {
    /// All of them.
    pub const ALL: [Format; 3] = [Format::Jsonl, Format::Ocsf, Format::Cef];

    /// Its name in configuration and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Format::Jsonl => "jsonl",
            Format::Ocsf => "ocsf",
            Format::Cef => "cef",
        }
    }

    /// The format of that name.
    pub fn named(name: &str) -> Option<Format> {
        Format::ALL
            .into_iter()
            .find(|format| format.as_str() == name)
    }

    /// The record on one line, without a line feed. `host` is the name of the machine that wrote the log.
    pub fn render(self, line: &Line, host: &str) -> String {
        match self {
            Format::Jsonl => line.text.clone(),
            Format::Ocsf => ocsf::event(&line.record, host).to_string(),
            Format::Cef => cef::line(&line.record, host),
        }
    }
}
