//! The order of checks.

mod act;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use audit::{AuditError, AuditLog, Closing, Durability, Entry, Intent};
use model::{
    Action, BackendName, Call, Credentials, Outcome, Principal, Reason, Refusal, Scopes, Source,
};
use policy::Policy;
use session::Sessions;
use tokio::sync::oneshot;

use crate::{
    conceal::Concealer,
    identify::{self, Authenticated, Identities, TokenRights},
    keys::KeyRing,
    limit::{Caller, Limits, OpenCall},
    recorded,
    shed::Shed,
};

/// What a door knows of the house: one way in. Doors are tested against a scripted road.
#[async_trait]
pub trait Road: Send + Sync + 'static {
    /// Carries out one call, or says why not. Dropping the future ends the wait, never the work.
    async fn handle(&self, call: Call) -> Result<Outcome, Refusal>;

    /// Who that is: a door asks once for each HTTP request, before it reads the body. A failure is on the audit log.
    ///
    /// # Errors
    /// [`Reason::Unauthenticated`]; [`Reason::RateLimited`] with the time after which to try again.
    async fn authenticate(
        &self,
        credentials: &Credentials,
        source: &Source,
    ) -> Result<Authenticated, Refusal>;

    /// Whether credentials from there are looked at now. A door that checks tokens itself asks before it tells what is wrong with one.
    ///
    /// # Errors
    /// [`Reason::RateLimited`] with the time after which they are.
    fn may_authenticate(&self, _source: &Source) -> Result<(), Refusal> {
        Ok(())
    }

    /// A door has found a token to be wrong: it is on the log, and counts against its source. Gives what the door answers.
    fn authentication_failed(&self, _source: &Source, _why: &'static str) -> Refusal {
        identify::unauthenticated()
    }
}

/// Resolves when nobody waits for the call's answer any more.
type Gone = oneshot::Receiver<Infallible>;

/// The road of a running server. Clones are the same road.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) audit: AuditLog,
    pub(crate) sessions: Sessions,
    server: ServerFacts,
    pub(crate) identities: Identities,
    limits: Limits,
    shed: Shed,
    closed: AtomicBool,
}

/// What the road leads over.
pub struct Parts {
    /// The log of everything that is done.
    pub audit: AuditLog,
    /// What is at its end, and the decisions in force.
    pub sessions: Sessions,
    /// What the server is.
    pub server: ServerFacts,
    /// The keys of remote callers.
    pub keys: Arc<KeyRing>,
    /// What holders of tokens may do.
    pub tokens: TokenRights,
}

/// What the server is, decided at its start.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// Version of the program.
    pub version: String,
    /// Effective uid: only this user is served.
    pub uid: u32,
    /// Posture towards the machine.
    pub posture: String,
    /// What `auto` means.
    pub backend: BackendName,
    /// What the backend reaches here.
    pub rung: String,
    /// Runtime classes that the operator allows on an engine that is there.
    pub runtime_classes: Vec<String>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

#[async_trait]
impl Road for Control {
    async fn handle(&self, call: Call) -> Result<Outcome, Refusal> {
        // Before the log, so that a flood of strangers cannot fill it: those who are not known stand there counted.
        let principal = self
            .0
            .identities
            .identify(&call.credentials, &call.source)?;
        let inner = self.0.clone();
        let credentials = call.credentials.clone();
        // Closed when this future is dropped.
        let (_here, gone) = oneshot::channel::<Infallible>();
        // A task of its own: a caller that goes away ends its wait, and the audited work is finished all the same.
        let work = tokio::spawn(async move { inner.handle(principal, call, gone).await });
        tokio::select! {
            biased;
            answer = work => answer.unwrap_or_else(|error| Err(Refusal::internal(&error))),
            // Whose key was revoked meanwhile waits no longer.
            () = self.0.identities.gone(&credentials) => Err(identify::unauthenticated()),
        }
    }

    async fn authenticate(
        &self,
        credentials: &Credentials,
        source: &Source,
    ) -> Result<Authenticated, Refusal> {
        let principal = self.0.identities.identify(credentials, source)?;
        let scopes = principal
            .remote()
            .map_or_else(Scopes::all, |caller| caller.scopes);
        let caller = Caller::of(&principal);
        Ok(Authenticated {
            rate: self.0.limits.view(self.0.policy().callers(), &caller),
            name: caller.name,
            scopes,
        })
    }

    fn may_authenticate(&self, source: &Source) -> Result<(), Refusal> {
        self.0.identities.may_try(source)
    }

    fn authentication_failed(&self, source: &Source, why: &'static str) -> Refusal {
        self.0.identities.were_wrong(source, why)
    }
}

impl Control {
    /// The road over these parts.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            audit,
            sessions,
            server,
            keys,
            tokens,
        } = parts;
        let (limits, closed) = (Limits::default(), AtomicBool::new(false));
        let shed = Shed::new(audit.clone());
        let identities = Identities::new(audit.clone(), keys, tokens);
        Control(Arc::new(Inner {
            identities,
            audit,
            sessions,
            server,
            limits,
            shed,
            closed,
        }))
    }

    /// The sessions at the end of the road.
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// Writes which keys' time is over, each once.
    pub async fn tell_ended_keys(&self) {
        let keys = self.0.identities.keys();
        for key in keys.ended_untold() {
            identify::tell(&self.0.audit, "key.expire", key.id.to_string());
            if let Err(refusal) = keys.end_is_told(key.id).await {
                tracing::warn!(%refusal, detail = ?refusal.detail, "that a key's end is told is not on record");
            }
        }
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.0.policy()
    }

    /// From now on every call but the server's own is refused.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
    }
}

impl Inner {
    /// The decisions in force now.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.sessions.policy()
    }

    pub(crate) async fn handle(
        &self,
        principal: Principal,
        call: Call,
        gone: Gone,
    ) -> Result<Outcome, Refusal> {
        let _place = match self.limit(&principal, &call.action) {
            Ok(place) => place,
            Err(refusal) => {
                let now = self.limits.now();
                self.shed
                    .tell(principal.name(), now, || self.intent(&principal, &call));
                return Err(refusal);
            }
        };
        let mut entry = self.open(&principal, &call).await?;
        let mut answer = self
            .decide_and_act(&principal, &call, &mut entry, gone)
            .await;
        let closing = match &answer {
            Ok(_) => Closing::Ok,
            Err(refusal) => closing_of(refusal),
        };
        if let Err(refusal) = &answer
            && let Some(detail) = &refusal.detail
        {
            tracing::warn!(action = call.action.name(), code = refusal.reason.code(), %detail, "a call was refused");
        }
        if let Err(error) = entry.close(closing).await {
            // The work is done and its intent is on disk; the next start closes it as unknown.
            tracing::error!(%error, action = call.action.name(), "a result is not in the audit log");
        }
        if let Some(caller) = principal.remote() {
            let policy = self.policy();
            let concealer = Concealer::new(caller, policy.own_directories());
            match &mut answer {
                Ok(outcome) => concealer.outcome(outcome),
                Err(refusal) => concealer.refusal(refusal),
            }
        }
        answer
    }

    /// 1: how much that caller asks for. What is too much is shed before it costs anything; of a flood the first refusals are on
    /// the log one by one, the others counted. Ending things is never in the way of too many.
    fn limit(
        &self,
        principal: &Principal,
        action: &Action,
    ) -> Result<Option<OpenCall<'_>>, Refusal> {
        if *principal == Principal::System {
            return Ok(None);
        }
        let session = recorded::session(action).or_else(|| {
            let execution = recorded::execution(action)?;
            self.sessions.session_at_hand(execution)
        });
        let caller = Caller::of(principal);
        self.limits
            .admit(self.policy().callers(), &caller, action, session)
    }

    fn intent(&self, principal: &Principal, call: &Call) -> Intent {
        Intent {
            action: call.action.name(),
            session: recorded::session(&call.action),
            principal: principal.name(),
            client: call.client.clone(),
            source: call.source,
            target: recorded::target(&call.action),
            parameters: recorded::parameters(&call.action),
        }
    }

    /// 2: the intent is durable before anything changes.
    async fn open(&self, principal: &Principal, call: &Call) -> Result<Entry, Refusal> {
        let intent = self.intent(principal, call);
        self.audit
            .begin(intent, durability(&call.action))
            .await
            .map_err(|error| audit_unavailable(&error))
    }

    async fn decide_and_act(
        &self,
        principal: &Principal,
        call: &Call,
        entry: &mut Entry,
        gone: Gone,
    ) -> Result<Outcome, Refusal> {
        self.require_served(principal)?;
        if self.closed.load(Ordering::Acquire) && *principal != Principal::System {
            return Err(Refusal::new(
                Reason::ShuttingDown,
                "The server is shutting down.",
                "Try again in a moment: a new server is started on demand.",
            )
            .retry_after_ms(1_000));
        }
        self.act(principal, &call.action, entry, gone).await
    }

    /// 3: whether that caller is served at all.
    fn require_served(&self, principal: &Principal) -> Result<(), Refusal> {
        match principal {
            Principal::LocalUser { uid, .. } if *uid != self.server.uid && *uid != 0 => {
                Err(Refusal::new(
                    Reason::PolicyDenied,
                    "The server serves only the user who runs it.",
                    "Start a server of your own: `claude-code-mcp` does so on demand.",
                ))
            }
            Principal::LocalUser { .. } | Principal::Remote(_) | Principal::System => Ok(()),
        }
    }
}

/// Ending things must work when the disk is full: it is how the disk gets emptier. So must taking up what runs: nobody
/// could end it else.
const fn durability(action: &Action) -> Durability {
    match action {
        Action::CancelExecution(_)
        | Action::DestroySession(_)
        | Action::ReapSession { .. }
        | Action::AdoptSession(_)
        | Action::RevokeKey { .. }
        | Action::RemoveRemains { .. } => Durability::Reserve,
        Action::CreateSession(_)
        | Action::ExecuteCommand(_)
        | Action::ExecutePrompt(_)
        | Action::AnswerExecution { .. }
        | Action::RespondExecution { .. }
        | Action::TransferFiles(_)
        | Action::WriteFile(_)
        | Action::ExtendSession { .. }
        | Action::WidenNetwork(_)
        | Action::AnswerNetwork(_)
        | Action::CreateKey(_)
        | Action::RotateKey { .. } => Durability::Durable,
        Action::GetExecution(_)
        | Action::ResizeTerminal { .. }
        | Action::ListSessions { .. }
        | Action::GetSession(_)
        | Action::GetSessionLogs { .. }
        | Action::ReadTranscript(_)
        | Action::ReadFile(_)
        | Action::ListKeys
        | Action::GetServerInfo => Durability::Buffered,
    }
}

/// Denied: nothing was tried. Failed: it was tried.
const fn closing_of(refusal: &Refusal) -> Closing {
    match refusal.reason {
        Reason::Internal
        | Reason::SandboxUnresponsive
        | Reason::BackendUnavailable
        | Reason::EngineNotLocal
        | Reason::EngineUnfit
        | Reason::HardeningNotInForce
        | Reason::CommandNotStarted
        | Reason::SessionFailed
        | Reason::WorkspaceNotMappable
        | Reason::ImageRefused
        | Reason::ImageNotFound
        | Reason::ImageNotBuilt
        | Reason::ImageNotUnpacked
        | Reason::AgentUnavailable
        | Reason::ResolutionFailed
        | Reason::ConnectionFailed
        | Reason::TransferEntryRefused
        | Reason::StdinFull => Closing::Failed(refusal.reason),
        Reason::InvalidArgument
        | Reason::SessionNotFound
        | Reason::SessionExpired
        | Reason::SessionDestroyed
        | Reason::SessionNotReady
        | Reason::ExecutionNotFound
        | Reason::ExecutionEnded
        | Reason::StdinClosed
        | Reason::PathNotAllowed
        | Reason::PathForbidden
        | Reason::PathNotFound
        | Reason::PathUnsafe
        | Reason::PathProtected
        | Reason::TooLarge
        | Reason::LimitReached
        | Reason::LimitUnenforceable
        | Reason::Unauthenticated
        | Reason::InsufficientScope
        | Reason::KeyNotFound
        | Reason::PolicyDenied
        | Reason::NetworkNotAllowed
        | Reason::ProviderUnavailable
        | Reason::CredentialUnavailable
        | Reason::ConversationBusy
        | Reason::ConversationNotFound
        | Reason::QuestionNotFound
        | Reason::RateLimited
        | Reason::IdempotencyConflict
        | Reason::AuditUnavailable
        | Reason::ShuttingDown => Closing::Denied(refusal.reason),
    }
}

pub(crate) fn audit_unavailable(error: &AuditError) -> Refusal {
    Refusal::new(
        Reason::AuditUnavailable,
        "The audit log cannot be written, so nothing was changed.",
        "Free space where the audit log stands (MCP_AUDIT_LOG); ending sessions still works.",
    )
    .retry_after_ms(5_000)
    .with_cause(error)
}
