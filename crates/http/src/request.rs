//! The order of checks of one request.
//!
//! ```text
//! Host ─► Origin ─► path ─► method ─► framing ─► token ─► who is it (the road; failures are on record and limited)
//!      ─► body ─► MCP ─► the call, on the road
//! ```
//!
//! Nothing is read of a body before its sender is known.

use std::{sync::Arc, time::Instant};

use control::Authenticated;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use hyper::body::Incoming;
use mcp::{HttpBody, HttpCaller};
use model::{Credentials, Reason, Source};
use serde_json::json;

use crate::{
    answer::{Refused, json_response, protect, share, tell_rate},
    bearer::{self, Presented},
    body::check_framing,
    listener::Inside,
    names::Visitor,
    oauth::TokenError,
    peer::Peer,
};

/// Where MCP is served.
const MCP_PATH: &str = "/mcp";
/// Whether the door stands: for supervisors and balancers.
const HEALTH_PATH: &str = "/health";
/// What a page of an allowed origin may send.
const ALLOWED_HEADERS: &str =
    "Authorization, Content-Type, Accept, MCP-Protocol-Version, Mcp-Method, Mcp-Name";
/// How long a browser may remember that, seconds.
const PREFLIGHT_SECONDS: &str = "600";
/// When another try is worth it where an issuer's keys could not be had, milliseconds.
const ISSUER_RETRY_MS: u64 = 5_000;

/// Answers one request.
pub(crate) async fn answer(
    inside: Arc<Inside>,
    peer: Peer,
    request: Request<Incoming>,
) -> Response<HttpBody> {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let (method, path) = (head.method.clone(), head.uri.path().to_owned());
    let mut page = None;
    let answered = route(&inside, peer, head, body, &mut page).await;
    let mut response = answered.unwrap_or_else(|refused| {
        tracing::debug!(code = refused.code(), status = %refused.status(), "refused");
        refused.into_response()
    });
    protect(response.headers_mut());
    if let Some(origin) = page {
        share(response.headers_mut(), origin);
    }
    let (status, took) = (response.status().as_u16(), started.elapsed());
    tracing::debug!(%method, path, status, ?took, "answered");
    response
}

/// `page` is told the origin of an allowed page as soon as it is known, so that the page sees refusals, too.
async fn route(
    inside: &Inside,
    peer: Peer,
    head: Parts,
    body: Incoming,
    page: &mut Option<HeaderValue>,
) -> Result<Response<HttpBody>, Refused> {
    let path = head.uri.path();
    if path == HEALTH_PATH {
        // Balancers ask by address, and there is nothing to learn here.
        return health(&head.method);
    }
    inside.names.check_host(&head)?;
    let visitor = inside.names.check_origin(&head)?;
    if let Visitor::Page(origin) = &visitor {
        *page = Some(origin.clone());
    }
    if path == MCP_PATH {
        return match (&head.method, &visitor) {
            (&Method::POST, _) => mcp(inside, peer, head, body).await,
            (&Method::OPTIONS, Visitor::Page(_)) => Ok(preflight()),
            _ => Err(wrong_method(
                "POST",
                "Send messages by POST; there is no stream to listen to.",
            )),
        };
    }
    let metadata = inside.metadata.as_ref();
    if let Some(document) = metadata.and_then(|metadata| metadata.at(path)) {
        return match (&head.method, &visitor) {
            (&Method::GET | &Method::HEAD, _) => Ok(json_response(StatusCode::OK, document)),
            (&Method::OPTIONS, Visitor::Page(_)) => Ok(preflight()),
            _ => Err(wrong_method("GET", "Read it by GET.")),
        };
    }
    Err(Refused::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing here",
        "MCP is served at /mcp.",
    ))
}

/// A message of MCP.
async fn mcp(
    inside: &Inside,
    peer: Peer,
    head: Parts,
    body: Incoming,
) -> Result<Response<HttpBody>, Refused> {
    check_framing(&head, &inside.settings.limits)?;
    check_media_type(&head)?;
    let source = peer.source(&head.headers, &inside.settings.proxies);
    let (credentials, authenticated) = authenticate(inside, &head, source).await?;
    let is_token = matches!(credentials, Credentials::AccessToken(_));
    let body = inside.bodies.read(body).await?;
    let caller = HttpCaller {
        credentials,
        name: authenticated.name,
        source,
    };
    let mut answer = inside.service.answer(head, &body.bytes, caller).await;
    if let Some(rate) = &authenticated.rate {
        tell_rate(answer.response.headers_mut(), rate);
    }
    match answer.lacking {
        // Clients of OAuth ask their person for more and try again; whoever has a key reads what it lacks in the result.
        Some(scopes) if is_token => Err(inside.challenges.insufficient(scopes)),
        _ => Ok(answer.response),
    }
}

/// What is presented, and who the road says that is.
async fn authenticate(
    inside: &Inside,
    head: &Parts,
    source: Source,
) -> Result<(Credentials, Authenticated), Refused> {
    let Presented::Token(token) = bearer::presented(head)? else {
        return Err(inside.challenges.nobody());
    };
    let verified = match &inside.tokens {
        Some(tokens) => tokens.verify(token.expose()).await,
        None => Err(TokenError::NoToken),
    };
    let credentials = match verified {
        Ok(token) => Credentials::AccessToken(Box::new(token)),
        Err(TokenError::NoToken) => Credentials::ApiKey(token),
        Err(TokenError::NoKeys) => return Err(issuer_unreachable()),
        Err(why) => {
            // Who tried too often is told to wait, not what is wrong this time.
            inside.road.may_authenticate(&source)?;
            inside.road.authentication_failed(&source, why.as_str());
            return Err(inside.challenges.invalid(Some(why)));
        }
    };
    match inside.road.authenticate(&credentials, &source).await {
        Ok(authenticated) => Ok((credentials, authenticated)),
        Err(refusal) if refusal.reason == Reason::Unauthenticated => {
            Err(inside.challenges.invalid(None))
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// rmcp answers the same, but also so where the body is no message: which of the two it is, is known here.
fn check_media_type(head: &Parts) -> Result<(), Refused> {
    let value = head.headers.get(header::CONTENT_TYPE);
    let essence = value.and_then(|value| value.to_str().ok()?.split(';').next());
    let is_json = essence.is_some_and(|it| it.trim().eq_ignore_ascii_case("application/json"));
    is_json.then_some(()).ok_or_else(|| {
        Refused::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "the body is not said to be JSON",
            "Send Content-Type: application/json.",
        )
        .closing()
    })
}

fn health(method: &Method) -> Result<Response<HttpBody>, Refused> {
    match *method {
        Method::GET | Method::HEAD => Ok(json_response(StatusCode::OK, &json!({ "status": "ok" }))),
        _ => Err(wrong_method("GET", "Read it by GET.")),
    }
}

fn preflight() -> Response<HttpBody> {
    let mut response = json_response(StatusCode::OK, &json!({}));
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn wrong_method(allowed: &'static str, hint: &'static str) -> Refused {
    Refused::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "the method is not served here",
        hint,
    )
    .with(header::ALLOW, HeaderValue::from_static(allowed))
}

fn issuer_unreachable() -> Refused {
    Refused::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "issuer_unreachable",
        "the token cannot be checked: the keys of its issuer cannot be had at the moment",
        "Try again in a moment; the server's log says more.",
    )
    .retry_after_ms(ISSUER_RETRY_MS)
}
