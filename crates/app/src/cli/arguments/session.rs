//! `session`: sessions, and what runs in them.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::{
    EnvironmentArguments, NetworkArguments, PromptArguments,
    values::{parse_some_cpus, parse_time},
};
use crate::config::units::parse_size;

/// `session …`
///
/// SESSION is a session's id, a unique beginning of it, or its name.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// Create a session on a project directory
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Box<CreateArguments>),
    /// List sessions
    List {
        /// Also those that have ended; they are on record for a day
        #[arg(long, short)]
        all: bool,
    },
    /// Show a session: its limits, what protects it, what it uses
    Show {
        /// Which session
        session: String,
    },
    /// Run a command in a session
    ///
    /// Standard output and error arrive as they are written, byte for byte. Standard input is passed on when it is not a
    /// terminal. Ctrl-C ends the command and everything it started.
    #[command(after_help = EXEC_EXAMPLES)]
    Exec(ExecArguments),
    /// Give Claude Code a prompt in a session
    ///
    /// Shows on standard error what Claude Code does, and prints its answer on standard output. The prompt goes on with the
    /// conversation that the session has, and waits for its turn there. Ctrl-C cancels it; with --detach it goes on by
    /// itself, and `session attach` shows it. Exit codes as in `run --help`.
    #[command(after_help = PROMPT_EXAMPLES)]
    Prompt(Box<SessionPromptArguments>),
    /// Follow the prompt or command that runs in a session
    ///
    /// A prompt is shown from its beginning on, a command from its first kept output. Leaving (Ctrl-C) ends nothing.
    /// Exit codes as in `run --help`; of a command, its own.
    Attach {
        /// Which session, or an execution of it: x-…
        #[arg(value_name = "SESSION|EXECUTION")]
        target: String,
    },
    /// Show what Claude Code asks in a session, or answer it
    #[command(after_help = APPROVE_EXAMPLES)]
    Approve(ApproveArguments),
    /// Show what was said and done in a conversation of a session
    ///
    /// Also of a session that has ended, while it is on record: for a day.
    Transcript {
        /// Which session
        session: String,
        /// Which conversation, as the JSON of a prompt names it (conversationId); the one that was written to last otherwise
        #[arg(long, value_name = "ID")]
        conversation: Option<String>,
    },
    /// Open an interactive shell in a session
    Shell {
        /// Which session
        session: String,
    },
    /// Show what happened in a session
    Logs {
        /// Which session
        session: String,
        /// Only the last lines, 1 to 1000
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        tail: u32,
        /// Go on and print new lines as they come
        #[arg(long, short)]
        follow: bool,
    },
    /// Copy a file or directory into or out of a session
    #[command(
        after_help = "Examples:\n  claude-code-mcp session cp ./data.csv demo:/tmp/data.csv\n  claude-code-mcp session cp demo:/tmp/report.html .\n\nA destination that is an existing directory here, or ends with a slash, gets the copy inside.\nWrite ./name for a local file whose name holds a colon."
    )]
    Cp {
        /// What to copy: a path here, or SESSION:PATH
        source: String,
        /// Where to: a path here, or SESSION:PATH
        destination: String,
    },
    /// Destroy sessions and everything of them but the project's files
    #[command(
        visible_alias = "rm",
        override_usage = "claude-code-mcp session destroy [OPTIONS] <SESSIONS>...\n       claude-code-mcp session destroy --all"
    )]
    Destroy {
        /// Which sessions
        #[arg(required_unless_present = "all")]
        sessions: Vec<String>,
        /// All of this user's live sessions
        #[arg(long, conflicts_with = "sessions")]
        all: bool,
    },
    /// Let a session reach more hosts while it runs, of those that the operator allows
    Allow {
        /// Which session
        session: String,
        /// Hosts: example.com, *.example.com:80,443; port 443 where none is named
        #[arg(required = true, value_name = "HOST[:PORT]")]
        hosts: Vec<String>,
    },
    /// Say no to a host that a session wants to reach, for as long as the session lives
    Deny {
        /// Which session
        session: String,
        /// The host, exact; port 443 where none is named
        #[arg(value_name = "HOST[:PORT]")]
        target: String,
    },
    /// Let a session live longer
    Extend {
        /// Which session
        session: String,
        /// By how much: 90s, 15m, 2h
        #[arg(value_parser = parse_time, value_name = "DURATION")]
        by: Duration,
    },
}

const CREATE_EXAMPLES: &str = "\
Examples:
  claude-code-mcp session create                      a session on the current directory
  claude-code-mcp session create ~/src/app --name app --memory 2g --cpus 1.5 --ttl 2h
  claude-code-mcp session create --mount /srv/data:/data --env-from CI
  claude-code-mcp session create --network-preset github --allow-host registry.example.com
  claude-code-mcp session create --docker-opts '{\"Memory\": \"2g\", \"CpuQuota\": 50000}'";

/// Flags of `session create`.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// Project directory; it becomes /workspace inside
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// Name for people
    #[arg(long)]
    pub name: Option<String>,
    /// What its walls are made of; the server's choice otherwise
    #[arg(long, value_parser = ["native", "docker"], value_name = "BACKEND")]
    pub backend: Option<String>,
    /// On an engine: one of the operator's runtime classes, such as runsc
    #[arg(long, value_name = "NAME")]
    pub runtime_class: Option<String>,
    /// Lifetime: 90s, 15m, 2h, 1d; the server cuts it to its max_session_timeout, and that is said
    #[arg(long, value_parser = parse_time, value_name = "DURATION")]
    pub ttl: Option<Duration>,
    /// End it after that long without a running command or a call
    #[arg(long, value_parser = parse_time, value_name = "DURATION")]
    pub idle: Option<Duration>,
    /// Environment of every command in it.
    #[command(flatten)]
    pub environment: EnvironmentArguments,
    /// Memory and swap together: 512m, 2g
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub memory: Option<u64>,
    /// CPUs: 2, 0.5
    #[arg(long, value_parser = parse_some_cpus, value_name = "CPUS")]
    pub cpus: Option<u64>,
    /// Processes and threads
    #[arg(long, value_name = "N")]
    pub pids: Option<u64>,
    /// Limits and protections in the words of a container engine; they only narrow
    ///
    /// An object of fields of the Docker Engine's HostConfig, or @FILE with one. Works on every backend.
    #[arg(long, value_name = "JSON|@FILE")]
    pub docker_opts: Option<String>,
    /// Further host directory, read-only unless :rw is added
    #[arg(long = "mount", value_name = "HOST:INSIDE[:rw]")]
    pub mounts: Vec<String>,
    /// What it reaches.
    #[command(flatten)]
    pub network: NetworkArguments,
}

const EXEC_EXAMPLES: &str = "\
Examples:
  claude-code-mcp session exec app -- cargo test
  claude-code-mcp session exec app --cwd sub -- sh -c 'ls | wc -l'
  tar c docs | claude-code-mcp session exec app -- tar x -C /tmp
  claude-code-mcp session exec app --detach --timeout 1h -- ./nightly";

const PROMPT_EXAMPLES: &str = "\
Examples:
  claude-code-mcp session prompt app 'Why does the second test fail?'
  claude-code-mcp session prompt app --new --max-turns 20 - < task.md
  claude-code-mcp session prompt app --detach 'Port it to Rust 2024'";

/// Flags of `session prompt`.
#[derive(Debug, Args)]
pub struct SessionPromptArguments {
    /// Which session
    pub session: String,
    /// What Claude Code is to do; - reads it from standard input
    #[arg(required_unless_present = "prompt_file")]
    pub prompt: Option<String>,
    /// Read it from a file; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub prompt_file: Option<PathBuf>,
    /// Start a conversation that remembers nothing
    #[arg(long, conflicts_with = "conversation")]
    pub new: bool,
    /// Go on with that conversation; the latest one otherwise
    #[arg(long, value_name = "ID")]
    pub conversation: Option<String>,
    /// Fail when another prompt has its turn there, instead of waiting
    #[arg(long)]
    pub refuse_busy: bool,
    /// Do not wait: print the execution's id
    #[arg(long, short)]
    pub detach: bool,
    /// How.
    #[command(flatten)]
    pub options: PromptArguments,
}

const APPROVE_EXAMPLES: &str = "\
Examples:
  claude-code-mcp session approve app                     what waits for an answer
  claude-code-mcp session approve app --yes               the only one that waits
  claude-code-mcp session approve app 3f2a --no --answer 'Use the mirror instead'
An answer needs a terminal, or `caller_may_answer = true` in the configuration.";

/// Flags of `session approve`.
#[derive(Debug, Args)]
pub struct ApproveArguments {
    /// Which session
    pub session: String,
    /// Which of the things that wait: its id or a beginning of it
    pub permission: Option<String>,
    /// Allow it
    #[arg(long, conflicts_with_all = ["no", "answer"])]
    pub yes: bool,
    /// Deny it; --answer says why
    #[arg(long)]
    pub no: bool,
    /// Words: the answer to a question, or with --no why not
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub answer: Option<String>,
}

/// Flags of `session exec`.
#[derive(Debug, Args)]
pub struct ExecArguments {
    /// Do not wait: print the execution's id
    #[arg(long, short)]
    pub detach: bool,
    /// End it and everything it started after that long
    #[arg(long, value_parser = parse_time, value_name = "DURATION")]
    pub timeout: Option<Duration>,
    /// Working directory inside; a relative one is meant from /workspace
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Environment beside the session's.
    #[command(flatten)]
    pub environment: EnvironmentArguments,
    /// Which session
    pub session: String,
    /// Program and arguments; no shell in between
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}
