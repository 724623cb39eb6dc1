//! Builds the house: the one place that names concrete backends and stores.

use std::sync::Arc;

use crate::{config::Config, server::House};

/// Builds everything behind the doors and puts right what an earlier server left.
///
/// # Errors
/// When any part of it cannot be built: the server then does not start.
pub async fn build(config: &Config) -> anyhow::Result<Arc<dyn House>> {
    anyhow::bail!("no house is wired for the state directory {}", config.paths.state_dir.display())
}
