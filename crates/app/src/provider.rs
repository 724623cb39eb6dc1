//! The way to model providers, as configured.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use egress::{
    Caps, Credential, Form, Guard, HostClient, Observer, Relay, RelayLimits, RequestRecord, Source,
    Trust,
};
use model::SessionId;
use session::{Egress, Providers};

use crate::config::{Config, ProviderConfig, VertexCredentials, token_command};

/// Builds it.
///
/// # Errors
/// When a file with a key cannot be used, or TLS cannot be set up.
pub(crate) fn egress(config: &Config) -> anyhow::Result<Egress> {
    let provider = &config.provider;
    let limited = |count: u64| (count > 0).then_some(count);
    Ok(Egress {
        relay: Relay::new(RelayLimits::default(), &Trust::default())
            .context("the way to model providers cannot be set up")?,
        providers: Providers {
            default: provider.default_provider(),
            first_party_base_url: provider.first_party_base_url.clone(),
            first_party: first_party(provider)?,
            bedrock_region: provider.aws_region.clone(),
            bedrock_base_url: provider.bedrock_base_url.clone(),
            bedrock: bedrock(provider)?,
            vertex_project: provider.vertex_project.clone(),
            vertex_region: provider.vertex_region.clone(),
            vertex_base_url: provider.vertex_base_url.clone(),
            vertex: vertex(provider)?,
            model: provider.model.clone(),
            small_model: provider.small_model.clone(),
            models: provider.models.clone(),
            caps: Caps {
                max_requests: limited(provider.max_requests),
                max_total_tokens: limited(provider.max_tokens),
                ..Caps::default()
            },
        },
        observer: Arc::new(Told),
    })
}

/// In this order: files that are configured, a command, what systemd handed over, the environment.
fn first_party(provider: &ProviderConfig) -> anyhow::Result<Option<Credential>> {
    if let Some(path) = &provider.api_key_file {
        return file(path, Form::ApiKey, "api_key_file").map(Some);
    }
    if let Some(path) = &provider.auth_token_file {
        return file(path, Form::Bearer, "auth_token_file").map(Some);
    }
    if let Some(command) = token_command(&provider.auth_token_command) {
        return Ok(Some(Credential::Source(Source::command(command))));
    }
    for (name, form) in [
        ("anthropic-api-key", Form::ApiKey),
        ("anthropic-auth-token", Form::Bearer),
    ] {
        if let Some(found) = systemd(provider, name, form)? {
            return Ok(Some(found));
        }
    }
    Ok(provider.credentials.first_party.clone())
}

/// A token comes before keys, as for AWS's own tools.
fn bedrock(provider: &ProviderConfig) -> anyhow::Result<Option<Credential>> {
    if let Some(path) = &provider.bedrock_token_file {
        return file(path, Form::Bearer, "bedrock_token_file").map(Some);
    }
    if let Some(found) = systemd(provider, "aws-bearer-token-bedrock", Form::Bearer)? {
        return Ok(Some(found));
    }
    if let Some(token) = &provider.credentials.bedrock_token {
        return Ok(Some(token.clone()));
    }
    let Some(chain) = provider.aws_chain() else {
        return Ok(None);
    };
    match (&chain.keys, &chain.profile, &chain.role) {
        (Some(keys), None, None) => Ok(Some(Credential::Aws(keys.clone()))),
        _ => Ok(Some(Credential::Source(Source::aws(chain, client()?)))),
    }
}

fn vertex(provider: &ProviderConfig) -> anyhow::Result<Option<Credential>> {
    if provider.uses_google_default() {
        let places = provider.credentials.google.clone();
        return Ok(Some(Credential::Source(Source::google(places, client()?))));
    }
    let command = token_command(&provider.vertex_token_command);
    if command.is_none() && provider.vertex_credentials == VertexCredentials::Command {
        anyhow::bail!("`vertex_credentials` is \"command\", and `vertex_token_command` is not set");
    }
    Ok(command.map(|command| Credential::Source(Source::command(command))))
}

fn client() -> anyhow::Result<HostClient> {
    HostClient::new(&Trust::default()).context("the way to credentials cannot be set up")
}

fn file(path: &Path, form: Form, key: &str) -> anyhow::Result<Credential> {
    let source = Source::file(path.to_owned(), Guard::OwnerOnly, form);
    let shown = path.display();
    source
        .map(Credential::Source)
        .with_context(|| format!("{shown} cannot be used (`{key}`)"))
}

/// A credential of that name that systemd made for this service (`LoadCredential=`, `LoadCredentialEncrypted=`).
fn systemd(
    provider: &ProviderConfig,
    name: &str,
    form: Form,
) -> anyhow::Result<Option<Credential>> {
    let Some(path) = provider
        .credentials
        .systemd
        .as_ref()
        .map(|directory| directory.join(name))
    else {
        return Ok(None);
    };
    // Links are no credentials of systemd's; whatever else stands there must be usable.
    if std::fs::symlink_metadata(&path).is_err() {
        return Ok(None);
    }
    let source = Source::file(path, Guard::Systemd, form);
    source
        .map(|source| Some(Credential::Source(source)))
        .with_context(|| format!("the systemd credential `{name}` cannot be used"))
}

/// The server's log hears of each request; nothing of its content is known here.
struct Told;

impl Observer for Told {
    fn request_ended(&self, session: SessionId, record: &RequestRecord) {
        tracing::info!(
            %session,
            shape = record.shape,
            model = record.model.as_deref(),
            status = record.status,
            denied = record.denied,
            ending = ?record.ending,
            milliseconds = u64::try_from(record.duration.as_millis()).unwrap_or(u64::MAX),
            "a request to the provider"
        );
    }
}
