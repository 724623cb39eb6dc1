//! Why a configuration was not accepted.

use std::{borrow::Cow, io, path::PathBuf};

use egress::ProviderError;

use super::{layers::Origin, units::UnitError};

/// A configuration that is not accepted. Nothing was opened or started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not one that can be trusted.
    #[error("the configuration file {path} {why}", path = path.display())]
    Unsafe {
        /// Which.
        path: PathBuf,
        /// Why, as a phrase after the file.
        why: &'static str,
    },
    /// The file is no TOML.
    #[error("the configuration file {path} is not valid TOML", path = path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A key that does not exist.
    #[error("unknown key `{key}` {origin}{}", meant(*nearest))]
    UnknownKey {
        /// The key.
        key: String,
        /// The valid key closest to it.
        nearest: Option<&'static str>,
        /// Where it stands.
        origin: Origin,
    },
    /// A value of the wrong type.
    #[error("`{key}` {origin} must be {expected}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// What it may be.
        expected: String,
        /// Where it stands.
        origin: Origin,
    },
    /// A text that cannot be read as what it should be.
    #[error("`{key}` {origin} cannot be read")]
    Unit {
        /// The key.
        key: &'static str,
        /// Where it stands.
        origin: Origin,
        /// Why.
        #[source]
        source: UnitError,
    },
    /// A value outside its bounds.
    #[error("`{key}` {origin} is {value}, but must be from {min} to {max}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// Where it stands.
        origin: Origin,
        /// The value, with its unit.
        value: String,
        /// Least.
        min: String,
        /// Most.
        max: String,
    },
    /// Two values that contradict each other.
    #[error("`{smaller}` is {value} seconds, which is more than `{larger}` ({limit} seconds)")]
    Contradiction {
        /// The key that is too large.
        smaller: &'static str,
        /// The key that bounds it.
        larger: &'static str,
        /// The value, seconds.
        value: u64,
        /// The bound, seconds.
        limit: u64,
    },
    /// A rule of a network that is none.
    #[error("`{key}` {origin} has a rule that cannot be read")]
    Rule {
        /// The key.
        key: &'static str,
        /// Where it stands.
        origin: Origin,
        /// Which, and why.
        #[source]
        source: model::RuleError,
    },
    /// What is no place for the HTTP door.
    #[error("`http_listen` {origin} is no place to listen at")]
    HttpListen {
        /// Where it stands.
        origin: Origin,
        /// Why.
        #[source]
        source: http_door::ListenError,
    },
    /// An HTTP door that must not be opened like this.
    #[error("the HTTP door cannot be opened like this")]
    Http(#[source] http_door::SettingsError),
    /// A preset that does not exist.
    #[error("`{key}` {origin} names the preset `{name}`, but there are {}", known.join(", "))]
    Preset {
        /// The key.
        key: &'static str,
        /// Where it stands.
        origin: Origin,
        /// The name.
        name: String,
        /// Those that exist.
        known: Vec<&'static str>,
    },
    /// A credential that cannot be used.
    #[error("`credentials.{name}` {origin}: {why}")]
    Credential {
        /// Its name.
        name: String,
        /// Where it stands.
        origin: Origin,
        /// What is wrong with it.
        why: String,
    },
    /// A sink of the audit log that cannot be used.
    #[error("`audit_sinks.{name}` {origin}: {why}")]
    AuditSink {
        /// Its name.
        name: String,
        /// Where it stands.
        origin: Origin,
        /// What is wrong with it.
        why: String,
    },
    /// A path that is not accepted.
    #[error("`{key}` {origin}: {path} {why}", path = path.display())]
    Path {
        /// The key.
        key: &'static str,
        /// Where it stands.
        origin: Origin,
        /// The path.
        path: PathBuf,
        /// Why, as a phrase after the path.
        why: Cow<'static, str>,
    },
    /// An address of a model provider that is not accepted.
    #[error("`{key}` {origin} cannot be used")]
    BaseUrl {
        /// The key.
        key: &'static str,
        /// Where it stands.
        origin: Origin,
        /// Why.
        #[source]
        source: ProviderError,
    },
    /// The built-in list of paths is broken.
    #[error("the built-in rules are broken")]
    Profile(#[source] policy::PolicyError),
    /// A `--set` without an equals sign.
    #[error("`--set {text}` must have the form `--set key=value`")]
    SetSyntax {
        /// What was given.
        text: String,
    },
    /// Neither a home nor a state directory is known.
    #[error("no home directory is known; set HOME, or name a state directory with --state-dir")]
    NoHome,
}

impl ConfigError {
    /// The key that it is about, if it is about one that exists.
    pub const fn key(&self) -> Option<&'static str> {
        match self {
            ConfigError::WrongType { key, .. }
            | ConfigError::Unit { key, .. }
            | ConfigError::OutOfRange { key, .. }
            | ConfigError::Rule { key, .. }
            | ConfigError::Preset { key, .. }
            | ConfigError::Path { key, .. }
            | ConfigError::BaseUrl { key, .. }
            | ConfigError::Contradiction { smaller: key, .. } => Some(key),
            ConfigError::Credential { .. } => Some(super::keys::CREDENTIALS.name),
            ConfigError::AuditSink { .. } => Some(super::keys::AUDIT_SINKS.name),
            ConfigError::HttpListen { .. } | ConfigError::Http(_) => {
                Some(super::keys::HTTP_LISTEN.name)
            }
            ConfigError::Read { .. }
            | ConfigError::Unsafe { .. }
            | ConfigError::Syntax { .. }
            | ConfigError::UnknownKey { .. }
            | ConfigError::Profile(_)
            | ConfigError::SetSyntax { .. }
            | ConfigError::NoHome => None,
        }
    }

    /// Where it stands, if it stands somewhere.
    pub(super) const fn origin(&self) -> Option<&Origin> {
        match self {
            ConfigError::WrongType { origin, .. }
            | ConfigError::Unit { origin, .. }
            | ConfigError::OutOfRange { origin, .. }
            | ConfigError::Rule { origin, .. }
            | ConfigError::Preset { origin, .. }
            | ConfigError::Path { origin, .. }
            | ConfigError::BaseUrl { origin, .. }
            | ConfigError::Credential { origin, .. }
            | ConfigError::AuditSink { origin, .. }
            | ConfigError::HttpListen { origin, .. }
            | ConfigError::UnknownKey { origin, .. } => Some(origin),
            ConfigError::Contradiction { .. }
            | ConfigError::Read { .. }
            | ConfigError::Unsafe { .. }
            | ConfigError::Syntax { .. }
            | ConfigError::Http(_)
            | ConfigError::Profile(_)
            | ConfigError::SetSyntax { .. }
            | ConfigError::NoHome => None,
        }
    }

    /// Its stable name, for scripts.
    pub const fn code(&self) -> &'static str {
        match self {
            ConfigError::Read { .. } => "file_unreadable",
            ConfigError::Unsafe { .. } => "file_unsafe",
            ConfigError::Syntax { .. } => "toml_syntax",
            ConfigError::UnknownKey { .. } => "unknown_key",
            ConfigError::WrongType { .. } => "wrong_type",
            ConfigError::Unit { .. } => "unreadable_value",
            ConfigError::OutOfRange { .. } => "out_of_range",
            ConfigError::Contradiction { .. } => "contradiction",
            ConfigError::Rule { .. } => "bad_rule",
            ConfigError::Preset { .. } => "unknown_preset",
            ConfigError::Credential { .. } => "bad_credential",
            ConfigError::AuditSink { .. } => "bad_audit_sink",
            ConfigError::HttpListen { .. } => "bad_listen_address",
            ConfigError::Http(_) => "unsafe_http",
            ConfigError::Path { .. } => "bad_path",
            ConfigError::BaseUrl { .. } => "bad_address",
            ConfigError::Profile(_) => "internal",
            ConfigError::SetSyntax { .. } => "bad_flag",
            ConfigError::NoHome => "no_home",
        }
    }

    /// What to do next.
    pub const fn hint(&self) -> &'static str {
        match self {
            ConfigError::Read { .. } => "Name a file that exists and that you may read.",
            ConfigError::Unsafe { .. } => {
                "Make it a regular file of the server's user or root that others cannot write to: chmod go-w FILE."
            }
            ConfigError::Syntax { .. } => "Correct the TOML at that place.",
            ConfigError::UnknownKey { .. } => {
                "Correct the name, or leave the key out; docs/configuration.md lists them all."
            }
            ConfigError::WrongType { .. }
            | ConfigError::Unit { .. }
            | ConfigError::OutOfRange { .. } => "Write a value of this kind, or leave the key out.",
            ConfigError::Contradiction { .. } => "Lower the first, or raise the second.",
            ConfigError::Rule { .. } => {
                "Write host, host:port or host:port,port; the host is exact or *.suffix."
            }
            ConfigError::Preset { .. } => "Name one of these, or write a host with a dot.",
            ConfigError::Credential { .. } => {
                "Correct the table; docs/network.md tells what it may have."
            }
            ConfigError::AuditSink { .. } => {
                "Correct the table; docs/audit-log-export.md tells what it may have."
            }
            ConfigError::HttpListen { .. } => "Write 127.0.0.1:7860, or unix:/PATH.",
            ConfigError::Http(_) => {
                "Give it TLS and a key or an issuer, or a loopback address; docs/http.md."
            }
            ConfigError::Path { .. } => "Name another path, or leave it out.",
            ConfigError::BaseUrl { .. } => "Write https://HOST, or http:// on a loopback address.",
            ConfigError::Profile(_) => "This is a fault of the program: report it.",
            ConfigError::SetSyntax { .. } => "Write --set KEY=VALUE.",
            ConfigError::NoHome => "Set HOME, or give --state-dir.",
        }
    }

    /// The error and its causes in one line.
    pub fn chain(&self) -> String {
        let mut chain = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            chain.push_str(": ");
            chain.push_str(cause.to_string().lines().next().unwrap_or_default());
            source = cause.source();
        }
        chain
    }
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean `{key}`?"))
}
