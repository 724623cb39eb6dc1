//! Keys of AWS from wherever this host has them: AWS's own chain (profile, single sign-on, credential process, web identity,
//! container, instance), and roles that are assumed with them, each session's for itself.

use std::{
    error::Error as StdError,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError},
};
use model::{Secret, SessionId};

use super::{
    AwsKeys, Carried, CredentialError,
    aws_client::AwsClient,
    chain as with_causes,
    host_client::HostClient,
    source::{Fetch, Fetched, Fetching, Renewed, Version},
};

/// Keys are not used in their last moments: a request is signed before it arrives.
const MARGIN: Duration = Duration::from_secs(30);
/// Keys without an end, as a file of profiles holds, are read again after that long.
const READ_AGAIN: Duration = Duration::from_secs(300);
/// All tries of all places together. Single sign-on and credential processes are the slowest.
const TIMEOUT: Duration = Duration::from_secs(40);
/// Life of an assumed role's keys, seconds. No longer is allowed to a role that was assumed by a role.
const ROLE_SECONDS: i32 = 3600;
/// What AWS says of keys that are none any more, the beginning of it.
pub(crate) const ENDED: [&str; 3] = ["ExpiredToken", "UnrecognizedClient", "InvalidClientTokenId"];
/// What a role may do where its rights are narrowed: what the relay passes, and nothing else.
const SESSION_POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["bedrock:InvokeModel*","bedrock:CountTokens"],"Resource":"*"}]}"#;

/// Where keys of AWS are looked for.
#[derive(Debug, Clone, Default)]
pub struct AwsChain {
    /// Where single sign-on and roles are asked, unless a profile says so.
    pub region: Option<String>,
    /// Keys of the environment; they come first.
    pub keys: Option<AwsKeys>,
    /// A profile of `~/.aws/config`; it comes before `keys`.
    pub profile: Option<String>,
    /// A role that is assumed with what was found.
    pub role: Option<AwsRole>,
    /// What a container shows to be given keys.
    pub container: Option<ContainerToken>,
}

/// `AWS_CONTAINER_AUTHORIZATION_TOKEN`, and the place where it is shown.
#[derive(Debug, Clone)]
pub struct ContainerToken {
    /// By `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, else `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    pub place: String,
    /// The whole of the header.
    pub token: Secret<String>,
}

/// A role to assume. Its session has the name `claude-code-mcp-` and the session's id.
#[derive(Debug, Clone)]
pub struct AwsRole {
    /// `arn:aws:iam::…:role/…`.
    pub arn: String,
    /// What the role's owner asks of third parties.
    pub external_id: Option<String>,
    /// Say the session's id as source identity too; the role's trust policy must allow `sts:SetSourceIdentity`.
    pub source_identity: bool,
    /// Narrow the role's rights to asking models of Bedrock.
    pub narrowed: bool,
}

/// What is found without a role.
pub(super) struct Found {
    chain: AwsChain,
    client: AwsClient,
}

/// The keys of one session's role.
pub(super) struct Assumed {
    base: Arc<Renewed>,
    chain: AwsChain,
    role: AwsRole,
    session: SessionId,
    client: AwsClient,
}

impl Found {
    pub(super) fn new(chain: AwsChain, client: HostClient) -> Self {
        let client = AwsClient {
            client,
            container: chain.container.clone(),
        };
        Found { chain, client }
    }

    /// Looks anew each time: files and variables may name other places than before.
    async fn look(&self) -> Result<Credentials, CredentialsError> {
        let chain = &self.chain;
        if let (Some(keys), None) = (&chain.keys, &chain.profile) {
            return Ok(keys.sdk());
        }
        let config = load(chain, &self.client, None).await;
        let provider = config
            .credentials_provider()
            .ok_or_else(|| CredentialsError::not_loaded("there is no chain"))?;
        provider.provide_credentials().await
    }
}

impl Fetch for Found {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(async {
            let found = tokio::time::timeout(TIMEOUT, self.look())
                .await
                .unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(TIMEOUT)));
            let found = found.map_err(|error| {
                tracing::warn!(error = %for_the_log(&error), "no credentials of AWS were found on this host");
                CredentialError::Source {
                    what: "the host's credentials of AWS",
                    why: kind(&error),
                }
            })?;
            fetched(AwsKeys::of_sdk(&found), found.expiry())
        })
    }
}

impl Assumed {
    pub(super) fn new(base: Arc<Renewed>, role: &super::Role, session: SessionId) -> Self {
        Assumed {
            base,
            chain: role.chain.clone(),
            role: role.role.clone(),
            session,
            client: AwsClient {
                client: role.client.clone(),
                container: None,
            },
        }
    }

    async fn assume(&self) -> Result<Fetched, CredentialError> {
        let base = self.base.current().await?;
        match self.ask(&base).await {
            Err(Refused { ended: true, error }) => match self.base.instead_of(base.number).await {
                Some(newer) => self.ask(&newer).await.map_err(|refused| refused.error),
                None => Err(error),
            },
            asked => asked.map_err(|refused| refused.error),
        }
    }

    async fn ask(&self, base: &Version) -> Result<Fetched, Refused> {
        let Carried::Signature(keys) = &base.carried else {
            return Err(refused("needs keys of AWS"));
        };
        let provider = SharedCredentialsProvider::new(keys.sdk());
        let config = load(&self.chain, &self.client, Some(provider)).await;
        let identity = self.role.source_identity.then(|| self.session.to_string());
        let request = aws_sdk_sts::Client::new(&config)
            .assume_role()
            .role_arn(&self.role.arn)
            .role_session_name(format!("claude-code-mcp-{}", self.session))
            .duration_seconds(ROLE_SECONDS)
            .set_external_id(self.role.external_id.clone())
            .set_source_identity(identity)
            .set_policy(self.role.narrowed.then(|| SESSION_POLICY.to_owned()));
        let answer = tokio::time::timeout(TIMEOUT, request.send())
            .await
            .map_err(|_| refused("did not answer in time"))?;
        let answer = answer.map_err(|error| {
            let service = error.as_service_error();
            let code = service.and_then(|error| error.meta().code());
            let message = service.and_then(|error| error.meta().message());
            // The whole error holds the raw answer: not for a log.
            tracing::warn!(role = %self.role.arn, session = %self.session, code, message, "the role was not assumed");
            let why = match code {
                Some(_) => "refused: the operator's log has the reason",
                None => "could not be asked",
            };
            Refused {
                ended: code.is_some_and(|code| ENDED.iter().any(|name| code.starts_with(name))),
                ..refused(why)
            }
        })?;
        let found = answer
            .credentials()
            .ok_or_else(|| refused("gave no keys"))?;
        let keys = AwsKeys {
            access_key_id: Secret::new(found.access_key_id().to_owned()),
            secret_access_key: Secret::new(found.secret_access_key().to_owned()),
            session_token: Some(Secret::new(found.session_token().to_owned())),
        };
        let end = SystemTime::try_from(*found.expiration()).ok();
        fetched(keys, end).map_err(|error| Refused {
            ended: false,
            error,
        })
    }
}

impl Fetch for Assumed {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(self.assume())
    }
}

/// The chain of AWS's own library; with keys that are known already, its endpoints, region and retries alone.
async fn load(
    chain: &AwsChain,
    client: &AwsClient,
    keys: Option<SharedCredentialsProvider>,
) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(client.clone());
    if let Some(region) = &chain.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &chain.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(keys) = keys {
        loader = loader.credentials_provider(keys);
    }
    loader.load().await
}

fn fetched(keys: AwsKeys, end: Option<SystemTime>) -> Result<Fetched, CredentialError> {
    let expiry = end.map(|end| end.checked_sub(MARGIN).unwrap_or(SystemTime::UNIX_EPOCH));
    let end = expiry.or_else(|| SystemTime::now().checked_add(READ_AGAIN));
    if end.is_some_and(|end| end <= SystemTime::now()) {
        return Err(CredentialError::Source {
            what: "the host's credentials of AWS",
            why: "have ended: sign in again (`aws sso login`), or renew them where they come from",
        });
    }
    Ok(Fetched {
        carried: Carried::keys(keys)?,
        end,
        expiry,
    })
}

/// The token service gave no keys.
struct Refused {
    /// The keys that it was asked with have ended, or are not known any more.
    ended: bool,
    error: CredentialError,
}

const fn refused(why: &'static str) -> Refused {
    Refused {
        ended: false,
        error: CredentialError::Source {
            what: "AWS's token service, asked for the role's keys,",
            why,
        },
    }
}

const fn kind(error: &CredentialsError) -> &'static str {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => {
            "are not there: no profile, single sign-on, container or instance has any"
        }
        CredentialsError::ProviderTimedOut(_) => "did not come in time",
        CredentialsError::InvalidConfiguration(_) => "are configured in a way that cannot be used",
        CredentialsError::ProviderError(_) | CredentialsError::Unhandled(_) | _ => {
            "could not be got"
        }
    }
}

/// An error with its causes, without what a credential process wrote on its standard error.
fn for_the_log(error: &(dyn StdError + 'static)) -> String {
    let text = with_causes(error);
    match text.split_once("Stderr:") {
        Some((before, _)) => format!("{before}(what it wrote on its standard error is not shown)"),
        None => text,
    }
}

impl AwsKeys {
    fn of_sdk(found: &Credentials) -> Self {
        AwsKeys {
            access_key_id: Secret::new(found.access_key_id().to_owned()),
            secret_access_key: Secret::new(found.secret_access_key().to_owned()),
            session_token: found
                .session_token()
                .map(|token| Secret::new(token.to_owned())),
        }
    }

    pub(crate) fn sdk(&self) -> Credentials {
        Credentials::new(
            self.access_key_id.expose().clone(),
            self.secret_access_key.expose().clone(),
            self.session_token
                .as_ref()
                .map(|token| token.expose().clone()),
            None,
            "configured",
        )
    }
}
