//! Where a conversation stands, as its journal tells.

use std::collections::VecDeque;

use model::{ConversationId, ExecutionId, PromptOptions, Secret};

use crate::{
    Prompt,
    journal::{Entry, partial_bytes},
    protocol::{Event, Lines, parse},
    turn::Turn,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Past {
    /// Prompts that have not ended, oldest first; the one that has its turn is not among them.
    pub(crate) waiting: VecDeque<Prompt>,
    pub(crate) current: Option<PastTurn>,
    pub(crate) process: Option<PastProcess>,
    /// Cost by now, dollars.
    pub(crate) total_cost: f64,
    /// Claude Code has begun the conversation: it is resumed, not made.
    pub(crate) is_begun: bool,
}

/// The prompt that has its turn.
#[derive(Debug)]
pub(crate) struct PastTurn {
    pub(crate) prompt: Prompt,
    pub(crate) turn: Turn,
    pub(crate) is_sent: bool,
}

/// The process that was started last, if its end is not on record.
#[derive(Debug)]
pub(crate) struct PastProcess {
    pub(crate) key: ExecutionId,
    pub(crate) options: PromptOptions,
    pub(crate) lines: Lines,
    /// What it asked and was not answered.
    pub(crate) unanswered: Vec<Event>,
}

impl Past {
    pub(crate) fn read(conversation: ConversationId, entries: Vec<Entry>) -> Self {
        let mut past = Past {
            waiting: VecDeque::new(),
            current: None,
            process: None,
            total_cost: 0.0,
            is_begun: false,
        };
        for entry in entries {
            past.take(conversation, entry);
        }
        past
    }

    fn take(&mut self, conversation: ConversationId, entry: Entry) {
        match entry {
            Entry::Prompt {
                execution,
                text,
                options,
                deadline_ms,
            } => self.waiting.push_back(Prompt {
                execution,
                text: Secret::new(text),
                options,
                deadline_ms,
            }),
            Entry::Process { process, options } => {
                self.process = Some(PastProcess {
                    key: process,
                    options,
                    lines: Lines::default(),
                    unanswered: Vec::new(),
                });
            }
            Entry::Begun { execution, message } => {
                let found = self
                    .waiting
                    .iter()
                    .position(|prompt| prompt.execution == execution);
                // Begun again, where its message had not arrived.
                let again = self.current.take().map(|current| current.prompt);
                let prompt = found.and_then(|index| self.waiting.remove(index)).or(again);
                self.current = prompt.map(|prompt| PastTurn {
                    prompt,
                    turn: Turn::new(conversation, message, self.total_cost),
                    is_sent: false,
                });
            }
            Entry::Sent { .. } => {
                if let Some(current) = &mut self.current {
                    current.is_sent = true;
                }
            }
            Entry::Output { end, event } => {
                let event = event.map(|event| parse(event.to_string().as_bytes()));
                self.output(end, event.unwrap_or(Event::Other));
            }
            Entry::Partial { end, bytes } => {
                if let Some(process) = &mut self.process {
                    process.lines = Lines::at(end, partial_bytes(&bytes));
                }
            }
            Entry::Answered { request } => {
                if let Some(process) = &mut self.process {
                    process.unanswered.retain(
                        |event| !matches!(event, Event::Request { id, .. } if *id == request),
                    );
                }
            }
            Entry::Ended { execution } => {
                self.waiting.retain(|prompt| prompt.execution != execution);
                if self
                    .current
                    .as_ref()
                    .is_some_and(|current| current.prompt.execution == execution)
                {
                    self.current = None;
                }
            }
            Entry::Gone { .. } => self.process = None,
        }
    }

    fn output(&mut self, end: u64, event: Event) {
        self.is_begun |= matches!(event, Event::Init { .. });
        if let Some(current) = &mut self.current {
            current.turn.take(&event);
            self.total_cost = current.turn.total_cost();
        }
        if let Some(process) = &mut self.process {
            process.lines = Lines::at(end, Vec::new());
            if matches!(event, Event::Request { .. }) {
                process.unanswered.push(event);
            }
        }
    }
}
