//! The first bytes of a tunnel: whether they begin TLS, and for which host. They are looked at, never changed.

use rustls::server::Acceptor;

use crate::destination::{Denial, HostName};

/// A record of TLS that holds part of a handshake (RFC 8446, section 5.1).
pub(crate) const HANDSHAKE: u8 = 0x16;
/// Major version of every record since SSL 3.
const MAJOR: u8 = 0x03;
/// Bytes of a ClientHello with the heads of its records. With keys of post-quantum cryptography it is about 2 KiB.
pub(crate) const MAX_HELLO_BYTES: usize = 16 * 1024;
/// The extension that hides the name of the host (`encrypted_client_hello`, RFC 9849).
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// What is said so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not enough to tell.
    More,
    /// It may pass, and whatever follows.
    Pass,
    /// It may not.
    Refuse(Denial),
}

/// Looks at what a client says first.
pub(crate) struct Inspector {
    host: HostName,
    port: u16,
    /// Something else than TLS is refused.
    must_be_tls: bool,
    acceptor: Acceptor,
    seen: Vec<u8>,
}

impl Inspector {
    pub(crate) fn new(host: HostName, port: u16, must_be_tls: bool) -> Self {
        Inspector {
            host,
            port,
            must_be_tls,
            acceptor: Acceptor::default(),
            seen: Vec::new(),
        }
    }

    /// Takes the next bytes.
    pub(crate) fn look(&mut self, bytes: &[u8]) -> Verdict {
        self.seen.extend_from_slice(bytes);
        match self.begins_as_tls() {
            None => Verdict::More,
            Some(false) if self.must_be_tls => Verdict::Refuse(self.not_tls()),
            Some(false) => Verdict::Pass,
            Some(true) => self.accept(bytes),
        }
    }

    /// Whether anything came that has to be answered for: TLS that is not whole yet.
    pub(crate) fn has_begun(&self) -> bool {
        !self.seen.is_empty()
    }

    /// Whether something else than TLS is refused.
    pub(crate) fn must_be_tls(&self) -> bool {
        self.must_be_tls
    }

    /// All that it was given, byte for byte.
    pub(crate) fn into_seen(self) -> Vec<u8> {
        self.seen
    }

    /// What is to be said when the client ends, or waits too long, before it has said enough.
    pub(crate) fn unfinished(&self) -> Denial {
        self.not_tls()
    }

    fn begins_as_tls(&self) -> Option<bool> {
        match self.seen.as_slice() {
            [] => None,
            [first] if *first == HANDSHAKE => None,
            [first, second, ..] if (*first, *second) == (HANDSHAKE, MAJOR) => Some(true),
            _ => Some(false),
        }
    }

    fn accept(&mut self, new: &[u8]) -> Verdict {
        if self.seen.len() > MAX_HELLO_BYTES {
            return Verdict::Refuse(self.not_tls());
        }
        // The first byte may have come alone, and was kept from the acceptor until the second one told what it is.
        let mut unread = if self.seen.len() - new.len() < 2 {
            self.seen.as_slice()
        } else {
            new
        };
        while !unread.is_empty() {
            match self.acceptor.read_tls(&mut unread) {
                Ok(0) | Err(_) => return Verdict::Refuse(self.not_tls()),
                Ok(_) => {}
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let sni = accepted.client_hello().server_name().map(str::to_owned);
                    return self.judge(sni);
                }
                Err(_) => return Verdict::Refuse(self.not_tls()),
            }
        }
        Verdict::More
    }

    fn judge(&self, sni: Option<String>) -> Verdict {
        let Some(sni) = sni else {
            return Verdict::Refuse(self.sni_missing());
        };
        if HostName::parse(sni.as_bytes()).as_ref() != Ok(&self.host) {
            return Verdict::Refuse(Denial::SniMismatch {
                host: self.host.clone(),
                sni,
            });
        }
        // The name in clear is then only a cover: the server acts by the one that is hidden.
        match has_extension(&self.seen, ENCRYPTED_CLIENT_HELLO) {
            Some(false) => Verdict::Pass,
            Some(true) | None => Verdict::Refuse(self.sni_missing()),
        }
    }

    fn not_tls(&self) -> Denial {
        Denial::NotTls {
            host: self.host.clone(),
            port: self.port,
        }
    }

    fn sni_missing(&self) -> Denial {
        Denial::SniMissing {
            host: self.host.clone(),
        }
    }
}

/// Whether a ClientHello, which rustls has already understood, has an extension; nothing where it cannot be told.
fn has_extension(records: &[u8], wanted: u16) -> Option<bool> {
    let message = handshake(records)?;
    let mut hello = Fields(&message);
    // Type and length, version, random.
    hello.skip(4 + 2 + 32)?;
    hello.vector::<1>()?; // session id
    hello.vector::<2>()?; // cipher suites
    hello.vector::<1>()?; // compression methods
    let mut extensions = Fields(hello.vector::<2>()?);
    while !extensions.0.is_empty() {
        let kind = extensions.number::<2>()?;
        extensions.vector::<2>()?;
        if kind == usize::from(wanted) {
            return Some(true);
        }
    }
    Some(false)
}

/// The first handshake message, which may lie in several records.
fn handshake(records: &[u8]) -> Option<Vec<u8>> {
    let mut records = Fields(records);
    let mut message = Vec::new();
    loop {
        if let Some([_, length @ ..]) = message.first_chunk::<4>() {
            let length = 4 + length
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            if message.len() >= length {
                message.truncate(length);
                return Some(message);
            }
        }
        if records.number::<1>()? != usize::from(HANDSHAKE) {
            return None;
        }
        records.skip(2)?;
        message.extend_from_slice(records.vector::<2>()?);
    }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(|_| ())
    }

    fn number<const BYTES: usize>(&mut self) -> Option<usize> {
        let bytes = self.take(BYTES)?;
        Some(
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        )
    }

    /// Bytes behind their own number.
    fn vector<const BYTES: usize>(&mut self) -> Option<&'a [u8]> {
        let count = self.number::<BYTES>()?;
        self.take(count)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
