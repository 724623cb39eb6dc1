//! What the relay says itself: why a request goes no further, in the shape of the provider's own errors.
//!
//! The status decides how Claude Code goes on (measured with 2.1.330):
//!
//! | answer | asked | what its user reads |
//! |---|---|---|
//! | 403 | once | "Failed to authenticate …" before the message; of Vertex, "Google Cloud authentication failed" |
//! | 404 | twice | "There's an issue with the selected model … you may not have access to it" |
//! | 429 with `x-should-retry: false` | once | "Request rejected (429) · " and the message |
//! | 429, 5xx | ten times more, with growing pauses | the message |
//! | 400, 422 | six times | the message |
//!
//! So a cap is a 429 that says not to retry, and a model that is not allowed is a 404.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};

use super::{account::Reached, provider::ProviderKind};
use crate::credential::CredentialError;

/// Names the rule that refused, for people and for tests.
const DENIED: HeaderName = HeaderName::from_static("x-relay-denied");

/// What Anthropic's clients ask before they look at the status.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Why a request went no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denial {
    /// The request's line names a whole address or asks for a tunnel.
    Form,
    /// It asks for another protocol.
    Upgrade,
    /// Its body comes without a length.
    TransferEncoding,
    Token,
    Path,
    Query,
    BodyTooLarge {
        limit_bytes: usize,
    },
    BodyTimeout,
    BodyBroken,
    BodyNotJson,
    NoModel,
    Model(String),
    /// An allowance is used up.
    Used(Reached),
    /// Requests under way may use what is left of an allowance.
    Held(Reached),
    /// A budget is in dollars, and nobody has said what this costs; the text says what.
    PriceUnknown(String),
    Concurrency(usize),
    /// Bodies take as much memory as they may.
    Buffers,
    NoCredential,
    /// Its source gave no credential; the text says how.
    Credential(CredentialError),
    ConnectionFailed,
    ResponseTimeout {
        seconds: u64,
    },
    /// The session makes too many connections and requests.
    RateLimited {
        per_minute: u64,
    },
    /// The request could not be put on record.
    AuditUnavailable,
    Internal,
}

impl Denial {
    /// The stable name of the rule.
    pub(crate) const fn rule(&self) -> &'static str {
        match self {
            Denial::Form => "request_form",
            Denial::Upgrade => "upgrade",
            Denial::TransferEncoding => "transfer_encoding",
            Denial::Token => "token",
            Denial::Path => "path",
            Denial::Query => "query",
            Denial::BodyTooLarge { .. } => "body_too_large",
            Denial::BodyTimeout => "body_timeout",
            Denial::BodyBroken => "body_broken",
            Denial::BodyNotJson => "body_not_json",
            Denial::NoModel => "model_missing",
            Denial::Model(_) => "model",
            Denial::Used(reached) => reached.rule(),
            Denial::Held(_) => "budget_held",
            Denial::PriceUnknown(_) => "price_unknown",
            Denial::Concurrency(_) => "max_concurrent",
            Denial::Buffers => "max_buffered_bytes",
            Denial::NoCredential => "no_credential",
            Denial::Credential(CredentialError::Command(_)) => "credential_command",
            Denial::Credential(_) => "credential_source",
            Denial::ConnectionFailed => "connection_failed",
            Denial::ResponseTimeout { .. } => "response_timeout",
            Denial::RateLimited { .. } => "rate_limited",
            Denial::AuditUnavailable => "audit_unavailable",
            Denial::Internal => "internal",
        }
    }

    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Denial::Form
            | Denial::Upgrade
            | Denial::BodyBroken
            | Denial::BodyNotJson
            | Denial::NoModel => StatusCode::BAD_REQUEST,
            Denial::TransferEncoding => StatusCode::LENGTH_REQUIRED,
            Denial::Token => StatusCode::UNAUTHORIZED,
            Denial::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Denial::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Denial::Path | Denial::Query => StatusCode::FORBIDDEN,
            Denial::Model(_) => StatusCode::NOT_FOUND,
            Denial::Used(_)
            | Denial::Held(_)
            | Denial::PriceUnknown(_)
            | Denial::Concurrency(_)
            | Denial::RateLimited { .. }
            | Denial::Buffers => StatusCode::TOO_MANY_REQUESTS,
            Denial::NoCredential | Denial::Credential(_) | Denial::AuditUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Denial::ConnectionFailed => StatusCode::BAD_GATEWAY,
            Denial::ResponseTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Denial::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What, why, and what to do next. Goes into the sandbox: no key, no address of the host.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Denial::Form => "the request names a whole address or asks for a tunnel; this relay takes plain paths only".to_owned(),
            Denial::Upgrade => "this relay does not change protocols".to_owned(),
            Denial::TransferEncoding => "a request needs a content-length here, and no transfer-encoding".to_owned(),
            Denial::Token => "this session's relay token is missing or wrong; use the ANTHROPIC_AUTH_TOKEN that the session was given".to_owned(),
            Denial::Path => "this path is not relayed: only the provider's message and token-count requests pass, for the configured project and region".to_owned(),
            Denial::Query => "this query is not relayed: only `beta=true` passes".to_owned(),
            Denial::BodyTooLarge { limit_bytes } => format!("the request is larger than {limit_bytes} bytes"),
            Denial::BodyTimeout => "the request's body did not arrive in time".to_owned(),
            Denial::BodyBroken => "the request's body broke off".to_owned(),
            Denial::BodyNotJson => "the request's body is not one JSON object with each of model, max_tokens, stream, speed and inference_geo at most once and of its type".to_owned(),
            Denial::NoModel => "the request names no model".to_owned(),
            Denial::Model(model) => format!("the model `{model}` is not among those that this session may use; the operator's configuration lists them"),
            Denial::Used(reached) => reached.sentence(),
            Denial::Held(reached) => format!("requests under way may use all that is left of the allowance {}; try again shortly", reached.rule()),
            Denial::PriceUnknown(what) => format!("price_unknown: {what} has no price here, and a budget in dollars is set; use a model that has one, or have the operator add it (prices_file)"),
            Denial::Concurrency(limit) => format!("this session has {limit} requests under way, which is all that it may have at a time; try again shortly"),
            Denial::Buffers => "requests under way take all the memory that they may; try again shortly".to_owned(),
            Denial::NoCredential => "the server holds no provider credential for this session (it was restarted, and keeps them in memory only); connect a client that passes one, then try again".to_owned(),
            Denial::Credential(why) => format!("{why}; the operator's log and configuration have the rest"),
            Denial::ConnectionFailed => "connection_failed: the provider could not be reached from the host (name, connection or TLS); the operator's log has the cause".to_owned(),
            Denial::ResponseTimeout { seconds } => format!("the provider did not begin to answer within {seconds} s"),
            Denial::RateLimited { per_minute } => format!("this session has made {per_minute} connections and requests within a minute, which is all that it may; try again in a minute"),
            Denial::AuditUnavailable => "the server could not record this request, so it did not go to the provider; the operator is to look at the audit log".to_owned(),
            Denial::Internal => "the relay could not put the request together; this is a defect of it".to_owned(),
        }
    }

    /// Whether the connection is closed after it: what follows on it may not be what it seems.
    const fn closes(&self) -> bool {
        matches!(
            self,
            Denial::Form
                | Denial::Upgrade
                | Denial::TransferEncoding
                | Denial::BodyTooLarge { .. }
                | Denial::BodyTimeout
                | Denial::BodyBroken
                | Denial::Buffers
        )
    }

    /// The refusal as an answer.
    pub(crate) fn response(&self, provider: ProviderKind) -> Response<Full<Bytes>> {
        let body = error_body(provider, self.status(), &self.sentence()).to_string();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(DENIED, HeaderValue::from_static(self.rule()));
        if provider == ProviderKind::Bedrock {
            headers.insert(
                HeaderName::from_static("x-amzn-errortype"),
                HeaderValue::from_static(names(self.status()).bedrock),
            );
        }
        if matches!(
            self,
            Denial::Held(_) | Denial::Concurrency(_) | Denial::Buffers
        ) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        } else if self.status() == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if self.closes() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// An error in the words of each provider.
fn error_body(provider: ProviderKind, status: StatusCode, message: &str) -> Value {
    let names = names(status);
    match provider {
        ProviderKind::FirstParty => first_party_error(names.first_party, message),
        ProviderKind::Bedrock => json!({ "message": message }),
        ProviderKind::Vertex => json!({
            "error": { "code": status.as_u16(), "message": message, "status": names.vertex }
        }),
    }
}

/// An error of the Messages API, which is also what its event streams carry.
pub(crate) fn first_party_error(kind: &str, message: &str) -> Value {
    json!({ "type": "error", "error": { "type": kind, "message": message } })
}

/// What each provider calls a status.
struct Names {
    first_party: &'static str,
    bedrock: &'static str,
    vertex: &'static str,
}

fn names(status: StatusCode) -> Names {
    let (first_party, bedrock, vertex) = match status {
        StatusCode::UNAUTHORIZED => (
            "authentication_error",
            "UnrecognizedClientException",
            "UNAUTHENTICATED",
        ),
        StatusCode::FORBIDDEN => (
            "permission_error",
            "AccessDeniedException",
            "PERMISSION_DENIED",
        ),
        StatusCode::NOT_FOUND => ("not_found_error", "ResourceNotFoundException", "NOT_FOUND"),
        StatusCode::TOO_MANY_REQUESTS => (
            "rate_limit_error",
            "ThrottlingException",
            "RESOURCE_EXHAUSTED",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => (
            "request_too_large",
            "ValidationException",
            "INVALID_ARGUMENT",
        ),
        StatusCode::SERVICE_UNAVAILABLE => {
            ("api_error", "ServiceUnavailableException", "UNAVAILABLE")
        }
        StatusCode::BAD_GATEWAY | StatusCode::INTERNAL_SERVER_ERROR => {
            ("api_error", "InternalServerException", "INTERNAL")
        }
        StatusCode::GATEWAY_TIMEOUT => ("api_error", "ModelTimeoutException", "DEADLINE_EXCEEDED"),
        _ => (
            "invalid_request_error",
            "ValidationException",
            "INVALID_ARGUMENT",
        ),
    };
    Names {
        first_party,
        bedrock,
        vertex,
    }
}
