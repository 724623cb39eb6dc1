//! Access tokens of Google by its application default credentials, found where Google's own libraries look
//! (<https://google.aip.dev/auth/4110>): the file that the environment names, the file of `gcloud auth
//! application-default login`, the metadata server.
//!
//! Not by a library: the ones there are write the token service's answers into their debug log, or bring a second TLS.

mod account;
mod ask;

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use model::Secret;

use self::{account::Account, ask::Asker};
use super::{
    Carried, CredentialError, Guard, HostClient, KeyFileError, chain as with_causes, file,
    source::{Fetch, Fetched, Fetching},
};

/// Longest credentials file, bytes. A service account's is 2.3 KiB.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Tokens are not used in their last moments.
const MARGIN: Duration = Duration::from_secs(30);

/// Where application default credentials are looked for.
#[derive(Debug, Clone, Default)]
pub struct GoogleDefault {
    /// `GOOGLE_APPLICATION_CREDENTIALS`: it must be there then.
    pub file: Option<PathBuf>,
    /// `application_default_credentials.json` of gcloud's directory; it may be missing.
    pub usual_file: Option<PathBuf>,
    /// `GCE_METADATA_HOST`: another place than `metadata.google.internal`.
    pub metadata_host: Option<String>,
}

/// Why there is no token. None of the texts holds a part of a credential.
#[derive(Debug, thiserror::Error)]
enum GoogleError {
    #[error("the credentials file cannot be used")]
    File(#[source] KeyFileError),
    /// The parser's own error would show what stands there.
    #[error("the credentials file is not what Google's tools write (line {line})")]
    Json { line: usize },
    #[error("credentials of the kind {0} are not supported")]
    Unsupported(&'static str),
    #[error("the private key of the service account cannot be used")]
    PrivateKey,
    #[error("the address of the {0} is not https")]
    Address(&'static str),
    #[error("the {what} {why}")]
    Unreached {
        what: &'static str,
        why: super::host_client::Unreached,
    },
    #[error("the {what} refused ({status}{})", code.as_deref().map(|code| format!(", {code}")).unwrap_or_default())]
    Refused {
        what: &'static str,
        status: u16,
        code: Option<String>,
    },
    #[error("the {0} answered with something that is no token")]
    NoToken(&'static str),
}

/// A token and the end of its life.
struct Token {
    token: Secret<String>,
    end: SystemTime,
}

/// The source.
pub(super) struct Default {
    places: GoogleDefault,
    asker: Asker,
}

impl Default {
    pub(super) fn new(places: GoogleDefault, client: HostClient) -> Self {
        Default {
            places,
            asker: Asker(client),
        }
    }

    async fn token(&self) -> Result<Token, GoogleError> {
        // Looked for anew each time: somebody may have signed in meanwhile.
        if let Some(account) = self.account()? {
            return account.token(&self.asker).await;
        }
        self.asker
            .metadata(self.places.metadata_host.as_deref())
            .await
    }

    fn account(&self) -> Result<Option<Account>, GoogleError> {
        if let Some(path) = &self.places.file {
            return read(path).map(Some);
        }
        let Some(path) = &self.places.usual_file else {
            return Ok(None);
        };
        match read(path) {
            Err(GoogleError::File(KeyFileError::Read(error)))
                if error.kind() == io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            read => read.map(Some),
        }
    }
}

impl Fetch for Default {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(async {
            let token = self.token().await.map_err(|error| {
                tracing::warn!(error = %with_causes(&error), "no access token of Google was got");
                CredentialError::Source {
                    what: "the host's application default credentials of Google",
                    why: kind(&error),
                }
            })?;
            Ok(Fetched {
                carried: Carried::of(super::Form::Bearer, &token.token)?,
                end: token.end.checked_sub(MARGIN),
                expiry: token.end.checked_sub(MARGIN),
            })
        })
    }
}

fn read(path: &Path) -> Result<Account, GoogleError> {
    let (opened, _) = file::open(path, Guard::OwnerWrites).map_err(GoogleError::File)?;
    let text = file::read(opened, MAX_FILE_BYTES).map_err(GoogleError::File)?;
    let text = Secret::new(text);
    serde_json::from_str(text.expose()).map_err(|error| GoogleError::Json { line: error.line() })
}

const fn kind(error: &GoogleError) -> &'static str {
    match error {
        GoogleError::File(_) | GoogleError::Json { .. } => "stand in a file that cannot be used",
        GoogleError::Unsupported(_) => {
            "are of a kind that is not supported, such as an external account by an executable, which this server does not \
             run: set `vertex_token_command` to a command that prints an access token, such as `gcloud auth print-access-token`"
        }
        GoogleError::PrivateKey | GoogleError::Address(_) => "cannot be used",
        GoogleError::Unreached { .. } => {
            "are not there, or the service that gives tokens for them could not be reached"
        }
        GoogleError::Refused { .. } => {
            "were refused: sign in again (`gcloud auth application-default login`)"
        }
        GoogleError::NoToken(_) => "gave no token",
    }
}
