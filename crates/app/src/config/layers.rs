//! The raw layers: what the file, the environment and the flags say, as close to the text as possible.

use std::{
    collections::BTreeMap,
    fmt,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use toml::Value;

use super::{
    ConfigError, Environment, KEYS, Key, Kind, environment::CONFIG_FILE, keys::STATE_DIR,
    nearest::nearest,
};

/// Longest configuration file, bytes: anything longer is not one.
const CONFIG_FILE_BYTES: u64 = 1 << 20;

/// The flags that bear on the configuration; they win over everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// `--set key=value`, in order; later ones win.
    pub set: Vec<String>,
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the file.
    File(PathBuf),
    /// In an environment variable.
    Variable(&'static str),
    /// In a flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => write!(f, "in {}", path.display()),
            Origin::Variable(name) => write!(f, "in the variable {name}"),
            Origin::Flag(flag) => write!(f, "in the flag {flag}"),
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// The three layers, merged: for each key the value that wins.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub(super) file: Option<PathBuf>,
    given: BTreeMap<&'static str, Given>,
}

impl Layers {
    pub(super) fn read(flags: &Flags, environment: &Environment) -> Result<Self, ConfigError> {
        let mut layers = Layers::default();
        layers.read_file(flags, environment)?;
        layers.read_environment(environment)?;
        layers.read_flags(flags)?;
        Ok(layers)
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Given> {
        self.given.get(key.name)
    }

    fn read_file(&mut self, flags: &Flags, environment: &Environment) -> Result<(), ConfigError> {
        let named = flags
            .config
            .clone()
            .or_else(|| environment.get(CONFIG_FILE.name).map(PathBuf::from));
        let Some(path) = named.clone().or_else(|| usual_file(environment)) else {
            return Ok(());
        };
        let text = match read_trusted(&path, environment.uid()) {
            Ok(text) => text,
            Err(ConfigError::Read { source, .. }) if named.is_none() && is_absent(&source) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let table: toml::Table = text.parse().map_err(|source| ConfigError::Syntax {
            path: path.clone(),
            source: Box::new(source),
        })?;
        self.take_table("", table, &Origin::File(path.clone()))?;
        self.file = Some(path);
        Ok(())
    }

    fn take_table(
        &mut self,
        prefix: &str,
        table: toml::Table,
        origin: &Origin,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let name = format!("{prefix}{name}");
            match value {
                Value::Table(inner) if is_table_name(&name) => {
                    self.take_table(&format!("{name}."), inner, origin)?
                }
                value @ (Value::Table(_)
                | Value::String(_)
                | Value::Integer(_)
                | Value::Float(_)
                | Value::Boolean(_)
                | Value::Datetime(_)
                | Value::Array(_)) => self.put(&name, value, origin.clone())?,
            }
        }
        Ok(())
    }

    fn read_environment(&mut self, environment: &Environment) -> Result<(), ConfigError> {
        for key in KEYS {
            let Some(value) = environment.get(key.variable) else {
                continue;
            };
            let origin = Origin::Variable(key.variable);
            let Some(text) = value.to_str() else {
                return Err(ConfigError::WrongType {
                    key: key.name,
                    expected: "UTF-8 text".to_owned(),
                    origin,
                });
            };
            self.put(key.name, from_text(key, text), origin)?;
        }
        Ok(())
    }

    fn read_flags(&mut self, flags: &Flags) -> Result<(), ConfigError> {
        for text in &flags.set {
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| ConfigError::SetSyntax { text: text.clone() })?;
            let origin = Origin::Flag("--set");
            let key = find(name.trim(), &origin)?;
            let value = value.trim();
            // As in a variable; a list or a quoted text may also be written as in the file.
            let toml = if value.starts_with(['[', '{', '"', '\'']) {
                value.parse::<Value>().ok()
            } else {
                None
            };
            let parsed = toml.unwrap_or_else(|| from_text(key, value));
            self.put(key.name, parsed, origin)?;
        }
        if let Some(path) = &flags.state_dir {
            let origin = Origin::Flag("--state-dir");
            let Some(text) = path.to_str() else {
                return Err(ConfigError::WrongType {
                    key: STATE_DIR.name,
                    expected: "UTF-8 text".to_owned(),
                    origin,
                });
            };
            self.put(STATE_DIR.name, Value::String(text.to_owned()), origin)?;
        }
        Ok(())
    }

    fn put(&mut self, name: &str, value: Value, origin: Origin) -> Result<(), ConfigError> {
        let key = find(name, &origin)?;
        self.given.insert(key.name, Given { value, origin });
        Ok(())
    }
}

fn find(name: &str, origin: &Origin) -> Result<&'static Key, ConfigError> {
    KEYS.iter()
        .find(|key| key.name == name)
        .ok_or_else(|| ConfigError::UnknownKey {
            key: name.to_owned(),
            nearest: nearest(name, KEYS.iter().map(|key| key.name)),
            origin: origin.clone(),
        })
}

fn is_table_name(name: &str) -> bool {
    KEYS.iter().any(|key| {
        key.name
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

fn list<'text>(parts: impl Iterator<Item = &'text str>) -> Value {
    let parts = parts.filter(|part| !part.is_empty());
    Value::Array(parts.map(|part| Value::String(part.into())).collect())
}

/// A variable holds text only; lists and switches have their own form there.
fn from_text(key: &Key, text: &str) -> Value {
    match key.kind {
        Kind::PathList => list(text.split(':')),
        Kind::Words { .. } => list(text.split(',').map(str::trim)),
        Kind::Rules => list(text.split_whitespace()),
        Kind::Switch => match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" => Value::Boolean(true),
            "0" | "false" | "no" => Value::Boolean(false),
            _ => Value::String(text.to_owned()),
        },
        Kind::Count { .. } => text
            .trim()
            .parse()
            .map_or_else(|_| Value::String(text.to_owned()), Value::Integer),
        Kind::Tables => {
            let table: Option<Value> = text.parse().ok();
            table.unwrap_or_else(|| Value::String(text.to_owned()))
        }
        Kind::Path
        | Kind::Seconds { .. }
        | Kind::Bytes { .. }
        | Kind::Cpus { .. }
        | Kind::Dollars { .. }
        | Kind::Text { .. }
        | Kind::Choice(_) => Value::String(text.to_owned()),
    }
}

fn usual_file(environment: &Environment) -> Option<PathBuf> {
    if environment.uid() == 0 {
        return Some(PathBuf::from("/etc/claude-code-mcp/config.toml"));
    }
    Some(
        environment
            .config_home()?
            .join("claude-code-mcp/config.toml"),
    )
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
    )
}

/// Reads the file if nobody but its user and root can have written it: it decides how strong the walls are.
fn read_trusted(path: &Path, uid: u32) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_path_buf(),
        source,
    };
    let refused = |why| ConfigError::Unsafe {
        path: path.to_path_buf(),
        why,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(refused("is not a regular file"));
    }
    if metadata.uid() != uid && metadata.uid() != 0 {
        return Err(refused("belongs to another user"));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(refused(
            "can be written by everybody; take that right away with chmod o-w",
        ));
    }
    let mut text = String::new();
    file.take(CONFIG_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > CONFIG_FILE_BYTES {
        return Err(refused("is longer than a configuration can be"));
    }
    Ok(text)
}
