//! The client of an engine that is reached over a network: rustls with one crypto provider, the engine's certificate
//! checked against `ca.pem` alone, ours shown.
//!
//! Not by the client library's own TLS, which trusts every authority that the machine trusts besides: each of them could
//! then put an engine of its own in the place of ours.

use std::{
    error::Error as StdError,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bollard::{BollardRequest, ClientVersion, errors::Error};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};
use sandbox::BackendError;

/// How long a host may take to take a connection: less than a call may, so that the error says which it was.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);
/// Longest certificate or key file, bytes: a chain of a dozen certificates is a tenth of it.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// What other users than the owner may not be able to do with a key.
const ANY_OTHER: u32 = 0o077;
/// What they may not be able to do with a certificate.
const OTHERS_WRITE: u32 = 0o022;

/// Certificates, as they stand in a directory.
pub(crate) struct Identity {
    config: ClientConfig,
}

impl Identity {
    /// Reads `ca.pem`, `cert.pem` and `key.pem`.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] for a file that is missing, damaged or open to others, with what to do.
    pub fn read(directory: &Path) -> Result<Identity, BackendError> {
        let file = |name: &str| directory.join(name);
        let authorities = certificates(&file("ca.pem"))?;
        let own = certificates(&file("cert.pem"))?;
        let key = key(&file("key.pem"))?;
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            let added = roots.add(authority);
            added.map_err(|error| damaged(&file("ca.pem"), &error.to_string()))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            // What every engine speaks since Docker 20.10.
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| damaged(directory, &error.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(own, key)
            .map_err(|error| {
                damaged(
                    &file("cert.pem"),
                    &format!("it does not go with key.pem: {error}"),
                )
            })?;
        Ok(Identity { config })
    }

    /// A client that shows these certificates.
    ///
    /// # Errors
    /// For an address that is none.
    pub fn client(
        self,
        authority: &str,
        limit_s: u64,
        version: &ClientVersion,
    ) -> Result<bollard::Docker, Error> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(self.config)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp());
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        bollard::Docker::connect_with_custom_transport(
            move |request: BollardRequest| {
                let answer = client.request(request);
                async move { answer.await.map_err(Error::from) }
            },
            Some(format!("https://{authority}")),
            limit_s,
            version,
        )
    }
}

/// A client without TLS.
///
/// # Errors
/// For an address that is none.
pub(crate) fn plain_client(
    authority: &str,
    limit_s: u64,
    version: &ClientVersion,
) -> Result<bollard::Docker, Error> {
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(tcp());
    bollard::Docker::connect_with_custom_transport(
        move |request: BollardRequest| {
            let answer = client.request(request);
            async move { answer.await.map_err(Error::from) }
        },
        Some(format!("http://{authority}")),
        limit_s,
        version,
    )
}

fn tcp() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT_LIMIT));
    connector.set_nodelay(true);
    connector
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BackendError> {
    let text = read(path, OTHERS_WRITE, "go-w")?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| damaged(path, &error.to_string()))?;
    if found.is_empty() {
        return Err(damaged(path, "there is no certificate in it"));
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, BackendError> {
    let text = read(path, ANY_OTHER, "go-rwx")?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| damaged(path, &error.to_string()))
}

/// Reads a file, unless others may do with it what `forbidden` says.
fn read(path: &Path, forbidden: u32, change: &str) -> Result<Vec<u8>, BackendError> {
    let missing = |error: io::Error| BackendError::Unavailable {
        why: format!("{} cannot be read: {error}", path.display()),
        remedy: "put ca.pem, cert.pem and key.pem there, or set DOCKER_CERT_PATH to where they are"
            .to_owned(),
    };
    let file = File::open(path).map_err(missing)?;
    let found = file.metadata().map_err(missing)?;
    if found.mode() & forbidden != 0 {
        let what = if forbidden == ANY_OTHER {
            "read or change it: whoever has the key is root on the engine's machine"
        } else {
            "change it: whoever does decides which engine is believed"
        };
        return Err(BackendError::Unavailable {
            why: format!(
                "{} has mode {:03o}, so that other users can {what}",
                path.display(),
                found.mode() & 0o777
            ),
            remedy: format!("chmod {change} {}", path.display()),
        });
    }
    let own = rustix::process::geteuid().as_raw();
    if ![0, own].contains(&found.uid()) {
        return Err(BackendError::Unavailable {
            why: format!("{} belongs to user {}", path.display(), found.uid()),
            remedy: format!("chown {own} {}, if its content is yours", path.display()),
        });
    }
    let mut content = Vec::new();
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut content)
        .map_err(missing)?;
    Ok(content)
}

fn damaged(path: &Path, why: &str) -> BackendError {
    BackendError::Unavailable {
        why: format!("{} cannot be used: {why}", path.display()),
        remedy: "make the certificates anew: ca.pem, cert.pem and key.pem in PEM, the key without a passphrase".to_owned(),
    }
}

/// What went wrong between two that would have spoken TLS: why, and what to do; `None` for anything else.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "of the many errors of TLS those that tell what to do; the others tell themselves"
)]
pub(crate) fn explain(
    error: &Error,
    address: &str,
    certificates: &Path,
) -> Option<(String, String)> {
    let at = certificates.display();
    let (why, remedy) = match tls_error(error)? {
        rustls::Error::InvalidCertificate(wrong) => return Some(wrong_engine(wrong, address, certificates)),
        rustls::Error::AlertReceived(alert) => (
            format!("the engine at {address} does not take our certificate: {}", told(*alert)),
            format!("put a cert.pem and key.pem into {at} that the engine's own authority (`tlscacert`) has signed for clients"),
        ),
        rustls::Error::InvalidMessage(_) => (
            format!("what listens at {address} does not speak TLS"),
            "let the engine listen with TLS (`tlsverify` in its daemon.json), or mend the port: 2376 is the usual one"
                .to_owned(),
        ),
        other => (
            format!("no TLS can be spoken with {address}: {other}"),
            "see what the engine's log says of the connection".to_owned(),
        ),
    };
    Some((why, remedy))
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "of the many errors of TLS those that tell what to do; the others tell themselves"
)]
fn wrong_engine(wrong: &CertificateError, address: &str, certificates: &Path) -> (String, String) {
    let authority = certificates.join("ca.pem");
    let (why, remedy) = match wrong {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "has expired".to_owned(),
            "renew the engine's certificate (`tlscert`), and see whether this machine's clock is right".to_owned(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "is not valid yet".to_owned(),
            "see whether this machine's clock is right".to_owned(),
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "is for another name".to_owned(),
            "say the name in DOCKER_HOST that the certificate is for (its subjectAltName), or renew it with this one"
                .to_owned(),
        ),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            format!("was not signed by the authority in {}", authority.display()),
            "it may be another engine than you think; if it is the right one, put the ca.pem there that signed its certificate"
                .to_owned(),
        ),
        other => (
            format!("cannot be believed: {other}"),
            "renew the engine's certificate (`tlscert`)".to_owned(),
        ),
    };
    (format!("the certificate of {address} {why}"), remedy)
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "of the many errors of TLS those that tell what to do; the others tell themselves"
)]
fn told(alert: AlertDescription) -> String {
    let words = match alert {
        AlertDescription::CertificateRequired => "it asks for one and got none",
        AlertDescription::UnknownCA => "it was signed by somebody that it does not know",
        AlertDescription::CertificateExpired => "it has expired",
        AlertDescription::BadCertificate => "it is damaged, has expired, or is not one for clients",
        other => return format!("{other:?}"),
    };
    words.to_owned()
}

/// Errors of TLS travel within errors of input and output, which do not name them as their source.
fn tls_error<'error>(error: &'error (dyn StdError + 'static)) -> Option<&'error rustls::Error> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(found);
    }
    let within = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
        .and_then(|within| tls_error(within));
    within.or_else(|| tls_error(error.source()?))
}
