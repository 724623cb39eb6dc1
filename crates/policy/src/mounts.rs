//! Further host directories in a session.

use std::path::{Path, PathBuf};

use model::{BindMount, HostDirectory, MountRequest, Reason, Refusal};

use crate::{
    PathFacts, forbidden::ForbiddenPaths, lexical, protected::ProtectedPaths, roots::Roots,
};

/// Mounts that one session can ask for: each costs system calls at every start, and nobody oversees more.
pub const MAX_MOUNTS: usize = 16;

/// What decides about a directory of the host.
pub(crate) struct HostRules<'a> {
    pub(crate) roots: &'a Roots,
    pub(crate) forbidden: &'a ForbiddenPaths,
    pub(crate) protected: &'a ProtectedPaths,
    pub(crate) server_uid: u32,
}

const OTHER_DIRECTORY: &str = "Name the directory of a project. Home directories themselves, system and credential directories are \
    never allowed, whatever roots are configured.";

impl HostRules<'_> {
    /// The directory that the caller named, if a session may have it.
    pub(crate) fn directory(
        &self,
        asked: &Path,
        facts: &PathFacts,
        field: &str,
    ) -> Result<HostDirectory, Refusal> {
        let asked = clean(asked, field)?;
        self.not_forbidden(&asked, field)?;
        match facts {
            PathFacts::Directory(directory) => {
                self.canonical(directory, field)?;
                Ok(directory.clone())
            }
            // What lies outside the roots is not told apart, so that it cannot be explored.
            PathFacts::Missing | PathFacts::Ambiguous => {
                self.roots.require(&asked, field)?;
                Err(Refusal::new(
                    Reason::PathNotFound,
                    "The directory does not exist.",
                    "Create it, or correct the path.",
                )
                .in_field(field))
            }
            PathFacts::NotDirectory => {
                self.roots.require(&asked, field)?;
                Err(Refusal::new(
                    Reason::PathForbidden,
                    "The path is not a directory.",
                    "Name the directory that holds it.",
                )
                .in_field(field))
            }
            PathFacts::Unreadable => {
                self.roots.require(&asked, field)?;
                let hint =
                    "Give the user who runs the server access to it, or choose another directory.";
                Err(Refusal::new(
                    Reason::PathForbidden,
                    "The server may not open the path.",
                    hint,
                )
                .in_field(field))
            }
        }
    }

    /// The directory that a remote caller named, relative to one of its roots. Whatever is wrong with it, the answer is the
    /// same and names no path of the host: nothing outside its roots can be explored.
    pub(crate) fn named_project(
        &self,
        asked: &Path,
        facts: &PathFacts,
        field: &str,
    ) -> Result<HostDirectory, Refusal> {
        let hint = "Name a directory below the ones that your key opens, such as `PROJECT` or `PROJECT/SUB`, without a slash at its \
                    beginning and without `..`; whoever runs the server knows which there are.";
        let refused = |message: String| {
            Err(Refusal::new(Reason::PathNotAllowed, message, hint).in_field(field))
        };
        if let Err(flaw) = lexical::relative(asked) {
            return refused(format!("The name of a project {flaw}."));
        }
        match facts {
            PathFacts::Directory(found) if self.canonical(found, field).is_ok() => {
                Ok(found.clone())
            }
            PathFacts::Ambiguous => {
                refused("More than one of your projects has this name.".to_owned())
            }
            PathFacts::Directory(_)
            | PathFacts::Missing
            | PathFacts::NotDirectory
            | PathFacts::Unreadable => refused("You have no project of this name.".to_owned()),
        }
    }

    /// Where it really is, all links resolved, must be allowed: where the caller said it is counts for nothing.
    fn canonical(&self, directory: &HostDirectory, field: &str) -> Result<(), Refusal> {
        let path = &directory.path;
        if lexical::absolute(path).map_or(true, |clean| clean.as_os_str() != path.as_os_str()) {
            let message = "The path could not be resolved to its real place.";
            return Err(Refusal::new(
                Reason::PathUnsafe,
                message,
                "Try again; the server's log says more.",
            )
            .in_field(field));
        }
        let path = clean(path, field)?;
        self.not_forbidden(&path, field)?;
        self.roots.require(&path, field)?;
        Ok(())
    }

    fn not_forbidden(&self, path: &Path, field: &str) -> Result<(), Refusal> {
        let Some(why) = self.forbidden.why_forbidden(path) else {
            return Ok(());
        };
        let message = format!("No session may have this path or a directory around it: {why}.");
        Err(Refusal::new(Reason::PathForbidden, message, OTHER_DIRECTORY).in_field(field))
    }

    /// What a session writes must come back owned by its owner, and must not be what the host would execute.
    pub(crate) fn writable(&self, directory: &HostDirectory, field: &str) -> Result<(), Refusal> {
        if self.server_uid != 0 && directory.uid != self.server_uid {
            let message = "The directory belongs to another user, and without root its files could not stay theirs.";
            let hint = "Use a directory of the user who runs the server, or a copy of it that is theirs; what is only read can be \
                a read-only mount.";
            return Err(Refusal::new(Reason::WorkspaceNotMappable, message, hint).in_field(field));
        }
        let relative = self
            .roots
            .holding(&directory.path)
            .and_then(|root| directory.path.strip_prefix(root).ok());
        let why = match relative.and_then(|relative| self.protected.touches(relative)) {
            Some(rule) => rule.reason(),
            // Also when a root itself lies there: a client that was started in `.git` is a mistake.
            None if ProtectedPaths::in_repository(&directory.path) => {
                "It is the inside of a git repository."
            }
            None => return Ok(()),
        };
        let message = format!("The directory lies in a protected path. {why}");
        let hint = "Name the project's directory instead, or mount it read-only.";
        Err(Refusal::new(Reason::PathProtected, message, hint).in_field(field))
    }

    /// The caller's mounts beside those of the operator.
    pub(crate) fn mounts(
        &self,
        workspace: &HostDirectory,
        operator: &[BindMount],
        asked: &[MountRequest],
        facts: &[PathFacts],
    ) -> Result<Vec<BindMount>, Refusal> {
        if asked.len() > MAX_MOUNTS {
            let message = format!(
                "{} mounts are more than the {MAX_MOUNTS} of one session.",
                asked.len()
            );
            return Err(Refusal::new(
                Reason::TooLarge,
                message,
                "Mount a common parent directory instead.",
            )
            .in_field("mcpMounts"));
        }
        let mut mounts = operator.to_vec();
        for (index, (request, facts)) in asked.iter().zip(facts).enumerate() {
            let host_field = format!("mcpMounts[{index}].hostPath");
            let source = self.directory(&request.host_path, facts, &host_field)?;
            if !request.read_only {
                self.writable(&source, &host_field)?;
                apart(&source.path, &workspace.path, &host_field)?;
            }
            let target = self.target(
                &request.container_path,
                &mounts,
                &format!("mcpMounts[{index}].containerPath"),
            )?;
            mounts.push(BindMount {
                source,
                target,
                read_only: request.read_only,
            });
        }
        Ok(mounts)
    }

    fn target(&self, asked: &Path, mounts: &[BindMount], field: &str) -> Result<PathBuf, Refusal> {
        let target = clean(asked, field)?;
        if let Some(why) = self.forbidden.why_reserved_target(&target) {
            let message =
                format!("Nothing can be mounted at, below or around this path inside: {why}.");
            return Err(Refusal::new(
                Reason::PathForbidden,
                message,
                "Choose a path of its own, such as `/data`.",
            )
            .in_field(field));
        }
        if mounts
            .iter()
            .any(|mount| lexical::overlap(&mount.target, &target))
        {
            let message = "Another mount stands at, below or around this path inside.";
            return Err(Refusal::new(
                Reason::InvalidArgument,
                message,
                "Choose paths that do not contain each other.",
            )
            .in_field(field));
        }
        Ok(target)
    }
}

/// A second, writable way to the project would lead round the protection of its paths.
fn apart(source: &Path, workspace: &Path, field: &str) -> Result<(), Refusal> {
    if !lexical::overlap(source, workspace) {
        return Ok(());
    }
    let message =
        "A writable mount that overlaps the project would lead round its protected paths.";
    Err(Refusal::new(
        Reason::PathProtected,
        message,
        "Mount it read-only, or use `/workspace`.",
    )
    .in_field(field))
}

/// A clean path, or the caller's mistake.
pub(crate) fn clean(path: &Path, field: &str) -> Result<PathBuf, Refusal> {
    lexical::absolute(path).map_err(|flaw| {
        let hint = "Give the full path, such as `/home/me/project` on the host or `/workspace/src` inside.";
        Refusal::new(Reason::InvalidArgument, format!("The path {flaw}."), hint).in_field(field)
    })
}

/// The operator's own mounts: not bound to roots, and still never a secret, never writable, never over the sandbox's own
/// paths.
pub(crate) fn check_operator_mounts(
    mounts: &[BindMount],
    forbidden: &ForbiddenPaths,
) -> Result<(), String> {
    for (index, mount) in mounts.iter().enumerate() {
        let source = mount.source.path.display();
        for path in [&mount.source.path, &mount.target] {
            match lexical::absolute(path) {
                Ok(clean) if clean.as_os_str() == path.as_os_str() => {}
                Ok(_) => {
                    return Err(format!(
                        "names `{}`, which is no clean path",
                        path.display()
                    ));
                }
                Err(flaw) => return Err(format!("names `{}`, but a path {flaw}", path.display())),
            }
        }
        if !mount.read_only {
            return Err(format!(
                "offers `{source}` writable: mounts of the configuration are read-only"
            ));
        }
        if let Some(why) = forbidden.why_forbidden(&mount.source.path) {
            return Err(format!("offers `{source}`: {why}"));
        }
        if let Some(why) = forbidden.why_reserved_target(&mount.target) {
            return Err(format!(
                "offers `{source}` at `{}`: {why}",
                mount.target.display()
            ));
        }
        if mounts[..index]
            .iter()
            .any(|other| lexical::overlap(&other.target, &mount.target))
        {
            return Err(format!(
                "offers two directories at or below `{}`",
                mount.target.display()
            ));
        }
    }
    Ok(())
}
