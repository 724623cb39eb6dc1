//! How a tool says no.

use model::Refusal;
use serde::{Deserialize, Serialize};

use crate::text;

/// `structuredContent` of a result with `isError: true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ErrorReply {
    /// Why the call was not carried out.
    pub error: ErrorBody,
}

/// See [`ErrorReply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// Stable code: one of [`model::Reason::ALL`].
    pub code: String,
    /// One sentence: what is wrong.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// The argument at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// When a retry makes sense, milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl From<&Refusal> for ErrorReply {
    /// Leaves `detail` behind: the chain of causes is for our log.
    fn from(refusal: &Refusal) -> Self {
        ErrorReply {
            error: ErrorBody {
                code: refusal.reason.code().to_owned(),
                message: text::sentence(&refusal.message),
                hint: text::sentence(&refusal.hint),
                field: refusal.field.as_deref().map(text::sentence),
                retry_after_ms: refusal.retry_after_ms,
            },
        }
    }
}
