//! A prompt from its start to its end.

use mcp::reply::{ExecutionReply, LogsReply, TranscriptKindName};
use serde_json::{Value, json};

use super::{
    Ended, Interrupts, Teller, of_prompt,
    questions::{Asked, Asking},
};
use crate::cli::{
    CliError,
    client::{Client, read},
    output::note,
};

/// How long one look at a prompt waits for its end, seconds.
const LOOK_SECONDS: u64 = 1;
/// Lines of one page of the transcript.
const PAGE_LINES: u32 = 200;

/// What a signal does to the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum OnInterrupt {
    /// It is cancelled, and its end awaited; a second signal leaves at once.
    Cancel,
    /// It goes on, and is left.
    Leave,
}

/// Follows one prompt.
pub(in crate::cli) struct Follower<'a> {
    client: &'a Client,
    session_id: String,
    execution_id: String,
    teller: Teller,
    on_interrupt: OnInterrupt,
    /// Where to read the transcript on, once the prompt has had its turn.
    cursor: Option<u64>,
    /// The transcript has told of its end.
    is_told: bool,
    asking: Asking<'a>,
    is_cancelled: bool,
}

impl<'a> Follower<'a> {
    pub(in crate::cli) fn new(
        client: &'a Client,
        session_id: &str,
        execution_id: &str,
        teller: Teller,
        on_interrupt: OnInterrupt,
    ) -> Self {
        Follower {
            client,
            session_id: session_id.to_owned(),
            execution_id: execution_id.to_owned(),
            teller,
            on_interrupt,
            cursor: None,
            is_told: false,
            asking: Asking::new(client, session_id),
            is_cancelled: false,
        }
    }

    /// To its end; `None` when it was left before.
    pub(in crate::cli) async fn follow(
        mut self,
        interrupts: &mut Interrupts,
    ) -> Result<Option<Ended>, CliError> {
        loop {
            let is_over = tokio::select! {
                ended = self.step() => ended?,
                () = interrupts.next() => {
                    if self.on_interrupt == OnInterrupt::Leave || self.is_cancelled {
                        return Ok(None);
                    }
                    self.cancel().await?;
                    None
                }
            };
            if let Some(ended) = is_over {
                let prompt = of_prompt(&ended.reply)?;
                self.teller.close(prompt.result.as_deref());
                return Ok(Some(ended));
            }
        }
    }

    /// One look. It may be given up at any point.
    async fn step(&mut self) -> Result<Option<Ended>, CliError> {
        let content = self.look(LOOK_SECONDS).await?;
        let reply: ExecutionReply = read("get_execution", content.clone())?;
        let prompt = of_prompt(&reply)?;
        self.teller.doing(&prompt.doing);
        self.tell(&prompt.conversation_id).await?;
        if reply.state.is_final() {
            return Ok(Some(Ended { content, reply }));
        }
        let asked = match prompt.pending_permissions.first() {
            Some(pending) => Some(Asked::Tool {
                execution_id: self.execution_id.clone(),
                pending: pending.clone(),
            }),
            None => self.asking.wanted_host().await?,
        };
        self.asking.step(asked, Some(&mut self.teller)).await?;
        Ok(None)
    }

    async fn look(&self, seconds: u64) -> Result<Value, CliError> {
        let call = json!({ "executionId": self.execution_id, "waitSeconds": seconds });
        self.client.call("get_execution", call).await
    }

    /// Tells what the transcript has of the prompt by now.
    async fn tell(&mut self, conversation_id: &str) -> Result<(), CliError> {
        while !self.is_told {
            let mut call = json!({
                "sessionId": self.session_id, "transcript": true, "tail": PAGE_LINES,
                "conversationId": conversation_id,
            });
            match self.cursor {
                Some(cursor) => call["cursor"] = json!(cursor),
                None => call["executionId"] = json!(self.execution_id),
            }
            let page: LogsReply = self.client.ask("get_session_logs", call).await?;
            self.cursor = page.cursor.or(self.cursor);
            for line in &page.lines {
                self.teller.line(line);
                let is_end = line.kind == Some(TranscriptKindName::Ended);
                if is_end && line.execution_id.as_deref() == Some(self.execution_id.as_str()) {
                    self.is_told = true;
                    break;
                }
            }
            if !page.truncated {
                break;
            }
        }
        Ok(())
    }

    async fn cancel(&mut self) -> Result<(), CliError> {
        self.is_cancelled = true;
        self.teller.pause();
        note("ending it");
        let call = json!({ "executionId": self.execution_id });
        match self.client.call("cancel_execution", call).await {
            Ok(_) => Ok(()),
            // It has ended meanwhile; the next look says how.
            Err(CliError::Refused(refused)) if refused.code == "execution_ended" => Ok(()),
            Err(error) => Err(error),
        }
    }
}
