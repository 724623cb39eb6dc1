//! The token of a request: in `Authorization` alone.

use http::{StatusCode, header, request::Parts};
use model::Secret;

use crate::answer::Refused;

/// Longest token, bytes. Access tokens with many claims have some 4 KiB.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Parameters in which tokens are found where they must not be.
const TOKEN_PARAMETERS: [&str; 6] = [
    "access_token",
    "token",
    "api_key",
    "apikey",
    "key",
    "authorization",
];

/// What a request presents.
pub(crate) enum Presented {
    /// Nothing.
    Nothing,
    /// A token; what kind of is not known yet.
    Token(Secret<String>),
}

/// Reads it.
///
/// # Errors
/// For a token in the URL, where logs and histories keep it; for two of them, or what is none.
pub(crate) fn presented(head: &Parts) -> Result<Presented, Refused> {
    if in_query(head.uri.query().unwrap_or_default()) {
        return Err(Refused::bad_request(
            "a token stands in the URL",
            "Send it as Authorization: Bearer, and take this one out of use: URLs are kept in logs.",
        ));
    }
    let mut values = head.headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(Presented::Nothing);
    };
    let token = value.to_str().ok().and_then(bearer);
    match (token, values.next()) {
        (Some(token), None) => Ok(Presented::Token(Secret::new(token.to_owned()))),
        _ => Err(Refused::new(
            StatusCode::BAD_REQUEST,
            "bad_request",
            "Authorization is not one Bearer token",
            "Send Authorization: Bearer and the token, once.",
        )),
    }
}

fn in_query(query: &str) -> bool {
    query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        TOKEN_PARAMETERS
            .iter()
            .any(|token| name.eq_ignore_ascii_case(token))
    })
}

/// `Bearer` and a b64token of RFC 6750.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_matches(' ');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    let fits = (1..=MAX_TOKEN_BYTES).contains(&token.len()) && token.bytes().all(plain);
    (scheme.eq_ignore_ascii_case("bearer") && fits).then_some(token)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn token(uri: &str, values: &[&str]) -> Result<Option<String>, StatusCode> {
        let mut request = Request::post(uri);
        for value in values {
            request = request.header("authorization", *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        match presented(&head) {
            Ok(Presented::Nothing) => Ok(None),
            Ok(Presented::Token(token)) => Ok(Some(token.expose().clone())),
            Err(refused) => Err(refused.status()),
        }
    }

    #[test]
    fn a_token_stands_in_one_place_once() {
        let bad = Err(StatusCode::BAD_REQUEST);
        assert_eq!(token("/mcp", &[]), Ok(None));
        assert_eq!(
            token("/mcp", &["Bearer a.b-c_d~e+f/g="]),
            Ok(Some("a.b-c_d~e+f/g=".to_owned()))
        );
        assert_eq!(token("/mcp", &["bearer  a"]), Ok(Some("a".to_owned())));
        assert_eq!(
            token("/mcp?cursor=1&a=token", &["Bearer a"]),
            Ok(Some("a".to_owned()))
        );
        for wrong in [
            "Basic YTpi",
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer a,b",
            "a",
        ] {
            assert_eq!(token("/mcp", &[wrong]), bad, "{wrong}");
        }
        assert_eq!(token("/mcp", &["Bearer a", "Bearer a"]), bad);
        let long = |bytes| format!("Bearer {}", "a".repeat(bytes));
        assert_eq!(token("/mcp", &[&long(MAX_TOKEN_BYTES + 1)]), bad);
        assert!(token("/mcp", &[&long(MAX_TOKEN_BYTES)]).is_ok());
        for uri in ["/mcp?access_token=a", "/mcp?x=1&Token=a", "/mcp?key"] {
            assert_eq!(token(uri, &["Bearer a"]), bad, "{uri}");
        }
    }
}
