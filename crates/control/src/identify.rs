//! Who calls. Whoever is not known is on the log, and a flood of them is counted instead of filling the disk.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use audit::{AuditLog, Closing, Event, Intent, Parameter};
use model::{
    AccessToken, ApiKey, ClientInfo, Credentials, Principal, Reason, Refusal, RemoteCaller,
    RemoteKind, Scopes, Source,
};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    keys::{AuthFailure, KeyRing, Recognized, sleep},
    limit::{RateView, Sources},
};

/// Failures that are written one by one within [`WINDOW`]; the others of it are counted.
const MAX_WRITTEN: u64 = 30;
/// What is counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// Who acts, in the log, when nobody is known.
const NOBODY: &str = "unidentified";
/// Somebody was not let in, in the log.
const FAILED: &str = "auth.fail";
/// Failures that were counted, in the log.
const COUNTED: &str = "auth.fail_more";

/// Nothing was looked at, since too many failures came from there.
const TOO_OFTEN: &str = "too_often";

/// What a door learns of a caller that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated {
    /// [`Principal::name`].
    pub name: String,
    /// What it may do; everything for a local caller.
    pub scopes: Scopes,
    /// How it stands with its calls a minute; nothing where they are not limited.
    pub rate: Option<RateView>,
}

/// What tokens may do here, beside their scopes: the operator's, since no issuer knows directories of this server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenRights {
    /// Directories below which projects of token holders are, canonical.
    pub roots: Vec<std::path::PathBuf>,
    /// Live sessions of one token holder at once; the server's own bound otherwise.
    pub max_sessions: Option<u32>,
}

/// The one place that turns credentials into principals.
pub(crate) struct Identities {
    keys: Arc<KeyRing>,
    tokens: TokenRights,
    failures: Arc<Failures>,
    sources: Sources,
    audit: AuditLog,
}

impl Identities {
    pub(crate) fn new(audit: AuditLog, keys: Arc<KeyRing>, tokens: TokenRights) -> Self {
        Identities {
            keys,
            tokens,
            failures: Failures::new(audit.clone()),
            sources: Sources::default(),
            audit,
        }
    }

    pub(crate) fn keys(&self) -> &Arc<KeyRing> {
        &self.keys
    }

    /// Who that is. A failure is on the log.
    pub(crate) fn identify(
        &self,
        credentials: &Credentials,
        source: &Source,
    ) -> Result<Principal, Refusal> {
        match credentials {
            Credentials::LocalPeer { uid, roots, .. } => Ok(Principal::LocalUser {
                uid: *uid,
                roots: roots.clone(),
            }),
            Credentials::System => Ok(Principal::System),
            Credentials::ApiKey(text) => {
                let mark = self.sources.fingerprint(text.expose().as_bytes());
                if let Err(refusal) = self.sources.check(source, Some(mark)) {
                    self.failures.note(details(TOO_OFTEN, None), *source);
                    return Err(refusal);
                }
                let found = self.keys.recognize(text.expose(), SystemTime::now());
                match found {
                    Ok(_) => self.sources.succeeded(source, mark),
                    Err(_) => self.sources.failed(source, Some(mark)),
                }
                found.map(|found| self.let_in(found)).map_err(|failure| {
                    let key = ApiKey::parse(text.expose()).ok();
                    let key = key.map(|key| key.id.to_string());
                    self.fail(failure, "key", key, source)
                })
            }
            Credentials::AccessToken(token) if token.expires_at <= SystemTime::now() => {
                let holder = token_name(&token.issuer, &token.subject);
                Err(self.fail(AuthFailure::Expired, "token", Some(holder), source))
            }
            Credentials::AccessToken(token) => Ok(self.token_holder(token)),
        }
    }

    /// Returns as soon as those credentials are not valid any more: a call that waits is answered then.
    pub(crate) async fn gone(&self, credentials: &Credentials) {
        match credentials {
            Credentials::ApiKey(text) => match ApiKey::parse(text.expose()) {
                Ok(key) => self.keys.gone(key.id).await,
                Err(_malformed) => {}
            },
            Credentials::AccessToken(token) => {
                let left = token.expires_at.duration_since(SystemTime::now());
                sleep(Some(left.unwrap_or_default())).await;
            }
            Credentials::LocalPeer { .. } | Credentials::System => std::future::pending().await,
        }
    }

    fn let_in(&self, found: Recognized) -> Principal {
        if found.is_first_use
            && let RemoteKind::ApiKey { id } = found.caller.kind
        {
            tell(&self.audit, "key.first_use", id.to_string());
        }
        Principal::Remote(Box::new(found.caller))
    }

    fn token_holder(&self, token: &AccessToken) -> Principal {
        Principal::Remote(Box::new(RemoteCaller {
            name: token_name(&token.issuer, &token.subject),
            kind: RemoteKind::AccessToken,
            scopes: token.scopes,
            roots: self.tokens.roots.clone(),
            max_sessions: self.tokens.max_sessions,
            calls_per_minute: None,
        }))
    }

    /// Whether a door looks at credentials from there, which it checks itself.
    pub(crate) fn may_try(&self, source: &Source) -> Result<(), Refusal> {
        let checked = self.sources.check(source, None);
        if checked.is_err() {
            self.failures.note(details(TOO_OFTEN, None), *source);
        }
        checked
    }

    /// A door has found credentials to be wrong.
    pub(crate) fn were_wrong(&self, source: &Source, why: &'static str) -> Refusal {
        self.sources.failed(source, None);
        self.failures.note(details(why, None), *source);
        unauthenticated()
    }

    fn fail(
        &self,
        failure: AuthFailure,
        kind: &'static str,
        named: Option<String>,
        source: &Source,
    ) -> Refusal {
        let named = named.map(|named| (kind, named));
        self.failures
            .note(details(failure.as_str(), named), *source);
        unauthenticated()
    }
}

/// What the log hears of a failure.
fn details(why: &str, named: Option<(&'static str, String)>) -> Vec<(&'static str, Parameter)> {
    let mut details = vec![("why", word(why))];
    details.extend(named.map(|(kind, named)| (kind, word(named))));
    details
}

/// Writes that something happened to a key. Behind: nobody waits for it.
pub(crate) fn tell(audit: &AuditLog, action: &'static str, key: String) {
    let audit = audit.clone();
    tokio::spawn(async move {
        let event = Event {
            action,
            session: None,
            parameters: vec![("key", Parameter::Word(key))],
        };
        if let Err(error) = audit.event(event).await {
            tracing::warn!(%error, action, "not in the audit log");
        }
    });
}

/// `oauth:` and the beginning of the SHA-256 of issuer, NUL and subject: 64 bits, so that two never meet by accident.
fn token_name(issuer: &str, subject: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(issuer.as_bytes());
    digest.update([0]);
    digest.update(subject.as_bytes());
    let mut name = String::from("oauth:");
    for byte in digest.finalize().iter().take(8) {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// One answer for every failure: whether there is such a key is nobody's business.
pub(crate) fn unauthenticated() -> Refusal {
    Refusal::new(
        Reason::Unauthenticated,
        "The key or token is not valid, or not any more.",
        "Ask whoever runs the server for a valid one: `claude-code-mcp keys create`.",
    )
}

/// See [`MAX_WRITTEN`].
struct Failures {
    audit: AuditLog,
    counts: Mutex<Counts>,
    /// For what goes on when a window is over.
    own: Weak<Failures>,
}

struct Counts {
    since: Instant,
    written: u64,
    counted: u64,
}

impl Failures {
    fn new(audit: AuditLog) -> Arc<Self> {
        Arc::new_cyclic(|own| Failures {
            audit,
            counts: Mutex::new(Counts {
                since: Instant::now(),
                written: 0,
                counted: 0,
            }),
            own: own.clone(),
        })
    }

    fn note(&self, details: Vec<(&'static str, Parameter)>, source: Source) {
        let (is_written, is_first_counted) = {
            let mut counts = self.lock();
            if counts.since.elapsed() >= WINDOW {
                counts.since = Instant::now();
                counts.written = 0;
            }
            let is_written = counts.written < MAX_WRITTEN;
            counts.written += u64::from(is_written);
            counts.counted += u64::from(!is_written);
            (is_written, !is_written && counts.counted == 1)
        };
        if is_written {
            return self.write(FAILED, source, details);
        }
        if is_first_counted {
            let own = self.own.clone();
            tokio::spawn(async move {
                tokio::time::sleep(WINDOW).await;
                if let Some(own) = own.upgrade() {
                    own.tell_counted();
                }
            });
        }
    }

    fn tell_counted(&self) {
        let counted = std::mem::take(&mut self.lock().counted);
        if counted > 0 {
            self.write(
                COUNTED,
                Source::SYSTEM,
                vec![("count", Parameter::Number(counted))],
            );
        }
    }

    fn write(
        &self,
        action: &'static str,
        source: Source,
        parameters: Vec<(&'static str, Parameter)>,
    ) {
        let intent = Intent {
            action,
            session: None,
            principal: NOBODY.to_owned(),
            client: ClientInfo::default(),
            source,
            target: None,
            parameters,
        };
        self.audit
            .write_behind(intent, Closing::Denied(Reason::Unauthenticated));
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Failures {
    fn drop(&mut self) {
        self.tell_counted();
    }
}

fn word(text: impl ToString) -> Parameter {
    Parameter::Word(text.to_string())
}
