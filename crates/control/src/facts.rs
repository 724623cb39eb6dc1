//! What is looked up before a decision, so that the decision itself can be pure.

use std::{
    collections::BTreeMap,
    io,
    path::{Component, Path, PathBuf},
};

use model::{CreateKey, CreateSession, HostDirectory, Principal, Refusal};
use policy::{CreateFacts, EntryKind, MAX_KEY_ROOTS, PathFacts, Policy};
use rustix::{
    fd::OwnedFd,
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2},
    io::Errno,
};

use crate::machine;

/// Looks at every path that a new session names. Of a remote caller it is a name below its roots.
pub(crate) async fn for_create(
    policy: &Policy,
    principal: &Principal,
    request: &CreateSession,
) -> Result<CreateFacts, Refusal> {
    let roots = principal.remote().map(|_| policy.roots_of(principal));
    let project = request.project_path.clone();
    let mounts: Vec<PathBuf> = request
        .mounts
        .iter()
        .map(|mount| mount.host_path.clone())
        .collect();
    let candidates = policy.protected_candidates().to_vec();
    let state_directory = policy.state_directory().to_owned();
    let backend = policy.backend_for(request.backend);
    let looked = tokio::task::spawn_blocking(move || {
        let (project, root) = match &roots {
            Some(roots) => named(roots, &project),
            None => directory(&project),
        };
        let existing = root
            .map(|root| entries(&root, candidates))
            .unwrap_or_default();
        Ok(CreateFacts {
            project,
            // A remote caller gets none, so what stands there is not its business either.
            mounts: mounts
                .iter()
                .map(|mount| match &roots {
                    Some(_) => PathFacts::Missing,
                    None => directory(mount).0,
                })
                .collect(),
            existing,
            machine: machine::look(&state_directory, backend)?,
        })
    });
    match looked.await {
        Ok(facts) => facts.map_err(|error: io::Error| Refusal::internal(&error)),
        Err(error) => Err(Refusal::internal(&error)),
    }
}

/// Looks at every directory that a new key names.
pub(crate) async fn for_key(
    policy: &Policy,
    principal: &Principal,
    request: &CreateKey,
) -> Result<Vec<PathFacts>, Refusal> {
    let own = principal.remote().map(|_| policy.roots_of(principal));
    let asked = request.roots.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let look = |root: &PathBuf| match &own {
            Some(own) => named(own, root).0,
            None => directory(root).0,
        };
        asked.iter().take(MAX_KEY_ROOTS).map(look).collect()
    });
    looked.await.map_err(|error| Refusal::internal(&error))
}

/// The one directory of that name below these roots, links resolved; one that a link leads out of its root is none.
fn named(roots: &[PathBuf], name: &Path) -> (PathFacts, Option<OwnedFd>) {
    let is_name = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !name.components().all(is_name) {
        return (PathFacts::Missing, None);
    }
    let mut found = (PathFacts::Missing, None);
    for root in roots {
        let (facts, fd) = directory(&root.join(name));
        let PathFacts::Directory(here) = &facts else {
            continue;
        };
        if !here.path.starts_with(root) || facts == found.0 {
            continue;
        }
        if found.0 != PathFacts::Missing {
            return (PathFacts::Ambiguous, None);
        }
        found = (facts, fd);
    }
    found
}

/// What stands at a path, links resolved once; the result is then opened without following any, so that it is what was
/// resolved.
fn directory(path: &Path) -> (PathFacts, Option<OwnedFd>) {
    let canonical = match std::fs::canonicalize(path) {
        Ok(canonical) => canonical,
        Err(error) => return (unreadable(&error), None),
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = openat2(rustix::fs::CWD, &canonical, flags, Mode::empty(), resolve)
        .and_then(|fd| fstat(&fd).map(|stat| (fd, stat)));
    match opened {
        Ok((fd, stat)) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            let found = HostDirectory {
                path: canonical,
                device: stat.st_dev,
                inode: stat.st_ino,
                uid: stat.st_uid,
                gid: stat.st_gid,
            };
            (PathFacts::Directory(found), Some(fd))
        }
        Ok(_) => (PathFacts::NotDirectory, None),
        Err(errno) => (unreadable(&io::Error::from(errno)), None),
    }
}

fn unreadable(error: &io::Error) -> PathFacts {
    let kind = error.kind();
    if kind == io::ErrorKind::NotFound {
        PathFacts::Missing
    } else if kind == io::ErrorKind::NotADirectory {
        PathFacts::NotDirectory
    } else {
        PathFacts::Unreadable
    }
}

/// What stands at each protected candidate of a project. What cannot be told is left out, and policy refuses then.
fn entries(root: &OwnedFd, candidates: Vec<PathBuf>) -> BTreeMap<PathBuf, EntryKind> {
    candidates
        .into_iter()
        .filter_map(|path| entry(root, &path).map(|kind| (path, kind)))
        .collect()
}

fn entry(root: &OwnedFd, path: &Path) -> Option<EntryKind> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, flags, Mode::empty(), resolve).and_then(fstat) {
        Ok(stat) => Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => EntryKind::File,
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => EntryKind::Other,
        }),
        Err(Errno::NOENT | Errno::NOTDIR) => Some(EntryKind::Missing),
        // A link, as the last part or on the way.
        Err(Errno::LOOP) => Some(EntryKind::Other),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_link_to_a_project_is_resolved_once_and_named_by_its_target() {
        let base = tempfile::tempdir().unwrap();
        let real = base.path().canonicalize().unwrap().join("real");
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, base.path().join("link")).unwrap();
        let (facts, _) = directory(&base.path().join("link"));
        assert!(matches!(facts, PathFacts::Directory(found) if found.path == real));
        assert_eq!(
            directory(&base.path().join("missing")).0,
            PathFacts::Missing
        );
        fs::write(base.path().join("file"), "").unwrap();
        assert_eq!(
            directory(&base.path().join("file")).0,
            PathFacts::NotDirectory
        );
        assert_eq!(
            directory(&base.path().join("file/below")).0,
            PathFacts::NotDirectory
        );
    }

    #[test]
    fn a_name_is_found_in_exactly_one_root_and_never_outside() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        for directory in ["one/app/sub", "two/tool", "one/both", "two/both", "outside"] {
            fs::create_dir_all(base.join(directory)).unwrap();
        }
        std::os::unix::fs::symlink(base.join("outside"), base.join("one/leads-out")).unwrap();
        std::os::unix::fs::symlink(base.join("one/app"), base.join("one/link")).unwrap();
        let roots = [base.join("one"), base.join("two")];
        let place = |name: &str| {
            let facts = named(&roots, Path::new(name)).0;
            let PathFacts::Directory(found) = &facts else {
                return format!("{facts:?}");
            };
            let below = found.path.strip_prefix(&base).unwrap();
            below.display().to_string()
        };
        for (name, expected) in [
            ("app", "one/app"),
            ("./app/sub", "one/app/sub"),
            ("tool", "two/tool"),
            ("link", "one/app"),
            ("both", "Ambiguous"),
            (".", "Ambiguous"),
            ("leads-out", "Missing"),
            ("../outside", "Missing"),
            ("app/../../outside", "Missing"),
            ("nothing", "Missing"),
        ] {
            assert_eq!(place(name), expected, "{name}");
        }
        assert_eq!(place(base.join("one/app").to_str().unwrap()), "Missing");
    }

    #[test]
    fn entries_are_told_apart_without_following_links() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join(".git/hooks")).unwrap();
        fs::write(base.path().join(".git/config"), "").unwrap();
        std::os::unix::fs::symlink("/etc", base.path().join(".vscode")).unwrap();
        let (_, root) = directory(base.path());
        let kinds = entries(
            &root.unwrap(),
            [
                ".git/hooks",
                ".git/config",
                ".vscode",
                ".vscode/passwd",
                ".envrc",
            ]
            .map(PathBuf::from)
            .to_vec(),
        );
        let kinds: Vec<_> = kinds
            .into_iter()
            .map(|(path, kind)| (path.display().to_string(), kind))
            .collect();
        let expected = [
            (".envrc", EntryKind::Missing),
            (".git/config", EntryKind::File),
            (".git/hooks", EntryKind::Directory),
            (".vscode", EntryKind::Other),
            (".vscode/passwd", EntryKind::Other),
        ];
        assert_eq!(kinds, expected.map(|(path, kind)| (path.to_owned(), kind)));
    }
}
