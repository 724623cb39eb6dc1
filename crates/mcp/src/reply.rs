//! What tools return in `structuredContent`: typed, so that a client written in Rust reads exactly what was written.
//!
//! Field names are stable. A field is absent where it does not apply; none is ever `null`. Text that a sandbox had any
//! hand in is cleaned first (see the `text` module).

mod docker_options;
mod error;
mod execution;
mod keys;
mod prompt;
mod server;
mod session;

pub use docker_options::{DockerOptionsReply, UlimitReply};
pub use error::{ErrorBody, ErrorReply};
pub use execution::{
    ExecutionKind, ExecutionReply, ExecutionStateName, ProtectedChangeReply, RespondReply,
    StreamReply,
};
pub use keys::{KeyListReply, KeyReply, NewKeyReply, RevokedKeyReply};
pub use prompt::{
    DenialReply, PendingKindName, PendingReply, PromptReply, ProviderErrorReply,
    SpendingLimitReply, TokenUsageReply,
};
pub use server::ServerInfoReply;
pub use session::{
    BudgetLeftReply, DestroyReply, HardeningReply, LayerReply, LimitReply, LimitsReply,
    LogLineReply, LogsReply, NetworkReply, NetworkRuleReply, PendingNetworkReply,
    ProviderUsageReply, SessionListReply, SessionReply, SessionStateName, TranscriptKindName,
    TransferDirectionName, TransferReply, UsageReply,
};
