//! The list of tools as text, written once. It is a hundred kilobytes that never change, and writing them anew was most of
//! what an answer by HTTP cost. rmcp writes the answer around one tool that stands for all, and the text takes its place.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{Response, header};
use http_body_util::{BodyExt, Full};
use rmcp::model::{JsonObject, Tool};

use crate::{http::HttpBody, tools};

/// All tools, with commas between them.
static TOOLS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let tools = tools::tool_list();
    tools.iter().map(text).collect::<Vec<_>>().join(&b',')
});

static PLACEHOLDER: LazyLock<Vec<u8>> = LazyLock::new(|| text(&placeholder()));

/// What stands for all tools until [`filled`].
pub(crate) fn placeholder() -> Tool {
    Tool::new("*", "every tool", JsonObject::new())
}

/// The answer with all tools in the place of the one.
pub(crate) async fn filled(response: Response<HttpBody>) -> Response<HttpBody> {
    let (mut head, body) = response.into_parts();
    let Ok(body) = body.collect().await;
    let body = body.to_bytes();
    // No text in the answer can look like it: quotes stand behind backslashes there.
    let Some(at) = body
        .windows(PLACEHOLDER.len())
        .position(|found| found == *PLACEHOLDER)
    else {
        return Response::from_parts(head, Full::new(body).boxed());
    };
    let after = at + PLACEHOLDER.len();
    let filled = [&body[..at], &TOOLS, &body[after..]].concat();
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Full::new(Bytes::from(filled)).boxed())
}

/// As it stands in the list.
fn text(tool: &Tool) -> Vec<u8> {
    // Only maps with keys that are no text fail to serialize, and there are none.
    serde_json::to_vec(tool).unwrap_or_default()
}
