//! Access tokens: the resource server's side of OAuth 2.1.
//!
//! A token is a JWT (RFC 9068, or what issuers made before it) of an issuer that the operator names, for this server's
//! URL, signed with a key that the issuer publishes. Reading order: `token` (what is checked of one, in which order),
//! `key` (one published key), `issuer` (how keys are found and kept), `fetch` (requests to issuers).
//!
//! Signatures are checked by *ring*, as everywhere in this program; the JOSE libraries at hand bring another cryptography
//! with them. What this does not do: it asks no issuer about a single token (introspection), so a token that was revoked
//! there is good until its `exp`; issuers keep that short.

mod fetch;
mod issuer;
mod key;
mod token;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use model::AccessToken;

use crate::settings::OAuth;
use fetch::Fetcher;
use issuer::Issuer;
use token::Parts;

/// How far clocks may differ.
const LEEWAY: Duration = Duration::from_secs(60);

/// Why a text is no token that is good here. Each is said to whoever presents it; none says anything about keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not look like one: an API key, or noise.
    #[error("it is no access token")]
    NoToken,
    /// It looks like one and cannot be read.
    #[error("it cannot be read")]
    Malformed,
    /// Its header asks for what is not done here: an algorithm that is not on the list, a type that is no access token,
    /// extensions that must be understood.
    #[error("its kind or its algorithm is not taken here")]
    Kind,
    /// Another issuer's.
    #[error("its issuer is not known here")]
    Issuer,
    /// Signed with a key that the issuer does not publish.
    #[error("it is signed with a key that its issuer does not publish")]
    Key,
    /// Not signed by that key.
    #[error("its signature is wrong")]
    Signature,
    /// For another server.
    #[error("it is meant for another server")]
    Audience,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not valid yet")]
    TooEarly,
    /// The issuer's keys could not be had: no fault of the token's.
    #[error("the keys of its issuer cannot be had at the moment")]
    NoKeys,
}

impl TokenError {
    /// The word in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            TokenError::NoToken => "no_token",
            TokenError::Malformed => "malformed",
            TokenError::Kind => "kind_not_taken",
            TokenError::Issuer => "unknown_issuer",
            TokenError::Key => "unknown_key",
            TokenError::Signature => "bad_signature",
            TokenError::Audience => "wrong_audience",
            TokenError::Expired => "expired",
            TokenError::TooEarly => "not_yet_valid",
            TokenError::NoKeys => "no_keys",
        }
    }
}

/// Why tokens cannot be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum OAuthError {
    /// Without roots of trust no issuer can be asked.
    #[error("TLS to issuers cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Checks access tokens.
pub struct Tokens {
    audience: String,
    issuers: Vec<Arc<Issuer>>,
}

impl Tokens {
    /// A checker that asks no issuer before it has to.
    ///
    /// # Errors
    /// See [`OAuthError`].
    pub fn new(oauth: &OAuth) -> Result<Self, OAuthError> {
        let fetcher = Fetcher::new().map_err(OAuthError::Tls)?;
        let issuers = oauth.issuers.iter();
        Ok(Tokens {
            audience: oauth.audience.clone(),
            issuers: issuers
                .map(|name| Arc::new(Issuer::new(name.clone(), fetcher.clone())))
                .collect(),
        })
    }

    /// Checks one.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn verify(&self, token: &str) -> Result<AccessToken, TokenError> {
        self.verify_at(token, SystemTime::now()).await
    }

    async fn verify_at(&self, token: &str, now: SystemTime) -> Result<AccessToken, TokenError> {
        let parts = Parts::of(token)?;
        let header = parts.header()?;
        // Nothing of it counts before the signature is checked, but whose it says it is tells whose key to check it with.
        let claims = parts.claims()?;
        let issuer = self
            .issuers
            .iter()
            .find(|issuer| issuer.name() == claims.issuer());
        let issuer = issuer.ok_or(TokenError::Issuer)?;
        let key = issuer
            .key(header.key_id.as_deref(), header.algorithm)
            .await?;
        if !key.verifies(header.algorithm, parts.signed(), &parts.signature()?) {
            return Err(TokenError::Signature);
        }
        claims.check(&self.audience, now, LEEWAY)
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}
