//! Connections to providers: TLS with one crypto provider and the machine's roots, pooled, with a limit on the time that
//! making one may take.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tower_service::Service;

/// Connections that are kept open without work, for each provider.
const MAX_IDLE_CONNECTIONS: usize = 32;

/// How long a connection is kept without work. Shorter than what load balancers allow (60 s and more).
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// Whose certificates are believed.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The roots of this machine (`SSL_CERT_FILE` and the like count).
    pub machine: bool,
    /// Further roots, in PEM: a company's own, or a test's.
    pub extra_pem: Vec<u8>,
}

impl Default for Trust {
    fn default() -> Self {
        Trust {
            machine: true,
            extra_pem: Vec::new(),
        }
    }
}

/// Roots that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The PEM cannot be read.
    #[error("the additional root certificates are not PEM")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// One of them is no root.
    #[error("an additional root certificate is not usable")]
    Certificate(#[source] rustls::Error),
    /// The TLS versions do not fit the crypto provider.
    #[error("TLS could not be set up")]
    Tls(#[source] rustls::Error),
}

pub(crate) type Pool = Client<TimedConnector, Full<Bytes>>;

/// The pool that all sessions of a server share.
pub(crate) fn pool(trust: &Trust, connect_timeout: Duration) -> Result<Pool, TrustError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Tls)?
        .with_root_certificates(roots(trust)?)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        // Plain http is for loopback addresses alone, which `Provider` holds.
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .build(TimedConnector {
            inner: connector,
            limit: connect_timeout,
        }))
}

pub(crate) fn roots(trust: &Trust) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    if trust.machine {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::warn!(
                errors = ?found.errors,
                "this machine has no root certificates (install ca-certificates): no provider can be reached by https"
            );
        }
    }
    for certificate in CertificateDer::pem_slice_iter(&trust.extra_pem) {
        let certificate = certificate.map_err(TrustError::Pem)?;
        roots.add(certificate).map_err(TrustError::Certificate)?;
    }
    Ok(roots)
}

/// A connector with one limit for name, connection and TLS together.
#[derive(Clone)]
pub(crate) struct TimedConnector {
    inner: HttpsConnector<HttpConnector>,
    limit: Duration,
}

type BoxError = Box<dyn StdError + Send + Sync>;

impl Service<Uri> for TimedConnector {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        let limit = self.limit;
        Box::pin(async move {
            tokio::time::timeout(limit, connecting)
                .await
                .map_err(BoxError::from)?
        })
    }
}
