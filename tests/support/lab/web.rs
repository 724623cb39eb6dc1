//! Web servers at every address, plain at 80 and with TLS at 443 and 8443: files below the host's directory where there
//! are any, else a line that says who answered; what stands below `/private/` is for those who say who they are. What they say is for the test to see that a probe came through.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::LazyConfigAcceptor;

use super::{Event, Log, addresses::ALL, authority::Authority};

/// What every answer that is no file begins with.
pub const GREETING: &str = "reached";

/// How paths begin that ask for a name and a password, whatever they are.
const PRIVATE: &str = "/private/";

#[derive(Clone)]
struct Site {
    log: Log,
    www: Arc<PathBuf>,
    tls: Arc<ServerConfig>,
}

pub(super) async fn serve(log: &Log, www: &Path, authority: &Authority) {
    let site = Site {
        log: log.clone(),
        www: Arc::new(www.to_owned()),
        tls: authority.server(),
    };
    for address in ALL {
        let ip: IpAddr = address.parse().expect("an address");
        for (port, has_tls) in [(80, false), (443, true), (8080, false), (8443, true)] {
            let listener = TcpListener::bind((ip, port)).await.expect("a port");
            tokio::spawn(listen(listener, site.clone(), has_tls));
        }
    }
}

async fn listen(listener: TcpListener, site: Site, has_tls: bool) {
    let to = listener.local_addr().expect("its address");
    while let Ok((stream, _)) = listener.accept().await {
        site.log.add(Event::Connected { to });
        let site = site.clone();
        tokio::spawn(async move {
            if has_tls {
                over_tls(stream, to, site).await;
            } else {
                speak(stream, to, site, false).await;
            }
        });
    }
}

async fn over_tls(stream: TcpStream, to: SocketAddr, site: Site) {
    let Ok(start) = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await
    else {
        return;
    };
    let name = start.client_hello().server_name().map(str::to_owned);
    site.log.add(Event::Greeted { to, name });
    if let Ok(stream) = start.into_stream(Arc::clone(&site.tls)).await {
        speak(stream, to, site, true).await;
    }
}

async fn speak<S>(stream: S, to: SocketAddr, site: Site, tls: bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(site.answer(&request, to, tls)) }
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Site {
    fn answer(
        &self,
        request: &Request<Incoming>,
        to: SocketAddr,
        tls: bool,
    ) -> Response<Full<Bytes>> {
        let header = |name: &str| {
            let value = request.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let host = header("host").unwrap_or_default();
        let path = request.uri().path().to_owned();
        let headers = request.headers().iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        self.log.add(Event::Requested {
            to,
            tls,
            method: request.method().to_string(),
            host: host.clone(),
            path: request
                .uri()
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            headers: headers.collect(),
        });
        let path = match path.strip_prefix(PRIVATE) {
            Some(_) if header("authorization").is_none() => return who_is_it(),
            Some(rest) => format!("/{rest}"),
            None => path,
        };
        let name = host.split(':').next().unwrap_or_default();
        let root = self.www.join(name);
        if name.is_empty() || name.contains('/') || name.starts_with('.') || !root.is_dir() {
            let line = format!("{GREETING} {host} at {to}\n");
            return Response::new(Full::new(Bytes::from(line)));
        }
        match file(&root, &path) {
            Some((bytes, is_page)) => {
                let kind = if is_page {
                    "text/html"
                } else {
                    "application/octet-stream"
                };
                let mut response = Response::new(Full::new(Bytes::from(bytes)));
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                response
            }
            None => {
                let mut response = Response::new(Full::new(Bytes::from_static(b"no such file\n")));
                *response.status_mut() = hyper::StatusCode::NOT_FOUND;
                response
            }
        }
    }
}

fn who_is_it() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"who is it?\n")));
    *response.status_mut() = hyper::StatusCode::UNAUTHORIZED;
    let challenge = HeaderValue::from_static("Basic realm=\"laboratory\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

/// What stands there, and whether it is the page of a directory.
fn file(root: &Path, path: &str) -> Option<(Vec<u8>, bool)> {
    let relative = Path::new(path.trim_start_matches('/'));
    let is_plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let mut found = root.join(relative);
    let is_page = found.is_dir();
    if is_page {
        found.push("index.html");
    }
    is_plain.then(|| Some((std::fs::read(found).ok()?, is_page)))?
}
