//! The far side of an opened tunnel: TLS that believes the machine's roots, to the one host that was judged.

use std::{fmt, io, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    CertificateError as C, ClientConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    destination::{Denial, HostName},
    relay::{Trust, TrustError, roots},
};

/// Characters of a line in PEM (RFC 7468, section 2).
const PEM_LINE: usize = 64;

/// How servers are spoken to.
#[derive(Clone)]
pub(crate) struct Upstream(TlsConnector);

impl Upstream {
    pub(crate) fn new(trust: &Trust) -> Result<Self, TrustError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TrustError::Tls)?
            .with_root_certificates(roots(trust)?)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Upstream(TlsConnector::from(Arc::new(config))))
    }

    /// Speaks TLS with a host on a connection to it.
    pub(crate) async fn connect<S>(
        &self,
        host: &HostName,
        port: u16,
        stream: S,
    ) -> Result<TlsStream<S>, Denial>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.as_str().to_owned())
            .map_err(|_| Denial::Internal("a name of a host that is none in TLS"))?;
        self.0
            .connect(name, stream)
            .await
            .map_err(|error| match what_is_wrong(&error) {
                Some(why) => Denial::CertificateRefused {
                    host: host.clone(),
                    why,
                },
                None => Denial::ConnectionFailed {
                    host: host.clone(),
                    port,
                    why: error.kind(),
                },
            })
    }
}

/// In words for the one inside; the certificate is the server's own doing and may be told. Nothing where it is not TLS that
/// failed.
#[allow(clippy::wildcard_enum_match_arm, reason = "the library's flaws grow")]
fn what_is_wrong(error: &io::Error) -> Option<&'static str> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(flaw) = inner else {
        return Some("it does not speak TLS as it must");
    };
    Some(match flaw {
        C::Expired | C::ExpiredContext { .. } => "its certificate has expired",
        C::NotValidYet | C::NotValidYetContext { .. } => "its certificate is not valid yet",
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            "its certificate is for another name"
        }
        C::UnknownIssuer => "nobody whom the server's machine believes vouches for its certificate",
        _ => "its certificate cannot be used",
    })
}

/// The certificates of those whom the server believes, PEM.
pub(super) fn roots_pem(trust: &Trust) -> String {
    let mut all = String::from_utf8_lossy(&trust.extra_pem).into_owned();
    if !all.is_empty() && !all.ends_with('\n') {
        all.push('\n');
    }
    if trust.machine {
        let found = rustls_native_certs::load_native_certs();
        all.extend(found.certs.iter().map(pem));
    }
    all
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in text.as_bytes().chunks(PEM_LINE) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upstream")
    }
}
