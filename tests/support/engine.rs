//! What a test asks the engine itself, past the server: which containers there are, and to take them away.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    time::Duration,
};

use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};

use super::{Machine, User, image};

/// How long an engine may take for a list.
const PATIENCE: Duration = Duration::from_secs(15);

/// For questions to an engine.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// A machine of root whose sessions come from the machine's engine and the tests' own image; `None`, said loudly, where there
/// is none.
pub fn machine(leg: &str) -> Option<Machine> {
    let runtime = runtime();
    if runtime.block_on(image::without_engine(leg)) {
        return None;
    }
    runtime.block_on(image::make_image(image::IMAGE, image::HOSTILE_CHANGES));
    let mut machine = Machine::new(User::Root);
    machine
        .set("CLAUDE_CODE_MCP_BACKEND", "docker")
        .set("DEFAULT_CLAUDE_IMAGE", image::IMAGE);
    Some(machine)
}

/// Runs a question to the engine to its end, wherever the caller stands.
pub fn ask<T: Send>(question: impl Future<Output = T> + Send) -> T {
    let ask = || runtime().block_on(question);
    std::thread::scope(|scope| scope.spawn(ask).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Names of all containers, running or not, that begin so.
pub fn containers(socket: &Path, prefix: &str) -> BTreeSet<String> {
    ask(listed(socket, prefix)).expect("the engine answers")
}

/// Removes them all, as far as that can be done.
pub fn remove_containers(socket: &Path, prefix: &str) {
    for name in ask(listed(socket, prefix)).unwrap_or_default() {
        remove_container(socket, &name);
    }
}

/// Kills and removes one, if it is there.
pub fn remove_container(socket: &Path, name: &str) {
    let options = RemoveContainerOptionsBuilder::new()
        .force(true)
        .v(true)
        .build();
    let engine = image::engine_at(socket);
    let _ = ask(async { engine.remove_container(name, Some(options)).await });
}

async fn listed(socket: &Path, prefix: &str) -> Result<BTreeSet<String>, bollard::errors::Error> {
    let filters = HashMap::from([("name", vec![prefix])]);
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters)
        .build();
    let engine = image::engine_at(socket);
    // Some tests leave an engine behind that takes connections and says nothing.
    let found = tokio::time::timeout(PATIENCE, engine.list_containers(Some(options)));
    let found = found
        .await
        .map_err(|_| bollard::errors::Error::RequestTimeoutError)??;
    let names = found
        .into_iter()
        .flat_map(|one| one.names.unwrap_or_default());
    Ok(names
        .map(|name| name.trim_start_matches('/').to_owned())
        .filter(|name| name.starts_with(prefix))
        .collect())
}
