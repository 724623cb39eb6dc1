//! The way out: the relay on the host that puts the provider's key into the requests of a sandbox, so that the key is
//! never inside.
//!
//! How bytes arrive is somebody else's work: [`Relay::serve`] takes any stream that is known to belong to one session.
//! What it passes is a short list of the provider's message paths; the order of checks stands once, in `relay.rs`.
//!
//! Reading order: where requests go ([`Provider`]), what is put into them ([`Credential`]), what one session may do and
//! did ([`SessionRelay`]), the road of one request ([`Relay`]), and how its answer is counted (`response`, `usage`).
//!
//! What this does not stop: whatever the provider itself does for a request (its own web tools among it), and a sandbox
//! that sends what it knows to the provider.

#![forbid(unsafe_code)]

mod provider;

mod credential;
mod sign;

mod exchange;
mod models;
mod session;

mod body;
mod headers;
mod refusal;
mod relay;
mod route;
mod upstream;

mod response;
mod usage;

pub use credential::{AwsKeys, Credential, CredentialError, TokenCommand};
pub use exchange::{Ending, Observer, RequestRecord};
pub use models::{ModelList, ModelListError};
pub use provider::{Provider, ProviderError, ProviderKind};
pub use relay::{Relay, RelayLimits, ServeError};
pub use session::{Caps, SessionConfig, SessionRelay, Usage};
pub use upstream::{Trust, TrustError};
pub use usage::{Scanner, Tokens};
