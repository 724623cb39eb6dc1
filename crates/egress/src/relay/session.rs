//! One session's side of the relay: what it may do, what it did, and the credential that its requests carry.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Instant,
};

use model::{Secret, SessionId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    account::{Account, Allowance, Reached, Scope, Spent},
    body::Buffers,
    exchange::Observer,
    headers::token_digest,
    ledger::{Booking, Ledger, LeftToday, Settled, Used},
    models::ModelList,
    money::Usd,
    provider::{Provider, ProviderKind},
    refusal::Denial,
    usage::Tokens,
};
use crate::credential::{Credential, CredentialError, Held, Presented};

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
    /// What it may cost in all.
    pub max_cost: Option<Usd>,
    /// Requests under way at a time.
    pub max_concurrent: usize,
    /// Bytes of request bodies in the server's memory at a time. Two of the largest fit the default.
    pub max_buffered_bytes: usize,
    /// Connections at a time; one more is closed as it comes.
    pub max_connections: usize,
}

impl Caps {
    /// What the session may use in all.
    pub const fn allowance(&self) -> Allowance {
        Allowance {
            requests: self.max_requests,
            output_tokens: self.max_output_tokens,
            tokens: self.max_total_tokens,
            cost: self.max_cost,
        }
    }
}

impl Default for Caps {
    fn default() -> Self {
        Caps {
            max_requests: None,
            max_output_tokens: None,
            max_total_tokens: None,
            max_cost: None,
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
    /// What they cost, without those whose price is not known.
    pub cost: Usd,
    /// How many those are.
    pub unpriced: u64,
    /// Bytes of bodies that went to the provider.
    pub bytes_up: u64,
    /// Bytes of bodies that came back.
    pub bytes_down: u64,
    /// Requests and tokens of each model, since the server was started.
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
    /// Whose session it is: all sessions of one caller share that caller's daily allowance.
    pub caller: String,
    /// The server's books, with prices and daily allowances.
    pub ledger: Ledger,
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

/// How an allowance stopped a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetStop {
    /// When.
    pub at: Instant,
    /// The stable name of the limit.
    pub rule: &'static str,
    /// Whose limit, how much, and what to do next.
    pub sentence: String,
}

/// What a session has used, and what its requests under way may use.
struct Book {
    usage: Usage,
    account: Account,
    stopped: Option<BudgetStop>,
}

/// One session's side of the relay. Shared by all connections of the session.
pub struct SessionRelay {
    pub(crate) session: SessionId,
    pub(crate) ledger: Ledger,
    caller: String,
    pub(crate) provider: Provider,
    pub(crate) models: ModelList,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) token_digest: [u8; 32],
    pub(crate) buffers: Buffers,
    caps: Caps,
    credential: RwLock<Option<Arc<Held>>>,
    book: Mutex<Book>,
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
            ledger: config.ledger,
            caller: config.caller,
            provider: config.provider,
            models: config.models,
            observer: config.observer,
            token_digest: token_digest(&config.token),
            buffers: Buffers::new(config.caps.max_buffered_bytes),
            caps: config.caps,
            credential: RwLock::new(held),
            book: Mutex::new(Book {
                account: Account::new(Spent {
                    requests: config.used_before.requests,
                    ..Spent::of(&config.used_before.tokens, config.used_before.cost)
                }),
                usage: config.used_before,
                stopped: None,
            }),
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
        self.counted(|book| book.usage.clone())
    }

    /// What is left of the session's own allowance.
    pub fn left(&self) -> Allowance {
        self.counted(|book| self.caps.allowance().left(&book.account.spent))
    }

    /// What is left today for the session's caller, and for all of the server.
    pub fn left_today(&self) -> LeftToday {
        self.ledger.left_today(&self.caller)
    }

    /// How an allowance last stopped a request of the session.
    pub fn last_stop(&self) -> Option<BudgetStop> {
        self.counted(|book| book.stopped.clone())
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

    /// Whether any allowance that holds for the session is in dollars.
    pub(crate) fn counts_dollars(&self) -> bool {
        self.caps.max_cost.is_some() || self.ledger.counts_dollars()
    }

    /// Counts a request that is about to go out, if every allowance leaves room for one.
    pub(crate) fn begin(
        &self,
        model: &str,
        bytes_up: u64,
        estimate: Spent,
    ) -> Result<Booking, Denial> {
        let allowance = self.caps.allowance();
        self.counted(|book| {
            let own = (&mut book.account, &allowance);
            let booking = self.ledger.begin(&self.caller, own, estimate)?;
            book.usage.requests += 1;
            book.usage.bytes_up += bytes_up;
            book.usage.model(model).requests += 1;
            Ok(booking)
        })
    }

    /// Corrects what one request is charged from `before` to `after`. Says which allowance is used up now.
    pub(crate) fn charge(
        &self,
        model: &str,
        booking: &Booking,
        before: (Tokens, Usd),
        after: (Tokens, Usd),
    ) -> Option<Denial> {
        self.counted(|book| {
            let usage = &mut book.usage;
            usage.tokens += after.0;
            usage.tokens -= before.0;
            usage.cost += after.1;
            usage.cost -= before.1;
            let counted = usage.model(model);
            counted.tokens += after.0;
            counted.tokens -= before.0;
            let (before, after) = (Spent::of(&before.0, before.1), Spent::of(&after.0, after.1));
            book.account.correct(&booking.estimate, before, after);
            let own = self.caps.allowance().used_up(&book.account.spent);
            let of_day = self.ledger.correct(&self.caller, booking, before, after);
            own.map(|cap| Reached {
                scope: Scope::Session,
                cap,
            })
            .or(of_day)
            .map(Denial::Used)
        })
    }

    /// A request has ended: its place in the books is free, and what it used goes on record.
    pub(crate) fn leave(&self, booking: &Booking, used: Used) {
        let last = Spent::of(&used.tokens, used.cost);
        self.counted(|book| {
            book.account.leave(&booking.estimate, last);
            book.usage.denied += used.denied;
            book.usage.unpriced += used.unpriced;
        });
        self.ledger.leave(&self.caller, booking, last);
        self.settle(booking.day, used);
    }

    pub(crate) fn count_down(&self, bytes: u64) {
        self.counted(|book| book.usage.bytes_down += bytes);
    }

    /// A request was refused before it was counted.
    pub(crate) fn count_denied(&self, denial: &Denial) {
        self.counted(|book| book.usage.denied += 1);
        self.note_stop(denial);
        let used = Used {
            denied: 1,
            ..Used::default()
        };
        self.settle(self.ledger.today(), used);
    }

    /// Keeps why a request was stopped, where that was an allowance.
    pub(crate) fn note_stop(&self, denial: &Denial) {
        if let Denial::Used(_) | Denial::PriceUnknown(_) = denial {
            let stop = BudgetStop {
                at: Instant::now(),
                rule: denial.rule(),
                sentence: denial.sentence(),
            };
            self.counted(|book| book.stopped = Some(stop));
        }
    }

    fn settle(&self, day: u64, used: Used) {
        self.ledger.settle(&Settled {
            session: self.session,
            caller: self.caller.clone(),
            day,
            used,
        });
    }

    fn counted<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
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
