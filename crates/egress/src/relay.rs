//! The relay to model providers, which puts their key into the requests of a sandbox, so that it is never inside.
//!
//! What it passes is a short list of the provider's message paths; the order of checks stands once, in `road.rs`.
//! Reading order: where requests go ([`Provider`]), what is put into them ([`crate::credential`]), what things cost ([`Prices`]),
//! what callers may use and used ([`Ledger`]), what one session may do and did ([`SessionRelay`]), the road of one request ([`Relay`]), and how its answer is counted (`response`, `usage`).

mod provider;

mod sign;

mod account;
mod ledger;
mod money;
mod prices;

mod exchange;
mod models;
mod session;

mod body;
mod headers;
mod refusal;
mod road;
mod route;
mod upstream;

mod response;
mod usage;

pub use account::{Allowance, Scope, Spent};
pub use exchange::{Ending, Observer, RequestRecord};
pub use ledger::{
    Clock, DailyBudgets, Keep, Ledger, LedgerConfig, LeftToday, Settled, Used, UsedBefore,
};
pub use models::{ModelList, ModelListError};
pub use money::Usd;
pub use prices::{MAX_PRICES_BYTES, Prices, PricesError};
pub use provider::{Provider, ProviderError, ProviderKind, check_base_url};
pub use road::{Relay, RelayLimits, ServeError};
pub use session::{BudgetStop, Caps, SessionConfig, SessionRelay, Usage};
pub use upstream::{Trust, TrustError};

pub(crate) use provider::is_loopback;
pub(crate) use upstream::{Pool, pool, roots};
pub use usage::{Scanner, Tokens};
