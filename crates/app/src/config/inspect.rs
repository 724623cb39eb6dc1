//! Everything that is wrong with a configuration, not only the first of it.
//!
//! What is wrong is set aside and the rest is read as if it was not there, until nothing is wrong any more.

use serde::Serialize;

use super::{
    Config, ConfigError, Environment, Flags, KEYS, Key, OTHER_VARIABLES,
    environment::CREDENTIAL_PREFIX,
    layers::{Layers, Origin},
    nearest::nearest,
    resolve::resolve,
};

/// Problems that are told at most: a file with more is another one.
const MAX_PROBLEMS: usize = 200;
/// How variables begin that are meant for this program.
const OWN_PREFIX: &str = "CLAUDE_CODE_MCP_";

/// Something that keeps a server from starting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Its stable name.
    pub code: &'static str,
    /// The key that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What is wrong, in a sentence without its full stop.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

impl Problem {
    /// One that is no key's.
    pub(crate) fn other(code: &'static str, message: String) -> Self {
        Problem {
            code,
            key: None,
            place: None,
            message,
            hint: "Try again when that is put right.".to_owned(),
        }
    }
}

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// In a file.
    File {
        /// Its path.
        path: String,
        /// From 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        line: Option<u32>,
    },
    /// In a variable of the environment.
    Variable(&'static str),
    /// In a flag.
    Flag(&'static str),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File {
                path,
                line: Some(line),
            } => write!(f, "{path}:{line}"),
            Place::File { path, line: None } => f.write_str(path),
            Place::Variable(name) => write!(f, "variable {name}"),
            Place::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// What [`inspect`] found.
#[derive(Debug)]
pub struct Inspected {
    /// What keeps a server from starting; nothing where all is well.
    pub problems: Vec<Problem>,
    /// What is probably not meant so, but hinders nothing.
    pub warnings: Vec<String>,
    /// The configuration, without what is wrong.
    pub config: Option<Config>,
}

/// Reads file, environment and flags as [`super::load`] does, and goes on after what is wrong.
pub fn inspect(flags: &Flags, environment: &Environment) -> Inspected {
    let (mut layers, errors) = Layers::read(flags, environment);
    let mut problems: Vec<Problem> = errors.iter().map(|error| problem(error, None)).collect();
    let config = loop {
        let error = match resolve(layers.clone(), environment) {
            Ok(config) => break Some(config),
            Err(error) => error,
        };
        let Some(key) = set_aside(&error, &layers) else {
            problems.push(problem(&error, None));
            break None;
        };
        let found = of_parts(key, &layers, environment);
        match found.is_empty() {
            true => problems.push(problem(&error, place_of(key, &layers))),
            false => problems.extend(found),
        }
        layers.set(key, None);
        if problems.len() >= MAX_PROBLEMS {
            problems.truncate(MAX_PROBLEMS);
            break None;
        }
    };
    Inspected {
        problems,
        warnings: warnings(environment),
        config,
    }
}

/// The key without which this error would not be: of two that contradict each other the one that was written.
fn set_aside(error: &ConfigError, layers: &Layers) -> Option<&'static Key> {
    let other = if let ConfigError::Contradiction { larger, .. } = error {
        Some(*larger)
    } else {
        None
    };
    let named = [error.key(), other].into_iter().flatten();
    let mut keys = named.filter_map(|name| KEYS.iter().find(|key| key.name == name));
    keys.find(|key| layers.get(key).is_some())
}

/// What is wrong with each entry of a list or table by itself.
fn of_parts(key: &'static Key, layers: &Layers, environment: &Environment) -> Vec<Problem> {
    let parts = layers.parts(key);
    if parts.len() < 2 {
        return Vec::new();
    }
    let wrong = parts.into_iter().take(MAX_PROBLEMS).filter_map(|part| {
        let mut alone = layers.clone();
        alone.set(key, Some(part));
        let error = resolve(alone, environment).err()?;
        (error.key() == Some(key.name)).then(|| problem(&error, None))
    });
    wrong.collect()
}

fn place_of(key: &Key, layers: &Layers) -> Option<Place> {
    layers.get(key).map(|given| place(&given.origin))
}

pub(super) fn problem(error: &ConfigError, otherwise: Option<Place>) -> Problem {
    // The place stands beside it.
    let message = match error.origin() {
        Some(origin) => error.chain().replacen(&format!(" {origin}"), "", 1),
        None => error.chain(),
    };
    let place = of_file(error)
        .or_else(|| error.origin().map(place))
        .or(otherwise);
    let key = if let ConfigError::UnknownKey { key, .. } = error {
        Some(key.clone())
    } else if let ConfigError::Credential { name, .. } = error {
        Some(format!("credentials.{name}"))
    } else {
        error.key().map(str::to_owned)
    };
    Problem {
        code: error.code(),
        key,
        place,
        message,
        hint: error.hint().to_owned(),
    }
}

/// The file that is wrong as a whole.
fn of_file(error: &ConfigError) -> Option<Place> {
    let place = |path: &std::path::Path, line| Place::File {
        path: path.display().to_string(),
        line,
    };
    if let ConfigError::Syntax { path, source } = error {
        return Some(place(path, line_of(source)));
    }
    if let ConfigError::Read { path, .. } | ConfigError::Unsafe { path, .. } = error {
        return Some(place(path, None));
    }
    None
}

/// The line that the parser names in its own words: it keeps the place, and not the text to count lines in.
fn line_of(error: &toml::de::Error) -> Option<u32> {
    let said = error.to_string();
    let (_, rest) = said.split_once("at line ")?;
    rest.split(|letter: char| !letter.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

pub(super) fn place(origin: &Origin) -> Place {
    match origin {
        Origin::File { path, line } => Place::File {
            path: path.display().to_string(),
            line: *line,
        },
        Origin::Variable(name) => Place::Variable(name),
        Origin::Flag(name) => Place::Flag(name),
    }
}

/// Variables that look as if they were meant for this program and that it does not know.
fn warnings(environment: &Environment) -> Vec<String> {
    let known = || {
        let keys = KEYS.iter().map(|key| key.variable);
        keys.chain(OTHER_VARIABLES.iter().map(|variable| variable.name))
    };
    let unknown = environment.names().filter(|name| {
        name.starts_with(OWN_PREFIX)
            && !name.starts_with(CREDENTIAL_PREFIX)
            && !known().any(|known| known == *name)
    });
    unknown
        .map(|name| {
            let meant = nearest(name, known().filter(|known| known.starts_with(OWN_PREFIX)));
            let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            format!("the variable {name} is not known{meant}")
        })
        .collect()
}
