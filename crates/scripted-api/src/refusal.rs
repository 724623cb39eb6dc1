//! Errors in the shape of each provider.

use bytes::Bytes;
use serde_json::json;

use crate::request::Provider;

/// Headers of a response, by their names in small letters.
pub(crate) type Headers = Vec<(&'static str, String)>;

/// An error as Anthropic counts them; the other providers' shapes come from it.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    status: u16,
    message: String,
    retry_after_seconds: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            retry_after_seconds: None,
        }
    }

    /// The usual wording of a status.
    pub(crate) fn usual(status: u16) -> Self {
        Self::new(
            status,
            match status {
                400 => "scripted: the request was rejected",
                401 => "invalid x-api-key",
                402 => {
                    "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."
                }
                403 => "Your API key does not have permission to use the specified resource.",
                404 => "model: scripted",
                413 => "Request exceeds the maximum size",
                429 => "This request would exceed your organization's rate limit.",
                529 => "Overloaded",
                _ => "Internal server error",
            },
        )
    }

    pub(crate) fn retry_after(mut self, seconds: Option<u64>) -> Self {
        self.retry_after_seconds = seconds;
        self
    }

    /// The status that has this error type.
    pub(crate) fn of_type(error_type: &str, message: &str) -> Self {
        let known = TYPES.iter().find(|(_, name, ..)| *name == error_type);
        Self::new(known.map_or(500, |(status, ..)| *status), message)
    }

    /// Status, headers and body for this provider.
    pub(crate) fn answer(&self, provider: Provider, request_id: &str) -> (u16, Headers, Bytes) {
        let (_, name, bedrock, google) = self.row();
        let mut headers: Headers = vec![("content-type", "application/json".to_owned())];
        if let Some(seconds) = self.retry_after_seconds {
            headers.push(("retry-after", seconds.to_string()));
        }
        let anthropic = json!({
            "type": "error",
            "error": {"type": name, "message": self.message},
            "request_id": request_id,
        });
        let (status, body) = match provider {
            Provider::Bedrock => {
                headers.push(("x-amzn-errortype", bedrock.1.to_owned()));
                (bedrock.0, json!({"message": self.message}))
            }
            Provider::Vertex if !google.is_empty() => {
                let error = json!({"code": self.status, "message": self.message, "status": google});
                (self.status, json!({"error": error}))
            }
            Provider::Anthropic | Provider::Vertex => (self.status, anthropic),
        };
        (status, headers, Bytes::from(body.to_string()))
    }

    fn row(&self) -> Row {
        let known = TYPES.iter().find(|(status, ..)| *status == self.status);
        *known.unwrap_or(if self.status < 500 {
            &TYPES[0]
        } else {
            &SERVER_ERROR
        })
    }
}

/// Status, Anthropic's type, Bedrock's status and exception, Google's status word: empty where Vertex passes on Anthropic's
/// own body.
type Row = (u16, &'static str, (u16, &'static str), &'static str);

const SERVER_ERROR: Row = (
    500,
    "api_error",
    (500, "InternalServerException"),
    "INTERNAL",
);

const TYPES: &[Row] = &[
    (
        400,
        "invalid_request_error",
        (400, "ValidationException"),
        "",
    ),
    (
        401,
        "authentication_error",
        (403, "UnrecognizedClientException"),
        "UNAUTHENTICATED",
    ),
    (402, "billing_error", (403, "AccessDeniedException"), ""),
    (
        403,
        "permission_error",
        (403, "AccessDeniedException"),
        "PERMISSION_DENIED",
    ),
    (
        404,
        "not_found_error",
        (404, "ResourceNotFoundException"),
        "NOT_FOUND",
    ),
    (413, "request_too_large", (400, "ValidationException"), ""),
    (
        429,
        "rate_limit_error",
        (429, "ThrottlingException"),
        "RESOURCE_EXHAUSTED",
    ),
    SERVER_ERROR,
    (
        504,
        "timeout_error",
        (408, "ModelTimeoutException"),
        "DEADLINE_EXCEEDED",
    ),
    (
        529,
        "overloaded_error",
        (503, "ServiceUnavailableException"),
        "",
    ),
];

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn each_provider_says_the_same_error_in_its_own_words() {
        let refusal = Refusal::usual(429).retry_after(Some(7));
        let body = |provider| {
            let (status, headers, body) = refusal.answer(provider, "req_1");
            assert_eq!(status, 429);
            assert!(headers.contains(&("retry-after", "7".to_owned())));
            serde_json::from_slice::<Value>(&body).unwrap()
        };
        assert_eq!(
            body(Provider::Anthropic)["error"]["type"],
            "rate_limit_error"
        );
        assert_eq!(body(Provider::Anthropic)["request_id"], "req_1");
        assert!(body(Provider::Bedrock)["message"].is_string());
        assert_eq!(
            body(Provider::Vertex)["error"]["status"],
            "RESOURCE_EXHAUSTED"
        );
        let (status, headers, _) = Refusal::usual(529).answer(Provider::Bedrock, "");
        assert_eq!(status, 503);
        assert!(headers.contains(&("x-amzn-errortype", "ServiceUnavailableException".to_owned())));
        let (status, ..) =
            Refusal::of_type("overloaded_error", "x").answer(Provider::Anthropic, "");
        assert_eq!(status, 529);
    }
}
