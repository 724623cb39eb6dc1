//! Configuration: raw layers (file, environment, flags) → one resolved [`Config`] whose values cannot be out of bounds.
//!
//! Every key stands once, in [`keys`]: its name, its environment variable, its bounds, its default, its documentation, and
//! when another value of it counts. Reading order: [`keys`], `layers` (what is written), `resolve` (what it means), then what
//! is done with it: [`inspect`] (all that is wrong), [`shown`], [`schema`], [`reload`].

mod audit_sinks;
mod credentials;
mod document;
mod environment;
mod error;
mod inspect;
mod keys;
mod layers;
mod named_tables;
mod nearest;
mod offered;
mod paths;
mod provider;
mod reload;
mod resolve;
mod schema;
mod show;
pub mod units;

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

pub use credentials::{CredentialSettings, CredentialSource};
pub use document::reference_page;
pub use environment::{Environment, OTHER_VARIABLES, Variable, is_secret};
pub use error::ConfigError;
pub use inspect::{Inspected, Place, Problem, inspect};
pub use keys::{Applies, KEYS, Key, Kind};
pub use layers::Flags;
pub use offered::Offer;
pub use paths::{Paths, PathsError, check_private_directory, make_private_directory};
pub use provider::{
    AwsConfig, AwsCredentials, BudgetConfig, Credentials, ProviderChoice, ProviderConfig,
    VertexCredentials, token_command,
};
pub use reload::{Change, Reread, Running, Written};
pub use resolve::load;
pub use schema::schema;
pub use show::{Shown, shown};

use audit::{Rotation, sinks::SinkSettings};
use model::{EgressRule, LimitName, RuntimeClass};
use policy::{CallerLimits, Standing};
use serde::{Deserialize, Serialize};

/// Which walls sessions are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    /// The best that works here, decided once per server start.
    Auto,
    /// The embedded runtime.
    Native,
    /// A Docker engine.
    Docker,
}

/// Which Claude Code new sessions get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentChoice {
    /// The one that was installed last, if there is one.
    Auto,
    /// What the root file system brings.
    None,
    /// The one of the store whose hash begins so.
    Hash(String),
}

/// What the operator lets sessions reach. Nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Presets that callers may ask for; each exists.
    pub presets: Vec<String>,
    /// Rules that callers may ask for.
    pub allow: Vec<EgressRule>,
    /// What every session has.
    pub default: Vec<Standing>,
    /// What of it may be at a private address.
    pub private: Vec<EgressRule>,
    /// What requests may be given on their way out.
    pub credentials: Vec<CredentialSettings>,
}

/// The resolved configuration. Made by [`load`] alone, so every value is within its bounds.
#[derive(Debug, Clone)]
pub struct Config {
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// Where it was looked for, there or not; nowhere where no home directory is known.
    pub looked_for: Option<PathBuf>,
    /// State directory and what stands in it.
    pub paths: Paths,
    /// Directories below which projects may stand, beside the roots that a client hands over. Absolute, never `/` or
    /// the home directory.
    pub project_roots: Vec<PathBuf>,
    /// Host directories (toolchains) that every sandbox of the embedded runtime sees read-only at the same path.
    pub extra_read_only: Vec<PathBuf>,
    /// Where the audit log stands.
    pub audit_log: PathBuf,
    /// Who else gets its records.
    pub audit_sinks: Vec<SinkSettings>,
    /// When it goes on in a new file, and what is kept of it.
    pub audit_rotation: Rotation,
    /// Lifetime of a session whose creator names none.
    pub default_session_timeout: Duration,
    /// Longest lifetime that a session can be given or extended to.
    pub max_session_timeout: Duration,
    /// Idle time after which a session ends when its creator names none.
    pub default_idle_timeout: Duration,
    /// Live sessions at one time.
    pub max_concurrent_sessions: u32,
    /// What callers may do at most, and what sessions may be promised.
    pub callers: CallerLimits,
    /// Longest running time of one execution; also the default.
    pub max_execution_timeout: Duration,
    /// How long a sandbox lives without a renewal by the server.
    pub lease: Duration,
    /// A server that was started on demand ends after that long without client and session.
    pub idle_exit: Duration,
    /// The HTTP door; listens where one is named.
    pub http: Option<http_door::Settings>,
    /// What holders of access tokens may do.
    pub token_rights: control::TokenRights,
    /// Which walls.
    pub backend: BackendChoice,
    /// Where the engine is, as `DOCKER_HOST` says it.
    pub docker_host: Option<String>,
    /// How an engine is reached over a network.
    pub docker_tcp: sandbox_docker::Tcp,
    /// The image of sessions on an engine.
    pub image: String,
    /// Runtimes of the engine that sessions may have, the default first.
    pub runtime_classes: Vec<RuntimeClass>,
    /// The one image that sessions may be made of, by its id or its registry's digest: `sha256:…`.
    pub image_digest: Option<String>,
    /// Sessions are made of no older image.
    pub image_max_age: Option<Duration>,
    /// What sessions of the embedded runtime see as their root file system; the machine's own without one.
    pub native_root: Option<PathBuf>,
    /// Which Claude Code.
    pub agent: AgentChoice,
    /// The model provider.
    pub provider: ProviderConfig,
    /// What sessions may reach beside it.
    pub network: NetworkSettings,
    /// The calling model may answer what Claude Code asks.
    pub caller_may_answer: bool,
    /// How long what Claude Code asks waits for an answer.
    pub permission_timeout: Duration,
    /// What Claude Code may do without asking.
    pub permission_allow: Vec<String>,
    /// What Claude Code may never do.
    pub permission_deny: Vec<String>,
    /// Settings, hooks and MCP servers of a project count.
    pub dangerously_trust_project_settings: bool,
    /// Limits of a session whose creator names none, where they differ from the hardening profile's. In the unit of
    /// the [`LimitName`].
    pub limits: BTreeMap<LimitName, u64>,
    /// Protected files that a session made or changed in a `direct` workspace are reported, but stay.
    pub allow_protected_changes: bool,
    /// A limit that a caller names may be merely watched (`soft`) where the kernel cannot enforce it.
    pub dangerously_accept_soft_limits: bool,
    /// What was written, and where: for showing it, and for what changed since.
    layers: layers::Layers,
}

impl Config {
    /// Where a key's value is written: `limits.memory`, an entry of a list (`network_allow[1]`) or a table
    /// (`credentials.github`).
    pub fn place_of(&self, name: &str) -> Option<Place> {
        self.layers
            .place_of(name)
            .map(|origin| inspect::place(&origin))
    }

    /// Which configuration file was read, or where there is none.
    pub fn source(&self) -> FileLookedFor {
        let text = |path: &PathBuf| path.display().to_string();
        FileLookedFor {
            file: self.file.as_ref().map(text),
            looked_for: self.looked_for.as_ref().map(text),
        }
    }

    /// The problem of a file that cannot be used; `key`: the one that names it.
    pub(crate) fn unusable_file(&self, key: Option<String>, message: String) -> Problem {
        Problem {
            code: "file_unusable",
            place: key.as_deref().and_then(|key| self.place_of(key)),
            key,
            message,
            hint: "Correct the file, or name another one.".to_owned(),
        }
    }
}

/// Which configuration file was read, for whoever wonders why theirs does not count.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileLookedFor {
    /// The one that there is.
    pub file: Option<String>,
    /// Where it was looked for.
    pub looked_for: Option<String>,
}

impl fmt::Display for FileLookedFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, &self.looked_for) {
            (Some(file), _) => f.write_str(file),
            (None, Some(place)) => write!(f, "none at {place}, so the defaults apply"),
            (None, None) => {
                f.write_str("none, and no home directory to look for one in, so the defaults apply")
            }
        }
    }
}

#[cfg(test)]
mod tests;
