//! The raw layers: what the file, the environment and the flags say, as close to the text as possible.

use std::{
    collections::BTreeMap,
    fmt,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use toml::{Value, de::DeTable};

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
    /// Flags of a command that stand for keys, by their names, each as `--set` takes it. They win over `--set`.
    pub of_command: Vec<(&'static str, String)>,
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the file, at that line if it is known.
    File {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: Option<u32>,
    },
    /// In an environment variable.
    Variable(&'static str),
    /// In a flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File {
                path,
                line: Some(line),
            } => write!(f, "in {}:{line}", path.display()),
            Origin::File { path, line: None } => write!(f, "in {}", path.display()),
            Origin::Variable(name) => write!(f, "in the variable {name}"),
            Origin::Flag(flag) => write!(f, "in the flag {flag}"),
        }
    }
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// The three layers, merged: for each key the value that wins.
#[derive(Clone, Default)]
pub(super) struct Layers {
    /// The file that counts, whether it could be read or not.
    pub(super) file: Option<PathBuf>,
    /// Where it was looked for, there or not.
    pub(super) looked_for: Option<PathBuf>,
    given: BTreeMap<&'static str, Given>,
    /// Lines of the file, see [`lines`].
    lines: BTreeMap<String, u32>,
}

/// Names alone: a value may hold what only its program should see.
impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.given.keys()).finish()
    }
}

impl Layers {
    /// The layers, and everything in them that is not even a value of a key; that is left out.
    pub(super) fn read(flags: &Flags, environment: &Environment) -> (Self, Vec<ConfigError>) {
        let (mut layers, mut problems) = (Layers::default(), Vec::new());
        if let Err(error) = layers.read_file(flags, environment, &mut problems) {
            problems.push(error);
        }
        layers.read_environment(environment, &mut problems);
        layers.read_flags(flags, &mut problems);
        (layers, problems)
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Given> {
        self.given.get(key.name)
    }

    /// The value of a key, or none any more.
    pub(super) fn set(&mut self, key: &Key, given: Option<Given>) {
        match given {
            Some(given) => self.given.insert(key.name, given),
            None => self.given.remove(key.name),
        };
    }

    /// Where something is written: a key's value, or a part of it as [`lines`] names it.
    pub(super) fn place_of(&self, name: &str) -> Option<Origin> {
        let is_of = |key: &str| {
            let rest = name.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let (_, given) = self.given.iter().find(|(key, _)| is_of(key))?;
        Some(self.part_of(given, name))
    }

    fn part_of(&self, given: &Given, name: &str) -> Origin {
        match &given.origin {
            Origin::File { path, line } => Origin::File {
                path: path.clone(),
                line: self.lines.get(name).copied().or(*line),
            },
            origin @ (Origin::Variable(_) | Origin::Flag(_)) => origin.clone(),
        }
    }

    /// What a key's value consists of, each part with its own place: the entries of a list or a table. A value that has no
    /// parts is its only part.
    pub(super) fn parts(&self, key: &Key) -> Vec<Given> {
        let Some(given) = self.get(key) else {
            return Vec::new();
        };
        let part = |name: String, value| Given {
            value,
            origin: self.part_of(given, &name),
        };
        match &given.value {
            Value::Array(list) => {
                let each = list.iter().enumerate().map(|(index, entry)| {
                    part(
                        format!("{}[{index}]", key.name),
                        Value::Array(vec![entry.clone()]),
                    )
                });
                each.collect()
            }
            Value::Table(table) => {
                let each = table.iter().map(|(name, entry)| {
                    let alone = toml::Table::from_iter([(name.clone(), entry.clone())]);
                    part(format!("{}.{name}", key.name), Value::Table(alone))
                });
                each.collect()
            }
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_) => vec![given.clone()],
        }
    }

    fn read_file(
        &mut self,
        flags: &Flags,
        environment: &Environment,
        problems: &mut Vec<ConfigError>,
    ) -> Result<(), ConfigError> {
        let named = flags
            .config
            .clone()
            .or_else(|| environment.get(CONFIG_FILE.name).map(PathBuf::from));
        let Some(path) = named.clone().or_else(|| usual_file(environment)) else {
            return Ok(());
        };
        self.looked_for = Some(path.clone());
        let text = match read_trusted(&path, environment.uid()) {
            Ok(text) => text,
            Err(ConfigError::Read { source, .. }) if named.is_none() && is_absent(&source) => {
                return Ok(());
            }
            Err(error) => {
                self.file = Some(path);
                return Err(error);
            }
        };
        self.file = Some(path.clone());
        let syntax = |source| ConfigError::Syntax {
            path: path.clone(),
            source: Box::new(source),
        };
        let table: toml::Table = text.parse().map_err(syntax)?;
        self.lines = lines(&text).map_err(syntax)?;
        self.take_table("", table, &path, problems);
        Ok(())
    }

    fn take_table(
        &mut self,
        prefix: &str,
        table: toml::Table,
        path: &Path,
        problems: &mut Vec<ConfigError>,
    ) {
        for (name, value) in table {
            let name = format!("{prefix}{name}");
            match value {
                Value::Table(inner) if is_table_name(&name) => {
                    self.take_table(&format!("{name}."), inner, path, problems);
                }
                value @ (Value::Table(_)
                | Value::String(_)
                | Value::Integer(_)
                | Value::Float(_)
                | Value::Boolean(_)
                | Value::Datetime(_)
                | Value::Array(_)) => {
                    let origin = Origin::File {
                        path: path.to_path_buf(),
                        line: self.lines.get(&name).copied(),
                    };
                    problems.extend(self.put(&name, value, origin).err());
                }
            }
        }
    }

    fn read_environment(&mut self, environment: &Environment, problems: &mut Vec<ConfigError>) {
        for key in KEYS {
            let Some(value) = environment.get(key.variable) else {
                continue;
            };
            let origin = Origin::Variable(key.variable);
            let read = match value.to_str() {
                Some(text) => self.put(key.name, from_text(key, text), origin),
                None => Err(no_text(key.name, origin)),
            };
            problems.extend(read.err());
        }
    }

    fn read_flags(&mut self, flags: &Flags, problems: &mut Vec<ConfigError>) {
        let set = flags.set.iter().map(|text| ("--set", text));
        let of_command = flags.of_command.iter().map(|(flag, text)| (*flag, text));
        for (flag, text) in set.chain(of_command) {
            problems.extend(self.set_by_flag(flag, text).err());
        }
        if let Some(path) = &flags.state_dir {
            let origin = Origin::Flag("--state-dir");
            let read = match path.to_str() {
                Some(text) => self.put(STATE_DIR.name, Value::String(text.to_owned()), origin),
                None => Err(no_text(STATE_DIR.name, origin)),
            };
            problems.extend(read.err());
        }
    }

    fn set_by_flag(&mut self, flag: &'static str, text: &str) -> Result<(), ConfigError> {
        let (name, value) = text.split_once('=').ok_or_else(|| ConfigError::SetSyntax {
            text: text.to_owned(),
        })?;
        let origin = Origin::Flag(flag);
        let key = find(name.trim(), &origin)?;
        let value = value.trim();
        // As in a variable; a list or a quoted text may also be written as in the file.
        let toml = if value.starts_with(['[', '{', '"', '\'']) {
            value.parse::<Value>().ok()
        } else {
            None
        };
        let parsed = toml.unwrap_or_else(|| from_text(key, value));
        self.put(key.name, parsed, origin)
    }

    fn put(&mut self, name: &str, value: Value, origin: Origin) -> Result<(), ConfigError> {
        let key = find(name, &origin)?;
        self.given.insert(key.name, Given { value, origin });
        Ok(())
    }
}

fn no_text(key: &'static str, origin: Origin) -> ConfigError {
    ConfigError::WrongType {
        key,
        expected: "UTF-8 text".to_owned(),
        origin,
    }
}

/// The line of each key (`limits.memory`), of each entry of a list (`network_allow[1]`) and of each table.
fn lines(text: &str) -> Result<BTreeMap<String, u32>, toml::de::Error> {
    let mut found = BTreeMap::new();
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    // The file is short: see CONFIG_FILE_BYTES.
    let line_of =
        |at: usize| u32::try_from(ends.partition_point(|end| *end < at) + 1).unwrap_or(u32::MAX);
    collect_lines("", DeTable::parse(text)?.get_ref(), &line_of, &mut found);
    Ok(found)
}

fn collect_lines(
    prefix: &str,
    table: &DeTable<'_>,
    line_of: &dyn Fn(usize) -> u32,
    found: &mut BTreeMap<String, u32>,
) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        found.insert(name.clone(), line_of(key.span().start));
        if let Some(inner) = value.get_ref().as_table() {
            collect_lines(&format!("{name}."), inner, line_of, found);
        }
        for (index, entry) in value.get_ref().as_array().into_iter().flatten().enumerate() {
            found.insert(format!("{name}[{index}]"), line_of(entry.span().start));
        }
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
