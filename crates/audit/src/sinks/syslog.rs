//! A syslog daemon, by RFC 5424: datagrams to a local socket, or a TCP connection with octet counting (RFC 6587 §3.4.1).
//!
//! TCP goes to this machine alone, since syslog has no secrecy of its own; a relay here carries it further over TLS. Neither
//! way has an acknowledgment: what a daemon had taken and not kept when it died is lost. A webhook and a second file confirm.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    time::Duration,
};

use super::worker::{Message, Target, Undelivered};
use crate::export::Told;

/// `APP-NAME`.
const APPLICATION: &str = "claude-code-mcp";
/// How long a daemon may take for what it is sent.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest `MSGID` (RFC 5424 §6).
const MAX_MESSAGE_ID_BYTES: usize = 32;
/// Longest `HOSTNAME` (RFC 5424 §6).
const MAX_HOST_BYTES: usize = 255;
/// `sequenceId` goes from 1 to 2^31 − 1 and around (RFC 5424 §7.3.1).
const SEQUENCE_MODULUS: u64 = (1 << 31) - 1;

/// Where a syslog daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogAddress {
    /// A socket for datagrams, usually `/dev/log`.
    Datagram(PathBuf),
    /// A port of this machine. Made by [`SyslogAddress::tcp`].
    Tcp(Loopback),
}

/// A port at a loopback address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loopback(SocketAddr);

impl SyslogAddress {
    /// A port, if it is one of this machine.
    pub fn tcp(address: SocketAddr) -> Option<Self> {
        let is_here = address.ip().is_loopback();
        is_here.then_some(SyslogAddress::Tcp(Loopback(address)))
    }
}

/// A syslog facility, 0 to 23 (RFC 5424 §6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(u8);

impl Facility {
    /// "log audit", 13.
    pub const LOG_AUDIT: Facility = Facility(13);

    /// By the usual name.
    pub fn named(name: &str) -> Option<Facility> {
        let number = match name {
            "user" => 1,
            "daemon" => 3,
            "auth" => 4,
            "authpriv" => 10,
            "audit" => 13,
            "local0" => 16,
            "local1" => 17,
            "local2" => 18,
            "local3" => 19,
            "local4" => 20,
            "local5" => 21,
            "local6" => 22,
            "local7" => 23,
            _ => return None,
        };
        Some(Facility(number))
    }
}

/// Warning for what failed or is missing, notice for what was refused or given up, informational else (RFC 5424 §6.2.1).
pub(super) fn severity(about: &Told) -> u8 {
    match (about.action.as_str(), about.result.as_str()) {
        ("audit.gap" | "sink.gap" | "auth.fail" | "auth.lockout", _) | (_, "failed") => 4,
        (_, "denied" | "aborted" | "unknown") => 5,
        _ => 6,
    }
}

/// A socket for datagrams that is connected and never waits for ever.
pub(super) fn datagram_socket(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    Ok(socket)
}

pub(super) struct Syslog {
    address: SyslogAddress,
    facility: Facility,
    host: String,
    open: Option<Open>,
}

enum Open {
    Datagram(UnixDatagram),
    Tcp(TcpStream),
}

impl Syslog {
    pub(super) fn new(address: SyslogAddress, facility: Facility, host: &str) -> Self {
        Syslog {
            address,
            facility,
            host: header_word(host, MAX_HOST_BYTES),
            open: None,
        }
    }

    fn connect(&self) -> io::Result<Open> {
        match &self.address {
            SyslogAddress::Datagram(path) => datagram_socket(path).map(Open::Datagram),
            SyslogAddress::Tcp(Loopback(address)) => {
                let stream = TcpStream::connect_timeout(address, TIMEOUT)?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                Ok(Open::Tcp(stream))
            }
        }
    }

    fn send(&mut self, message: &Message) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.connect()?,
        };
        let line = self.line(message);
        match &mut open {
            Open::Datagram(socket) => {
                socket.send(line.as_bytes())?;
            }
            Open::Tcp(stream) => {
                refuse_closed(stream)?;
                stream.write_all(format!("{} {line}", line.len()).as_bytes())?;
            }
        }
        // After a failure a connection may hold half a message, so it is not used again.
        self.open = Some(open);
        Ok(())
    }

    fn line(&self, message: &Message) -> String {
        let about = &message.about;
        format!(
            "<{priority}>1 {time} {host} {APPLICATION} {pid} {id} [meta sequenceId=\"{sequence}\"] {text}",
            priority = u16::from(self.facility.0) * 8 + u16::from(severity(about)),
            time = about.timestamp.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"),
            host = self.host,
            pid = std::process::id(),
            id = header_word(&about.action, MAX_MESSAGE_ID_BYTES),
            sequence = about.seq.saturating_sub(1) % SEQUENCE_MODULUS + 1,
            text = message.text,
        )
    }
}

impl Target for Syslog {
    fn deliver(&mut self, messages: &[Message]) -> Result<(), Undelivered> {
        for (taken, message) in messages.iter().enumerate() {
            self.send(message).map_err(|error| Undelivered {
                taken,
                error: format!("syslog: {error}"),
            })?;
        }
        Ok(())
    }
}

/// A daemon never answers, so an end of its stream means that it is gone: what is written then would be lost unseen.
fn refuse_closed(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let ended = matches!(stream.read(&mut [0; 64]), Ok(0));
    stream.set_nonblocking(false)?;
    match ended {
        true => Err(io::ErrorKind::ConnectionAborted.into()),
        false => Ok(()),
    }
}

/// Printable ASCII without spaces; `-` where nothing is left.
fn header_word(text: &str, most: usize) -> String {
    let word: String = text
        .chars()
        .filter(char::is_ascii_graphic)
        .take(most)
        .collect();
    if word.is_empty() {
        "-".to_owned()
    } else {
        word
    }
}
