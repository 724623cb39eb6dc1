//! The model provider: what is configured, and the credentials in the environment of whoever starts the server. They are
//! held in memory, never shown, and never handed into a session.

use egress::{Allowance, AwsKeys, Credential, TokenCommand, Usd};
use model::Secret;
use session::ProviderName;

use super::Environment;

/// Which provider, when nothing else says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderChoice {
    /// By the variables that Claude Code itself goes by.
    Auto,
    /// That one.
    Named(ProviderName),
}

/// What there is of providers.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// Which one sessions have when their callers name none.
    pub choice: ProviderChoice,
    /// See [`session::Providers`].
    pub first_party_base_url: Option<String>,
    /// A file with a key of the first party.
    pub api_key_file: Option<std::path::PathBuf>,
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
    /// A command that prints a token for Google.
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
    pub prices_file: Option<std::path::PathBuf>,
}

/// Credentials in the environment.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// `ANTHROPIC_API_KEY` or `ANTHROPIC_AUTH_TOKEN`.
    pub first_party: Option<Credential>,
    /// `AWS_BEARER_TOKEN_BEDROCK`, or `AWS_ACCESS_KEY_ID` and its companions.
    pub bedrock: Option<Credential>,
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
            Some(Credential::Aws(AwsKeys {
                access_key_id: secret("AWS_ACCESS_KEY_ID")?,
                secret_access_key: secret("AWS_SECRET_ACCESS_KEY")?,
                session_token: secret("AWS_SESSION_TOKEN"),
            }))
        };
        Credentials {
            first_party: secret("ANTHROPIC_API_KEY")
                .map(Credential::ApiKey)
                .or_else(|| secret("ANTHROPIC_AUTH_TOKEN").map(Credential::Bearer)),
            bedrock: secret("AWS_BEARER_TOKEN_BEDROCK")
                .map(Credential::Bearer)
                .or_else(keys),
            wants_bedrock: is_on("CLAUDE_CODE_USE_BEDROCK"),
            wants_vertex: is_on("CLAUDE_CODE_USE_VERTEX"),
        }
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

    /// The command for Google's tokens.
    pub fn vertex_credential(&self) -> Option<Credential> {
        (!self.vertex_token_command.is_empty()).then(|| {
            Credential::Command(TokenCommand {
                argv: self.vertex_token_command.clone(),
                timeout: TokenCommand::TIMEOUT,
                refresh_after: TokenCommand::REFRESH_AFTER,
            })
        })
    }
}
