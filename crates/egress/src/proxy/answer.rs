//! How a refusal is told, in each protocol: at once, with its code, and with a sentence for the one inside.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::ext::ReasonPhrase;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::socks::Reply;
use crate::destination::Denial;

/// The header that holds the code.
pub(crate) const DENIED_HEADER: &str = "x-egress-denied";
/// How long a client may take to fetch a refusal.
const TELL_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that a client may still send after it was refused, so that its end of the connection is not reset before it has read
/// why.
const MAX_DRAINED_BYTES: u64 = 256 * 1024;
/// TLS: fatal, unrecognized_name (RFC 6066, section 3). Clients show it by that name.
pub(crate) const TLS_ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];

/// The status that a refusal has. Never 407: there is nothing to authenticate with.
pub(crate) fn status(denial: &Denial) -> StatusCode {
    match denial {
        Denial::BadRequest(_) | Denial::HostMismatch { .. } => StatusCode::BAD_REQUEST,
        Denial::ResolutionFailed { .. }
        | Denial::ConnectionFailed { .. }
        | Denial::CertificateRefused { .. }
        | Denial::CredentialUnavailable { .. }
        | Denial::CredentialEchoed { .. } => StatusCode::BAD_GATEWAY,
        Denial::TooMany { .. } | Denial::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
        Denial::AuditUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        Denial::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        Denial::NetworkOff
        | Denial::HostNotAllowed { .. }
        | Denial::PortNotAllowed { .. }
        | Denial::GuardedPort { .. }
        | Denial::RawAddress
        | Denial::BadName(_)
        | Denial::PrivateAddress { .. }
        | Denial::SniMismatch { .. }
        | Denial::SniMissing { .. }
        | Denial::NotTls { .. }
        | Denial::MethodNotAllowed { .. }
        | Denial::PathNotAllowed { .. }
        | Denial::CertificateNotTaken { .. }
        | Denial::PlaceholderMisplaced { .. }
        | Denial::Upgrade
        | Denial::Unsupported(_) => StatusCode::FORBIDDEN,
    }
}

/// The reply that a refusal has in SOCKS5.
pub(crate) fn socks_reply(denial: &Denial) -> Reply {
    match denial {
        Denial::ResolutionFailed { .. } => Reply::HostUnreachable,
        Denial::ConnectionFailed { .. } | Denial::CertificateRefused { .. } => {
            Reply::ConnectionRefused
        }
        Denial::Unsupported(_) => Reply::CommandNotSupported,
        Denial::BadRequest(_)
        | Denial::TooMany { .. }
        | Denial::RateLimited { .. }
        | Denial::AuditUnavailable
        | Denial::CredentialUnavailable { .. }
        | Denial::CredentialEchoed { .. }
        | Denial::Internal(_) => Reply::GeneralFailure,
        Denial::NetworkOff
        | Denial::HostNotAllowed { .. }
        | Denial::PortNotAllowed { .. }
        | Denial::GuardedPort { .. }
        | Denial::RawAddress
        | Denial::BadName(_)
        | Denial::PrivateAddress { .. }
        | Denial::SniMismatch { .. }
        | Denial::SniMissing { .. }
        | Denial::NotTls { .. }
        | Denial::HostMismatch { .. }
        | Denial::MethodNotAllowed { .. }
        | Denial::PathNotAllowed { .. }
        | Denial::CertificateNotTaken { .. }
        | Denial::PlaceholderMisplaced { .. }
        | Denial::Upgrade => Reply::NotAllowed,
    }
}

/// A refusal as an answer of HTTP.
pub(crate) fn response(denial: &Denial) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text(denial)));
    *response.status_mut() = status(denial);
    if let Ok(reason) = ReasonPhrase::try_from(reason(denial)) {
        response.extensions_mut().insert(reason);
    }
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE.as_str(), "text/plain; charset=utf-8"),
        (header::CONNECTION.as_str(), "close"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        (DENIED_HEADER, denial.code()),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The same as bytes, for a connection that hyper does not serve.
pub(crate) fn bytes(denial: &Denial) -> Vec<u8> {
    let status = status(denial);
    let text = text(denial);
    format!(
        "HTTP/1.1 {} {}\r\n{DENIED_HEADER}: {}\r\ncontent-type: text/plain; charset=utf-8\r\n\
         cache-control: no-store\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        status.as_str(),
        reason(denial),
        denial.code(),
        text.len(),
    )
    .into_bytes()
}

/// What stands behind the number: all that many programs show of a tunnel that they did not get.
fn reason(denial: &Denial) -> String {
    let usual = status(denial).canonical_reason().unwrap_or_default();
    format!("{usual} (egress denied: {})", denial.code())
}

fn text(denial: &Denial) -> String {
    format!("egress denied ({}): {denial}.\n", denial.code())
}

/// Says the last thing on a connection. That nobody listens is no error.
pub(crate) async fn last_words<S>(stream: &mut S, words: &[u8])
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let telling = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut rest = stream.take(MAX_DRAINED_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let told = timeout(TELL_TIMEOUT, telling).await;
    if !matches!(told, Ok(Ok(_))) {
        tracing::debug!("a client did not wait for its refusal");
    }
}
