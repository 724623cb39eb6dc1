//! The nouns of the product: what every other crate talks about. No IO, no async, no policy.
//!
//! Reading order: identities, what a caller asks ([`Action`]), what a sandbox must be ([`SandboxSpec`]), what is in
//! force ([`Attestation`]), what the caller gets back ([`Outcome`] or [`Refusal`]).

#![forbid(unsafe_code)]

mod action;
mod attestation;
mod docker_options;
mod ids;
mod limits;
mod network;
mod outcome;
mod principal;
mod prompt;
mod reason;
mod sandbox;
mod secret;

pub use action::{
    Action, Awaited, CommandLine, CreateSession, ExecuteCommand, GetExecution, LimitRequest,
    MountRequest, ReadTranscript, ReapCause, Terminal, TranscriptStart, TransferDirection,
    TransferFiles,
};
pub use attestation::{Attestation, Layer, LayerInForce, Requirement};
pub use docker_options::{DockerOptions, OptionValue, Unreadable};
pub use ids::{ExecutionId, IdError, OwnerId, SessionId};
pub use limits::{Enforcement, Limit, LimitInForce, LimitName, Limits};
pub use network::{
    AnswerNetwork, EgressRule, HostPattern, MAX_HOST_BYTES, NamedRule, NetworkOffer, NetworkPolicy,
    NetworkQuestion, NetworkRequest, NetworkTarget, RuleError, WidenNetwork,
};
pub use outcome::{
    BudgetLeft, BudgetScope, ExecutionState, ExecutionView, LogLine, Outcome, ProtectedChange,
    ProviderUsageView, ServerInfo, SessionState, SessionView, StreamView, TranscriptKind,
    TranscriptLine, TranscriptPage, TransferReport, UsageView,
};
pub use principal::{Call, ClientInfo, Credentials, Principal, Source, Transport};
pub use prompt::{
    AgentRequest, AnsweredBy, ConversationChoice, ConversationId, ConversationIdError,
    ExecutePrompt, MAX_CHANGED_FILES, MAX_PERMISSION_INPUT_BYTES, PendingKind, PendingPermission,
    PermissionAnswer, PermissionDenial, PromptOptions, PromptStop, PromptView, ProviderRequest,
    TokenUsage, WhenBusy,
};
pub use reason::{Reason, Refusal};
pub use sandbox::{
    AGENT_DIRECTORY, AGENT_GID, AGENT_PROGRAM_NAME, AGENT_UID, BackendName, BindMount,
    CERTIFICATES_DIRECTORY, CERTIFICATES_NAME, HOSTS, HostDirectory, Kernel,
    MANAGED_SETTINGS_DIRECTORY, MANAGED_SETTINGS_NAME, MAX_CERTIFICATES_BYTES, ProtectedPath,
    Protection, RESOLVER_CONFIGURATION, RootFileSystem, RuntimeClass, STATE_PATH,
    SUPERVISOR_DIRECTORY, SandboxSpec, TEMPORARY_PLACES, WORKSPACE_PATH,
};
pub use secret::Secret;
