//! The way out of a sandbox, as the host decides it. How bytes arrive is somebody else's work: everything here takes
//! streams that are known to belong to one session.
//!
//! Reading order: `credential` (what is put into requests, and where it comes from), the [`relay`] to model providers; where else a session may go ([`destination`]), by
//! which way it asks ([`proxy`]), and where TLS is opened ([`intercept`]).
//!
//! What this does not stop: whatever the provider itself does for a request (its own web tools among it), and a sandbox
//! that sends what it knows to a place that it may reach.

#![forbid(unsafe_code)]

mod credential;
pub mod destination;
pub mod intercept;
mod message;
pub mod proxy;
mod record;
pub mod relay;

pub use credential::{
    AwsChain, AwsKeys, AwsRole, ContainerToken, Credential, CredentialError, Form, GoogleDefault,
    Guard, HostClient, KeyFileError, Source, TokenCommand,
};
pub use record::{Recording, Ticket, Unrecorded};
pub use relay::{
    Allowance, BudgetStop, Caps, Clock, DailyBudgets, Ending, Keep, Ledger, LedgerConfig,
    LeftToday, MAX_PRICES_BYTES, ModelList, ModelListError, Observer, Prices, PricesError,
    Provider, ProviderError, ProviderKind, Relay, RelayLimits, RequestRecord, Scanner, Scope,
    ServeError, SessionConfig, SessionRelay, Settled, Spent, Tokens, Trust, TrustError, Usage, Usd,
    Used, UsedBefore, check_base_url,
};
