//! What the operator can change while the server runs. It is replaced as a whole: whoever works with it has all of the old or
//! all of the new.

use std::sync::{Arc, PoisonError};

use policy::Policy;

use crate::{
    network::Credentials,
    providers::Providers,
    sessions::{AgentLookup, Inner, Sessions},
};

/// See the module.
pub struct Settings {
    /// The decisions.
    pub policy: Arc<Policy>,
    /// Which Claude Code new sandboxes get.
    pub agent: AgentLookup,
    /// Protected paths that a session makes may stay; they are only reported.
    pub allow_protected_changes: bool,
    /// Model providers, for sessions that are made from now on.
    pub providers: Providers,
    /// What requests of sessions can be given on their way out.
    pub credentials: Credentials,
}

impl Sessions {
    /// The decisions in force. Whoever decides and acts does both by one of them.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.0.settings().policy)
    }

    /// Puts other settings in force, at once and as a whole. Sessions that live keep what they were made with, but for their
    /// network: what is past the new ceiling is taken from them, and what is open by it closed. Gives how many lost something.
    pub async fn reconfigure(&self, settings: Settings) -> u32 {
        let settings = Arc::new(settings);
        *self
            .0
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = settings;
        let mut narrowed = 0;
        for live in self.0.all_live() {
            narrowed += u32::from(self.0.fit_network(&live).await);
        }
        // There may be room now for those who wait.
        self.0.queue.place_is_free();
        narrowed
    }

    /// What opens tunnels, where something does: kept through other settings, since sandboxes believe it.
    pub fn interception(&self) -> Option<Arc<egress::intercept::Interception>> {
        self.0.settings().credentials.interception.clone()
    }

    /// Prices and what may be used day by day, for all sessions.
    pub fn ledger(&self) -> &egress::Ledger {
        &self.0.setup.egress.ledger
    }
}

impl Inner {
    /// What is in force now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        let settings = self.settings.read();
        Arc::clone(&settings.unwrap_or_else(PoisonError::into_inner))
    }
}
