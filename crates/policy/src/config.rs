//! What the operator configured, checked for sense before anything starts.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use model::{BackendName, BindMount, LimitName, Limits, RuntimeClass};

use crate::{
    CallerLimits, NetworkConfig, forbidden::ForbiddenPaths, hardening::Hardening, lexical, limits,
    mounts,
};

/// The operator's side of every decision.
#[derive(Debug, Clone)]
pub struct PolicyConfig {
    /// Directories below which every caller may have sessions; absolute and free of links (canonical).
    pub project_roots: Vec<PathBuf>,
    /// Home directory of the server's user, canonical.
    pub home: PathBuf,
    /// Where the server keeps its own files, canonical.
    pub state_directory: PathBuf,
    /// Effective uid of the server: only this user is served, and without root only this user's files are mounted.
    pub server_uid: u32,
    /// What a session gets, and at the same time the most that a caller can ask for.
    /// [`crate::Policy::default_limits`] is where a configuration starts.
    pub limits: Limits,
    /// `MAX_CONCURRENT_SESSIONS`.
    pub max_sessions: u32,
    /// What each caller may do at most, and what sessions may be promised.
    pub callers: CallerLimits,
    /// `DEFAULT_SESSION_TIMEOUT`: lifetime of a session that names none.
    pub default_ttl: Duration,
    /// Longest lifetime of a session, extensions included.
    pub max_ttl: Duration,
    /// A session ends after that long without a running execution or a call, unless it names another time.
    pub default_idle: Duration,
    /// Longest, and default, running time of one execution.
    pub max_execution_timeout: Duration,
    /// Executions that may run in one session at once.
    pub max_running_executions: u32,
    /// How long a sandbox lives without a renewal from the server.
    pub lease: Duration,
    /// Protected paths that an agent makes may stay where they are; they are reported all the same.
    pub allow_protected_changes: bool,
    /// A named limit that this machine enforces only softly is accepted.
    pub dangerously_accept_soft_limits: bool,
    /// Mounts of every session, read-only; looked up when the server started.
    pub operator_mounts: Vec<BindMount>,
    /// The backends of this server; sessions that name none get the first.
    pub backends: Vec<BackendName>,
    /// Runtime classes of sessions on an engine; those that name none get the first. Empty: the engine's default alone.
    pub runtime_classes: Vec<RuntimeClass>,
    /// The calling model may answer what Claude Code asks; else only a person may.
    pub caller_may_answer: bool,
    /// Rules for what Claude Code may do, as its settings have them (`permissions`): JSON.
    pub permissions: Option<String>,
    /// Settings, hooks and MCP servers of a project count for Claude Code.
    pub dangerously_trust_project_settings: bool,
    /// How long what Claude Code asks waits for an answer; then it is denied.
    pub permission_timeout: Duration,
    /// What sessions may reach beside their model provider.
    pub network: NetworkConfig,
}

/// A configuration that makes no sense. Found at start, before any socket opens.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// An option has a value that cannot work.
    #[error("the option `{option}` {why}")]
    Option {
        /// The option, as it stands in the configuration file.
        option: String,
        /// What is wrong, as a phrase after the name.
        why: String,
    },
    /// A built-in data file does not parse.
    #[error("the built-in profiles/{file} is malformed")]
    ProfileSyntax {
        /// Which file.
        file: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A built-in data file contradicts itself.
    #[error("the built-in profiles/{file} is inconsistent: {why}")]
    Profile {
        /// Which file.
        file: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// Shortest lease: a server under load must be able to renew it.
const MIN_LEASE: Duration = Duration::from_secs(1);
/// Longest lease: what a killed server leaves behind is gone after that long.
const MAX_LEASE: Duration = Duration::from_secs(3600);
/// Longest lifetime that can be configured: 30 days. Beyond that a session is no session but a server.
const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// Longest wait for a place: clients give a call a minute.
pub const MAX_QUEUE_WAIT: Duration = Duration::from_secs(45);

pub(crate) fn option(name: impl Into<String>, why: impl Into<String>) -> PolicyError {
    PolicyError::Option {
        option: name.into(),
        why: why.into(),
    }
}

impl PolicyConfig {
    pub(crate) fn check(
        &self,
        forbidden: &ForbiddenPaths,
        hardening: &Hardening,
    ) -> Result<(), PolicyError> {
        self.check_paths(forbidden)?;
        self.check_times()?;
        self.check_counts()?;
        self.check_limits(hardening)?;
        mounts::check_operator_mounts(&self.operator_mounts, forbidden)
            .map_err(|why| option("mounts", why))
    }

    fn check_paths(&self, forbidden: &ForbiddenPaths) -> Result<(), PolicyError> {
        for (name, path) in [
            ("home", &self.home),
            ("state_directory", &self.state_directory),
        ] {
            check_directory(name, path)?;
        }
        if self.state_directory == Path::new("/") {
            return Err(option("state_directory", "must not be `/`"));
        }
        for (index, root) in self.project_roots.iter().enumerate() {
            let name = format!("project_roots[{index}]");
            check_directory(&name, root)?;
            if let Some(why) = forbidden.why_forbidden(root) {
                return Err(option(
                    name,
                    format!("names a directory that no session may have: {why}"),
                ));
            }
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), PolicyError> {
        let positive = [
            ("default_session_timeout", self.default_ttl),
            ("max_session_timeout", self.max_ttl),
            ("default_idle_timeout", self.default_idle),
            ("max_execution_timeout", self.max_execution_timeout),
        ];
        for (name, value) in positive {
            if value < Duration::from_secs(1) {
                return Err(option(name, "must be at least one second"));
            }
        }
        if self.max_ttl > MAX_TTL {
            return Err(option("max_session_timeout", "must be at most 30 days"));
        }
        if self.default_ttl > self.max_ttl {
            return Err(option(
                "default_session_timeout",
                "must not exceed `max_session_timeout`",
            ));
        }
        if self.max_execution_timeout > self.max_ttl {
            return Err(option(
                "max_execution_timeout",
                "must not exceed `max_session_timeout`",
            ));
        }
        if !(MIN_LEASE..=MAX_LEASE).contains(&self.lease) {
            return Err(option(
                "lease_seconds",
                "must be between one second and one hour",
            ));
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), PolicyError> {
        if self.max_sessions == 0 {
            return Err(option("max_concurrent_sessions", "must be at least 1"));
        }
        if self.callers.max_open_calls == 0 {
            return Err(option("max_calls_per_caller", "must be at least 1"));
        }
        if self.callers.queue_wait > MAX_QUEUE_WAIT {
            return Err(option("queue_wait", "must be at most 45 seconds"));
        }
        if self.max_running_executions == 0 {
            return Err(option("max_running_executions", "must be at least 1"));
        }
        Ok(())
    }

    fn check_limits(&self, hardening: &Hardening) -> Result<(), PolicyError> {
        for name in LimitName::ALL {
            let value = self.limits.get(name).value;
            let range = hardening.range(name);
            if value < range.floor || value > range.ceiling {
                let why = format!(
                    "is {value}, but must be between {} and {}",
                    range.floor, range.ceiling
                );
                return Err(option(limits::key(name), why));
            }
        }
        if self.limits.temporary_bytes.value > self.limits.memory_bytes.value {
            return Err(option(
                limits::key(LimitName::TemporaryBytes),
                format!(
                    "must not exceed `{}`: it lives in memory",
                    limits::key(LimitName::MemoryBytes)
                ),
            ));
        }
        Ok(())
    }
}

fn check_directory(name: &str, path: &Path) -> Result<(), PolicyError> {
    lexical::absolute(path)
        .map(drop)
        .map_err(|flaw| option(name, flaw.to_string()))
}
