//! `serve`, `server`, `config` and `keys`: the server, what it goes by, and who may use it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::values::{parse_any_time, parse_time};

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
    /// What of them are keys of the configuration, by the flag's name, as `--set` takes them.
    pub fn as_keys(&self) -> Vec<(&'static str, String)> {
        let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let listen = self
            .http
            .as_deref()
            .map(|address| ("--http", format!("http_listen={}", text(address))));
        let proxies: Vec<_> = self
            .behind_proxy
            .iter()
            .map(|proxy| text(&proxy.to_string()))
            .collect();
        let proxies = (!proxies.is_empty()).then(|| {
            let list = proxies.join(", ");
            ("--behind-proxy", format!("http_behind_proxy=[{list}]"))
        });
        listen.into_iter().chain(proxies).collect()
    }
}

/// `server …`
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Say whether a server runs, and what it does (exit code 1 when none runs)
    Status,
    /// Let the running server read its configuration again, and say what changed
    ///
    /// It reads the file anew, with the environment and the flags that it was started with; SIGHUP does the same. A
    /// configuration with anything wrong in it changes nothing (exit code 1, and what is wrong). What needs a restart is said.
    Reload,
    /// End the running server
    Stop {
        /// End it although sessions live; they end when their lease runs out and no other server takes them over
        #[arg(long)]
        force: bool,
    },
}

/// `config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Name everything that is wrong with a configuration: exit code 0 when a server would start with it, else 1
    ///
    /// Looks at the file, the environment and the flags as a server started here would, and at the files with keys and prices
    /// that they name. Starts nothing and asks nobody.
    Check {
        /// The file; the one that a server would read otherwise
        file: Option<PathBuf>,
    },
    /// Show what is configured and where it is written, without secrets
    Show {
        /// Every value that counts, the defaults among them
        #[arg(long)]
        effective: bool,
    },
    /// Print a JSON Schema of the configuration file, for editors and checks elsewhere
    Schema,
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
