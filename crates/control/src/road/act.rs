//! The end of the road: what each action needs decided, and what it does.

use std::time::SystemTime;

use audit::{Entry, Parameter};
use model::{Action, CallerBounds, Outcome, Principal, Refusal, ServerInfo, SessionId};
use policy::{
    ExecutionVerb, MachineFacts, PathFacts, Policy, Rate, SessionTimes, SessionVerb, SystemVerb,
};

use super::{Gone, Inner};
use crate::{facts, limit::Caller};

impl Inner {
    /// 4 and 5: the decision, and the work that it permits.
    pub(super) async fn act(
        &self,
        principal: &Principal,
        action: &Action,
        entry: &mut Entry,
        gone: Gone,
    ) -> Result<Outcome, Refusal> {
        match action {
            Action::CreateSession(request) => {
                // One policy for both: it may be replaced in between.
                let policy = self.policy();
                let facts = facts::for_create(&policy, principal, request).await?;
                if let (Some(_), PathFacts::Directory(found)) = (principal.remote(), &facts.project)
                {
                    entry.note("directory", Parameter::Path(found.path.clone()));
                }
                let permit = policy.admit_create(principal, request, facts)?;
                let id = SessionId::random().map_err(|error| Refusal::internal(&error))?;
                entry.set_session(id);
                let gone = async { drop(gone.await) };
                let view = self.sessions.create(id, permit, gone).await?;
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
                let permit = self.policy().admit_listing(principal)?;
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
            Action::WriteFile(request) => {
                let owner = self.sessions.owner(request.session).await?;
                let permit =
                    self.policy()
                        .admit_write_file(principal, request, owner.as_deref())?;
                Ok(Outcome::FileWritten(
                    self.sessions.write_file(permit, request).await?,
                ))
            }
            Action::ReadFile(request) => {
                let owner = self.sessions.owner(request.session).await?;
                let permit = self
                    .policy()
                    .admit_read_file(principal, request, owner.as_deref())?;
                Ok(Outcome::FileRead(
                    self.sessions.read_file(permit, request).await?,
                ))
            }
            Action::CreateKey(request) => self.create_key(principal, request, entry).await,
            Action::RotateKey { key, overlap } => {
                self.rotate_key(principal, *key, *overlap, entry).await
            }
            Action::RevokeKey {
                key,
                destroy_sessions,
            } => self.revoke_key(principal, *key, *destroy_sessions).await,
            Action::ListKeys => {
                let permit = self.policy().admit_key_list(principal)?;
                Ok(Outcome::Keys(self.identities.keys().list(permit)))
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
            Action::GetServerInfo => {
                self.policy().admit_server_info(principal)?;
                let info = self.server_info(principal).await?;
                Ok(Outcome::ServerInfo(Box::new(info)))
            }
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

    async fn caller_bounds(
        &self,
        policy: &Policy,
        principal: &Principal,
    ) -> Result<CallerBounds, Refusal> {
        let (allowed, caller) = (policy.callers(), Caller::of(principal));
        let bounds = policy.bounds(principal, &MachineFacts::default());
        let rate = self.limits.view(allowed, &caller);
        Ok(CallerBounds {
            sessions: self.sessions.count_of(caller.name).await?,
            max_sessions: bounds.sessions_of_caller,
            max_sessions_per_project: bounds.sessions_of_project,
            calls_per_minute: rate.map(|rate| rate.per_minute),
            creates_per_minute: allowed.rates.creates.map(Rate::per_minute),
            queue_wait_seconds: allowed.queue_wait.as_secs(),
        })
    }

    async fn server_info(&self, principal: &Principal) -> Result<ServerInfo, Refusal> {
        let (server, policy) = (&self.server, self.policy());
        let bounds = policy.session_bounds();
        // How much others use the server is not a remote caller's business.
        let sessions = match principal.remote() {
            None => self.sessions.count().await?,
            Some(_) => {
                let own = policy.admit_listing(principal)?;
                let own = self.sessions.list(own, false).await?;
                u32::try_from(own.len()).unwrap_or(u32::MAX)
            }
        };
        Ok(ServerInfo {
            version: server.version.clone(),
            posture: server.posture.clone(),
            backend: server.backend,
            rung: server.rung.clone(),
            runtime_classes: server.runtime_classes.clone(),
            claude_code: self.claude_code(),
            sessions,
            max_sessions: bounds.max_sessions,
            default_session_timeout_seconds: bounds.default_lifetime.as_secs(),
            max_session_seconds: bounds.max_lifetime.as_secs(),
            caller: self.caller_bounds(&policy, principal).await?,
            network: policy.network_told(),
            prompts_refused: self.sessions.refusal_of_prompts(),
            audit_ok: self.audit.is_healthy(),
            warnings: server.warnings.clone(),
        })
    }
}
