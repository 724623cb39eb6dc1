//! Why something was not reached: a stable code, and a sentence for the one inside. The sentence says what was refused, by which
//! rule, and how to ask; it holds no address of the host's network.

use std::{fmt, io, net::IpAddr};

use model::{CERTIFICATES_DIRECTORY, CERTIFICATES_NAME, SessionId};

use super::{
    address::AddressClass,
    name::{HostName, NameError},
    wishes::Said,
};

/// How a caller gets more, in the words that its tools use.
const HOW_TO_ASK: &str = "add it to `network.allow` when the session is made, or ask the operator";

/// A person may let a session reach what was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByPerson {
    /// The session.
    pub session: SessionId,
    /// What they have said of it.
    pub said: Said,
}

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresolved {
    /// Who answers for it says so.
    NoSuchName,
    /// Nobody who could know it answered in time.
    NoAnswer,
    /// The machine's resolver did not work.
    Failed,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// The session has no rule at all.
    NetworkOff,
    /// No rule names the host.
    HostNotAllowed {
        /// The host.
        host: HostName,
        /// The port that was asked for.
        port: u16,
        /// A person may let this session reach it.
        person: Option<ByPerson>,
    },
    /// A rule names the host with other ports.
    PortNotAllowed {
        /// The host.
        host: HostName,
        /// The port that was asked for.
        port: u16,
        /// The rule that names the host.
        rule: String,
        /// The ports of that rule.
        ports: Vec<u16>,
        /// A person may let this session reach it.
        person: Option<ByPerson>,
    },
    /// The port commands machines or sends mail, and no `private` rule of the operator names it.
    GuardedPort {
        /// The host.
        host: HostName,
        /// The port that was asked for.
        port: u16,
    },
    /// An address where a name belongs.
    RawAddress,
    /// No name of a host.
    BadName(NameError),
    /// The name leads to an address that no public host has.
    PrivateAddress {
        /// The host.
        host: HostName,
        /// What the address is.
        class: AddressClass,
        /// Which it is: for the operator's log, never told inside.
        address: IpAddr,
    },
    /// The name has no address, or nobody said so in time.
    ResolutionFailed {
        /// The host.
        host: HostName,
        /// How it failed.
        why: Unresolved,
    },
    /// None of the addresses took the connection.
    ConnectionFailed {
        /// The host.
        host: HostName,
        /// The port.
        port: u16,
        /// How the last attempt failed.
        why: io::ErrorKind,
    },
    /// TLS asks for another host than the proxy was asked for.
    SniMismatch {
        /// The host that the proxy was asked for.
        host: HostName,
        /// What TLS asks for.
        sni: String,
    },
    /// TLS says no host.
    SniMissing {
        /// The host that the proxy was asked for.
        host: HostName,
    },
    /// Something else than TLS where TLS belongs.
    NotTls {
        /// The host.
        host: HostName,
        /// The port.
        port: u16,
    },
    /// `Host` or the authority names another host than the request's target.
    HostMismatch {
        /// The host of the target.
        host: HostName,
        /// What was named beside it.
        named: String,
    },
    /// The rules for the host do not have this method.
    MethodNotAllowed {
        /// The host.
        host: HostName,
        /// The method.
        method: String,
        /// The rule.
        rule: String,
    },
    /// The rules for the host do not have this path.
    PathNotAllowed {
        /// The host.
        host: HostName,
        /// The rule.
        rule: String,
    },
    /// TLS is opened for this host, and its server's side of it cannot be believed.
    CertificateRefused {
        /// The host.
        host: HostName,
        /// What is wrong with it.
        why: &'static str,
    },
    /// TLS is opened for this host, and the client does not believe the one who opens it.
    CertificateNotTaken {
        /// The host.
        host: HostName,
    },
    /// A placeholder stands where its credential does not belong.
    PlaceholderMisplaced {
        /// The name of the credential.
        credential: String,
        /// Where it was to be sent.
        host: HostName,
    },
    /// The credential that was asked for cannot be had now.
    CredentialUnavailable {
        /// Its name.
        credential: String,
    },
    /// The answer holds the credential of its request, or is in a form in which it could.
    CredentialEchoed {
        /// Its name.
        credential: String,
    },
    /// The request cannot be read without doubt; the text says what is wrong.
    BadRequest(&'static str),
    /// It asks for another protocol.
    Upgrade,
    /// A command of the proxy protocol that is not offered, such as UDP over SOCKS.
    Unsupported(&'static str),
    /// A limit of the session.
    TooMany {
        /// Of what: `connections`.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// The session makes too many connections and requests.
    RateLimited {
        /// How many it may make within a minute.
        per_minute: u64,
    },
    /// The decision could not be recorded, so it is a no.
    AuditUnavailable,
    /// A defect of the proxy, or a question to the kernel that it did not answer.
    Internal(&'static str),
}

impl Denial {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Denial::NetworkOff => "network_off",
            Denial::HostNotAllowed { .. } => "host_not_allowed",
            Denial::PortNotAllowed { .. } | Denial::GuardedPort { .. } => "port_not_allowed",
            Denial::RawAddress => "raw_address",
            Denial::BadName(_) => "bad_name",
            Denial::PrivateAddress { .. } => "private_address",
            Denial::ResolutionFailed { .. } => "resolution_failed",
            Denial::ConnectionFailed { .. } => "connection_failed",
            Denial::SniMismatch { .. } => "sni_mismatch",
            Denial::SniMissing { .. } => "sni_missing",
            Denial::NotTls { .. } => "not_tls",
            Denial::HostMismatch { .. } => "host_mismatch",
            Denial::MethodNotAllowed { .. } => "method_not_allowed",
            Denial::PathNotAllowed { .. } => "path_not_allowed",
            Denial::CertificateRefused { .. } => "certificate_refused",
            Denial::CertificateNotTaken { .. } => "certificate_not_taken",
            Denial::PlaceholderMisplaced { .. } => "placeholder_misplaced",
            Denial::CredentialUnavailable { .. } => "credential_unavailable",
            Denial::CredentialEchoed { .. } => "credential_echoed",
            Denial::BadRequest(_) => "bad_request",
            Denial::Upgrade => "upgrade",
            Denial::Unsupported(_) => "unsupported",
            Denial::TooMany { .. } => "too_many",
            Denial::RateLimited { .. } => "rate_limited",
            Denial::AuditUnavailable => "audit_unavailable",
            Denial::Internal(_) => "internal",
        }
    }

    /// The rule that decided, where one names the host.
    pub fn rule(&self) -> Option<&str> {
        match self {
            Denial::PortNotAllowed { rule, .. }
            | Denial::MethodNotAllowed { rule, .. }
            | Denial::PathNotAllowed { rule, .. } => Some(rule),
            Denial::NetworkOff
            | Denial::HostNotAllowed { .. }
            | Denial::GuardedPort { .. }
            | Denial::RawAddress
            | Denial::BadName(_)
            | Denial::PrivateAddress { .. }
            | Denial::ResolutionFailed { .. }
            | Denial::ConnectionFailed { .. }
            | Denial::SniMismatch { .. }
            | Denial::SniMissing { .. }
            | Denial::NotTls { .. }
            | Denial::HostMismatch { .. }
            | Denial::CertificateRefused { .. }
            | Denial::CertificateNotTaken { .. }
            | Denial::PlaceholderMisplaced { .. }
            | Denial::CredentialUnavailable { .. }
            | Denial::CredentialEchoed { .. }
            | Denial::BadRequest(_)
            | Denial::Upgrade
            | Denial::Unsupported(_)
            | Denial::TooMany { .. }
            | Denial::RateLimited { .. }
            | Denial::AuditUnavailable
            | Denial::Internal(_) => None,
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denial::NetworkOff => write!(
                f,
                "this session reaches its model provider and nothing else; name what it needs in `network` when a session is made, or ask the operator"
            ),
            Denial::HostNotAllowed { host, port, person } => write!(
                f,
                "{host}:{port} is not reached: no rule of this session names {host}; {}",
                Ask(host, *port, *person)
            ),
            Denial::PortNotAllowed {
                host,
                port,
                rule,
                ports,
                person,
            } => write!(
                f,
                "{host}:{port} is not reached: the rule {rule} allows {host} at {}; {}",
                Ports(ports),
                Ask(host, *port, *person)
            ),
            Denial::GuardedPort { host, port } => write!(
                f,
                "{host}:{port} is not reached: port {port} commands machines or sends mail, and opens only by a rule of the operator that is marked private; ask the operator"
            ),
            Denial::RawAddress => write!(
                f,
                "addresses are not reached, only names that a rule allows; use the host's name"
            ),
            Denial::BadName(why) => write!(f, "{why}; use the host's plain name"),
            Denial::PrivateAddress { host, class, .. } => write!(
                f,
                "{host} is not reached: its name leads to {class}; {}",
                if class.opens_by_private() {
                    "if it should, ask the operator for a rule that is marked private"
                } else {
                    "no rule opens such addresses"
                }
            ),
            Denial::ResolutionFailed { host, why } => {
                write!(f, "{host} is allowed, but its name does not resolve: {why}")
            }
            Denial::ConnectionFailed { host, port, why } => write!(
                f,
                "{host}:{port} is allowed, but does not take the server's connection ({why}); try again later, or ask the operator whether this machine may reach it"
            ),
            Denial::SniMismatch { host, sni } => write!(
                f,
                "the tunnel to {host} is closed: TLS in it asks for {sni:?}; both must name the same host"
            ),
            Denial::SniMissing { host } => write!(
                f,
                "the tunnel to {host} is closed: TLS in it names no host (SNI), or hides it; use a client that names it"
            ),
            Denial::NotTls { host, port } => write!(
                f,
                "the tunnel to {host}:{port} is closed: TLS is expected there and something else came; use https, or ask for another port"
            ),
            Denial::HostMismatch { host, named } => write!(
                f,
                "the request to {host} names {named:?} beside it; both must be the same host"
            ),
            Denial::MethodNotAllowed { host, method, rule } => write!(
                f,
                "{method} is not allowed at {host}: the rule {rule} lists other methods; {HOW_TO_ASK}"
            ),
            Denial::PathNotAllowed { host, rule } => write!(
                f,
                "this path is not allowed at {host}: the rule {rule} lists other paths; {HOW_TO_ASK}"
            ),
            Denial::CertificateRefused { host, why } => write!(
                f,
                "{host} is allowed, but {why}; look at the server there, or ask the operator whom this machine should believe"
            ),
            Denial::CertificateNotTaken { host } => write!(
                f,
                "TLS to {host} is opened by a rule, and the client did not take the certificate that it was shown; let it believe {CERTIFICATES_DIRECTORY}/{CERTIFICATES_NAME}, and speak HTTP/1.1"
            ),
            Denial::PlaceholderMisplaced { credential, host } => write!(
                f,
                "the request to {host} holds the placeholder of the credential {credential} where it does not belong; use it at the destinations of the credential alone, and in its header"
            ),
            Denial::CredentialUnavailable { credential } => write!(
                f,
                "the credential {credential} cannot be had now; ask the operator to look at the server's log"
            ),
            Denial::CredentialEchoed { credential } => write!(
                f,
                "the answer holds the credential {credential}, or is compressed so that it could; it is not passed on"
            ),
            Denial::BadRequest(why) => write!(f, "the request cannot be passed on: {why}"),
            Denial::Upgrade => write!(
                f,
                "requests that the proxy reads do not change protocols; use a tunnel (CONNECT) to a host without a rule about methods or paths"
            ),
            Denial::Unsupported(what) => write!(
                f,
                "{what} is not offered; only TCP connections to names that a rule allows are"
            ),
            Denial::TooMany { what, limit } => write!(
                f,
                "this session has {limit} {what}, which is all that it may have at a time; close some, then try again"
            ),
            Denial::RateLimited { per_minute } => write!(
                f,
                "this session has made {per_minute} connections and requests within a minute, which is all that it may; try again in a minute"
            ),
            Denial::AuditUnavailable => write!(
                f,
                "the server could not record this connection, so it does not make it; ask the operator to look at the audit log"
            ),
            Denial::Internal(what) => write!(
                f,
                "the server could not decide: {what}; ask the operator to look at its log"
            ),
        }
    }
}

impl std::error::Error for Denial {}

impl From<NameError> for Denial {
    fn from(why: NameError) -> Denial {
        match why {
            NameError::Address(_) => Denial::RawAddress,
            NameError::Empty | NameError::TooLong | NameError::NotText | NameError::Form(_) => {
                Denial::BadName(why)
            }
        }
    }
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unresolved::NoSuchName => {
                "there is no such name, or it has no address; check its spelling"
            }
            Unresolved::NoAnswer => {
                "no name server answered the server's machine in time; try again later, or ask the operator whether its DNS works"
            }
            Unresolved::Failed => {
                "the resolver of the server's machine failed; ask the operator to look at the server's log"
            }
        })
    }
}

/// How a caller gets a host at a port: by a person's word at once, where the operator's ceiling has it.
struct Ask<'a>(&'a HostName, u16, Option<ByPerson>);

impl fmt::Display for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ask(host, port, person) = self;
        let Some(ByPerson { session, said }) = person else {
            return f.write_str(HOW_TO_ASK);
        };
        match said {
            Said::No => {
                return f.write_str("a person said no, which stands for this session: do without it");
            }
            Said::NothingYet => f.write_str(
                "it waits for a person's word, so try again in a minute: their client asks them where it can, else ",
            )?,
            Said::Nothing => {}
        }
        write!(
            f,
            "a person allows it, outside of this sandbox, with: claude-code-mcp session allow {session} {host}:{port}"
        )
    }
}

/// Ports as a sentence lists them.
struct Ports<'a>(&'a [u16]);

impl fmt::Display for Ports<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<String> = self.0.iter().map(u16::to_string).collect();
        write!(
            f,
            "port{} {}",
            if ports.len() == 1 { "" } else { "s" },
            ports.join(", ")
        )
    }
}

#[cfg(test)]
mod tests;
