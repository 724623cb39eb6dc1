//! Where a conversation stands, as its journal tells.

use std::collections::{HashSet, VecDeque};

use model::{ConversationId, ExecutionId, PromptOptions, Secret};

use crate::{
    Progress, Prompt,
    journal::{Entry, partial_bytes},
    protocol::{Ask, Event, Lines, parse},
    turn::Turn,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Past {
    /// Prompts that have not ended, oldest first; the one that has its turn is not among them.
    pub(crate) waiting: VecDeque<Prompt>,
    pub(crate) current: Option<PastTurn>,
    /// Prompts that have ended, as far as somebody waits to hear how.
    pub(crate) ended: Vec<(ExecutionId, Progress)>,
    pub(crate) process: Option<PastProcess>,
    /// All processes that ever were.
    pub(crate) processes: Vec<ExecutionId>,
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
    /// What it asked and was not answered, and when, milliseconds since 1970.
    pub(crate) unanswered: Vec<(u64, String, Ask)>,
    /// It works for a prompt that is over for everybody else.
    pub(crate) is_astray: bool,
}

impl Past {
    pub(crate) const fn new() -> Self {
        Past {
            waiting: VecDeque::new(),
            current: None,
            ended: Vec::new(),
            process: None,
            processes: Vec::new(),
            total_cost: 0.0,
            is_begun: false,
        }
    }

    /// Only those prompts are open on record. What is not among them is over, even where its end could not be written here.
    pub(crate) fn keep_open(&mut self, open: &HashSet<ExecutionId>) {
        self.ended.retain(|(execution, _)| open.contains(execution));
        self.waiting
            .retain(|prompt| open.contains(&prompt.execution));
        if let Some(current) = &self.current
            && !open.contains(&current.prompt.execution)
        {
            self.current = None;
            if let Some(process) = &mut self.process {
                process.is_astray = true;
            }
        }
    }

    /// Takes the next entry. `open` are the prompts of whose end somebody waits to hear.
    pub(crate) fn take(
        &mut self,
        conversation: ConversationId,
        open: &HashSet<ExecutionId>,
        at_ms: u64,
        entry: Entry,
    ) {
        match entry {
            // The first line, of which there is one.
            Entry::Journal { .. } => {}
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
                self.processes.push(process);
                self.process = Some(PastProcess {
                    key: process,
                    options,
                    lines: Lines::default(),
                    unanswered: Vec::new(),
                    is_astray: false,
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
            Entry::Output { end, line } => {
                let event = line.map_or(Event::Other, |line| parse(line.as_bytes()));
                self.output(at_ms, end, event);
            }
            Entry::Partial { end, bytes } => {
                if let Some(process) = &mut self.process {
                    process.lines.resume(end, &partial_bytes(&bytes));
                }
            }
            Entry::Answered { request } => {
                if let Some(process) = &mut self.process {
                    process.unanswered.retain(|(_, id, _)| *id != request);
                }
            }
            Entry::Ended {
                execution,
                view,
                failure,
            } => {
                if open.contains(&execution) {
                    let ended = Progress::ended(*view, failure);
                    self.ended.push((execution, ended));
                }
                self.waiting.retain(|prompt| prompt.execution != execution);
                if self
                    .current
                    .as_ref()
                    .is_some_and(|current| current.prompt.execution == execution)
                {
                    self.current = None;
                    // What it asked is answered no more, and must not be asked in the next one's name.
                    if let Some(process) = &mut self.process {
                        process.unanswered.clear();
                    }
                }
            }
            Entry::Gone { .. } => self.process = None,
        }
    }

    fn output(&mut self, at_ms: u64, end: u64, event: Event) {
        self.is_begun |= matches!(event, Event::Init { .. });
        if let Some(current) = &mut self.current {
            current.turn.take(&event);
            self.total_cost = current.turn.total_cost();
        }
        if let Some(process) = &mut self.process {
            process.lines = Lines::at(end, Vec::new());
            if let Event::Request { id, ask } = event {
                process.unanswered.push((at_ms, id, ask));
            } else if let Event::Withdrawn { id } = event {
                process.unanswered.retain(|(_, asked, _)| *asked != id);
            }
        }
    }
}
