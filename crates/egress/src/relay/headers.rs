//! Which headers pass, in both directions.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use model::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::message::{is_hop_by_hop, nominated};

/// What a client may not say to the provider: credentials of its own, whom it speaks for, how the answer is packed (the
/// usage in it must be readable here), and what the relay says itself.
const NOT_UP: &[&str] = &[
    "authorization",
    "x-api-key",
    "cookie",
    "host",
    "content-length",
    "expect",
    "accept-encoding",
    "forwarded",
    "via",
    "x-real-ip",
];

/// Beginnings of the same. `x-amz-` and `x-goog-` choose signatures, tokens, and the project that pays.
const NOT_UP_PREFIXES: &[&str] = &["proxy-", "x-forwarded-", "x-amz-", "x-goog-"];

/// What a provider may not say to the client: state for a browser, other ways to reach it, and the length, which is said
/// anew for what is really passed on.
const NOT_DOWN: &[&str] = &["set-cookie", "alt-svc", "content-length", "x-relay-denied"];

/// The digest of a session's token, for [`carries_token`]. The token itself need not be kept.
pub(crate) fn token_digest(token: &Secret<String>) -> [u8; 32] {
    Sha256::digest(token.expose().as_bytes()).into()
}

/// Whether the session's token stands where Claude Code puts its credential. Takes the same time whatever is wrong with
/// what is presented.
pub(crate) fn carries_token(headers: &HeaderMap, expected: &[u8; 32]) -> bool {
    let bearer = headers
        .get_all(header::AUTHORIZATION)
        .iter()
        .filter_map(|value| {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.as_bytes())
        });
    let plain = headers
        .get_all("x-api-key")
        .iter()
        .map(HeaderValue::as_bytes);
    bearer.chain(plain).fold(false, |found, presented| {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        found | bool::from(digest.ct_eq(expected))
    })
}

/// The client's headers as the provider may see them.
pub(crate) fn up(client: &HeaderMap) -> HeaderMap {
    let nominated = nominated(client);
    filtered(client, |name, _| {
        !is_hop_by_hop(name)
            && !NOT_UP.contains(&name)
            && !NOT_UP_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
            && !nominated.iter().any(|other| other == name)
    })
}

/// The provider's headers as the client may see them. None of those that hold one of `secrets` passes.
pub(crate) fn down(upstream: &HeaderMap, secrets: &[HeaderValue]) -> HeaderMap {
    let nominated = nominated(upstream);
    filtered(upstream, |name, value| {
        !is_hop_by_hop(name)
            && !NOT_DOWN.contains(&name)
            && !name.starts_with("proxy-")
            && !nominated.iter().any(|other| other == name)
            && !secrets.iter().any(|secret| holds(value, secret))
    })
}

fn holds(value: &HeaderValue, secret: &HeaderValue) -> bool {
    let secret = secret.as_bytes();
    !secret.is_empty()
        && value
            .as_bytes()
            .windows(secret.len())
            .any(|window| window == secret)
}

fn filtered(headers: &HeaderMap, keep: impl Fn(&str, &HeaderValue) -> bool) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, value)| keep(name.as_str(), value))
        .map(|(name, value)| (HeaderName::clone(name), value.clone()))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    name.parse::<HeaderName>().unwrap(),
                    value.parse::<HeaderValue>().unwrap(),
                )
            })
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_token_counts_where_a_client_puts_it() {
        let digest = token_digest(&Secret::new("right".to_owned()));
        for (lines, found) in [
            (vec![("authorization", "Bearer right")], true),
            (vec![("authorization", "bearer right")], true),
            (vec![("x-api-key", "right")], true),
            (vec![("x-relay-token", "right")], false),
            (
                vec![("authorization", "Bearer wrong"), ("x-api-key", "right")],
                true,
            ),
            (vec![("authorization", "right")], false),
            (vec![("authorization", "Basic right")], false),
            (vec![("x-api-key", "righ")], false),
            (vec![("x-api-key", "")], false),
            (vec![("cookie", "right")], false),
            (vec![], false),
        ] {
            assert_eq!(carries_token(&map(&lines), &digest), found, "{lines:?}");
        }
    }

    #[test]
    fn what_goes_up() {
        let client = map(&[
            ("authorization", "x"),
            ("x-api-key", "x"),
            ("cookie", "x"),
            ("proxy-authorization", "x"),
            ("x-forwarded-for", "x"),
            ("x-amz-security-token", "x"),
            ("x-goog-user-project", "x"),
            ("connection", "close, x-hop"),
            ("x-hop", "x"),
            ("te", "trailers"),
            ("host", "proxy"),
            ("accept-encoding", "br"),
            ("content-length", "3"),
            ("expect", "100-continue"),
            ("via", "x"),
            ("anthropic-beta", "a,b"),
            ("anthropic-version", "2023-06-01"),
            ("content-type", "application/json"),
            ("x-amzn-bedrock-trace", "DISABLED"),
            ("x-claude-code-session-id", "s"),
        ]);
        assert_eq!(
            names(&up(&client)),
            [
                "anthropic-beta",
                "anthropic-version",
                "content-type",
                "x-amzn-bedrock-trace",
                "x-claude-code-session-id"
            ]
        );
    }

    #[test]
    fn what_comes_down() {
        let upstream = map(&[
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("alt-svc", "h3"),
            ("connection", "x-hop"),
            ("x-hop", "x"),
            ("transfer-encoding", "chunked"),
            ("x-echo", "you sent: canary!"),
            ("content-type", "text/event-stream"),
            ("request-id", "req_1"),
            ("retry-after", "3"),
        ]);
        let secrets = [HeaderValue::from_static("canary")];
        assert_eq!(
            names(&down(&upstream, &secrets)),
            ["content-type", "request-id", "retry-after"]
        );
        assert!(down(&upstream, &[]).contains_key("x-echo"));
    }
}
