//! What the door itself says: refusals as JSON with a stable code, and the headers of every answer.

use std::borrow::Cow;

use bytes::Bytes;
use control::RateView;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{self, HeaderName as Name},
};
use http_body_util::{BodyExt, Full};
use mcp::HttpBody;
use model::{Reason, Refusal};
use serde::Serialize;
use serde_json::json;

/// A request that is not carried out.
#[derive(Debug)]
pub(crate) struct Refused {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    hint: Cow<'static, str>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refused {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Self {
        Refused {
            status,
            code,
            message: message.into(),
            hint: hint.into(),
            headers: Vec::new(),
        }
    }

    pub(crate) fn bad_request(message: &'static str, hint: &'static str) -> Self {
        Refused::new(StatusCode::BAD_REQUEST, "bad_request", message, hint)
    }

    pub(crate) fn forbidden(code: &'static str, message: &'static str, hint: &'static str) -> Self {
        Refused::new(StatusCode::FORBIDDEN, code, message, hint)
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Nothing more is read from that connection: what follows may not be where it seems to be.
    pub(crate) fn closing(self) -> Self {
        self.with(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// When it is worth another try.
    pub(crate) fn retry_after_ms(self, milliseconds: u64) -> Self {
        let seconds = milliseconds.div_ceil(1000).max(1);
        let limit = format!("\"requests\";r=0;t={seconds}");
        let refused = self.with(header::RETRY_AFTER, seconds.into());
        match HeaderValue::try_from(limit) {
            Ok(limit) => refused.with(HeaderName::from_static("ratelimit"), limit),
            Err(_) => refused,
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn into_response(self) -> Response<HttpBody> {
        let body = json!({
            "error": { "code": self.code, "message": self.message, "hint": self.hint },
        });
        let mut response = json_response(self.status, &body);
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

/// What the road refused before a call was made: every reason but the want of a valid token.
impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        // No other is said of a caller.
        let status = if refusal.reason == Reason::RateLimited {
            StatusCode::TOO_MANY_REQUESTS
        } else if matches!(
            refusal.reason,
            Reason::ShuttingDown | Reason::AuditUnavailable
        ) {
            StatusCode::SERVICE_UNAVAILABLE
        } else if refusal.reason == Reason::Internal {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            StatusCode::FORBIDDEN
        };
        let code = refusal.reason.code();
        let refused = Refused::new(status, code, refusal.message, refusal.hint);
        match refusal.retry_after_ms {
            Some(milliseconds) => refused.retry_after_ms(milliseconds),
            None => refused,
        }
    }
}

pub(crate) fn json_response(status: StatusCode, body: &impl Serialize) -> Response<HttpBody> {
    // Texts and numbers in memory can always be written.
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Headers of every answer. None of them is of use to a client that is no browser; a browser keeps nothing of it, guesses
/// no types, runs nothing and shows it in no frame.
const EVERY_ANSWER: [(Name, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Puts them on.
pub(crate) fn protect(headers: &mut HeaderMap) {
    for (name, value) in &EVERY_ANSWER {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// How the caller stands with its calls, in the words of draft-ietf-httpapi-ratelimit-headers.
pub(crate) fn tell_rate(headers: &mut HeaderMap, rate: &RateView) {
    let policy = format!("\"calls\";q={};w={}", rate.burst, rate.window_seconds);
    let limit = format!("\"calls\";r={};t={}", rate.remaining, rate.reset_seconds);
    for (name, value) in [("ratelimit-policy", policy), ("ratelimit", limit)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// What a page of another origin may see; only for one that the operator names.
pub(crate) fn share(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("WWW-Authenticate, Retry-After, RateLimit, RateLimit-Policy"),
    );
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("cross-origin"),
    );
}
