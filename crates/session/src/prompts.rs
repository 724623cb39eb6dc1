//! What callers do with prompts: give, watch, answer; and how prompts are found again after a restart.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use agent::{Conversation, Kept, Patience, Program, Progress, Prompt, Refused, Setup};
use egress::BudgetStop;
use model::{
    AGENT_DIRECTORY, AGENT_PROGRAM_NAME, ConversationChoice, ConversationId, ExecutionId,
    ExecutionState, ExecutionView, PermissionAnswer, PromptStop, PromptView, Reason, Refusal,
    SessionId, WhenBusy,
};
use policy::{AgentParts, ExecutionPermit, PromptParts, PromptPermit};
use serde::{Deserialize, Serialize};
use store::ExecutionRecord;
use tokio::sync::watch;

use crate::{
    execution::{End, Execution},
    live::Live,
    output::Cursors,
    providers::{Account, Chosen, RELAY_PORT, Traffic},
    refusals,
    sessions::{Inner, Sessions, lock, now_ms},
    transcripts::{journal, latest, on_record, set_latest},
};

/// Conversations of one session at once; each may hold a process of about 200 MiB.
const MAX_CONVERSATIONS: usize = 32;
/// How long a call that cancels a prompt waits for its end.
const CANCEL_PATIENCE: Duration = Duration::from_secs(12);
/// How long a call that answers a question waits until readers see that it is answered; it takes no time to speak of.
const ANSWER_SHOWS: Duration = Duration::from_secs(1);

/// What Claude Code is in a session, as it stands on record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SessionAgent {
    strict: bool,
    mcp_servers: Option<String>,
    permissions: Option<String>,
    trust_project: bool,
    patience_ms: u64,
    has_program: bool,
    pub(crate) provider: Chosen,
}

impl SessionAgent {
    pub(crate) fn new(parts: &AgentParts, has_program: bool, provider: Chosen) -> Self {
        SessionAgent {
            strict: parts.request.strict_permissions,
            mcp_servers: parts.request.mcp_servers.clone(),
            permissions: parts.permissions.clone(),
            trust_project: parts.trust_project,
            patience_ms: u64::try_from(parts.patience.as_millis()).unwrap_or(u64::MAX),
            has_program,
            provider,
        }
    }
}

/// Claude Code in a session that is at hand.
pub(crate) struct LiveAgent {
    about: SessionAgent,
    setup: Setup,
    directory: PathBuf,
    /// Its caller's credential was heard by this server.
    heard: bool,
    /// The way to its provider, if it has one.
    pub(crate) relay: Option<Arc<egress::SessionRelay>>,
    serving: Option<tokio::task::AbortHandle>,
    conversations: std::sync::Mutex<Conversations>,
}

#[derive(Default)]
struct Conversations {
    open: BTreeMap<ConversationId, Conversation>,
    latest: Option<ConversationId>,
}

/// A prompt among the executions.
pub(crate) struct PromptHandle {
    conversation: Conversation,
    pub(crate) seen: watch::Sender<Progress>,
}

impl Drop for LiveAgent {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

impl Inner {
    /// Opens the way to the provider, before anything untrusted runs where the session is new.
    pub(crate) async fn live_agent(
        &self,
        session: SessionId,
        owner: &str,
        supervisor: &sandbox::Supervisor,
        about: SessionAgent,
        asked: Option<&model::ProviderRequest>,
        traffic: Arc<dyn Traffic>,
    ) -> Result<LiveAgent, Refusal> {
        let (egress, settings) = (&self.setup.egress, self.settings());
        let connections = supervisor
            .open_relay(RELAY_PORT)
            .await
            .map_err(|error| refusals::supervisor(&error))?;
        // Not knowing what was used would be a way round the budget.
        let recorded = self
            .stored(move |store| store.session_usage(session))
            .await?;
        let account = Account {
            session,
            owner,
            used_before: crate::usage::used(&recorded),
        };
        // Without one the session does all but prompts.
        let relay =
            match settings
                .providers
                .open(&egress.ledger, &account, &about.provider, asked, traffic)
            {
                Ok(relay) => Some(relay),
                Err(refusal) => {
                    tracing::info!(%session, why = %refusal.message, "the session has no provider");
                    None
                }
            };
        let serving = relay.clone().map(|relay| egress.serve(connections, relay));
        let program = Program {
            path: match about.has_program {
                true => format!("{AGENT_DIRECTORY}/{AGENT_PROGRAM_NAME}"),
                false => AGENT_PROGRAM_NAME.to_owned(),
            },
            env: settings.providers.environment(&about.provider),
            strict: about.strict,
            mcp_servers: object(about.mcp_servers.as_deref()),
            permissions: serde_json::Value::Object(object(about.permissions.as_deref())),
            trust_project: about.trust_project,
        };
        let patience = Patience {
            permission: Duration::from_millis(about.patience_ms),
            ..Patience::default()
        };
        Ok(LiveAgent {
            setup: Setup {
                supervisor: supervisor.clone(),
                program: Arc::new(program),
                patience,
                turns: self.setup.turns.of(session, owner),
            },
            about,
            directory: self.setup.transcripts.join(session.to_string()),
            heard: asked.is_some(),
            relay,
            serving,
            conversations: std::sync::Mutex::default(),
        })
    }

    /// Goes on with the conversations of an earlier server. Nothing in it fails: what was begun cannot be begun again.
    pub(crate) fn adopt_conversations(self: &Arc<Self>, live: &Arc<Live>, kept: Vec<Kept>) {
        for kept in kept {
            let opened = kept.drive(live.agent.setup.clone());
            for (execution, progress) in opened.prompts {
                let execution =
                    Execution::of_prompt(execution, live, handle(&opened.conversation, &progress));
                live.enter(&execution, u32::MAX);
                self.insert_execution(execution.clone());
                tokio::spawn(self.clone().follow(live.clone(), execution, progress));
            }
            live.agent.keep(opened.conversation);
        }
        lock(&live.agent.conversations).latest = latest(&live.agent.directory);
    }

    /// Removes what was said in sessions that are not on record any more.
    pub(crate) async fn remove_transcripts(&self) -> Result<(), Refusal> {
        let directory = self.setup.transcripts.clone();
        self.stored(move |store| {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let session = entry.file_name().to_str().and_then(|name| name.parse().ok());
                let Some(session) = session else { continue };
                if store.session(session)?.is_none()
                    && let Err(error) = std::fs::remove_dir_all(entry.path())
                {
                    tracing::error!(%session, %error, "the transcripts of a forgotten session are left");
                }
            }
            Ok(())
        })
        .await
    }

    /// Gives a conversation a prompt, which is on record and followed then; or it is not, and nothing is left of it.
    async fn give(
        self: &Arc<Self>,
        live: &Arc<Live>,
        conversation: &Conversation,
        parts: PromptParts,
    ) -> Result<Arc<Execution>, Refusal> {
        let id = ExecutionId::random().map_err(|error| Refusal::internal(&error))?;
        let (_, unseen) = watch::channel(Progress::of(conversation.id()));
        let execution = Execution::of_prompt(id, live, handle(conversation, &unseen));
        if !live.enter(&execution, parts.max_running_executions) {
            return Err(refusals::too_many_executions(parts.max_running_executions));
        }
        let deadline_ms = u64::try_from(parts.deadline.as_millis()).unwrap_or(u64::MAX);
        let record = prompt_record(id, live.id, deadline_ms);
        if let Err(refusal) = self
            .stored(move |store| store.insert_execution(&record))
            .await
        {
            live.leave(id);
            return Err(refusal);
        }
        let prompt = Prompt {
            execution: id,
            text: parts.prompt,
            options: parts.options,
            deadline_ms: Some(now_ms().saturating_add(deadline_ms)),
        };
        let only_if_free = parts.when_busy == WhenBusy::Refuse;
        match conversation.submit(prompt, only_if_free).await {
            Ok(progress) => {
                self.insert_execution(execution.clone());
                let following = self
                    .clone()
                    .follow(live.clone(), execution.clone(), progress);
                tokio::spawn(following);
                Ok(execution)
            }
            Err(refused) => {
                live.leave(id);
                let refusal = not_taken(refused);
                self.record_end(id, &End::failed(&refusal.message, 0)).await;
                Err(refusal)
            }
        }
    }

    /// Follows a prompt to its end and puts that on record.
    async fn follow(
        self: Arc<Self>,
        live: Arc<Live>,
        execution: Arc<Execution>,
        mut progress: watch::Receiver<Progress>,
    ) {
        let Some(prompt) = &execution.prompt else {
            return;
        };
        let last = loop {
            let mut now = progress.borrow_and_update().clone();
            if let Some(began) = now.began.filter(|_| now.is_ended) {
                let stopped = live
                    .agent
                    .relay
                    .as_ref()
                    .and_then(|relay| relay.last_stop());
                name_the_budget(&mut now.view, stopped, began);
            }
            prompt.seen.send_replace(now.clone());
            if now.is_ended {
                break now;
            }
            if progress.changed().await.is_err() {
                let mut lost = now;
                lost.failure = Some("its session ended".to_owned());
                lost.view.stop = Some(PromptStop::AgentEnded);
                break lost;
            }
        };
        let (oom_kills, mut changes) =
            tokio::join!(self.oom_kills(live.id, live.backend), live.scan());
        if changes.incomplete {
            changes.changes.push(crate::watch::incomplete_scan());
        }
        let mut end = End::of_prompt(last, execution.duration_ms(), changes.changes);
        end.oom_killed = live.oom_kills_grew(oom_kills);
        self.settle(&live, &execution, end).await;
    }
}

impl LiveAgent {
    /// How long a person is waited for.
    pub(crate) const fn patience(&self) -> Duration {
        self.setup.patience.permission
    }

    /// The conversations of an earlier server, with what became of the prompts that are open on record. Reads all journals,
    /// which may be long. One that cannot be read is left as it is.
    pub(crate) fn kept(&self, session: SessionId, open: &HashSet<ExecutionId>) -> Vec<Kept> {
        let read = |id| {
            let kept = Kept::read(id, &journal(&self.directory, id), open);
            kept.inspect_err(|error| tracing::error!(%session, conversation = %id, %error, "a conversation cannot be taken up")).ok()
        };
        on_record(&self.directory)
            .into_iter()
            .filter_map(read)
            .collect()
    }

    fn make(&self, id: ConversationId) -> std::io::Result<Conversation> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        let kept = Kept::read(id, &journal(&self.directory, id), &HashSet::new())?;
        Ok(kept.drive(self.setup.clone()).conversation)
    }

    fn keep(&self, conversation: Conversation) {
        let mut conversations = lock(&self.conversations);
        conversations.open.insert(conversation.id(), conversation);
    }

    /// A conversation took a prompt: it is the latest, here and after a restart.
    fn prefer(&self, id: ConversationId) {
        let mut conversations = lock(&self.conversations);
        conversations.latest = Some(id);
        if let Err(error) = set_latest(&self.directory, id) {
            tracing::error!(conversation = %id, %error, "which conversation is the latest is not on record");
        }
    }

    /// A conversation that was made for a prompt did not get it, so it never was.
    fn discard(&self, id: ConversationId) {
        lock(&self.conversations).open.remove(&id);
        if let Err(error) = std::fs::remove_file(journal(&self.directory, id)) {
            tracing::error!(conversation = %id, %error, "the journal of a conversation that never was is left");
        }
    }

    /// Conversations that have nothing to do give their memory back.
    fn let_others_rest(&self, busy: ConversationId) {
        let conversations = lock(&self.conversations);
        let others = conversations.open.values();
        for other in others.filter(|other| other.id() != busy) {
            other.rest();
        }
    }

    /// The conversation for a prompt, and whether it was made for it.
    fn choose(&self, choice: ConversationChoice) -> Result<(Conversation, bool), Refusal> {
        let mut conversations = lock(&self.conversations);
        let wanted = match choice {
            ConversationChoice::Latest => conversations.latest,
            ConversationChoice::New => None,
            ConversationChoice::Named(id) => Some(id),
        };
        if let Some(id) = wanted {
            let found = conversations.open.get(&id).cloned();
            return found
                .map(|found| (found, false))
                .ok_or_else(refusals::conversation_not_found);
        }
        if conversations.open.len() >= MAX_CONVERSATIONS {
            return Err(Refusal::new(
                Reason::LimitReached,
                format!("The session has {MAX_CONVERSATIONS} conversations, as many as may."),
                "Go on with one of them, or create another session.",
            ));
        }
        let id = ConversationId::random().map_err(|error| Refusal::internal(&error))?;
        let made = self.make(id).map_err(|error| Refusal::internal(&error))?;
        conversations.open.insert(id, made.clone());
        Ok((made, true))
    }
}

impl Sessions {
    /// Gives Claude Code something to do, and waits for its end, or for a question, as long as the permit says.
    ///
    /// # Errors
    /// When the session does not work, no provider is configured, or the conversation cannot take it.
    pub async fn prompt(&self, permit: PromptPermit) -> Result<ExecutionView, Refusal> {
        let parts = permit.into_parts();
        let live = self.0.ready(parts.session).await?;
        let agent = &live.agent;
        self.0
            .settings()
            .providers
            .require_credential(&agent.about.provider, agent.heard)?;
        let wait = parts.wait;
        let (conversation, is_new) = agent.choose(parts.conversation)?;
        let given = self.0.give(&live, &conversation, parts).await;
        let execution = given.inspect_err(|_| {
            if is_new {
                agent.discard(conversation.id());
            }
        })?;
        agent.prefer(conversation.id());
        agent.let_others_rest(conversation.id());
        execution.ended_or_asking(wait).await;
        Ok(self.0.execution_view(&execution, Cursors::tail()).await)
    }

    /// Why prompts would be refused in a new session that brings no credential of its own.
    pub fn refusal_of_prompts(&self) -> Option<Refusal> {
        let settings = self.0.settings();
        settings.providers.require_default_credential().err()
    }

    /// Answers what Claude Code asks in a prompt.
    ///
    /// # Errors
    /// `question_not_found`, `execution_ended`, or why the session is not at hand.
    pub async fn answer(
        &self,
        permit: ExecutionPermit,
        question: &str,
        answer: PermissionAnswer,
    ) -> Result<ExecutionView, Refusal> {
        let (id, _) = permit.into_parts();
        let execution = self.0.running_execution(id).await?;
        let Some(prompt) = &execution.prompt else {
            return Err(question_not_found());
        };
        let was_open = prompt.conversation.answer(id, question, answer).await;
        // Whoever reads next must not find the question open still, and have somebody asked again.
        execution.answered(question, ANSWER_SHOWS).await;
        if !was_open {
            return Err(question_not_found());
        }
        if let Some(live) = self.0.live(execution.session) {
            live.touch();
        }
        Ok(self.0.execution_view(&execution, Cursors::tail()).await)
    }
}

impl PromptHandle {
    /// Ends the prompt.
    pub(crate) async fn cancel(&self, execution: &Execution) {
        self.conversation.cancel(execution.id).await;
        execution.ended_within(CANCEL_PATIENCE).await;
    }
}

impl Execution {
    /// Waits for its end or for a question that somebody must answer, at most that long.
    pub(crate) async fn ended_or_asking(&self, wait: Duration) {
        self.ended_or(wait, |now| !now.pending.is_empty()).await;
    }

    /// Waits until a prompt does something else, asks, or has ended, at most that long.
    pub(crate) async fn progressed(&self, wait: Duration) {
        let before = self
            .prompt
            .as_ref()
            .map(|prompt| prompt.seen.borrow().view.doing.clone())
            .unwrap_or_default();
        self.ended_or(wait, |now| now.doing != before || !now.pending.is_empty())
            .await;
    }

    /// Waits until nobody waits for the answer to that question, or the prompt has ended, at most that long.
    pub(crate) async fn answered(&self, question: &str, wait: Duration) {
        let is_open = |now: &PromptView| now.pending.iter().any(|asked| asked.id == question);
        self.ended_or(wait, |now| !is_open(now)).await;
    }

    async fn ended_or(&self, wait: Duration, reached: impl Fn(&PromptView) -> bool) {
        let Some(prompt) = &self.prompt else {
            return self.ended_within(wait).await;
        };
        let mut seen = prompt.seen.subscribe();
        let reached = async {
            let reached = seen.wait_for(|progress| reached(&progress.view));
            let is_over = reached.await.is_err();
            if is_over {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.ended_within(wait) => {}
            () = reached => {}
        }
    }
}

/// Claude Code takes the word of a budget for one of the provider's. The relay knows better: `stopped` is what it said last,
/// `began` when the prompt's turn did: what stopped the one before it in the queue is not its end.
fn name_the_budget(view: &mut PromptView, stopped: Option<BudgetStop>, began: std::time::Instant) {
    let is_candidate = matches!(
        view.stop,
        Some(PromptStop::Provider {
            status: None | Some(429),
            ..
        })
    );
    if let Some(stop) = stopped.filter(|stop| is_candidate && stop.at >= began) {
        view.stop = Some(PromptStop::SpendingLimit {
            code: stop.rule.to_owned(),
            why: stop.sentence,
        });
    }
}

fn handle(conversation: &Conversation, progress: &watch::Receiver<Progress>) -> PromptHandle {
    PromptHandle {
        conversation: conversation.clone(),
        seen: watch::Sender::new(progress.borrow().clone()),
    }
}

fn prompt_record(id: ExecutionId, session: SessionId, timeout_ms: u64) -> ExecutionRecord {
    ExecutionRecord {
        id,
        session,
        state: ExecutionState::Running,
        started_at_ms: now_ms(),
        ended_at_ms: None,
        timeout_ms: Some(timeout_ms),
        exit_code: None,
        signal: None,
        oom_killed: false,
        duration_ms: 0,
        failure: None,
        protected_changes: None,
        prompt: None,
    }
}

fn object(json: Option<&str>) -> serde_json::Map<String, serde_json::Value> {
    json.and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default()
}

fn question_not_found() -> Refusal {
    Refusal::new(
        Reason::QuestionNotFound,
        "Nothing waits for that answer; it may have been answered or denied meanwhile.",
        "Look at pendingPermissions of get_execution.",
    )
    .in_field("permissionId")
}

fn not_taken(refused: Refused) -> Refusal {
    match refused {
        Refused::Busy => Refusal::new(
            Reason::ConversationBusy,
            "Another prompt has its turn in the conversation.",
            "Wait for its end with get_execution, let this one wait its turn (whenBusy: queue), or start a new conversation.",
        )
        .retry_after_ms(5_000),
        Refused::TooMany => Refusal::new(
            Reason::LimitReached,
            "Too many prompts wait for their turn in the conversation.",
            "Wait for some of them.",
        )
        .retry_after_ms(5_000),
        Refused::TooLong => Refusal::new(
            Reason::LimitReached,
            "The conversation has said all that is kept of one.",
            "Start a new conversation.",
        ),
        Refused::Closed => Refusal::new(
            Reason::Internal,
            "The conversation cannot be continued.",
            "Start a new conversation; the server's log says more.",
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_the_relay_caused_while_the_prompt_ran_is_named_for_what_it_is() {
        let began = std::time::Instant::now();
        let at = |at| BudgetStop {
            at,
            rule: "max_usd_per_session",
            sentence: "this session has spent it".to_owned(),
        };
        let provider = |status| PromptStop::Provider {
            kind: "rate_limit".to_owned(),
            status,
        };
        let limit = PromptStop::SpendingLimit {
            code: "max_usd_per_session".to_owned(),
            why: "this session has spent it".to_owned(),
        };
        let earlier = began.checked_sub(Duration::from_millis(1));
        for (stop, stopped, expected) in [
            (provider(Some(429)), Some(at(began)), limit.clone()),
            (provider(None), Some(at(began)), limit),
            (provider(Some(429)), None, provider(Some(429))),
            (provider(Some(429)), earlier.map(at), provider(Some(429))),
            (provider(Some(529)), Some(at(began)), provider(Some(529))),
            (
                PromptStop::Completed,
                Some(at(began)),
                PromptStop::Completed,
            ),
        ] {
            let mut view = PromptView::new(ConversationId::random().unwrap());
            view.stop = Some(stop);
            name_the_budget(&mut view, stopped, began);
            assert_eq!(view.stop, Some(expected));
        }
    }
}
