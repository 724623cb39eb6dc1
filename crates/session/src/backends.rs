//! The walls that this server can build, by name. Each session keeps the ones that it was made with.

use std::{collections::HashMap, sync::Arc};

use model::{BackendName, Reason, Refusal};
use sandbox::Backend;

/// See the module.
#[derive(Clone)]
pub struct Backends(HashMap<BackendName, Arc<dyn Backend>>);

impl Backends {
    /// These. Of two with one name, the last counts.
    pub fn new(backends: impl IntoIterator<Item = Arc<dyn Backend>>) -> Self {
        let named = backends
            .into_iter()
            .map(|backend| (backend.name(), backend));
        Backends(named.collect())
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<dyn Backend>> {
        self.0.values()
    }

    /// The one of that name.
    ///
    /// # Errors
    /// When this server does not have it: it may have been started where another one had it.
    pub(crate) fn get(&self, name: BackendName) -> Result<&Arc<dyn Backend>, Refusal> {
        self.0.get(&name).ok_or_else(|| {
            Refusal::new(
                Reason::BackendUnavailable,
                format!("This server has no backend `{}`.", name.as_str()),
                "Start the server where that backend works; `claude-code-mcp doctor` tells what it lacks.",
            )
        })
    }
}
