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
    /// As the resolver fails. That a name does not exist is `NotFound` or an empty answer, that nobody answers `TimedOut`.
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

/// Errors of the system's resolver, which come without a kind and with the words of `gai_strerror(3)`: of glibc, and of musl.
/// Never translated, since this program sets no locale.
const KINDS: [(&str, io::ErrorKind); 6] = [
    ("Name or service not known", io::ErrorKind::NotFound),
    (
        "No address associated with hostname",
        io::ErrorKind::NotFound,
    ),
    ("Name does not resolve", io::ErrorKind::NotFound),
    ("Name has no usable address", io::ErrorKind::NotFound),
    (
        "Temporary failure in name resolution",
        io::ErrorKind::TimedOut,
    ),
    ("Try again", io::ErrorKind::TimedOut),
];

fn in_a_kind(error: io::Error) -> io::Error {
    let words = error.to_string();
    match KINDS.iter().find(|(known, _)| words.ends_with(known)) {
        Some((_, kind)) => io::Error::new(*kind, error),
        None => error,
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
            let found = (host.as_str(), 0_u16)
                .to_socket_addrs()
                .map_err(in_a_kind)?;
            Ok(found.map(|address| address.ip()).collect())
        });
        looking_up.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_no_error_without_a_kind() {
        // No name server is asked for what cannot be a name.
        let error = ("a..b", 0_u16).to_socket_addrs().unwrap_err();
        assert_eq!(in_a_kind(error).kind(), io::ErrorKind::NotFound);
        let silent = io::Error::other(
            "failed to lookup address information: Temporary failure in name resolution",
        );
        assert_eq!(in_a_kind(silent).kind(), io::ErrorKind::TimedOut);
        let other = io::Error::other("failed to lookup address information: System error");
        assert_eq!(in_a_kind(other).kind(), io::ErrorKind::Other);
        // The control.
        let host = HostName::parse(b"localhost").unwrap();
        assert!(
            !SystemResolver::default()
                .resolve(&host)
                .await
                .unwrap()
                .is_empty()
        );
    }
}
