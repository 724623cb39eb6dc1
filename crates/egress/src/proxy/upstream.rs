//! A connection to the server that requests go out on. That of an opened tunnel is kept from one request to the next, so that TLS
//! is set up once; the address stays the one that was judged when it was dialed, and each request is judged, recorded and
//! counted on its own.
//!
//! ```text
//! dialed ─► in use ─► kept ─► in use ─► …
//!              │        └── closed by the server, too old, its rule gone ─► the next request dials
//!              └── broken off, revoked, idle ─► gone
//! ```

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
    task::AbortHandle,
    time::{Instant, timeout},
};

use super::{
    record::Ending,
    requests::Wire,
    session::{Allowed, Pass},
    traffic::Traffic,
};

/// How long a connection without a request is kept: shorter than servers do (nginx 75 s, load balancers 60 s).
const KEPT: Duration = Duration::from_secs(15);
/// How long a kept connection may take to be ready: it is, or it is about to be closed.
const READY: Duration = Duration::from_millis(100);

/// Where the connection of one opened tunnel is kept. Clones are the same place.
#[derive(Clone, Default)]
pub(crate) struct Keeping(Arc<Mutex<Option<Line>>>);

/// A connection that takes requests.
pub(crate) struct Line {
    sender: SendRequest<Incoming>,
    driver: AbortHandle,
    counted: Counted,
    /// It was dialed by a rule that may lead to private addresses.
    pub(crate) was_private: bool,
    kept_at: Instant,
}

/// Whose bytes are counted on a connection right now.
#[derive(Clone)]
pub(crate) struct Counted(Arc<Mutex<Arc<Traffic>>>);

/// Why a request was not answered.
pub(crate) enum Unsent {
    /// Nothing of it was sent: it can go out on another connection.
    Whole(Box<Request<Incoming>>),
    /// The connection broke off.
    Broken,
    /// Its rule is gone, and on record.
    Revoked,
}

impl Keeping {
    /// The connection, if it can still be used.
    pub(crate) async fn take(&self) -> Option<Line> {
        let mut line = self.lock().take()?;
        let is_usable = line.kept_at.elapsed() < KEPT && !line.sender.is_closed();
        if !is_usable {
            return None;
        }
        let ready = timeout(READY, line.sender.ready()).await;
        matches!(ready, Ok(Ok(()))).then_some(line)
    }

    fn put(&self, mut line: Line) {
        line.kept_at = Instant::now();
        *self.lock() = Some(line);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    pub(crate) fn new(traffic: &Arc<Traffic>) -> Self {
        Counted(Arc::new(Mutex::new(Arc::clone(traffic))))
    }

    fn now(&self) -> Arc<Traffic> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Line {
    /// Speaks HTTP over a connection, until its rule is gone or nobody holds the line any more.
    pub(crate) async fn open(
        wire: Box<dyn Wire>,
        counted: Counted,
        pass: &Pass,
    ) -> Result<Self, hyper::Error> {
        let (sender, connection) = http1::handshake(TokioIo::new(wire)).await?;
        let mut allowed: Allowed = pass.allowed();
        let driver = tokio::spawn(async move {
            tokio::select! {
                // What is not allowed any more does not get out first.
                biased;
                () = allowed.gone() => {}
                _ = connection => {}
            }
        });
        Ok(Line {
            sender,
            driver: driver.abort_handle(),
            counted,
            was_private: pass.was_private(),
            kept_at: Instant::now(),
        })
    }

    /// Sends a request. What comes back keeps the line in `keeping` once all of it is read.
    pub(crate) async fn exchange(
        mut self,
        request: Request<Incoming>,
        mut pass: Pass,
        keeping: Option<Keeping>,
        idle_timeout: Duration,
    ) -> Result<Response<Whole>, (Unsent, Pass)> {
        let traffic = Arc::clone(pass.traffic());
        *self
            .counted
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Arc::clone(&traffic);
        let sent = tokio::select! {
            biased;
            () = pass.revoked() => {
                pass.finish(Ending::RuleGone);
                return Err((Unsent::Revoked, pass));
            }
            sent = self.sender.try_send_request(request) => sent,
            () = traffic.idle(idle_timeout) => {
                pass.finish(Ending::Idle);
                return Err((Unsent::Broken, pass));
            }
        };
        match sent {
            Ok(answer) => {
                let (over, is_over) = oneshot::channel();
                let driver = self.driver.clone();
                tokio::spawn(watch(pass, is_over, driver, idle_timeout));
                let (head, body) = answer.into_parts();
                let body = Whole::new(body, self, keeping, over);
                Ok(Response::from_parts(head, body))
            }
            Err(mut error) => match error.take_message() {
                Some(request) => Err((Unsent::Whole(Box::new(request)), pass)),
                None => {
                    pass.finish(Ending::Broken);
                    Err((Unsent::Broken, pass))
                }
            },
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Sees the end of one exchange, and puts it on record.
async fn watch(
    mut pass: Pass,
    is_over: oneshot::Receiver<bool>,
    driver: AbortHandle,
    idle_timeout: Duration,
) {
    let traffic = Arc::clone(pass.traffic());
    let ending = tokio::select! {
        biased;
        () = pass.revoked() => Ending::RuleGone,
        is_whole = is_over => match is_whole {
            Ok(true) => Ending::Complete,
            Ok(false) | Err(_) => Ending::Broken,
        },
        () = traffic.idle(idle_timeout) => Ending::Idle,
    };
    if ending != Ending::Complete {
        driver.abort();
    }
    pass.finish(ending);
}

/// The body of an answer, which holds its line until all of it is read.
pub(crate) struct Whole {
    body: Incoming,
    line: Option<Line>,
    keeping: Option<Keeping>,
    over: Option<oneshot::Sender<bool>>,
}

impl Whole {
    fn new(
        body: Incoming,
        line: Line,
        keeping: Option<Keeping>,
        over: oneshot::Sender<bool>,
    ) -> Self {
        let mut whole = Whole {
            body,
            line: Some(line),
            keeping,
            over: Some(over),
        };
        if whole.body.is_end_stream() {
            whole.end(true);
        }
        whole
    }

    /// The line goes back before anybody knows of the end: the next request finds it.
    fn end(&mut self, is_whole: bool) {
        let line = self.line.take();
        if let (true, Some(keeping), Some(line)) = (is_whole, &self.keeping, line) {
            keeping.put(line);
        }
        if let Some(over) = self.over.take() {
            // Who watches has seen another end.
            let _ = over.send(is_whole);
        }
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(_)) if self.body.is_end_stream() => self.end(true),
            Some(Ok(_)) => {}
            Some(Err(_)) => self.end(false),
            None => self.end(true),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The connection to the server, its bytes counted.
pub(crate) struct Counting {
    pub(crate) stream: TcpStream,
    pub(crate) counted: Counted,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let count = buffer.filled().len() - before;
        self.counted.now().counter_down().add(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.counted.now().counter_up().add(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
