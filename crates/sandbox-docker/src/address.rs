//! Where an engine is, out of what `DOCKER_HOST` says.
//!
//! `docker context` is not read: it is the Docker client's own file, written without this server's knowing, and what a
//! server of many sessions speaks to is its operator's decision.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use sandbox::BackendError;

/// Where an engine listens with TLS when no port is said: what Docker has registered for it.
const TLS_PORT: u16 = 2376;
/// Where it listens without.
const PLAIN_PORT: u16 = 2375;

/// How an engine is reached over a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tcp {
    /// `DOCKER_TLS_VERIFY`: with TLS, both sides showing certificates.
    pub tls_verify: bool,
    /// `DOCKER_CERT_PATH`: the directory with `ca.pem`, `cert.pem` and `key.pem`.
    pub certificates: Option<PathBuf>,
    /// Without TLS, as long as it listens on this host's loopback interface.
    pub dangerously_plain_on_loopback: bool,
}

/// Where an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// At a socket of this host's file system.
    Unix(PathBuf),
    /// Over a network, encrypted, both sides known.
    Tls {
        /// Host and port.
        authority: String,
        /// Directory of the certificates.
        certificates: PathBuf,
    },
    /// On this host's loopback interface, open to everybody who is on it.
    Plain {
        /// Host and port.
        authority: String,
    },
}

impl Address {
    /// Reads what `DOCKER_HOST` says.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] for what is not spoken here, with the reason and what to do.
    pub fn parse(host: &str, tcp: &Tcp) -> Result<Address, BackendError> {
        let (scheme, rest) = host.split_once("://").unwrap_or(("", host));
        match scheme {
            "unix" if Path::new(rest).is_absolute() => Ok(Address::Unix(rest.into())),
            "unix" => Err(refused(
                host,
                "names no absolute path",
                "say unix:// and the absolute path of the engine's socket",
            )),
            "tcp" => over_tcp(host, rest, tcp),
            "ssh" => Err(refused(
                host,
                "would speak through a program of another host (ssh), and what it is connected to cannot be proved",
                "use the engine's own TLS: tcp://HOST:2376 with DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH",
            )),
            "npipe" => Err(refused(
                host,
                "is a pipe of Windows",
                "run the server where the engine runs, on Linux, and say unix:// and its socket",
            )),
            "http" | "https" => Err(refused(
                host,
                "is no address of an engine",
                "say tcp://HOST:2376, with DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH",
            )),
            _ => Err(refused(
                host,
                "names no way to an engine that is known here",
                "say unix:// and an absolute path, or tcp://HOST:2376 with DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH",
            )),
        }
    }

    /// How it is reached, for people; nothing for a socket, which is the usual.
    pub fn transport(&self) -> Option<&'static str> {
        match self {
            Address::Unix(_) => None,
            Address::Tls { .. } => Some("over TLS"),
            Address::Plain { .. } => Some("over plain TCP on loopback"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(socket) => write!(f, "{}", socket.display()),
            Address::Tls { authority, .. } | Address::Plain { authority } => {
                write!(f, "tcp://{authority}")
            }
        }
    }
}

fn over_tcp(host: &str, rest: &str, tcp: &Tcp) -> Result<Address, BackendError> {
    let port = if tcp.tls_verify { TLS_PORT } else { PLAIN_PORT };
    let Some((name, authority)) = authority(rest, port) else {
        return Err(refused(
            host,
            "names no host, or more than a host and a port",
            "say tcp://HOST:2376 or tcp://[ADDRESS]:2376",
        ));
    };
    if !tcp.tls_verify {
        return plain(host, &name, authority, tcp);
    }
    match &tcp.certificates {
        Some(certificates) => Ok(Address::Tls {
            authority,
            certificates: certificates.clone(),
        }),
        None => Err(refused(
            host,
            "needs certificates, and there is no home directory to look for them in",
            "set DOCKER_CERT_PATH to the directory with ca.pem, cert.pem and key.pem",
        )),
    }
}

fn plain(host: &str, name: &str, authority: String, tcp: &Tcp) -> Result<Address, BackendError> {
    let is_loopback = name
        .parse()
        .is_ok_and(|address: IpAddr| address.is_loopback());
    match (tcp.dangerously_plain_on_loopback, is_loopback) {
        (true, true) => Ok(Address::Plain { authority }),
        (true, false) => Err(refused(
            host,
            "is plain TCP to another place than 127.0.0.0/8 or ::1, which no setting allows: whoever is on the way is root there",
            USE_TLS,
        )),
        (false, true) => Err(refused(
            host,
            "is plain TCP: every user and program of this machine that reaches that port is root by it",
            USE_TLS_OR_ACCEPT,
        )),
        (false, false) => Err(refused(
            host,
            "is plain TCP: whoever reaches that port is root on the engine's machine",
            USE_TLS,
        )),
    }
}

const USE_TLS: &str = "let the engine listen with TLS (`tlsverify` in its daemon.json), and set DOCKER_TLS_VERIFY=1 and \
    DOCKER_CERT_PATH; or use its unix socket";

const USE_TLS_OR_ACCEPT: &str = "use the engine's unix socket, or let it listen with TLS (`tlsverify` in its daemon.json; \
    DOCKER_TLS_VERIFY=1, DOCKER_CERT_PATH); or, where all who are on this machine may be root, set \
    `dangerously_plain_loopback_engine = true`";

/// Whether `DOCKER_HOST` names another machine; `None` where that does not show.
pub(crate) fn is_elsewhere(host: &str) -> Option<bool> {
    let (scheme, rest) = host.split_once("://")?;
    match scheme {
        "ssh" => Some(true),
        "tcp" | "http" | "https" => {
            let (name, _) = authority(rest, PLAIN_PORT)?;
            let address = name.parse::<IpAddr>();
            let is_here = address.is_ok_and(|address| address.is_loopback()) || name == "localhost";
            Some(!is_here)
        }
        _ => None,
    }
}

/// The host's name or address, and host and port as a URL has them.
fn authority(rest: &str, port: u16) -> Option<(String, String)> {
    if let Ok(address) = rest.parse::<SocketAddr>() {
        return Some((address.ip().to_string(), address.to_string()));
    }
    let bracketed = rest
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Ok(address) = bracketed.unwrap_or(rest).parse::<IpAddr>() {
        return Some((
            address.to_string(),
            SocketAddr::new(address, port).to_string(),
        ));
    }
    let (name, port) = match rest.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok()?),
        None => (rest, port),
    };
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    is_name.then(|| (name.to_owned(), format!("{name}:{port}")))
}

fn refused(host: &str, why: &str, remedy: &str) -> BackendError {
    BackendError::Unavailable {
        why: format!("DOCKER_HOST={host} {why}"),
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls() -> Tcp {
        Tcp {
            tls_verify: true,
            certificates: Some("/certificates".into()),
            dangerously_plain_on_loopback: false,
        }
    }

    /// What is spoken to, or why not and what to do.
    fn check(host: &str, tcp: &Tcp) -> Result<String, String> {
        Address::parse(host, tcp)
            .map(|address| address.to_string())
            .map_err(|error| {
                let BackendError::Unavailable { why, remedy } = error else {
                    panic!("{error:?}")
                };
                format!("{why}; {remedy}")
            })
    }

    #[test]
    fn sockets_and_encrypted_engines_are_spoken_to() {
        for (host, shown) in [
            ("unix:///run/engine.sock", "/run/engine.sock"),
            ("tcp://there:1234", "tcp://there:1234"),
            ("tcp://there", "tcp://there:2376"),
            ("tcp://10.0.0.1", "tcp://10.0.0.1:2376"),
            ("tcp://[fd00::1]", "tcp://[fd00::1]:2376"),
            ("tcp://[fd00::1]:99", "tcp://[fd00::1]:99"),
        ] {
            assert_eq!(check(host, &tls()), Ok(shown.to_owned()), "{host}");
        }
    }

    #[test]
    fn every_other_way_is_refused_with_a_reason_and_what_to_do() {
        for (host, why, remedy) in [
            ("unix://relative", "no absolute path", "unix:///"),
            ("/var/run/docker.sock", "no way to an engine", "unix://"),
            ("ssh://me@there", "ssh", "DOCKER_TLS_VERIFY"),
            ("npipe:////./pipe/docker_engine", "Windows", "unix://"),
            ("https://there:2376", "no address", "tcp://"),
            ("tcp://", "no host", "tcp://"),
            ("tcp://there:2376/path", "more than", "tcp://"),
            ("tcp://me@there:2376", "more than", "tcp://"),
            ("tcp://there:port", "more than", "tcp://"),
            ("fd://", "no way to an engine", "unix://"),
        ] {
            let said = check(host, &tls()).unwrap_err();
            let wanted = remedy.trim_end_matches('/');
            assert!(
                said.contains(why) && said.contains(wanted),
                "{host}: {said}"
            );
        }
        let homeless = Tcp {
            certificates: None,
            ..tls()
        };
        let said = check("tcp://there", &homeless).unwrap_err();
        assert!(said.contains("DOCKER_CERT_PATH"), "{said}");
    }

    #[test]
    fn plain_tcp_is_refused_and_dangerously_accepted_on_loopback_alone() {
        let dangerous = Tcp {
            dangerously_plain_on_loopback: true,
            ..Tcp::default()
        };
        for host in ["tcp://127.0.0.1", "tcp://[::1]:99", "tcp://10.0.0.1:2375"] {
            let said = check(host, &Tcp::default()).unwrap_err();
            assert!(
                said.contains("root") && said.contains("DOCKER_TLS_VERIFY"),
                "{said}"
            );
        }
        assert_eq!(
            check("tcp://127.0.0.1", &dangerous),
            Ok("tcp://127.0.0.1:2375".to_owned())
        );
        assert_eq!(
            check("tcp://[::1]:99", &dangerous),
            Ok("tcp://[::1]:99".to_owned())
        );
        // A name is whatever somebody's resolver says.
        for host in [
            "tcp://10.0.0.1:2375",
            "tcp://localhost:2375",
            "tcp://0.0.0.0",
        ] {
            let said = check(host, &dangerous).unwrap_err();
            assert!(said.contains("no setting allows"), "{said}");
        }
    }
}
