//! The model provider: what is configured, and the credentials in the environment of whoever starts the server. They are
//! held in memory, never shown, and never handed into a session.

use std::path::PathBuf;

use egress::{
    Allowance, AwsChain, AwsKeys, AwsRole, ContainerToken, Credential, GoogleDefault, TokenCommand,
    Usd,
};
use model::Secret;
use session::ProviderName;

use super::Environment;

/// Where containers of ECS find their keys, by a relative address.
const ECS_HOST: &str = "169.254.170.2";

/// Which provider, when nothing else says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderChoice {
    /// By the variables that Claude Code itself goes by.
    Auto,
    /// That one.
    Named(ProviderName),
}

/// Where keys of AWS are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AwsCredentials {
    /// By what else is configured.
    Auto,
    /// In the environment alone.
    Environment,
    /// As AWS's own tools do.
    DefaultChain,
}

/// What is configured of AWS.
#[derive(Debug, Clone)]
pub struct AwsConfig {
    /// Where keys are looked for.
    pub credentials: AwsCredentials,
    /// A profile.
    pub profile: Option<String>,
    /// A role.
    pub role: Option<AwsRole>,
}

/// Where access tokens of Google come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VertexCredentials {
    /// By what else is configured.
    Auto,
    /// A command.
    Command,
    /// Application default credentials.
    Default,
}

/// What there is of providers.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// Which one sessions have when their callers name none.
    pub choice: ProviderChoice,
    /// See [`session::Providers`].
    pub first_party_base_url: Option<String>,
    /// A file with a key of the first party.
    pub api_key_file: Option<PathBuf>,
    /// A file with a bearer token of the first party.
    pub auth_token_file: Option<PathBuf>,
    /// A command that prints one.
    pub auth_token_command: Vec<String>,
    /// A file with a bearer token of Bedrock.
    pub bedrock_token_file: Option<PathBuf>,
    /// Keys of AWS.
    pub aws: AwsConfig,
    /// See [`session::Providers`].
    pub aws_region: Option<String>,
    /// See [`session::Providers`].
    pub bedrock_base_url: Option<String>,
    /// See [`session::Providers`].
    pub vertex_project: Option<String>,
    /// See [`session::Providers`].
    pub vertex_region: Option<String>,
    /// See [`session::Providers`].
    pub vertex_base_url: Option<String>,
    /// Where tokens for Google come from.
    pub vertex_credentials: VertexCredentials,
    /// A command that prints one.
    pub vertex_token_command: Vec<String>,
    /// See [`session::Providers`].
    pub model: Option<String>,
    /// See [`session::Providers`].
    pub small_model: Option<String>,
    /// See [`session::Providers`].
    pub models: Vec<String>,
    /// Requests of one session; 0: no limit.
    pub max_requests: u64,
    /// Tokens of one session; 0: no limit.
    pub max_tokens: u64,
    /// What sessions and callers may use beside that.
    pub budgets: BudgetConfig,
    /// What the environment holds.
    pub credentials: Credentials,
}

/// What may be used, in dollars and day by day, and what models cost.
#[derive(Debug, Clone, Default)]
pub struct BudgetConfig {
    /// What one session may cost.
    pub session_cost: Option<Usd>,
    /// For all sessions of one caller on one day.
    pub caller_day: Allowance,
    /// For all sessions on one day.
    pub server_day: Allowance,
    /// A price table of the operator's.
    pub prices_file: Option<PathBuf>,
}

/// Credentials in the environment, or that it leads to.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// `ANTHROPIC_API_KEY` or `ANTHROPIC_AUTH_TOKEN`.
    pub first_party: Option<Credential>,
    /// `AWS_BEARER_TOKEN_BEDROCK`.
    pub bedrock_token: Option<Credential>,
    /// `AWS_ACCESS_KEY_ID` and its companions.
    pub aws_keys: Option<AwsKeys>,
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
    pub aws_container: Option<ContainerToken>,
    /// Where Google's application default credentials are looked for.
    pub google: GoogleDefault,
    /// `CREDENTIALS_DIRECTORY`: what systemd hands to a service.
    pub systemd: Option<PathBuf>,
    /// `CLAUDE_CODE_USE_BEDROCK`.
    pub wants_bedrock: bool,
    /// `CLAUDE_CODE_USE_VERTEX`.
    pub wants_vertex: bool,
}

impl Credentials {
    pub(super) fn of(environment: &Environment) -> Self {
        let secret = |name: &str| {
            let value = environment.get(name)?.to_str()?.trim();
            (!value.is_empty()).then(|| Secret::new(value.to_owned()))
        };
        let is_on = |name: &str| {
            let value = environment.get(name).and_then(|value| value.to_str());
            value.is_some_and(|value| {
                matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes")
            })
        };
        let keys = || {
            Some(AwsKeys {
                access_key_id: secret("AWS_ACCESS_KEY_ID")?,
                secret_access_key: secret("AWS_SECRET_ACCESS_KEY")?,
                session_token: secret("AWS_SESSION_TOKEN"),
            })
        };
        Credentials {
            first_party: secret("ANTHROPIC_API_KEY")
                .map(Credential::ApiKey)
                .or_else(|| secret("ANTHROPIC_AUTH_TOKEN").map(Credential::Bearer)),
            bedrock_token: secret("AWS_BEARER_TOKEN_BEDROCK").map(Credential::Bearer),
            aws_keys: keys(),
            aws_container: container(environment, secret("AWS_CONTAINER_AUTHORIZATION_TOKEN")),
            google: google(environment),
            systemd: environment.get("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            wants_bedrock: is_on("CLAUDE_CODE_USE_BEDROCK"),
            wants_vertex: is_on("CLAUDE_CODE_USE_VERTEX"),
        }
    }
}

/// In the order of AWS's own tools: a file with the token comes before the token, a relative address before a whole one.
fn container(environment: &Environment, token: Option<Secret<String>>) -> Option<ContainerToken> {
    let text = |name: &str| environment.get(name)?.to_str();
    let place = match text("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        Some(relative) => format!("http://{ECS_HOST}{relative}"),
        None => text("AWS_CONTAINER_CREDENTIALS_FULL_URI")?.to_owned(),
    };
    match text("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(_) => None,
        None => Some(ContainerToken {
            place,
            token: token?,
        }),
    }
}

fn google(environment: &Environment) -> GoogleDefault {
    let path = |name: &str| environment.get(name).map(PathBuf::from);
    let directory =
        path("CLOUDSDK_CONFIG").or_else(|| Some(environment.home()?.join(".config/gcloud")));
    GoogleDefault {
        file: path("GOOGLE_APPLICATION_CREDENTIALS"),
        usual_file: directory
            .map(|directory| directory.join("application_default_credentials.json")),
        metadata_host: environment
            .get("GCE_METADATA_HOST")
            .and_then(|host| host.to_str())
            .map(str::to_owned),
    }
}

impl ProviderConfig {
    /// The provider of sessions whose callers name none.
    pub const fn default_provider(&self) -> ProviderName {
        match self.choice {
            ProviderChoice::Named(name) => name,
            ProviderChoice::Auto if self.credentials.wants_bedrock => ProviderName::Bedrock,
            ProviderChoice::Auto if self.credentials.wants_vertex => ProviderName::Vertex,
            ProviderChoice::Auto => ProviderName::FirstParty,
        }
    }

    /// Where keys of AWS are looked for, if they are at all.
    pub fn aws_chain(&self) -> Option<AwsChain> {
        let keys = self.credentials.aws_keys.clone();
        let is_meant = self.default_provider() == ProviderName::Bedrock
            || self.aws.profile.is_some()
            || self.aws.role.is_some();
        let whole_chain = match self.aws.credentials {
            AwsCredentials::DefaultChain => true,
            AwsCredentials::Environment => false,
            AwsCredentials::Auto => is_meant,
        };
        (whole_chain || keys.is_some()).then(|| AwsChain {
            region: self.aws_region.clone(),
            keys,
            profile: self.aws.profile.clone(),
            role: self.aws.role.clone(),
            container: self.credentials.aws_container.clone(),
        })
    }

    /// Whether Google's application default credentials are asked.
    pub fn uses_google_default(&self) -> bool {
        match self.vertex_credentials {
            VertexCredentials::Default => true,
            VertexCredentials::Command => false,
            VertexCredentials::Auto => {
                self.vertex_token_command.is_empty()
                    && self.default_provider() == ProviderName::Vertex
            }
        }
    }

    /// Whether something is configured that may give a credential.
    pub fn may_have_credential(&self, name: ProviderName) -> bool {
        let credentials = &self.credentials;
        match name {
            ProviderName::FirstParty => {
                self.api_key_file.is_some()
                    || self.auth_token_file.is_some()
                    || !self.auth_token_command.is_empty()
                    || credentials.first_party.is_some()
            }
            ProviderName::Bedrock => {
                self.bedrock_token_file.is_some()
                    || credentials.bedrock_token.is_some()
                    || self.aws_chain().is_some()
            }
            ProviderName::Vertex => {
                !self.vertex_token_command.is_empty() || self.uses_google_default()
            }
        }
    }
}

/// A command that is configured as words, none of which may be missing.
pub fn token_command(argv: &[String]) -> Option<TokenCommand> {
    (!argv.is_empty()).then(|| TokenCommand {
        argv: argv.to_vec(),
        timeout: TokenCommand::TIMEOUT,
        refresh_after: TokenCommand::REFRESH_AFTER,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(variables: &[(&str, &str)]) -> Option<String> {
        let home = [("HOME", "/nowhere")].into_iter();
        let environment = Environment::of(0, home.chain(variables.iter().copied()));
        let container = Credentials::of(&environment).aws_container?;
        assert!(!format!("{container:?}").contains("canary"));
        Some(container.place)
    }

    #[test]
    fn a_containers_token_is_for_the_place_that_awss_own_tools_would_show_it_to() {
        let token = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "canary");
        let relative = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/id");
        let full = (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "http://127.0.0.1:81/keys",
        );
        let file = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/run/token");
        let at = |text: &str| Some(text.to_owned());
        assert_eq!(place(&[token, full]), at("http://127.0.0.1:81/keys"));
        assert_eq!(
            place(&[token, full, relative]),
            at("http://169.254.170.2/v2/id")
        );
        for none in [&[token][..], &[full], &[token, full, file]] {
            assert_eq!(place(none), None, "{none:?}");
        }
    }
}
