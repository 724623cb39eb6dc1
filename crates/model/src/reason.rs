//! Why a call was not carried out: stable codes, one sentence for the caller, one hint on what to do next.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $code:literal,)*) => {
        /// The stable codes of refusals. A code never changes its meaning; new ones are added.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The code in replies and in the audit log.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Reason::$name => $code,)*
                }
            }
        }
    };
}

reasons! {
    /// An argument is missing, unknown, of the wrong type or out of range.
    InvalidArgument => "invalid_argument",
    /// No session of that id for this caller (also: somebody else's).
    SessionNotFound => "session_not_found",
    /// The session's lifetime or idle time ran out.
    SessionExpired => "session_expired",
    /// The session was destroyed.
    SessionDestroyed => "session_destroyed",
    /// The session failed, or its sandbox died.
    SessionFailed => "session_failed",
    /// The session is still being made, or not yet found again after a restart.
    SessionNotReady => "session_not_ready",
    /// No execution of that id for this caller.
    ExecutionNotFound => "execution_not_found",
    /// The execution has ended.
    ExecutionEnded => "execution_ended",
    /// Standard input is closed, or was never kept open.
    StdinClosed => "stdin_closed",
    /// Standard input takes no more until the program has read some.
    StdinFull => "stdin_full",
    /// The project directory is not below an allowed root.
    PathNotAllowed => "path_not_allowed",
    /// A system, credential or special path, or one that is not a directory.
    PathForbidden => "path_forbidden",
    /// The path does not exist.
    PathNotFound => "path_not_found",
    /// The path changed between decision and use, or holds a link where none is allowed.
    PathUnsafe => "path_unsafe",
    /// A path that the host would execute or trust.
    PathProtected => "path_protected",
    /// The workspace cannot be mounted so that files come back owned by their owner.
    WorkspaceNotMappable => "workspace_not_mappable",
    /// The entry of a transfer is of a kind, name or place that is not transferred.
    TransferEntryRefused => "transfer_entry_refused",
    /// More than the limits of a transfer, an argument or a reply.
    TooLarge => "too_large",
    /// As many sessions or executions as are allowed.
    LimitReached => "limit_reached",
    /// A limit was named that this machine cannot enforce.
    LimitUnenforceable => "limit_unenforceable",
    /// A protection that the profile requires is not in force.
    HardeningNotInForce => "hardening_not_in_force",
    /// Nobody that this server knows: no key or token, or one that is not valid (any more).
    Unauthenticated => "unauthenticated",
    /// The key or token may not do that.
    InsufficientScope => "insufficient_scope",
    /// No key of that id.
    KeyNotFound => "key_not_found",
    /// The policy does not allow it.
    PolicyDenied => "policy_denied",
    /// What a session would reach is not what the operator allows.
    NetworkNotAllowed => "network_not_allowed",
    /// The name of a host that a session may reach leads to no address.
    ResolutionFailed => "resolution_failed",
    /// A host that a session may reach does not take the connection.
    ConnectionFailed => "connection_failed",
    /// A credential that a session may use cannot be had where it comes from.
    CredentialUnavailable => "credential_unavailable",
    /// Too many calls.
    RateLimited => "rate_limited",
    /// The same idempotency key came with other arguments.
    IdempotencyConflict => "idempotency_conflict",
    /// The audit log cannot be written, so nothing was changed.
    AuditUnavailable => "audit_unavailable",
    /// The backend cannot work on this machine, or not now.
    BackendUnavailable => "backend_unavailable",
    /// The engine stands on another host, where no directory of this one can be mounted.
    EngineNotLocal => "engine_not_local",
    /// The engine cannot carry sessions: it is rootless, maps ids in a way that does not fit, or the server is not root.
    EngineUnfit => "engine_unfit",
    /// The image is not the pinned one, too old, or of a kind that no session can be made of.
    ImageRefused => "image_refused",
    /// There is no such image.
    ImageNotFound => "image_not_found",
    /// The image could not be built.
    ImageNotBuilt => "image_not_built",
    /// The image could not be unpacked.
    ImageNotUnpacked => "image_not_unpacked",
    /// There is no Claude Code that a session could use, or the one that is configured cannot be used.
    AgentUnavailable => "agent_unavailable",
    /// No model provider is configured that the session could use, or what was said about one cannot be used.
    ProviderUnavailable => "provider_unavailable",
    /// Another prompt has its turn in the conversation.
    ConversationBusy => "conversation_busy",
    /// No conversation of that id in the session.
    ConversationNotFound => "conversation_not_found",
    /// Nothing waits for such an answer (any more).
    QuestionNotFound => "question_not_found",
    /// The command could not be started inside.
    CommandNotStarted => "command_not_started",
    /// The sandbox did not answer in time, or broke its protocol.
    SandboxUnresponsive => "sandbox_unresponsive",
    /// The server is shutting down.
    ShuttingDown => "shutting_down",
    /// A fault of the server; the log has the details.
    Internal => "internal",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A call that was not carried out. Nothing was changed, lost or half-made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code.
    pub reason: Reason,
    /// One sentence for the caller, which may be a model: no host paths but the caller's own.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// The argument at fault, as the caller named it.
    pub field: Option<String>,
    /// When a retry makes sense, milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The chain of causes, for our log only; doors never show it.
    pub detail: Option<String>,
}

impl Refusal {
    /// A refusal with its sentence and hint.
    pub fn new(reason: Reason, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Refusal {
            reason,
            message: message.into(),
            hint: hint.into(),
            field: None,
            retry_after_ms: None,
            detail: None,
        }
    }

    /// A fault of ours: the caller learns the code, the log learns the chain.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        Refusal::new(
            Reason::Internal,
            "The server failed to carry this out.",
            "Try again; the server's log says more.",
        )
        .with_cause(error)
    }

    /// Names the argument at fault.
    #[must_use]
    pub fn in_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says when a retry makes sense.
    #[must_use]
    pub fn retry_after_ms(mut self, milliseconds: u64) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }

    /// Records the chain of causes for our log.
    #[must_use]
    pub fn with_cause(mut self, error: &dyn std::error::Error) -> Self {
        let mut chain = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
            source = cause.source();
        }
        self.detail = Some(chain);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn codes_are_unique_and_snake_case() {
        let mut codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        codes.sort_unstable();
        let count = codes.len();
        codes.dedup();
        assert_eq!(codes.len(), count);
        assert!(codes.iter().all(|code| {
            code.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        }));
    }
}
