//! What an operator offers to sessions is held to the same list as what callers ask for: `profiles/forbidden-paths.json`.

use std::path::{Path, PathBuf};

use policy::OfferedPaths;

use super::{Config, ConfigError, Environment, Key, keys, layers::Layers, layers::Origin};

/// The home of a server's user whose home is not known: what is root's is forbidden to everybody.
const UNKNOWN_HOME: &str = "/root";

/// Looks at each directory as it is written and where it really stands. Gives those of `extra_read_only` with their links
/// resolved: what was judged is what is offered, whatever becomes of the links.
///
/// # Errors
/// When no session may have one of them, or it would not be seen inside.
pub(super) fn check(
    config: &Config,
    layers: &Layers,
    environment: &Environment,
) -> Result<Vec<PathBuf>, ConfigError> {
    let offer = Offer::new(environment, &config.paths.state_dir)?;
    for path in &config.project_roots {
        if let Some(why) = offer.why_forbidden(path) {
            return Err(refused(&keys::PROJECT_ROOTS, layers, path, why));
        }
    }
    let mut offered = Vec::with_capacity(config.extra_read_only.len());
    for path in &config.extra_read_only {
        let real = real(path);
        if let Some(why) = offer.why_not(path).or_else(|| offer.why_not(&real)) {
            return Err(refused(&keys::EXTRA_READ_ONLY, layers, path, why));
        }
        offered.push(real);
    }
    Ok(offered)
}

/// Judges directories of the host.
pub struct Offer {
    /// By the names of home and state directory as they are given, and by where these really stand.
    rules: [OfferedPaths; 2],
}

impl Offer {
    /// For a server with that environment and state directory.
    ///
    /// # Errors
    /// Never for the data that is built in; a test reads it.
    pub fn new(environment: &Environment, state_dir: &Path) -> Result<Self, ConfigError> {
        let home = environment
            .home()
            .or_else(std::env::home_dir)
            .filter(|home| home.is_absolute())
            .unwrap_or_else(|| PathBuf::from(UNKNOWN_HOME));
        let rules = |home: &Path, state: &Path| {
            OfferedPaths::new(home, state).map_err(ConfigError::Profile)
        };
        Ok(Offer {
            rules: [
                rules(&home, state_dir)?,
                rules(&real(&home), &real(state_dir))?,
            ],
        })
    }

    /// Why sessions cannot be shown this directory, at this path inside; a phrase after the path.
    pub fn why_not(&self, path: &Path) -> Option<String> {
        self.why_forbidden(path).or_else(|| {
            let why = self.rules.iter().find_map(|rules| rules.why_hidden(path))?;
            Some(format!("would not be seen inside: {why}"))
        })
    }

    fn why_forbidden(&self, path: &Path) -> Option<String> {
        let places = [path, &real(path)];
        let why = self
            .rules
            .iter()
            .find_map(|rules| places.iter().find_map(|place| rules.why_forbidden(place)))?;
        Some(format!("is a directory that no session may have: {why}"))
    }
}

/// The path without links, or as it is where it does not exist yet.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn refused(key: &'static Key, layers: &Layers, path: &Path, why: String) -> ConfigError {
    let origin = layers.get(key).map(|given| given.origin.clone());
    ConfigError::Path {
        key: key.name,
        origin: origin.unwrap_or(Origin::Flag("(built-in default)")),
        path: path.to_owned(),
        why: why.into(),
    }
}
