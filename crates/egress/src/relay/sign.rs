//! SigV4 signatures for Bedrock, made on the host.
//!
//! Signed are the host, the date, the hash of the body and, of temporary keys, the session token; nothing that a relay on
//! the way may change. The path goes out as the client wrote it and is encoded once more for the signature, so that a raw
//! `:` of a model's name becomes `%3A` there (and `%3A` becomes `%253A`).

use std::time::SystemTime;

use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use http::{HeaderName, HeaderValue, Uri};

use super::credential::AwsKeys;

/// The service's name in signatures, of all of Bedrock's hosts.
const SERVICE: &str = "bedrock";

/// A request that cannot be signed.
#[derive(Debug, thiserror::Error)]
#[error("the request could not be signed")]
pub(crate) struct SignError;

/// What a signature is bound to, beside the request.
pub(crate) struct Scope<'a> {
    pub region: &'a str,
    pub now: SystemTime,
}

/// The headers that sign a POST of `body` to `uri`.
pub(crate) fn headers(
    keys: &AwsKeys,
    scope: &Scope<'_>,
    uri: &Uri,
    body: &[u8],
) -> Result<Vec<(HeaderName, HeaderValue)>, SignError> {
    sign_for(SERVICE, settings(), keys, scope, uri, body)
}

fn sign_for(
    service: &str,
    settings: SigningSettings,
    keys: &AwsKeys,
    scope: &Scope<'_>,
    uri: &Uri,
    body: &[u8],
) -> Result<Vec<(HeaderName, HeaderValue)>, SignError> {
    let identity = keys.sdk().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(service)
        .time(scope.now)
        .settings(settings)
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use model::Secret;

    use super::*;

    /// The key pair of AWS's published test suite.
    fn keys(session_token: Option<&str>) -> AwsKeys {
        AwsKeys {
            access_key_id: Secret::new("AKIDEXAMPLE".to_owned()),
            secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            session_token: session_token.map(|token| Secret::new(token.to_owned())),
        }
    }

    fn authorization(signed: Vec<(HeaderName, HeaderValue)>) -> String {
        let found = signed
            .into_iter()
            .find(|(name, _)| *name == http::header::AUTHORIZATION);
        found.unwrap().1.to_str().unwrap().to_owned()
    }

    /// Two of the published vectors (`post-vanilla`, `post-sts-header-before`): 2015-08-30T12:36:00Z, service `service`.
    #[test]
    fn signatures_equal_those_of_the_published_test_suite() {
        const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
        let scope = Scope {
            region: "us-east-1",
            now: UNIX_EPOCH + Duration::from_secs(1_440_938_160),
        };
        let uri = Uri::from_static("https://example.amazonaws.com/");
        for (token, signature) in [
            (
                None,
                "SignedHeaders=host;x-amz-date, Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                Some(TOKEN),
                "SignedHeaders=host;x-amz-date;x-amz-security-token, Signature=85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
        ] {
            let signed = sign_for(
                "service",
                SigningSettings::default(),
                &keys(token),
                &scope,
                &uri,
                b"",
            );
            let said = authorization(signed.unwrap());
            assert!(said.ends_with(signature), "{said}");
        }
    }

    /// What botocore 1.44.8 signs for the same requests at 2026-11-26T09:00:00Z (`SigV4Auth` with the header
    /// `x-amz-content-sha256` set), computed once.
    #[test]
    fn signatures_equal_those_of_botocore() {
        let scope = Scope {
            region: "us-east-1",
            now: UNIX_EPOCH + Duration::from_secs(1_795_683_600),
        };
        for (path, body, token, signature) in [
            (
                "/model/us.anthropic.claude-opus-5-5/invoke-with-response-stream",
                r#"{"a":1}"#,
                None,
                "ee5625974dc99eddf4d1cbbac786f28057141c1f4328363e2393e34d7664cc26",
            ),
            (
                "/model/anthropic.claude-sonnet-4-5-20250929-v1:0/invoke",
                r#"{"a":1}"#,
                None,
                "710c479f19722081dc73b1fd816b0eb7715f110dea3c0603b7abb24b21f11322",
            ),
            (
                "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke",
                r#"{"a":1}"#,
                Some("SESSIONTOKEN+/="),
                "35844f79f4453af1320fc9c5200cd8d1fd2bbbd38b2dac294ba848a67fbaa68d",
            ),
            (
                "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.x-v1%3A0/count-tokens",
                "",
                None,
                "e4722ff697bfba002c21e905375efc71e3d46186bb6d0f1aba363e649d8fba5e",
            ),
        ] {
            let uri = format!("https://bedrock-runtime.us-east-1.amazonaws.com{path}");
            let signed = headers(&keys(token), &scope, &uri.parse().unwrap(), body.as_bytes());
            let signed = signed.unwrap();
            let said = authorization(signed.clone());
            assert!(said.contains("/20261126/us-east-1/bedrock/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date"), "{said}");
            assert!(said.ends_with(signature), "{path}: {said}");
            let sent_token = signed
                .iter()
                .find(|(name, _)| name.as_str() == "x-amz-security-token");
            assert_eq!(sent_token.is_some(), token.is_some());
        }
    }
}
