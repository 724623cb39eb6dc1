//! Credentials that change while the server runs: their source is asked again, and each different answer is a version.
//!
//! ```text
//! none ──fetch──► fresh ──80 % of its life──► due: used, and renewed beside ──end of its life──► none
//!                   └──refused by the provider──► doubted: fetched anew before the next use
//! ```
//! One fetch runs at a time, whoever needs it meanwhile waits for that one. Requests under way keep the version that they
//! were sent with.
//!
//! Where the newest version is refused and the source has no other, the one before stands in, unless it was refused itself: a
//! new key that was written wrongly, or that the provider does not know yet, stops nobody.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::OwnedMutexGuard;

use super::{Carried, CredentialError};

/// Part of its life, in percent, after which a version is renewed; each time up to [`JITTER_PERCENT`] earlier, so that
/// servers that were started together do not ask together.
const RENEW_PERCENT: u32 = 80;
/// See [`RENEW_PERCENT`].
const JITTER_PERCENT: u64 = 10;
/// After a failed fetch the source is left alone for that long; what asks meanwhile hears of the same failure.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A version that was refused, asked for anew and given again is not asked for anew before that: destinations that refuse
/// everything, of a sandbox's choice among them, must not have the source asked all the time.
const PAUSE_AFTER_SAME: Duration = Duration::from_secs(60);
/// How long the version before a refused one stands in until the refused one is tried again.
const STAND_IN: Duration = Duration::from_secs(30);
/// How long after its replacement a version may still stand in: an operator notices within that, and an old key is not used
/// for ever.
const STANDS_IN_FOR: Duration = Duration::from_secs(3600);

/// What a source gave.
pub(crate) struct Fetched {
    pub(crate) carried: Carried,
    /// When its source must be asked again; by the clock on the wall, which goes on while the machine sleeps.
    pub(crate) end: Option<SystemTime>,
    /// When its provider takes it no more, where the source says so.
    pub(crate) expiry: Option<SystemTime>,
}

/// A fetch under way.
pub(crate) type Fetching<'a> =
    Pin<Box<dyn Future<Output = Result<Fetched, CredentialError>> + Send + 'a>>;

/// A place where a credential can be asked for, any number of times. Bounds its own time.
pub(crate) trait Fetch: Send + Sync + 'static {
    fn fetch(&self) -> Fetching<'_>;

    /// What it would give now, where no program and no service has to be asked for that.
    fn at_once(&self) -> Option<Result<Carried, CredentialError>> {
        None
    }

    /// A version that is refused is fetched anew if it is at least that old: of a younger one, the source would only
    /// say the same again.
    fn least_age(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// One version of a credential.
pub(crate) struct Version {
    /// Rises with each change.
    pub(crate) number: u64,
    pub(crate) carried: Carried,
    fetched: Instant,
    /// Its source gave it again after it was refused.
    is_confirmed: bool,
    due: Option<SystemTime>,
    end: Option<SystemTime>,
    expiry: Option<SystemTime>,
}

impl Version {
    fn new(number: u64, fetched: Fetched) -> Self {
        let now = SystemTime::now();
        let life = fetched.end.and_then(|end| end.duration_since(now).ok());
        let due = life.and_then(|life| {
            let jitter = RandomState::new().build_hasher().finish() % (JITTER_PERCENT + 1);
            let percent = RENEW_PERCENT - u32::try_from(jitter).unwrap_or_default();
            now.checked_add(life * percent / 100)
        });
        Version {
            number,
            carried: fetched.carried,
            fetched: Instant::now(),
            is_confirmed: false,
            due,
            end: fetched.end,
            expiry: fetched.expiry,
        }
    }
}

#[derive(Default)]
struct Kept {
    version: Option<Arc<Version>>,
    /// The version before, and when it was replaced.
    previous: Option<(Arc<Version>, Instant)>,
    /// Since when the version before stands in.
    stands_in: Option<Instant>,
    /// The version that the provider refused.
    doubted: Option<u64>,
    failed: Option<(Instant, CredentialError)>,
}

/// A source with its newest version. Shared by all that use the source.
pub(crate) struct Renewed {
    fetch: Box<dyn Fetch>,
    kept: Mutex<Kept>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

enum Look {
    Fresh(Arc<Version>),
    Due(Arc<Version>),
    Nothing,
}

impl Renewed {
    pub(crate) fn new(fetch: impl Fetch) -> Arc<Self> {
        Arc::new(Renewed {
            fetch: Box::new(fetch),
            kept: Mutex::default(),
            turn: Arc::default(),
        })
    }

    /// See [`Fetch::at_once`].
    pub(crate) fn at_once(&self) -> Option<Result<Carried, CredentialError>> {
        self.fetch.at_once()
    }

    /// The version for the next request.
    pub(crate) async fn current(self: &Arc<Self>) -> Result<Arc<Version>, CredentialError> {
        match self.look() {
            Look::Fresh(version) => Ok(version),
            Look::Due(version) => {
                self.renew_beside(version.number);
                Ok(version)
            }
            Look::Nothing => {
                let turn = Arc::clone(&self.turn).lock_owned().await;
                match self.look() {
                    Look::Fresh(version) | Look::Due(version) => Ok(version),
                    Look::Nothing => {
                        let at_hand = self.kept().at_hand();
                        let fetched = self.fetch_now(turn).await;
                        // One that is only doubted is better than none.
                        fetched.or_else(|error| at_hand.ok_or(error))
                    }
                }
            }
        }
    }

    /// After the provider refused a version: another one, if there is one; a newer one first.
    pub(crate) async fn instead_of(self: &Arc<Self>, refused: u64) -> Option<Arc<Version>> {
        self.doubt(refused);
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let newest = self.kept().version.clone()?;
        if newest.number > refused {
            return Some(newest);
        }
        if self.may_be_asked_for_anew(&newest) {
            let fetched = self.fetch_now(turn).await.ok()?;
            if fetched.number > refused {
                return Some(fetched);
            }
        }
        let stand_in = self.kept().begin_to_stand_in()?;
        tracing::warn!(
            version = stand_in.number,
            "the provider refuses the newest version of a credential: the one before stands in"
        );
        Some(stand_in)
    }

    fn renew_beside(self: &Arc<Self>, number: u64) {
        let Ok(turn) = Arc::clone(&self.turn).try_lock_owned() else {
            return;
        };
        let source = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = source.fetch_now(turn).await {
                tracing::warn!(%error, version = number, "a credential was not renewed; it is used until its end");
            }
        });
    }

    /// Whether the source may be asked for another version than this, which was refused.
    fn may_be_asked_for_anew(&self, version: &Version) -> bool {
        let least = self.fetch.least_age();
        // To read a file once more costs nothing.
        let pause = match version.is_confirmed && !least.is_zero() {
            true => least.max(PAUSE_AFTER_SAME),
            false => least,
        };
        version.fetched.elapsed() >= pause
    }

    fn look(&self) -> Look {
        let kept = self.kept();
        let Some(version) = &kept.version else {
            return Look::Nothing;
        };
        let now = SystemTime::now();
        let is_past = |time: Option<SystemTime>| time.is_some_and(|time| time <= now);
        let may_ask = self.may_be_asked_for_anew(version);
        let doubted = kept.doubted == Some(version.number) && may_ask;
        if let Some(stand_in) = kept.stand_in() {
            return match may_ask && kept.failure().is_none() {
                true => Look::Due(stand_in),
                false => Look::Fresh(stand_in),
            };
        }
        if doubted || is_past(version.end) {
            return Look::Nothing;
        }
        if is_past(version.due) && kept.failure().is_none() {
            return Look::Due(Arc::clone(version));
        }
        Look::Fresh(Arc::clone(version))
    }

    /// Whoever has the turn gives it away. A fetch that has begun goes on to its end, whoever waits for it no more: what asks
    /// is the request of a sandbox, and a command that is ended in the middle can leave its own state half-written.
    async fn fetch_now(
        self: &Arc<Self>,
        turn: OwnedMutexGuard<()>,
    ) -> Result<Arc<Version>, CredentialError> {
        let source = Arc::clone(self);
        let fetching = tokio::spawn(async move {
            let fetched = source.fetch_to_its_end().await;
            drop(turn);
            fetched
        });
        fetching.await.unwrap_or(Err(CredentialError::Source {
            what: "the source of a credential",
            why: "broke off",
        }))
    }

    async fn fetch_to_its_end(&self) -> Result<Arc<Version>, CredentialError> {
        if let Some(error) = self.kept().failure() {
            return Err(error);
        }
        let outcome = self.fetch.fetch().await;
        let mut kept = self.kept();
        match outcome {
            Ok(fetched) => Ok(kept.keep(fetched)),
            Err(error) => {
                kept.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    pub(crate) fn doubt(&self, number: u64) {
        let mut kept = self.kept();
        // One that comes late, of an older version, takes nothing back.
        kept.doubted = kept.doubted.max(Some(number));
        if kept
            .previous
            .as_ref()
            .is_some_and(|(previous, _)| previous.number == number)
        {
            kept.previous = None;
            kept.stands_in = None;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn failure(&self) -> Option<CredentialError> {
        let (at, error) = self.failed.as_ref()?;
        (at.elapsed() < PAUSE_AFTER_FAILURE).then(|| error.clone())
    }

    /// The newest version, where it may be used, whatever is thought of it.
    fn at_hand(&self) -> Option<Arc<Version>> {
        let version = self.version.as_ref()?;
        let is_over = version.end.is_some_and(|end| end <= SystemTime::now());
        (!is_over).then(|| Arc::clone(version))
    }

    /// The version before, where it may be used.
    fn usable_previous(&self) -> Option<Arc<Version>> {
        let (previous, replaced) = self.previous.as_ref()?;
        let has_ended = previous
            .expiry
            .is_some_and(|expiry| expiry <= SystemTime::now());
        (!has_ended && replaced.elapsed() < STANDS_IN_FOR).then(|| Arc::clone(previous))
    }

    fn begin_to_stand_in(&mut self) -> Option<Arc<Version>> {
        let previous = self.usable_previous()?;
        self.stands_in = Some(Instant::now());
        Some(previous)
    }

    /// What is used instead of the newest version, at the moment.
    fn stand_in(&self) -> Option<Arc<Version>> {
        let since = self.stands_in?;
        (since.elapsed() < STAND_IN)
            .then(|| self.usable_previous())
            .flatten()
    }

    fn keep(&mut self, fetched: Fetched) -> Arc<Version> {
        let number = match &self.version {
            Some(version) if version.carried == fetched.carried => version.number,
            Some(version) => version.number + 1,
            None => 1,
        };
        let mut version = Version::new(number, fetched);
        let is_same = self
            .version
            .as_ref()
            .is_some_and(|old| old.number == number);
        version.is_confirmed = is_same && self.doubted == Some(number);
        let version = Arc::new(version);
        if let Some(replaced) = self.version.take().filter(|old| old.number < number) {
            // One that was refused is not tried again.
            let was_refused = self.doubted == Some(replaced.number);
            self.stands_in = None;
            // A stand-in is the better one before: what it stood in for never worked.
            if !was_refused {
                self.previous = Some((replaced, Instant::now()));
            }
        }
        self.failed = None;
        self.version = Some(Arc::clone(&version));
        version
    }
}
