//! What Claude Code asks: permissions and questions wait for somebody, everything else is answered at once.

use std::time::Duration;

use model::{MAX_PERMISSION_INPUT_BYTES, PendingKind, PendingPermission, PermissionAnswer};
use serde_json::Value;
use tokio::time::Instant;

use super::Actor;
use crate::{
    conversation::{now_ms, until},
    host_tools,
    journal::Entry,
    protocol::{self, Ask},
    words,
};

/// Requests that may wait for somebody at once; Claude Code asks one after another, or as many as it runs tools side by side.
const MAX_ASKED: usize = 64;
/// Bytes of all of them: their inputs are kept, as they are part of the answer.
const MAX_ASKED_BYTES: usize = 32 * 1024 * 1024;
/// What a denial says when no prompt has its turn.
const NOBODY_THERE: &str = "Nobody is there to be asked.";
/// What a denial says when nobody answered.
pub(super) const NOBODY: &str = "Nobody answered in time.";
/// What a denial says when as many requests wait as may.
const TOO_MANY: &str = "Too many requests wait for an answer.";

/// A request of Claude Code that somebody must answer.
pub(super) struct Asked {
    pub(super) request: String,
    kind: PendingKind,
    /// The tool's input, or the message of the MCP client, JSON. As a tree it would take many times the memory.
    about: String,
    pub(super) denied_at: Instant,
}

impl Actor {
    pub(super) async fn on_request(&mut self, request: String, ask: Ask) {
        if let Some((request, ask)) = self.hold(request, ask, now_ms()) {
            self.answer_at_once(request, &ask).await;
        }
    }

    /// Takes in what somebody must answer, and gives back what [`Actor::answer_at_once`] must.
    pub(super) fn hold(
        &mut self,
        request: String,
        ask: Ask,
        asked_at_ms: u64,
    ) -> Option<(String, Ask)> {
        let patience = self.setup.patience.permission;
        let Some(current) = &mut self.current else {
            return Some((request, ask));
        };
        let (kind, tool, summary, about, input) = match &ask {
            Ask::Permission { tool, input, .. } => {
                let (summary, input) = (words::tool(tool, input), input.to_string());
                (
                    PendingKind::Permission,
                    tool.as_str(),
                    summary,
                    input.clone(),
                    input,
                )
            }
            Ask::Mcp { message, .. } => match host_tools::answer(message) {
                host_tools::Answer::Question(question) => {
                    let input = message["params"]["arguments"].to_string();
                    (
                        PendingKind::Question,
                        "ask_caller",
                        question,
                        message.to_string(),
                        input,
                    )
                }
                host_tools::Answer::Now(_) | host_tools::Answer::Progress(..) => {
                    return Some((request, ask));
                }
            },
            Ask::Other(_) => return Some((request, ask)),
        };
        let bytes: usize = current.asked.iter().map(|asked| asked.about.len()).sum();
        if current.asked.len() >= MAX_ASKED || bytes + about.len() > MAX_ASKED_BYTES {
            return Some((request, ask));
        }
        let denied_at_ms = asked_at_ms.saturating_add(milliseconds(patience));
        current.turn.view_mut().pending.push(PendingPermission {
            id: request.clone(),
            kind,
            tool: words::short(tool),
            summary: cut(&summary, MAX_PERMISSION_INPUT_BYTES),
            input: cut(&input, MAX_PERMISSION_INPUT_BYTES),
            denied_at_ms,
        });
        current.turn.doing("waiting for an answer");
        current.asked.push(Asked {
            request,
            kind,
            about,
            denied_at: Instant::now() + until(denied_at_ms).min(patience),
        });
        self.publish();
        None
    }

    /// Answers what needs nobody, and denies what nobody can be asked.
    pub(super) async fn answer_at_once(&mut self, request: String, ask: &Ask) {
        let why = match self.current {
            Some(_) => TOO_MANY,
            None => NOBODY_THERE,
        };
        let line = match ask {
            Ask::Permission { input, .. } => {
                let denied = PermissionAnswer::Deny(why.to_owned());
                protocol::answer_permission(&request, &denied, input)
            }
            Ask::Mcp { message, .. } => {
                let reply = match host_tools::answer(message) {
                    host_tools::Answer::Now(reply) => reply,
                    host_tools::Answer::Progress(said, reply) => {
                        if let Some(current) = &mut self.current {
                            current.turn.doing(words::short(&said));
                            self.publish();
                        }
                        reply
                    }
                    host_tools::Answer::Question(_) => host_tools::answered(message, Err(why)),
                };
                protocol::answer_mcp(&request, &reply)
            }
            Ask::Other(_) => protocol::refuse_request(&request, "this client does not serve that"),
        };
        self.reply(request, line).await;
    }

    /// Claude Code needs no answer to that any more.
    pub(super) fn withdraw(&mut self, id: &str) {
        if let Some(current) = &mut self.current
            && current.asked.iter().any(|asked| asked.request == id)
        {
            current.asked.retain(|asked| asked.request != id);
            let view = current.turn.view_mut();
            view.pending.retain(|pending| pending.id != id);
            current.turn.doing("going on");
            self.publish();
        }
    }

    /// Answers what waits for somebody. False when nothing waits by that name.
    pub(super) async fn answer(&mut self, id: &str, answer: &PermissionAnswer) -> bool {
        let Some(current) = &mut self.current else {
            return false;
        };
        let Some(index) = current.asked.iter().position(|asked| asked.request == id) else {
            return false;
        };
        let asked = current.asked.remove(index);
        current
            .turn
            .view_mut()
            .pending
            .retain(|pending| pending.id != id);
        current.turn.doing("going on");
        let about: Value = serde_json::from_str(&asked.about).unwrap_or_default();
        let line = match asked.kind {
            PendingKind::Permission => protocol::answer_permission(id, answer, &about),
            PendingKind::Question => {
                let words = match answer {
                    PermissionAnswer::Words(words) => Ok(words.as_str()),
                    PermissionAnswer::Allow => Ok("yes"),
                    PermissionAnswer::Deny(why) => Err(why.as_str()),
                };
                protocol::answer_mcp(id, &host_tools::answered(&about, words))
            }
        };
        self.publish();
        self.reply(asked.request, line).await;
        true
    }

    async fn reply(&mut self, request: String, line: Vec<u8>) {
        if self.write(&line).await
            && let Err(error) = self.journal.add(&Entry::Answered { request })
        {
            self.give_up(&error).await;
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}
