//! One session's side of the relay: what it may do, what it did, and the credential that its requests carry.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use model::{Secret, SessionId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    body::Buffers,
    credential::{Credential, CredentialError, Held, Presented},
    exchange::Observer,
    headers::token_digest,
    models::ModelList,
    provider::{Provider, ProviderKind},
    refusal::Denial,
    usage::Tokens,
};

/// How many models are counted by name; further ones are counted together under [`OTHER_MODELS`]. A session that may ask
/// for any model chooses the names.
const MAX_COUNTED_MODELS: usize = 64;

/// The name under which further models are counted.
const OTHER_MODELS: &str = "(others)";

/// What a session may use. Nothing set is nothing limited, but for requests at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Requests in all, those for token counts included.
    pub max_requests: Option<u64>,
    /// Output tokens in all.
    pub max_output_tokens: Option<u64>,
    /// Tokens of every kind in all.
    pub max_total_tokens: Option<u64>,
    /// Requests under way at a time.
    pub max_concurrent: usize,
    /// Bytes of request bodies in the server's memory at a time. Two of the largest fit the default.
    pub max_buffered_bytes: usize,
    /// Connections at a time; one more is closed as it comes.
    pub max_connections: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Caps {
            max_requests: None,
            max_output_tokens: None,
            max_total_tokens: None,
            max_concurrent: 16,
            max_buffered_bytes: 64 * 1024 * 1024,
            max_connections: 64,
        }
    }
}

/// What a session has used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests that went on to the provider.
    pub requests: u64,
    /// Requests that the relay refused.
    pub denied: u64,
    /// Tokens of all of them.
    pub tokens: Tokens,
    /// Bytes of bodies that went to the provider.
    pub bytes_up: u64,
    /// Bytes of bodies that came back.
    pub bytes_down: u64,
    /// Requests and tokens of each model.
    pub models: BTreeMap<String, ModelUsage>,
}

/// What a session has used of one model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelUsage {
    /// Requests that went on to the provider.
    pub requests: u64,
    /// Tokens of all of them.
    pub tokens: Tokens,
}

/// All that a session's relay is made of.
pub struct SessionConfig {
    /// Whose requests these are.
    pub session: SessionId,
    /// Where they go.
    pub provider: Provider,
    /// What they carry; none where the server has lost it, which is answered with a 503 until it is set.
    pub credential: Option<Credential>,
    /// What they may ask for.
    pub models: ModelList,
    /// How much.
    pub caps: Caps,
    /// What the client inside presents as its credential. Worthless outside of this session.
    pub token: Secret<String>,
    /// What was used before a restart of the server.
    pub used_before: Usage,
    /// Told of each request.
    pub observer: Arc<dyn Observer>,
}

/// One session's side of the relay. Shared by all connections of the session.
pub struct SessionRelay {
    pub(crate) session: SessionId,
    pub(crate) provider: Provider,
    pub(crate) models: ModelList,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) token_digest: [u8; 32],
    pub(crate) buffers: Buffers,
    caps: Caps,
    credential: RwLock<Option<Arc<Held>>>,
    usage: Mutex<Usage>,
    requests: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl SessionRelay {
    /// A session's relay.
    ///
    /// # Errors
    /// When the provider does not take the credential, or no header can carry it, or the token is empty.
    pub fn new(config: SessionConfig) -> Result<Arc<Self>, CredentialError> {
        let kind = config.provider.kind();
        let held = hold(config.credential, kind, config.session)?;
        if config.token.expose().is_empty() {
            return Err(CredentialError::Malformed("relay token"));
        }
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Ok(Arc::new(SessionRelay {
            session: config.session,
            provider: config.provider,
            models: config.models,
            observer: config.observer,
            token_digest: token_digest(&config.token),
            buffers: Buffers::new(config.caps.max_buffered_bytes),
            caps: config.caps,
            credential: RwLock::new(held),
            usage: Mutex::new(config.used_before),
            requests: permits(config.caps.max_concurrent),
            connections: permits(config.caps.max_connections),
        }))
    }

    /// Puts another credential in place, at once: requests under way keep theirs, the next one carries this.
    ///
    /// # Errors
    /// As [`SessionRelay::new`]; the old one stays then.
    pub fn set_credential(&self, credential: Option<Credential>) -> Result<(), CredentialError> {
        let held = hold(credential, self.provider.kind(), self.session)?;
        *self
            .credential
            .write()
            .unwrap_or_else(PoisonError::into_inner) = held;
        Ok(())
    }

    /// What the session has used so far, requests under way included as far as they are known.
    pub fn usage(&self) -> Usage {
        self.counted(|usage| usage.clone())
    }

    pub(crate) fn credential(&self) -> Result<Arc<Held>, Denial> {
        self.credential
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or(Denial::NoCredential)
    }

    /// What a request may carry after the provider refused `refused` of `held`: a version that came meanwhile, or comes now.
    pub(crate) async fn instead_of(
        &self,
        held: &Arc<Held>,
        refused: &Presented,
    ) -> Option<Presented> {
        let now = self.credential().ok()?;
        if Arc::ptr_eq(&now, held) {
            return held.instead_of(refused).await;
        }
        now.present().await.ok()
    }

    pub(crate) fn connection_slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    pub(crate) fn request_slot(&self) -> Result<OwnedSemaphorePermit, Denial> {
        Arc::clone(&self.requests)
            .try_acquire_owned()
            .map_err(|_| Denial::Concurrency(self.caps.max_concurrent))
    }

    /// Counts a request that is about to go out, if the caps leave room for one.
    pub(crate) fn begin(&self, model: &str, bytes_up: u64) -> Result<(), Denial> {
        self.counted(|usage| {
            if let Some(cap) = self.caps.max_requests.filter(|cap| usage.requests >= *cap) {
                return Err(Denial::RequestsCap(cap));
            }
            if let Some(denial) = self.passed(&usage.tokens) {
                return Err(denial);
            }
            usage.requests += 1;
            usage.bytes_up += bytes_up;
            usage.model(model).requests += 1;
            Ok(())
        })
    }

    /// Corrects what one request is charged from `before` to `after`. Says which cap the session is past now.
    pub(crate) fn charge(&self, model: &str, before: Tokens, after: Tokens) -> Option<Denial> {
        self.counted(|usage| {
            usage.tokens += after;
            usage.tokens -= before;
            let counted = usage.model(model);
            counted.tokens += after;
            counted.tokens -= before;
            self.passed(&usage.tokens)
        })
    }

    pub(crate) fn count_down(&self, bytes: u64) {
        self.counted(|usage| usage.bytes_down += bytes);
    }

    pub(crate) fn count_denied(&self) {
        self.counted(|usage| usage.denied += 1);
    }

    fn passed(&self, tokens: &Tokens) -> Option<Denial> {
        let Caps {
            max_output_tokens,
            max_total_tokens,
            ..
        } = self.caps;
        max_output_tokens
            .filter(|cap| tokens.output >= *cap)
            .map(Denial::OutputTokensCap)
            .or_else(|| {
                max_total_tokens
                    .filter(|cap| tokens.total() >= *cap)
                    .map(Denial::TotalTokensCap)
            })
    }

    fn counted<T>(&self, act: impl FnOnce(&mut Usage) -> T) -> T {
        act(&mut self.usage.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for SessionRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRelay")
            .field("session", &self.session)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

impl Usage {
    fn model(&mut self, name: &str) -> &mut ModelUsage {
        let known = self.models.contains_key(name) || self.models.len() < MAX_COUNTED_MODELS;
        let name = if known { name } else { OTHER_MODELS };
        self.models.entry(name.to_owned()).or_default()
    }
}

fn hold(
    credential: Option<Credential>,
    kind: ProviderKind,
    session: SessionId,
) -> Result<Option<Arc<Held>>, CredentialError> {
    credential
        .map(|credential| Held::new(credential, kind, session))
        .transpose()
}
