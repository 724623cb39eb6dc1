//! The configuration of a server that runs: read again, compared with what counts, taken over as far as it can be.

use toml::Value;

use super::{
    Applies, Config, Environment, Flags, KEYS, Key, Problem, inspect, layers::Layers,
    resolve::resolve, show,
};

/// What a running server goes by, and how it is read again.
#[derive(Debug, Clone)]
pub struct Running {
    /// What counts now.
    config: Config,
    /// What was written when it was last read; more than what counts, where a restart is needed.
    written: Layers,
    flags: Flags,
    environment: Environment,
}

/// What was read again, and not yet taken over.
#[derive(Debug, Clone)]
pub struct Reread {
    /// What counts from then on: values that need a restart are the old ones.
    pub config: Config,
    /// What is written otherwise than when it was last read.
    pub changes: Vec<Change>,
    /// Keys whose written value counts only after a restart.
    pub pending: Vec<&'static str>,
    written: Layers,
}

/// Another value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: &'static str,
    /// When the new value counts.
    pub applies: Applies,
    /// Nothing: the default.
    pub old: Option<Written>,
    /// Nothing: the default.
    pub new: Option<Written>,
}

/// A value, for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// As the file would say it, without what is secret.
    pub shown: String,
    /// Something is left out of it.
    pub is_redacted: bool,
    /// SHA-256 of the whole.
    pub sha256: [u8; 32],
    /// Its length, bytes.
    pub bytes: u64,
}

impl Running {
    /// A server that was started with this.
    pub fn new(config: Config, flags: Flags, environment: Environment) -> Self {
        Running {
            written: config.layers.clone(),
            config,
            flags,
            environment,
        }
    }

    /// What counts now.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Reads everything again; the environment and the flags are those of the start.
    ///
    /// # Errors
    /// Everything that is wrong. Nothing changes then.
    pub fn read_again(&self) -> Result<Reread, Vec<Problem>> {
        let found = inspect(&self.flags, &self.environment);
        let Some(written) = found.config.filter(|_| found.problems.is_empty()) else {
            return Err(found.problems);
        };
        let written = written.layers;
        let mut counting = written.clone();
        for key in KEYS.iter().filter(|key| key.applies() == Applies::Restart) {
            counting.set(key, self.config.layers.get(key).cloned());
        }
        // Together with values of before it may make no sense.
        let config = resolve(counting, &self.environment)
            .map_err(|error| vec![super::inspect::problem(&error, None)])?;
        let is_pending = |key: &&Key| {
            key.applies() == Applies::Restart
                && value(key, &written) != value(key, &self.config.layers)
        };
        Ok(Reread {
            changes: changes(&self.written, &written),
            pending: KEYS.iter().filter(is_pending).map(|key| key.name).collect(),
            config,
            written,
        })
    }

    /// From now on that counts.
    pub fn take_over(&mut self, reread: Reread) {
        self.config = reread.config;
        self.written = reread.written;
    }
}

fn value<'a>(key: &Key, layers: &'a Layers) -> Option<&'a Value> {
    layers.get(key).map(|given| &given.value)
}

fn changes(before: &Layers, after: &Layers) -> Vec<Change> {
    let changed = |key: &&'static Key| value(key, before) != value(key, after);
    let change = |key: &'static Key| Change {
        key: key.name,
        applies: key.applies(),
        old: value(key, before).map(|value| Written::of(key, value)),
        new: value(key, after).map(|value| Written::of(key, value)),
    };
    KEYS.iter().filter(changed).map(change).collect()
}

impl Written {
    fn of(key: &Key, value: &Value) -> Self {
        use sha2::{Digest, Sha256};
        let whole = value.to_string();
        let (shown, is_redacted) = show::redacted(key, value);
        Written {
            shown: shown.to_string(),
            is_redacted,
            sha256: Sha256::digest(whole.as_bytes()).into(),
            bytes: whole.len() as u64,
        }
    }
}
