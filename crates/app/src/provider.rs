//! The way to model providers, as configured.

use std::{os::unix::fs::MetadataExt, path::Path, sync::Arc};

use anyhow::{Context, bail};
use egress::{
    Caps, Credential, DailyBudgets, Ledger, LedgerConfig, MAX_PRICES_BYTES, Prices, Relay,
    RelayLimits, Trust,
};
use model::Secret;
use session::{Egress, Providers, TrafficLog, UsageBook};
use store::Store;

use crate::config::{Config, ProviderConfig};

/// Longest file with a key, bytes.
const MAX_KEY_FILE_BYTES: u64 = 8192;
/// Nobody but its owner may read a file with a key.
const OTHERS: u32 = 0o077;

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
    let first_party = match &provider.api_key_file {
        Some(path) => Some(Credential::ApiKey(key_in(path)?)),
        None => provider.credentials.first_party.clone(),
    };
    let limited = |count: u64| (count > 0).then_some(count);
    let (book, used_before) =
        UsageBook::open(store).context("what was used of model providers before cannot be read")?;
    let ledger = Ledger::new(LedgerConfig {
        budgets: DailyBudgets {
            caller: provider.budgets.caller_day,
            server: provider.budgets.server_day,
        },
        prices: prices(provider.budgets.prices_file.as_deref())?,
        used_before,
        keep: book.clone(),
        clock: Ledger::system_clock(),
    });
    Ok(Egress {
        relay: Relay::new(RelayLimits::default(), &Trust::default())
            .context("the way to model providers cannot be set up")?,
        providers: Providers {
            default: provider.default_provider(),
            first_party_base_url: provider.first_party_base_url.clone(),
            first_party,
            bedrock_region: provider.aws_region.clone(),
            bedrock_base_url: provider.bedrock_base_url.clone(),
            bedrock: provider.credentials.bedrock.clone(),
            vertex_project: provider.vertex_project.clone(),
            vertex_region: provider.vertex_region.clone(),
            vertex_base_url: provider.vertex_base_url.clone(),
            vertex: provider.vertex_credential(),
            model: provider.model.clone(),
            small_model: provider.small_model.clone(),
            models: provider.models.clone(),
            caps: Caps {
                max_requests: limited(provider.max_requests),
                max_total_tokens: limited(provider.max_tokens),
                max_cost: provider.budgets.session_cost,
                ..Caps::default()
            },
        },
        traffic,
        ledger,
        usage: Some(book),
    })
}

/// Whether files with a key or with prices can be used.
///
/// # Errors
/// As for [`egress`].
pub(crate) fn check_files(provider: &ProviderConfig) -> anyhow::Result<()> {
    provider.api_key_file.as_deref().map(key_in).transpose()?;
    prices(provider.budgets.prices_file.as_deref()).map(drop)
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

fn key_in(path: &Path) -> anyhow::Result<Secret<String>> {
    let shown = path.display();
    let metadata = std::fs::metadata(path)
        .with_context(|| format!("{shown} cannot be read (`api_key_file`)"))?;
    if metadata.mode() & OTHERS != 0 {
        bail!("{shown} can be read by others than its owner: chmod 600 {shown} (`api_key_file`)");
    }
    if metadata.len() > MAX_KEY_FILE_BYTES {
        bail!("{shown} is too large for a key (`api_key_file`)");
    }
    let key = std::fs::read_to_string(path)
        .with_context(|| format!("{shown} cannot be read (`api_key_file`)"))?;
    Ok(Secret::new(key.trim().to_owned()))
}
