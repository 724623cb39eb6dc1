//! One issuer: where its keys stand (RFC 8414, OpenID Connect Discovery) and how long they are kept.
//!
//! ```text
//! none ──► asked ──► fresh ──10 min──► asked again ──no answer──► used, and asked again beside ──24 h──► none
//! ```
//!
//! A key that its issuer withdrew is good for ten minutes, however seldom a token comes: the first one after that waits for the
//! issuer. Only of an issuer that has just failed to answer nobody waits for the answer.
//!
//! A key that is not among them leads to one question, at most every half minute and one at a time: whoever sends tokens
//! with made-up key ids makes nobody ask more often. While one asks beside, whoever has a key that is good leaves nothing behind
//! that waits: an issuer that takes its time does not fill the memory.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::{sync::OwnedMutexGuard, time::Instant};

use super::{
    TokenError,
    fetch::{FetchError, Fetcher},
    key::{Algorithm, Key, keys_of},
};
use crate::settings::is_trustworthy;

/// Keys are asked for again after that long; so long a key that its issuer withdrew is good here.
const FRESH: Duration = Duration::from_secs(600);
/// How long keys are good while their issuer does not answer.
const MAX_STALE: Duration = Duration::from_secs(24 * 3600);
/// After an answer, until a key that is not among them leads to another question.
const AFTER_ANSWER: Duration = Duration::from_secs(30);
/// After a failure, until the next try.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long nobody waits for an issuer that did not answer, where there is a key of before: three of its places at the patience of
/// one document each, and the pause, so that in use it is never waited for twice.
const TAKEN_AS_SILENT: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Issuer {
    name: String,
    fetcher: Fetcher,
    state: Mutex<State>,
    /// One question at a time.
    asking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default, Clone)]
struct State {
    keys: Option<(Arc<Vec<Key>>, Instant)>,
    next_question: Option<Instant>,
    /// When it failed to answer, unless it has answered since.
    failed: Option<Instant>,
}

/// What the keys at hand say about a token.
enum Found {
    Key(Box<Key>),
    /// One that its issuer may have withdrawn: it is good where the issuer does not answer.
    OldKey(Box<Key>),
    /// Keys, but not this one.
    NoSuchKey,
    NoKeys,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

/// Why an issuer has no keys.
#[derive(Debug, thiserror::Error)]
enum NoKeys {
    #[error("no metadata of the issuer was found")]
    Metadata(#[source] FetchError),
    #[error("the metadata is that of another issuer, or names keys in the clear")]
    Foreign,
    #[error("the keys cannot be read from where the metadata says")]
    Keys(#[source] FetchError),
    #[error("the keys are no set of keys")]
    NoSet,
}

impl Issuer {
    pub(super) fn new(name: String, fetcher: Fetcher) -> Self {
        Issuer {
            name,
            fetcher,
            state: Mutex::default(),
            asking: Arc::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The key of that id; where a token names none, the only one that can have made it.
    ///
    /// # Errors
    /// `Key`, or `NoKeys` when the issuer does not answer.
    pub(super) async fn key(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Key, TokenError> {
        match self.find(id, algorithm) {
            Found::Key(key) => return Ok(*key),
            Found::OldKey(key) if self.is_silent() => {
                self.ask_beside();
                return Ok(*key);
            }
            Found::OldKey(_) | Found::NoSuchKey | Found::NoKeys => self.ask().await,
        }
        match self.find(id, algorithm) {
            Found::Key(key) | Found::OldKey(key) => Ok(*key),
            Found::NoSuchKey => Err(TokenError::Key),
            Found::NoKeys => Err(TokenError::NoKeys),
        }
    }

    fn state(&self) -> State {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn is_silent(&self) -> bool {
        let failed = self.state().failed;
        failed.is_some_and(|at| at.elapsed() < TAKEN_AS_SILENT)
    }

    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Found {
        let Some((keys, since)) = self.state().keys else {
            return Found::NoKeys;
        };
        let age = since.elapsed();
        if age > MAX_STALE {
            return Found::NoKeys;
        }
        let mut fitting = keys.iter().filter(|key| key.fits(algorithm));
        let key = match id {
            Some(id) => fitting.find(|key| key.id() == Some(id)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        };
        match key {
            None => Found::NoSuchKey,
            Some(key) if age > FRESH => Found::OldKey(Box::new(key.clone())),
            Some(key) => Found::Key(Box::new(key.clone())),
        }
    }

    /// Asks without waiting for the answer, unless somebody is about it.
    fn ask_beside(self: &Arc<Self>) {
        if let Ok(alone) = Arc::clone(&self.asking).try_lock_owned() {
            let issuer = Arc::clone(self);
            tokio::spawn(async move { issuer.ask_alone(alone).await });
        }
    }

    /// Asks, and waits for whoever is about it.
    async fn ask(&self) {
        let alone = Arc::clone(&self.asking).lock_owned().await;
        self.ask_alone(alone).await;
    }

    /// Asks the issuer for its keys, unless that was done just now.
    async fn ask_alone(&self, _alone: OwnedMutexGuard<()>) {
        let not_yet = |next: Instant| next > Instant::now();
        if self.state().next_question.is_some_and(not_yet) {
            return;
        }
        let asked = self.fetch().await;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match asked {
            Ok(keys) => {
                tracing::debug!(issuer = self.name, keys = keys.len(), "keys of an issuer");
                state.keys = Some((Arc::new(keys), now));
                state.next_question = Some(now + AFTER_ANSWER);
                state.failed = None;
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(issuer = self.name, %error, cause, "an issuer's keys cannot be had");
                state.next_question = Some(now + AFTER_FAILURE);
                state.failed = Some(now);
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Key>, NoKeys> {
        let metadata = self.metadata().await?;
        if metadata.issuer != self.name || !is_trustworthy(&metadata.jwks_uri) {
            return Err(NoKeys::Foreign);
        }
        let document = self.fetcher.get(&metadata.jwks_uri).await;
        let document = document.map_err(NoKeys::Keys)?;
        keys_of(&document).map_err(|_| NoKeys::NoSet)
    }

    /// The first of the places that has any.
    async fn metadata(&self) -> Result<Metadata, NoKeys> {
        let mut last = FetchError::NotThere;
        for place in places(&self.name) {
            match self.fetcher.get(&place).await {
                Ok(document) => {
                    return serde_json::from_slice(&document).map_err(|_| NoKeys::Foreign);
                }
                Err(FetchError::NotThere) => {}
                Err(error) => last = error,
            }
        }
        Err(NoKeys::Metadata(last))
    }
}

/// Where an issuer's metadata may stand, in the order of the specification of MCP.
fn places(issuer: &str) -> Vec<String> {
    const OAUTH: &str = "/.well-known/oauth-authorization-server";
    const OPENID: &str = "/.well-known/openid-configuration";
    let issuer = issuer.trim_end_matches('/');
    let after_scheme = issuer.find("://").map_or(0, |at| at + 3);
    match issuer[after_scheme..].find('/') {
        None => vec![format!("{issuer}{OAUTH}"), format!("{issuer}{OPENID}")],
        Some(at) => {
            let (origin, path) = issuer.split_at(after_scheme + at);
            vec![
                format!("{origin}{OAUTH}{path}"),
                format!("{origin}{OPENID}{path}"),
                format!("{issuer}{OPENID}"),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn metadata_is_looked_for_where_the_specification_says() {
        assert_eq!(
            places("https://id.example/tenant"),
            [
                "https://id.example/.well-known/oauth-authorization-server/tenant",
                "https://id.example/.well-known/openid-configuration/tenant",
                "https://id.example/tenant/.well-known/openid-configuration",
            ]
        );
        assert_eq!(
            places("https://id.example/"),
            [
                "https://id.example/.well-known/oauth-authorization-server",
                "https://id.example/.well-known/openid-configuration",
            ]
        );
    }
}
