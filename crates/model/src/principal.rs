//! Who calls.

use std::{fmt, net::IpAddr, path::PathBuf};

use crate::Action;

/// What a caller presents. The road turns it into a [`Principal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A process of this machine on the server's unix socket; uid and pid come from the kernel.
    LocalPeer {
        /// The peer's uid (`SO_PEERCRED`).
        uid: u32,
        /// The peer's pid (`SO_PEERCRED`).
        pid: i32,
        /// Working directory and roots that the client handed over: the only directories that it may offer to a
        /// session unless the operator's configuration names more. They narrow, they never widen: the server drops
        /// those that are `/`, the home directory itself, or a parent of either.
        roots: Vec<PathBuf>,
    },
    /// The server itself: reaper, recovery, shutdown.
    System,
}

/// An identified caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The user who owns the server.
    LocalUser {
        /// The user's uid.
        uid: u32,
        /// See [`Credentials::LocalPeer`].
        roots: Vec<PathBuf>,
    },
    /// The server itself.
    System,
}

impl Principal {
    /// The stable name under which sessions are owned and the audit log speaks of this principal.
    pub fn name(&self) -> String {
        match self {
            Principal::LocalUser { uid, .. } => format!("uid:{uid}"),
            Principal::System => "system".to_owned(),
        }
    }
}

/// The way by which a call came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// The server's own unix socket.
    Local,
    /// HTTP over TCP.
    Http,
    /// HTTP over a unix socket.
    HttpUnix,
    /// The server itself.
    System,
}

impl Transport {
    /// The word in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Transport::Local => "local",
            Transport::Http => "http",
            Transport::HttpUnix => "http_unix",
            Transport::System => "system",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a call came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    /// By which way.
    pub transport: Transport,
    /// From which address; behind a trusted proxy, the one that the proxy names.
    pub address: Option<IpAddr>,
}

impl Source {
    /// The server's own unix socket.
    pub const LOCAL: Source = Source {
        transport: Transport::Local,
        address: None,
    };
    /// The server itself.
    pub const SYSTEM: Source = Source {
        transport: Transport::System,
        address: None,
    };
}

/// The program on the other side, as it names itself. Never trusted, only recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// `claude-code`, `cursor`, `claude-code-mcp session`, …
    pub name: String,
    /// Its version.
    pub version: String,
}

/// One call on the road.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who says they call.
    pub credentials: Credentials,
    /// With which program.
    pub client: ClientInfo,
    /// What is asked.
    pub action: Action,
}
