//! The task behind a [`crate::Conversation`]: its loop, and a prompt from its beginning to its end. `questions` is what Claude
//! Code asks meanwhile, `clock` what happens by time alone, `record` what is kept.

mod clock;
mod questions;
mod record;

use std::{collections::VecDeque, io, time::Duration};

use model::{ConversationId, ExecutionId, PromptOptions, PromptStop, PromptView, Reason};
use sandbox::SupervisorError;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    actor::{questions::Asked, record::not_on_record},
    conversation::{Given, MAX_WAITING_PROMPTS, Order, Progress, Prompt, Refused, Setup, Taken},
    host_tools,
    journal::{self, Entry, Journal},
    past::Past,
    process::{Came, Process},
    protocol::{self, Ask, Event, Line},
    turn::Turn,
    turns::Operation,
    words,
};

/// How long a message that may not have arrived is waited for after a restart of the server.
const ARRIVAL: Duration = Duration::from_secs(3);
/// How often a prompt is begun before it has failed: its process may be replaced, and die idle, and be resumed against
/// expectation.
const MAX_ATTEMPTS: u32 = 4;

pub(crate) struct Actor {
    setup: Setup,
    id: ConversationId,
    journal: Journal,
    waiting: VecDeque<Waiting>,
    current: Option<Current>,
    process: Option<Process>,
    total_cost: f64,
    is_begun: bool,
    /// The next start says the opposite about whether the conversation exists.
    was_turned: bool,
    idle_since: Instant,
    /// What an earlier server left unanswered and need not wait for anybody.
    unanswered: Vec<(String, Ask)>,
    /// The process works for a prompt that is over for everybody else.
    is_astray: bool,
}

struct Waiting {
    prompt: Prompt,
    progress: watch::Sender<Progress>,
    /// That of the call that gave it, where its turn comes at once.
    operation: Option<Box<dyn Operation>>,
}

struct Current {
    prompt: Prompt,
    progress: watch::Sender<Progress>,
    turn: Turn,
    asked: Vec<Asked>,
    last_event: Instant,
    ending: Option<Ending>,
    /// When its message is sent again if it has not arrived.
    resend_at: Option<Instant>,
    /// How often it was begun.
    attempts: u32,
    /// In which it begins; `None` once it has, and before one is on record.
    operation: Option<Box<dyn Operation>>,
}

/// A prompt that is told to end.
struct Ending {
    stop: PromptStop,
    kill_at: Instant,
}

impl Actor {
    pub(crate) fn new(
        setup: Setup,
        id: ConversationId,
        journal: Journal,
        past: Past,
    ) -> (Self, Vec<(ExecutionId, watch::Receiver<Progress>)>) {
        let mut found = Vec::new();
        let mut watched = |execution| {
            let progress = watch::Sender::new(Progress::queued(id));
            found.push((execution, progress.subscribe()));
            progress
        };
        let now = Instant::now();
        let current = past.current.map(|current| Current {
            progress: watched(current.prompt.execution),
            resend_at: (!current.is_sent && !current.turn.is_received()).then(|| now + ARRIVAL),
            prompt: current.prompt,
            turn: current.turn,
            asked: Vec::new(),
            last_event: now,
            ending: None,
            attempts: 0,
            operation: None,
        });
        let waiting = past.waiting.into_iter().map(|prompt| Waiting {
            progress: watched(prompt.execution),
            prompt,
            operation: None,
        });
        let waiting = waiting.collect();
        let (mut asked, mut is_astray) = (Vec::new(), false);
        let process = past.process.map(|process| {
            (asked, is_astray) = (process.unanswered, process.is_astray);
            Process::found(
                &setup.supervisor,
                process.key,
                process.options,
                process.lines,
            )
        });
        let mut actor = Actor {
            setup,
            id,
            journal,
            waiting,
            current,
            process,
            total_cost: past.total_cost,
            is_begun: past.is_begun,
            was_turned: false,
            idle_since: now,
            unanswered: Vec::new(),
            is_astray,
        };
        for (asked_at_ms, request, ask) in asked {
            let left = actor.hold(request, ask, asked_at_ms);
            actor.unanswered.extend(left);
        }
        actor.publish();
        let ended = past.ended.into_iter();
        found.extend(ended.map(|(execution, progress)| (execution, watch::channel(progress).1)));
        (actor, found)
    }

    /// Drives until nobody holds the conversation any more.
    pub(crate) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        if self.is_astray {
            self.kill_process().await;
        }
        for (request, ask) in std::mem::take(&mut self.unanswered) {
            self.answer_at_once(request, &ask).await;
        }
        loop {
            self.begin_next().await;
            let due = self.next_due();
            let came = tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => {
                        self.obey(order).await;
                        continue;
                    }
                    None => return,
                },
                came = next_of(&mut self.process) => came,
                () = tokio::time::sleep_until(due) => {
                    self.on_time().await;
                    continue;
                }
            };
            match came {
                Came::Output(offset, data) => self.on_output(offset, &data).await,
                Came::Nothing => {}
                Came::End => self.on_end().await,
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Submit {
                prompt,
                only_if_free,
                answer,
            } => self.submit(*prompt, only_if_free, answer),
            Order::Rest => self.rest().await,
            Order::Cancel(execution) => self.end_prompt(execution, PromptStop::Interrupted).await,
            Order::Answer {
                execution,
                id,
                words,
                answer,
            } => {
                let is_current = self
                    .current
                    .as_ref()
                    .is_some_and(|current| current.prompt.execution == execution);
                let answered = is_current && self.answer(&id, &words).await;
                let _ = answer.send(answered);
            }
        }
    }

    fn submit(&mut self, prompt: Prompt, only_if_free: bool, answer: Taken) {
        if let Err(refused) = self.admit(&prompt, only_if_free) {
            // A caller that has gone away needs no refusal.
            let _ = answer.send(Err(refused));
            return;
        }
        let progress = watch::Sender::new(Progress::queued(self.id));
        let given = Given::new(answer, progress.subscribe());
        // Who must wait hears so at once; whose turn it is, when it has begun.
        let is_next = self.current.is_none() && self.waiting.is_empty();
        let operation = is_next.then(|| Box::new(given) as Box<dyn Operation>);
        self.waiting.push_back(Waiting {
            prompt,
            progress,
            operation,
        });
    }

    /// Puts a prompt on record, if there is a place for it.
    fn admit(&mut self, prompt: &Prompt, only_if_free: bool) -> Result<(), Refused> {
        if only_if_free && (self.current.is_some() || !self.waiting.is_empty()) {
            return Err(Refused::Busy);
        }
        if self.waiting.len() >= MAX_WAITING_PROMPTS {
            return Err(Refused::TooMany);
        }
        let entry = Entry::Prompt {
            execution: prompt.execution,
            text: prompt.text.expose().clone(),
            options: prompt.options.clone(),
            deadline_ms: prompt.deadline_ms,
        };
        self.journal.add(&entry).map_err(|error| {
            tracing::error!(conversation = %self.id, %error, "a prompt cannot be put on record");
            match journal::is_too_long(&error) {
                true => Refused::TooLong,
                false => Refused::Closed,
            }
        })
    }

    /// Gives the next prompt its turn, on a process that fits it.
    async fn begin_next(&mut self) {
        while self.current.is_none() {
            let Some(next) = self.waiting.pop_front() else {
                return;
            };
            self.current = Some(Current {
                turn: Turn::new(self.id, String::new(), self.total_cost),
                prompt: next.prompt,
                progress: next.progress,
                operation: next.operation,
                asked: Vec::new(),
                last_event: Instant::now(),
                ending: None,
                resend_at: None,
                attempts: 0,
            });
            self.begin().await;
        }
    }

    /// Sends the current prompt's message, to a new process where the present one does not fit. All of that lies in one audited
    /// operation: that of the call that gave the prompt, where its turn came at once, else one of its own.
    async fn begin(&mut self) {
        match self.try_to_begin().await {
            Ok(true) => {
                let current = self.current.as_mut();
                if let Some(operation) = current.and_then(|current| current.operation.take()) {
                    operation.end(Ok(()));
                }
            }
            Ok(false) => {}
            Err(why) => self.fail(PromptStop::AgentEnded, why),
        }
    }

    /// False where a process must end first: then this is called again when its output is over.
    async fn try_to_begin(&mut self) -> Result<bool, String> {
        let Some(current) = &mut self.current else {
            return Ok(false);
        };
        current.resend_at = None;
        current.attempts += 1;
        if current.operation.is_none() {
            let begun = self.setup.turns.begin(current.prompt.execution).await;
            let begun = begun.map_err(|refusal| format!("{refusal} {}", refusal.hint));
            current.operation = Some(begun?);
        }
        let options = current.prompt.options.clone();
        if let Some(process) = &mut self.process
            && (process.is_spent || process.options != options)
        {
            if process.kill_at.is_none() {
                process.finish(self.setup.patience.interrupt).await;
            }
            return Ok(false);
        }
        if self.process.is_none() {
            self.start_process(options).await?;
        }
        self.send_message().await
    }

    async fn start_process(&mut self, options: PromptOptions) -> Result<(), String> {
        let key = ExecutionId::random().map_err(|error| error.to_string())?;
        let entry = Entry::Process {
            process: key,
            options: options.clone(),
        };
        self.journal
            .add(&entry)
            .map_err(|error| not_on_record(&error))?;
        let resume = self.is_begun != self.was_turned;
        let setup = &self.setup;
        let program = &setup.program;
        let started = Process::start(
            &setup.supervisor,
            program,
            self.id,
            resume,
            key,
            options.clone(),
        )
        .await;
        match started {
            Ok(process) => self.process = Some(process),
            Err(error) => {
                tracing::warn!(conversation = %self.id, %error, "Claude Code was not started");
                let gone = Entry::Gone { process: key };
                self.journal
                    .add(&gone)
                    .map_err(|error| not_on_record(&error))?;
                return Err(not_started(&error));
            }
        }
        self.write(&protocol::initialize("initialize", &[host_tools::SERVER]))
            .await;
        Ok(())
    }

    /// Writes to the process. One that does not listen is ended, and the rest follows from its end.
    async fn write(&mut self, line: &[u8]) -> bool {
        let Some(process) = &mut self.process else {
            return false;
        };
        match process.write(line).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(conversation = %self.id, %error, "Claude Code does not listen");
                process.kill().await;
                false
            }
        }
    }

    /// False where the process does not listen, and was ended.
    async fn send_message(&mut self) -> Result<bool, String> {
        let Some(current) = &mut self.current else {
            return Ok(false);
        };
        let message = ConversationId::random().map_err(|error| error.to_string())?;
        let message = message.to_string();
        let execution = current.prompt.execution;
        current.turn = Turn::new(self.id, message.clone(), self.total_cost);
        current.turn.doing("starting");
        current.last_event = Instant::now();
        let begun = Entry::Begun {
            execution,
            message: message.clone(),
        };
        self.journal
            .add(&begun)
            .map_err(|error| not_on_record(&error))?;
        let line = protocol::user_message(&message, current.prompt.text.expose());
        self.publish();
        let is_written = self.write(&line).await;
        if is_written {
            self.journal
                .add(&Entry::Sent { execution })
                .map_err(|error| not_on_record(&error))?;
        }
        Ok(is_written)
    }

    async fn on_output(&mut self, offset: u64, data: &[u8]) {
        let Some(process) = &mut self.process else {
            return;
        };
        process.lines.skip_to(offset);
        for line in process.lines.push(data) {
            if let Err(error) = self.on_line(line).await {
                return self.give_up(&error).await;
            }
        }
        if let Err(error) = self.record_partial() {
            self.give_up(&error).await;
        }
    }

    async fn on_line(&mut self, line: Line) -> io::Result<()> {
        let event = line.bytes.as_deref().map_or(Event::Other, protocol::parse);
        self.record_line(line, &event)?;
        if matches!(event, Event::Init { .. }) {
            self.is_begun = true;
            self.was_turned = false;
        }
        let Some(current) = &mut self.current else {
            // A turn that nobody asked for: something in the background has ended.
            if let Event::Request { id, ask } = event {
                self.answer_at_once(id, &ask).await;
            }
            return Ok(());
        };
        current.last_event = Instant::now();
        let is_shown = current.turn.take(&event);
        if current.turn.is_received() {
            current.resend_at = None;
        }
        if is_shown {
            self.total_cost = current.turn.total_cost();
            self.publish();
        }
        if let Event::Request { id, ask } = event {
            self.on_request(id, ask).await;
        } else if let Event::Withdrawn { id } = event {
            self.withdraw(&id);
        }
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.turn.is_over())
        {
            self.finish().await;
        }
        Ok(())
    }

    /// Ends a prompt before its time.
    async fn end_prompt(&mut self, execution: ExecutionId, stop: PromptStop) {
        if let Some(index) = self
            .waiting
            .iter()
            .position(|waiting| waiting.prompt.execution == execution)
        {
            if let Some(waiting) = self.waiting.remove(index) {
                let view = PromptView::new(self.id);
                self.end(execution, &waiting.progress, view, stop, None);
            }
            return;
        }
        let Some(current) = &mut self.current else {
            return;
        };
        if current.prompt.execution != execution || current.ending.is_some() {
            return;
        }
        let kill_at = Instant::now() + self.setup.patience.interrupt;
        current.ending = Some(Ending { stop, kill_at });
        if self.process.is_none() {
            return self.finish().await;
        }
        self.write(&protocol::interrupt(&format!("interrupt-{execution}")))
            .await;
    }

    /// Ends the process if no prompt needs it.
    async fn rest(&mut self) {
        if self.current.is_none()
            && self.waiting.is_empty()
            && let Some(process) = &mut self.process
            && process.kill_at.is_none()
        {
            process.finish(self.setup.patience.interrupt).await;
        }
    }

    async fn kill_process(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().await;
        }
    }

    /// The process has ended.
    async fn on_end(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let ending = process.ending().await;
        let gone = Entry::Gone {
            process: process.key,
        };
        if let Err(error) = self.journal.add(&gone) {
            return self.fail(PromptStop::AgentEnded, not_on_record(&error));
        }
        tracing::debug!(conversation = %self.id, how = %ending.words, "a process of Claude Code has ended");
        let Some(current) = &mut self.current else {
            return;
        };
        if current.ending.is_some() {
            return self.finish().await;
        }
        if current.turn.is_received() {
            return self.fail(
                PromptStop::AgentEnded,
                format!(
                    "Claude Code ended in the middle: {}{}; the conversation goes on with the next prompt",
                    ending.words,
                    said(&ending.complaint)
                ),
            );
        }
        // It ended before it took the message: it was told to, or the conversation exists or does not, against expectation.
        let is_other = ["No conversation found", "already in use"]
            .iter()
            .any(|words| ending.complaint.contains(words));
        if current.attempts >= MAX_ATTEMPTS || !(is_other || process.is_told) {
            let why = format!(
                "Claude Code did not start: {}{}",
                ending.words,
                said(&ending.complaint)
            );
            return self.fail(PromptStop::AgentEnded, why);
        }
        self.was_turned ^= is_other;
        self.begin().await;
    }

    /// The current prompt's turns are over, or were ended.
    async fn finish(&mut self) {
        let Some(current) = self.current.take() else {
            return;
        };
        let own = current.turn.view().stop.clone();
        let (stop, failure) = match (current.ending, own) {
            (Some(ending), _) => {
                let failure = (ending.stop == PromptStop::Stalled)
                    .then(|| "nothing came from the model for too long".to_owned());
                (ending.stop, failure)
            }
            (None, Some(stop)) => (stop, None),
            (None, None) => (
                PromptStop::AgentEnded,
                Some("Claude Code gave no result".to_owned()),
            ),
        };
        let view = current.turn.view().clone();
        self.end(
            current.prompt.execution,
            &current.progress,
            view,
            stop,
            failure,
        );
        if let Some(process) = &mut self.process
            && process.is_spent
            && process.kill_at.is_none()
        {
            process.finish(self.setup.patience.interrupt).await;
        }
    }

    /// The current prompt has failed.
    fn fail(&mut self, stop: PromptStop, why: String) {
        let Some(current) = self.current.take() else {
            return;
        };
        let view = current.turn.view().clone();
        self.end(
            current.prompt.execution,
            &current.progress,
            view,
            stop,
            Some(why),
        );
        if let Some(operation) = current.operation {
            operation.end(Err(Reason::AgentUnavailable));
        }
    }

    fn publish(&self) {
        if let Some(current) = &self.current {
            current.progress.send_modify(|progress| {
                progress.is_queued = false;
                progress.began.get_or_insert_with(std::time::Instant::now);
                progress.view = current.turn.view().clone();
                // Not over before all of it is.
                progress.view.stop = None;
            });
        }
    }
}

async fn next_of(process: &mut Option<Process>) -> Came {
    match process {
        Some(process) => process.next().await,
        None => std::future::pending().await,
    }
}

fn not_started(error: &SupervisorError) -> String {
    let words = if matches!(error, SupervisorError::Fault(_)) {
        "Claude Code could not be started in the session; `claude-code-mcp agent install` installs it"
    } else {
        "the session did not answer when Claude Code was to be started; try again"
    };
    words.to_owned()
}

fn said(complaint: &str) -> String {
    match complaint.lines().last() {
        Some(last) if !last.is_empty() => format!(" ({})", words::short(last)),
        _ => String::new(),
    }
}
