//! What is put into a request on its way out. It is held in memory only, and shown nowhere.
//!
//! Reading order: what a credential is ([`Credential`]), what one request carries of it ([`Presented`]), how one that
//! changes is kept (`source`), and where such come from (`file`, `command`, `aws`, `google`).

mod source;

mod command;
mod file;

mod aws;
mod aws_client;
mod google;
mod host_client;

use std::{error::Error as StdError, path::PathBuf, sync::Arc};

use http::{HeaderName, HeaderValue, header};
use model::{Secret, SessionId};

pub(crate) use aws::ENDED;
pub use aws::{AwsChain, AwsRole, ContainerToken};
pub use command::TokenCommand;
pub use file::{Guard, KeyFileError};
pub use google::GoogleDefault;
pub use host_client::HostClient;

use crate::relay::ProviderKind;
use source::{Renewed, Version};

/// A credential that cannot be used. None of the texts holds a part of it, or a path of the host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The provider takes another kind.
    #[error("{provider:?} does not take {credential}")]
    WrongKind {
        /// The session's provider.
        provider: ProviderKind,
        /// What was given.
        credential: &'static str,
    },
    /// Empty, or with characters that no header can carry.
    #[error("the {0} is empty or holds characters that a header cannot carry (a line break?)")]
    Malformed(&'static str),
    /// The command for a token did not give one.
    #[error("the command for the provider's token {0}")]
    Command(&'static str),
    /// Another source did not give one.
    #[error("{what} {why}")]
    Source {
        /// Which.
        what: &'static str,
        /// What happened to it.
        why: &'static str,
    },
}

/// A provider's credential.
#[derive(Debug, Clone)]
pub enum Credential {
    /// An API key of the first party, sent as `x-api-key`.
    ApiKey(Secret<String>),
    /// A token sent as `authorization: Bearer`: a gateway's, `AWS_BEARER_TOKEN_BEDROCK`, or an access token of Google.
    Bearer(Secret<String>),
    /// Keys of AWS; requests are signed with them on this machine (SigV4).
    Aws(AwsKeys),
    /// A place that is asked for one while the server runs.
    Source(Source),
}

/// Keys of AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsKeys {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: Secret<String>,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: Secret<String>,
    /// `AWS_SESSION_TOKEN`, of temporary keys.
    pub session_token: Option<Secret<String>>,
}

/// How a key or token travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As `x-api-key`.
    ApiKey,
    /// As `authorization: Bearer`.
    Bearer,
}

/// Where a credential that changes comes from. Clones share what was got last.
#[derive(Clone)]
pub struct Source {
    gives: Gives,
    renewed: Arc<Renewed>,
    role: Option<Arc<Role>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gives {
    Header(Form),
    Signature,
}

/// A role that each session assumes for itself, with the keys of the source.
struct Role {
    chain: AwsChain,
    role: AwsRole,
    client: HostClient,
}

impl Source {
    /// A file with a key or token, read again when it changes.
    ///
    /// # Errors
    /// When it cannot be used now.
    pub fn file(path: PathBuf, guard: Guard, form: Form) -> Result<Self, KeyFileError> {
        let file = file::KeyFile::open(path, guard, form)?;
        Ok(Self::of(Gives::Header(form), Renewed::new(file)))
    }

    /// A command that prints a bearer token.
    pub fn command(command: TokenCommand) -> Self {
        Self::of(Gives::Header(Form::Bearer), Renewed::new(command))
    }

    /// Keys of AWS from wherever this host has them.
    pub fn aws(chain: AwsChain, client: HostClient) -> Self {
        let renewed = Renewed::new(aws::Found::new(chain.clone(), client.clone()));
        let role = chain.role.clone().map(|role| {
            Arc::new(Role {
                chain,
                role,
                client,
            })
        });
        Source {
            role,
            ..Self::of(Gives::Signature, renewed)
        }
    }

    /// Access tokens of Google by its application default credentials.
    pub fn google(google: GoogleDefault, client: HostClient) -> Self {
        let default = google::Default::new(google, client);
        Self::of(Gives::Header(Form::Bearer), Renewed::new(default))
    }

    fn of(gives: Gives, renewed: Arc<Renewed>) -> Self {
        Source {
            gives,
            renewed,
            role: None,
        }
    }

    fn for_session(&self, session: SessionId) -> Arc<Renewed> {
        match &self.role {
            None => Arc::clone(&self.renewed),
            Some(role) => Renewed::new(aws::Assumed::new(Arc::clone(&self.renewed), role, session)),
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("gives", &self.gives)
            .finish_non_exhaustive()
    }
}

/// A credential as a session holds it: checked.
pub(crate) enum Held {
    Fixed(Carried),
    Changing(Arc<Renewed>),
}

/// What a request carries.
#[derive(Clone, PartialEq)]
pub(crate) enum Carried {
    Header(HeaderName, HeaderValue),
    Signature(AwsKeys),
}

/// What one request carries, and which version of its credential that is.
pub(crate) struct Presented {
    pub(crate) carried: Carried,
    version: Option<u64>,
}

impl Held {
    pub(crate) fn new(
        credential: Credential,
        provider: ProviderKind,
        session: SessionId,
    ) -> Result<Arc<Self>, CredentialError> {
        fits(&credential, provider)?;
        Self::checked(credential, session)
    }

    /// A bearer token for a destination that is no provider of models.
    pub(crate) fn token(
        credential: Credential,
        session: SessionId,
    ) -> Result<Arc<Self>, CredentialError> {
        match gives(&credential) {
            Gives::Header(Form::Bearer) => Self::checked(credential, session),
            Gives::Header(Form::ApiKey) | Gives::Signature => {
                Err(CredentialError::Malformed("bearer token"))
            }
        }
    }

    fn checked(credential: Credential, session: SessionId) -> Result<Arc<Self>, CredentialError> {
        Ok(Arc::new(match credential {
            Credential::ApiKey(key) => Held::Fixed(Carried::of(Form::ApiKey, &key)?),
            Credential::Bearer(token) => Held::Fixed(Carried::of(Form::Bearer, &token)?),
            Credential::Aws(keys) => Held::Fixed(Carried::keys(keys)?),
            Credential::Source(source) => Held::Changing(source.for_session(session)),
        }))
    }

    /// What the next request carries.
    pub(crate) async fn present(&self) -> Result<Presented, CredentialError> {
        match self {
            Held::Fixed(carried) => Ok(Presented {
                carried: carried.clone(),
                version: None,
            }),
            Held::Changing(source) => source
                .current()
                .await
                .map(|version| version.as_ref().into()),
        }
    }

    /// What it would be now; nothing where a program or a service would have to be asked.
    pub(crate) fn at_once(&self) -> Option<Result<Carried, CredentialError>> {
        match self {
            Held::Fixed(carried) => Some(Ok(carried.clone())),
            Held::Changing(source) => source.at_once(),
        }
    }

    /// What a request may be sent with once more, after the provider refused this: a version that is newer, or the one before.
    pub(crate) async fn instead_of(&self, refused: &Presented) -> Option<Presented> {
        let (Held::Changing(source), Some(version)) = (self, refused.version) else {
            return None;
        };
        let other = source.instead_of(version).await?;
        Some(other.as_ref().into())
    }
}

impl Held {
    /// The newest version was refused: its source is asked anew before the next use.
    pub(crate) fn doubt(&self, refused: &Presented) {
        if let (Held::Changing(source), Some(version)) = (self, refused.version) {
            source.doubt(version);
        }
    }
}

impl From<&Version> for Presented {
    fn from(version: &Version) -> Self {
        Presented {
            carried: version.carried.clone(),
            version: Some(version.number),
        }
    }
}

impl Presented {
    /// See [`Carried::secrets`].
    pub(crate) fn secrets(&self) -> Vec<HeaderValue> {
        self.carried.secrets()
    }
}

impl Carried {
    /// What an answer's headers must not hold.
    pub(crate) fn secrets(&self) -> Vec<HeaderValue> {
        match self {
            Carried::Header(_, value) => {
                let bytes = value.as_bytes();
                let bare = bytes.strip_prefix(b"Bearer ").unwrap_or(bytes);
                HeaderValue::from_bytes(bare).into_iter().collect()
            }
            Carried::Signature(keys) => [&keys.access_key_id, &keys.secret_access_key]
                .into_iter()
                .chain(&keys.session_token)
                .filter_map(|secret| HeaderValue::from_str(secret.expose()).ok())
                .collect(),
        }
    }

    /// # Errors
    /// When no header can carry it.
    pub(crate) fn of(form: Form, key: &Secret<String>) -> Result<Self, CredentialError> {
        match form {
            Form::ApiKey => Ok(Carried::Header(
                HeaderName::from_static("x-api-key"),
                header_value("API key", key.expose())?,
            )),
            Form::Bearer => {
                header_value("bearer token", key.expose())?;
                let value = header_value("bearer token", &format!("Bearer {}", key.expose()))?;
                Ok(Carried::Header(header::AUTHORIZATION, value))
            }
        }
    }

    /// # Errors
    /// When no header can carry a part of them.
    pub(crate) fn keys(keys: AwsKeys) -> Result<Self, CredentialError> {
        header_value("access key id", keys.access_key_id.expose())?;
        header_value("secret access key", keys.secret_access_key.expose())?;
        if let Some(token) = &keys.session_token {
            header_value("session token", token.expose())?;
        }
        Ok(Carried::Signature(keys))
    }
}

fn gives(credential: &Credential) -> Gives {
    match credential {
        Credential::ApiKey(_) => Gives::Header(Form::ApiKey),
        Credential::Bearer(_) => Gives::Header(Form::Bearer),
        Credential::Aws(_) => Gives::Signature,
        Credential::Source(source) => source.gives,
    }
}

fn fits(credential: &Credential, provider: ProviderKind) -> Result<(), CredentialError> {
    let (credential, fits) = match gives(credential) {
        Gives::Header(Form::ApiKey) => ("an API key", provider == ProviderKind::FirstParty),
        Gives::Header(Form::Bearer) => ("a bearer token", true),
        Gives::Signature => ("keys of AWS", provider == ProviderKind::Bedrock),
    };
    if fits {
        Ok(())
    } else {
        Err(CredentialError::WrongKind {
            provider,
            credential,
        })
    }
}

fn header_value(what: &'static str, text: &str) -> Result<HeaderValue, CredentialError> {
    if text.is_empty() || text.trim() != text {
        return Err(CredentialError::Malformed(what));
    }
    let mut value = HeaderValue::from_str(text).map_err(|_| CredentialError::Malformed(what))?;
    value.set_sensitive(true);
    Ok(value)
}

/// An error with its causes, for the operator's log.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hold(credential: Credential, provider: ProviderKind) -> Result<Arc<Held>, CredentialError> {
        Held::new(
            credential,
            provider,
            SessionId::from_bytes(Default::default()),
        )
    }

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    fn command(script: &str, refresh_after: Duration) -> Arc<Held> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let command = TokenCommand {
            argv,
            timeout: Duration::from_secs(5),
            refresh_after,
        };
        from_command(command)
    }

    fn from_command(command: TokenCommand) -> Arc<Held> {
        let source = Source::command(command);
        hold(Credential::Source(source), ProviderKind::Vertex).unwrap()
    }

    async fn presented(held: &Held) -> Result<String, CredentialError> {
        match held.present().await?.carried {
            Carried::Header(name, value) => {
                assert!(value.is_sensitive());
                Ok(format!("{name}: {}", value.to_str().unwrap()))
            }
            Carried::Signature(_) => Ok("signature".to_owned()),
        }
    }

    #[tokio::test]
    async fn each_credential_travels_as_its_provider_expects() {
        let held = hold(Credential::ApiKey(secret("k")), ProviderKind::FirstParty).unwrap();
        assert_eq!(presented(&held).await.unwrap(), "x-api-key: k");
        for provider in [
            ProviderKind::FirstParty,
            ProviderKind::Bedrock,
            ProviderKind::Vertex,
        ] {
            let held = hold(Credential::Bearer(secret("t")), provider).unwrap();
            assert_eq!(presented(&held).await.unwrap(), "authorization: Bearer t");
        }
    }

    #[test]
    fn a_credential_of_another_provider_is_refused() {
        let refused = hold(Credential::ApiKey(secret("k")), ProviderKind::Bedrock).err();
        assert!(matches!(refused, Some(CredentialError::WrongKind { .. })));
        for malformed in ["", "a\nb", " a", "a\r\nx-evil: 1"] {
            let error = hold(
                Credential::ApiKey(secret(malformed)),
                ProviderKind::FirstParty,
            )
            .err();
            assert!(
                matches!(error, Some(CredentialError::Malformed(_))),
                "{malformed:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_token_is_printed_once_until_it_is_old_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let count = directory.path().join("count");
        let script = format!("echo x >>{0}; wc -l <{0}", count.display());
        let held = command(&script, Duration::from_secs(60));
        let (first, second) = tokio::join!(presented(&held), presented(&held));
        assert_eq!(first.unwrap(), "authorization: Bearer 1");
        assert_eq!(second.unwrap(), "authorization: Bearer 1");
        // Refused as soon as it was printed, it would be printed again; a second later the command is asked anew.
        let refused = held.present().await.unwrap();
        assert!(held.instead_of(&refused).await.is_none());
        tokio::time::sleep(Duration::from_millis(1050)).await;
        let newer = held.instead_of(&refused).await.unwrap();
        assert!(newer.carried != refused.carried);
        assert_eq!(presented(&held).await.unwrap(), "authorization: Bearer 2");
        let fleeting = command(&script, Duration::ZERO);
        assert_eq!(
            presented(&fleeting).await.unwrap(),
            "authorization: Bearer 3"
        );
        assert_eq!(
            presented(&fleeting).await.unwrap(),
            "authorization: Bearer 4"
        );
    }

    #[tokio::test]
    async fn a_command_that_gives_no_token_says_so_without_its_output() {
        for script in [
            "exit 3",
            "true",
            "printf 'two words'",
            "head -c 20000 /dev/zero | tr '\\0' x",
            "echo canary; exit 1",
        ] {
            let error = presented(&command(script, Duration::ZERO))
                .await
                .unwrap_err();
            assert!(matches!(error, CredentialError::Command(_)), "{script}");
            assert!(!error.to_string().contains("canary"));
        }
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_ended_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let script = format!("(sleep 1; touch {}) & sleep 30", mark.display());
        let argv = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
        let hanging = TokenCommand {
            argv,
            timeout: Duration::from_millis(200),
            refresh_after: Duration::ZERO,
        };
        let held = from_command(hanging);
        assert!(presented(&held).await.is_err());
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert!(!mark.exists());
    }

    #[test]
    fn nothing_of_a_credential_is_shown() {
        let keys = AwsKeys {
            access_key_id: secret("canary"),
            secret_access_key: secret("canary"),
            session_token: Some(secret("canary")),
        };
        for credential in [
            Credential::ApiKey(secret("canary")),
            Credential::Bearer(secret("canary")),
            Credential::Aws(keys),
        ] {
            assert!(!format!("{credential:?}").contains("canary"));
        }
    }
}
