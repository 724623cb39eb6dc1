//! `host:port` as a client writes it, and the host that it means.

use crate::destination::{Denial, HostName};

/// Characters of another host that a refusal repeats.
const MAX_NAMED_CHARS: usize = 80;

/// Where a connection is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub host: HostName,
    pub port: u16,
}

/// Reads an authority (RFC 3986, section 3.2) that has a port, unless there is one to fall back to. Users and passwords in it
/// are refused with it.
pub(crate) fn parse(authority: &[u8], default_port: Option<u16>) -> Result<Target, Denial> {
    let (host, port) = split(authority);
    let port = match port {
        Some(digits) => number(digits),
        None => default_port,
    };
    Ok(Target {
        host: HostName::parse(host)?,
        port: port.ok_or(Denial::BadRequest("the target has no port from 1 to 65535"))?,
    })
}

/// What stands where a host belongs, and the port where one can be read: for the record of what is refused.
pub(crate) fn written(authority: &[u8], default_port: Option<u16>) -> (&[u8], Option<u16>) {
    let (host, digits) = split(authority);
    match digits.map(number) {
        None => (host, default_port),
        Some(Some(port)) => (host, Some(port)),
        Some(None) => (authority, None),
    }
}

/// Whether what stands beside a target, in the header `host`, means the same.
pub(crate) fn same(meant: &Target, beside: &[u8], default_port: u16) -> Result<(), Denial> {
    match parse(beside, Some(default_port)) {
        Ok(named) if named == *meant => Ok(()),
        _ => Err(Denial::HostMismatch {
            host: meant.host.clone(),
            named: beside
                .escape_ascii()
                .map(char::from)
                .take(MAX_NAMED_CHARS)
                .collect(),
        }),
    }
}

/// What stands before the last colon and after it. An address in brackets has colons of its own.
fn split(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    let bracket = authority.iter().rposition(|byte| *byte == b']');
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(colon) if bracket.is_none_or(|bracket| bracket < colon) => {
            (&authority[..colon], Some(&authority[colon + 1..]))
        }
        _ => (authority, None),
    }
}

fn number(digits: &[u8]) -> Option<u16> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| plain)?;
    text.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_port() {
        for (text, default, host, port) in [
            ("example.com:443", None, "example.com", 443),
            ("EXAMPLE.com.:22", None, "example.com", 22),
            ("example.com", Some(80), "example.com", 80),
            ("example.com:8080", Some(80), "example.com", 8080),
        ] {
            let target = parse(text.as_bytes(), default).unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port), "{text}");
        }
    }

    #[test]
    fn of_what_is_refused_the_port_is_known_where_it_was_said() {
        for (text, default, host, port) in [
            ("169.254.169.254:80", None, "169.254.169.254", Some(80)),
            ("169.254.169.254", Some(80), "169.254.169.254", Some(80)),
            ("169.254.169.254", None, "169.254.169.254", None),
            ("[fd00:ec2::254]:443", None, "[fd00:ec2::254]", Some(443)),
            ("[fd00:ec2::254]", None, "[fd00:ec2::254]", None),
            ("example.com:0", None, "example.com:0", None),
            ("example.com:http", Some(80), "example.com:http", None),
        ] {
            let found = written(text.as_bytes(), default);
            assert_eq!(found, (host.as_bytes(), port), "{text}");
        }
    }

    #[test]
    fn what_is_no_target_says_why() {
        for (text, code) in [
            ("example.com", "bad_request"),
            ("example.com:", "bad_request"),
            ("example.com:0", "bad_request"),
            ("example.com:65536", "bad_request"),
            ("example.com:+443", "bad_request"),
            ("example.com: 443", "bad_request"),
            ("example.com:0x1bb", "bad_request"),
            ("127.0.0.1:443", "raw_address"),
            ("[::1]:443", "raw_address"),
            ("[::ffff:169.254.169.254]:443", "raw_address"),
            ("0x7f.1:443", "raw_address"),
            ("2130706433:443", "raw_address"),
            ("user@example.com:443", "bad_name"),
            ("example.com:80:443", "bad_name"),
            ("exa mple.com:443", "bad_name"),
            ("example.com\0.evil.org:443", "bad_name"),
            ("example%2ecom:443", "bad_name"),
            (":443", "bad_name"),
        ] {
            let denial = parse(text.as_bytes(), None).unwrap_err();
            assert_eq!(denial.code(), code, "{text:?}");
        }
    }
}
