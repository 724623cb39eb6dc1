//! What one token says, and what of it is checked.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{AccessToken, Scopes};
use serde::{Deserialize, de::DeserializeOwned};

use super::{TokenError, key::Algorithm};

/// Longest issuer's name, subject or client of a token, bytes: they become names in records.
const MAX_NAME_BYTES: usize = 512;

/// The three parts of a token, still encoded.
pub(super) struct Parts<'a> {
    /// Header, dot, claims: what is signed.
    signed: &'a str,
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
}

/// With which key it is signed, and how.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RawHeader {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    /// Extensions that must be understood: none is.
    crit: Option<serde_json::Value>,
}

/// What the token says. Members that stand there twice, or that are of another type, are no token.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    iss: String,
    sub: String,
    aud: OneOrMore,
    exp: f64,
    nbf: Option<f64>,
    scope: Option<OneOrMore>,
    /// What some issuers write instead.
    scp: Option<OneOrMore>,
    client_id: Option<String>,
    azp: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn contains(&self, text: &str) -> bool {
        match self {
            OneOrMore::One(one) => one == text,
            OneOrMore::More(more) => more.iter().any(|one| one == text),
        }
    }

    fn words(&self) -> String {
        match self {
            OneOrMore::One(one) => one.clone(),
            OneOrMore::More(more) => more.join(" "),
        }
    }
}

impl<'a> Parts<'a> {
    pub(super) fn of(token: &'a str) -> Result<Self, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::NoToken)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::NoToken)?;
        // A signature may be missing: that there is none is told when it is looked at.
        if header.is_empty() || claims.is_empty() || claims.contains('.') {
            return Err(TokenError::NoToken);
        }
        Ok(Parts {
            signed,
            header,
            claims,
            signature,
        })
    }

    pub(super) fn header(&self) -> Result<Header, TokenError> {
        let header: RawHeader = decode(self.header)?;
        let typ = header.typ.as_deref().map(str::to_ascii_lowercase);
        // Before RFC 9068 there was no type of their own; that it is no identity token is told by its audience.
        let is_access_token = matches!(
            typ.as_deref(),
            None | Some("jwt" | "at+jwt" | "application/at+jwt")
        );
        let algorithm = Algorithm::of(&header.alg).ok_or(TokenError::Kind)?;
        if !is_access_token || header.crit.is_some() {
            return Err(TokenError::Kind);
        }
        Ok(Header {
            algorithm,
            key_id: header.kid,
        })
    }

    pub(super) fn claims(&self) -> Result<Claims, TokenError> {
        decode(self.claims)
    }

    pub(super) const fn signed(&self) -> &'a [u8] {
        self.signed.as_bytes()
    }

    pub(super) fn signature(&self) -> Result<Vec<u8>, TokenError> {
        URL_SAFE_NO_PAD
            .decode(self.signature)
            .map_err(|_| TokenError::Malformed)
    }
}

fn decode<T: DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

impl Claims {
    pub(super) fn issuer(&self) -> &str {
        &self.iss
    }

    /// What the token is good for, once its signature is known to be right. Its end has the leeway in it.
    pub(super) fn check(
        self,
        audience: &str,
        now: SystemTime,
        leeway: Duration,
    ) -> Result<AccessToken, TokenError> {
        if !self.aud.contains(audience) {
            return Err(TokenError::Audience);
        }
        let expires_at = moment(self.exp)?
            .checked_add(leeway)
            .ok_or(TokenError::Malformed)?;
        if expires_at <= now {
            return Err(TokenError::Expired);
        }
        if let Some(from) = self.nbf
            && moment(from)? > now + leeway
        {
            return Err(TokenError::TooEarly);
        }
        let client_id = self.client_id.or(self.azp);
        let is_name = |text: &str| {
            (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.contains(char::is_control)
        };
        if !is_name(&self.sub) || !client_id.as_deref().is_none_or(is_name) {
            return Err(TokenError::Malformed);
        }
        let scopes = self.scope.or(self.scp).map(|scopes| scopes.words());
        Ok(AccessToken {
            issuer: self.iss,
            subject: self.sub,
            client_id,
            scopes: Scopes::known_of(&scopes.unwrap_or_default()),
            expires_at,
        })
    }
}

/// A NumericDate of RFC 7519.
fn moment(seconds: f64) -> Result<SystemTime, TokenError> {
    let since = Duration::try_from_secs_f64(seconds).map_err(|_| TokenError::Malformed)?;
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .ok_or(TokenError::Malformed)
}
