//! The command line as it is typed; one place for every flag and its help.

mod audit;
mod programs;
mod server;
mod session;
mod values;

use std::{path::PathBuf, time::Duration};

pub use audit::{
    AuditCommand, AuditKeyCommand, ExportArguments, FilterArguments, SearchArguments, TailArguments,
};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
pub use programs::{AgentCommand, BuildArguments, ImageCommand, InstallArguments, UnpackArguments};
pub use server::{ConfigCommand, CreateKeyArguments, KeysCommand, ServeArguments, ServerCommand};
pub use session::{
    ApproveArguments, CreateArguments, ExecArguments, SessionCommand, SessionPromptArguments,
};
use values::{parse_dollars, parse_time};

use crate::config::Flags;

const EXIT_CODES: &str = "\
Exit codes:
  0    done; run, session prompt: Claude Code completed the prompt
  1    refused, not found, or something is wrong (the message has a stable code and a hint)
  2    the command line or the configuration is wrong; nothing was started
  3-7  run, session prompt, session attach: why the prompt ended; see `run --help`
  124  exec, run, session prompt: ended by its --timeout
  125  exec, shell: the command could not be run, its end is not known, or output was lost
  else exec, shell: the exit code of the command; 128 + n when signal n ended it

Without a command the program is an MCP server on standard input and output, for MCP clients:
  claude mcp add sandbox -- claude-code-mcp";

/// Hardened sandbox sessions for Claude Code, over MCP and from the command line.
#[derive(Debug, Parser)]
#[command(name = "claude-code-mcp", version, after_long_help = EXIT_CODES, max_term_width = 100)]
pub struct CommandLine {
    /// What bears on the configuration.
    #[command(flatten)]
    pub configuration: ConfigurationArguments,
    /// Print the structured result as JSON instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do; `stdio` without one.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags of the configuration.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Configuration")]
pub struct ConfigurationArguments {
    /// Configuration file to read; it must exist
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// State directory; one server runs for each
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Set a configuration key, e.g. --set max_concurrent_sessions=3
    ///
    /// Wins over the environment and the file; repeatable. A server that is already running keeps what it started with.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl From<&ConfigurationArguments> for Flags {
    fn from(arguments: &ConfigurationArguments) -> Self {
        let ConfigurationArguments {
            config,
            state_dir,
            set,
        } = arguments.clone();
        Flags {
            config,
            state_dir,
            set,
            of_command: Vec::new(),
        }
    }
}

const RUN_HELP: &str = "\
Exit codes:
  0    Claude Code completed the prompt
  1    refused, or something is wrong before the prompt began (no key, no such directory, …)
  2    the command line or the configuration is wrong; nothing was started
  3    the model provider refused or failed
  4    the model declined
  5    --max-turns was reached
  6    --max-budget-usd, or a budget of the server's, was reached
  7    nothing came from the model for too long
  124  --timeout was over
  125  Claude Code could not be started, or ended in the middle
  130  cancelled: Ctrl-C, SIGTERM, or cancel_execution

Examples:
  claude-code-mcp run --prompt 'Make the tests pass'
  claude-code-mcp run --project ~/src/app --prompt-file task.md --max-budget-usd 2 --timeout 20m
  git diff | claude-code-mcp run --prompt - --json > review.json";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Give Claude Code one prompt in a session of its own, for scripts and CI
    ///
    /// Makes a session on the project, gives the prompt, shows on standard error what Claude Code does, and prints its
    /// answer on standard output; then requests, tokens, cost and changed files on standard error. The session is
    /// destroyed at the end, whatever that was; only where this program is killed outright does it stay until its idle time
    /// is over. The changes to the project's files stay.
    ///
    /// Ctrl-C cancels the prompt, waits for its end and destroys the session; twice, it does not wait.
    ///
    /// Without --strict everything is allowed to Claude Code, and the sandbox is the wall. With it, what it asks is put to
    /// you on a terminal; elsewhere, answer with `session approve`, or it is denied after a while.
    #[command(after_long_help = RUN_HELP)]
    Run(Box<RunArguments>),
    /// Create, use and destroy sessions
    #[command(subcommand)]
    Session(SessionCommand),
    /// Make, list and unpack images for sessions on a Docker engine
    #[command(subcommand)]
    Image(ImageCommand),
    /// Fetch, list and check Claude Code itself, for sessions to use
    #[command(subcommand)]
    Agent(AgentCommand),
    /// See the main job on this machine: a session, its tests, five attacks, a prompt, nothing left behind
    ///
    /// A real server and a real MCP client over stdio, in a directory of their own that is removed afterwards. Needs no
    /// configuration and no root. Exit code 1 when anything did not hold.
    ///
    /// Where Claude Code is installed it is given a prompt that changes a file and runs its test. A script answers it, no
    /// model, and is labelled so; where there is a key for a model provider, you are asked whether the real model may. Where
    /// Claude Code is not installed, you are asked whether it is to be fetched. Nobody is asked without a terminal.
    ///
    /// On a Docker engine it needs root, and the configured image; it builds the image if that is missing.
    Demo(DemoArguments),
    /// Look at this machine: what sessions are protected by here, and what is missing
    ///
    /// Builds nothing that stays. Exit code 1 when no session could be built here, when the state directory or the audit
    /// log cannot be written, and with --probe when the walls were not tried or something went through.
    Doctor(DoctorArguments),
    /// Make, list, rotate and revoke keys for callers from elsewhere
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Look at the running server, let it read its configuration again, or end it
    #[command(subcommand)]
    Server(ServerCommand),
    /// Check a configuration before a server is started with it, show what counts, print its schema
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check or read the audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Look at Compose files
    #[command(subcommand)]
    Compose(ComposeCommand),
    /// Run the server in the foreground (for systemd and containers)
    ///
    /// Clients start a server by themselves when none runs; this one stays until it is told to end. SIGTERM and SIGINT
    /// end it within 5 s; its sessions live on until their lease runs out, or the next server takes them over.
    Serve(ServeArguments),
    /// Be an MCP server on standard input and output (the default without a command)
    Stdio,
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  claude-code-mcp completions bash > ~/.local/share/bash-completion/completions/claude-code-mcp"
    )]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// The words of a prompt.
#[derive(Debug, Clone, Default, Args)]
#[group(id = "words", required = true, multiple = false)]
pub struct WordsArguments {
    /// What Claude Code is to do; - reads it from standard input
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// Read it from a file; - is standard input
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,
}

/// How a prompt is worked on.
#[derive(Debug, Clone, Default, Args)]
pub struct PromptArguments {
    /// Which model to ask; the session's otherwise
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Stop after so many requests to the model
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_turns: Option<u32>,
    /// Stop when it has cost so many dollars; checked after each reply, so the last one may go beyond
    #[arg(long, value_name = "DOLLARS", value_parser = parse_dollars)]
    pub max_budget_usd: Option<f64>,
    /// End the prompt after that long: 90s, 15m, 2h
    #[arg(long, value_parser = parse_time, value_name = "DURATION")]
    pub timeout: Option<Duration>,
    /// Do not show what Claude Code does meanwhile
    #[arg(long, short)]
    pub quiet: bool,
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Project directory; it becomes /workspace inside
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub project: PathBuf,
    /// What to do.
    #[command(flatten)]
    pub words: WordsArguments,
    /// How.
    #[command(flatten)]
    pub options: PromptArguments,
    /// Allow Claude Code everything inside the sandbox (the default, said aloud)
    #[arg(long, conflicts_with = "strict")]
    pub allow: bool,
    /// Allow Claude Code only what you, or a rule of the operator, allow
    #[arg(long)]
    pub strict: bool,
    /// Leave the session, for `session prompt` and the like
    #[arg(long)]
    pub keep: bool,
    /// What its walls are made of; the server's choice otherwise
    #[arg(long, value_parser = ["native", "docker"], value_name = "BACKEND")]
    pub backend: Option<String>,
    /// Environment of everything inside.
    #[command(flatten)]
    pub environment: EnvironmentArguments,
    /// What the session reaches.
    #[command(flatten)]
    pub network: NetworkArguments,
}

/// Flags that say what a session reaches.
#[derive(Debug, Default, Args)]
pub struct NetworkArguments {
    /// Let it reach a named set of hosts that the operator allows, such as github, crates or pypi
    #[arg(long = "network-preset", value_name = "NAME")]
    pub presets: Vec<String>,
    /// Let it reach a host that the operator allows: example.com, *.example.com:80,443
    #[arg(long = "allow-host", value_name = "HOST[:PORT]")]
    pub hosts: Vec<String>,
    /// Give requests to a credential's destinations that credential, such as github; it is never inside
    #[arg(long = "credential", value_name = "NAME")]
    pub credentials: Vec<String>,
}

/// Flags that set variables.
#[derive(Debug, Default, Args)]
pub struct EnvironmentArguments {
    /// Set a variable; whatever runs inside can read it
    #[arg(long = "env", short = 'e', value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Pass a variable of this environment on, without its value on the command line
    #[arg(long, value_name = "NAME")]
    pub env_from: Vec<String>,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// What the session's walls are made of; the server's choice otherwise
    #[arg(long, value_parser = ["native", "docker"], value_name = "BACKEND")]
    pub backend: Option<String>,
}

/// Flags of `doctor`.
#[derive(Debug, Clone, Copy, Args)]
pub struct DoctorArguments {
    /// Start one short sandbox on the Docker engine, try its walls from inside, and judge its container by the CIS benchmark
    ///
    /// Everything that is tried is harmless, also where it goes through. Needs the configured image, and root.
    #[arg(long)]
    pub probe: bool,
    /// List everything: each layer, limit, known fault, probe and item of the benchmark
    #[arg(long)]
    pub verbose: bool,
}

const LINT_HELP: &str = "\
Exit codes:
  0  nothing found
  1  findings
  2  the file cannot be judged: not there, too large, no YAML, no Compose file

Examples:
  claude-code-mcp compose lint docker-compose.yml
  docker compose config | claude-code-mcp compose lint - --json";

/// `compose …`
#[derive(Debug, Subcommand)]
pub enum ComposeCommand {
    /// Say what is wrong with a Compose file: what breaks isolation, what is missing, why, and what to write instead
    ///
    /// Each finding has a stable id, a severity and a line. Only the file is read; no engine is asked. What other files bring
    /// in (extends, include, env_file) and variables without a default are told as not seen: lint the output of
    /// `docker compose config` to have them judged.
    #[command(after_help = LINT_HELP)]
    Lint {
        /// Which file; - is standard input
        file: PathBuf,
    },
}
