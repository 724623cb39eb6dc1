//! Requests to issuers: small documents, in bounds, from where they are said to be and nowhere else.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// Longest document, bytes: sets of keys have a few KiB.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// For one document, from the name to its last byte.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks issuers. Clones share their connections. Redirects are not followed, and the machine's proxy variables not read.
#[derive(Clone)]
pub(super) struct Fetcher(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

/// Why there is no document. None of the texts holds a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FetchError {
    #[error("there is none at that place")]
    NotThere,
    #[error("the answer has the status {0}")]
    Status(u16),
    #[error("no answer came within 5 s")]
    Timeout,
    #[error("the place could not be reached")]
    Connection,
    #[error("the answer broke off, or is longer than 256 KiB")]
    Body,
    #[error("the place is no URL")]
    Url,
}

impl Fetcher {
    /// One that believes what the machine's roots of trust vouch for.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (_taken, _left) = roots.add_parsable_certificates(found.certs);
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // In the clear only what stands on this machine: see `is_trustworthy`.
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Fetcher(
            Client::builder(TokioExecutor::new()).build(connector),
        ))
    }

    pub(super) async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let request = Request::get(url)
            .header(header::ACCEPT, "application/json")
            .body(Empty::new())
            .map_err(|_| FetchError::Url)?;
        let asking = async {
            let answer = self.0.request(request).await;
            let (head, body) = answer.map_err(|_| FetchError::Connection)?.into_parts();
            match head.status {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Err(FetchError::NotThere),
                status => return Err(FetchError::Status(status.as_u16())),
            }
            let body = Limited::new(body, MAX_DOCUMENT_BYTES).collect().await;
            Ok(body.map_err(|_| FetchError::Body)?.to_bytes())
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or(Err(FetchError::Timeout))
    }
}
