//! Who is on the other side of a connection, and whose request it is.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use model::{Source, Transport};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// By TCP.
    Tcp {
        /// Its address; one of IPv4 is never written as one of IPv6.
        address: IpAddr,
        /// It is a proxy that the operator names.
        is_proxy: bool,
    },
    /// By the unix socket: a process of the server's user or of root.
    Unix,
}

impl Peer {
    pub(crate) fn tcp(address: IpAddr, proxies: &[IpAddr]) -> Self {
        let address = address.to_canonical();
        Peer::Tcp {
            address,
            is_proxy: is_among(address, proxies),
        }
    }

    /// Where a request of this peer comes from: of a proxy, the address that it names.
    pub(crate) fn source(self, headers: &HeaderMap, proxies: &[IpAddr]) -> Source {
        match self {
            Peer::Tcp { address, is_proxy } => Source {
                transport: Transport::Http,
                address: Some(match is_proxy {
                    true => forwarded(headers, proxies).unwrap_or(address),
                    false => address,
                }),
            },
            Peer::Unix => Source {
                transport: Transport::HttpUnix,
                address: forwarded(headers, proxies),
            },
        }
    }
}

fn is_among(address: IpAddr, proxies: &[IpAddr]) -> bool {
    proxies.iter().any(|proxy| proxy.to_canonical() == address)
}

/// The last address that is no proxy's own. What stands before it was said by the client itself, and is not believed.
fn forwarded(headers: &HeaderMap, proxies: &[IpAddr]) -> Option<IpAddr> {
    // Also where the client put bytes in front that are no text: what the proxy appended is read all the same.
    let values: Vec<Cow<'_, str>> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    let entries = values.iter().flat_map(|value| value.split(','));
    for entry in entries.rev() {
        let address: IpAddr = entry.trim().parse().ok()?;
        let address = address.to_canonical();
        if !is_among(address, proxies) {
            return Some(address);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn seen(peer: &str, forwarded: &[&str]) -> IpAddr {
        let proxies = [ip("192.0.2.1"), ip("192.0.2.2")];
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let source = Peer::tcp(ip(peer), &proxies).source(&headers, &proxies);
        source.address.unwrap()
    }

    #[test]
    fn only_a_named_proxy_is_believed_and_only_its_own_word() {
        assert_eq!(seen("198.51.100.9", &["203.0.113.1"]), ip("198.51.100.9"));
        assert_eq!(seen("192.0.2.1", &["203.0.113.1"]), ip("203.0.113.1"));
        assert_eq!(
            seen("::ffff:192.0.2.1", &["203.0.113.1"]),
            ip("203.0.113.1")
        );
        // What the client itself wrote stands before what the proxy added.
        assert_eq!(
            seen("192.0.2.1", &["10.0.0.1, 203.0.113.1"]),
            ip("203.0.113.1")
        );
        assert_eq!(
            seen("192.0.2.1", &["10.0.0.1", "203.0.113.1"]),
            ip("203.0.113.1")
        );
        assert_eq!(
            seen("192.0.2.1", &["203.0.113.1, 192.0.2.2"]),
            ip("203.0.113.1")
        );
        for nothing in [
            &[][..],
            &["unknown"],
            &["203.0.113.1, garbage"],
            &["192.0.2.2"],
        ] {
            assert_eq!(seen("192.0.2.1", nothing), ip("192.0.2.1"), "{nothing:?}");
        }
    }
}
