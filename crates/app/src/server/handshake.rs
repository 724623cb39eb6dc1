//! The first line each way on the server's socket: who is there, which version, what is wanted.
//!
//! ```text
//! client ─ {"protocol":1,"version":…,"mode":"mcp",…}\n ─► server
//! client ◄─ {"protocol":1,"version":…,"verdict":"welcome",…}\n ─ server
//! ```
//! Then the mode's own bytes. A line is at most 64 KiB; the server waits at most 5 s for it. Unknown fields are
//! ignored, so that a newer client can still ask an older server to leave.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use super::Reloaded;
use crate::config::units::counted;

/// Version of the handshake itself; changes only when an old server could not even refuse.
pub const PROTOCOL: u32 = 1;
/// Longest line, bytes: paths and a version, with room to spare.
pub const MAX_LINE_BYTES: u64 = 64 * 1024;
/// How long the server waits for the line. A client writes it at once.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Most roots that a client may hand over; each costs a look at the disk.
pub const MAX_ROOTS: usize = 64;
/// Most owners of sessions that a server names: a person reads them, and the line is bounded.
pub const MAX_OWNERS: usize = 16;

/// What a client wants of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// MCP: newline-separated JSON-RPC follows.
    Mcp,
    /// The same, for a person at the command line.
    Person,
    /// One execution with its exact bytes: see [`crate::stream`].
    Stream,
    /// The reply is all that is wanted.
    Status,
    /// The server shall read its configuration again.
    Reload,
    /// The server shall end; its sessions live on until their lease runs out.
    Stop,
    /// The server shall leave its place to one that stays, if it is one that comes and goes and has nothing to do.
    Succeed,
}

/// The client's line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Greeting {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Version of the client's program.
    pub version: String,
    /// What is wanted.
    pub mode: Mode,
    /// Where the client works; for the log only.
    #[serde(default)]
    pub working_directory: Option<PathBuf>,
    /// Directories that the client offers to sessions.
    #[serde(default)]
    pub roots: Vec<PathBuf>,
    /// The client's process, as it sees itself; the kernel's word counts.
    #[serde(default)]
    pub pid: u32,
}

/// What the server makes of a greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Go on in the mode that was asked for.
    Welcome,
    /// This server is older and idle, or was told to stop: it ends now. Start another.
    Leaving,
    /// No; the message says why.
    Refused,
}

/// The server's line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Version of the server's program.
    pub version: String,
    /// The server's process.
    pub server_pid: u32,
    /// Go on, start another, or no.
    pub verdict: Verdict,
    /// A sentence for the person at the other end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Clients that are connected, this one not counted.
    #[serde(default)]
    pub clients: usize,
    /// Live sessions.
    #[serde(default)]
    pub sessions: u32,
    /// Those of them that are the asker's own. Told to [`Mode::Status`] alone; no server of before tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_sessions: Option<u32>,
    /// Whose the others are, the owners of most of them first, [`MAX_OWNERS`] at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Owner>,
    /// How long the server has run.
    #[serde(default)]
    pub uptime_seconds: u64,
    /// Where it serves MCP over HTTP, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// What came of reading the configuration again, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reloaded: Option<Reloaded>,
}

/// Somebody with live sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// [`model::Principal::name`].
    pub owner: String,
    /// How many.
    pub sessions: u32,
}

/// How the server stands when somebody knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Clients in work, the new one not counted.
    pub clients: usize,
    /// Live sessions.
    pub sessions: u32,
    /// It was started on demand, and ends by itself when nobody needs it.
    pub on_demand: bool,
}

impl Standing {
    const fn is_idle(self) -> bool {
        self.clients == 0 && self.sessions == 0
    }
}

/// A greeting that did not come, or is none.
#[derive(Debug, thiserror::Error)]
pub enum GreetingError {
    /// It did not come within [`GREETING_TIMEOUT`].
    #[error("the client did not introduce itself in time")]
    Silent,
    /// The client went away.
    #[error("the client went away before it introduced itself")]
    Gone,
    /// It is longer than [`MAX_LINE_BYTES`].
    #[error("the client's first line is too long")]
    TooLong,
    /// It is not what it should be.
    #[error("the client's first line is not understood")]
    Malformed(#[source] serde_json::Error),
    /// The connection failed.
    #[error("the connection failed")]
    Read(#[source] std::io::Error),
}

/// Reads one line of at most `limit` bytes and parses it.
///
/// # Errors
/// See [`GreetingError`].
pub async fn read_line<T, R>(
    reader: &mut R,
    limit: u64,
    timeout: Duration,
) -> Result<T, GreetingError>
where
    T: for<'de> Deserialize<'de>,
    R: AsyncBufRead + Unpin,
{
    let mut line = Vec::new();
    let mut bounded = reader.take(limit + 1);
    let read = tokio::time::timeout(timeout, bounded.read_until(b'\n', &mut line)).await;
    read.map_err(|_| GreetingError::Silent)?
        .map_err(GreetingError::Read)?;
    if line.last() == Some(&b'\n') {
        return serde_json::from_slice(&line).map_err(GreetingError::Malformed);
    }
    Err(if line.len() as u64 > limit {
        GreetingError::TooLong
    } else {
        GreetingError::Gone
    })
}

/// A peer's uid is the server's own, or root's: root can read and replace everything of the server anyway.
pub const fn is_admitted(own_uid: u32, peer_uid: u32) -> bool {
    peer_uid == own_uid || peer_uid == 0
}

/// What to make of a greeting: a verdict and a sentence.
pub fn judge(
    greeting: &Greeting,
    own_version: &str,
    standing: Standing,
) -> (Verdict, Option<String>) {
    if greeting.protocol != PROTOCOL {
        let sentence = format!(
            "this server speaks version {PROTOCOL} of the handshake, not {}; end it with `claude-code-mcp server stop` \
             of its own version {own_version}",
            greeting.protocol
        );
        return (Verdict::Refused, Some(sentence));
    }
    match greeting.mode {
        Mode::Status | Mode::Reload => (Verdict::Welcome, None),
        Mode::Stop => (Verdict::Leaving, None),
        Mode::Succeed if standing.on_demand && standing.is_idle() => (Verdict::Leaving, None),
        Mode::Succeed => (Verdict::Refused, Some(why_it_stays(standing))),
        Mode::Mcp | Mode::Person | Mode::Stream if is_newer(&greeting.version, own_version) => {
            if standing.is_idle() {
                return (Verdict::Leaving, None);
            }
            let sentence = format!(
                "the running server has the older version {own_version} and is kept while it has work ({} sessions, \
                 {} other clients)",
                standing.sessions, standing.clients
            );
            (Verdict::Welcome, Some(sentence))
        }
        Mode::Mcp | Mode::Person | Mode::Stream if greeting.roots.len() > MAX_ROOTS => (
            Verdict::Refused,
            Some(format!("a client may hand over at most {MAX_ROOTS} roots")),
        ),
        Mode::Mcp | Mode::Person | Mode::Stream => (Verdict::Welcome, None),
    }
}

fn why_it_stays(standing: Standing) -> String {
    let work = match standing.on_demand {
        true => format!(
            "has work ({}, {})",
            counted(standing.sessions.into(), "session"),
            counted(standing.clients as u64, "client")
        ),
        false => "was started to stay".to_owned(),
    };
    format!(
        "it {work}; use it as it is, end it with `claude-code-mcp server stop`, or name another --state-dir"
    )
}

/// Whether version `left` is newer than `right`. What follows the three numbers does not count.
fn is_newer(left: &str, right: &str) -> bool {
    match (numbers(left), numbers(right)) {
        (Some(left), Some(right)) => left > right,
        _ => false,
    }
}

fn numbers(version: &str) -> Option<[u64; 3]> {
    let core = version.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(mode: Mode, version: &str) -> Greeting {
        let (working_directory, roots) = (None, Vec::new());
        Greeting {
            protocol: PROTOCOL,
            version: version.to_owned(),
            mode,
            working_directory,
            roots,
            pid: 1,
        }
    }

    #[test]
    fn only_the_servers_user_and_root_are_admitted() {
        assert!(is_admitted(1000, 1000));
        assert!(is_admitted(1000, 0));
        assert!(is_admitted(0, 0));
        assert!(!is_admitted(1000, 1001));
        assert!(!is_admitted(0, 1000));
    }

    #[test]
    fn an_older_idle_server_leaves_and_a_busy_one_stays() {
        let idle = Standing {
            clients: 0,
            sessions: 0,
            on_demand: true,
        };
        let verdict =
            |mode, version, standing| judge(&greeting(mode, version), "1.2.3", standing).0;
        assert_eq!(verdict(Mode::Mcp, "1.3.0", idle), Verdict::Leaving);
        assert_eq!(verdict(Mode::Mcp, "1.10.0-rc.1", idle), Verdict::Leaving);
        for standing in [
            Standing { clients: 1, ..idle },
            Standing {
                sessions: 1,
                ..idle
            },
        ] {
            let (verdict, sentence) = judge(&greeting(Mode::Mcp, "2.0.0"), "1.2.3", standing);
            assert_eq!(verdict, Verdict::Welcome);
            assert!(sentence.is_some_and(|sentence| sentence.contains("older version 1.2.3")));
        }
        for version in ["1.2.3", "1.2.2", "0.9.9", "nonsense", "1.2"] {
            assert_eq!(
                verdict(Mode::Mcp, version, idle),
                Verdict::Welcome,
                "{version}"
            );
        }
        assert_eq!(verdict(Mode::Status, "9.0.0", idle), Verdict::Welcome);
    }

    #[test]
    fn only_an_idle_server_that_comes_and_goes_leaves_its_place() {
        let idle = Standing {
            clients: 0,
            sessions: 0,
            on_demand: true,
        };
        let judged = |standing| judge(&greeting(Mode::Succeed, "1.2.3"), "1.2.3", standing);
        assert_eq!(judged(idle), (Verdict::Leaving, None));
        for (standing, why) in [
            (Standing { clients: 1, ..idle }, "1 client)"),
            (
                Standing {
                    sessions: 2,
                    ..idle
                },
                "2 sessions",
            ),
            (
                Standing {
                    on_demand: false,
                    ..idle
                },
                "started to stay",
            ),
        ] {
            let (verdict, sentence) = judged(standing);
            assert_eq!(verdict, Verdict::Refused);
            let sentence = sentence.unwrap();
            assert!(
                sentence.contains(why) && sentence.contains("server stop"),
                "{sentence}"
            );
        }
    }

    #[test]
    fn another_protocol_and_too_many_roots_are_refused() {
        let idle = Standing {
            clients: 0,
            sessions: 0,
            on_demand: true,
        };
        let mut other = greeting(Mode::Mcp, "1.0.0");
        other.protocol = 2;
        assert_eq!(judge(&other, "1.0.0", idle).0, Verdict::Refused);
        let mut many = greeting(Mode::Mcp, "1.0.0");
        many.roots = vec![PathBuf::from("/x"); MAX_ROOTS];
        assert_eq!(judge(&many, "1.0.0", idle).0, Verdict::Welcome);
        many.roots.push(PathBuf::from("/x"));
        assert_eq!(judge(&many, "1.0.0", idle).0, Verdict::Refused);
    }

    #[test]
    fn a_newer_client_may_say_more_than_this_server_knows() {
        let line = r#"{"protocol":1,"version":"9.0.0","mode":"mcp","novelty":{"a":1}}"#;
        assert_eq!(
            serde_json::from_str::<Greeting>(line).unwrap().version,
            "9.0.0"
        );
    }
}
