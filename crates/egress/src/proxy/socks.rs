//! SOCKS5 (RFC 1928), as far as it is offered: no authentication, CONNECT, names, and the addresses that the stub DNS gave.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::destination::{Denial, HostName};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NOTHING_ACCEPTABLE: u8 = 0xff;
const CONNECT: u8 = 1;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SocksRequest {
    pub destination: SocksDestination,
    pub port: u16,
}

/// Where to, in the form in which it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SocksDestination {
    Name(Vec<u8>),
    Address(IpAddr),
}

/// What a reply says (RFC 1928, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Succeeded = 0,
    GeneralFailure = 1,
    NotAllowed = 2,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    CommandNotSupported = 7,
}

/// Why there is no request.
#[derive(Debug)]
pub(crate) enum SocksError {
    /// It is answered by a reply.
    Refused(Denial),
    /// The client went away, or speaks something else: there is nothing to answer.
    Gone,
}

/// Reads the greeting, answers it, and reads the request.
pub(crate) async fn accept<S>(stream: &mut S) -> Result<SocksRequest, SocksError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let [version, count] = take(stream).await?;
    if version != VERSION {
        return Err(SocksError::Gone);
    }
    let mut methods = vec![0; usize::from(count)];
    fill(stream, &mut methods).await?;
    let is_open = methods.contains(&NO_AUTHENTICATION);
    let method = if is_open {
        NO_AUTHENTICATION
    } else {
        NOTHING_ACCEPTABLE
    };
    put(stream, &[VERSION, method]).await?;
    if !is_open {
        return Err(SocksError::Gone);
    }
    request(stream).await
}

async fn request<S: AsyncRead + Unpin>(stream: &mut S) -> Result<SocksRequest, SocksError> {
    let [version, command, reserved, kind] = take(stream).await?;
    if (version, reserved) != (VERSION, 0) {
        return Err(SocksError::Gone);
    }
    let destination = match kind {
        1 => SocksDestination::Address(Ipv4Addr::from(take::<4, _>(stream).await?).into()),
        4 => SocksDestination::Address(Ipv6Addr::from(take::<16, _>(stream).await?).into()),
        3 => {
            let [length] = take(stream).await?;
            let mut name = vec![0; usize::from(length)];
            fill(stream, &mut name).await?;
            SocksDestination::Name(name)
        }
        _ => return Err(SocksError::Gone),
    };
    let port = u16::from_be_bytes(take(stream).await?);
    if command != CONNECT {
        return Err(SocksError::Refused(Denial::Unsupported(
            "a command of SOCKS other than CONNECT",
        )));
    }
    if port == 0 {
        return Err(SocksError::Refused(Denial::BadRequest(
            "the target has no port from 1 to 65535",
        )));
    }
    Ok(SocksRequest { destination, port })
}

/// A reply. Which address the host dialed from is nothing that the client needs.
pub(crate) const fn reply(reply: Reply) -> [u8; 10] {
    [VERSION, reply as u8, 0, 1, 0, 0, 0, 0, 0, 0]
}

impl SocksDestination {
    /// The name that is meant; `name_of` knows what a handed out address stands for.
    pub(crate) fn name(
        &self,
        name_of: impl FnOnce(Ipv4Addr) -> Option<HostName>,
    ) -> Result<HostName, Denial> {
        match self {
            SocksDestination::Name(raw) => Ok(HostName::parse(raw)?),
            SocksDestination::Address(IpAddr::V4(address)) => {
                name_of(*address).ok_or(Denial::RawAddress)
            }
            SocksDestination::Address(IpAddr::V6(_)) => Err(Denial::RawAddress),
        }
    }

    /// As it was written.
    pub(crate) fn written(&self) -> Vec<u8> {
        match self {
            SocksDestination::Name(raw) => raw.clone(),
            SocksDestination::Address(address) => address.to_string().into_bytes(),
        }
    }
}

async fn take<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> Result<[u8; N], SocksError> {
    let mut bytes = [0; N];
    fill(stream, &mut bytes).await?;
    Ok(bytes)
}

async fn fill<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut [u8]) -> Result<(), SocksError> {
    match stream.read_exact(bytes).await {
        Ok(_) => Ok(()),
        Err(_) => Err(SocksError::Gone),
    }
}

async fn put<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), SocksError> {
    let sent = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    sent.await.map_err(|_| SocksError::Gone)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<SocksRequest, SocksError> {
        let mut stream = one_way(bytes);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(accept(&mut stream))
    }

    /// Reads what is given, swallows what is written.
    fn one_way(bytes: &[u8]) -> impl AsyncRead + AsyncWrite + Unpin + use<> {
        tokio::io::join(std::io::Cursor::new(bytes.to_vec()), tokio::io::sink())
    }

    const GREETING: &[u8] = &[5, 2, 1, 0];

    fn asking(rest: &[u8]) -> Vec<u8> {
        [GREETING, rest].concat()
    }

    #[test]
    fn names_and_addresses() {
        let name = read(&asking(b"\x05\x01\x00\x03\x0bexample.com\x01\xbb")).unwrap();
        assert_eq!(
            name.destination,
            SocksDestination::Name(b"example.com".to_vec())
        );
        assert_eq!(name.port, 443);
        let four = read(&asking(&[5, 1, 0, 1, 198, 18, 0, 1, 0, 22])).unwrap();
        let known = HostName::parse(b"a.example").unwrap();
        assert_eq!(four.destination.name(|_| Some(known.clone())), Ok(known));
        assert_eq!(four.destination.name(|_| None), Err(Denial::RawAddress));
        let six = [&[5, 1, 0, 4][..], &[0; 16], &[0, 80]].concat();
        let six = read(&asking(&six)).unwrap();
        assert_eq!(six.destination.name(|_| None), Err(Denial::RawAddress));
    }

    #[test]
    fn a_name_is_the_whole_of_it() {
        for (raw, code) in [
            (&b"example.com\0.evil.org"[..], "bad_name"),
            (b"example.com\r\n", "bad_name"),
            (b"a@example.com", "bad_name"),
            (b"", "bad_name"),
            (b"127.0.0.1", "raw_address"),
            (b"0x7f000001", "raw_address"),
        ] {
            let denial = SocksDestination::Name(raw.to_vec())
                .name(|_| None)
                .unwrap_err();
            assert_eq!(denial.code(), code, "{raw:?}");
        }
    }

    #[test]
    fn other_commands_are_refused_and_other_protocols_are_not_answered() {
        for command in [2, 3, 9] {
            let bytes = asking(&[5, command, 0, 1, 1, 1, 1, 1, 0, 53]);
            let SocksError::Refused(denial) = read(&bytes).unwrap_err() else {
                panic!("{command}");
            };
            assert_eq!(denial.code(), "unsupported");
        }
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[4, 1, 0, 80, 1, 1, 1, 1, 0],
            &[5, 1, 2],
            &[5, 0],
            &[5, 1, 0, 5, 1, 0, 9, 0, 80],
            &[5, 1, 0, 5, 1, 7, 1, 1, 1, 1, 1, 0, 80],
            &[5, 1, 0, 5, 1, 0, 3, 200, 1],
        ] {
            assert!(matches!(read(bytes), Err(SocksError::Gone)), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_no_request_or_one_with_a_judged_name(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for bytes in [bytes.clone(), asking(&bytes)] {
                if let Ok(request) = read(&bytes) {
                    let _ = request.destination.name(|_| None);
                }
            }
        }
    }
}
