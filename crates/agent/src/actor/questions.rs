//! What Claude Code asks: permissions and questions wait for somebody, everything else is answered at once.

use model::{MAX_PERMISSION_INPUT_BYTES, PendingKind, PendingPermission, PermissionAnswer};
use serde_json::Value;
use tokio::time::Instant;

use super::{Actor, Asked, What};
use crate::{
    conversation::now_ms,
    host_tools,
    journal::Entry,
    protocol::{self, Ask},
    words,
};

/// What a denial says when no prompt has its turn.
const NOBODY_THERE: &str = "Nobody is there to be asked.";
/// What a denial says when nobody answered.
pub(super) const NOBODY: &str = "Nobody answered in time.";

impl Actor {
    /// Answers a request that belongs to no prompt: nobody waits who could be asked.
    pub(super) async fn answer_alone(&mut self, request: String, ask: &Ask) {
        let denied = PermissionAnswer::Deny(NOBODY_THERE.to_owned());
        let line = match ask {
            Ask::Permission { input, .. } => protocol::answer_permission(&request, &denied, input),
            Ask::Mcp { message, .. } => {
                let reply = match host_tools::answer(message) {
                    host_tools::Answer::Now(reply) | host_tools::Answer::Progress(_, reply) => {
                        reply
                    }
                    host_tools::Answer::Question(_) => {
                        host_tools::answered(message, Err(NOBODY_THERE))
                    }
                };
                protocol::answer_mcp(&request, &reply)
            }
            Ask::Other(_) => protocol::refuse_request(&request, "this client does not serve that"),
        };
        self.reply(request, line).await;
    }

    /// Takes a request in; what needs nobody is answered by [`Actor::answer_what_needs_nobody`].
    pub(super) fn hold(&mut self, request: String, ask: Ask) {
        let denied_at = Instant::now() + self.setup.patience.permission;
        let (kind, tool, summary, input, what) = match ask {
            Ask::Permission { tool, input, .. } => {
                let summary = words::tool(&tool, &input);
                (
                    PendingKind::Permission,
                    tool,
                    summary,
                    input.to_string(),
                    What::Permission(input),
                )
            }
            Ask::Mcp { message, .. } => {
                let summary = match host_tools::answer(&message) {
                    host_tools::Answer::Question(question) => question,
                    host_tools::Answer::Now(_) | host_tools::Answer::Progress(..) => String::new(),
                };
                let input = message["params"]["arguments"].to_string();
                (
                    PendingKind::Question,
                    "ask_caller".to_owned(),
                    summary,
                    input,
                    What::Question(message),
                )
            }
            Ask::Other(subtype) => (
                PendingKind::Question,
                subtype,
                String::new(),
                String::new(),
                What::Question(Value::Null),
            ),
        };
        let Some(current) = &mut self.current else {
            return;
        };
        let needs_nobody = match &what {
            What::Permission(_) => false,
            What::Question(message) => !is_question(message),
        };
        if !needs_nobody {
            current.turn.view_mut().pending.push(PendingPermission {
                id: request.clone(),
                kind,
                tool: words::short(&tool),
                summary: match kind {
                    PendingKind::Permission => summary,
                    PendingKind::Question => cut(&summary, MAX_PERMISSION_INPUT_BYTES),
                },
                input: cut(&input, MAX_PERMISSION_INPUT_BYTES),
                denied_at_ms: now_ms()
                    + u64::try_from(self.setup.patience.permission.as_millis()).unwrap_or(u64::MAX),
            });
            current.turn.doing("waiting for an answer");
        }
        current.asked.push(Asked {
            request,
            what,
            denied_at,
        });
        self.publish();
    }

    pub(super) async fn answer_what_needs_nobody(&mut self) {
        loop {
            let Some(current) = &mut self.current else {
                return;
            };
            let found = current.asked.iter().position(|asked| match &asked.what {
                What::Permission(_) => false,
                What::Question(message) => !is_question(message),
            });
            let Some(asked) = found.map(|index| current.asked.remove(index)) else {
                return;
            };
            let line = match &asked.what {
                What::Question(message) if !message.is_null() => {
                    match host_tools::answer(message) {
                        host_tools::Answer::Now(reply) => {
                            protocol::answer_mcp(&asked.request, &reply)
                        }
                        host_tools::Answer::Progress(said, reply) => {
                            current.turn.doing(words::short(&said));
                            protocol::answer_mcp(&asked.request, &reply)
                        }
                        host_tools::Answer::Question(_) => continue,
                    }
                }
                What::Question(_) | What::Permission(_) => {
                    protocol::refuse_request(&asked.request, "this client does not serve that")
                }
            };
            self.publish();
            self.reply(asked.request, line).await;
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
        let line = match &asked.what {
            What::Permission(input) => protocol::answer_permission(id, answer, input),
            What::Question(message) => {
                let words = match answer {
                    PermissionAnswer::Words(words) => Ok(words.as_str()),
                    PermissionAnswer::Allow => Ok("yes"),
                    PermissionAnswer::Deny(why) => Err(why.as_str()),
                };
                protocol::answer_mcp(id, &host_tools::answered(message, words))
            }
        };
        self.publish();
        self.reply(asked.request, line).await;
        true
    }

    async fn reply(&mut self, request: String, line: Vec<u8>) {
        if self.write(&line).await && self.journal.add(&Entry::Answered { request }).is_err() {
            self.give_up().await;
        }
    }
}

fn is_question(message: &Value) -> bool {
    !message.is_null() && matches!(host_tools::answer(message), host_tools::Answer::Question(_))
}

fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}
