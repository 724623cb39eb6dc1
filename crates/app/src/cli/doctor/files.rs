//! Whether the server's files can be used, without making any that would stay.

use std::{fs::OpenOptions, io, path::Path};

use serde::Serialize;

use crate::config::check_private_directory;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Usable {
    pub(super) path: String,
    pub(super) exists: bool,
    pub(super) usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

fn found(path: &Path, exists: bool, problem: Option<String>) -> Usable {
    Usable {
        path: path.display().to_string(),
        exists,
        usable: problem.is_none(),
        problem,
    }
}

/// The directory is private and can be written; or it could be made.
pub(super) fn directory(path: &Path, uid: u32) -> Usable {
    if path.symlink_metadata().is_err() {
        return found(path, false, ancestor_problem(path));
    }
    let problem = check_private_directory(path, uid)
        .err()
        .map(|error| error.to_string());
    found(path, true, problem.or_else(|| write_problem(path)))
}

/// The file can be appended to; or it could be made, in a directory that is there or is the state directory, which a server
/// makes.
pub(super) fn file(path: &Path, state_directory: &Path) -> Usable {
    match OpenOptions::new().append(true).open(path) {
        Ok(_) => found(path, true, None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let missing = path
                .parent()
                .filter(|parent| *parent != state_directory && !parent.exists());
            let missing =
                missing.map(|parent| format!("make the directory {} first", parent.display()));
            found(path, false, missing.or_else(|| ancestor_problem(path)))
        }
        Err(error) => found(path, true, Some(error.to_string())),
    }
}

/// Why nothing could be made at that path.
fn ancestor_problem(path: &Path) -> Option<String> {
    let existing = path
        .ancestors()
        .skip(1)
        .find(|ancestor| ancestor.exists())?;
    if !existing.is_dir() {
        return Some(format!("{} is no directory", existing.display()));
    }
    write_problem(existing)
}

/// Tried by doing: an unnamed file, which is gone at once.
fn write_problem(directory: &Path) -> Option<String> {
    let problem = tempfile::tempfile_in(directory).err()?;
    Some(format!(
        "{} cannot be written: {problem}",
        directory.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_used_and_what_cannot_is_told_apart_and_nothing_is_left() {
        let scratch = tempfile::tempdir().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let root = &scratch.path().join("private");
        crate::config::make_private_directory(root, uid).unwrap();
        assert!(directory(root, uid).usable);
        assert!(directory(&root.join("a/b"), uid).usable);
        let missing = &root.join("a");
        assert!(
            !file(&missing.join("audit.jsonl"), root).usable,
            "a server makes no directory for it"
        );
        assert!(
            file(&missing.join("audit.jsonl"), missing).usable,
            "but the state directory"
        );
        assert!(file(&root.join("audit.jsonl"), root).usable);
        std::fs::write(root.join("plain"), "").unwrap();
        assert!(file(&root.join("plain"), root).usable);
        assert!(!file(&root.join("plain/audit.jsonl"), root).usable);
        assert!(!directory(&root.join("plain/a"), uid).usable);
        assert!(!directory(Path::new("/proc/nowhere"), uid).usable);
        assert_eq!(std::fs::read_dir(root).unwrap().count(), 1);
    }
}
