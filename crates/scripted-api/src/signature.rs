//! Signatures of AWS, version 4: whether a request was signed with a key pair that the test made up.
//!
//! Written from AWS's specification and not with a signing library, so that it judges signers independently.

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use sha2::{Digest as _, Sha256};

use crate::request::header;

/// How far a signature's time may be from now, in seconds: AWS's own limit.
const MAX_SKEW_SECONDS: i64 = 15 * 60;

/// A made-up key pair.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// Sent in clear text.
    pub access_key_id: String,
    /// Never sent.
    pub secret_access_key: String,
    /// Sent as `x-amz-security-token` with temporary credentials, and then required.
    pub session_token: Option<String>,
    /// The region that must have been signed for; none: any.
    pub region: Option<String>,
}

/// A request as it was received.
#[derive(Clone, Copy)]
pub(crate) struct Signed<'r> {
    pub method: &'r str,
    /// As sent, still encoded, with the query.
    pub path: &'r str,
    pub headers: &'r [(String, String)],
    pub body: &'r [u8],
}

/// Whether the request is signed with this pair, at about this time; else why not.
pub(crate) fn verify(pair: &KeyPair, request: &Signed<'_>, now: Timestamp) -> Result<(), String> {
    let authorization = header(request.headers, "authorization").unwrap_or_default();
    let claim = Claim::parse(authorization).ok_or("no AWS4-HMAC-SHA256 authorization")?;
    if claim.access_key_id != pair.access_key_id {
        return Err("the access key id is unknown".to_owned());
    }
    if pair
        .region
        .as_deref()
        .is_some_and(|region| region != claim.region)
    {
        return Err(format!("signed for the region {}", claim.region));
    }
    if claim.service != "bedrock" {
        return Err(format!("signed for the service {}", claim.service));
    }
    let token = header(request.headers, "x-amz-security-token");
    if token != pair.session_token.as_deref() {
        return Err("the session token is not the expected one".to_owned());
    }
    let date = header(request.headers, "x-amz-date").ok_or("no x-amz-date")?;
    check_date(date, &claim, now)?;
    claim.check_names(request.headers)?;
    let hash = hex::encode(Sha256::digest(request.body));
    if header(request.headers, "x-amz-content-sha256").is_some_and(|told| told != hash) {
        return Err("x-amz-content-sha256 is not the body's".to_owned());
    }
    let canonical = canonical(request, &claim, &hash);
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{date}\n{}\n{}",
        claim.scope(),
        hex::encode(Sha256::digest(&canonical))
    );
    let expected = hex::encode(mac(&claim.key(pair)?, &to_sign)?);
    if expected != claim.signature {
        return Err("the signature does not match".to_owned());
    }
    Ok(())
}

fn check_date(date: &str, claim: &Claim<'_>, now: Timestamp) -> Result<(), String> {
    let told = DateTime::strptime("%Y%m%dT%H%M%SZ", date)
        .and_then(|time| time.to_zoned(TimeZone::UTC))
        .map_err(|_| "x-amz-date is no date")?;
    if !date.starts_with(claim.day) {
        return Err("x-amz-date is of another day than the credential".to_owned());
    }
    let skew = now.as_second() - told.timestamp().as_second();
    if skew.abs() > MAX_SKEW_SECONDS {
        return Err(format!("the signature is {skew} seconds old"));
    }
    Ok(())
}

/// What the header `authorization` says.
struct Claim<'a> {
    access_key_id: &'a str,
    day: &'a str,
    region: &'a str,
    service: &'a str,
    signed_names: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Claim<'a> {
    fn parse(authorization: &'a str) -> Option<Self> {
        let fields = authorization.strip_prefix("AWS4-HMAC-SHA256")?;
        let field = |name: &str| {
            fields
                .split(',')
                .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let credential: Vec<&str> = field("Credential")?.split('/').collect();
        let [access_key_id, day, region, service, "aws4_request"] = credential[..] else {
            return None;
        };
        Some(Self {
            access_key_id,
            day,
            region,
            service,
            signed_names: field("SignedHeaders")?.split(';').collect(),
            signature: field("Signature")?,
        })
    }

    fn scope(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.day, self.region, self.service)
    }

    /// `host` and every `x-amz-…` header that was sent must be signed, in order and without repetition.
    fn check_names(&self, headers: &[(String, String)]) -> Result<(), String> {
        if !self.signed_names.is_sorted_by(|one, other| one < other) {
            return Err("the signed headers are not in order".to_owned());
        }
        let missing = headers.iter().map(|(name, _)| name.as_str()).find(|name| {
            (*name == "host" || name.starts_with("x-amz-")) && !self.signed_names.contains(name)
        });
        match missing {
            Some(name) => Err(format!("the header {name} is not signed")),
            None => Ok(()),
        }
    }

    fn key(&self, pair: &KeyPair) -> Result<Vec<u8>, String> {
        let mut key = format!("AWS4{}", pair.secret_access_key).into_bytes();
        for part in [self.day, self.region, self.service, "aws4_request"] {
            key = mac(&key, part)?;
        }
        Ok(key)
    }
}

fn canonical(request: &Signed<'_>, claim: &Claim<'_>, body_hash: &str) -> String {
    let (path, query) = request.path.split_once('?').unwrap_or((request.path, ""));
    let mut pairs: Vec<String> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            if pair.contains('=') {
                pair.to_owned()
            } else {
                format!("{pair}=")
            }
        })
        .collect();
    pairs.sort_unstable();
    let headers: String = claim
        .signed_names
        .iter()
        .map(|name| {
            let values: Vec<String> = request
                .headers
                .iter()
                .filter(|(other, _)| other == name)
                .map(|(_, value)| value.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect();
            format!("{name}:{}\n", values.join(","))
        })
        .collect();
    [
        request.method,
        &encoded(path),
        &pairs.join("&"),
        &headers,
        &claim.signed_names.join(";"),
        body_hash,
    ]
    .join("\n")
}

/// The path as sent, encoded once more: every service but S3 signs that. A raw `:` becomes `%3A`, a sent `%3A` becomes `%253A`.
fn encoded(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn mac(key: &[u8], text: &str) -> Result<Vec<u8>, String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| "a key of no length")?;
    mac.update(text.as_bytes());
    Ok(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNTIME: &str = "bedrock-runtime.us-east-1.amazonaws.com";
    const SONNET: &str = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1";

    fn pair() -> KeyPair {
        KeyPair {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
            region: Some("us-east-1".to_owned()),
        }
    }

    /// One request as botocore 1.43.11 signs it with `pair` at 2026-11-26 09:00 UTC.
    struct Vector {
        method: &'static str,
        path: String,
        host: &'static str,
        more: &'static [(&'static str, &'static str)],
        names: &'static str,
        signature: &'static str,
        body: &'static str,
    }

    fn vectors() -> [Vector; 4] {
        [
            Vector {
                method: "POST",
                path: "/model/us.anthropic.claude-opus-5-5/invoke-with-response-stream".to_owned(),
                host: RUNTIME,
                more: &[("content-type", "application/json")],
                names: "content-type;host;x-amz-date",
                signature: "98ab3b8bf8ebb6f8c091e1864d7c6f34eac42a72f9e827dc1a2a99bb8cb386a1",
                body: r#"{"a":1}"#,
            },
            Vector {
                method: "POST",
                path: format!("{SONNET}:0/invoke"),
                host: RUNTIME,
                more: &[],
                names: "host;x-amz-date",
                signature: "bd591686b57b95135ea2d12ff02d6699e3d0b8a1ffffe8bc9003e9fc67863a91",
                body: r#"{"a":1}"#,
            },
            Vector {
                method: "POST",
                path: format!("{SONNET}%3A0/invoke"),
                host: RUNTIME,
                more: &[("x-amz-security-token", "tok/en+1=")],
                names: "host;x-amz-date;x-amz-security-token",
                signature: "0143fab5c2fea60c89eef5ec8e7b6f0bdd508337399d16571414457e659ae438",
                body: r#"{"a":1}"#,
            },
            Vector {
                method: "GET",
                path: "/inference-profiles?type=SYSTEM_DEFINED&maxResults=10".to_owned(),
                host: "bedrock.us-east-1.amazonaws.com",
                more: &[],
                names: "host;x-amz-date",
                signature: "622d669a9742ffa6596ddbe2e92dc346c54b1239b0440416ef742c4a6c220c1b",
                body: "",
            },
        ]
    }

    impl Vector {
        fn headers(&self) -> Vec<(String, String)> {
            let authorization = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261126/us-east-1/bedrock/aws4_request, SignedHeaders={}, Signature={}",
                self.names, self.signature
            );
            let fixed = [
                ("host", self.host),
                ("x-amz-date", "20261126T090000Z"),
                ("authorization", &authorization),
            ];
            let all = fixed.iter().chain(self.more);
            all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        }

        fn pair(&self) -> KeyPair {
            let token = self
                .more
                .iter()
                .find(|(name, _)| *name == "x-amz-security-token");
            KeyPair {
                session_token: token.map(|(_, token)| (*token).to_owned()),
                ..pair()
            }
        }
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn what_botocore_signs_is_accepted_and_any_change_refused() {
        let now = at("2026-11-26T09:01:00Z");
        for vector in vectors() {
            let (headers, pair) = (vector.headers(), vector.pair());
            let signed = Signed {
                method: vector.method,
                path: &vector.path,
                headers: &headers,
                body: vector.body.as_bytes(),
            };
            assert_eq!(verify(&pair, &signed, now), Ok(()), "{}", vector.path);

            let secret = KeyPair {
                secret_access_key: "other".to_owned(),
                ..pair.clone()
            };
            assert!(verify(&secret, &signed, now).is_err(), "another secret");
            let id = KeyPair {
                access_key_id: "other".to_owned(),
                ..pair.clone()
            };
            assert!(verify(&id, &signed, now).is_err(), "another id");
            let region = KeyPair {
                region: Some("eu-west-1".to_owned()),
                ..pair.clone()
            };
            assert!(verify(&region, &signed, now).is_err(), "another region");
            let token = KeyPair {
                session_token: Some("other".to_owned()),
                ..pair.clone()
            };
            assert!(verify(&token, &signed, now).is_err(), "another token");
            assert!(
                verify(&pair, &signed, at("2026-11-26T09:16:00Z")).is_err(),
                "too old"
            );
            let method = Signed {
                method: "PUT",
                ..signed
            };
            assert!(verify(&pair, &method, now).is_err(), "another method");
            let body = Signed {
                body: b"{}",
                ..signed
            };
            assert!(verify(&pair, &body, now).is_err(), "another body");
            let other = vector
                .path
                .replace("anthropic", "Anthropic")
                .replace("10", "11");
            let path = Signed {
                path: &other,
                ..signed
            };
            assert!(verify(&pair, &path, now).is_err(), "another path");
            let mut more = headers.clone();
            more.push(("x-amz-target".to_owned(), "x".to_owned()));
            let unsigned = Signed {
                headers: &more,
                ..signed
            };
            assert!(
                verify(&pair, &unsigned, now).is_err(),
                "a header that is not signed"
            );
        }
    }
}
