//! Which entries of `PATH` a session does not see, and the line that offers them.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::config::Offer;

/// What every session sees of the host read-only.
const VISIBLE: [&str; 4] = ["/usr", "/bin", "/sbin", "/lib"];

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PathReport {
    /// Entries that exist here and are not visible inside.
    pub(super) not_visible: Vec<PathBuf>,
    /// The line of the configuration that offers them, beside what is offered already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) configuration_line: Option<String>,
    /// Programs of these run files elsewhere under the home directory, which must be offered too.
    pub(super) notes: Vec<String>,
}

/// Looks at each entry of `PATH` with its links resolved: what counts is where it really stands.
pub(super) fn examine(
    path: Option<&OsStr>,
    home: Option<&Path>,
    offered: &[PathBuf],
    offer: &Offer,
) -> PathReport {
    let mut not_visible: Vec<PathBuf> = Vec::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut notes = Vec::new();
    for entry in std::env::split_paths(path.unwrap_or_default()) {
        let Ok(real) = entry.canonicalize() else {
            continue;
        };
        // Twice in `PATH`, or by two links.
        if seen.contains(&real) {
            continue;
        }
        seen.push(real.clone());
        let is_visible = VISIBLE.iter().any(|root| real.starts_with(root))
            || offered
                .iter()
                .any(|root| entry.starts_with(root) || real.starts_with(root));
        if is_visible || !real.is_dir() {
            continue;
        }
        if home.is_some_and(|home| home.starts_with(&real)) || real == Path::new("/") {
            notes.push(format!(
                "{} is never offered as a whole; name directories below it",
                real.display()
            ));
            continue;
        }
        if let Some(why) = offer.why_not(&real) {
            notes.push(format!("{} {why}", real.display()));
            continue;
        }
        not_visible.push(real);
    }
    notes.extend(toolchain_notes(&not_visible));
    let configuration_line = (!not_visible.is_empty()).then(|| line(offered, &not_visible));
    PathReport {
        not_visible,
        configuration_line,
        notes,
    }
}

/// Programs that are only fronts for others.
fn toolchain_notes(entries: &[PathBuf]) -> Vec<String> {
    let fronts = [
        (
            ".cargo/bin",
            "rustup's programs run those in ~/.rustup: offer that directory too",
        ),
        (
            ".pyenv/shims",
            "pyenv's programs run those in ~/.pyenv: offer that directory instead",
        ),
        (
            ".asdf/shims",
            "asdf's programs run those in ~/.asdf: offer that directory instead",
        ),
        (
            ".local/bin",
            "links in ~/.local/bin often lead to ~/.local/share or ~/.local/lib: offer what yours lead to",
        ),
    ];
    let found = fronts
        .iter()
        .filter(|(end, _)| entries.iter().any(|entry| entry.ends_with(end)));
    found.map(|(_, note)| (*note).to_owned()).collect()
}

fn line(offered: &[PathBuf], more: &[PathBuf]) -> String {
    let all = offered
        .iter()
        .chain(more)
        .map(|path| toml::Value::String(path.to_string_lossy().into_owned()));
    format!("extra_read_only = {}", toml::Value::Array(all.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    #[test]
    fn entries_outside_the_system_are_named_with_the_line_that_offers_them() {
        // Below /tmp nothing could be offered.
        let scratch = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let home = scratch.path().canonicalize().unwrap();
        let environment = Environment::of(4242, [("HOME", home.to_str().unwrap())]);
        let offer = Offer::new(&environment, &home.join("state")).unwrap();
        let tools = home.join("to\"ols/bin");
        let offered = home.join("offered");
        for directory in [&tools, &offered.join("bin")] {
            std::fs::create_dir_all(directory).unwrap();
        }
        std::fs::create_dir(home.join(".ssh")).unwrap();
        let hidden = tempfile::tempdir_in("/tmp").unwrap();
        std::os::unix::fs::symlink("/usr/bin", home.join("link")).unwrap();
        let entries = [
            PathBuf::from("/usr/bin"),
            PathBuf::from("/bin"),
            tools.clone(),
            tools.clone(),
            offered.join("bin"),
            home.join("link"),
            home.join("missing"),
            home.clone(),
            // A note that was told twice.
            home.clone(),
            home.join(".ssh"),
            home.join(".ssh"),
            hidden.path().to_owned(),
        ];
        let path = std::env::join_paths(&entries).unwrap();
        let report = examine(
            Some(&path),
            Some(&home),
            std::slice::from_ref(&offered),
            &offer,
        );
        assert_eq!(report.not_visible, std::slice::from_ref(&tools));
        assert_eq!(
            report.notes.len(),
            3,
            "neither the whole home, nor keys, nor what would be hidden: {:?}",
            report.notes
        );
        let line = report.configuration_line.unwrap();
        let parsed: toml::Table = line.parse().unwrap();
        let listed: Vec<_> = parsed["extra_read_only"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|v| v.as_str())
            .collect();
        assert_eq!(listed, [offered.to_str().unwrap(), tools.to_str().unwrap()]);

        let nothing = examine(Some(OsStr::new("/usr/bin:/bin")), Some(&home), &[], &offer);
        assert_eq!(
            (nothing.not_visible.len(), nothing.configuration_line),
            (0, None)
        );
    }
}
