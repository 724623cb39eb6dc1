//! What Claude Code asks and what a session wants to reach: shown, and on a terminal answered.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, IsTerminal, Write},
    time::Duration,
};

use mcp::reply::{PendingKindName, PendingNetworkReply, PendingReply, RespondReply, SessionReply};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Teller;
use crate::cli::{CliError, client::Client, output::note};

/// Longest input of a tool that is shown before a decision, characters; `session approve` shows all of it.
const MAX_SHOWN_CHARACTERS: usize = 600;

/// How long one step waits for a line, and the pause between looks while somebody is asked something.
const ASKING_PAUSE: Duration = Duration::from_millis(400);

/// A question for a person.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) enum Asked {
    /// By Claude Code.
    Tool {
        /// Its prompt.
        execution_id: String,
        /// What it asks.
        pending: PendingReply,
    },
    /// The session was refused a host, and a person may allow it.
    Host(PendingNetworkReply),
}

/// Puts the questions of one session to whoever sits at the terminal, one at a time; elsewhere it says how to answer them.
pub(in crate::cli) struct Asking<'a> {
    client: &'a Client,
    session_id: String,
    person: Person,
    /// What this process has answered or told of.
    done: BTreeSet<String>,
    /// What stands on the terminal.
    open: Option<Asked>,
}

impl<'a> Asking<'a> {
    pub(in crate::cli) fn new(client: &'a Client, session_id: &str) -> Self {
        Asking {
            client,
            session_id: session_id.to_owned(),
            person: Person::new(),
            done: BTreeSet::new(),
            open: None,
        }
    }

    /// The oldest host that the session wants to reach and that was not spoken of here.
    pub(in crate::cli) async fn wanted_host(&self) -> Result<Option<Asked>, CliError> {
        let call = json!({ "sessionId": self.session_id });
        let session: Result<SessionReply, CliError> = self.client.ask("get_session", call).await;
        let session = match session {
            Ok(session) => session,
            // Its end is told by what is followed.
            Err(CliError::Refused(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let hosts = session.pending_network_requests.into_iter();
        let mut hosts = hosts.map(Asked::Host);
        Ok(hosts.find(|asked| !self.done.contains(&asked.id())))
    }

    /// One step with what is asked by now; it may be given up at any point. `teller`: what else writes on the terminal.
    pub(in crate::cli) async fn step(
        &mut self,
        asked: Option<Asked>,
        mut teller: Option<&mut Teller>,
    ) -> Result<(), CliError> {
        let Some(asked) = asked else {
            if self.open.take().is_some() {
                note("it was answered elsewhere, or nobody waits for it any more");
                if let Some(teller) = &mut teller {
                    teller.resume();
                }
            }
            return Ok(());
        };
        let is_new = !self.done.contains(&asked.id());
        if is_new && Person::is_there() {
            return self.ask(&asked, teller).await;
        }
        if is_new {
            self.done.insert(asked.id());
            note(&asked.describe());
            note(&asked.elsewhere(&self.session_id));
        }
        tokio::time::sleep(ASKING_PAUSE).await;
        Ok(())
    }

    async fn ask(
        &mut self,
        asked: &Asked,
        mut teller: Option<&mut Teller>,
    ) -> Result<(), CliError> {
        if self
            .open
            .as_ref()
            .is_none_or(|open| open.id() != asked.id())
        {
            if let Some(teller) = &mut teller {
                teller.pause();
            }
            self.person.forget_typed();
            asked.put();
            self.open = Some(asked.clone());
        }
        let line = tokio::select! {
            line = self.person.line() => line,
            () = tokio::time::sleep(ASKING_PAUSE) => return Ok(()),
        };
        self.open = None;
        let Typed::Answer(words) = asked.typed(&line) else {
            return Ok(());
        };
        self.done.insert(asked.id());
        match asked.answer(self.client, &self.session_id, words).await {
            Ok(()) => {}
            Err(CliError::Refused(refused)) => note(&refused.message),
            Err(error) => return Err(error),
        }
        if let Some(teller) = &mut teller {
            teller.resume();
        }
        Ok(())
    }
}

impl Asked {
    fn id(&self) -> String {
        match self {
            Asked::Tool { pending, .. } => pending.permission_id.clone(),
            Asked::Host(pending) => target(pending),
        }
    }

    fn describe(&self) -> String {
        match self {
            Asked::Tool { pending, .. } => describe(pending),
            Asked::Host(pending) => format!(
                "the session wants to reach {}, which its rules do not allow and the operator's would\n  denied when \
                 nobody has answered by {}",
                target(pending),
                pending.denied_at
            ),
        }
    }

    /// How it can be answered where there is no terminal.
    fn elsewhere(&self, session_id: &str) -> String {
        match self {
            Asked::Tool { pending, .. } => format!(
                "answer it with: claude-code-mcp session approve {session_id} {} --yes (or --no)",
                pending.permission_id
            ),
            Asked::Host(pending) => format!(
                "answer it with: claude-code-mcp session allow {session_id} {} (or session deny)",
                target(pending)
            ),
        }
    }

    /// Shows it to the person at the terminal.
    fn put(&self) {
        let asked = match self {
            Asked::Host(_) => "Allow it for this session? [y/n] ",
            Asked::Tool { pending, .. } => match pending.kind {
                PendingKindName::Permission => "Allow it? [y/n] ",
                PendingKindName::Question => "Your answer: ",
            },
        };
        let mut out = io::stderr();
        // Nobody to ask when standard error is closed.
        let _ = write!(out, "\n{}\n{asked}", self.describe());
        let _ = out.flush();
    }

    /// Reads an answer to it.
    fn typed(&self, line: &str) -> Typed {
        match self {
            Asked::Tool { pending, .. } => typed(pending.kind, line),
            Asked::Host(_) => typed(PendingKindName::Permission, line),
        }
    }

    async fn answer(
        &self,
        client: &Client,
        session_id: &str,
        words: Value,
    ) -> Result<(), CliError> {
        match self {
            Asked::Tool {
                execution_id,
                pending,
            } => answer(client, execution_id, &pending.permission_id, words)
                .await
                .map(drop),
            Asked::Host(pending) => {
                let target = target(pending);
                let (tool, call) = match words["allow"] == json!(true) {
                    true => (
                        "allow_network",
                        json!({ "sessionId": session_id, "allow": [target] }),
                    ),
                    false => (
                        "deny_network",
                        json!({ "sessionId": session_id, "target": target }),
                    ),
                };
                client.call(tool, call).await.map(drop)
            }
        }
    }
}

fn target(pending: &PendingNetworkReply) -> String {
    format!("{}:{}", pending.host, pending.port)
}

/// What a person typed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Typed {
    /// An answer.
    Answer(Value),
    /// Nothing that can be taken for one.
    Unclear,
}

/// Lines that a person types, where there is one.
pub(in crate::cli) struct Person {
    lines: Option<mpsc::UnboundedReceiver<String>>,
}

impl Person {
    /// Only a terminal on both sides is a person.
    pub(in crate::cli) fn is_there() -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    const fn new() -> Self {
        Person { lines: None }
    }

    /// Forgets what was typed before the question stood there: it cannot be meant for it.
    fn forget_typed(&mut self) {
        // Only a terminal has such a queue.
        let _ = rustix::termios::tcflush(
            rustix::stdio::stdin(),
            rustix::termios::QueueSelector::IFlush,
        );
        while let Some(Ok(_)) = self.lines.as_mut().map(mpsc::UnboundedReceiver::try_recv) {}
    }

    /// The next line; never, when standard input has ended. Nothing is lost when the wait is given up.
    async fn line(&mut self) -> String {
        let lines = self.lines.get_or_insert_with(read_lines);
        match lines.recv().await {
            Some(line) => line,
            None => std::future::pending().await,
        }
    }
}

/// The thread stays behind: nothing can interrupt its read.
fn read_lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// What waits, in words for a person.
pub(in crate::cli) fn describe(pending: &PendingReply) -> String {
    let mut shown: String = pending.input.chars().take(MAX_SHOWN_CHARACTERS).collect();
    if shown.len() < pending.input.len() {
        shown.push('…');
    }
    let what = match pending.kind {
        PendingKindName::Permission => "asks for leave to use",
        PendingKindName::Question => "asks, by",
    };
    format!(
        "Claude Code {what} {}: {}\n  {shown}\n  permission {}, denied when nobody has answered by {}",
        pending.tool, pending.summary, pending.permission_id, pending.denied_at
    )
}

/// Reads an answer to a question of that kind.
fn typed(kind: PendingKindName, line: &str) -> Typed {
    let line = line.trim();
    match (kind, line.to_ascii_lowercase().as_str()) {
        (_, "") => Typed::Unclear,
        (PendingKindName::Question, _) => Typed::Answer(json!({ "answer": line })),
        (PendingKindName::Permission, "y" | "yes") => Typed::Answer(json!({ "allow": true })),
        (PendingKindName::Permission, "n" | "no") => Typed::Answer(json!({ "allow": false })),
        (PendingKindName::Permission, _) => Typed::Unclear,
    }
}

/// Hands an answer on: `allow`, `answer` or both in `answer`.
pub(in crate::cli) async fn answer(
    client: &Client,
    execution_id: &str,
    permission_id: &str,
    mut answer: Value,
) -> Result<RespondReply, CliError> {
    answer["executionId"] = json!(execution_id);
    answer["permissionId"] = json!(permission_id);
    client.ask("respond_execution", answer).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(kind: PendingKindName) -> PendingReply {
        PendingReply {
            permission_id: "p-1".to_owned(),
            kind,
            tool: "Bash".to_owned(),
            summary: "running rm -r build".to_owned(),
            input: "x".repeat(5000),
            denied_at: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    #[test]
    fn only_a_clear_yes_allows() {
        let tool = |kind| Asked::Tool {
            execution_id: "x-1".to_owned(),
            pending: pending(kind),
        };
        let host = Asked::Host(PendingNetworkReply {
            host: "a.example.com".to_owned(),
            port: 443,
            denied_at: "2026-01-01T00:00:00Z".to_owned(),
        });
        let permission = tool(PendingKindName::Permission);
        for asked in [&permission, &host] {
            for yes in ["y", " Yes ", "YES"] {
                let typed = asked.typed(yes);
                assert_eq!(typed, Typed::Answer(json!({ "allow": true })), "{yes}");
            }
            for no in ["n", "No"] {
                let typed = asked.typed(no);
                assert_eq!(typed, Typed::Answer(json!({ "allow": false })), "{no}");
            }
            for unclear in ["", "  ", "yep", "ja", "y n", "true"] {
                assert_eq!(asked.typed(unclear), Typed::Unclear, "{unclear:?}");
            }
        }
        let question = tool(PendingKindName::Question);
        assert_eq!(
            question.typed(" blue "),
            Typed::Answer(json!({ "answer": "blue" }))
        );
        assert_eq!(question.typed(""), Typed::Unclear);
        assert!(permission.describe().len() < 1000);
        assert!(host.describe().contains("a.example.com:443"));
        assert!(
            host.elsewhere("s-1")
                .contains("session allow s-1 a.example.com:443 ")
        );
    }
}
