//! What is configured of model providers.

use egress::{Allowance, AwsRole, Usd};
use session::ProviderName;

use super::{Reader, wrong_type};
use crate::config::{
    AwsConfig, AwsCredentials, BudgetConfig, ConfigError, Credentials, ProviderChoice,
    ProviderConfig, VertexCredentials, keys,
};

impl Reader<'_> {
    pub(super) fn provider(&self) -> Result<ProviderConfig, ConfigError> {
        let key = &keys::PROVIDER;
        let given = self.layers.get(key);
        let choice = match given.map(|given| given.value.as_str()) {
            None | Some(Some("auto")) => ProviderChoice::Auto,
            Some(Some("anthropic")) => ProviderChoice::Named(ProviderName::FirstParty),
            Some(Some("bedrock")) => ProviderChoice::Named(ProviderName::Bedrock),
            Some(Some("vertex")) => ProviderChoice::Named(ProviderName::Vertex),
            Some(_) => {
                let expected = "\"auto\", \"anthropic\", \"bedrock\" or \"vertex\"";
                return Err(wrong_type(key, given, expected));
            }
        };
        Ok(ProviderConfig {
            choice,
            first_party_base_url: self.base_url(&keys::ANTHROPIC_BASE_URL)?,
            api_key_file: self.path(&keys::API_KEY_FILE)?,
            auth_token_file: self.path(&keys::AUTH_TOKEN_FILE)?,
            auth_token_command: self.words(&keys::AUTH_TOKEN_COMMAND)?,
            bedrock_token_file: self.path(&keys::BEDROCK_TOKEN_FILE)?,
            aws: self.aws()?,
            aws_region: self.text(&keys::AWS_REGION)?,
            bedrock_base_url: self.base_url(&keys::BEDROCK_BASE_URL)?,
            vertex_project: self.text(&keys::VERTEX_PROJECT)?,
            vertex_region: self.text(&keys::VERTEX_REGION)?,
            vertex_base_url: self.base_url(&keys::VERTEX_BASE_URL)?,
            vertex_credentials: match self.choice(&keys::VERTEX_CREDENTIALS)? {
                Some("command") => VertexCredentials::Command,
                Some("default") => VertexCredentials::Default,
                _ => VertexCredentials::Auto,
            },
            vertex_token_command: self.words(&keys::VERTEX_TOKEN_COMMAND)?,
            model: self.text(&keys::MODEL)?,
            small_model: self.text(&keys::SMALL_MODEL)?,
            models: self.words(&keys::MODELS)?,
            max_requests: self.count(&keys::SESSION_MAX_REQUESTS)?.into(),
            max_tokens: self.count(&keys::SESSION_MAX_TOKENS)?.into(),
            budgets: self.budgets()?,
            credentials: Credentials::of(self.environment),
        })
    }

    fn aws(&self) -> Result<AwsConfig, ConfigError> {
        let narrowed = self.choice(&keys::AWS_SESSION_POLICY)? != Some("none");
        let (external_id, source_identity) = (
            self.text(&keys::AWS_EXTERNAL_ID)?,
            self.switch(&keys::AWS_SOURCE_IDENTITY)?,
        );
        let role = self.text(&keys::AWS_ROLE_ARN)?.map(|arn| AwsRole {
            arn,
            external_id: external_id.clone(),
            source_identity,
            narrowed,
        });
        let lone = [
            (&keys::AWS_EXTERNAL_ID, external_id.is_some()),
            (&keys::AWS_SOURCE_IDENTITY, source_identity),
        ];
        for (key, is_set) in lone {
            if is_set && role.is_none() {
                let expected = "left out, or set together with `aws_role_arn`";
                return Err(wrong_type(key, self.layers.get(key), expected));
            }
        }
        let credentials = match self.choice(&keys::AWS_CREDENTIALS)? {
            Some("environment") => AwsCredentials::Environment,
            Some("default-chain") => AwsCredentials::DefaultChain,
            _ => AwsCredentials::Auto,
        };
        let profile = self.text(&keys::AWS_PROFILE)?;
        if profile.is_some() && credentials == AwsCredentials::Environment {
            let key = &keys::AWS_PROFILE;
            let expected = "left out where `aws_credentials` is \"environment\"";
            return Err(wrong_type(key, self.layers.get(key), expected));
        }
        Ok(AwsConfig {
            credentials,
            profile,
            role,
        })
    }

    fn budgets(&self) -> Result<BudgetConfig, ConfigError> {
        let limit = |key| {
            let value = self.number_or_default(key)?;
            Ok((value > 0).then_some(value))
        };
        let dollars = |key| Ok(limit(key)?.map(Usd::from_micro));
        Ok(BudgetConfig {
            session_cost: dollars(&keys::MAX_USD_PER_SESSION)?,
            caller_day: Allowance {
                requests: limit(&keys::MAX_REQUESTS_PER_CALLER_PER_DAY)?,
                output_tokens: None,
                tokens: limit(&keys::MAX_TOKENS_PER_CALLER_PER_DAY)?,
                cost: dollars(&keys::MAX_USD_PER_CALLER_PER_DAY)?,
            },
            server_day: Allowance {
                requests: limit(&keys::MAX_REQUESTS_PER_DAY)?,
                output_tokens: None,
                tokens: limit(&keys::MAX_TOKENS_PER_DAY)?,
                cost: dollars(&keys::MAX_USD_PER_DAY)?,
            },
            prices_file: self.path(&keys::PRICES_FILE)?,
        })
    }
}
