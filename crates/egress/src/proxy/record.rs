//! What is told of each decision, and to whom: which host, which rule, how it ended; nothing of what was said.

use std::time::Duration;

use model::SessionId;

pub use crate::record::{Recording, Ticket, Unrecorded};

/// Keeps the decisions of the proxy. What cannot be recorded is not let through.
pub trait Recorder: Send + Sync {
    /// Records a decision, before a byte of an allowed connection passes and before a refusal is answered.
    ///
    /// # Errors
    /// When it could not be made durable.
    fn decided<'a>(&'a self, session: SessionId, decision: &'a Decision) -> Recording<'a>;

    /// An allowed connection has ended. Called from within the proxy: it must be quick and must not block.
    fn ended(&self, session: SessionId, ticket: Ticket, end: &TunnelEnd);
}

/// One decision about one connection, one request of plain HTTP, or one question to the stub DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// How it was asked.
    pub way: Way,
    /// The host as it was understood; as it was written, cut and made printable, where it was not.
    pub host: String,
    /// The port, where one was said.
    pub port: Option<u16>,
    /// The method, where requests are read; `other` for one that is not well known.
    pub method: Option<&'static str>,
    /// The rule that decided, where one was found.
    pub rule: Option<String>,
    /// The name of the credential that the request is given on its way out.
    pub credential: Option<String>,
    /// The code of the refusal; nothing where it was allowed.
    pub denied: Option<&'static str>,
}

/// How the sandbox asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// CONNECT.
    Connect,
    /// A request of plain HTTP.
    Http,
    /// A request in a tunnel whose TLS is opened.
    Https,
    /// SOCKS5.
    Socks,
    /// The stub DNS.
    Names,
}

/// What passed, once it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelEnd {
    /// Bytes from the sandbox.
    pub bytes_up: u64,
    /// Bytes to the sandbox.
    pub bytes_down: u64,
    /// From the decision to the last byte.
    pub duration: Duration,
    /// How it ended.
    pub ending: Ending,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Both sides said all they had to say.
    Complete,
    /// It was allowed and could not be made, or was not wanted any more when it was.
    Unused,
    /// One side broke off.
    Broken,
    /// Nothing came for too long.
    Idle,
    /// What came first was refused: no TLS where it must be, or TLS for another host.
    Refused,
    /// The session ended, or the server did.
    Cut,
    /// The session's rules were changed and do not allow it any more.
    RuleGone,
}

impl Way {
    /// As the record has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Way::Connect => "connect",
            Way::Http => "http",
            Way::Https => "https",
            Way::Socks => "socks",
            Way::Names => "names",
        }
    }
}

impl Ending {
    /// As the record has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Ending::Complete => "complete",
            Ending::Unused => "unused",
            Ending::Broken => "broken",
            Ending::Idle => "idle",
            Ending::Refused => "refused",
            Ending::Cut => "cut",
            Ending::RuleGone => "rule_gone",
        }
    }
}
