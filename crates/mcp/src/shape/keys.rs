//! Keys, from the model's form to the reply's.

use std::time::SystemTime;

use model::{KeyView, NewKey, RevokedKey, Scope};

use super::timestamp;
use crate::{
    reply::{KeyListReply, KeyReply, NewKeyReply, RevokedKeyReply},
    text,
};

pub(crate) fn key(view: &KeyView) -> KeyReply {
    let path = |root: &std::path::PathBuf| text::sentence(&root.to_string_lossy());
    KeyReply {
        key_id: view.id.to_string(),
        name: text::sentence(&view.name),
        state: view.state(SystemTime::now()).as_str().to_owned(),
        scopes: view
            .scopes
            .iter()
            .map(Scope::as_str)
            .map(str::to_owned)
            .collect(),
        roots: view.roots.iter().map(path).collect(),
        max_sessions: view.max_sessions,
        calls_per_minute: view.calls_per_minute,
        owner: format!("key:{}", view.identity),
        created_at: timestamp(view.created_at),
        expires_at: view.expires_at.map(timestamp),
        revoked_at: view.revoked_at.map(timestamp),
        last_used_at: view.last_used_at.map(timestamp),
        replaced_by: view.replaced_by.map(|id| id.to_string()),
    }
}

/// The one place where the text of a key goes out.
pub(crate) fn new_key(made: &NewKey) -> NewKeyReply {
    let message = match &made.replaces {
        None => "The key is made. It is shown this once and kept nowhere.".to_owned(),
        Some(old) => {
            let end = old.expires_at.map(timestamp).unwrap_or_default();
            format!(
                "The key is made and takes the place of {}, which ends at {end}.",
                old.id
            )
        }
    };
    NewKeyReply {
        secret: made.text.expose().clone(),
        key: key(&made.key),
        replaces: made.replaces.as_ref().map(key),
        message,
    }
}

pub(crate) fn revoked_key(revoked: &RevokedKey) -> RevokedKeyReply {
    let message = format!(
        "The key is refused from now on, also in calls that wait. {} of its sessions were ended, {} live on until their time is over.",
        revoked.destroyed.len(),
        revoked.left
    );
    RevokedKeyReply {
        key: key(&revoked.key),
        destroyed_sessions: revoked.destroyed.iter().map(ToString::to_string).collect(),
        sessions_left: revoked.left,
        message,
    }
}

pub(crate) fn key_list(keys: &[KeyView]) -> KeyListReply {
    KeyListReply {
        message: format!("{} keys are on record.", keys.len()),
        keys: keys.iter().map(key).collect(),
    }
}
