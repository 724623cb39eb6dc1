//! How much a caller may ask for at a time: calls under way, calls a minute, failures to say who it is. All of it is kept in
//! memory and bounded.
//!
//! A restart forgets it. No caller can restart the server: what a caller can end are its own sessions, and a server that was started on
//! demand ends by itself only after [idle time] without a client, by which its buckets are full again anyway. Sessions, what they
//! are promised, and budgets are in the database and outlive it.
//!
//! [idle time]: ../../docs/configuration.md

mod flood;
mod open;
mod sources;

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{Action, Principal, Reason, Refusal, SessionId};
use policy::{Buckets, CallClass, CallerLimits, Fill, Moment, Rate, RateLimits};
use tokio::time::Instant;

use open::OpenCalls;

pub(crate) use flood::{Flood, Told, WINDOW as FLOOD_WINDOW};
pub(crate) use open::OpenCall;
pub(crate) use sources::Sources;

/// Buckets that are held: four megabytes. A caller that calls has up to five, and one for each of its sessions; a full one is not
/// kept.
const MAX_BUCKETS: usize = 32_768;

/// Who asked for how much lately. How much each may is the operator's, and may change while the server runs.
pub(crate) struct Limits {
    began: Instant,
    buckets: Mutex<Buckets<Key>>,
    open: OpenCalls,
}

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// [`model::Principal::name`].
    pub(crate) name: String,
    /// Calls a minute, where it has a limit of its own.
    own: Option<NonZeroU32>,
}

impl Caller {
    pub(crate) fn of(principal: &Principal) -> Self {
        Caller {
            name: principal.name(),
            own: principal
                .remote()
                .and_then(|remote| NonZeroU32::new(remote.calls_per_minute?)),
        }
    }
}

/// Whose bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Calls(Arc<str>),
    Class(Arc<str>, CallClass),
    /// With its caller: nobody takes from a bucket of another's session by naming it.
    Session(Arc<str>, SessionId),
}

/// How a caller stands, for the headers of a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateView {
    /// Calls a minute, in the long run.
    pub per_minute: u32,
    /// Calls that may come at once after a rest.
    pub burst: u32,
    /// How long such a rest is at most, seconds.
    pub window_seconds: u64,
    /// Calls that may come at once now.
    pub remaining: u32,
    /// Until the whole burst may come again, seconds.
    pub reset_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            began: Instant::now(),
            buckets: Mutex::new(Buckets::new(MAX_BUCKETS)),
            open: OpenCalls::default(),
        }
    }
}

impl Limits {
    /// Lets a call onto the road; its place is free again when what comes back is dropped.     ///
    /// # Errors
    /// `rate_limited`, with the time after which a try passes.
    pub(crate) fn admit(
        &self,
        allowed: &CallerLimits,
        caller: &Caller,
        action: &Action,
        session: Option<SessionId>,
    ) -> Result<Option<OpenCall<'_>>, Refusal> {
        let class = CallClass::of(action);
        if class == CallClass::Free {
            return Ok(None);
        }
        let place = self.open.take(&caller.name, allowed.max_open_calls);
        let place = place.ok_or_else(too_many_open)?;
        let wanted = wanted(&allowed.rates, caller, class, session);
        let taken = lock(&self.buckets).take_all(&wanted, self.now());
        match taken {
            Ok(()) => Ok(Some(place)),
            Err((index, early)) => {
                let (key, rate) = &wanted[index];
                Err(too_often(key, *rate).retry_after_ms(early.milliseconds()))
            }
        }
    }

    /// How a caller stands; nothing where it is not limited.
    pub(crate) fn view(&self, allowed: &CallerLimits, caller: &Caller) -> Option<RateView> {
        let rate = calls(&allowed.rates, caller.own)?;
        let key = Key::Calls(caller.name.as_str().into());
        let fill: Fill = lock(&self.buckets).fill(&key, rate, self.now());
        Some(RateView {
            per_minute: rate.per_minute(),
            burst: fill.limit,
            window_seconds: rate.window_seconds(),
            remaining: fill.remaining,
            reset_seconds: fill.full_in_ns.div_ceil(1_000_000_000),
        })
    }

    /// Since the server's start, on a clock that nobody sets.
    pub(crate) fn now(&self) -> Moment {
        let since = self.began.elapsed().as_nanos();
        Moment(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

/// All calls of a caller.
fn calls(rates: &RateLimits, own: Option<NonZeroU32>) -> Option<Rate> {
    match (rates.calls, own) {
        (Some(rate), Some(own)) => Some(rate.at_most(own)),
        (Some(rate), None) => Some(rate),
        (None, Some(own)) => Rate::new(own.get(), own.get()),
        (None, None) => None,
    }
}

/// The buckets that a call takes from.
fn wanted(
    rates: &RateLimits,
    caller: &Caller,
    class: CallClass,
    session: Option<SessionId>,
) -> Vec<(Key, Rate)> {
    let name: Arc<str> = caller.name.as_str().into();
    let of_class = match class {
        CallClass::Free | CallClass::Other => None,
        CallClass::Create => rates.creates,
        CallClass::Execute => rates.executions,
        CallClass::Transfer => rates.transfers,
    };
    let all = calls(rates, caller.own).map(|rate| (Key::Calls(name.clone()), rate));
    let of_class = of_class.map(|rate| (Key::Class(name.clone(), class), rate));
    let of_session = session
        .zip(rates.session_calls)
        .map(|(session, rate)| (Key::Session(name, session), rate));
    [all, of_class, of_session].into_iter().flatten().collect()
}

fn too_often(key: &Key, rate: Rate) -> Refusal {
    let what = match key {
        Key::Calls(_) => CallClass::Other.noun(),
        Key::Class(_, class) => class.noun(),
        Key::Session(..) => "calls to one session",
    };
    Refusal::new(
        Reason::RateLimited,
        format!(
            "Too many {what}: {} a minute are allowed, and {} at once.",
            rate.per_minute(),
            rate.burst()
        ),
        "Wait for the time that is told, then go on more slowly; ending sessions and executions is never limited.",
    )
}

fn too_many_open() -> Refusal {
    Refusal::new(
        Reason::RateLimited,
        "Too many calls are under way.",
        "Wait for some of them.",
    )
    .retry_after_ms(1_000)
}

/// A lock whose holder panicked holds data that is still consistent: every critical section here is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
