//! The contract suite: what every backend must do, one named line each. Runs against any [`Harness`].

use std::sync::Arc;

use futures::future::BoxFuture;
use model::SandboxSpec;

use crate::{Backend, HostView};

/// A backend under test.
pub trait Harness: Send + Sync {
    /// The backend.
    fn backend(&self) -> Arc<dyn Backend>;
    /// A valid spec of a new session, which the backend can build.
    fn spec(&self) -> SandboxSpec;
    /// The host's own view, for the comparison of namespaces.
    fn host_view(&self) -> HostView;
}

/// How a line went when it did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The backend keeps it.
    Kept,
    /// It cannot be asked of this backend on this machine, and why.
    Skipped(String),
}

/// A check of one line.
pub type Check = fn(Arc<dyn Harness>) -> BoxFuture<'static, Result<Verdict, String>>;

/// One line of the contract.
pub struct Line {
    /// Its name.
    pub name: &'static str,
    /// The check.
    pub check: Check,
}

/// The contract.
pub const LINES: &[Line] = &[];

/// How the suite went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines that were kept.
    pub kept: Vec<&'static str>,
    /// Lines that could not be asked, and why.
    pub skipped: Vec<(&'static str, String)>,
    /// Lines that were broken, and how.
    pub broken: Vec<(&'static str, String)>,
}

/// Runs every line, one after the other.
pub async fn run(_harness: Arc<dyn Harness>) -> Report {
    Report::default()
}
