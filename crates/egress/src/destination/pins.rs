//! Which addresses the names of one session had when they were looked up: for a while they have no others.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::name::HostName;

/// Names that are kept at a time; the one that would end first makes room.
const MAX_PINS: usize = 512;

#[derive(Debug)]
pub(super) struct Pins {
    lifetime: Duration,
    names: Mutex<HashMap<HostName, Pin>>,
}

#[derive(Debug)]
struct Pin {
    addresses: Vec<IpAddr>,
    until: Instant,
}

impl Pins {
    pub(super) fn new(lifetime: Duration) -> Pins {
        Pins {
            lifetime,
            names: Mutex::default(),
        }
    }

    pub(super) fn find(&self, host: &HostName) -> Option<Vec<IpAddr>> {
        let names = self.lock();
        let pin = names.get(host)?;
        (pin.until > Instant::now()).then(|| pin.addresses.clone())
    }

    /// Keeps what was found. A pin that still holds stays as it is: it ends when it was to end.
    pub(super) fn keep(&self, host: &HostName, addresses: &[IpAddr]) {
        let now = Instant::now();
        let mut names = self.lock();
        if names.get(host).is_some_and(|pin| pin.until > now) {
            return;
        }
        if names.len() >= MAX_PINS {
            names.retain(|_, pin| pin.until > now);
        }
        if names.len() >= MAX_PINS {
            let first = names.iter().min_by_key(|(_, pin)| pin.until);
            if let Some(first) = first.map(|(name, _)| name.clone()) {
                names.remove(&first);
            }
        }
        names.insert(
            host.clone(),
            Pin {
                addresses: addresses.to_vec(),
                until: now + self.lifetime,
            },
        );
    }

    pub(super) fn forget(&self, host: &HostName) {
        self.lock().remove(host);
    }

    /// A panic elsewhere leaves no half-written pin: each change is one call on the map.
    fn lock(&self) -> MutexGuard<'_, HashMap<HostName, Pin>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
