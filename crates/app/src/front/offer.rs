//! What a client hands over: its project directory as a root.

use std::path::{Path, PathBuf};

/// The directory that a client offers to sessions: the project directory that Claude Code names, else the working
/// directory. Never the whole machine and never a whole home: the client still connects, but offers nothing.
///
/// The server looks again; this only keeps the offer honest.
pub fn offered_roots(
    project_dir: Option<&Path>,
    working_directory: Option<&Path>,
    home: Option<&Path>,
) -> Vec<PathBuf> {
    let Some(candidate) = project_dir.or(working_directory) else {
        return Vec::new();
    };
    // Resolved, so that a link to the home directory is seen for what it is.
    let Ok(candidate) = candidate.canonicalize() else {
        return Vec::new();
    };
    let home = home.map(|home| home.canonicalize().unwrap_or_else(|_| home.to_path_buf()));
    let too_wide =
        home.is_some_and(|home| home.starts_with(&candidate)) || candidate == Path::new("/");
    if too_wide {
        Vec::new()
    } else {
        vec![candidate]
    }
}

#[cfg(test)]
mod tests {
    use super::offered_roots;

    #[test]
    fn a_project_is_offered_but_never_a_home_or_the_machine() {
        let scratch = tempfile::tempdir().unwrap();
        let home = scratch.path().canonicalize().unwrap().join("home");
        let project = home.join("project");
        let link = scratch.path().join("link");
        std::fs::create_dir_all(&project).unwrap();
        std::os::unix::fs::symlink(&home, &link).unwrap();
        let offered =
            |project_dir, directory| offered_roots(project_dir, Some(directory), Some(&home));
        assert_eq!(offered(None, &project), std::slice::from_ref(&project));
        assert_eq!(
            offered(Some(project.as_path()), std::path::Path::new("/")),
            std::slice::from_ref(&project)
        );
        for wide in [
            home.as_path(),
            std::path::Path::new("/"),
            scratch.path(),
            &link,
            &home.join("missing"),
        ] {
            assert!(offered(None, wide).is_empty(), "{}", wide.display());
        }
    }
}
