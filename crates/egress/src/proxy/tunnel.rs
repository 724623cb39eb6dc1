//! Bytes in both directions, as they come, once what the client says first has been judged.
//!
//! A tunnel that waits holds no buffer: each thread has one into which all its tunnels read, and what the other side does not
//! take at once is kept. How much is read at a time grows while the other side takes it.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};

use super::{
    hello::{Inspector, Verdict},
    limits::ProxyLimits,
    record::Ending,
    session::Pass,
    traffic::{Counter, Traffic},
};
use crate::destination::Denial;

/// Bytes read at a time at first, and of a tunnel whose other side is slow.
const MIN_PIECE_BYTES: usize = 16 * 1024;
/// The most. Larger ones were not faster (measured on loopback).
const MAX_PIECE_BYTES: usize = 256 * 1024;

thread_local! {
    /// Taken while a tunnel is polled, and put back.
    static PIECE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Bytes that all tunnels of a server keep because somebody does not take them.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    bytes: Arc<AtomicUsize>,
    limit: usize,
}

impl Held {
    pub(crate) fn new(limit: usize) -> Self {
        Held {
            bytes: Arc::new(AtomicUsize::new(0)),
            limit,
        }
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Relaxed) >= self.limit
    }
}

/// Bytes that wait for the side that is to take them.
struct Waiting {
    bytes: Vec<u8>,
    passed: usize,
    held: Held,
}

impl Waiting {
    fn new(held: Held) -> Self {
        Waiting {
            bytes: Vec::new(),
            passed: 0,
            held,
        }
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.passed..]
    }

    fn keep(&mut self, bytes: Vec<u8>) {
        self.held.bytes.fetch_add(bytes.len(), Relaxed);
        self.forget();
        self.bytes = bytes;
    }

    fn pass(&mut self, count: usize) {
        self.passed += count;
        if self.rest().is_empty() {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.held.bytes.fetch_sub(self.bytes.len(), Relaxed);
        self.bytes = Vec::new();
        self.passed = 0;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.forget();
    }
}

struct Direction {
    waiting: Waiting,
    piece_bytes: usize,
    counter: Counter,
    is_unflushed: bool,
    has_ended: bool,
    is_shut: bool,
}

impl Direction {
    fn new(counter: Counter, held: Held) -> Self {
        Direction {
            waiting: Waiting::new(held),
            piece_bytes: MIN_PIECE_BYTES,
            counter,
            is_unflushed: false,
            has_ended: false,
            is_shut: false,
        }
    }

    /// Passes what there is. Ready once the reader has ended and the writer was told.
    fn poll<R, W>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        piece: &mut [u8],
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while !self.is_shut {
            ready!(self.poll_waiting(context, writer))?;
            if self.has_ended {
                ready!(Pin::new(&mut *writer).poll_shutdown(context))?;
                self.is_shut = true;
                break;
            }
            let size = match self.waiting.held.is_full() {
                true => MIN_PIECE_BYTES,
                false => self.piece_bytes,
            };
            let mut buffer = ReadBuf::new(&mut piece[..size]);
            match Pin::new(&mut *reader).poll_read(context, &mut buffer)? {
                Poll::Ready(()) if buffer.filled().is_empty() => self.has_ended = true,
                Poll::Ready(()) => {
                    let bytes = buffer.filled();
                    ready!(self.poll_pass(context, writer, bytes))?;
                    if bytes.len() == size {
                        self.piece_bytes = (size * 2).min(MAX_PIECE_BYTES);
                    }
                }
                Poll::Pending => {
                    if self.is_unflushed {
                        ready!(Pin::new(&mut *writer).poll_flush(context))?;
                        self.is_unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_waiting<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<io::Result<()>> {
        while !self.waiting.rest().is_empty() {
            let rest = self.waiting.rest();
            let count = ready!(Pin::new(&mut *writer).poll_write(context, rest))?;
            self.count(count)?;
            self.waiting.pass(count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_pass<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        writer: &mut W,
        mut bytes: &[u8],
    ) -> Poll<io::Result<()>> {
        while !bytes.is_empty() {
            match Pin::new(&mut *writer).poll_write(context, bytes)? {
                Poll::Ready(count) => {
                    self.count(count)?;
                    bytes = &bytes[count..];
                }
                Poll::Pending => {
                    self.waiting.keep(bytes.to_vec());
                    self.piece_bytes = (self.piece_bytes / 2).max(MIN_PIECE_BYTES);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn count(&mut self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.counter.add(count);
        self.is_unflushed = true;
        Ok(())
    }
}

/// A tunnel between a client and a server.
pub(crate) struct Tunnel<C, U> {
    client: C,
    server: U,
    up: Direction,
    down: Direction,
    is_downs_turn: bool,
    /// Until the client's first words are judged.
    inspector: Option<Inspector>,
    /// Nothing of the server passes before that.
    server_waits: bool,
    traffic: Arc<Traffic>,
    opened: Instant,
    /// When the client began to say something that is not yet judged.
    began: Option<Instant>,
}

enum Outcome {
    Over,
    Broken,
    Refused(Denial),
}

impl<C, U> Tunnel<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    pub(crate) fn new(
        client: C,
        server: U,
        traffic: &Arc<Traffic>,
        held: &Held,
        inspector: Inspector,
    ) -> Self {
        Tunnel {
            client,
            server,
            up: Direction::new(traffic.counter_up(), held.clone()),
            down: Direction::new(traffic.counter_down(), held.clone()),
            is_downs_turn: false,
            server_waits: inspector.must_be_tls(),
            inspector: Some(inspector),
            traffic: Arc::clone(traffic),
            opened: Instant::now(),
            began: None,
        }
    }

    /// Runs it to its end, and gives the client back, to whom a refusal is to be told. `early` is what was already read of the
    /// client.
    pub(crate) async fn run(
        mut self,
        early: &[u8],
        pass: &mut Pass,
        limits: &ProxyLimits,
    ) -> (C, Ending, Option<Denial>) {
        let (ending, refused) = match self.hear(early) {
            Some(denial) => (Ending::Refused, Some(denial)),
            None => self.pass_all(pass, limits).await,
        };
        (self.client, ending, refused)
    }

    async fn pass_all(
        &mut self,
        pass: &mut Pass,
        limits: &ProxyLimits,
    ) -> (Ending, Option<Denial>) {
        let revoked = pass.revoked();
        tokio::pin!(revoked);
        let alarm = sleep_until(self.next_look(limits));
        tokio::pin!(alarm);
        loop {
            tokio::select! {
                outcome = poll_fn(|context| self.poll(context)) => return match outcome {
                    Outcome::Over => (Ending::Complete, None),
                    Outcome::Broken => (Ending::Broken, None),
                    Outcome::Refused(denial) => (Ending::Refused, Some(denial)),
                },
                () = &mut revoked => return (Ending::RuleGone, None),
                () = &mut alarm => match self.overdue(limits) {
                    Some(late) => return late,
                    None => alarm.as_mut().reset(self.next_look(limits)),
                }
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut piece = PIECE.take();
        if piece.len() < MAX_PIECE_BYTES {
            piece = vec![0; MAX_PIECE_BYTES];
        }
        let polled = self.poll_with(context, &mut piece);
        PIECE.set(piece);
        polled
    }

    fn poll_with(&mut self, context: &mut Context<'_>, piece: &mut [u8]) -> Poll<Outcome> {
        if self.inspector.is_some() {
            match self.poll_first_words(context, piece) {
                Poll::Ready(None) => {}
                Poll::Ready(Some(outcome)) => return Poll::Ready(outcome),
                Poll::Pending if self.server_waits => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        // In turn: one that always has something would use up what the runtime lets a task do at a time.
        self.is_downs_turn = !self.is_downs_turn;
        let (up, down) = if self.is_downs_turn {
            let down = self.poll_down(context, piece);
            (self.poll_up(context, piece), down)
        } else {
            let up = self.poll_up(context, piece);
            (up, self.poll_down(context, piece))
        };
        match (up, down) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(Outcome::Broken),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Outcome::Over),
            // The server has hung up before the client said anything: there is nobody to say it to.
            (_, Poll::Ready(Ok(()))) if self.inspector.is_some() => Poll::Ready(Outcome::Over),
            _ => Poll::Pending,
        }
    }

    fn poll_up(&mut self, context: &mut Context<'_>, piece: &mut [u8]) -> Poll<io::Result<()>> {
        if self.inspector.is_some() {
            return Poll::Pending;
        }
        self.up
            .poll(context, &mut self.client, &mut self.server, piece)
    }

    fn poll_down(&mut self, context: &mut Context<'_>, piece: &mut [u8]) -> Poll<io::Result<()>> {
        self.down
            .poll(context, &mut self.server, &mut self.client, piece)
    }

    /// Ready with nothing once the client may go on.
    fn poll_first_words(
        &mut self,
        context: &mut Context<'_>,
        piece: &mut [u8],
    ) -> Poll<Option<Outcome>> {
        while let Some(inspector) = &mut self.inspector {
            let mut buffer = ReadBuf::new(&mut piece[..MIN_PIECE_BYTES]);
            if ready!(Pin::new(&mut self.client).poll_read(context, &mut buffer)).is_err() {
                return Poll::Ready(Some(Outcome::Broken));
            }
            let bytes = buffer.filled();
            if bytes.is_empty() {
                if inspector.has_begun() {
                    return Poll::Ready(Some(Outcome::Refused(inspector.unfinished())));
                }
                self.let_pass();
                self.up.has_ended = true;
                break;
            }
            if let Some(denial) = self.hear(bytes) {
                return Poll::Ready(Some(Outcome::Refused(denial)));
            }
        }
        Poll::Ready(None)
    }

    /// Takes first words of the client. Gives the refusal, where they are refused.
    fn hear(&mut self, bytes: &[u8]) -> Option<Denial> {
        let inspector = self.inspector.as_mut().filter(|_| !bytes.is_empty())?;
        match inspector.look(bytes) {
            Verdict::More => self.began = self.began.or_else(|| Some(Instant::now())),
            Verdict::Pass => self.let_pass(),
            Verdict::Refuse(denial) => return Some(denial),
        }
        None
    }

    fn let_pass(&mut self) {
        if let Some(inspector) = self.inspector.take() {
            self.up.waiting.keep(inspector.into_seen());
        }
        self.began = None;
    }

    /// When it is too late, as things stand.
    fn deadline(&self, limits: &ProxyLimits) -> Instant {
        let idle = match self.up.is_shut || self.down.is_shut {
            true => self.traffic.last() + limits.linger_timeout,
            false => self.traffic.last() + limits.idle_timeout,
        };
        let hello = match &self.inspector {
            Some(inspector) if inspector.must_be_tls() => Some(self.opened),
            Some(_) => self.began,
            None => None,
        };
        hello.map_or(idle, |since| idle.min(since + limits.hello_timeout))
    }

    /// What makes a deadline come nearer is seen at the next look.
    fn next_look(&self, limits: &ProxyLimits) -> Instant {
        let latest = Instant::now() + limits.hello_timeout.max(Duration::from_millis(1));
        self.deadline(limits).min(latest)
    }

    fn overdue(&self, limits: &ProxyLimits) -> Option<(Ending, Option<Denial>)> {
        if Instant::now() < self.deadline(limits) {
            return None;
        }
        let unfinished = self
            .inspector
            .as_ref()
            .filter(|inspector| inspector.has_begun())
            .map(Inspector::unfinished);
        Some(match unfinished {
            Some(denial) => (Ending::Refused, Some(denial)),
            None => (Ending::Idle, None),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
