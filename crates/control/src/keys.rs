//! The keys of remote callers: held in memory, so that a call costs one HMAC; written through to the store.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit, Mac};
use model::{
    ApiKey, CreateKey, KeyId, KeyState, KeyView, NewKey, Reason, Refusal, RemoteCaller, RemoteKind,
};
use policy::{KeyListPermit, KeyPermit, KeyVerb, NewKeyPermit};
use sha2::Sha256;
use store::{KeyRecord, PEPPER_BYTES, Pepper, Store};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

/// How often it is written that a key is used.
const USE_IS_NOTED_EVERY_MS: u64 = 60_000;
/// What the secret of an unknown key is compared with, so that unknown and wrong cost the same.
const NO_HASH: [u8; 32] = [0; 32];

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthFailure {
    /// Not the text of a key.
    Malformed,
    /// No such key, or another secret.
    Unknown,
    /// Its time is over; also a token's.
    Expired,
    /// It was revoked.
    Revoked,
}

impl AuthFailure {
    /// The word in the audit log. Nobody else hears it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            AuthFailure::Malformed => "malformed",
            AuthFailure::Unknown => "unknown",
            AuthFailure::Expired => "expired",
            AuthFailure::Revoked => "revoked",
        }
    }
}

/// A key that was recognized.
pub(crate) struct Recognized {
    pub(crate) caller: RemoteCaller,
    /// It is used for the first time ever.
    pub(crate) is_first_use: bool,
}

/// All keys of a server.
pub struct KeyRing {
    pepper: Pepper,
    store: Store,
    keys: RwLock<HashMap<KeyId, KeyRecord>>,
    /// Changes with each revocation: calls that wait look whether it concerns them.
    revocations: watch::Sender<u64>,
}

impl KeyRing {
    /// The keys on record, under that pepper.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(store: Store, pepper: Pepper) -> Result<Arc<KeyRing>, store::StoreError> {
        let keys = store.keys()?;
        Ok(Arc::new(KeyRing {
            pepper,
            store,
            keys: RwLock::new(keys.into_iter().map(|key| (key.id, key)).collect()),
            revocations: watch::Sender::new(0),
        }))
    }

    /// Keys are on record that the pepper does not fit any more: it was lost, and nobody can use them.
    pub fn lost_its_pepper(&self) -> bool {
        self.pepper.is_new && !self.read().is_empty()
    }

    /// Whether any key would be accepted now: a server without one, and without another way in, has nobody to serve.
    pub fn has_a_usable_key(&self) -> bool {
        let now = SystemTime::now();
        let keys = self.read();
        keys.values()
            .any(|key| view(key).state(now) == KeyState::Active)
    }

    /// Who presents that text. An unknown key and a wrong secret cost the same.
    pub(crate) fn recognize(&self, text: &str, now: SystemTime) -> Result<Recognized, AuthFailure> {
        let key = ApiKey::parse(text).map_err(|_malformed| AuthFailure::Malformed)?;
        let hash = hash(self.pepper.bytes.expose(), &key);
        let found = self.read().get(&key.id).cloned();
        let expected = found.as_ref().map_or(&NO_HASH, |found| &found.secret_hash);
        let is_right = bool::from(hash.ct_eq(expected));
        let Some(found) = found.filter(|_| is_right) else {
            return Err(AuthFailure::Unknown);
        };
        match view(&found).state(now) {
            KeyState::Active => {}
            KeyState::Expired => return Err(AuthFailure::Expired),
            KeyState::Revoked => return Err(AuthFailure::Revoked),
        }
        let is_first_use = self.is_used(found.id, milliseconds(now));
        Ok(Recognized {
            caller: RemoteCaller {
                name: found.identity.owner_name(),
                kind: RemoteKind::ApiKey { id: found.id },
                scopes: found.scopes,
                roots: found.roots,
                max_sessions: found.max_sessions,
                calls_per_minute: found.calls_per_minute,
            },
            is_first_use,
        })
    }

    /// Returns as soon as that caller's key is not valid any more.
    pub(crate) async fn gone(&self, id: KeyId) {
        let mut revocations = self.revocations.subscribe();
        loop {
            let (now, key) = (SystemTime::now(), self.get(id));
            let Some(key) = key.filter(|key| key.state(now) == KeyState::Active) else {
                return;
            };
            let left = key.expires_at.and_then(|end| end.duration_since(now).ok());
            tokio::select! {
                changed = revocations.changed() => if changed.is_err() { return },
                () = sleep(left) => {}
            }
        }
    }

    /// One key.
    pub(crate) fn get(&self, id: KeyId) -> Option<KeyView> {
        self.read().get(&id).map(view)
    }

    /// Every key, oldest first.
    pub(crate) fn list(&self, permit: KeyListPermit) -> Vec<KeyView> {
        permit.spend();
        let mut keys: Vec<KeyView> = self.read().values().map(view).collect();
        keys.sort_by_key(|key| (key.created_at, key.id));
        keys
    }

    /// Makes a key.
    pub(crate) async fn create(self: &Arc<Self>, permit: NewKeyPermit) -> Result<NewKey, Refusal> {
        let asked = permit.into_parts();
        let now = SystemTime::now();
        let expires_at_ms = asked
            .valid_for
            .and_then(|time| now.checked_add(time))
            .map(milliseconds);
        let (key, record) = self.new_record(&asked, expires_at_ms, now, None)?;
        let stored = record.clone();
        self.stored(move |store| store.add_key(&stored)).await?;
        let view = view(&record);
        self.write().insert(record.id, record);
        Ok(NewKey {
            text: key.text(),
            key: view,
            replaces: None,
        })
    }

    /// Makes a key that takes the place of another.
    pub(crate) async fn rotate(self: &Arc<Self>, permit: KeyPermit) -> Result<NewKey, Refusal> {
        let (id, KeyVerb::Rotate { overlap }) = permit.into_parts() else {
            return Err(other_permit());
        };
        let old = self.read().get(&id).cloned().ok_or_else(other_permit)?;
        let now = SystemTime::now();
        if view(&old).state(now) != KeyState::Active || old.replaced_by.is_some() {
            let message = "That key has ended, or another has taken its place already.";
            let hint = "Rotate the key that took its place (`keys list`), or create a new one.";
            return Err(Refusal::new(Reason::KeyNotFound, message, hint).in_field("keyId"));
        }
        let asked = CreateKey {
            name: old.name.clone(),
            scopes: old.scopes,
            roots: old.roots.clone(),
            max_sessions: old.max_sessions,
            calls_per_minute: old.calls_per_minute,
            valid_for: None,
        };
        // As long as the old one was meant to live, from now on.
        let expires_at_ms = old
            .expires_at_ms
            .map(|end| milliseconds(now).saturating_add(end.saturating_sub(old.created_at_ms)));
        let (key, record) = self.new_record(&asked, expires_at_ms, now, Some(old.identity))?;
        let ends = milliseconds(now.checked_add(overlap).unwrap_or(now));
        let stored = record.clone();
        self.stored(move |store| store.replace_key(id, ends, &stored))
            .await?;
        let (view_of_new, view_of_old) = {
            let mut keys = self.write();
            let replaced = keys.entry(id).and_modify(|old| {
                old.replaced_by = Some(record.id);
                old.expires_at_ms = Some(old.expires_at_ms.map_or(ends, |end| end.min(ends)));
            });
            let view_of_old = view(replaced.or_insert(old));
            let view_of_new = view(&record);
            keys.insert(record.id, record);
            (view_of_new, view_of_old)
        };
        self.tell_those_who_wait();
        Ok(NewKey {
            text: key.text(),
            key: view_of_new,
            replaces: Some(view_of_old),
        })
    }

    /// Ends a key: refused from now on, also in calls that wait. In memory first, so that it holds even where the database
    /// fails; the caller learns of that.
    pub(crate) async fn revoke(self: &Arc<Self>, permit: KeyPermit) -> Result<KeyView, Refusal> {
        let (id, KeyVerb::Revoke) = permit.into_parts() else {
            return Err(other_permit());
        };
        let now = milliseconds(SystemTime::now());
        let revoked = {
            let mut keys = self.write();
            let key = keys.get_mut(&id).ok_or_else(other_permit)?;
            key.revoked_at_ms.get_or_insert(now);
            view(key)
        };
        self.tell_those_who_wait();
        self.stored(move |store| store.revoke_key(id, now)).await?;
        Ok(revoked)
    }

    /// Keys whose time is over and whose end is not told yet.
    pub(crate) fn ended_untold(&self) -> Vec<KeyView> {
        let now = SystemTime::now();
        let keys = self.read();
        let untold = keys.values().filter(|key| !key.end_is_told).map(view);
        untold
            .filter(|key| key.state(now) == KeyState::Expired)
            .collect()
    }

    /// The audit log has that key's end.
    pub(crate) async fn end_is_told(self: &Arc<Self>, id: KeyId) -> Result<(), Refusal> {
        self.stored(move |store| store.key_end_is_told(id)).await?;
        if let Some(key) = self.write().get_mut(&id) {
            key.end_is_told = true;
        }
        Ok(())
    }

    fn new_record(
        &self,
        asked: &CreateKey,
        expires_at_ms: Option<u64>,
        now: SystemTime,
        identity: Option<KeyId>,
    ) -> Result<(ApiKey, KeyRecord), Refusal> {
        let key = ApiKey::random().map_err(|error| Refusal::internal(&error))?;
        let record = KeyRecord {
            id: key.id,
            identity: identity.unwrap_or(key.id),
            name: asked.name.clone(),
            secret_hash: hash(self.pepper.bytes.expose(), &key),
            scopes: asked.scopes,
            roots: asked.roots.clone(),
            max_sessions: asked.max_sessions,
            calls_per_minute: asked.calls_per_minute,
            created_at_ms: milliseconds(now),
            expires_at_ms,
            revoked_at_ms: None,
            last_used_at_ms: None,
            replaced_by: None,
            end_is_told: false,
        };
        Ok((key, record))
    }

    /// Notes a use, on disk once a minute at most. Whether it is the first ever.
    fn is_used(&self, id: KeyId, now_ms: u64) -> bool {
        let last = {
            let keys = self.read();
            keys.get(&id).and_then(|key| key.last_used_at_ms)
        };
        let is_due = last.is_none_or(|last| now_ms.saturating_sub(last) >= USE_IS_NOTED_EVERY_MS);
        if !is_due {
            return false;
        }
        let is_first = {
            let mut keys = self.write();
            let previous = keys
                .get_mut(&id)
                .and_then(|key| key.last_used_at_ms.replace(now_ms));
            // Of two calls at once, the one that finds nothing.
            previous.is_none()
        };
        let store = self.store.clone();
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = store.key_was_used(id, now_ms) {
                tracing::warn!(%error, key = %id, "the use of a key is not on record");
            }
        }));
        is_first
    }

    fn tell_those_who_wait(&self) {
        self.revocations
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn stored<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, store::StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result.map_err(|error| Refusal::internal(&error)),
            Err(error) => Err(Refusal::internal(&error)),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<KeyId, KeyRecord>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<KeyId, KeyRecord>> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a key's secret comes to under the pepper. The id is in it, so that a row cannot lend its hash to another.
fn hash(pepper: &[u8; PEPPER_BYTES], key: &ApiKey) -> [u8; 32] {
    // A key of any length fits HMAC; were it not so, nothing would match.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(pepper) else {
        return [0xff; 32];
    };
    mac.update(key.id.as_str().as_bytes());
    mac.update(key.secret.expose().as_bytes());
    mac.finalize().into_bytes().into()
}

fn view(key: &KeyRecord) -> KeyView {
    KeyView {
        id: key.id,
        identity: key.identity,
        name: key.name.clone(),
        scopes: key.scopes,
        roots: key.roots.clone(),
        max_sessions: key.max_sessions,
        calls_per_minute: key.calls_per_minute,
        created_at: time(key.created_at_ms),
        expires_at: key.expires_at_ms.map(time),
        revoked_at: key.revoked_at_ms.map(time),
        last_used_at: key.last_used_at_ms.map(time),
        replaced_by: key.replaced_by,
    }
}

/// For ever where there is no end.
pub(crate) async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

fn time(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(milliseconds)
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn other_permit() -> Refusal {
    Refusal::new(
        model::Reason::Internal,
        "A permit came that is for something else.",
        "Try again; the server's log says more.",
    )
}
