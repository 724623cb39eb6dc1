//! The way out of a sandbox, as the host decides it. How bytes arrive is somebody else's work: everything here takes
//! streams that are known to belong to one session.
//!
//! Reading order: the [`relay`] to model providers; where else a session may go ([`destination`]), by
//! which way it asks ([`proxy`]), and where TLS is opened ([`intercept`]).
//!
//! What this does not stop: whatever the provider itself does for a request (its own web tools among it), and a sandbox
//! that sends what it knows to a place that it may reach.

#![forbid(unsafe_code)]

pub mod destination;
pub mod intercept;
pub mod proxy;
mod record;
pub mod relay;

pub use record::{Recording, Ticket, Unrecorded};
pub use relay::{
    Allowance, AwsChain, AwsKeys, AwsRole, BudgetStop, Caps, Clock, ContainerToken, Credential,
    CredentialError, DailyBudgets, Ending, Form, GoogleDefault, Guard, HostClient, Keep,
    KeyFileError, Ledger, LedgerConfig, LeftToday, MAX_PRICES_BYTES, ModelList, ModelListError,
    Observer, Prices, PricesError, Provider, ProviderError, ProviderKind, Relay, RelayLimits,
    RequestRecord, Scanner, Scope, ServeError, SessionConfig, SessionRelay, Settled, Source, Spent,
    TokenCommand, Tokens, Trust, TrustError, Usage, Usd, Used, UsedBefore, check_base_url,
};
