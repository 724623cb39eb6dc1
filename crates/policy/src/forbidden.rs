//! Host paths that no session ever gets, whatever roots are configured: `profiles/forbidden-paths.json`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{PolicyError, lexical};

const FILE: &str = "forbidden-paths.json";
const DATA: &str = include_str!("../../../profiles/forbidden-paths.json");

/// Where other users' homes stand; their credentials are as forbidden as ours.
const HOMES: &str = "/home";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Data {
    #[serde(rename = "about")]
    _about: String,
    system: Vec<SystemEntry>,
    home: Vec<PathEntry>,
    targets: Vec<PathEntry>,
}

/// How far an entry reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Scope {
    /// The path, all below it, and its parents (which contain it).
    Tree,
    /// The path and its parents, not what is below it.
    Itself,
    /// As `tree`, unless it is the home of the server's user: then as `itself`.
    TreeUnlessHome,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SystemEntry {
    path: PathBuf,
    scope: Scope,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PathEntry {
    path: PathBuf,
    reason: String,
}

/// Directories that an operator offers to all sessions, at the same path inside.
pub struct OfferedPaths(ForbiddenPaths);

impl OfferedPaths {
    /// For a server whose user has that home and which keeps its state there; both absolute.
    ///
    /// # Errors
    /// Never for the data that is built in; a test reads it.
    pub fn new(home: &Path, state_directory: &Path) -> Result<Self, PolicyError> {
        ForbiddenPaths::load(home, state_directory).map(OfferedPaths)
    }

    /// Why no session may have this absolute path of the host, as with what callers mount.
    pub fn why_forbidden(&self, path: &Path) -> Option<&str> {
        self.0.why_forbidden(path)
    }

    /// Why it would not be seen: something of the sandbox's own stands there.
    pub fn why_hidden(&self, path: &Path) -> Option<&str> {
        let hit = self
            .0
            .targets
            .iter()
            .find(|(reserved, _)| path.starts_with(reserved));
        hit.map(|(_, reason)| reason.as_str())
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct ForbiddenPaths {
    home: PathBuf,
    entries: Vec<Entry>,
    /// Relative to a home, with their reasons.
    credentials: Vec<(PathBuf, String)>,
    /// Inside a sandbox, with their reasons.
    targets: Vec<(PathBuf, String)>,
}

#[derive(Debug, Clone)]
struct Entry {
    path: PathBuf,
    below: bool,
    reason: String,
}

impl ForbiddenPaths {
    pub(crate) fn load(home: &Path, state_directory: &Path) -> Result<Self, PolicyError> {
        let data: Data = serde_json::from_str(DATA)
            .map_err(|source| PolicyError::ProfileSyntax { file: FILE, source })?;
        check(&data)?;
        let mut entries = vec![
            Entry {
                path: PathBuf::from("/"),
                below: false,
                reason: "the root directory is the whole machine, with every file on it".to_owned(),
            },
            Entry {
                path: home.to_owned(),
                below: false,
                reason: "a home directory as a whole holds keys and start-up files".to_owned(),
            },
            Entry {
                path: state_directory.to_owned(),
                below: true,
                reason: "the server keeps its own state and other sessions there".to_owned(),
            },
        ];
        entries.extend(data.system.into_iter().map(|entry| Entry {
            below: match entry.scope {
                Scope::Tree => true,
                Scope::Itself => false,
                Scope::TreeUnlessHome => home != entry.path,
            },
            path: entry.path,
            reason: entry.reason,
        }));
        let with_reason = |entries: Vec<PathEntry>| {
            entries
                .into_iter()
                .map(|entry| (entry.path, entry.reason))
                .collect()
        };
        let (credentials, targets): (Vec<_>, Vec<_>) =
            (with_reason(data.home), with_reason(data.targets));
        entries.extend(credentials.iter().map(|(path, reason)| Entry {
            path: home.join(path),
            below: true,
            reason: reason.clone(),
        }));
        Ok(ForbiddenPaths {
            home: home.to_owned(),
            entries,
            credentials,
            targets,
        })
    }

    /// Why nothing may be mounted from, or transferred at, this absolute and clean path.
    pub(crate) fn why_forbidden(&self, path: &Path) -> Option<&str> {
        let itself =
            |entry: &&Entry| entry.path == path || (entry.below && path.starts_with(&entry.path));
        // A parent would bring the forbidden path along. Its own reason comes first, where it has one.
        let inside = |entry: &&Entry| entry.path.starts_with(path);
        let entries = || self.entries.iter();
        let hit = entries().find(itself).or_else(|| entries().find(inside));
        hit.map(|entry| entry.reason.as_str())
            .or_else(|| self.in_a_foreign_home(path))
    }

    /// Why nothing may be mounted at this absolute and clean path inside a sandbox.
    pub(crate) fn why_reserved_target(&self, target: &Path) -> Option<&str> {
        let hit = self
            .targets
            .iter()
            .find(|(reserved, _)| lexical::overlap(reserved, target));
        hit.map(|(_, reason)| reason.as_str())
    }

    fn in_a_foreign_home(&self, path: &Path) -> Option<&str> {
        let below_homes = path.strip_prefix(HOMES).ok()?;
        let user = below_homes.components().next()?;
        let home = Path::new(HOMES).join(user);
        if home == self.home {
            return None;
        }
        let hit = self
            .credentials
            .iter()
            .find(|(relative, _)| path.starts_with(home.join(relative)));
        hit.map(|(_, reason)| reason.as_str())
    }
}

/// Why an absolute and clean host path is none to mount into a container, by the list that holds for sessions; `None` where
/// nothing speaks against it.
///
/// # Errors
/// The list itself is not sound.
pub fn why_host_path_is_forbidden(
    path: &Path,
    home: &Path,
    state_directory: &Path,
) -> Result<Option<String>, PolicyError> {
    let forbidden = ForbiddenPaths::load(home, state_directory)?;
    Ok(forbidden.why_forbidden(path).map(str::to_owned))
}

fn check(data: &Data) -> Result<(), PolicyError> {
    let system = data
        .system
        .iter()
        .map(|entry| (&entry.path, &entry.reason, entry.path.is_absolute()));
    let home = data
        .home
        .iter()
        .map(|entry| (&entry.path, &entry.reason, entry.path.is_relative()));
    let mut seen = BTreeSet::new();
    for (path, reason, anchored) in system.chain(home) {
        check_entry(path, reason, anchored)?;
        if !seen.insert(path) {
            return Err(inconsistent(path, "stands twice"));
        }
    }
    let mut seen = BTreeSet::new();
    for entry in &data.targets {
        check_entry(&entry.path, &entry.reason, entry.path.is_absolute())?;
        if !seen.insert(&entry.path) {
            return Err(inconsistent(&entry.path, "stands twice"));
        }
    }
    Ok(())
}

fn check_entry(path: &Path, reason: &str, anchored: bool) -> Result<(), PolicyError> {
    // `components()` hides `//`, so the text is compared.
    let clean = path.iter().collect::<PathBuf>().as_os_str() == path.as_os_str()
        && !path.iter().any(|part| part == "..");
    if !anchored || !clean {
        return Err(inconsistent(path, "is no clean path of its list"));
    }
    if reason.trim().is_empty() {
        return Err(inconsistent(path, "has no reason"));
    }
    Ok(())
}

fn inconsistent(path: &Path, why: &str) -> PolicyError {
    PolicyError::Profile {
        file: FILE,
        why: format!("`{}` {why}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(home: &str) -> ForbiddenPaths {
        ForbiddenPaths::load(Path::new(home), Path::new("/srv/state/server")).unwrap()
    }

    fn data() -> Data {
        serde_json::from_str(DATA).unwrap()
    }

    #[test]
    fn every_entry_is_used_and_says_why() {
        let paths = paths("/home/alice");
        for entry in data().system {
            assert!(entry.reason.len() > 15, "{:?} needs a reason", entry.path);
            assert!(
                paths.why_forbidden(&entry.path).is_some(),
                "{:?}",
                entry.path
            );
            let below = paths.why_forbidden(&entry.path.join("below-this"));
            assert_eq!(
                below.is_some(),
                entry.scope != Scope::Itself,
                "{:?}",
                entry.path
            );
        }
        for entry in data().home {
            assert!(entry.reason.len() > 15, "{:?} needs a reason", entry.path);
            for home in ["/home/alice", "/home/bob"] {
                let path = Path::new(home).join(&entry.path);
                assert_eq!(
                    paths.why_forbidden(&path),
                    Some(entry.reason.as_str()),
                    "{path:?}"
                );
                assert_eq!(
                    paths.why_forbidden(&path.join("x")),
                    Some(entry.reason.as_str()),
                    "{path:?}"
                );
            }
        }
    }

    /// `/` was refused as a home directory, since it holds one, and so was `/home`.
    #[test]
    fn a_path_that_holds_a_home_is_refused_for_what_it_is_itself() {
        let paths = paths("/home/alice");
        for (path, word) in [
            ("/", "the whole machine"),
            ("/home", "the homes of all users"),
            ("/home/alice", "a home directory as a whole"),
            ("/srv", "the server keeps its own state"),
        ] {
            let why = paths.why_forbidden(Path::new(path)).unwrap();
            assert!(why.contains(word), "{path}: {why}");
        }
        assert_eq!(paths.why_forbidden(Path::new("/home/alice/project")), None);
    }

    #[test]
    fn targets_are_reserved_with_their_parents_and_children() {
        let paths = paths("/home/alice");
        for entry in data().targets {
            assert!(entry.reason.len() > 10, "{:?} needs a reason", entry.path);
            for target in [
                entry.path.clone(),
                entry.path.join("x"),
                entry.path.parent().unwrap().to_owned(),
            ] {
                assert!(paths.why_reserved_target(&target).is_some(), "{target:?}");
            }
        }
        for free in [
            "/data",
            "/opt/x",
            "/home/alice/.cargo/bin",
            "/root/x",
            "/var/lib/x",
            "/workspaces",
            "/mnt",
        ] {
            assert_eq!(paths.why_reserved_target(Path::new(free)), None, "{free}");
        }
    }

    #[test]
    fn homes_system_directories_and_their_parents_are_forbidden_and_projects_are_not() {
        #[rustfmt::skip]
        let cases = [
            ("/home/alice", "/", false), ("/home/alice", "/home", false), ("/home/alice", "/home/alice", false),
            ("/home/alice", "/home/alice/project", true), ("/home/alice", "/home/alice/.config", false),
            ("/home/alice", "/home/alice/.config/app", true), ("/home/alice", "/home/alice/.sshx", true),
            ("/home/alice", "/home/alice/project/.docker", true), ("/home/alice", "/home/alice/.local/bin", true),
            ("/home/alice", "/home/alice/.cargo", false), ("/home/alice", "/home/alice/.cargo/bin", true),
            ("/home/alice", "/home/bob/project", true), ("/home/alice", "/home/bob/.ssh/x", false),
            ("/home/alice", "/root", false), ("/home/alice", "/root/project", false),
            ("/root", "/root", false), ("/root", "/root/project", true), ("/root", "/root/.ssh", false),
            ("/root", "/home", false), ("/root", "/home/app", true),
            ("/root", "/srv", false), ("/root", "/srv/state", false), ("/root", "/srv/state/server/x", false),
            ("/root", "/srv/state/server2", true), ("/root", "/srv/www", true),
            ("/root", "/tmp", false), ("/root", "/tmp/project", true), ("/root", "/tmp/.X11-unix", false),
            ("/root", "/usr", false), ("/root", "/usr/src/app", true), ("/root", "/usr/lib/x", false),
            ("/root", "/var", false), ("/root", "/var/lib", false), ("/root", "/var/lib/docker/x", false),
            ("/root", "/var/lib/ci/workspace", true), ("/root", "/var/www/site", true),
            ("/root", "/etcetera", true), ("/root", "/etc/x", false), ("/root", "/opt/project", true),
        ];
        for (home, path, allowed) in cases {
            assert_eq!(
                paths(home).why_forbidden(Path::new(path)).is_none(),
                allowed,
                "home {home}, path {path}"
            );
        }
    }

    #[test]
    fn what_an_operator_offers_is_neither_forbidden_nor_hidden() {
        let offered =
            OfferedPaths::new(Path::new("/srv/alice"), Path::new("/srv/state/server")).unwrap();
        for tools in ["/opt", "/opt/x", "/srv/alice/.cargo/bin", "/snap/bin"] {
            assert_eq!(offered.why_forbidden(Path::new(tools)), None, "{tools}");
            assert_eq!(offered.why_hidden(Path::new(tools)), None, "{tools}");
        }
        for key in [
            "/srv/alice/.ssh",
            "/srv/alice/.ssh/id",
            "/srv/alice",
            "/etc",
        ] {
            assert!(offered.why_forbidden(Path::new(key)).is_some(), "{key}");
        }
        for place in ["/tmp/tools", "/var/tmp/tools", "/workspace", "/state/x"] {
            assert!(offered.why_hidden(Path::new(place)).is_some(), "{place}");
        }
    }

    #[test]
    fn a_malformed_entry_is_found() {
        let entry = |path: &str, reason: &str| PathEntry {
            path: path.into(),
            reason: reason.into(),
        };
        let with = |home| Data {
            _about: String::new(),
            system: Vec::new(),
            home,
            targets: Vec::new(),
        };
        assert!(check(&with(vec![entry(".ssh", "keys")])).is_ok());
        for wrong in [
            vec![entry("/ssh", "keys")],
            vec![entry("../x", "keys")],
            vec![entry("a//b", " ")],
            vec![entry(".ssh", "")],
            vec![entry(".ssh", "keys"), entry(".ssh", "keys")],
        ] {
            assert!(check(&with(wrong)).is_err());
        }
    }
}
