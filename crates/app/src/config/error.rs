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

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean `{key}`?"))
}
