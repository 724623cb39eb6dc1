//! What all sessions of a server use together: of each caller, and of all callers, day by day (UTC).

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use model::SessionId;

use super::{
    account::{Account, Allowance, Reached, Refused, Scope, Spent},
    money::Usd,
    prices::{Prices, PricesError},
    refusal::Denial,
    usage::Tokens,
};

/// A day.
const DAY: Duration = Duration::from_secs(86_400);

/// Days before the newest one whose accounts stay at hand, so that a clock that is set back does not open new ones.
const DAYS_AT_HAND: u64 = 2;

/// What is limited day by day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DailyBudgets {
    /// For all sessions of one caller.
    pub caller: Allowance,
    /// For all sessions.
    pub server: Allowance,
}

/// Puts on record what is used. Called from within the relay as a request ends: it must be quick and must not block.
pub trait Keep: Send + Sync {
    /// This was used since the last time.
    fn settled(&self, settled: &Settled);
}

/// What was used, by whom and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Whose request it was.
    pub session: SessionId,
    /// Whose session that is.
    pub caller: String,
    /// The day on which it began: days since 1970-01-01 UTC.
    pub day: u64,
    /// How much.
    pub used: Used,
}

/// Amounts that are put on record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Requests that went on to the provider.
    pub requests: u64,
    /// Requests that the relay refused.
    pub denied: u64,
    /// Of the former, those whose price is not known; they stand in the cost with nothing.
    pub unpriced: u64,
    /// Tokens of all of them.
    pub tokens: Tokens,
    /// What they cost.
    pub cost: Usd,
    /// Bytes of bodies that went to the provider.
    pub bytes_up: u64,
    /// Bytes of bodies that came back.
    pub bytes_down: u64,
}

/// What a caller had used on a day, when the server was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedBefore {
    /// Days since 1970-01-01 UTC.
    pub day: u64,
    /// Who.
    pub caller: String,
    /// How much.
    pub used: Used,
}

/// What time it is.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// All that a ledger is made of.
pub struct LedgerConfig {
    /// What may be used.
    pub budgets: DailyBudgets,
    /// What models cost.
    pub prices: Prices,
    /// What was used before a restart of the server, today and on the days before.
    pub used_before: Vec<UsedBefore>,
    /// Puts on record what is used.
    pub keep: Arc<dyn Keep>,
    /// What time it is: the system's clock, but in tests.
    pub clock: Clock,
}

/// The ledger of a server. Clones share it.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    terms: RwLock<Arc<Terms>>,
    keep: Arc<dyn Keep>,
    clock: Clock,
    days: Mutex<BTreeMap<u64, Day>>,
}

/// What the operator can change while the server runs.
struct Terms {
    budgets: DailyBudgets,
    prices: Arc<Prices>,
}

#[derive(Default)]
struct Day {
    server: Account,
    callers: BTreeMap<String, Account>,
}

/// What is left for somebody today.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftToday {
    /// Of the caller's allowance.
    pub caller: Allowance,
    /// Of the server's.
    pub server: Allowance,
}

/// A request's place in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Booking {
    pub day: u64,
    /// What it may cost at most.
    pub estimate: Spent,
}

struct Forgetful;

impl Keep for Forgetful {
    fn settled(&self, _settled: &Settled) {}
}

impl Used {
    /// What of it is limited.
    pub const fn spent(&self) -> Spent {
        Spent {
            requests: self.requests,
            output_tokens: self.tokens.output,
            tokens: self.tokens.total(),
            cost: self.cost,
        }
    }
}

impl std::ops::AddAssign for Used {
    fn add_assign(&mut self, other: Self) {
        for (sum, more) in [
            (&mut self.requests, other.requests),
            (&mut self.denied, other.denied),
            (&mut self.unpriced, other.unpriced),
            (&mut self.bytes_up, other.bytes_up),
            (&mut self.bytes_down, other.bytes_down),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.tokens += other.tokens;
        self.cost += other.cost;
    }
}

impl Ledger {
    /// A ledger that begins with what was used before.
    pub fn new(config: LedgerConfig) -> Self {
        let mut days: BTreeMap<u64, Day> = BTreeMap::new();
        for before in config.used_before {
            let day = days.entry(before.day).or_default();
            let spent = before.used.spent();
            day.server.spent += spent;
            day.callers.entry(before.caller).or_default().spent += spent;
        }
        Ledger(Arc::new(Inner {
            terms: RwLock::new(Arc::new(Terms {
                budgets: config.budgets,
                prices: Arc::new(config.prices),
            })),
            keep: config.keep,
            clock: config.clock,
            days: Mutex::new(days),
        }))
    }

    /// Nothing is limited day by day, and nothing put on record. Prices are the built-in ones.
    ///
    /// # Errors
    /// Never: a test reads the built-in prices.
    pub fn unlimited() -> Result<Self, PricesError> {
        Ok(Ledger::new(LedgerConfig {
            budgets: DailyBudgets::default(),
            prices: Prices::new(None)?,
            used_before: Vec::new(),
            keep: Arc::new(Forgetful),
            clock: Arc::new(SystemTime::now),
        }))
    }

    /// Puts other budgets and prices in force, for requests from now on. What was used stays used.
    pub fn replace_terms(&self, budgets: DailyBudgets, prices: Prices) {
        let mut terms = self.0.terms.write().unwrap_or_else(PoisonError::into_inner);
        *terms = Arc::new(Terms {
            budgets,
            prices: Arc::new(prices),
        });
    }

    fn terms(&self) -> Arc<Terms> {
        let terms = self.0.terms.read();
        Arc::clone(&terms.unwrap_or_else(PoisonError::into_inner))
    }

    /// The system's clock.
    pub fn system_clock() -> Clock {
        Arc::new(SystemTime::now)
    }

    /// Days since 1970-01-01 UTC.
    pub fn day_of(time: SystemTime) -> u64 {
        time.duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs() / DAY.as_secs())
    }

    /// What is left for this caller today.
    pub fn left_today(&self, caller: &str) -> LeftToday {
        let today = self.today();
        let days = self.lock();
        let day = days.get(&today);
        let server = day.map(|day| day.server.spent).unwrap_or_default();
        let own = day.and_then(|day| day.callers.get(caller));
        let own = own.map(|account| account.spent).unwrap_or_default();
        let budgets = self.terms().budgets;
        LeftToday {
            caller: budgets.caller.left(&own),
            server: budgets.server.left(&server),
        }
    }

    pub(crate) fn today(&self) -> u64 {
        Ledger::day_of((self.0.clock)())
    }

    pub(crate) fn prices(&self) -> Arc<Prices> {
        Arc::clone(&self.terms().prices)
    }

    /// Whether any day's budget is in dollars.
    pub(crate) fn counts_dollars(&self) -> bool {
        let budgets = self.terms().budgets;
        budgets.caller.cost.is_some() || budgets.server.cost.is_some()
    }

    /// Takes a place for a request in all three books, or in none. The session's own is `own`.
    pub(crate) fn begin(
        &self,
        caller: &str,
        own: (&mut Account, &Allowance),
        estimate: Spent,
    ) -> Result<Booking, Denial> {
        let today = self.today();
        let mut days = self.lock();
        make_room(&mut days, today);
        let day = days.entry(today).or_default();
        if !day.callers.contains_key(caller) {
            day.callers.insert(caller.to_owned(), Account::default());
        }
        let callers = day.callers.get_mut(caller).ok_or(Denial::Internal)?;
        let budgets = self.terms().budgets;
        let books = [
            (Scope::Session, own.0, own.1),
            (Scope::CallerDay, callers, &budgets.caller),
            (Scope::ServerDay, &mut day.server, &budgets.server),
        ];
        for (scope, account, allowance) in &books {
            account
                .admits(allowance, &estimate)
                .map_err(|refused| match refused {
                    Refused::Used(cap) => Denial::Used(Reached { scope: *scope, cap }),
                    Refused::Held(cap) => Denial::Held(Reached { scope: *scope, cap }),
                })?;
        }
        for (_, account, _) in books {
            account.enter(&estimate);
        }
        Ok(Booking {
            day: today,
            estimate,
        })
    }

    /// Corrects a request's charge in the books of its day. Says which allowance is used up now.
    pub(crate) fn correct(
        &self,
        caller: &str,
        booking: &Booking,
        before: Spent,
        after: Spent,
    ) -> Option<Reached> {
        let mut days = self.lock();
        let day = days.get_mut(&booking.day)?;
        day.server.correct(&booking.estimate, before, after);
        let budgets = self.terms().budgets;
        let of_server = budgets.server.used_up(&day.server.spent);
        let of_caller = day.callers.get_mut(caller).and_then(|account| {
            account.correct(&booking.estimate, before, after);
            budgets.caller.used_up(&account.spent)
        });
        let reached = |scope| move |cap| Reached { scope, cap };
        of_caller
            .map(reached(Scope::CallerDay))
            .or(of_server.map(reached(Scope::ServerDay)))
    }

    /// A request has ended with this charge.
    pub(crate) fn leave(&self, caller: &str, booking: &Booking, last: Spent) {
        let mut days = self.lock();
        if let Some(day) = days.get_mut(&booking.day) {
            day.server.leave(&booking.estimate, last);
            if let Some(account) = day.callers.get_mut(caller) {
                account.leave(&booking.estimate, last);
            }
        }
    }

    pub(crate) fn settle(&self, settled: &Settled) {
        self.0.keep.settled(settled);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Day>> {
        self.0.days.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("budgets", &self.terms().budgets)
            .finish_non_exhaustive()
    }
}

/// Lets go of days that are over and in which nothing is under way any more.
fn make_room(days: &mut BTreeMap<u64, Day>, today: u64) {
    if days.contains_key(&today) {
        return;
    }
    let newest = days.keys().next_back().copied().unwrap_or(today).max(today);
    days.retain(|day, books| day + DAYS_AT_HAND >= newest || books.server.open > 0);
}

#[cfg(test)]
mod tests;
