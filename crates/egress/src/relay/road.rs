//! The road of one request: the order of checks, once.
//!
//! form → (answered here?) → token → path and query → room → credential → body → model → caps → provider.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::OwnedSemaphorePermit,
};

use super::{
    body::{self, Buffers, Seen},
    exchange::{Exchange, RequestRecord, Terms},
    headers,
    models::MAX_MODEL_BYTES,
    prices::Rates,
    provider::Place,
    refusal::Denial,
    response::{Broken, Metered},
    route::{Ask, Route, route},
    session::SessionRelay,
    sign,
    upstream::{Pool, Trust, TrustError, pool},
    usage::Scanner,
};
use crate::credential::{self, AwsKeys, Carried, Held, Presented};

/// Limits on what travels, the same for every session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayLimits {
    /// A request's line and headers together. Claude Code's are about 2 KiB.
    pub max_header_bytes: usize,
    /// Headers of a request. Claude Code sends about 20.
    pub max_headers: usize,
    /// A request's body. The Messages API takes 32 MB.
    pub max_body_bytes: usize,
    /// Bytes of request bodies of all sessions in memory at a time.
    pub max_buffered_bytes: usize,
    /// Until a request's headers are whole; also how long a connection may idle.
    pub header_timeout: Duration,
    /// From a request's headers to the end of its body.
    pub body_timeout: Duration,
    /// Name, connection and TLS to the provider together.
    pub connect_timeout: Duration,
    /// From the request to the answer's headers. An answer in one piece has them at its end: 600 s, as Claude Code waits.
    pub response_timeout: Duration,
    /// Between two pieces of an answer. Claude Code has no such limit of its own (measured: none within 60 s).
    pub stall_timeout: Duration,
}

impl Default for RelayLimits {
    fn default() -> Self {
        RelayLimits {
            max_header_bytes: 64 * 1024,
            max_headers: 100,
            max_body_bytes: 32 * 1024 * 1024,
            max_buffered_bytes: 512 * 1024 * 1024,
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(600),
            stall_timeout: Duration::from_secs(120),
        }
    }
}

/// A connection that ended before its time. Not worth more than a line in a debug log: the client did it, mostly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The session has as many connections as it may.
    #[error("the session has as many connections as it may")]
    TooManyConnections,
    /// What came was no HTTP/1.1, or the connection broke.
    #[error("the connection broke off")]
    Connection(#[source] hyper::Error),
}

/// The relay of a server. Cheap to clone; all clones share their connections to providers.
#[derive(Clone)]
pub struct Relay {
    pool: Pool,
    limits: RelayLimits,
    buffers: Buffers,
}

type Answer = Response<UnsyncBoxBody<Bytes, Broken>>;

impl Relay {
    /// A relay that reaches providers whose certificates `trust` vouches for.
    ///
    /// # Errors
    /// When the additional roots cannot be used.
    pub fn new(limits: RelayLimits, trust: &Trust) -> Result<Self, TrustError> {
        Ok(Relay {
            pool: pool(trust, limits.connect_timeout)?,
            buffers: Buffers::new(limits.max_buffered_bytes),
            limits,
        })
    }

    /// Serves one connection of a session until it ends. Dropping the future ends it, and its requests with it.
    ///
    /// # Errors
    /// When the connection broke off, or the session has too many.
    pub async fn serve<S>(&self, stream: S, session: Arc<SessionRelay>) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(_slot) = session.connection_slot() else {
            return Err(ServeError::TooManyConnections);
        };
        let service = service_fn(|request| {
            let relay = self.clone();
            let session = Arc::clone(&session);
            async move { Ok::<_, Infallible>(relay.handle(request, session).await) }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .max_headers(self.limits.max_headers)
            .max_header_size(self.limits.max_header_bytes)
            .header_read_timeout(self.limits.header_timeout)
            .serve_connection(TokioIo::new(stream), service)
            .await
            .map_err(ServeError::Connection)
    }

    async fn handle(&self, request: Request<Incoming>, session: Arc<SessionRelay>) -> Answer {
        let started = Instant::now();
        let mut record = RequestRecord::new(request.method());
        let admitted = self.admit(request, &session, started, &mut record).await;
        match admitted {
            Ok(Admitted::Here(answer)) => answer.map(whole),
            Ok(Admitted::Onward(onward)) => self.forward(*onward, &session).await,
            Err(denial) => {
                record.deny(&denial);
                record.duration = started.elapsed();
                session.count_denied(&denial);
                session
                    .observer
                    .request_ended(session.session, None, &record);
                denial.response(session.provider.kind()).map(whole)
            }
        }
    }

    async fn admit(
        &self,
        request: Request<Incoming>,
        session: &Arc<SessionRelay>,
        started: Instant,
        record: &mut RequestRecord,
    ) -> Result<Admitted, Denial> {
        check_form(&request)?;
        let asked = route(&session.provider, request.method(), request.uri());
        if let Some(answer) = asked.as_ref().ok().and_then(answered_here) {
            return Ok(Admitted::Here(answer));
        }
        if !headers::carries_token(request.headers(), &session.token_digest) {
            return Err(Denial::Token);
        }
        let Ask::Forward(route) = asked? else {
            return Err(Denial::Path);
        };
        record.shape = route.shape;
        let slot = session.request_slot()?;
        let credential = session.credential()?;
        let (head, incoming) = request.into_parts();
        let (body, places) = body::read(
            incoming,
            self.limits.max_body_bytes,
            [&session.buffers, &self.buffers],
            self.limits.body_timeout,
        )
        .await?;
        let terms = terms(session, route, &body, record)?;
        let presented = credential.present().await.map_err(Denial::Credential)?;
        let call = Call {
            path_and_query: head
                .uri
                .path_and_query()
                .map_or_else(String::new, ToString::to_string),
            headers: headers::up(&head.headers),
            body,
        };
        Ok(Admitted::Onward(Box::new(Onward {
            call,
            places,
            credential,
            presented,
            exchange: begin(session, slot, started, record, terms)?,
        })))
    }

    async fn forward(&self, onward: Onward, session: &SessionRelay) -> Answer {
        let Onward {
            call,
            places,
            credential,
            mut presented,
            mut exchange,
        } = onward;
        let mut sent = match exchange.announce().await {
            Ok(()) => self.send(&call, &presented, session).await,
            Err(denial) => Err(denial),
        };
        // Nothing of an answer was passed on: with another version of the credential, the request is sent once more.
        if sent.as_ref().is_ok_and(refuses_credential)
            && let Some(other) = session.instead_of(&credential, &presented).await
        {
            tracing::info!(session = %session.session, "the provider refused a credential that has another version: sent once more");
            presented = other;
            sent = self.send(&call, &presented, session).await;
        }
        // The answer has begun: the body is out of memory, or as good as.
        drop((call, places));
        match sent {
            Ok(response) => self.pass_back(response, exchange, &presented.secrets()),
            Err(denial) => {
                exchange.costs_nothing();
                exchange.record.deny(&denial);
                denial.response(session.provider.kind()).map(whole)
            }
        }
    }

    async fn send(
        &self,
        call: &Call,
        presented: &Presented,
        session: &SessionRelay,
    ) -> Result<Response<Incoming>, Denial> {
        let request = build(session, call, presented)?;
        let limit = self.limits.response_timeout;
        match tokio::time::timeout(limit, self.pool.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                tracing::warn!(session = %session.session, error = credential::chain(&error), "the provider was not reached");
                Err(Denial::ConnectionFailed)
            }
            Err(_) => Err(Denial::ResponseTimeout {
                seconds: limit.as_secs(),
            }),
        }
    }

    fn pass_back(
        &self,
        response: Response<Incoming>,
        mut exchange: Exchange,
        secrets: &[HeaderValue],
    ) -> Answer {
        let (head, body) = response.into_parts();
        exchange.record.status = Some(head.status.as_u16());
        if !head.status.is_success() {
            exchange.costs_nothing();
        }
        let scanner = Scanner::new(readable_kind(&head.headers));
        let mut answer = Response::new(
            Metered::new(body, scanner, exchange, self.limits.stall_timeout).boxed_unsync(),
        );
        *answer.status_mut() = head.status;
        *answer.headers_mut() = headers::down(&head.headers, secrets);
        answer
    }
}

/// What goes to the provider, without a credential.
struct Call {
    path_and_query: String,
    headers: HeaderMap,
    body: Bytes,
}

/// A request that passed every check.
struct Onward {
    call: Call,
    places: [body::Place; 2],
    credential: Arc<Held>,
    presented: Presented,
    exchange: Exchange,
}

enum Admitted {
    Here(Response<Full<Bytes>>),
    Onward(Box<Onward>),
}

fn whole(body: Full<Bytes>) -> UnsyncBoxBody<Bytes, Broken> {
    body.map_err(|never| match never {}).boxed_unsync()
}

/// What is wrong with a request before it is read: two readers might take it for different ones.
fn check_form(request: &Request<Incoming>) -> Result<(), Denial> {
    let headers = request.headers();
    let whole_address = request.uri().scheme().is_some() || request.uri().authority().is_some();
    if whole_address || request.method() == Method::CONNECT {
        return Err(Denial::Form);
    }
    if headers.contains_key(header::UPGRADE) {
        return Err(Denial::Upgrade);
    }
    // A length beside it was dropped by the HTTP library, so this is the one place to see a conflict.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Denial::TransferEncoding);
    }
    Ok(())
}

/// What needs no provider, and so no token: it says nothing and does nothing.
fn answered_here(ask: &Ask) -> Option<Response<Full<Bytes>>> {
    let status = match ask {
        Ask::Hello => StatusCode::OK,
        Ask::NoProfiles => StatusCode::NOT_FOUND,
        Ask::Forward(_) => return None,
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    Some(response)
}

/// Looks at the body; holds that each model that it or the path names may be asked for.
fn terms(
    session: &SessionRelay,
    route: Route,
    body: &[u8],
    record: &mut RequestRecord,
) -> Result<Terms, Denial> {
    let seen = body::look(body)?;
    for model in route.model.iter().chain(&seen.model) {
        if model.len() > MAX_MODEL_BYTES || !session.models.allows(model) {
            let shown = model.chars().take(MAX_MODEL_BYTES).collect();
            return Err(Denial::Model(shown));
        }
    }
    let model = route
        .model
        .or_else(|| seen.model.clone())
        .ok_or(Denial::NoModel)?;
    record.model = Some(model.clone());
    record.stream = seen.stream || route.streams;
    record.bytes_up = body.len() as u64;
    let rates = price(session, &model, route.billed, &seen)?;
    Ok(Terms {
        model,
        billed: route.billed,
        max_tokens: seen.max_tokens,
        rates,
    })
}

/// What the request costs; where nobody has said, `None`, or a refusal where dollars are what is limited.
fn price(
    session: &SessionRelay,
    model: &str,
    billed: bool,
    seen: &Seen,
) -> Result<Option<Rates>, Denial> {
    if !billed {
        return Ok(None);
    }
    let is_usual = seen
        .speed
        .as_deref()
        .is_none_or(|speed| speed == "standard");
    let in_chosen_geo = seen
        .inference_geo
        .as_deref()
        .is_some_and(|geo| geo != "global");
    let prices = session.ledger.prices();
    let rates = prices
        .of(&session.provider, model, in_chosen_geo)
        .filter(|_| is_usual);
    if rates.is_none() && session.counts_dollars() {
        let how = if is_usual {
            ""
        } else {
            " in a speed other than standard"
        };
        return Err(Denial::PriceUnknown(format!("the model `{model}`{how}")));
    }
    Ok(rates)
}

fn begin(
    session: &Arc<SessionRelay>,
    slot: OwnedSemaphorePermit,
    started: Instant,
    record: &RequestRecord,
    terms: Terms,
) -> Result<Exchange, Denial> {
    Exchange::begin(Arc::clone(session), slot, started, record.clone(), terms)
}

/// The request as the provider gets it.
fn build(
    session: &SessionRelay,
    call: &Call,
    presented: &Presented,
) -> Result<Request<Full<Bytes>>, Denial> {
    let base = &session.provider.base;
    let uri = base
        .join(&call.path_and_query)
        .map_err(|_| Denial::Internal)?;
    let host = HeaderValue::from_str(base.host()).map_err(|_| Denial::Internal)?;
    let mut headers = call.headers.clone();
    headers.insert(header::HOST, host);
    match &presented.carried {
        Carried::Header(name, value) => {
            headers.insert(name, value.clone());
        }
        Carried::Signature(keys) => {
            headers.extend(signature(session, keys, &uri, &call.body)?);
        }
    }
    let mut request = Request::new(Full::new(call.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Whether the provider did not take the credential itself: it has ended, or was revoked. Not so where it may not do
/// what was asked, which a newer version would not either.
fn refuses_credential(response: &Response<Incoming>) -> bool {
    // Bedrock says 403 for both, and which one it is by name.
    let error = response
        .headers()
        .get("x-amzn-errortype")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match response.status() {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::FORBIDDEN => credential::ENDED.iter().any(|name| error.starts_with(name)),
        _ => false,
    }
}

fn signature(
    session: &SessionRelay,
    keys: &AwsKeys,
    uri: &Uri,
    body: &[u8],
) -> Result<HeaderMap, Denial> {
    let Place::Bedrock { region } = &session.provider.place else {
        return Err(Denial::Internal);
    };
    let scope = sign::Scope {
        region,
        now: SystemTime::now(),
    };
    sign::headers(keys, &scope, uri, body)
        .map(|signed| signed.into_iter().collect())
        .map_err(|_| Denial::Internal)
}

/// The content type of an answer that can be read on the way; of one that is packed, none.
fn readable_kind(headers: &HeaderMap) -> &str {
    let packed = headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|value| value != "identity");
    headers
        .get(header::CONTENT_TYPE)
        .filter(|_| !packed)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
