//! The HTTP door, and whose access tokens it takes.

use std::net::IpAddr;

use control::TokenRights;
use http_door::{OAuth, Settings, TlsFiles};

use super::{ConfigError, Reader, keys, wrong_type};

impl Reader<'_> {
    /// The door, where it is named where it listens. That nobody has a key yet is not known here.
    pub(super) fn http(&self) -> Result<Option<Settings>, ConfigError> {
        let key = &keys::HTTP_LISTEN;
        let oauth = self.oauth()?;
        let (certificate, tls_key) = (
            self.path(&keys::HTTP_TLS_CERT)?,
            self.path(&keys::HTTP_TLS_KEY)?,
        );
        let tls = match (certificate, tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, None) => None,
            (Some(_), None) => {
                return Err(
                    self.lacks(&keys::HTTP_TLS_CERT, "a file, together with `http_tls_key`")
                );
            }
            (None, Some(_)) => {
                return Err(
                    self.lacks(&keys::HTTP_TLS_KEY, "a file, together with `http_tls_cert`")
                );
            }
        };
        let (hosts, origins) = (
            self.words(&keys::HTTP_HOSTS)?,
            self.words(&keys::HTTP_ORIGINS)?,
        );
        let proxies = self.addresses(&keys::HTTP_BEHIND_PROXY)?;
        let Some(listen) = self.text(key)? else {
            return Ok(None);
        };
        let listen = listen.parse().map_err(|source| ConfigError::HttpListen {
            origin: self.origin(key),
            source,
        })?;
        let settings = Settings {
            hosts,
            origins,
            tls,
            proxies,
            oauth,
            ..Settings::new(listen)
        };
        settings.check(true).map_err(ConfigError::Http)?;
        Ok(Some(settings))
    }

    pub(super) fn token_rights(&self) -> Result<TokenRights, ConfigError> {
        let max_sessions = self.number(&keys::OAUTH_MAX_SESSIONS)?;
        Ok(TokenRights {
            roots: self.directories(&keys::OAUTH_ROOTS)?,
            max_sessions: max_sessions.map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
        })
    }

    fn oauth(&self) -> Result<Option<OAuth>, ConfigError> {
        let issuers = self.words(&keys::OAUTH_ISSUERS)?;
        let audience = self.text(&keys::OAUTH_AUDIENCE)?.unwrap_or_default();
        let is_named = !issuers.is_empty() || !audience.is_empty();
        Ok(is_named.then_some(OAuth { issuers, audience }))
    }

    fn addresses(&self, key: &'static super::Key) -> Result<Vec<IpAddr>, ConfigError> {
        let words = self.words(key)?;
        let parsed = words.iter().map(|word| word.parse());
        parsed
            .collect::<Result<_, _>>()
            .map_err(|_| self.lacks(key, "a list of addresses such as [\"192.0.2.1\"]"))
    }

    fn lacks(&self, key: &'static super::Key, expected: &str) -> ConfigError {
        wrong_type(key, self.layers.get(key), expected)
    }
}
