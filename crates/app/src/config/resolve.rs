//! From raw layers to the resolved [`Config`]: types, bounds and defaults.

mod callers;
mod http;
mod provider;

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use audit::Rotation;
use egress::check_base_url;
use model::{EgressRule, Kernel, LimitName, RuntimeClass};
use policy::Standing;
use sandbox_docker::{Tcp, images::is_digest};
use toml::Value;

use super::{
    AgentChoice, BackendChoice, Config, ConfigError, Environment, Flags, Key, Kind,
    NetworkSettings, Paths, audit_sinks, credentials,
    keys::{self, MEBIBYTE, TEBIBYTE},
    layers::{Given, Layers, Origin},
    offered,
    units::{UnitError, format_size, parse_cpus, parse_dollars, parse_duration, parse_size},
};

/// The image of sessions on an engine where nothing else is configured.
const DEFAULT_IMAGE: &str = "claude-code-custom:latest";
/// Which key sets which limit.
pub(super) const LIMITS: [(&Key, LimitName); 7] = [
    (&keys::LIMIT_MEMORY, LimitName::MemoryBytes),
    (&keys::LIMIT_CPUS, LimitName::CpuMillis),
    (&keys::LIMIT_PIDS, LimitName::Pids),
    (&keys::LIMIT_OPEN_FILES, LimitName::OpenFiles),
    (&keys::LIMIT_FILE_SIZE, LimitName::FileBytes),
    (&keys::LIMIT_TEMPORARY, LimitName::TemporaryBytes),
    (&keys::LIMIT_STATE, LimitName::StateBytes),
];

/// Reads file, environment and flags, in rising order of precedence.
///
/// # Errors
/// For an unreadable or untrusted file, an unknown key, a wrong type, a value out of its bounds.
pub fn load(flags: &Flags, environment: &Environment) -> Result<Config, ConfigError> {
    let (layers, problems) = Layers::read(flags, environment);
    match problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => resolve(layers, environment),
    }
}

/// The configuration that merged layers make.
///
/// # Errors
/// As for [`load`], but for what [`Layers::read`] finds.
pub(super) fn resolve(layers: Layers, environment: &Environment) -> Result<Config, ConfigError> {
    let reader = Reader {
        layers: &layers,
        environment,
    };
    let state_dir = match reader.path(&keys::STATE_DIR)? {
        Some(path) => path,
        None => usual_state_dir(environment)?,
    };
    let (image, image_digest) = reader.image()?;
    let image_max_age = reader.seconds(&keys::IMAGE_MAX_AGE)?;
    let mut config = Config {
        file: layers.file.clone(),
        looked_for: layers.looked_for.clone(),
        audit_log: reader
            .path(&keys::AUDIT_LOG)?
            .unwrap_or_else(|| state_dir.join("audit.jsonl")),
        audit_sinks: match layers.get(&keys::AUDIT_SINKS) {
            Some(given) => audit_sinks::read(given, environment)?,
            None => Vec::new(),
        },
        audit_rotation: reader.audit_rotation()?,
        paths: Paths::new(state_dir, environment.runtime_dir(), environment.uid()),
        project_roots: reader.directories(&keys::PROJECT_ROOTS)?,
        extra_read_only: reader.directories(&keys::EXTRA_READ_ONLY)?,
        default_session_timeout: reader.seconds(&keys::DEFAULT_SESSION_TIMEOUT)?,
        max_session_timeout: reader.seconds(&keys::MAX_SESSION_TIMEOUT)?,
        default_idle_timeout: reader.seconds(&keys::DEFAULT_IDLE_TIMEOUT)?,
        max_concurrent_sessions: reader.count(&keys::MAX_CONCURRENT_SESSIONS)?,
        callers: reader.callers()?,
        max_execution_timeout: reader.execution_timeout()?,
        lease: reader.seconds(&keys::LEASE_SECONDS)?,
        idle_exit: reader.seconds(&keys::IDLE_EXIT_SECONDS)?,
        http: reader.http()?,
        token_rights: reader.token_rights()?,
        backend: reader.backend()?,
        docker_host: reader.text(&keys::DOCKER_HOST)?,
        docker_tcp: reader.docker_tcp()?,
        runtime_classes: reader.runtime_classes()?,
        image,
        image_digest,
        image_max_age: (!image_max_age.is_zero()).then_some(image_max_age),
        native_root: reader.path(&keys::NATIVE_ROOT)?,
        agent: reader.agent()?,
        provider: reader.provider()?,
        network: reader.network()?,
        caller_may_answer: reader.switch(&keys::CALLER_MAY_ANSWER)?,
        permission_timeout: reader.seconds(&keys::PERMISSION_TIMEOUT)?,
        permission_allow: reader.words(&keys::PERMISSION_ALLOW)?,
        permission_deny: reader.words(&keys::PERMISSION_DENY)?,
        dangerously_trust_project_settings: reader
            .switch(&keys::DANGEROUSLY_TRUST_PROJECT_SETTINGS)?,
        limits: reader.limits()?,
        allow_protected_changes: reader.switch(&keys::ALLOW_PROTECTED_CHANGES)?,
        dangerously_accept_soft_limits: reader.switch(&keys::DANGEROUSLY_ACCEPT_SOFT_LIMITS)?,
        layers: Layers::default(),
    };
    config.extra_read_only = offered::check(&config, &layers, environment)?;
    if let Some(given) = layers.get(&keys::AUDIT_SINKS) {
        audit_sinks::check_apart(&config.audit_sinks, &config.audit_log, given)?;
    }
    let within_a_session = [
        (
            keys::DEFAULT_SESSION_TIMEOUT.name,
            config.default_session_timeout,
        ),
        (
            keys::MAX_EXECUTION_TIMEOUT.name,
            config.max_execution_timeout,
        ),
    ];
    for (smaller, value) in within_a_session {
        if value > config.max_session_timeout {
            return Err(ConfigError::Contradiction {
                smaller,
                larger: keys::MAX_SESSION_TIMEOUT.name,
                value: value.as_secs(),
                limit: config.max_session_timeout.as_secs(),
            });
        }
    }
    config.layers = layers;
    Ok(config)
}

fn usual_state_dir(environment: &Environment) -> Result<PathBuf, ConfigError> {
    if let Some(state_home) = environment.state_home() {
        return Ok(state_home.join("claude-code-mcp"));
    }
    if environment.uid() == 0 {
        return Ok(PathBuf::from("/var/lib/claude-code-mcp"));
    }
    Ok(environment
        .home()
        .ok_or(ConfigError::NoHome)?
        .join(".local/state/claude-code-mcp"))
}

/// Runtimes whose kernel is known by their usual name.
const KNOWN_RUNTIMES: [(&str, Kernel); 3] = [
    ("runc", Kernel::Shared),
    ("crun", Kernel::Shared),
    ("runsc", Kernel::Guest),
];
/// Longest name of a runtime, bytes, as the key's documentation says.
const MAX_RUNTIME_NAME_BYTES: usize = 64;

/// Characters of a wrong name that an error shows.
const MAX_SHOWN_CHARACTERS: usize = 64;

struct Reader<'a> {
    layers: &'a Layers,
    environment: &'a Environment,
}

impl Reader<'_> {
    fn seconds(&self, key: &'static Key) -> Result<Duration, ConfigError> {
        self.number_or_default(key).map(Duration::from_secs)
    }

    /// `0` in any of them: no such bound.
    fn audit_rotation(&self) -> Result<Rotation, ConfigError> {
        let size_bytes = self.number_or_default(&keys::AUDIT_ROTATE_SIZE)?;
        let interval = self.seconds(&keys::AUDIT_ROTATE_INTERVAL)?;
        let keep_files = self.count(&keys::AUDIT_KEEP_FILES)?;
        let keep_days = self.number_or_default(&keys::AUDIT_KEEP_DAYS)?;
        if let (1..MEBIBYTE, Some(given)) = (size_bytes, self.layers.get(&keys::AUDIT_ROTATE_SIZE))
        {
            let shown = |value| shown(keys::AUDIT_ROTATE_SIZE.kind, value);
            return Err(ConfigError::OutOfRange {
                key: keys::AUDIT_ROTATE_SIZE.name,
                origin: given.origin.clone(),
                value: shown(size_bytes),
                min: shown(MEBIBYTE),
                max: shown(TEBIBYTE),
            });
        }
        Ok(Rotation {
            size_bytes: (size_bytes > 0).then_some(size_bytes),
            interval: (!interval.is_zero()).then_some(interval),
            keep_files: (keep_files > 0).then_some(keep_files),
            keep: (keep_days > 0).then(|| Duration::from_secs(keep_days * 24 * 3600)),
        })
    }

    fn count(&self, key: &'static Key) -> Result<u32, ConfigError> {
        let value = self.number_or_default(key)?;
        u32::try_from(value).map_err(|_| wrong_type(key, self.layers.get(key), "a smaller number"))
    }

    /// The value, or the default that the key documents.
    fn number_or_default(&self, key: &'static Key) -> Result<u64, ConfigError> {
        match self.number(key)? {
            Some(value) => Ok(value),
            None => key
                .default
                .parse()
                .map_err(|_| wrong_type(key, None, "a number by default")),
        }
    }

    fn number(&self, key: &'static Key) -> Result<Option<u64>, ConfigError> {
        let Some(given) = self.layers.get(key) else {
            return Ok(None);
        };
        let (value, min, max) = match key.kind {
            Kind::Seconds { min, max } => (
                number(key, given, |text| Ok(parse_duration(text)?.as_secs()))?,
                min,
                max,
            ),
            Kind::Bytes { min, max } => (number(key, given, parse_size)?, min, max),
            Kind::Cpus { min, max } => (decimal(key, given, parse_cpus)?, min, max),
            Kind::Dollars { min, max } => (decimal(key, given, parse_dollars)?, min, max),
            Kind::Count { min, max } => (count(key, given)?, min, max),
            Kind::Path
            | Kind::PathList
            | Kind::Words { .. }
            | Kind::Rules
            | Kind::Switch
            | Kind::Text { .. }
            | Kind::Tables
            | Kind::Choice(_) => {
                return Err(wrong_type(key, Some(given), "no number"));
            }
        };
        if value < min || value > max {
            let shown = |value| shown(key.kind, value);
            return Err(ConfigError::OutOfRange {
                key: key.name,
                origin: given.origin.clone(),
                value: shown(value),
                min: shown(min),
                max: shown(max),
            });
        }
        Ok(Some(value))
    }

    fn choice(&self, key: &'static Key) -> Result<Option<&'static str>, ConfigError> {
        let (Some(given), Kind::Choice(words)) = (self.layers.get(key), key.kind) else {
            return Ok(None);
        };
        let found = given
            .value
            .as_str()
            .and_then(|text| words.iter().find(|word| **word == text));
        match found {
            Some(word) => Ok(Some(word)),
            None => Err(wrong_type(
                key,
                Some(given),
                &format!("one of {}", words.join(", ")),
            )),
        }
    }

    fn network(&self) -> Result<NetworkSettings, ConfigError> {
        let key = &keys::NETWORK_PRESETS;
        let presets = self.words(key)?;
        for name in &presets {
            self.known_preset(key, name)?;
        }
        let rules = |key| self.rules(key, |text| self.rule(key, text));
        let key = &keys::NETWORK_DEFAULT;
        let default = self.rules(key, |text| match text.contains(['.', ':']) {
            true => self.rule(key, text).map(Standing::Rule),
            false => self.known_preset(key, text).map(Standing::Preset),
        })?;
        Ok(NetworkSettings {
            presets,
            allow: rules(&keys::NETWORK_ALLOW)?,
            default,
            private: rules(&keys::NETWORK_PRIVATE)?,
            credentials: match self.layers.get(&keys::CREDENTIALS) {
                Some(given) => credentials::read(given, self.environment)?,
                None => Vec::new(),
            },
        })
    }

    fn rules<T>(
        &self,
        key: &'static Key,
        read: impl Fn(&str) -> Result<T, ConfigError>,
    ) -> Result<Vec<T>, ConfigError> {
        let Some(given) = self.layers.get(key) else {
            return Ok(Vec::new());
        };
        let wrong = || wrong_type(key, Some(given), "a list of texts");
        let list = given.value.as_array().ok_or_else(wrong)?;
        list.iter()
            .map(|entry| read(entry.as_str().ok_or_else(wrong)?))
            .collect()
    }

    fn rule(&self, key: &'static Key, text: &str) -> Result<EgressRule, ConfigError> {
        text.parse().map_err(|source| ConfigError::Rule {
            key: key.name,
            origin: self.origin(key),
            source,
        })
    }

    fn known_preset(&self, key: &'static Key, name: &str) -> Result<String, ConfigError> {
        let mut known = egress::destination::preset_names();
        match known.any(|known| known == name) {
            true => Ok(name.to_owned()),
            false => Err(ConfigError::Preset {
                key: key.name,
                origin: self.origin(key),
                name: name.chars().take(MAX_SHOWN_CHARACTERS).collect(),
                known: egress::destination::preset_names().collect(),
            }),
        }
    }

    fn origin(&self, key: &'static Key) -> Origin {
        let given = self.layers.get(key);
        given.map_or(Origin::Flag("(built-in default)"), |given| {
            given.origin.clone()
        })
    }

    fn words(&self, key: &'static Key) -> Result<Vec<String>, ConfigError> {
        let Some(given) = self.layers.get(key) else {
            return Ok(Vec::new());
        };
        let Kind::Words { max } = key.kind else {
            return Ok(Vec::new());
        };
        let expected = format!("a list of words of 1 to {max} bytes without control characters");
        let wrong = || wrong_type(key, Some(given), &expected);
        let fits =
            |word: &&str| (1..=max).contains(&word.len()) && !word.contains(char::is_control);
        let list = given.value.as_array().ok_or_else(wrong)?;
        list.iter()
            .map(|word| {
                word.as_str()
                    .filter(fits)
                    .map(str::to_owned)
                    .ok_or_else(wrong)
            })
            .collect()
    }

    fn limits(&self) -> Result<BTreeMap<LimitName, u64>, ConfigError> {
        let mut limits = BTreeMap::new();
        for (key, limit) in LIMITS {
            if let Some(value) = self.number(key)? {
                limits.insert(limit, value);
            }
        }
        Ok(limits)
    }

    fn switch(&self, key: &'static Key) -> Result<bool, ConfigError> {
        match self.layers.get(key) {
            None => Ok(false),
            Some(Given {
                value: Value::Boolean(value),
                ..
            }) => Ok(*value),
            given @ Some(_) => Err(wrong_type(key, given, "true or false")),
        }
    }

    fn docker_tcp(&self) -> Result<Tcp, ConfigError> {
        let usual = || Some(self.environment.home()?.join(".docker"));
        Ok(Tcp {
            tls_verify: self.switch(&keys::DOCKER_TLS_VERIFY)?,
            certificates: self.path(&keys::DOCKER_CERT_PATH)?.or_else(usual),
            dangerously_plain_on_loopback: self.switch(&keys::DANGEROUSLY_PLAIN_LOOPBACK_ENGINE)?,
        })
    }

    fn backend(&self) -> Result<BackendChoice, ConfigError> {
        let key = &keys::BACKEND;
        let Some(given) = self.layers.get(key) else {
            return Ok(BackendChoice::Auto);
        };
        match given.value.as_str() {
            Some("auto") => Ok(BackendChoice::Auto),
            Some("native") => Ok(BackendChoice::Native),
            Some("docker") => Ok(BackendChoice::Docker),
            _ => Err(wrong_type(
                key,
                Some(given),
                "\"auto\", \"native\" or \"docker\"",
            )),
        }
    }

    /// The image's name, and the digest that it is pinned to.
    fn image(&self) -> Result<(String, Option<String>), ConfigError> {
        let named = self.text(&keys::IMAGE)?;
        let named = named.unwrap_or_else(|| DEFAULT_IMAGE.to_owned());
        let (name, in_name) = match named.split_once('@') {
            Some((name, digest)) => (name.to_owned(), Some(digest.to_owned())),
            None => (named, None),
        };
        let own = self.text(&keys::IMAGE_DIGEST)?;
        let expected = "a digest: `sha256:` and 64 digits from 0 to f";
        for (key, digest) in [(&keys::IMAGE, &in_name), (&keys::IMAGE_DIGEST, &own)] {
            if digest.as_deref().is_some_and(|digest| !is_digest(digest)) {
                return Err(wrong_type(key, self.layers.get(key), expected));
            }
        }
        if in_name.is_some() && own.is_some() && in_name != own {
            let key = &keys::IMAGE_DIGEST;
            return Err(wrong_type(
                key,
                self.layers.get(key),
                "the digest in `image`",
            ));
        }
        Ok((name, in_name.or(own)))
    }

    fn agent(&self) -> Result<AgentChoice, ConfigError> {
        let key = &keys::AGENT;
        let text = self.text(key)?;
        match text.as_deref() {
            None | Some("auto") => Ok(AgentChoice::Auto),
            Some("none") => Ok(AgentChoice::None),
            Some(hash) if agent::install::is_hash(hash) => Ok(AgentChoice::Hash(hash.to_owned())),
            Some(_) => {
                let expected =
                    "`auto`, `none`, or 6 or more digits of a hash that `agent list` shows";
                Err(wrong_type(key, self.layers.get(key), expected))
            }
        }
    }

    /// Where it is not named, no execution outlives the longest session.
    fn execution_timeout(&self) -> Result<Duration, ConfigError> {
        let timeout = self.seconds(&keys::MAX_EXECUTION_TIMEOUT)?;
        if self.layers.get(&keys::MAX_EXECUTION_TIMEOUT).is_some() {
            return Ok(timeout);
        }
        Ok(timeout.min(self.seconds(&keys::MAX_SESSION_TIMEOUT)?))
    }

    fn text(&self, key: &'static Key) -> Result<Option<String>, ConfigError> {
        let Some(given) = self.layers.get(key) else {
            return Ok(None);
        };
        let Kind::Text { max } = key.kind else {
            return Ok(None);
        };
        match given.value.as_str() {
            Some(text) if (1..=max).contains(&text.len()) && !text.contains(char::is_control) => {
                Ok(Some(text.to_owned()))
            }
            _ => Err(wrong_type(
                key,
                Some(given),
                &format!("a text of 1 to {max} bytes without control characters"),
            )),
        }
    }

    pub(super) fn base_url(&self, key: &'static Key) -> Result<Option<String>, ConfigError> {
        let text = self.text(key)?;
        if let (Some(text), Some(given)) = (&text, self.layers.get(key)) {
            check_base_url(text).map_err(|source| ConfigError::BaseUrl {
                key: key.name,
                origin: given.origin.clone(),
                source,
            })?;
        }
        Ok(text)
    }

    fn path(&self, key: &'static Key) -> Result<Option<PathBuf>, ConfigError> {
        let Some(given) = self.layers.get(key) else {
            return Ok(None);
        };
        let text = given
            .value
            .as_str()
            .ok_or_else(|| wrong_type(key, Some(given), "a path"))?;
        self.absolute(key, given, text).map(Some)
    }

    /// A list of directories that are offered to sessions: never the whole machine, never a whole home.
    /// Each name once.
    fn runtime_classes(&self) -> Result<Vec<RuntimeClass>, ConfigError> {
        let key = &keys::RUNTIME_CLASSES;
        let Some(given) = self.layers.get(key) else {
            return Ok(Vec::new());
        };
        let expected =
            "a list of runtimes such as [\"runc\", \"runsc\", \"kata=guest\"], each once";
        let wrong = || wrong_type(key, Some(given), expected);
        let list = given.value.as_array().ok_or_else(wrong)?;
        let mut classes: Vec<RuntimeClass> = Vec::with_capacity(list.len());
        for entry in list {
            let class = entry.as_str().and_then(runtime_class).ok_or_else(wrong)?;
            if classes.iter().any(|known| known.name == class.name) {
                return Err(wrong());
            }
            classes.push(class);
        }
        Ok(classes)
    }

    fn directories(&self, key: &'static Key) -> Result<Vec<PathBuf>, ConfigError> {
        let Some(given) = self.layers.get(key) else {
            return Ok(Vec::new());
        };
        let wrong = || wrong_type(key, Some(given), "a list of paths");
        let list = given.value.as_array().ok_or_else(wrong)?;
        let mut directories = Vec::with_capacity(list.len());
        for entry in list {
            let path = self.absolute(key, given, entry.as_str().ok_or_else(wrong)?)?;
            let home = self.environment.home();
            let why = match path == Path::new("/") {
                true => Some("is the whole machine; name directories below it"),
                false => home
                    .is_some_and(|home| home.starts_with(&path))
                    .then_some("holds the whole home directory; name directories below it"),
            };
            if let Some(why) = why {
                return Err(ConfigError::Path {
                    key: key.name,
                    origin: given.origin.clone(),
                    path,
                    why: why.into(),
                });
            }
            directories.push(path);
        }
        Ok(directories)
    }

    fn absolute(
        &self,
        key: &'static Key,
        given: &Given,
        text: &str,
    ) -> Result<PathBuf, ConfigError> {
        let home = || self.environment.home().ok_or(ConfigError::NoHome);
        let path = match text.strip_prefix("~/") {
            Some(rest) => home()?.join(rest),
            None if text == "~" => home()?,
            None => PathBuf::from(text),
        };
        let refused = |path: PathBuf, why: &'static str| {
            Err(ConfigError::Path {
                key: key.name,
                origin: given.origin.clone(),
                path,
                why: why.into(),
            })
        };
        if !path.is_absolute() {
            return refused(path, "must be an absolute path, or begin with ~/");
        }
        if path.components().any(|part| part == Component::ParentDir) || text.contains('\0') {
            return refused(path, "must not hold `..` or a null byte");
        }
        Ok(path.components().collect())
    }
}

fn number(
    key: &'static Key,
    given: &Given,
    parse: impl Fn(&str) -> Result<u64, UnitError>,
) -> Result<u64, ConfigError> {
    let parsed = match &given.value {
        Value::Integer(value) => parse(&value.to_string()),
        Value::String(text) => parse(text),
        Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_)
        | Value::Table(_) => {
            return Err(wrong_type(
                key,
                Some(given),
                "a number, or a text with a unit",
            ));
        }
    };
    parsed.map_err(|source| ConfigError::Unit {
        key: key.name,
        origin: given.origin.clone(),
        source,
    })
}

fn decimal(
    key: &'static Key,
    given: &Given,
    parse: fn(&str) -> Result<u64, UnitError>,
) -> Result<u64, ConfigError> {
    match &given.value {
        Value::Float(value) => {
            let given = Given {
                value: Value::String(value.to_string()),
                origin: given.origin.clone(),
            };
            number(key, &given, parse)
        }
        Value::Integer(_)
        | Value::String(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_)
        | Value::Table(_) => number(key, given, parse),
    }
}

fn count(key: &'static Key, given: &Given) -> Result<u64, ConfigError> {
    given
        .value
        .as_integer()
        .and_then(|value| u64::try_from(value).ok())
        .ok_or_else(|| wrong_type(key, Some(given), "a whole number, not negative"))
}

fn shown(kind: Kind, value: u64) -> String {
    match kind {
        Kind::Seconds { .. } => format!("{value} seconds"),
        Kind::Bytes { .. } => format_size(value),
        Kind::Cpus { .. } => format!("{}.{:03} CPUs", value / 1000, value % 1000),
        Kind::Dollars { .. } => egress::Usd::from_micro(value).to_string(),
        Kind::Count { .. }
        | Kind::Path
        | Kind::PathList
        | Kind::Words { .. }
        | Kind::Rules
        | Kind::Switch
        | Kind::Text { .. }
        | Kind::Tables
        | Kind::Choice(_) => value.to_string(),
    }
}

/// `runsc`, or `kata=guest`. The name becomes a word of a request to the engine.
fn runtime_class(text: &str) -> Option<RuntimeClass> {
    let (name, kernel) = match text.split_once('=') {
        Some((name, "guest")) => (name, Kernel::Guest),
        Some((name, "shared")) => (name, Kernel::Shared),
        Some(_) => return None,
        None => KNOWN_RUNTIMES.into_iter().find(|(name, _)| *name == text)?,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let fits = !name.is_empty() && name.len() <= MAX_RUNTIME_NAME_BYTES && name.bytes().all(plain);
    fits.then(|| RuntimeClass {
        name: name.to_owned(),
        kernel,
    })
}

fn wrong_type(key: &'static Key, given: Option<&Given>, expected: &str) -> ConfigError {
    let origin = given.map_or(Origin::Flag("(built-in default)"), |given| {
        given.origin.clone()
    });
    ConfigError::WrongType {
        key: key.name,
        expected: expected.to_owned(),
        origin,
    }
}
