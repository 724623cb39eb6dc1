//! Who calls.

use std::{fmt, net::IpAddr, path::PathBuf, time::SystemTime};

use crate::{Action, KeyId, Scopes, Secret};

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
    /// The text of an API key, as it was presented. It is looked up on the road, for each call, so that a key that was
    /// revoked ends at once.
    ApiKey(Secret<String>),
    /// An OAuth access token whose signature, issuer, audience, times and algorithm the door has checked.
    AccessToken(Box<AccessToken>),
    /// The server itself: reaper, recovery, shutdown.
    System,
}

/// What an OAuth access token says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `client_id` or `azp`.
    pub client_id: Option<String>,
    /// What of `scope` this server knows.
    pub scopes: Scopes,
    /// `exp`. The road refuses it afterwards, also for a call that still waits.
    pub expires_at: SystemTime,
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
    /// Somebody with a key or a token.
    Remote(Box<RemoteCaller>),
    /// The server itself.
    System,
}

impl Principal {
    /// The stable name under which sessions are owned and the audit log speaks of this principal.
    pub fn name(&self) -> String {
        match self {
            Principal::LocalUser { uid, .. } => format!("uid:{uid}"),
            Principal::Remote(remote) => remote.name.clone(),
            Principal::System => "system".to_owned(),
        }
    }

    /// The caller, where it is a remote one.
    pub fn remote(&self) -> Option<&RemoteCaller> {
        match self {
            Principal::Remote(remote) => Some(remote),
            Principal::LocalUser { .. } | Principal::System => None,
        }
    }
}

/// A caller with a key or a token. It never names a path of the server's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteCaller {
    /// `key:<key id>`, or `oauth:` and 16 hexadecimal digits of the SHA-256 of issuer, NUL and subject. It owns sessions.
    pub name: String,
    /// By what it was told.
    pub kind: RemoteKind,
    /// What it may do.
    pub scopes: Scopes,
    /// Directories below which its projects are, absolute and without links. It names projects relative to them.
    pub roots: Vec<PathBuf>,
    /// Live sessions that it may have at once; the server's own bound otherwise.
    pub max_sessions: Option<u32>,
    /// Calls a minute that it may make; the server's own bound otherwise.
    pub calls_per_minute: Option<u32>,
}

/// By what a remote caller was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteKind {
    /// A key of this server's.
    ApiKey {
        /// Which.
        id: KeyId,
    },
    /// A token of an OAuth issuer that the operator trusts.
    AccessToken,
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
    /// From where.
    pub source: Source,
    /// What is asked.
    pub action: Action,
}
