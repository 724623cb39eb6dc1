//! The way out of a sandbox, as the host decides it. How bytes arrive is somebody else's work: everything here takes
//! streams that are known to belong to one session.
//!
//! Reading order: the [`relay`] to model providers.
//!
//! What this does not stop: whatever the provider itself does for a request (its own web tools among it), and a sandbox
//! that sends what it knows to a place that it may reach.

#![forbid(unsafe_code)]

pub mod relay;

pub use relay::{
    AwsChain, AwsKeys, AwsRole, Caps, Credential, CredentialError, Ending, Form, GoogleDefault,
    Guard, HostClient, KeyFileError, ModelList, ModelListError, Observer, Provider, ProviderError,
    ProviderKind, Relay, RelayLimits, RequestRecord, Scanner, ServeError, SessionConfig,
    SessionRelay, Source, TokenCommand, Tokens, Trust, TrustError, Usage,
};
