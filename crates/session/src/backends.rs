//! The walls that this server can build, by name. Each session keeps the ones that it was made with.

use std::{collections::HashMap, sync::Arc};

use model::{BackendName, Reason, Refusal, RootFileSystem};
use sandbox::Backend;

/// See the module.
#[derive(Clone)]
pub struct Backends(HashMap<BackendName, Walls>);

#[derive(Clone)]
struct Walls {
    backend: Arc<dyn Backend>,
    root: RootFileSystem,
}

impl Backends {
    /// These, each with the root file system of its new sandboxes. Of two with one name, the last counts.
    pub fn new(backends: impl IntoIterator<Item = (Arc<dyn Backend>, RootFileSystem)>) -> Self {
        let named = backends
            .into_iter()
            .map(|(backend, root)| (backend.name(), Walls { backend, root }));
        Backends(named.collect())
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = BackendName> {
        self.0.keys().copied()
    }

    /// The root file system of new sandboxes of that name.
    ///
    /// # Errors
    /// As for [`Backends::get`].
    pub(crate) fn root(&self, name: BackendName) -> Result<&RootFileSystem, Refusal> {
        Ok(&self.walls(name)?.root)
    }

    /// The one of that name.
    ///
    /// # Errors
    /// When this server does not have it: it may have been started where another one had it.
    pub(crate) fn get(&self, name: BackendName) -> Result<&Arc<dyn Backend>, Refusal> {
        Ok(&self.walls(name)?.backend)
    }

    fn walls(&self, name: BackendName) -> Result<&Walls, Refusal> {
        self.0.get(&name).ok_or_else(|| {
            Refusal::new(
                Reason::BackendUnavailable,
                format!("This server has no backend `{}`.", name.as_str()),
                "Start the server where that backend works; `claude-code-mcp doctor` tells what it lacks.",
            )
        })
    }
}
