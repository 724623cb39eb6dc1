//! From names to addresses, on the host.

use std::{
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::name::HostName;

/// Names that are looked up at a time, for all sessions together. Each keeps a thread until the system's resolver gives up, which
/// may be later than we do.
const MAX_LOOKUPS: usize = 32;

/// Who knows the addresses of names.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of a name, the preferred ones first.
    ///
    /// # Errors
    /// As the resolver fails. That a name does not exist is an error or an empty answer.
    async fn resolve(&self, host: &HostName) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of this machine, with its `/etc/hosts`, search list and name service switch.
#[derive(Debug, Clone)]
pub struct SystemResolver {
    places: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        SystemResolver {
            places: Arc::new(Semaphore::new(MAX_LOOKUPS)),
        }
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &HostName) -> io::Result<Vec<IpAddr>> {
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let host = host.as_str().to_owned();
        let looking_up = tokio::task::spawn_blocking(move || {
            // Held until the thread is free again, not only until somebody stops waiting.
            let _place = place;
            let found = (host.as_str(), 0_u16).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        });
        looking_up.await.map_err(io::Error::other)?
    }
}
