//! `audit`: the log of what was done.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::parse_moment;

/// `audit …`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check the audit log: chain, seals, signatures, and that nothing is missing; exit code 1 names the first bad record
    ///
    /// All files of the log are read, the oldest first. What is known of its end from elsewhere (the state database, for the
    /// configured log) is compared.
    Verify {
        /// Which log; the configured one otherwise
        path: Option<PathBuf>,
        /// File with the verification key, as `audit key export` printed it; - is standard input
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// The log's public key, as `audit key show` printed it; otherwise the one that stands beside the log
        #[arg(long, value_name = "KEY")]
        public_key: Option<String>,
        /// A record that the log is known to have had, as `audit verify` printed it: number and hash
        #[arg(long, value_name = "SEQ:HASH")]
        anchor: Vec<String>,
        /// Records before this one are known to be gone
        #[arg(long, value_name = "SEQ")]
        from: Option<u64>,
    },
    /// The keys of the audit log
    #[command(subcommand)]
    Key(AuditKeyCommand),
    /// Print the last records, and with --follow those that come
    Tail(TailArguments),
    /// Print the records that fit, oldest first, over all files of the log
    ///
    /// Without conditions it prints them all. Exit code 1 when none fits.
    #[command(after_help = SEARCH_EXAMPLES)]
    Search(SearchArguments),
    /// Write records in a format for other programs: the log's own lines, OCSF events, CEF
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArguments),
    /// Print the tag under which an identity stands in the log
    ///
    /// For a name (uid:1000, key:ID, oauth:ID) or the text of an API key, of which only the id is used. The tag is another one in
    /// every installation.
    #[command(after_help = HASH_EXAMPLES)]
    Hash {
        /// A name, or an API key; - reads it from standard input
        #[arg(value_name = "NAME|KEY")]
        identity: String,
    },
}

const SEARCH_EXAMPLES: &str = "\
Examples:
  claude-code-mcp audit search --result denied --since 1d
  claude-code-mcp audit search --session 7c --action 'egress.*' --json
  claude-code-mcp audit search --actor uid:1000 --since 2026-11-22T10:00:00Z --until 2026-11-22T11:00:00Z";

const EXPORT_EXAMPLES: &str = "\
Examples:
  claude-code-mcp audit export --format ocsf --since 1d --output events.jsonl
  claude-code-mcp audit export --format cef | logger --server siem.example";

const HASH_EXAMPLES: &str = "\
Examples:
  claude-code-mcp audit hash uid:1000
  claude-code-mcp audit hash - < key.txt";

/// Flags of `audit tail`.
#[derive(Debug, Args)]
pub struct TailArguments {
    /// How many records
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub lines: u32,
    /// Go on with records that are written from now on, until it is interrupted
    #[arg(long, short)]
    pub follow: bool,
    /// Which records.
    #[command(flatten)]
    pub filter: FilterArguments,
    /// Which log; the configured one otherwise
    pub path: Option<PathBuf>,
}

/// Flags of `audit search`.
#[derive(Debug, Args)]
pub struct SearchArguments {
    /// Which records.
    #[command(flatten)]
    pub filter: FilterArguments,
    /// Which log; the configured one otherwise
    pub path: Option<PathBuf>,
}

/// Flags of `audit export`.
#[derive(Debug, Args)]
pub struct ExportArguments {
    /// In which format
    #[arg(long, value_parser = ["jsonl", "ocsf", "cef"], default_value = "jsonl", value_name = "FORMAT")]
    pub format: String,
    /// Write a new file, for its owner alone, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Which records.
    #[command(flatten)]
    pub filter: FilterArguments,
    /// Which log; the configured one otherwise
    pub path: Option<PathBuf>,
}

/// Which records of the audit log. All that is named must fit.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Records")]
pub struct FilterArguments {
    /// Of a session: its id or the beginning of it
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// Of a caller: a name (uid:1000), a tag of the log, or an API key (- reads one from standard input)
    #[arg(long, value_name = "NAME|KEY")]
    pub actor: Option<String>,
    /// Of an action; * and ? stand for any text and one character
    #[arg(long, value_name = "GLOB")]
    pub action: Option<String>,
    /// That ended so; pending are intents
    #[arg(long, value_name = "RESULT", value_parser = ["ok", "denied", "failed", "aborted", "unknown", "pending"])]
    pub result: Option<String>,
    /// Of an operation, which intent and result share
    #[arg(long, value_name = "ID")]
    pub operation: Option<String>,
    /// Written then or later: 2026-11-22T10:00:00Z, or 2h for that long ago
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub since: Option<jiff::Timestamp>,
    /// Written before
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub until: Option<jiff::Timestamp>,
    /// With that text somewhere in the line
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
}

/// `audit key …`
#[derive(Debug, Subcommand)]
pub enum AuditKeyCommand {
    /// Show the log's public key, and whether the verification key has been taken away
    Show {
        /// Which log; the configured one otherwise
        path: Option<PathBuf>,
    },
    /// Print the verification key and remove it from this machine: keep it where this machine is not
    Export {
        /// Which log; the configured one otherwise
        path: Option<PathBuf>,
    },
}
