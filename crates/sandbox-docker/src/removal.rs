//! Taking a sandbox away, whatever state it is in. Every step may find its work done already.

use std::path::Path;

use model::{OwnerId, SessionId};
use sandbox::BackendError;
use sandbox_host::Layout;

use crate::{
    creation::{blocking, step},
    engine::Engine,
    inspection::owned,
    record::Record,
    staging,
};

/// Removes everything of that session; without an engine all but its container.
///
/// # Errors
/// The first step that did not succeed; a later call goes on.
pub(crate) async fn remove(
    engine: Option<&Engine>,
    layout: &Layout,
    owner: &OwnerId,
    session: SessionId,
) -> Result<(), BackendError> {
    // Whatever the engine says: the project is behind these mounts.
    let instance = layout.instance(session);
    let unstaged = blocking(move || unstage(&instance)).await;
    if let Some(engine) = engine
        && let Some(container) = owned(engine, owner, session).await?
    {
        engine.remove(&container.id).await?;
    }
    unstaged?;
    let layout = layout.clone();
    blocking(move || forget(&layout, session)).await
}

fn unstage(instance: &Path) -> Result<(), BackendError> {
    staging::remove(instance).map_err(|source| step("take the mounts away", source))
}

/// What else is on the host: placeholders, the directory.
fn forget(layout: &Layout, session: SessionId) -> Result<(), BackendError> {
    let instance = layout.instance(session);
    let record = Record::read(&instance).unwrap_or_else(|error| {
        tracing::error!(%session, %error, "the record is damaged; what bears the session's name is removed all the same");
        None
    });
    if let Some(mut record) = record {
        record
            .give_up_placeholders(&instance)
            .map_err(|source| step("remove placeholders from the project", source))?;
    }
    layout
        .discard(session)
        .map_err(|source| step("delete the session's directory", source))
}
