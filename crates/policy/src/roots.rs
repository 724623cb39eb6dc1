//! Where sessions may be: the operator's roots and the caller's, without those that would give away too much.

use std::path::{Path, PathBuf};

use model::{Principal, Reason, Refusal};

use crate::{forbidden::ForbiddenPaths, lexical};

/// Roots that one client can hand over; editors hand over a few folders.
const MAX_CLIENT_ROOTS: usize = 64;

/// What every refusal about roots tells the caller to do.
const ROOTS_HINT: &str = "Start the client in the project's directory, or let the operator allow a parent directory: set the \
    environment variable `CLAUDE_CODE_MCP_PROJECT_ROOTS`, or `project_roots = [...]` in the configuration file";

/// The roots of one caller, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roots(Vec<PathBuf>);

impl Roots {
    pub(crate) fn of(
        principal: &Principal,
        operator: &[PathBuf],
        forbidden: &ForbiddenPaths,
    ) -> Self {
        let none: &[PathBuf] = &[];
        // What the operator opens to whoever sits at this machine is not open to those who call from elsewhere.
        let (operator, client) = match principal {
            Principal::LocalUser { roots, .. } => (operator, roots.as_slice()),
            Principal::Remote(caller) => (none, caller.roots.as_slice()),
            Principal::System => (operator, none),
        };
        let clean = operator
            .iter()
            .chain(client.iter().take(MAX_CLIENT_ROOTS))
            .filter_map(|root| lexical::absolute(root).ok());
        let mut roots: Vec<_> = clean
            .filter(|root| forbidden.why_forbidden(root).is_none())
            .collect();
        roots.sort();
        roots.dedup();
        Roots(roots)
    }

    pub(crate) fn into_vec(self) -> Vec<PathBuf> {
        self.0
    }

    /// The most particular root that holds this clean path.
    pub(crate) fn holding(&self, path: &Path) -> Option<&Path> {
        let holding = self.0.iter().filter(|root| path.starts_with(root));
        holding
            .max_by_key(|root| root.as_os_str().len())
            .map(PathBuf::as_path)
    }

    /// As [`Roots::holding`], or why not.
    pub(crate) fn require(&self, path: &Path, field: &str) -> Result<&Path, Refusal> {
        self.holding(path).ok_or_else(|| {
            let hint = format!("{ROOTS_HINT}.");
            Refusal::new(
                Reason::PathNotAllowed,
                "The path is not below a directory that this server may use.",
                hint,
            )
            .in_field(field)
        })
    }
}
