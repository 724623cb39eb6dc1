//! 401 and 403 with what an OAuth client needs to go on (RFC 6750, RFC 9728).

use http::{HeaderValue, StatusCode, header};
use model::{Scope, Scopes};

use crate::{answer::Refused, metadata::Metadata, oauth::TokenError};

/// Longest part of a challenge that is not fixed: a URL of the configuration and words of ours.
const REALM: &str = "claude-code-mcp";

/// What the challenges of a door say.
#[derive(Debug)]
pub(crate) struct Challenges {
    /// Where the metadata stands, where there is an issuer to go to.
    metadata: Option<String>,
}

impl Challenges {
    pub(crate) fn new(metadata: Option<&Metadata>) -> Self {
        Challenges {
            metadata: metadata.map(|metadata| metadata.url().to_owned()),
        }
    }

    /// No token was presented.
    pub(crate) fn nobody(&self) -> Refused {
        let least = Scopes::NONE.with(Scope::SessionsRead);
        Refused::new(
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "the request presents no token",
            "Send Authorization: Bearer and an API key of this server, or an access token for it.",
        )
        .with(header::WWW_AUTHENTICATE, self.challenge(None, Some(least)))
    }

    /// What was presented is nobody's token, or not any more.
    pub(crate) fn invalid(&self, why: Option<TokenError>) -> Refused {
        let message = match why {
            Some(why) => format!("the access token is not valid: {why}"),
            None => "the token is not valid: it is unknown, expired or revoked".to_owned(),
        };
        Refused::new(
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            message,
            "Get a new token, or have the server's operator make a new key.",
        )
        .with(
            header::WWW_AUTHENTICATE,
            self.challenge(Some("invalid_token"), None),
        )
    }

    /// The token lacks a scope: all those of the operation are named, so that one more consent is enough.
    pub(crate) fn insufficient(&self, scopes: Scopes) -> Refused {
        Refused::new(
            StatusCode::FORBIDDEN,
            "insufficient_scope",
            format!("the token does not allow this; it needs the scopes {scopes}"),
            "Ask the authorization server for a token with these scopes.",
        )
        .with(
            header::WWW_AUTHENTICATE,
            self.challenge(Some("insufficient_scope"), Some(scopes)),
        )
    }

    /// Made of our own words and of a URL of the configuration that was checked.
    fn challenge(&self, error: Option<&str>, scopes: Option<Scopes>) -> HeaderValue {
        let mut text = format!("Bearer realm=\"{REALM}\"");
        let mut add = |name: &str, value: &str| text.push_str(&format!(", {name}=\"{value}\""));
        if let Some(error) = error {
            add("error", error);
        }
        if let Some(scopes) = scopes {
            add("scope", &scopes.to_string());
        }
        if let Some(url) = &self.metadata {
            add("resource_metadata", url);
        }
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer"))
    }
}
