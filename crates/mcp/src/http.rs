//! Streamable HTTP: one request, one message, in either era of the specification, without sessions of the protocol.
//!
//! rmcp answers; what it leaves to others or gets wrong is seen to here: members of a message that stand there twice
//! (whoever is between us and the client may read the other one), options of an engine that its parser would round,
//! a body that is no message, which is the client's mistake and not a wrong media type, and refusals in a line of text,
//! where a client reads JSON.
//!
//! No session of the protocol means: nothing to hijack, to count or to resume, and a client's requests may reach the
//! server by different connections. What is kept between them ([`crate::service::Desk`]) is kept for each caller by the
//! name that the road knows them by, and the caller is settled for each request anew.

use std::{
    convert::Infallible,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use control::Road;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use model::{Credentials, Scopes, Source};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{Implementation, JsonRpcError, ProtocolVersion, RequestId, Tool},
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::MAX_MESSAGE_BYTES,
    lines::{Body, Said},
    listing,
    service::{Desk, PROTOCOL_VERSIONS, Service},
    text,
};

/// Longest body of a request, bytes: the same message as on a stream.
pub const MAX_HTTP_BODY_BYTES: usize = MAX_MESSAGE_BYTES;

/// Media type of every answer with a body.
const JSON: &str = "application/json";

/// Body of an answer.
pub type HttpBody = BoxBody<Bytes, Infallible>;

/// Who sent a request, as the door has found out.
#[derive(Debug, Clone)]
pub struct HttpCaller {
    /// What each call presents on the road.
    pub credentials: Credentials,
    /// The name that the road knows them by. What is kept between requests is this caller's alone.
    pub name: String,
    /// Where the request comes from.
    pub source: Source,
}

/// What a request leads to.
pub struct HttpAnswer {
    /// The response, with nothing of the door's in it.
    pub response: Response<HttpBody>,
    /// The call was refused for want of a scope: all those that it needs. The response says so as a result of the
    /// tool; the door can do better.
    pub lacking: Option<Scopes>,
}

/// The MCP service for requests of HTTP.
#[derive(Clone)]
pub struct HttpService {
    answer: Arc<Answer>,
}

type Answer = dyn Fn(Request<Full<Bytes>>) -> BoxFuture<'static, Response<HttpBody>> + Send + Sync;

impl HttpService {
    /// The service on that road. When `shutdown` is cancelled, waiting calls are answered `shutting_down`.
    pub fn new(road: Arc<dyn Road>, shutdown: CancellationToken) -> Self {
        HttpService::wrapping(road, shutdown, |service| service)
    }

    /// The same, with something around what answers: the conformance suite calls tools by fixed names.
    pub fn wrapping<H: ServerHandler>(
        road: Arc<dyn Road>,
        shutdown: CancellationToken,
        wrap: impl Fn(Service) -> H + Send + Sync + 'static,
    ) -> Self {
        let desk = Arc::new(Desk::default());
        let make = move || {
            let (road, desk) = (Arc::clone(&road), Arc::clone(&desk));
            Ok(wrap(Service::of_http(road, desk, shutdown.clone())))
        };
        // Host and Origin are the door's, for every path. Its own token is never cancelled: it would cut calls off
        // that are to be told why.
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .disable_allowed_hosts()
            .disable_allowed_origins()
            .with_max_request_body_bytes(MAX_HTTP_BODY_BYTES);
        let service = Arc::new(StreamableHttpService::new(
            make,
            Arc::new(NeverSessionManager::default()),
            config,
        ));
        let answer = move |request| -> BoxFuture<'static, Response<HttpBody>> {
            let service = Arc::clone(&service);
            Box::pin(async move { service.handle(request).await })
        };
        HttpService {
            answer: Arc::new(answer),
        }
    }

    /// Answers a POST. Dropping the future ends a call's wait, never its work.
    pub async fn answer(&self, mut head: Parts, body: &[u8], caller: HttpCaller) -> HttpAnswer {
        let Body { rest, said } = match Body::read(body) {
            Ok(body) => body,
            Err(member) => return given_twice(&member).into(),
        };
        let request = Arc::new(HttpRequest {
            caller,
            said,
            program: program(&head),
            lacking: OnceLock::new(),
            wants_list: AtomicBool::new(false),
        });
        // The token has done its work: nothing behind the door needs it.
        head.headers.remove(header::AUTHORIZATION);
        head.extensions.insert(Arc::clone(&request));
        let response = (self.answer)(Request::from_parts(head, Full::new(rest))).await;
        let mut response = in_json(response).await;
        if request.wants_list.load(Ordering::Relaxed) {
            response = listing::filled(response).await;
        }
        HttpAnswer {
            response,
            lacking: request.lacking.get().copied().flatten(),
        }
    }
}

/// What travels with a request to what answers it.
pub(crate) struct HttpRequest {
    pub(crate) caller: HttpCaller,
    pub(crate) said: Said,
    /// What `User-Agent` names.
    program: Option<Implementation>,
    /// See [`HttpAnswer::lacking`].
    lacking: OnceLock<Option<Scopes>>,
    /// The answer wants [`listing::filled`].
    wants_list: AtomicBool,
}

impl HttpRequest {
    /// That of a call.
    pub(crate) fn of(extensions: &rmcp::model::Extensions) -> Option<Arc<HttpRequest>> {
        let head: &Parts = extensions.get()?;
        head.extensions.get().cloned()
    }

    /// The client, as it names itself. Before 2026-07-28 it says so in its greeting alone, of which nothing is kept.
    pub(crate) fn client(&self, context: &RequestContext<RoleServer>) -> Option<Implementation> {
        context.meta.client_info().or_else(|| self.program.clone())
    }

    /// Notes for the door whether a call was refused for want of scopes. The first answer of the road counts: once something was
    /// done, a client that gets more scopes and tries again would have it done twice.
    pub(crate) fn note(&self, lacking: Option<Scopes>) {
        let _first_counts = self.lacking.set(lacking);
    }

    /// What stands in the answer for the list of tools.
    pub(crate) fn list(&self) -> Vec<Tool> {
        self.wants_list.store(true, Ordering::Relaxed);
        vec![listing::placeholder()]
    }
}

/// The first product of `User-Agent` and its version.
fn program(head: &Parts) -> Option<Implementation> {
    let text = head.headers.get(header::USER_AGENT)?.to_str().ok()?;
    let product = text.split_ascii_whitespace().next()?;
    let (name, version) = product.split_once('/').unwrap_or((product, ""));
    Some(Implementation::new(name, version))
}

impl From<Response<HttpBody>> for HttpAnswer {
    fn from(response: Response<HttpBody>) -> Self {
        HttpAnswer {
            response,
            lacking: None,
        }
    }
}

/// What rmcp refuses in a line of text, as the JSON that its other refusals are.
async fn in_json(response: Response<HttpBody>) -> Response<HttpBody> {
    let status = response.status();
    let media_type = response.headers().get(header::CONTENT_TYPE);
    if status.is_success() || media_type.is_some_and(|it| it == JSON) {
        return response;
    }
    match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => no_message(),
        StatusCode::NOT_ACCEPTABLE => refused(
            status,
            ErrorData::invalid_request(
                "the answer cannot be in what Accept names: send Accept: application/json, text/event-stream",
                None,
            ),
        ),
        // The one thing that it says in text with that status is about this header.
        StatusCode::BAD_REQUEST => unknown_revision(),
        _ if status.is_server_error() => refused(
            status,
            ErrorData::internal_error(
                "the message could not be answered; the server's log says why",
                None,
            ),
        ),
        _ => {
            let Ok(said) = response.into_body().collect().await;
            let said = String::from_utf8_lossy(&said.to_bytes()).into_owned();
            refused(
                status,
                ErrorData::invalid_request(text::sentence(&said), None),
            )
        }
    }
}

fn given_twice(member: &str) -> Response<HttpBody> {
    bad_request(ErrorData::invalid_request(
        format!("`{member}` is given twice, or has too many members"),
        None,
    ))
}

fn no_message() -> Response<HttpBody> {
    bad_request(ErrorData::parse_error(
        "the body is no message of JSON-RPC 2.0 (batches are not part of the protocol)",
        None,
    ))
}

fn unknown_revision() -> Response<HttpBody> {
    let spoken: Vec<_> = PROTOCOL_VERSIONS
        .iter()
        .map(ProtocolVersion::as_str)
        .collect();
    bad_request(ErrorData::invalid_request(
        format!(
            "MCP-Protocol-Version names no revision that is spoken here: send one of {}",
            spoken.join(", ")
        ),
        None,
    ))
}

fn bad_request(error: ErrorData) -> Response<HttpBody> {
    refused(StatusCode::BAD_REQUEST, error)
}

fn refused(status: StatusCode, error: ErrorData) -> Response<HttpBody> {
    // No id can be told.
    let message = JsonRpcError::new(None::<RequestId>, error);
    let body = serde_json::to_vec(&message).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static(JSON);
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
