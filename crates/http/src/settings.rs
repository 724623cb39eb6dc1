//! Where the door stands and who may come in.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use http::Uri;

use crate::names::{Site, is_origin};

/// Longest path of a unix socket, bytes (`sun_path` with its end).
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Everything that an operator says about the door.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens.
    pub listen: Listen,
    /// Names by which clients reach it, `host` or `host:port`, besides those of a loopback address that it listens on.
    pub hosts: Vec<String>,
    /// Origins of web pages that may use it from a browser, `scheme://host[:port]`.
    pub origins: Vec<String>,
    /// Speak TLS.
    pub tls: Option<TlsFiles>,
    /// Reverse proxies in front of it, whose `X-Forwarded-For` is believed. The way from the outside to them is theirs to
    /// protect.
    pub proxies: Vec<IpAddr>,
    /// Take access tokens of these issuers.
    pub oauth: Option<OAuth>,
    /// Bounds.
    pub limits: Limits,
}

/// Where the door listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port; port 0 is any that is free.
    Tcp(SocketAddr),
    /// A unix socket, which is made there.
    Unix(PathBuf),
}

/// The server's certificate. Both files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the server's certificate, then those that vouch for it.
    pub certificate: PathBuf,
    /// PEM: its key. Nobody but its owner, the server's user or root, may read it.
    pub key: PathBuf,
}

/// Whose access tokens are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuth {
    /// `iss` of the tokens, exactly; their metadata is found below it.
    pub issuers: Vec<String>,
    /// `aud` of the tokens: the URL by which clients reach this server, `https://host/mcp`.
    pub audience: String,
}

/// Bounds of the door. They are not configured: each is far above what clients do, and what they protect is the machine.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at one time. Each may hold a head and a request: some 100 KiB.
    pub connections: usize,
    /// Connections of one address (IPv6: of one /64). A client opens a handful, a machine runs a few clients. Proxies that
    /// are named are not counted.
    pub connections_of_one: usize,
    /// Longest head of a request, bytes: twice what other servers take. Fields are bounded by hyper, to 100.
    pub head_bytes: usize,
    /// Longest body of a request, bytes.
    pub body_bytes: usize,
    /// What bodies that are being read may hold together, bytes.
    pub bodies_bytes: usize,
    /// Until a head is there, since the connection stands or the last answer is out: so it is the idle time, too. Above
    /// what clients keep connections for (httpx 5 s, undici 4 s), so that it is they who close.
    pub head_time: Duration,
    /// Until a body is there: 8 MiB at 140 kB/s.
    pub body_time: Duration,
    /// Until TLS stands.
    pub tls_time: Duration,
    /// How long a client may leave an answer unread that fills the socket's buffer.
    pub stall_time: Duration,
    /// After the door is closed, until the last answers are out. The process has 5 s.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 512,
            connections_of_one: 64,
            head_bytes: 32 * 1024,
            body_bytes: mcp::MAX_HTTP_BODY_BYTES,
            bodies_bytes: 64 * 1024 * 1024,
            head_time: Duration::from_secs(30),
            body_time: Duration::from_secs(60),
            tls_time: Duration::from_secs(10),
            stall_time: Duration::from_secs(30),
            drain_time: Duration::from_secs(3),
        }
    }
}

/// Why a door with these settings is not opened. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Reachable from other machines, in the clear.
    #[error(
        "{0} can be reached from other machines: give it a certificate (http_tls_cert, http_tls_key), or put a proxy in \
         front that speaks TLS and name its addresses (http_behind_proxy), or listen on a loopback address"
    )]
    Plain(SocketAddr),
    /// Reachable from other machines, and nobody could come in.
    #[error(
        "{0} can be reached from other machines, and there is no way to authenticate: make a key first \
         (`claude-code-mcp keys create`), or name an OAuth issuer (oauth_issuers, oauth_audience)"
    )]
    Nobody(SocketAddr),
    /// Without a name no request would be answered.
    #[error(
        "clients reach {0} by a name or address that is not known here: name it (http_hosts), as `host` or `host:port`"
    )]
    Nameless(SocketAddr),
    /// No name of a host.
    #[error(
        "`{0}` in http_hosts is no host: write `host` or `host:port`, without a scheme or a path"
    )]
    Host(String),
    /// No origin.
    #[error(
        "`{0}` in http_origins is no origin: write `https://host` or `https://host:port`, without a path; `*` and `null` are not taken"
    )]
    Origin(String),
    /// Tokens without an audience could be meant for another server.
    #[error(
        "oauth_issuers needs oauth_audience: the URL by which clients reach this server, such as https://host/mcp"
    )]
    NoAudience,
    /// An audience without issuers.
    #[error("oauth_audience needs oauth_issuers: whose tokens are taken")]
    NoIssuer,
    /// No URL that can be meant.
    #[error(
        "`{0}` is no URL for {1}: it must be https, or http on a loopback address, without a query or a fragment"
    )]
    Url(String, &'static str),
    /// A proxy cannot be named for what no proxy reaches by an address.
    #[error(
        "a proxy that reaches a unix socket has no address: http_behind_proxy is for TCP; over the socket the proxy's X-Forwarded-For is believed anyway"
    )]
    ProxyOnSocket,
    /// TLS on a unix socket.
    #[error("a unix socket does not leave the machine: it speaks no TLS (http_tls_cert)")]
    TlsOnSocket,
}

impl Settings {
    /// A door on that address, with nothing else said.
    pub fn new(listen: Listen) -> Self {
        Settings {
            listen,
            hosts: Vec::new(),
            origins: Vec::new(),
            tls: None,
            proxies: Vec::new(),
            oauth: None,
            limits: Limits::default(),
        }
    }

    /// Whether a door may be opened with these settings; `has_keys`: somebody has a key.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn check(&self, has_keys: bool) -> Result<(), SettingsError> {
        for host in &self.hosts {
            Site::parse(host, 0).ok_or_else(|| SettingsError::Host(host.clone()))?;
        }
        for origin in &self.origins {
            if !is_origin(origin) {
                return Err(SettingsError::Origin(origin.clone()));
            }
        }
        if let Some(oauth) = &self.oauth {
            oauth.check()?;
        }
        match &self.listen {
            Listen::Unix(_) if self.tls.is_some() => Err(SettingsError::TlsOnSocket),
            Listen::Unix(_) if !self.proxies.is_empty() => Err(SettingsError::ProxyOnSocket),
            Listen::Unix(_) => Ok(()),
            Listen::Tcp(address) if address.ip().to_canonical().is_loopback() => Ok(()),
            Listen::Tcp(address) => self.check_outside(*address, has_keys),
        }
    }

    fn check_outside(&self, address: SocketAddr, has_keys: bool) -> Result<(), SettingsError> {
        if self.tls.is_none() && self.proxies.is_empty() {
            return Err(SettingsError::Plain(address));
        }
        if !has_keys && self.oauth.is_none() {
            return Err(SettingsError::Nobody(address));
        }
        if address.ip().is_unspecified() && self.hosts.is_empty() && self.oauth.is_none() {
            return Err(SettingsError::Nameless(address));
        }
        Ok(())
    }

    /// Clients see `https`: by our own TLS, or by that of a proxy.
    pub(crate) fn is_https(&self) -> bool {
        self.tls.is_some() || !self.proxies.is_empty()
    }
}

impl OAuth {
    fn check(&self) -> Result<(), SettingsError> {
        if self.audience.is_empty() {
            return Err(SettingsError::NoAudience);
        }
        if self.issuers.is_empty() {
            return Err(SettingsError::NoIssuer);
        }
        let named = self.issuers.iter().map(|issuer| (issuer, "oauth_issuers"));
        for (url, key) in named.chain([(&self.audience, "oauth_audience")]) {
            if !is_trustworthy(url) {
                return Err(SettingsError::Url(url.clone(), key));
            }
        }
        Ok(())
    }
}

/// A URL that keys of tokens may come from: https, or within this machine.
pub(crate) fn is_trustworthy(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
    if uri.query().is_some() || url.contains('#') || url.contains('@') {
        return false;
    }
    let loopback = |host: &str| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    };
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(host)) => !host.is_empty(),
        (Some("http"), Some(host)) => loopback(host),
        _ => false,
    }
}

/// What is no place to listen at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// Neither an address nor a socket.
    #[error(
        "write an address and a port, such as 127.0.0.1:7860 or [::1]:7860, or unix: and an absolute path"
    )]
    Neither,
    /// No path for a socket.
    #[error("a unix socket needs an absolute path of at most 107 bytes without `..`")]
    Path,
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text
                .parse()
                .map(Listen::Tcp)
                .map_err(|_| ListenError::Neither);
        };
        let path = PathBuf::from(path);
        let climbs = path.components().any(|part| part.as_os_str() == "..");
        let fits = path.as_os_str().len() <= MAX_SOCKET_PATH_BYTES;
        match path.is_absolute() && fits && !climbs {
            true => Ok(Listen::Unix(path)),
            false => Err(ListenError::Path),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(listen: &str) -> Settings {
        Settings::new(listen.parse().unwrap())
    }

    /// S1: nothing that others can reach is opened in the clear, without a way to authenticate, or without a name.
    #[test]
    fn what_others_can_reach_is_not_opened_lightly() {
        let tls = || {
            Some(TlsFiles {
                certificate: "/c".into(),
                key: "/k".into(),
            })
        };
        let outside: SocketAddr = "0.0.0.0:7860".parse().unwrap();
        let mut settings = door("0.0.0.0:7860");
        assert_eq!(settings.check(true), Err(SettingsError::Plain(outside)));
        settings.tls = tls();
        assert_eq!(settings.check(false), Err(SettingsError::Nobody(outside)));
        assert_eq!(settings.check(true), Err(SettingsError::Nameless(outside)));
        settings.hosts = vec!["mcp.example.com".to_owned()];
        assert_eq!(settings.check(true), Ok(()));
        settings.tls = None;
        settings.proxies = vec!["192.0.2.1".parse().unwrap()];
        assert_eq!(settings.check(true), Ok(()));
        for listen in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0", "unix:/s"] {
            assert_eq!(door(listen).check(false), Ok(()), "{listen}");
        }
        for listen in ["10.0.0.1:1", "[::]:1", "[::ffff:10.0.0.1]:1"] {
            assert!(
                matches!(door(listen).check(true), Err(SettingsError::Plain(_))),
                "{listen}"
            );
        }
    }

    #[test]
    fn tokens_need_an_issuer_and_an_audience_that_can_be_trusted() {
        let check = |issuers: &[&str], audience: &str| {
            let mut settings = door("127.0.0.1:0");
            settings.oauth = Some(OAuth {
                issuers: issuers.iter().map(|text| (*text).to_owned()).collect(),
                audience: audience.to_owned(),
            });
            settings.check(false)
        };
        let (issuer, audience) = (
            "https://id.example.com/tenant",
            "https://mcp.example.com/mcp",
        );
        assert_eq!(check(&[issuer], audience), Ok(()));
        assert_eq!(
            check(&["http://127.0.0.1:9/x"], "http://localhost:1/mcp"),
            Ok(())
        );
        assert_eq!(check(&[issuer], ""), Err(SettingsError::NoAudience));
        assert_eq!(check(&[], audience), Err(SettingsError::NoIssuer));
        for wrong in [
            "http://id.example.com",
            "https://id.example.com/?a=b",
            "https://id.example.com/#f",
            "https://u@id.example.com/",
            "id.example.com",
            "http://localhost.example.com/",
        ] {
            assert!(
                matches!(check(&[wrong], audience), Err(SettingsError::Url(..))),
                "{wrong}"
            );
            assert!(
                matches!(check(&[issuer], wrong), Err(SettingsError::Url(..))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn places_to_listen_at_read_back() {
        for text in ["127.0.0.1:7860", "[::1]:7860", "unix:/run/mcp.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in [
            "7860",
            "localhost:7860",
            "",
            "unix:",
            "unix:mcp.sock",
            "unix:/a/../b",
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
        assert_eq!(
            format!("unix:/{}", "x".repeat(107)).parse::<Listen>(),
            Err(ListenError::Path)
        );
    }
}
