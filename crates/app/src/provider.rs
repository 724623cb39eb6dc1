//! The way to model providers, as configured.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use egress::{
    Caps, Credential, DailyBudgets, Form, Guard, HostClient, Ledger, LedgerConfig,
    MAX_PRICES_BYTES, Prices, Relay, RelayLimits, Source, Trust,
};
use session::{Egress, Providers, TrafficLog, UsageBook};
use store::Store;

use crate::config::{Config, ProviderConfig, VertexCredentials, token_command};

/// Builds it.
///
/// # Errors
/// When a file with a key or with prices cannot be used, what was used before cannot be read, or TLS cannot be set up.
pub(crate) fn egress(
    config: &Config,
    store: &Store,
    traffic: Arc<dyn TrafficLog>,
) -> anyhow::Result<Egress> {
    let provider = &config.provider;
    let (book, used_before) =
        UsageBook::open(store).context("what was used of model providers before cannot be read")?;
    let (budgets, prices) = terms(provider)?;
    let ledger = Ledger::new(LedgerConfig {
        budgets,
        prices,
        used_before,
        keep: book.clone(),
        clock: Ledger::system_clock(),
    });
    Ok(Egress {
        relay: Relay::new(RelayLimits::default(), &Trust::default())
            .context("the way to model providers cannot be set up")?,
        providers: providers(provider)?,
        traffic,
        ledger,
        usage: Some(book),
    })
}

/// What sessions may use day by day, and what it costs.
///
/// # Errors
/// When a file with prices cannot be used.
pub(crate) fn terms(provider: &ProviderConfig) -> anyhow::Result<(DailyBudgets, Prices)> {
    let budgets = DailyBudgets {
        caller: provider.budgets.caller_day,
        server: provider.budgets.server_day,
    };
    Ok((budgets, prices(provider.budgets.prices_file.as_deref())?))
}

/// The providers of sessions that are made from now on.
///
/// # Errors
/// When a file with a key cannot be used, or TLS cannot be set up.
pub(crate) fn providers(provider: &ProviderConfig) -> anyhow::Result<Providers> {
    let limited = |count: u64| (count > 0).then_some(count);
    Ok(Providers {
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
            max_cost: provider.budgets.session_cost,
            ..Caps::default()
        },
    })
}

/// What is wrong with the files that credentials and prices come from.
pub(crate) fn problems(provider: &ProviderConfig) -> Vec<anyhow::Error> {
    let looked = [
        first_party(provider).map(drop),
        bedrock(provider).map(drop),
        vertex(provider).map(drop),
        prices(provider.budgets.prices_file.as_deref()).map(drop),
    ];
    looked.into_iter().filter_map(Result::err).collect()
}

/// Whether what the credentials come from, and the prices, can be used.
///
/// # Errors
/// As for [`egress`].
pub(crate) fn check_files(provider: &ProviderConfig) -> anyhow::Result<()> {
    problems(provider).into_iter().next().map_or(Ok(()), Err)
}

fn prices(operators: Option<&Path>) -> anyhow::Result<Prices> {
    let Some(path) = operators else {
        return Prices::new(None).context("the built-in price table is broken");
    };
    let shown = path.display();
    let size = std::fs::metadata(path)
        .with_context(|| format!("{shown} cannot be read (`prices_file`)"))?
        .len();
    if size > MAX_PRICES_BYTES as u64 {
        bail!("{shown} is too large for a price table (`prices_file`)");
    }
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{shown} cannot be read (`prices_file`)"))?;
    Prices::new(Some(&text)).with_context(|| format!("{shown} cannot be used (`prices_file`)"))
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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

    use super::*;
    use crate::config::{Environment, Flags, load};

    struct Case(tempfile::TempDir);

    impl Case {
        fn file(&self, name: &str, mode: u32) -> PathBuf {
            let path = self.0.path().join(name);
            let _ = fs::remove_file(&path);
            fs::write(&path, "key\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        fn provider(&self, variables: &[(&str, &str)], set: &[String]) -> ProviderConfig {
            let config = self.file("config.toml", 0o600);
            fs::write(&config, "").unwrap();
            let directory = self.0.path().to_str().unwrap();
            let usual = [("HOME", directory), ("CREDENTIALS_DIRECTORY", directory)];
            let uid = rustix::process::geteuid().as_raw();
            let environment =
                Environment::of(uid, usual.into_iter().chain(variables.iter().copied()));
            let flags = Flags {
                config: Some(config),
                set: set.to_vec(),
                ..Flags::default()
            };
            load(&flags, &environment).unwrap().provider
        }
    }

    fn shown(credential: anyhow::Result<Option<Credential>>) -> String {
        match credential {
            Ok(credential) => format!("{credential:?}"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn the_first_source_that_there_is_counts() {
        let case = Case(tempfile::tempdir().unwrap());
        let variables = [
            ("ANTHROPIC_API_KEY", "k"),
            ("AWS_BEARER_TOKEN_BEDROCK", "t"),
        ];
        let provider = case.provider(&variables, &[]);
        assert_eq!(shown(first_party(&provider)), "Some(ApiKey([secret]))");
        assert_eq!(shown(bedrock(&provider)), "Some(Bearer([secret]))");
        case.file("anthropic-auth-token", 0o400);
        assert!(shown(first_party(&provider)).contains("Header(Bearer)"));
        case.file("anthropic-api-key", 0o400);
        assert!(shown(first_party(&provider)).contains("Header(ApiKey)"));
        case.file("aws-bearer-token-bedrock", 0o400);
        assert!(shown(bedrock(&provider)).contains("Header(Bearer)"));
        let token = case.file("token", 0o600);
        let set = [format!("auth_token_file={}", token.display())];
        let provider = case.provider(&variables, &set);
        assert!(shown(first_party(&provider)).contains("Header(Bearer)"));
        let none = Case(tempfile::tempdir().unwrap()).provider(&[], &[]);
        assert_eq!(shown(first_party(&none)), "None");
        assert_eq!(shown(bedrock(&none)), "None");
        assert_eq!(shown(vertex(&none)), "None");
    }

    #[test]
    fn a_file_that_is_open_to_others_stops_the_start_and_is_named() {
        let case = Case(tempfile::tempdir().unwrap());
        let open = case.file("open", 0o644);
        let set = [format!("api_key_file={}", open.display())];
        let said = shown(first_party(&case.provider(&[], &set)));
        assert!(
            said.contains("chmod 600") && said.contains("`api_key_file`"),
            "{said}"
        );
        case.file("anthropic-api-key", 0o444);
        let said = shown(first_party(&case.provider(&[], &[])));
        assert!(
            said.contains("the systemd credential `anthropic-api-key`"),
            "{said}"
        );
    }

    #[test]
    fn sources_of_aws_and_google_are_built_where_they_are_meant() {
        let case = Case(tempfile::tempdir().unwrap());
        let chain = case.provider(&[], &["provider=bedrock".to_owned()]);
        assert!(shown(bedrock(&chain)).contains("Signature"));
        let default = case.provider(&[], &["vertex_credentials=default".to_owned()]);
        assert!(shown(vertex(&default)).contains("Header(Bearer)"));
        let command = case.provider(&[], &["vertex_credentials=command".to_owned()]);
        assert!(shown(vertex(&command)).contains("`vertex_token_command` is not set"));
    }
}
