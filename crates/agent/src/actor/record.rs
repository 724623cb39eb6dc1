//! What the actor puts on record: lines as they come, and ends before they are told.

use std::io;

use model::{ExecutionId, PromptStop, PromptView};
use tokio::{sync::watch, time::Instant};

use super::Actor;
use crate::{
    conversation::Progress,
    journal::{self, Entry},
    protocol::{Event, Line},
};

impl Actor {
    /// The next read acknowledges the beginning of a line, too.
    pub(super) fn record_partial(&mut self) -> io::Result<()> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let (end, bytes) = (
            process.lines.offset(),
            process.lines.partial_from(process.recorded),
        );
        if !bytes.is_empty() {
            self.journal.add(&Entry::partial(end, bytes))?;
            process.recorded = end;
        }
        Ok(())
    }

    pub(super) fn record_line(&mut self, line: Line, event: &Event) -> io::Result<()> {
        let is_kept = match event {
            Event::Delta(_) => false,
            Event::Other | Event::Garbage | Event::Assistant { .. } | Event::ToolResults(_) => {
                !self.journal.is_full()
            }
            Event::Init { .. }
            | Event::State(_)
            | Event::Lifecycle { .. }
            | Event::Retry { .. }
            | Event::Result(_)
            | Event::Request { .. }
            | Event::Withdrawn { .. }
            | Event::Response { .. } => true,
        };
        if !is_kept {
            return Ok(());
        }
        let end = line.end;
        let line = line
            .bytes
            .filter(|_| *event != Event::Garbage)
            .and_then(|bytes| String::from_utf8(bytes).ok());
        self.journal.add(&Entry::Output { end, line })?;
        if let Some(process) = &mut self.process {
            process.recorded = end;
        }
        Ok(())
    }

    /// The journal cannot be written: what the process says cannot be kept, so it must not go on.
    pub(super) async fn give_up(&mut self, error: &io::Error) {
        self.kill_process().await;
        if self.current.is_some() {
            tracing::error!(conversation = %self.id, %error, "what Claude Code says cannot be put on record");
        }
        self.fail(PromptStop::AgentEnded, not_on_record(error));
    }

    /// A prompt has ended: that is put on record, and told.
    pub(super) fn end(
        &mut self,
        execution: ExecutionId,
        progress: &watch::Sender<Progress>,
        view: PromptView,
        stop: PromptStop,
        failure: Option<String>,
    ) {
        let mut last = progress.borrow().clone();
        last.view = view;
        last.end(stop, failure);
        let entry = Entry::Ended {
            execution,
            view: Box::new(last.view.clone()),
            failure: last.failure.clone(),
        };
        if let Err(error) = self.journal.add(&entry) {
            tracing::error!(conversation = %self.id, %error, "the end of a prompt is not in its journal");
        }
        progress.send_replace(last);
        self.idle_since = Instant::now();
    }
}

pub(super) fn not_on_record(error: &io::Error) -> String {
    match journal::is_too_long(error) {
        true => format!(
            "the conversation has said all that is kept of one ({} MiB); start a new one",
            journal::MAX_BYTES >> 20
        ),
        false => "the conversation's journal cannot be written".to_owned(),
    }
}
