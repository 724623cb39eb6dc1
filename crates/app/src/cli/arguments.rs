//! The command line as it is typed; one place for every flag and its help.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{
    Flags,
    units::{parse_cpus, parse_duration, parse_size},
};

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
    /// Look at the running server, or end it
    #[command(subcommand)]
    Server(ServerCommand),
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

/// A time in which something can happen.
fn parse_time(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(time) if time.is_zero() => Err("must be longer than nothing".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    }
}

/// A time, which may be none at all.
fn parse_any_time(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// CPUs, more than none.
fn parse_some_cpus(text: &str) -> Result<u64, String> {
    match parse_cpus(text) {
        Ok(0) => Err("must be more than none".to_owned()),
        Ok(cpus) => Ok(cpus),
        Err(error) => Err(error.to_string()),
    }
}

/// Dollars that a prompt may cost.
fn parse_dollars(text: &str) -> Result<f64, String> {
    const WRONG: &str = "write dollars, 0.000001 to 10000, such as 2.50";
    let dollars: f64 = text.parse().map_err(|_| WRONG.to_owned())?;
    (0.000_001..=10_000.0)
        .contains(&dollars)
        .then_some(dollars)
        .ok_or_else(|| WRONG.to_owned())
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

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Serve MCP over HTTP, too: 127.0.0.1:7860, or unix:/absolute/path (`http_listen`)
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Reverse proxies in front of it, which speak TLS to the outside; repeatable (`http_behind_proxy`)
    #[arg(long, value_name = "IP", requires = "http")]
    pub behind_proxy: Vec<std::net::IpAddr>,
    /// Started by a client: say on standard output when it listens, end when idle.
    #[arg(long, hide = true)]
    pub on_demand: bool,
    /// The second of the two processes of an on-demand start.
    #[arg(long, hide = true, requires = "on_demand")]
    pub detached: bool,
    /// Credentials that stood in the environment come on standard input.
    #[arg(long, hide = true)]
    pub credentials_on_stdin: bool,
}

impl ServeArguments {
    /// What of them are keys of the configuration, as `--set` takes them.
    pub fn as_keys(&self) -> Vec<String> {
        let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let listen = self
            .http
            .as_deref()
            .map(|address| format!("http_listen={}", text(address)));
        let proxies: Vec<_> = self
            .behind_proxy
            .iter()
            .map(|proxy| text(&proxy.to_string()))
            .collect();
        let proxies =
            (!proxies.is_empty()).then(|| format!("http_behind_proxy=[{}]", proxies.join(", ")));
        listen.into_iter().chain(proxies).collect()
    }
}

/// `server …`
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Say whether a server runs, and what it does (exit code 1 when none runs)
    Status,
    /// End the running server
    Stop {
        /// End it although sessions live; they end when their lease runs out and no other server takes them over
        #[arg(long)]
        force: bool,
    },
}

/// `image …`
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make the image that sessions are made of: git, ca-certificates, ripgrep, python3 and a user on a base
    ///
    /// The image gets its name when it is whole; an interrupted or failed build leaves none. A base that the engine does
    /// not have is fetched from its registry. Where no registry can be reached, --bootstrap makes the base from Debian
    /// packages, by the package sources of this machine; it needs mmdebstrap.
    #[command(after_help = BUILD_EXAMPLES)]
    Build(BuildArguments),
    /// List the images that were made here, and the configured one: whether sessions can be made of them
    List,
    /// Unpack an image into a directory that sessions of the embedded runtime can see as their root file system
    ///
    /// Prints the line for the configuration. All belongs to whoever unpacks; set-id bits, devices and extended
    /// attributes are left out.
    #[command(after_help = UNPACK_EXAMPLES)]
    Unpack(UnpackArguments),
}

/// `agent …`
///
/// HASH is a SHA-256 or 6 or more of its first digits.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Fetch the pinned Claude Code and check it, or register your own
    ///
    /// It is kept below the state directory, under its hash, and every new session finds it, read-only, at
    /// /opt/claude-code/claude. A download that was interrupted goes on when it is run again. Claude Code is proprietary
    /// software of Anthropic's; its terms apply to whoever fetches it.
    #[command(after_help = INSTALL_EXAMPLES)]
    Install(InstallArguments),
    /// List what is installed, that of new sessions first
    List,
    /// Print the path of the program that new sessions get
    Path {
        /// Another one
        hash: Option<String>,
    },
    /// Read what is installed again and compare it with its hash
    Verify {
        /// Only this one
        hash: Option<String>,
    },
    /// Remove what is installed; refused while a session has it
    #[command(
        override_usage = "claude-code-mcp agent remove [OPTIONS] <HASH>...\n       claude-code-mcp agent remove --unused"
    )]
    Remove {
        /// Which
        #[arg(required_unless_present = "unused")]
        hash: Vec<String>,
        /// All but the one that new sessions get
        #[arg(long, conflicts_with = "hash")]
        unused: bool,
    },
}

const INSTALL_EXAMPLES: &str = "\
Examples:
  claude-code-mcp agent install                       the pinned one, from the Python package index
  claude-code-mcp agent install --index https://mirror.example.org/simple/
  claude-code-mcp agent install --source npm
  claude-code-mcp agent install --from-file ./claude_agent_sdk.whl
  claude-code-mcp agent install --use ~/.local/bin/claude";

/// Flags of `agent install`.
#[derive(Debug, Args)]
pub struct InstallArguments {
    /// What to fetch it from: the wheel of the SDK on a Python package index, or the platform package of an npm registry
    #[arg(long, value_parser = ["pypi", "npm"], default_value = "pypi", value_name = "SOURCE", conflicts_with_all = ["from_file", "use_own"])]
    pub source: String,
    /// The index or registry; else UV_DEFAULT_INDEX, UV_INDEX_URL or PIP_INDEX_URL, or npm_config_registry, or the usual one
    #[arg(long, value_name = "URL", conflicts_with_all = ["from_file", "use_own"])]
    pub index: Option<String>,
    /// A wheel, a package of npm's, or the program itself, on this machine
    #[arg(long, value_name = "FILE", conflicts_with = "use_own")]
    pub from_file: Option<PathBuf>,
    /// Register your own program (copied; its hash is recorded, not checked)
    #[arg(long = "use", value_name = "FILE", id = "use_own")]
    pub use_own: Option<PathBuf>,
    /// Another version of the SDK than the pinned one
    #[arg(long, value_name = "VERSION", requires = "accept_unpinned", conflicts_with_all = ["from_file", "use_own"])]
    pub sdk_version: Option<String>,
    /// Take a program that has not the pinned hash; its own is printed and recorded
    #[arg(long)]
    pub accept_unpinned: bool,
    /// Take the pinned file although its makers withdrew it
    #[arg(long)]
    pub accept_yanked: bool,
}

const BUILD_EXAMPLES: &str = "\
Examples:
  claude-code-mcp image build                         on debian:bookworm-slim, under the configured name
  claude-code-mcp image build --bootstrap             without a registry
  claude-code-mcp image build --base node:22-slim --tag claude-code-node:1";

const UNPACK_EXAMPLES: &str = "\
Examples:
  claude-code-mcp image unpack                        the configured image, below the state directory
  claude-code-mcp image unpack debian:bookworm-slim --to /srv/roots/debian
  claude-code-mcp image unpack ./saved.tar            what docker save wrote, an OCI layout, a root file system";

/// Flags of `image build`.
#[derive(Debug, Args)]
pub struct BuildArguments {
    /// Name of the image; the configured one otherwise
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,
    /// Image to build on
    #[arg(long, value_name = "IMAGE", default_value = sandbox_docker::images::DEFAULT_BASE, conflicts_with = "bootstrap")]
    pub base: String,
    /// Ask the registry for a newer base although the engine has it
    #[arg(long, conflicts_with = "bootstrap")]
    pub pull: bool,
    /// Make the base from Debian packages instead
    #[arg(long)]
    pub bootstrap: bool,
    /// Put the installed Claude Code into the image, too; never publish such an image
    #[arg(long)]
    pub with_agent: bool,
}

/// Flags of `image unpack`.
#[derive(Debug, Args)]
pub struct UnpackArguments {
    /// Image of the engine, or a file (a path with a slash, or ending in .tar, .tgz or .tar.gz); the configured image
    /// otherwise
    #[arg(value_name = "IMAGE|FILE")]
    pub source: Option<String>,
    /// Directory to make; otherwise one below the state directory that is named by the image's digest
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
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

/// `audit …`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check the chain of the audit log; exit code 1 names the first bad record
    Verify {
        /// Which log; the configured one otherwise
        path: Option<PathBuf>,
    },
    /// Print the records of the audit log, oldest first
    Show {
        /// Which log; the configured one otherwise
        path: Option<PathBuf>,
        /// Only the last records
        #[arg(long, value_name = "N")]
        tail: Option<usize>,
    },
}

const KEYS_EXAMPLES: &str = "\
Examples:
  claude-code-mcp keys create --name ci --scope sessions:read --scope sessions:run --root /srv/code --expires 90d
  claude-code-mcp keys create --name copies --scope 'sessions:read sessions:run files' --root ~/work > key.txt";

/// `keys …`
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key; it is printed once, on standard output, and kept nowhere
    #[command(after_help = KEYS_EXAMPLES)]
    Create(Box<CreateKeyArguments>),
    /// List keys, those that have ended included
    List,
    /// Make a key with the rights and the sessions of another, which ends after a while
    Rotate {
        /// Which key, by its id
        #[arg(value_name = "ID")]
        key: String,
        /// How long both are valid: 0 ends the old one at once; 24h otherwise
        #[arg(long, value_parser = parse_any_time, value_name = "DURATION")]
        overlap: Option<Duration>,
    },
    /// Refuse a key from now on, also in calls that wait
    ///
    /// Its sessions live on until their lifetime or idle time is over.
    Revoke {
        /// Which key, by its id
        #[arg(value_name = "ID")]
        key: String,
        /// End its sessions, too
        #[arg(long)]
        destroy_sessions: bool,
    },
}

/// Flags of `keys create`.
#[derive(Debug, Args)]
pub struct CreateKeyArguments {
    /// Name for people
    #[arg(long)]
    pub name: String,
    /// What it may do, one or more; none implies another
    ///
    /// sessions:read looks at its own sessions, their output and logs. sessions:run creates sessions and runs things in them.
    /// files carries files in and out. network says what its sessions reach, within what the configuration allows. admin manages
    /// keys, and sees and ends the sessions of everybody.
    #[arg(long = "scope", required = true, value_delimiter = ' ', value_name = "SCOPE",
        value_parser = ["sessions:read", "sessions:run", "files", "network", "admin"])]
    pub scopes: Vec<String>,
    /// Directory below which its projects are; it names them relative to it
    #[arg(long = "root", value_name = "DIR")]
    pub roots: Vec<PathBuf>,
    /// Live sessions that it may have at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_sessions: Option<u32>,
    /// Calls a minute that it may make
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub calls_per_minute: Option<u32>,
    /// How long it is valid: 90d, 12h; until it is revoked otherwise
    #[arg(long, value_parser = parse_time, value_name = "DURATION")]
    pub expires: Option<Duration>,
}

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
