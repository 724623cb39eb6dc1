//! Who drives a conversation: one task that owns its process, its journal and its queue of prompts.
//!
//! ```text
//! prompt ──► queued ──► its turn: message written ──► events ──► over
//!                          │ its call is over: an operation of its own is on record first, or the prompt has failed
//!                          │ no process, or one with other options: one is started, resuming
//!                          │ cancelled, too late, stalled: interrupted, then killed
//!                          └ process gone in the middle: the prompt has failed, the conversation goes on with the next
//! ```
//! A server that was killed reads the journal and goes on where it was: the process goes on inside meanwhile.

use std::{
    collections::HashSet,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use model::{
    ConversationId, ExecutionId, PermissionAnswer, PromptOptions, PromptStop, PromptView, Reason,
    Secret,
};
use sandbox::Supervisor;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    actor::Actor,
    journal::Journal,
    past::Past,
    program::{Patience, Program},
    turns::{Operation, Turns},
};

/// Orders that may wait.
const WAITING_ORDERS: usize = 64;
/// Prompts of one conversation that may wait for their turn.
pub const MAX_WAITING_PROMPTS: usize = 16;

/// One prompt.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Its execution.
    pub execution: ExecutionId,
    /// Its words.
    pub text: Secret<String>,
    /// How it is to be done.
    pub options: PromptOptions,
    /// When it ends at the latest, milliseconds since 1970.
    pub deadline_ms: Option<u64>,
}

/// Where a prompt stands.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Its turn has not come.
    pub is_queued: bool,
    /// When its turn came, or this server took it up; `None` before, and where it ended before that.
    pub began: Option<Instant>,
    /// It has ended; `view.stop` says how.
    pub is_ended: bool,
    /// What there is to see of it.
    pub view: PromptView,
    /// Why it failed, in a sentence.
    pub failure: Option<String>,
}

/// What a conversation is driven with.
#[derive(Clone)]
pub struct Setup {
    /// The sandbox.
    pub supervisor: Supervisor,
    /// What is started in it.
    pub program: Arc<Program>,
    /// How long things may take.
    pub patience: Patience,
    /// What is on record of prompts that had to wait.
    pub turns: Arc<dyn Turns>,
}

/// A conversation as its journal tells of it. Nobody drives it yet, and its process goes on inside.
pub struct Kept {
    id: ConversationId,
    journal: Journal,
    past: Past,
}

/// A handle to one; clones drive the same one. Dropping the last one stops driving, and the process is left as it is.
#[derive(Clone)]
pub struct Conversation {
    id: ConversationId,
    orders: mpsc::Sender<Order>,
}

/// A conversation that was opened.
pub struct Opened {
    /// To drive it.
    pub conversation: Conversation,
    /// Its prompts that have not ended, and those whose end nobody has heard of.
    pub prompts: Vec<(ExecutionId, watch::Receiver<Progress>)>,
}

/// Why a prompt was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many wait already.
    #[error("too many prompts wait for their turn")]
    TooMany,
    /// Another prompt has its turn, and this one was not to wait.
    #[error("another prompt has its turn")]
    Busy,
    /// As much was said as is kept of one conversation.
    #[error("the conversation is too long")]
    TooLong,
    /// The journal cannot be written, or the conversation is over.
    #[error("the conversation cannot be continued")]
    Closed,
}

/// To who gave a prompt: whether it was taken, and how to follow it.
pub(crate) type Taken = oneshot::Sender<Result<watch::Receiver<Progress>, Refused>>;

/// The call that gave a prompt. Its caller hears that the prompt was taken when it has begun or is over: what is done for it
/// until then is part of that call's operation.
pub(crate) struct Given(Option<(Taken, watch::Receiver<Progress>)>);

pub(crate) enum Order {
    Submit {
        prompt: Box<Prompt>,
        only_if_free: bool,
        answer: Taken,
    },
    Cancel(ExecutionId),
    Rest,
    Answer {
        execution: ExecutionId,
        id: String,
        words: PermissionAnswer,
        answer: oneshot::Sender<bool>,
    },
}

impl Given {
    pub(crate) const fn new(answer: Taken, progress: watch::Receiver<Progress>) -> Self {
        Given(Some((answer, progress)))
    }
}

impl Operation for Given {
    fn end(self: Box<Self>, _how: Result<(), Reason>) {}
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Some((answer, progress)) = self.0.take() {
            // A caller that has gone away reads the result later.
            let _ = answer.send(Ok(progress));
        }
    }
}

impl Kept {
    /// Reads a journal, or makes it for a new conversation. `open` are the prompts that have not ended as far as others know:
    /// how one of them ended is told by [`Kept::drive`], and any other is over, even where its end could not be written.
    ///
    /// # Errors
    /// See [`Journal::open`].
    pub fn read(
        id: ConversationId,
        journal: &Path,
        open: &HashSet<ExecutionId>,
    ) -> io::Result<Kept> {
        let mut past = Past::new();
        let journal = Journal::open(journal, |at_ms, entry| past.take(id, open, at_ms, entry))?;
        past.keep_open(open);
        Ok(Kept { id, journal, past })
    }

    /// Executions of the sandbox that are or were its processes.
    pub fn processes(&self) -> &[ExecutionId] {
        &self.past.processes
    }

    /// The prompts that [`Kept::drive`] tells of.
    pub fn prompts(&self) -> impl Iterator<Item = ExecutionId> {
        let (past, ended) = (&self.past, self.past.ended.iter());
        let current = past.current.iter().map(|current| &current.prompt);
        let unfinished = current.chain(&past.waiting).map(|prompt| prompt.execution);
        unfinished.chain(ended.map(|(execution, _)| *execution))
    }

    /// Goes on where it stands.
    pub fn drive(self, setup: Setup) -> Opened {
        let Kept { id, journal, past } = self;
        let (orders, waiting) = mpsc::channel(WAITING_ORDERS);
        let (actor, prompts) = Actor::new(setup, id, journal, past);
        tokio::spawn(actor.run(waiting));
        Opened {
            conversation: Conversation { id, orders },
            prompts,
        }
    }
}

impl Conversation {
    /// Its id.
    pub const fn id(&self) -> ConversationId {
        self.id
    }

    /// Takes a prompt, which is on record then and, where no other is before it, has begun or failed.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn submit(
        &self,
        prompt: Prompt,
        only_if_free: bool,
    ) -> Result<watch::Receiver<Progress>, Refused> {
        let (answer, answered) = oneshot::channel();
        let order = Order::Submit {
            prompt: Box::new(prompt),
            only_if_free,
            answer,
        };
        self.orders.send(order).await.map_err(|_| Refused::Closed)?;
        answered.await.unwrap_or(Err(Refused::Closed))
    }

    /// Ends a prompt; its progress tells when.
    pub async fn cancel(&self, execution: ExecutionId) {
        // One that is over needs no cancelling.
        let _ = self.orders.send(Order::Cancel(execution)).await;
    }

    /// Ends its process if that has nothing to do, so that it takes no memory; the next prompt starts another.
    pub fn rest(&self) {
        // One that has many orders has something to do.
        let _ = self.orders.try_send(Order::Rest);
    }

    /// Answers what a prompt asks. False when it does not ask that (any more).
    pub async fn answer(&self, execution: ExecutionId, id: &str, words: PermissionAnswer) -> bool {
        let (answer, answered) = oneshot::channel();
        let order = Order::Answer {
            execution,
            id: id.to_owned(),
            words,
            answer,
        };
        self.orders.send(order).await.is_ok() && answered.await.unwrap_or(false)
    }
}

impl Progress {
    /// A prompt of which nothing is known yet.
    pub fn of(conversation: ConversationId) -> Self {
        Progress::queued(conversation)
    }

    pub(crate) fn queued(conversation: ConversationId) -> Self {
        Progress {
            is_queued: true,
            began: None,
            is_ended: false,
            view: PromptView::new(conversation),
            failure: None,
        }
    }

    /// One that ended under an earlier server.
    pub(crate) const fn ended(view: PromptView, failure: Option<String>) -> Self {
        Progress {
            is_queued: false,
            began: None,
            is_ended: true,
            view,
            failure,
        }
    }

    /// It ended without more to see.
    pub(crate) fn end(&mut self, stop: PromptStop, failure: Option<String>) {
        self.is_queued = false;
        self.is_ended = true;
        self.view.pending.clear();
        self.view.doing = match (&failure, &stop) {
            (Some(why), _) => format!("failed: {why}"),
            (None, PromptStop::Completed) => "done".to_owned(),
            (None, other) => format!("ended: {}", other.as_str()),
        };
        self.view.stop = Some(stop);
        self.failure = failure;
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// How long it is until then.
pub(crate) fn until(at_ms: u64) -> Duration {
    Duration::from_millis(at_ms.saturating_sub(now_ms()))
}
