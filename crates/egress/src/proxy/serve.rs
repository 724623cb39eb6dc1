//! The road of one connection: the order of checks, once.
//!
//! room → words (timed, bounded, strict) → name → rule → room to reach out → record and way → the client's first words → bytes.
//!
//! Whatever the way in is, the middle of it is [`SessionEgress::admit`], and each refusal is recorded before it is told.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{
    answer,
    gate::Gate,
    head::{self, Form, HeadScan, Speaks},
    hello::Inspector,
    limits::ProxyLimits,
    names, opened,
    record::{Ending, Way},
    requests::{self, Road, Wire},
    session::{Admitted, Ask, Asked, SessionEgress, TLS_PORT},
    socks::{self, Reply, SocksError},
    target,
    tunnel::{Held, Tunnel},
};
use crate::destination::{Denial, HostName};

const CONNECTED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
/// Bytes of a head that are read at a time. Most heads fit.
const HEAD_PIECE_BYTES: usize = 1024;

/// Ports of a sandbox's loopback interface that lead here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ProxyPort {
    /// HTTP: CONNECT, and requests with `http://` as their target.
    Http = 3128,
    /// SOCKS5.
    Socks = 1080,
    /// DNS, each message behind its length (RFC 1035, section 4.2.2), those that came by UDP as well.
    Names = 53,
}

impl ProxyPort {
    /// All of them.
    pub const ALL: [ProxyPort; 3] = [ProxyPort::Http, ProxyPort::Socks, ProxyPort::Names];

    /// Its number.
    pub const fn number(self) -> u16 {
        self as u16
    }
}

/// The proxy of a server. Cheap to clone; all clones share what is limited for all sessions together.
#[derive(Debug, Clone)]
pub struct Proxy {
    limits: ProxyLimits,
    held: Held,
}

impl Proxy {
    /// A proxy within these limits.
    pub fn new(limits: ProxyLimits) -> Self {
        Proxy {
            held: Held::new(limits.max_held_bytes),
            limits,
        }
    }

    /// Its limits, for [`SessionEgress::new`].
    pub fn limits(&self) -> &ProxyLimits {
        &self.limits
    }

    /// Serves one connection of a session until it ends. Dropping the future ends it.
    pub async fn serve<S>(&self, mut stream: S, port: ProxyPort, session: Arc<SessionEgress>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(_place) = session.connection_place() else {
            if port == ProxyPort::Http {
                let denial = Denial::TooMany {
                    what: "connections to its proxy",
                    limit: self.limits.max_connections as u64,
                };
                let told = answer::bytes(&denial);
                // Not waited for: who has too many gets no more of our time.
                let _ = timeout(Duration::ZERO, stream.write_all(&told)).await;
            }
            return;
        };
        match port {
            ProxyPort::Http => Box::pin(self.serve_http(stream, session)).await,
            ProxyPort::Socks => Box::pin(self.serve_socks(stream, session)).await,
            ProxyPort::Names => Box::pin(self.serve_names(stream, session)).await,
        }
    }

    async fn serve_http<S>(&self, mut client: S, session: Arc<SessionEgress>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limit = self.limits.max_head_bytes;
        let mut early = BytesMut::new();
        let reading = first_head(&mut client, &mut early, limit);
        let first = match timeout(self.limits.head_timeout, reading).await {
            Ok(Some(first)) => first.and_then(|end| head::parse(&early[..end], Speaks::ToProxy)),
            // Gone, or too slow to be told anything.
            Ok(None) | Err(_) => return,
        };
        match first.map(|head| (head.length, head.host, head.form)) {
            Ok((_, _, Form::Absolute(_))) => {
                let gate = Gate::new(client, early, Speaks::ToProxy, &self.limits);
                let road = Road::in_clear(session, self.limits);
                Box::pin(requests::serve(gate, road)).await;
            }
            Ok((length, host, Form::Connect(authority))) => {
                let rest = early.split_off(length);
                drop(early);
                self.connect(client, &authority, host.as_deref(), rest, session)
                    .await;
            }
            Ok((_, _, Form::Origin(_))) => {}
            Err(denial) => {
                let asked = Asked::Written(Way::Http, b"", None);
                session.refused(asked, &denial).await;
                answer::last_words(&mut client, &answer::bytes(&denial)).await;
            }
        }
    }

    async fn connect<S>(
        &self,
        mut client: S,
        authority: &[u8],
        host: Option<&[u8]>,
        early: BytesMut,
        session: Arc<SessionEgress>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let meant = target::parse(authority, None).and_then(|meant| {
            // Some clients leave the port out of the header.
            host.map_or(Ok(()), |host| target::same(&meant, host, meant.port))?;
            Ok(meant)
        });
        let ask = meant.map(|meant| ask(Way::Connect, meant.host, meant.port));
        if let Some(ask) = opens(&session, &ask) {
            return self.open(client, CONNECTED, early, ask, session).await;
        }
        let written = target::written(authority, None);
        match decide(&session, Way::Connect, written, ask).await {
            Ok(admitted) => {
                self.tunnel(client, CONNECTED, early, admitted, &session)
                    .await;
            }
            Err(denial) => answer::last_words(&mut client, &answer::bytes(&denial)).await,
        }
    }

    async fn serve_socks<S>(&self, mut client: S, session: Arc<SessionEgress>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let request = match timeout(self.limits.head_timeout, socks::accept(&mut client)).await {
            Ok(Ok(request)) => request,
            Ok(Err(SocksError::Refused(denial))) => {
                session
                    .refused(Asked::Written(Way::Socks, b"", None), &denial)
                    .await;
                let reply = socks::reply(answer::socks_reply(&denial));
                return answer::last_words(&mut client, &reply).await;
            }
            Ok(Err(SocksError::Gone)) | Err(_) => return,
        };
        let host = request.destination.written();
        let written = (host.as_slice(), Some(request.port));
        let named = request
            .destination
            .name(|address| session.name_of(address))
            .map(|host| ask(Way::Socks, host, request.port));
        if let Some(ask) = opens(&session, &named) {
            let reply = socks::reply(Reply::Succeeded);
            let early = BytesMut::new();
            return self.open(client, &reply, early, ask, session).await;
        }
        match decide(&session, Way::Socks, written, named).await {
            Ok(admitted) => {
                let reply = socks::reply(Reply::Succeeded);
                self.tunnel(client, &reply, BytesMut::new(), admitted, &session)
                    .await;
            }
            Err(denial) => {
                let reply = socks::reply(answer::socks_reply(&denial));
                answer::last_words(&mut client, &reply).await;
            }
        }
    }

    /// Tells the client that it is connected, and serves what it asks of the host: there is no connection before that.
    async fn open<S>(
        &self,
        mut client: S,
        connected: &[u8],
        early: BytesMut,
        ask: Ask,
        session: Arc<SessionEgress>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if self.tell(&mut client, connected).await {
            let client: Box<dyn Wire> = Box::new(client);
            // Named, since the compiler does not see by itself that it is `Send`.
            let serving: Pin<Box<dyn Future<Output = ()> + Send>> =
                Box::pin(opened::serve(client, early, ask, session, self.limits));
            serving.await;
        }
    }

    /// Whether a client took what it is told first.
    async fn tell<S>(&self, client: &mut S, words: &[u8]) -> bool
    where
        S: AsyncWrite + Unpin,
    {
        let told = async {
            client.write_all(words).await?;
            client.flush().await
        };
        matches!(timeout(self.limits.head_timeout, told).await, Ok(Ok(())))
    }

    /// Tells the client that it is connected, and passes bytes until the end.
    async fn tunnel<S>(
        &self,
        mut client: S,
        connected: &[u8],
        early: BytesMut,
        admitted: Admitted,
        session: &Arc<SessionEgress>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Admitted { upstream, mut pass } = admitted;
        if !self.tell(&mut client, connected).await {
            return pass.finish(Ending::Unused);
        }
        let ask = pass.ask().clone();
        let inspector = Inspector::new(ask.host.clone(), ask.port, ask.port == TLS_PORT);
        let tunnel = Tunnel::new(client, upstream, pass.traffic(), &self.held, inspector);
        let (mut client, ending, refused) = tunnel.run(&early, &mut pass, &self.limits).await;
        pass.finish(ending);
        drop(pass);
        if let Some(denial) = refused {
            session.refused(Asked::Whole(&ask), &denial).await;
            let words = match matches!(denial, Denial::NotTls { .. }) {
                true => answer::bytes(&denial),
                false => answer::TLS_ALERT.to_vec(),
            };
            answer::last_words(&mut client, &words).await;
        }
    }

    async fn serve_names<S>(&self, mut client: S, session: Arc<SessionEgress>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        loop {
            let reading = timeout(self.limits.head_timeout, question(&mut client)).await;
            let Ok(Some(message)) = reading else {
                return;
            };
            let Some(answered) = name_answer(&message, &session).await else {
                return;
            };
            let told = timeout(
                self.limits.head_timeout,
                put_message(&mut client, &answered),
            );
            if !matches!(told.await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

fn ask(way: Way, host: HostName, port: u16) -> Ask {
    Ask {
        way,
        host,
        port,
        http: None,
        credential: None,
    }
}

/// What is asked for, where its TLS is opened.
fn opens(session: &SessionEgress, ask: &Result<Ask, Denial>) -> Option<Ask> {
    let ask = ask.as_ref().ok()?;
    session.is_opened(ask).then(|| ask.clone())
}

/// Admits what was understood, and records what is refused.
async fn decide(
    session: &Arc<SessionEgress>,
    way: Way,
    (host, port): (&[u8], Option<u16>),
    ask: Result<Ask, Denial>,
) -> Result<Admitted, Denial> {
    let ask = match ask {
        Ok(ask) => ask,
        Err(denial) => {
            let asked = Asked::Written(way, host, port);
            session.refused(asked, &denial).await;
            return Err(denial);
        }
    };
    match session.admit(ask.clone()).await {
        Ok(admitted) => Ok(admitted),
        Err(denial) => {
            session.refused(Asked::Whole(&ask), &denial).await;
            Err(denial)
        }
    }
}

/// Reads until the first head is whole. Nothing when the client goes away before that.
async fn first_head<S: AsyncRead + Unpin>(
    client: &mut S,
    bytes: &mut BytesMut,
    limit: usize,
) -> Option<Result<usize, Denial>> {
    let mut scan = HeadScan::default();
    loop {
        match scan.end(bytes, limit) {
            Ok(Some(end)) => return Some(Ok(end)),
            Ok(None) => {}
            Err(denial) => return Some(Err(denial)),
        }
        bytes.reserve(HEAD_PIECE_BYTES);
        if client.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A message of DNS behind its length; nothing at the end, or when it is longer than a question is.
async fn question<S: AsyncRead + Unpin>(client: &mut S) -> Option<Vec<u8>> {
    let length = usize::from(client.read_u16().await.ok()?);
    if length > names::MAX_QUESTION_BYTES {
        return None;
    }
    let mut message = vec![0; length];
    client.read_exact(&mut message).await.ok()?;
    Some(message)
}

async fn name_answer(message: &[u8], session: &SessionEgress) -> Option<Vec<u8>> {
    if let Err(denial) = session.may_ask_name() {
        if session.is_news("") {
            session
                .refused(Asked::Written(Way::Names, b"", None), &denial)
                .await;
        }
        return names::refuse(message);
    }
    let rules = session.rules();
    let judge = |name: &HostName| match rules.names(name) {
        true => Ok(()),
        false if rules.is_empty() => Err(Denial::NetworkOff),
        false => Err(Denial::HostNotAllowed {
            host: name.clone(),
            port: 0,
            person: None,
        }),
    };
    let answered = names::answer(message, judge, |name| session.address_of(name))?;
    if let Some((written, denial)) = answered.refused
        && session.is_news(&written)
    {
        let asked = Asked::Written(Way::Names, written.as_bytes(), None);
        session.refused(asked, &denial).await;
    }
    Some(answered.bytes)
}

async fn put_message<S: AsyncWrite + Unpin>(client: &mut S, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    let framed = [&length.to_be_bytes(), message].concat();
    client.write_all(&framed).await?;
    client.flush().await
}
