//! What a test asks the engine itself, past the server: which containers there are, and to take them away.

use std::collections::{BTreeSet, HashMap};

use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};

use super::image;

/// Runs a question to the engine to its end, wherever the caller stands.
pub fn ask<T: Send>(question: impl Future<Output = T> + Send) -> T {
    let ask = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(question)
    };
    std::thread::scope(|scope| scope.spawn(ask).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Names of all containers, running or not, that begin so.
pub fn containers(prefix: &str) -> BTreeSet<String> {
    ask(listed(prefix)).expect("the engine answers")
}

/// Removes them all, as far as that can be done.
pub fn remove_containers(prefix: &str) {
    for name in ask(listed(prefix)).unwrap_or_default() {
        remove_container(&name);
    }
}

/// Kills and removes one, if it is there.
pub fn remove_container(name: &str) {
    let options = RemoveContainerOptionsBuilder::new()
        .force(true)
        .v(true)
        .build();
    let _ = ask(async { image::engine().remove_container(name, Some(options)).await });
}

async fn listed(prefix: &str) -> Result<BTreeSet<String>, bollard::errors::Error> {
    let filters = HashMap::from([("name", vec![prefix])]);
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters)
        .build();
    let found = image::engine().list_containers(Some(options)).await?;
    let names = found
        .into_iter()
        .flat_map(|one| one.names.unwrap_or_default());
    Ok(names
        .map(|name| name.trim_start_matches('/').to_owned())
        .filter(|name| name.starts_with(prefix))
        .collect())
}
