//! Paths of a workspace that the host would execute or trust: `profiles/protected-paths.json`.
//!
//! Three uses: the *plan* for a new sandbox (what is mounted read-only, masked or pinned), the *match* for what appears
//! later, and the *patterns* that a transfer must not write. Names are compared as the least careful file system of a
//! shared checkout would: without case, without code points that HFS+ ignores, without what NTFS drops.
//!
//! What this does not stop: what is dangerous without a protected name (a build file, a bare repository in a directory of
//! any name), and what the host runs between an execution and its scan.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    path::{Path, PathBuf},
};

use model::{ProtectedPath, Protection};
use serde::Deserialize;

use crate::{EntryKind, PolicyError, folding::fold, lexical};

const FILE: &str = "protected-paths.json";
const DATA: &str = include_str!("../../../profiles/protected-paths.json");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Data {
    #[serde(rename = "about")]
    _about: String,
    package_directories: Vec<PackageDirectory>,
    rules: Vec<Rule>,
    left_out: Vec<LeftOut>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PackageDirectory {
    name: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct LeftOut {
    path: PathBuf,
    reason: String,
}

/// One protected path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rule {
    path: PathBuf,
    kind: RuleKind,
    inside_packages: bool,
    when_missing: WhenMissing,
    reason: String,
}

/// What stands at a protected path usually.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RuleKind {
    /// A file.
    File,
    /// A directory; all below it is protected too.
    Directory,
    /// `.git`: protected while it is a file or link that points elsewhere. As a directory it is the repository, and
    /// further rules protect parts of it.
    GitLink,
}

/// What is done for a protected path that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WhenMissing {
    /// An empty placeholder stands there while the sandbox lives.
    Mask,
    /// A placeholder would do harm: the scan after each execution finds it.
    Scan,
}

impl Rule {
    /// The path, relative to the workspace or to any directory below it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What stands there usually.
    pub const fn kind(&self) -> RuleKind {
        self.kind
    }

    /// What is done when it does not exist.
    pub const fn when_missing(&self) -> WhenMissing {
        self.when_missing
    }

    /// Why it is protected.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct ProtectedPaths {
    rules: Vec<Rule>,
    candidates: Vec<PathBuf>,
    package_directories: Vec<String>,
}

impl ProtectedPaths {
    pub(crate) fn load() -> Result<Self, PolicyError> {
        let data: Data = serde_json::from_str(DATA)
            .map_err(|source| PolicyError::ProfileSyntax { file: FILE, source })?;
        check(&data).map_err(|why| PolicyError::Profile { file: FILE, why })?;
        let mut candidates = BTreeSet::new();
        for rule in &data.rules {
            let parents = rule
                .path
                .ancestors()
                .filter(|path| !path.as_os_str().is_empty());
            candidates.extend(parents.map(Path::to_owned));
        }
        Ok(ProtectedPaths {
            rules: data.rules,
            candidates: candidates.into_iter().collect(),
            package_directories: data
                .package_directories
                .into_iter()
                .map(|directory| directory.name)
                .collect(),
        })
    }

    /// Every rule.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Relative paths that must be looked up for a plan, parents before children.
    pub(crate) fn candidates(&self) -> &[PathBuf] {
        &self.candidates
    }

    /// How the protected paths at the top of a workspace are kept from the agent: directories on the way are pinned
    /// first, what exists is read-only, what does not is masked where its parent directory exists and a placeholder does
    /// no harm. The rest is left to the scan. A candidate that is absent from `existing` counts as missing.
    pub fn plan(&self, existing: &BTreeMap<PathBuf, EntryKind>) -> Vec<ProtectedPath> {
        let kind_of = |path: &Path| existing.get(path).copied().unwrap_or(EntryKind::Missing);
        let mut pinned = BTreeSet::new();
        let mut leaves = BTreeMap::new();
        for rule in &self.rules {
            let parent = rule
                .path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            if parent.is_some_and(|parent| kind_of(parent) != EntryKind::Directory) {
                continue;
            }
            if let Some(protection) = protection(rule, kind_of(&rule.path)) {
                pinned.extend(parent.map(Path::to_owned));
                leaves.insert(rule.path.clone(), protection);
            }
        }
        let pinned = pinned.into_iter().map(|relative| ProtectedPath {
            relative,
            protection: Protection::Pinned,
        });
        let leaves = leaves
            .into_iter()
            .map(|(relative, protection)| ProtectedPath {
                relative,
                protection,
            });
        pinned.chain(leaves).collect()
    }

    /// A plan again, now that these of its paths are gone: as if they had been missing from the start.
    pub fn plan_without(
        &self,
        plan: &[ProtectedPath],
        gone: &BTreeSet<PathBuf>,
    ) -> Vec<ProtectedPath> {
        let again = |path: &ProtectedPath| {
            if !gone.contains(&path.relative) {
                return Some(path.clone());
            }
            let rule = self.rules.iter().find(|rule| rule.path == path.relative)?;
            let protection = protection(rule, EntryKind::Missing)?;
            Some(ProtectedPath {
                relative: path.relative.clone(),
                protection,
            })
        };
        plan.iter().filter_map(again).collect()
    }

    /// A protected path, or a directory on the way to one, that is a link, socket, device or pipe: it cannot be mounted
    /// over itself, and an agent could exchange it.
    pub(crate) fn unpinnable<'a>(
        &'a self,
        existing: &BTreeMap<PathBuf, EntryKind>,
    ) -> Option<&'a Path> {
        let other = |path: &&PathBuf| existing.get(*path) == Some(&EntryKind::Other);
        self.candidates.iter().find(other).map(PathBuf::as_path)
    }

    /// The rule that protects this path of the workspace, at any depth; also for all below a protected directory.
    /// `.git` itself is no match here, whatever stands there: see [`ProtectedPaths::matches_entry`].
    pub fn matches(&self, relative: &Path) -> Option<&Rule> {
        self.find(relative, |rule| rule.kind != RuleKind::GitLink)
    }

    /// As [`ProtectedPaths::matches`], and a `.git` that is no directory matches too.
    pub fn matches_entry(&self, relative: &Path, kind: EntryKind) -> Option<&Rule> {
        let link = |rule: &Rule| rule.kind != RuleKind::GitLink;
        let leaf_is_git = relative
            .file_name()
            .is_some_and(|name| fold(name) == ".git");
        if leaf_is_git && kind != EntryKind::Directory && kind != EntryKind::Missing {
            return self.find(relative, |_| true);
        }
        self.find(relative, link)
    }

    /// The rule that keeps this path from being handed to a session or written by a transfer: as
    /// [`ProtectedPaths::matches`], and everything in a `.git` as well.
    pub(crate) fn touches(&self, relative: &Path) -> Option<&Rule> {
        self.find(relative, |_| true)
    }

    /// The path lies in a `.git`, or is one: never something to hand out, whatever the roots.
    pub(crate) fn in_repository(path: &Path) -> bool {
        lexical::names(path).any(|name| fold(name) == ".git")
    }

    /// What a transfer into `destination` (relative to the workspace) must not write: `path` relative to the
    /// destination, or `**/path` at any depth below it, by whole components.
    pub fn refuse_patterns(&self, destination: &Path) -> Vec<String> {
        let folded: Vec<_> = lexical::names(destination).map(fold).collect();
        let inside: Vec<_> = folded.iter().map(Cow::as_ref).collect();
        let mut patterns = BTreeSet::new();
        for rule in &self.rules {
            let parts: Vec<_> = rule.path.iter().filter_map(OsStr::to_str).collect();
            patterns.insert(format!("**/{}", parts.join("/")));
            // A destination that lies on the way to a protected path: `hooks` below `.git`.
            let on_the_way = |split: &usize| inside.ends_with(&parts[..*split]);
            patterns.extend(
                (1..parts.len())
                    .filter(on_the_way)
                    .map(|split| parts[split..].join("/")),
            );
        }
        patterns.into_iter().collect()
    }

    fn find(&self, relative: &Path, wanted: impl Fn(&Rule) -> bool) -> Option<&Rule> {
        let names: Vec<_> = lexical::names(relative).collect();
        let folded: Vec<_> = names.iter().map(|name| fold(name)).collect();
        // Below a package directory only the rules that say so count.
        let packaged_from = names
            .iter()
            .position(|name| self.is_package_directory(name))
            .unwrap_or(names.len());
        let matches = |rule: &&Rule| {
            let starts = |start: usize| begins_with(&folded[start..], &rule.path);
            (0..names.len())
                .any(|start| starts(start) && (rule.inside_packages || start <= packaged_from))
        };
        self.rules.iter().filter(|rule| wanted(rule)).find(matches)
    }

    fn is_package_directory(&self, name: &OsStr) -> bool {
        self.package_directories
            .iter()
            .any(|directory| name == directory.as_str())
    }
}

/// The folded names begin with all parts of the rule's path, which is folded already.
fn begins_with(folded: &[Cow<'_, str>], rule: &Path) -> bool {
    let mut names = folded.iter();
    rule.iter()
        .all(|part| names.next().is_some_and(|name| part == name.as_ref()))
}

fn protection(rule: &Rule, found: EntryKind) -> Option<Protection> {
    match (found, rule.kind, rule.when_missing) {
        (EntryKind::Directory, RuleKind::GitLink, _) => None,
        (EntryKind::File | EntryKind::Directory, _, _) => Some(Protection::ReadOnly),
        (EntryKind::Missing, kind, WhenMissing::Mask) => Some(Protection::Masked {
            directory: kind == RuleKind::Directory,
        }),
        (EntryKind::Missing, _, WhenMissing::Scan) | (EntryKind::Other, _, _) => None,
    }
}

fn check(data: &Data) -> Result<(), String> {
    for rule in &data.rules {
        let shown = rule.path.display();
        let names = lexical::names(&rule.path).collect::<PathBuf>();
        if names != rule.path || names.as_os_str().is_empty() || names.to_str().is_none() {
            return Err(format!("`{shown}` is no clean relative path"));
        }
        if rule.path.iter().any(|part| part != fold(part).as_ref()) {
            return Err(format!(
                "`{shown}` must be written as names are compared: in lower case"
            ));
        }
        if rule.reason.trim().is_empty() {
            return Err(format!("`{shown}` has no reason"));
        }
        let inside = |outer: &&Rule| outer.path != rule.path && rule.path.starts_with(&outer.path);
        if let Some(outer) = data
            .rules
            .iter()
            .filter(inside)
            .find(|outer| outer.kind != RuleKind::GitLink)
        {
            return Err(format!(
                "`{shown}` lies inside `{}`, which is protected as a whole",
                outer.path.display()
            ));
        }
        if data
            .rules
            .iter()
            .filter(|other| other.path == rule.path)
            .count()
            > 1
        {
            return Err(format!("`{shown}` stands twice"));
        }
        if rule.kind == RuleKind::GitLink
            && (rule.path != Path::new(".git") || rule.when_missing == WhenMissing::Mask)
        {
            return Err("`gitLink` is for `.git` alone, which cannot be masked".to_owned());
        }
    }
    let packages = data
        .package_directories
        .iter()
        .map(|directory| (&directory.name, &directory.reason));
    if packages
        .into_iter()
        .any(|(name, reason)| name.is_empty() || name.contains('/') || reason.trim().is_empty())
    {
        return Err("a package directory has no name or no reason".to_owned());
    }
    match data
        .left_out
        .iter()
        .find(|entry| entry.reason.trim().is_empty())
    {
        Some(entry) => Err(format!(
            "`{}` is left out without a reason",
            entry.path.display()
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Data {
        serde_json::from_str(DATA).unwrap()
    }

    #[test]
    fn every_entry_is_used_and_says_why() {
        let paths = ProtectedPaths::load().unwrap();
        for rule in data().rules {
            let path = rule.path();
            assert!(
                rule.reason().len() > 30 && rule.reason().ends_with('.'),
                "{path:?}"
            );
            assert_eq!(
                paths.matches_entry(path, EntryKind::File).map(Rule::path),
                Some(path)
            );
            assert_eq!(
                paths.matches(&Path::new("deep/er").join(path)).is_some(),
                rule.kind() != RuleKind::GitLink,
                "{path:?}"
            );
            let packaged = Path::new("node_modules/x").join(path);
            assert_eq!(
                paths.touches(&packaged).is_some(),
                rule.inside_packages,
                "{path:?}"
            );
            assert!(paths.candidates().contains(&path.to_owned()), "{path:?}");
        }
        for directory in data().package_directories {
            assert!(directory.reason.len() > 20, "{}", directory.name);
            assert_eq!(
                paths.matches(&Path::new(&directory.name).join("x/.vscode")),
                None,
                "{}",
                directory.name
            );
        }
    }

    #[test]
    fn what_is_left_out_is_left_out_for_a_reason() {
        let paths = ProtectedPaths::load().unwrap();
        for entry in data().left_out {
            assert!(entry.reason.len() > 10, "{:?}", entry.path);
            assert_eq!(
                paths.matches_entry(&entry.path, EntryKind::File),
                None,
                "{:?}",
                entry.path
            );
        }
    }

    #[test]
    fn malformed_data_is_found() {
        assert_eq!(check(&data()), Ok(()));
        let broken: [fn(&mut Data); 9] = [
            |data| data.rules[1].reason = " ".to_owned(),
            |data| data.rules[1].path = "/etc".into(),
            |data| data.rules[1].path = "../x".into(),
            |data| data.rules[1].path = ".Git/hooks".into(),
            |data| data.rules[1].path = ".git/config".into(),
            |data| data.rules[1].path = ".git/modules/x".into(),
            |data| data.rules[0].when_missing = WhenMissing::Mask,
            |data| data.package_directories[0].reason.clear(),
            |data| data.left_out[0].reason.clear(),
        ];
        for (index, breakage) in broken.into_iter().enumerate() {
            let mut data = data();
            breakage(&mut data);
            assert!(check(&data).is_err(), "breakage {index}");
        }
        assert!(serde_json::from_str::<Data>(&DATA.replace("\"mask\"", "\"hide\"")).is_err());
        assert!(serde_json::from_str::<Data>(&DATA.replace("\"leftOut\"", "\"ignored\"")).is_err());
    }
}
