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

use crate::credential::AwsKeys;

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

    /// Vectors of POST requests of the published suite (`post-vanilla`, `post-sts-header-before`, `post-vanilla-query`): 2015-08-30T12:36:00Z, service `service`.
    #[test]
    fn signatures_equal_those_of_the_published_test_suite() {
        const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
        let scope = Scope {
            region: "us-east-1",
            now: UNIX_EPOCH + Duration::from_secs(1_440_938_160),
        };
        for (uri, token, signature) in [
            (
                "https://example.amazonaws.com/?Param1=value1",
                None,
                "SignedHeaders=host;x-amz-date, Signature=28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
            ),
            (
                "https://example.amazonaws.com/",
                None,
                "SignedHeaders=host;x-amz-date, Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "https://example.amazonaws.com/",
                Some(TOKEN),
                "SignedHeaders=host;x-amz-date;x-amz-security-token, Signature=85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
        ] {
            let signed = sign_for(
                "service",
                SigningSettings::default(),
                &keys(token),
                &scope,
                &Uri::from_static(uri),
                b"",
            );
            let said = authorization(signed.unwrap());
            assert!(said.ends_with(signature), "{said}");
        }
    }

    /// See `tests/data/botocore_signatures.py`, which made them with botocore.
    #[test]
    fn signatures_equal_those_of_botocore() {
        let made: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/botocore_signatures.json"))
                .unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let (cases, suite) = (made["cases"].as_array(), made["suite"].as_array());
        assert_eq!(cases.unwrap().len(), 40);
        for case in cases.unwrap() {
            let (uri, region) = (text(&case["url"]).parse().unwrap(), text(&case["region"]));
            let scope = Scope {
                region: &region,
                now: UNIX_EPOCH + Duration::from_secs(1_795_683_600),
            };
            let token = case["token"].as_str();
            let signed = headers(&keys(token), &scope, &uri, text(&case["body"]).as_bytes());
            let signed = signed.unwrap();
            let sent = |name: &str| signed.iter().find(|(found, _)| found == name);
            assert_eq!(
                sent("x-amz-security-token").map(|(_, value)| value.to_str().unwrap()),
                token
            );
            assert_eq!(
                authorization(signed.clone()),
                text(&case["authorization"]),
                "{uri}"
            );
        }
        let scope = Scope {
            region: "us-east-1",
            now: UNIX_EPOCH + Duration::from_secs(1_440_938_160),
        };
        assert_eq!(suite.unwrap().len(), 2);
        for vector in suite.unwrap() {
            let (settings, uri) = (
                SigningSettings::default(),
                text(&vector["url"]).parse().unwrap(),
            );
            let signed = sign_for("service", settings, &keys(None), &scope, &uri, b"").unwrap();
            assert_eq!(
                authorization(signed),
                text(&vector["authorization"]),
                "{uri}"
            );
        }
    }
}
