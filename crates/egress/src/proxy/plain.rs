//! Plain HTTP: each request is judged on its own, goes out on a connection of its own, and its answer comes back as it comes.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, client, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    answer,
    gate::Gate,
    head::{Form, Head, MAX_HEADERS},
    limits::ProxyLimits,
    record::{Ending, Way},
    session::{Admitted, Ask, Asked, Pass, SessionEgress},
    target,
    traffic::Counter,
};
use crate::destination::Denial;

/// The port of `http://` without one.
const HTTP_PORT: u16 = 80;

/// Of one connection, never of the message (RFC 9110, section 7.6.1), with the older ones of RFC 2616.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    answer::DENIED_HEADER,
];

type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

/// Serves the requests of one connection.
pub(crate) async fn serve<S>(gate: Gate<S>, session: Arc<SessionEgress>, limits: ProxyLimits)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let verdicts = gate.verdicts();
    let service = service_fn(|request| {
        let (verdict, under_way) = verdicts.next();
        let session = Arc::clone(&session);
        async move {
            let answer = handle(request, verdict, &session, &limits).await;
            // Dropped with the body, when all of the answer is written.
            Ok::<_, Infallible>(answer.map(|body| {
                body.map_err(move |error| {
                    let _ = &under_way;
                    error
                })
            }))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        // The gate has its own, which begins when it should.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(gate), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of plain HTTP broke off");
    }
}

async fn handle(
    request: Request<Incoming>,
    verdict: Result<Head, Denial>,
    session: &Arc<SessionEgress>,
    limits: &ProxyLimits,
) -> Answer {
    let ask = match ask(verdict) {
        Ok(ask) => ask,
        Err((denial, written)) => {
            let asked = Asked::Written(Way::Http, &written);
            session.refused(asked, &denial).await;
            return whole(&denial);
        }
    };
    match session.admit(ask.clone()).await {
        Ok(admitted) => exchange(request, admitted, limits)
            .await
            .unwrap_or_else(|denial| whole(&denial)),
        Err(denial) => {
            session.refused(Asked::Whole(&ask), &denial).await;
            whole(&denial)
        }
    }
}

/// What a head asks for; with a refusal, what stood where the host belongs.
fn ask(verdict: Result<Head, Denial>) -> Result<Ask, (Denial, Vec<u8>)> {
    let head = verdict.map_err(|denial| (denial, Vec::new()))?;
    let uri = match head.form {
        Form::Absolute(uri) => uri,
        Form::Connect(authority) => {
            let denial = Denial::BadRequest("CONNECT comes first on its connection");
            return Err((denial, authority));
        }
    };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let refuse = |denial| (denial, authority.as_bytes().to_vec());
    let meant = target::parse(authority.as_bytes(), Some(HTTP_PORT)).map_err(refuse)?;
    if let Some(named) = &head.host {
        target::same(&meant, named, HTTP_PORT).map_err(refuse)?;
    }
    Ok(Ask {
        way: Way::Http,
        host: meant.host,
        port: meant.port,
        http: Some((head.method, uri.path().to_owned())),
    })
}

async fn exchange(
    request: Request<Incoming>,
    admitted: Admitted,
    limits: &ProxyLimits,
) -> Result<Answer, Denial> {
    let Admitted { upstream, mut pass } = admitted;
    let failed = {
        let ask = pass.ask().clone();
        move |why| Denial::ConnectionFailed {
            host: ask.host,
            port: ask.port,
            why,
        }
    };
    let outgoing = outgoing(request, pass.ask());
    let stream = Counted {
        stream: upstream,
        up: pass.traffic().counter_up(),
        down: pass.traffic().counter_down(),
    };
    let shaken = client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = match shaken {
        Ok(shaken) => shaken,
        Err(_) => {
            pass.finish(Ending::Broken);
            return Err(failed(io::ErrorKind::ConnectionReset));
        }
    };
    tokio::spawn(drive(connection, pass, limits.idle_timeout));
    let answer = sender
        .send_request(outgoing)
        .await
        .map_err(|_| failed.clone()(io::ErrorKind::ConnectionAborted))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Denial::Upgrade);
    }
    let (mut head, body) = answer.into_parts();
    head.headers = end_to_end(&head.headers);
    head.version = http::Version::HTTP_11;
    // Where it speaks of another way to reach the host: there is none from inside.
    head.headers.remove(header::ALT_SVC);
    Ok(Response::from_parts(head, body.boxed_unsync()))
}

/// Moves the bytes of one exchange until it is over, and says so.
async fn drive(
    connection: client::conn::http1::Connection<TokioIo<Counted>, Incoming>,
    mut pass: Pass,
    idle_timeout: Duration,
) {
    let traffic = Arc::clone(pass.traffic());
    let ending = tokio::select! {
        done = connection => match done {
            Ok(()) => Ending::Complete,
            Err(_) => Ending::Broken,
        },
        () = pass.revoked() => Ending::RuleGone,
        () = traffic.idle(idle_timeout) => Ending::Idle,
    };
    pass.finish(ending);
}

/// The request as the server gets it: in origin form, with the one host that was judged.
fn outgoing(request: Request<Incoming>, ask: &Ask) -> Request<Incoming> {
    let (mut head, body) = request.into_parts();
    let path = head
        .uri
        .path_and_query()
        .and_then(|path| path.as_str().parse::<Uri>().ok());
    head.uri = path.unwrap_or_else(|| Uri::from_static("/"));
    head.version = http::Version::HTTP_11;
    head.headers = end_to_end(&head.headers);
    let authority = match ask.port {
        HTTP_PORT => ask.host.as_str().to_owned(),
        port => format!("{}:{port}", ask.host),
    };
    if let Ok(authority) = HeaderValue::from_str(&authority) {
        head.headers.insert(header::HOST, authority);
    }
    head.headers
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    Request::from_parts(head, body)
}

/// Without what is of one connection, or between a client and its proxy.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let nominated: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    headers
        .iter()
        .filter(|(name, _)| {
            let name = name.as_str();
            !HOP_BY_HOP.contains(&name)
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

/// The connection to the server, its bytes counted.
struct Counted {
    stream: TcpStream,
    up: Counter,
    down: Counter,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let count = buffer.filled().len() - before;
        self.down.add(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.up.add(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
