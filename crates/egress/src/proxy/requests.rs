//! Requests that are read, in clear or in a tunnel whose TLS is opened: each is judged on its own and goes out, in clear on a
//! connection of its own, from a tunnel on that of the tunnel (`upstream`); its answer comes back as it comes.

use std::{convert::Infallible, future::poll_fn, io, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header, request::Parts,
};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    answer,
    gate::Gate,
    head::{Form, Head, MAX_HEADERS},
    limits::ProxyLimits,
    record::{Ending, Way},
    session::{Ask, Asked, Pass, SessionEgress, Spoken, TLS_PORT},
    target::{self, Target},
    upstream::{Counted, Counting, Keeping, Line, Unsent, Whole},
};
use crate::{
    destination::Denial,
    intercept::{self, Claim, EchoError, Unechoed, Unspoken},
    message::{is_hop_by_hop, nominated},
};

/// The port of `http://` without one.
const HTTP_PORT: u16 = 80;

type BodyError = EchoError<hyper::Error>;
type Answer = Response<UnsyncBoxBody<Bytes, BodyError>>;

/// Whose requests are served, and where they lead.
#[derive(Clone)]
pub(crate) struct Road {
    session: Arc<SessionEgress>,
    limits: ProxyLimits,
    /// The one host of a tunnel whose TLS is opened.
    opened: Option<Target>,
    /// Where its connection to that host is kept between requests.
    keeping: Option<Keeping>,
}

/// A request that may go out, and on what.
struct Begun {
    road: Upstream,
    pass: Pass,
}

enum Upstream {
    Dialed(TcpStream),
    Kept(Box<Line>),
}

impl Road {
    /// Plain HTTP: each request names its host.
    pub(crate) fn in_clear(session: Arc<SessionEgress>, limits: ProxyLimits) -> Self {
        Road {
            session,
            limits,
            opened: None,
            keeping: None,
        }
    }

    /// An opened tunnel, whose host is fixed.
    pub(crate) fn through(session: Arc<SessionEgress>, limits: ProxyLimits, ask: Ask) -> Self {
        let target = Target {
            host: ask.host,
            port: ask.port,
        };
        Road {
            session,
            limits,
            opened: Some(target),
            keeping: Some(Keeping::default()),
        }
    }

    const fn way(&self) -> Way {
        match self.opened {
            Some(_) => Way::Https,
            None => Way::Http,
        }
    }

    /// The port that a host is meant at which names none.
    const fn default_port(&self) -> u16 {
        match self.opened {
            Some(_) => TLS_PORT,
            None => HTTP_PORT,
        }
    }
}

/// A request whose target was not understood, and what of it goes on record.
struct Unread {
    denial: Denial,
    host: Vec<u8>,
    port: Option<u16>,
}

impl Unread {
    fn of(denial: Denial, authority: &[u8], default_port: Option<u16>) -> Box<Self> {
        let (host, port) = target::written(authority, default_port);
        Box::new(Unread {
            denial,
            host: host.to_vec(),
            port,
        })
    }

    fn nothing_of(denial: Denial) -> Box<Self> {
        Unread::of(denial, b"", None)
    }
}

/// Serves the requests of one connection.
pub(crate) async fn serve<S>(gate: Gate<S>, road: Road)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (verdicts, limits) = (gate.verdicts(), road.limits);
    let service = service_fn(|request| {
        let (verdict, under_way) = verdicts.next();
        let road = road.clone();
        Box::pin(async move {
            let answer = road.handle(request, verdict).await;
            // Dropped with the body, when all of the answer is written.
            Ok::<_, Infallible>(answer.map(|body| {
                body.map_err(move |error| {
                    let _ = &under_way;
                    error
                })
            }))
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The gate has its own, which begins when it should.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(gate), service);
    let served = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection whose requests are read broke off");
    }
    // Whatever ended it: TLS that ends without saying so looks cut off to a client.
    let mut client = connection.into_parts().io.into_inner();
    let _ = timeout(limits.head_timeout, client.shutdown()).await;
}

impl Road {
    async fn handle(&self, request: Request<Incoming>, verdict: Result<Head, Denial>) -> Answer {
        let answered = self.answer(request, verdict).await;
        answered.unwrap_or_else(|denial| whole(&denial))
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        verdict: Result<Head, Denial>,
    ) -> Result<Answer, Denial> {
        let (mut head, body) = request.into_parts();
        // First: what a client has taken away would take away what is put in.
        head.headers = end_to_end(&head.headers);
        let (begun, claim) = self.decide(&head, verdict).await?;
        let ask = begun.pass.ask().clone();
        let answered = self
            .passed_on(Request::from_parts(head, body), begun, claim)
            .await;
        if let Err(denial) = &answered {
            self.session.refused(Asked::Whole(&ask), denial).await;
        }
        answered
    }

    async fn passed_on(
        &self,
        request: Request<Incoming>,
        begun: Begun,
        claim: Option<Claim>,
    ) -> Result<Answer, Denial> {
        let (mut head, body) = request.into_parts();
        let filled = match &claim {
            Some(claim) => Some(claim.fill(&mut head).await?),
            None => None,
        };
        let ask = begun.pass.ask().clone();
        let outgoing = self.outgoing(Request::from_parts(head, body), &ask);
        let answer = self.exchange(outgoing, begun).await?;
        if let Some(filled) = &filled
            && answer.status() == StatusCode::UNAUTHORIZED
        {
            filled.refused();
        }
        self.passed_back(answer, filled.map(|filled| filled.unspoken), ask)
    }

    /// Whether a request may go out, and what of credentials it holds. A refusal is on record.
    async fn decide(
        &self,
        head: &Parts,
        verdict: Result<Head, Denial>,
    ) -> Result<(Begun, Option<Claim>), Denial> {
        let session = &self.session;
        let mut ask = match self.ask(verdict) {
            Ok(ask) => ask,
            Err(unread) => {
                let asked = Asked::Written(self.way(), &unread.host, unread.port);
                session.refused(asked, &unread.denial).await;
                return Err(unread.denial);
            }
        };
        let claimed = match is_what_was_judged(head, &ask) {
            true => session.claim(&ask, head),
            false => Err(Denial::Internal("a request was read in two ways")),
        };
        let decided = match claimed {
            Ok(claim) => {
                ask.credential = claim.as_ref().map(|claim| claim.name().to_owned());
                self.begin(ask.clone()).await.map(|begun| (begun, claim))
            }
            Err(denial) => Err(denial),
        };
        if let Err(denial) = &decided {
            session.refused(Asked::Whole(&ask), denial).await;
        }
        decided
    }

    /// Admits a request, on the connection that is kept or on a new one.
    async fn begin(&self, ask: Ask) -> Result<Begun, Denial> {
        let kept = match &self.keeping {
            Some(keeping) => keeping.take().await,
            None => None,
        };
        let was_private = kept.as_ref().map(|line| line.was_private);
        let (stream, pass) = self.session.admit_reusing(ask, was_private).await?;
        let road = match (stream, kept) {
            (Some(stream), _) => Upstream::Dialed(stream),
            (None, Some(line)) => Upstream::Kept(Box::new(line)),
            (None, None) => return Err(Denial::Internal("nothing was dialed")),
        };
        Ok(Begun { road, pass })
    }

    /// What a head asks for; with a refusal, what stood where the host belongs.
    fn ask(&self, verdict: Result<Head, Denial>) -> Result<Ask, Box<Unread>> {
        let head = verdict.map_err(Unread::nothing_of)?;
        let (uri, meant) = match (head.form, &self.opened) {
            (Form::Absolute(uri), None) => {
                let authority = uri.authority().map_or("", |authority| authority.as_str());
                let meant = target::parse(authority.as_bytes(), Some(HTTP_PORT))
                    .map_err(|denial| Unread::of(denial, authority.as_bytes(), Some(HTTP_PORT)))?;
                (uri, meant)
            }
            (Form::Origin(uri), Some(target)) => (uri, target.clone()),
            (Form::Connect(authority), _) => {
                let denial = Denial::BadRequest("CONNECT comes first on its connection");
                return Err(Unread::of(denial, &authority, None));
            }
            (Form::Absolute(_), Some(_)) | (Form::Origin(_), None) => {
                let denial = Denial::Internal("a target of the other form");
                return Err(Unread::nothing_of(denial));
            }
        };
        if let Some(named) = &head.host {
            target::same(&meant, named, self.default_port()).map_err(|denial| {
                let host = meant.host.as_str().as_bytes();
                Unread::of(denial, host, Some(meant.port))
            })?;
        }
        Ok(Ask {
            way: self.way(),
            host: meant.host,
            port: meant.port,
            http: Some(Spoken {
                path: uri.path().to_owned(),
                method: head.method,
                is_overridden: head.is_overridden,
            }),
            credential: None,
        })
    }

    async fn exchange(
        &self,
        outgoing: Request<Incoming>,
        begun: Begun,
    ) -> Result<Response<Whole>, Denial> {
        let Begun { road, mut pass } = begun;
        let failed = {
            let ask = pass.ask().clone();
            move |why| Denial::ConnectionFailed {
                host: ask.host,
                port: ask.port,
                why,
            }
        };
        let (line, was_kept) = match road {
            Upstream::Kept(line) => (*line, true),
            Upstream::Dialed(stream) => (self.line(stream, &mut pass).await?, false),
        };
        let (keeping, idle) = (&self.keeping, self.limits.idle_timeout);
        let mut sent = line.exchange(outgoing, pass, keeping.clone(), idle).await;
        if was_kept && let Err((Unsent::Whole(request), mut pass)) = sent {
            // The server closed it meanwhile: once more, on a new one.
            let stream = match pass.redial().await {
                Ok(stream) => stream,
                Err(denial) => {
                    pass.finish(Ending::Broken);
                    return Err(denial);
                }
            };
            let line = self.line(stream, &mut pass).await?;
            sent = line.exchange(*request, pass, keeping.clone(), idle).await;
        }
        let answer = sent.map_err(|(_, mut pass)| {
            pass.finish(Ending::Broken);
            failed(io::ErrorKind::ConnectionAborted)
        })?;
        match answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => Err(Denial::Upgrade),
            _ => Ok(answer),
        }
    }

    /// Makes a line of a connection that was dialed.
    async fn line(&self, stream: TcpStream, pass: &mut Pass) -> Result<Line, Denial> {
        let counted = Counted::new(pass.traffic());
        let stream = Counting {
            stream,
            counted: counted.clone(),
        };
        let opened = match self.wire(stream, pass.ask()).await {
            Ok(wire) => Line::open(wire, counted, pass).await.map_err(|_| {
                let ask = pass.ask();
                Denial::ConnectionFailed {
                    host: ask.host.clone(),
                    port: ask.port,
                    why: io::ErrorKind::ConnectionReset,
                }
            }),
            Err(denial) => Err(denial),
        };
        if opened.is_err() {
            pass.finish(Ending::Broken);
        }
        opened
    }

    /// What the request is written to.
    async fn wire(&self, stream: Counting, ask: &Ask) -> Result<Box<dyn Wire>, Denial> {
        let Some(both) = self.opened.as_ref().and(self.session.interception()) else {
            return Ok(Box::new(stream));
        };
        let connecting = both.upstream.connect(&ask.host, ask.port, stream);
        match timeout(self.limits.hello_timeout, connecting).await {
            Ok(connected) => Ok(Box::new(connected?)),
            Err(_) => Err(Denial::ConnectionFailed {
                host: ask.host.clone(),
                port: ask.port,
                why: io::ErrorKind::TimedOut,
            }),
        }
    }
}

impl Road {
    /// The answer as the client gets it.
    fn passed_back(
        &self,
        answer: Response<Whole>,
        unspoken: Option<Unspoken>,
        ask: Ask,
    ) -> Result<Answer, Denial> {
        let (mut head, body) = answer.into_parts();
        if let Some(unspoken) = &unspoken {
            intercept::look_at(&head.headers, unspoken)?;
        }
        head.headers = end_to_end(&head.headers);
        head.version = http::Version::HTTP_11;
        // The words behind the number, which could tell anything.
        head.extensions.clear();
        // Where it speaks of another way to reach the host: there is none from inside.
        head.headers.remove(header::ALT_SVC);
        let body = match unspoken {
            None => body.map_err(EchoError::Inner).boxed_unsync(),
            Some(unspoken) => {
                let denial = unspoken.denial();
                let session = Arc::clone(&self.session);
                let tell = move || {
                    tokio::spawn(async move {
                        session.refused(Asked::Whole(&ask), &denial).await;
                    });
                };
                Unechoed::new(body, unspoken, tell).boxed_unsync()
            }
        };
        Ok(Response::from_parts(head, body))
    }

    /// The request as the server gets it: in origin form, with the one host that was judged.
    fn outgoing(&self, request: Request<Incoming>, ask: &Ask) -> Request<Incoming> {
        let (mut head, body) = request.into_parts();
        let path = head
            .uri
            .path_and_query()
            .and_then(|path| path.as_str().parse::<Uri>().ok());
        head.uri = path.unwrap_or_else(|| Uri::from_static("/"));
        head.version = http::Version::HTTP_11;
        let authority = match ask.port == self.default_port() {
            true => ask.host.as_str().to_owned(),
            false => format!("{}:{}", ask.host, ask.port),
        };
        if let Ok(authority) = HeaderValue::from_str(&authority) {
            head.headers.insert(header::HOST, authority);
        }
        if self.keeping.is_none() {
            head.headers
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Request::from_parts(head, body)
    }
}

/// Whether what is sent is what was judged: two readers have read it.
fn is_what_was_judged(head: &Parts, ask: &Ask) -> bool {
    ask.http
        .as_ref()
        .is_some_and(|spoken| spoken.method == head.method && spoken.path == head.uri.path())
}

/// Without what is of one connection, or between a client and its proxy.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let nominated = nominated(headers);
    headers
        .iter()
        .filter(|(name, _)| {
            let name = name.as_str();
            !is_hop_by_hop(name)
                && name != answer::DENIED_HEADER
                && !name.starts_with("proxy-")
                && (!nominated.iter().any(|other| other == name) || is_kept(name))
        })
        .map(|(name, value)| (HeaderName::clone(name), value.clone()))
        .collect()
}

/// What `connection` cannot take away: the message would be another one without it.
fn is_kept(name: &str) -> bool {
    ["host", "content-length"].contains(&name)
}

fn whole(denial: &Denial) -> Answer {
    answer::response(denial).map(|body| body.map_err(|never| match never {}).boxed_unsync())
}

/// A connection, in clear or not.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}
