//! Requests for credentials: small, with an answer in one piece, over connections of their own.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};

use crate::relay::{Pool, Trust, TrustError, is_loopback, pool};

/// Longest answer, bytes: tokens and credentials are below 16 KiB.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Name, connection and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What asks for credentials on the host. The host's own proxy variables are not looked at.
#[derive(Clone)]
pub struct HostClient(Pool);

/// Why there is no answer. None of the texts holds a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreached {
    #[error("did not answer in time")]
    Timeout,
    #[error("could not be reached")]
    Connection,
    #[error("broke off, or said more than 256 KiB")]
    Body,
}

impl HostClient {
    /// A client that believes what `trust` vouches for.
    ///
    /// # Errors
    /// When the additional roots cannot be used.
    pub fn new(trust: &Trust) -> Result<Self, TrustError> {
        Ok(HostClient(pool(trust, CONNECT_TIMEOUT)?))
    }

    /// Asks once. `limit` is for all of it.
    pub(crate) async fn ask(
        &self,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<Response<Bytes>, Unreached> {
        let asking = async {
            let response = self.0.request(request).await.map_err(|error| {
                tracing::debug!(
                    is_connect = error.is_connect(),
                    "a place with credentials was not reached"
                );
                Unreached::Connection
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|_| Unreached::Body)?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        tokio::time::timeout(limit, asking)
            .await
            .unwrap_or(Err(Unreached::Timeout))
    }
}

impl std::fmt::Debug for HostClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostClient")
    }
}

/// An address that secrets may be sent to: https, or http within this machine.
pub(crate) fn is_private_way(uri: &Uri) -> bool {
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => true,
        (Some("http"), Some(host)) => is_loopback(host),
        _ => false,
    }
}
