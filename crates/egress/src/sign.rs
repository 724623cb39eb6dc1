//! SigV4 signatures for Bedrock, made on the host.
//!
//! Signed are the host, the date, the hash of the body and, of temporary keys, the session token; nothing that a relay on
//! the way may change. The path goes out as the client wrote it and is encoded once more for the signature, so that a raw
//! `:` of a model's name becomes `%3A` there (and `%3A` becomes `%253A`).

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use http::{HeaderName, HeaderValue, Uri};

use crate::credential::AwsKeys;

/// The service's name in signatures, of all of Bedrock's hosts.
const SERVICE: &str = "bedrock";

/// A request that cannot be signed.
#[derive(Debug, thiserror::Error)]
#[error("the request could not be signed")]
pub(crate) struct SignError;

/// The headers that sign a POST of `body` to `uri`.
pub(crate) fn headers(
    keys: &AwsKeys,
    region: &str,
    uri: &Uri,
    body: &[u8],
    now: SystemTime,
) -> Result<Vec<(HeaderName, HeaderValue)>, SignError> {
    let identity = Credentials::new(
        keys.access_key_id.expose().clone(),
        keys.secret_access_key.expose().clone(),
        keys.session_token
            .as_ref()
            .map(|token| token.expose().clone()),
        None,
        "configured",
    )
    .into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(now)
        .settings(settings())
        .build()
        .map_err(|_| SignError)?;
    let address = uri.to_string();
    let host = uri.authority().ok_or(SignError)?.as_str();
    let request = SignableRequest::new(
        "POST",
        address.as_str(),
        [("host", host)].into_iter(),
        SignableBody::Bytes(body),
    )
    .map_err(|_| SignError)?;
    let (instructions, _) = sign(request, &parameters.into())
        .map_err(|_| SignError)?
        .into_parts();
    let (signed, _) = instructions.into_parts();
    signed
        .into_iter()
        .map(|header| {
            let name = HeaderName::from_bytes(header.name().as_bytes()).map_err(|_| SignError)?;
            let mut value = HeaderValue::from_str(header.value()).map_err(|_| SignError)?;
            value.set_sensitive(true);
            Ok((name, value))
        })
        .collect()
}

fn settings() -> SigningSettings {
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Double;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings
}
