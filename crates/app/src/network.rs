//! The way to hosts, and what the operator allows of it, as configured.

use std::sync::Arc;

use egress::{
    destination::{SystemResolver, preset, preset_names},
    proxy::{Proxy, ProxyLimits},
};
use policy::NetworkConfig;
use session::Network;

use crate::config::Config;

/// Builds it.
pub(crate) fn network() -> Network {
    Network {
        proxy: Proxy::new(ProxyLimits::default()),
        resolver: Arc::new(SystemResolver::default()),
    }
}

/// The operator's side of decisions on it.
pub(crate) fn ceiling(config: &Config) -> NetworkConfig {
    let rules = |name| {
        let rules = preset(name).unwrap_or_default().iter();
        rules.map(|entry| entry.rule.clone()).collect()
    };
    NetworkConfig {
        known_presets: preset_names()
            .map(|name| (name.to_owned(), rules(name)))
            .collect(),
        presets: config.network.presets.clone(),
        allow: config.network.allow.clone(),
        default: config.network.default.clone(),
        private: config.network.private.clone(),
        // TLS is looked at from outside only.
        opens_tls: false,
    }
}
