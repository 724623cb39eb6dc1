//! The order of checks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use async_trait::async_trait;
use audit::{AuditError, AuditLog, Closing, Durability, Entry, Intent};
use model::{
    Action, BackendName, Call, Credentials, Outcome, Principal, Reason, Refusal, ServerInfo,
    SessionId,
};
use policy::{ExecutionVerb, Policy, SessionTimes, SessionVerb, SystemVerb};
use session::Sessions;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{facts, recorded};

/// What a door knows of the house: one way in. Doors are tested against a scripted road.
#[async_trait]
pub trait Road: Send + Sync + 'static {
    /// Carries out one call, or says why not. Dropping the future ends the wait, never the work.
    async fn handle(&self, call: Call) -> Result<Outcome, Refusal>;
}

/// Calls under way at once. Most wait for an execution and cost nothing; beyond, something runs wild.
const MAX_CALLS: usize = 1_024;

/// The road of a running server. Clones are the same road.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    audit: AuditLog,
    sessions: Sessions,
    server: ServerFacts,
    calls: Semaphore,
    closed: AtomicBool,
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
        let inner = self.0.clone();
        // A task of its own: a caller that goes away ends its wait, and the audited work is finished all the same.
        match tokio::spawn(async move { inner.handle(call).await }).await {
            Ok(answer) => answer,
            Err(error) => Err(Refusal::internal(&error)),
        }
    }
}

impl Control {
    /// The road over these parts.
    pub fn new(audit: AuditLog, sessions: Sessions, server: ServerFacts) -> Self {
        let (calls, closed) = (Semaphore::new(MAX_CALLS), AtomicBool::new(false));
        Control(Arc::new(Inner {
            audit,
            sessions,
            server,
            calls,
            closed,
        }))
    }

    /// The sessions at the end of the road.
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
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
    fn policy(&self) -> Arc<Policy> {
        self.sessions.policy()
    }

    async fn handle(&self, call: Call) -> Result<Outcome, Refusal> {
        let mut entry = self.open(&call).await?;
        let answer = self.decide_and_act(&call, &mut entry).await;
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
        answer
    }

    /// 1: the intent is durable before anything changes.
    async fn open(&self, call: &Call) -> Result<Entry, Refusal> {
        let intent = Intent {
            action: call.action.name(),
            session: recorded::session(&call.action),
            principal: principal_of(&call.credentials).name(),
            client: call.client.clone(),
            parameters: recorded::parameters(&call.action),
        };
        self.audit
            .begin(intent, durability(&call.action))
            .await
            .map_err(|error| audit_unavailable(&error))
    }

    async fn decide_and_act(&self, call: &Call, entry: &mut Entry) -> Result<Outcome, Refusal> {
        let principal = self.identify(&call.credentials)?;
        if self.closed.load(Ordering::Acquire) && principal != Principal::System {
            return Err(Refusal::new(
                Reason::ShuttingDown,
                "The server is shutting down.",
                "Try again in a moment: a new server is started on demand.",
            )
            .retry_after_ms(1_000));
        }
        let _place = self.take_place(&call.action)?;
        self.act(&principal, &call.action, entry).await
    }

    /// 2: who calls.
    fn identify(&self, credentials: &Credentials) -> Result<Principal, Refusal> {
        match principal_of(credentials) {
            Principal::LocalUser { uid, .. } if uid != self.server.uid && uid != 0 => {
                Err(Refusal::new(
                    Reason::PolicyDenied,
                    "The server serves only the user who runs it.",
                    "Start a server of your own: `claude-code-mcp` does so on demand.",
                ))
            }
            principal @ (Principal::LocalUser { .. } | Principal::System) => Ok(principal),
        }
    }

    /// 3: how many calls are under way. Ending things is never in the way of too many.
    fn take_place(&self, action: &Action) -> Result<Option<SemaphorePermit<'_>>, Refusal> {
        if durability(action) == Durability::Reserve {
            return Ok(None);
        }
        let place = self.calls.try_acquire().map_err(|_| too_many_calls())?;
        Ok(Some(place))
    }

    /// 4 and 5: the decision, and the work that it permits.
    async fn act(
        &self,
        principal: &Principal,
        action: &Action,
        entry: &mut Entry,
    ) -> Result<Outcome, Refusal> {
        match action {
            Action::CreateSession(request) => {
                // One policy for both: it may be replaced in between.
                let policy = self.policy();
                let facts = facts::for_create(&policy, request).await?;
                let permit = policy.admit_create(principal, request, facts)?;
                let id = SessionId::random().map_err(|error| Refusal::internal(&error))?;
                entry.set_session(id);
                let view = self.sessions.create(id, permit).await?;
                entry.set_session(view.id);
                Ok(Outcome::Session(Box::new(view)))
            }
            Action::ExecuteCommand(request) => {
                let owner = self.sessions.owner(request.session).await?;
                let permit = self
                    .policy()
                    .admit_command(principal, request, owner.as_deref())?;
                Ok(Outcome::Execution(Box::new(
                    self.sessions.execute(permit).await?,
                )))
            }
            Action::ExecutePrompt(request) => {
                let owner = self.sessions.owner(request.session).await?;
                let permit = self
                    .policy()
                    .admit_prompt(principal, request, owner.as_deref())?;
                Ok(Outcome::Execution(Box::new(
                    self.sessions.prompt(permit).await?,
                )))
            }
            Action::AnswerExecution {
                execution,
                question,
                answer,
                by,
            } => {
                let verb = ExecutionVerb::Answer(*by);
                let permit = self.execution(principal, verb, *execution, entry).await?;
                let answered = self.sessions.answer(permit, question, answer.clone());
                Ok(Outcome::Execution(Box::new(answered.await?)))
            }
            Action::GetExecution(request) => {
                let verb = ExecutionVerb::Read;
                let permit = self
                    .execution(principal, verb, request.execution, entry)
                    .await?;
                Ok(Outcome::Execution(Box::new(
                    self.sessions.read_execution(permit, request).await?,
                )))
            }
            Action::CancelExecution(execution) => {
                let permit = self
                    .execution(principal, ExecutionVerb::Cancel, *execution, entry)
                    .await?;
                Ok(Outcome::Execution(Box::new(
                    self.sessions.cancel(permit).await?,
                )))
            }
            Action::RespondExecution {
                execution,
                data,
                close,
            } => {
                let permit = self
                    .execution(
                        principal,
                        ExecutionVerb::Respond {
                            bytes: data.expose().len(),
                        },
                        *execution,
                        entry,
                    )
                    .await?;
                Ok(Outcome::Execution(Box::new(
                    self.sessions.respond(permit, data, *close).await?,
                )))
            }
            Action::ResizeTerminal {
                execution,
                terminal,
            } => {
                let permit = self
                    .execution(principal, ExecutionVerb::Resize, *execution, entry)
                    .await?;
                self.sessions.resize(permit, *terminal).await?;
                Ok(Outcome::Done)
            }
            Action::ListSessions { ended } => {
                let permit = self.policy().admit_listing(principal);
                let sessions = self.sessions.list(permit, *ended).await?;
                Ok(Outcome::Sessions(sessions))
            }
            Action::GetSession(session) => {
                let permit = self.session(principal, SessionVerb::Read, *session).await?;
                Ok(Outcome::Session(Box::new(self.sessions.get(permit).await?)))
            }
            Action::DestroySession(session) => {
                let permit = self
                    .session(principal, SessionVerb::Destroy, *session)
                    .await?;
                Ok(Outcome::Destroyed(self.sessions.destroy(permit).await?))
            }
            Action::GetSessionLogs { session, tail } => {
                let permit = self.session(principal, SessionVerb::Logs, *session).await?;
                let (session, lines) = self.sessions.logs(permit, *tail).await?;
                Ok(Outcome::Logs(session, lines))
            }
            Action::ReadTranscript(request) => {
                let permit = self
                    .session(principal, SessionVerb::Transcript, request.session)
                    .await?;
                let page = self.sessions.transcript(permit, *request).await?;
                Ok(Outcome::Transcript(page))
            }
            Action::TransferFiles(request) => {
                let owner = self.sessions.owner(request.session).await?;
                let project = self
                    .sessions
                    .project(request.session)
                    .await?
                    .unwrap_or_default();
                let permit =
                    self.policy()
                        .admit_transfer(principal, request, owner.as_deref(), &project)?;
                Ok(Outcome::Transferred(self.sessions.transfer(permit).await?))
            }
            Action::ExtendSession { session, by } => {
                let owner = self.sessions.owner(*session).await?;
                let now = SystemTime::now();
                let (created_at, expires_at) =
                    self.sessions.times(*session).await?.unwrap_or((now, now));
                let times = SessionTimes {
                    created_at,
                    expires_at,
                    now,
                };
                let permit = self.policy().admit_extend(
                    principal,
                    *session,
                    owner.as_deref(),
                    *by,
                    times,
                )?;
                Ok(Outcome::Session(Box::new(
                    self.sessions.extend(permit).await?,
                )))
            }
            Action::WidenNetwork(request) => {
                let owner = self.sessions.owner(request.session).await?;
                let permit = self
                    .policy()
                    .admit_widen(principal, request, owner.as_deref())?;
                Ok(Outcome::Session(Box::new(
                    self.sessions.widen(permit).await?,
                )))
            }
            Action::AnswerNetwork(request) => {
                let owner = self.sessions.owner(request.session).await?;
                let permit =
                    self.policy()
                        .admit_network_answer(principal, request, owner.as_deref())?;
                Ok(Outcome::Session(Box::new(
                    self.sessions.answer_network(permit).await?,
                )))
            }
            Action::GetServerInfo => Ok(Outcome::ServerInfo(Box::new(self.server_info().await?))),
            Action::ReapSession { session, because } => {
                let permit = self
                    .policy()
                    .admit_system(principal, SystemVerb::Reap(*session))?;
                Ok(Outcome::Destroyed(
                    self.sessions.reap(permit, *because).await?,
                ))
            }
            Action::AdoptSession(session) => {
                let permit = self
                    .policy()
                    .admit_system(principal, SystemVerb::Adopt(*session))?;
                self.sessions.adopt(permit).await?;
                Ok(Outcome::Done)
            }
            Action::RemoveRemains { session, backend } => {
                let permit = self
                    .policy()
                    .admit_system(principal, SystemVerb::RemoveRemains(*session))?;
                self.sessions.remove_remains(permit, *backend).await?;
                Ok(Outcome::Done)
            }
        }
    }

    async fn session(
        &self,
        principal: &Principal,
        verb: SessionVerb,
        session: SessionId,
    ) -> Result<policy::SessionPermit, Refusal> {
        let owner = self.sessions.owner(session).await?;
        self.policy()
            .admit_session(principal, verb, session, owner.as_deref())
    }

    async fn execution(
        &self,
        principal: &Principal,
        verb: ExecutionVerb,
        execution: model::ExecutionId,
        entry: &mut Entry,
    ) -> Result<policy::ExecutionPermit, Refusal> {
        let found = self.sessions.execution_owner(execution).await?;
        let owner = found.as_ref().map(|(_, owner)| owner.as_str());
        let permit = self
            .policy()
            .admit_execution(principal, verb, execution, owner)?;
        if let Some((session, _)) = found {
            entry.set_session(session);
        }
        Ok(permit)
    }

    fn claude_code(&self) -> String {
        match self.sessions.agent() {
            Ok(Some(agent)) => agent.description,
            Ok(None) => "none but what the root file system of sessions brings; the operator installs it with \
                `claude-code-mcp agent install`"
                .to_owned(),
            Err(refusal) => format!("{} {}", refusal.message, refusal.hint),
        }
    }

    async fn server_info(&self) -> Result<ServerInfo, Refusal> {
        let (server, policy) = (&self.server, self.policy());
        let bounds = policy.session_bounds();
        Ok(ServerInfo {
            version: server.version.clone(),
            posture: server.posture.clone(),
            backend: server.backend,
            rung: server.rung.clone(),
            runtime_classes: server.runtime_classes.clone(),
            claude_code: self.claude_code(),
            sessions: self.sessions.count().await?,
            max_sessions: bounds.max_sessions,
            default_session_timeout_seconds: bounds.default_lifetime.as_secs(),
            max_session_seconds: bounds.max_lifetime.as_secs(),
            network: policy.network_told(),
            audit_ok: self.audit.is_healthy(),
            warnings: server.warnings.clone(),
        })
    }
}

fn principal_of(credentials: &Credentials) -> Principal {
    match credentials {
        Credentials::LocalPeer { uid, roots, .. } => Principal::LocalUser {
            uid: *uid,
            roots: roots.clone(),
        },
        Credentials::System => Principal::System,
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
        | Action::RemoveRemains { .. } => Durability::Reserve,
        Action::CreateSession(_)
        | Action::ExecuteCommand(_)
        | Action::ExecutePrompt(_)
        | Action::AnswerExecution { .. }
        | Action::RespondExecution { .. }
        | Action::TransferFiles(_)
        | Action::ExtendSession { .. }
        | Action::WidenNetwork(_)
        | Action::AnswerNetwork(_) => Durability::Durable,
        Action::GetExecution(_)
        | Action::ResizeTerminal { .. }
        | Action::ListSessions { .. }
        | Action::GetSession(_)
        | Action::GetSessionLogs { .. }
        | Action::ReadTranscript(_)
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
        | Reason::PolicyDenied
        | Reason::NetworkNotAllowed
        | Reason::ProviderUnavailable
        | Reason::ConversationBusy
        | Reason::ConversationNotFound
        | Reason::QuestionNotFound
        | Reason::RateLimited
        | Reason::IdempotencyConflict
        | Reason::AuditUnavailable
        | Reason::ShuttingDown => Closing::Denied(refusal.reason),
    }
}

fn audit_unavailable(error: &AuditError) -> Refusal {
    Refusal::new(
        Reason::AuditUnavailable,
        "The audit log cannot be written, so nothing was changed.",
        "Free space where the audit log stands (MCP_AUDIT_LOG); ending sessions still works.",
    )
    .retry_after_ms(5_000)
    .with_cause(error)
}

fn too_many_calls() -> Refusal {
    Refusal::new(
        Reason::RateLimited,
        "Too many calls are under way.",
        "Wait for some of them.",
    )
    .retry_after_ms(1_000)
}
