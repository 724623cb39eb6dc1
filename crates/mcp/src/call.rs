//! One call of a tool: from its arguments to its result, whatever happens on the way.
//!
//! A cancelled request ends the wait: the future on the road is dropped, which leaves the work alone. A panic anywhere
//! below is this one call's failure.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use control::Road;
use futures::FutureExt;
use model::{
    Action, AnswerNetwork, AnsweredBy, Call, ClientInfo, Credentials, ExecutionId, Outcome,
    PermissionAnswer, Reason, Refusal, Source,
};
use rmcp::{
    ErrorData, RoleServer,
    model::{CallToolResult, JsonObject},
    service::RequestContext,
};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    http::HttpRequest,
    lines::Said,
    person::{Back, Person, Question},
    progress::Progress,
    reply::ErrorReply,
    text,
    tools::Entry,
};

/// Longest words of progress, bytes.
const MAX_TOLD_BYTES: usize = 400;
/// When a call that found too many others open is worth another try, milliseconds.
const TOO_MANY_RETRY_MS: u64 = 1000;
/// After a cancel, how long the road has to give up a shutdown's calls before they are answered for it.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(200);

/// Why an answer is of no use any more: somebody else was first, or its time is over.
const LATE: [Reason; 4] = [
    Reason::QuestionNotFound,
    Reason::ExecutionEnded,
    Reason::SessionExpired,
    Reason::SessionDestroyed,
];

/// Whoever calls, and the way to the house.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) road: Arc<dyn Road>,
    pub(crate) credentials: Credentials,
    pub(crate) source: Source,
    pub(crate) client: ClientInfo,
    /// What the line of the call said besides its arguments.
    pub(crate) said: Said,
    /// A person at the command line, as the transport says; else a program, whose model calls.
    pub(crate) is_person: bool,
    /// Whom the client can ask.
    pub(crate) person: Person,
    /// The request that the call came by, where that was one of HTTP.
    pub(crate) http: Option<Arc<HttpRequest>>,
    /// The execution that the call comes back to with answers, instead of starting one.
    pub(crate) back_to: Option<ExecutionId>,
    /// What is told of the work while the client waits; `None` where it did not ask for that.
    pub(crate) told: Option<watch::Sender<String>>,
    /// What the person said in the course of the call about what the session may reach.
    pub(crate) words: Words,
}

/// See [`Caller::words`].
#[derive(Clone, Default)]
pub(crate) struct Words(Arc<Mutex<Vec<String>>>);

impl Words {
    fn add(&self, sentence: String) {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        words.push(sentence);
    }

    /// Adds them to the message of a reply, so that its reader knows to try again, or not to.
    pub(crate) fn append_to(&self, message: &mut String) {
        for sentence in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            message.push(' ');
            message.push_str(sentence);
        }
    }
}

impl Caller {
    /// Tells what the work is about at the moment.
    pub(crate) fn tell(&self, doing: &str) {
        if let Some(told) = &self.told {
            told.send_replace(text::line(doing, MAX_TOLD_BYTES));
        }
    }

    /// Somebody listens to [`Caller::tell`].
    pub(crate) const fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// Somebody who has no disk here: paths of the host are not theirs to name.
    pub(crate) const fn is_remote(&self) -> bool {
        match self.credentials {
            Credentials::ApiKey(_) | Credentials::AccessToken(_) => true,
            Credentials::LocalPeer { .. } | Credentials::System => false,
        }
    }

    /// Takes the road.
    pub(crate) async fn ask(&self, action: Action) -> Result<Outcome, Refusal> {
        let scopes = action.scopes();
        let answer = self.take(action).await;
        if let Some(http) = &self.http {
            let lacks = |refusal: &Refusal| refusal.reason == Reason::InsufficientScope;
            http.note(scopes.filter(|_| answer.as_ref().is_err_and(lacks)));
        }
        answer
    }

    async fn take(&self, action: Action) -> Result<Outcome, Refusal> {
        let call = Call {
            credentials: self.credentials.clone(),
            client: self.client.clone(),
            source: self.source,
            action,
        };
        self.road.handle(call).await
    }

    /// Passes on what the person at the client answered. That somebody else answered first, or that it was too late, is
    /// no failure: the execution shows it.
    pub(crate) async fn answer(
        &self,
        execution: ExecutionId,
        question: &Question,
        answer: PermissionAnswer,
    ) -> Result<(), Refusal> {
        let by = AnsweredBy::Person;
        let (action, said) = match question {
            Question::Prompt(asked) => {
                let question = asked.id.clone();
                let action = Action::AnswerExecution {
                    execution,
                    question,
                    answer,
                    by,
                };
                (action, None)
            }
            Question::Network(session, asked) => {
                let allow = matches!(answer, PermissionAnswer::Allow);
                let target = asked.target.clone();
                let said = match allow {
                    true => {
                        format!("A person let the session reach {target} meanwhile: try it again.")
                    }
                    false => format!(
                        "A person said no to {target} meanwhile, which stands: do without it, and do not try it again."
                    ),
                };
                let action = Action::AnswerNetwork(AnswerNetwork {
                    session: *session,
                    target,
                    allow,
                    by,
                });
                (action, Some(said))
            }
        };
        match self.take(action).await {
            // The key or token may run what runs here and not say what it reaches: the call goes on, and its reply says so.
            Err(refusal) if refusal.reason == Reason::InsufficientScope && said.is_some() => {
                self.words.add(refusal.message);
                Ok(())
            }
            Err(refusal) if !LATE.contains(&refusal.reason) => Err(refusal),
            Err(_) => Ok(()),
            Ok(_) => {
                said.into_iter().for_each(|said| self.words.add(said));
                Ok(())
            }
        }
    }
}

/// What a call is to do.
pub(crate) struct Work {
    pub(crate) entry: &'static Entry,
    pub(crate) arguments: JsonObject,
    pub(crate) caller: Caller,
    /// It comes back with answers.
    pub(crate) back: Option<Back>,
}

impl Work {
    async fn run(mut self) -> Result<Value, Refusal> {
        if let Some(back) = self.back {
            self.caller.back_to = Some(back.execution);
            // Each is passed on whatever became of the others: the person is not asked again.
            let mut refused = None;
            for (question, answer) in back.answers {
                let passed_on = self.caller.answer(back.execution, &question, answer).await;
                // Somebody else was first, or its time was over: the call goes on, and its reply says where it stands.
                let refusal = passed_on.err();
                refused = refused.or(refusal.filter(|it| it.reason != Reason::QuestionNotFound));
            }
            if let Some(refusal) = refused {
                return Err(refusal);
            }
        }
        (self.entry.run)(self.arguments, self.caller).await
    }
}

/// Calls the tool: its reply, or a refusal. `Err` only for a request that the client itself cancelled, or whose client is
/// gone: nobody reads that answer.
pub(crate) async fn carry_out(
    mut work: Work,
    context: &RequestContext<RoleServer>,
    shutdown: &CancellationToken,
) -> Result<Result<Value, Refusal>, ErrorData> {
    let entry = work.entry;
    let mut progress = Progress::new(entry.tool.name.as_ref(), context);
    work.caller.told = progress.teller();
    let work = AssertUnwindSafe(work.run()).catch_unwind();
    tokio::pin!(work);
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut work => break answer.unwrap_or_else(|_panic| Err(panicked(entry))),
            // On a connection the shutdown cancels its requests, too.
            () = context.ct.cancelled(), if !shutdown.is_cancelled() => {
                if !shutdown.is_cancelled() {
                    return Err(ErrorData::internal_error("the request was cancelled", None));
                }
            }
            () = shutdown.cancelled() => {
                break match tokio::time::timeout(SHUTDOWN_GRACE, &mut work).await {
                    Ok(answer) => answer.unwrap_or_else(|_panic| Err(panicked(entry))),
                    Err(_elapsed) => Err(shutting_down()),
                };
            }
            () = progress.tick() => {}
        }
    };
    progress.finish().await;
    Ok(answer)
}

/// What a call came to, as its client sees it.
pub(crate) fn result(answer: Result<Value, Refusal>) -> CallToolResult {
    match answer {
        Ok(reply) => CallToolResult::structured(reply),
        Err(refusal) => refused(&refusal),
    }
}

/// A refusal as a tool result that the model can act on.
pub(crate) fn refused(refusal: &Refusal) -> CallToolResult {
    let reply = serde_json::to_value(ErrorReply::from(refusal)).unwrap_or(Value::Null);
    CallToolResult::structured_error(reply)
}

/// The refusal of one call too many on a connection.
pub(crate) fn too_many() -> Refusal {
    Refusal::new(
        Reason::RateLimited,
        "Too many calls of this client are open at once.",
        "Wait for some of them to end, then call again.",
    )
    .retry_after_ms(TOO_MANY_RETRY_MS)
}

fn shutting_down() -> Refusal {
    Refusal::new(
        Reason::ShuttingDown,
        "The server is shutting down, so it stopped waiting; what was started goes on where it can.",
        "Reconnect, then look with list_sessions and get_execution.",
    )
}

fn panicked(entry: &Entry) -> Refusal {
    internal(&format!("a call of {} panicked", entry.tool.name))
}

/// The refusal of a fault of this crate, which is logged here: the road never hears of it.
pub(crate) fn internal(detail: &str) -> Refusal {
    tracing::error!(detail, "a call failed in the MCP service");
    let mut refusal = Refusal::new(
        Reason::Internal,
        "The server failed to carry this out.",
        "Try again; the server's log says more.",
    );
    refusal.detail = Some(detail.to_owned());
    refusal
}
