//! Between a client and the reader of HTTP behind: each head is read strictly before the reader sees a byte of it, and bodies
//! pass in pieces that never reach into the next head. So there is one verdict for each request, whatever comes behind it.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::{
    head::{self, Framing, Head, HeadScan, Speaks},
    limits::ProxyLimits,
};
use crate::destination::Denial;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 16 * 1024;
/// What the reader behind gets in place of a head that is refused; it answers that one with the verdict.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";
/// A chunk's size and the end of its line. Sixteen digits are all that a length can have.
const MAX_SIZE_LINE_BYTES: usize = 18;
/// Trailers of a body in chunks. They are not passed on.
const MAX_TRAILER_BYTES: usize = 8 * 1024;

/// What was found of each head, in their order, and how many of the requests are not answered yet.
#[derive(Clone)]
pub(crate) struct Verdicts(Arc<Mutex<Requests>>);

struct Requests {
    verdicts: VecDeque<Result<Head, Denial>>,
    under_way: usize,
    /// When the last one was answered.
    idle_since: Instant,
    /// Who waits for that.
    waker: Option<Waker>,
}

/// A request that is not answered yet: it lives as long as the body of its answer.
pub(crate) struct UnderWay(Verdicts);

impl Verdicts {
    fn new() -> Self {
        Verdicts(Arc::new(Mutex::new(Requests {
            verdicts: VecDeque::new(),
            under_way: 0,
            idle_since: Instant::now(),
            waker: None,
        })))
    }

    /// The verdict of the next request that the reader behind has read.
    pub(crate) fn next(&self) -> (Result<Head, Denial>, UnderWay) {
        let mut requests = self.lock();
        requests.under_way += 1;
        let verdict = requests.verdicts.pop_front();
        drop(requests);
        (
            verdict.unwrap_or(Err(Denial::Internal("a request came without its verdict"))),
            UnderWay(self.clone()),
        )
    }

    fn push(&self, verdict: Result<Head, Denial>) {
        self.lock().verdicts.push_back(verdict);
    }

    /// Since when nothing is under way; nothing while something is.
    fn idle_since(&self) -> Option<Instant> {
        let requests = self.lock();
        (requests.under_way == 0).then_some(requests.idle_since)
    }

    /// Ready once nothing is under way.
    fn poll_answered(&self, context: &Context<'_>) -> Poll<()> {
        let mut requests = self.lock();
        if requests.under_way == 0 {
            return Poll::Ready(());
        }
        requests.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut requests = self.0.lock();
        requests.under_way -= 1;
        requests.idle_since = Instant::now();
        if requests.under_way == 0
            && let Some(waker) = requests.waker.take()
        {
            waker.wake();
        }
    }
}

/// A client's connection, whose bytes pass as their heads allow.
pub(crate) struct Gate<S> {
    stream: S,
    input: BytesMut,
    /// Bytes at the front of `input` that may pass.
    released: usize,
    expects: Expects,
    verdicts: Verdicts,
    speaks: Speaks,
    max_head_bytes: usize,
    head_timeout: Duration,
    deadline: Pin<Box<Sleep>>,
}

enum Expects {
    Head(HeadScan),
    Length(u64),
    Chunks(Chunks),
    /// Something was refused: nothing passes any more.
    Nothing,
}

impl<S> Gate<S> {
    /// Begins with what was already read of the client.
    pub(crate) fn new(stream: S, early: BytesMut, speaks: Speaks, limits: &ProxyLimits) -> Self {
        let head_timeout = limits.head_timeout;
        Gate {
            stream,
            input: early,
            released: 0,
            expects: Expects::Head(HeadScan::default()),
            verdicts: Verdicts::new(),
            speaks,
            max_head_bytes: limits.max_head_bytes,
            head_timeout,
            deadline: Box::pin(sleep(head_timeout)),
        }
    }

    pub(crate) fn verdicts(&self) -> Verdicts {
        self.verdicts.clone()
    }

    /// Looks at what is there. Whether something may pass now.
    fn advance(&mut self) -> io::Result<bool> {
        loop {
            match &mut self.expects {
                Expects::Head(scan) => match scan.end(&self.input, self.max_head_bytes) {
                    Ok(None) => return Ok(false),
                    Ok(Some(end)) => match head::parse(&self.input[..end], self.speaks) {
                        Ok(head) => {
                            self.expects = match head.body {
                                Framing::Length(length) => Expects::Length(length),
                                Framing::Chunked => Expects::Chunks(Chunks::default()),
                            };
                            self.released = end;
                            self.verdicts.push(Ok(head));
                        }
                        Err(denial) => self.refuse(denial),
                    },
                    Err(denial) => self.refuse(denial),
                },
                Expects::Length(0) => self.expect_head(),
                Expects::Length(left) => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX);
                    self.released = length.min(self.input.len());
                    *left -= self.released as u64;
                }
                Expects::Chunks(chunks) if chunks.is_over() => self.expect_head(),
                Expects::Chunks(chunks) => {
                    self.released = chunks.take(&self.input).map_err(io::Error::other)?;
                }
                Expects::Nothing => return Ok(false),
            }
            if self.released > 0 {
                return Ok(true);
            }
            if self.input.is_empty() {
                return Ok(false);
            }
        }
    }

    fn refuse(&mut self, denial: Denial) {
        self.verdicts.push(Err(denial));
        self.input = BytesMut::from(STAND_IN);
        self.released = self.input.len();
        self.expects = Expects::Nothing;
    }

    fn expect_head(&mut self) {
        self.expects = Expects::Head(HeadScan::default());
    }

    /// Ready once a head has been waited for too long, which does not count while an answer is under way.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.deadline.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let until = self.verdicts.idle_since().unwrap_or(now) + self.head_timeout;
            if until <= now {
                return Poll::Ready(());
            }
            self.deadline.as_mut().reset(until);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> Gate<S> {
    /// Reads one more piece. Whether there was one.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.input.reserve(PIECE_BYTES);
        let before = self.input.len();
        self.input.resize(before + PIECE_BYTES, 0);
        let mut piece = ReadBuf::new(&mut self.input[before..]);
        let polled = Pin::new(&mut self.stream).poll_read(context, &mut piece);
        let count = piece.filled().len();
        self.input.truncate(before + count);
        ready!(polled)?;
        Poll::Ready(Ok(count > 0))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.released > 0 || self.advance()? {
                let count = self.released.min(buffer.remaining());
                buffer.put_slice(&self.input[..count]);
                self.input.advance(count);
                self.released -= count;
                return Poll::Ready(Ok(()));
            }
            if matches!(self.expects, Expects::Nothing) {
                // The end, told in the middle of an answer, would take the rest of it away.
                return self.verdicts.poll_answered(context).map(Ok);
            }
            match self.poll_more(context)? {
                Poll::Ready(true) => {}
                // Half a head is no request.
                Poll::Ready(false) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    let waits_for_head = matches!(self.expects, Expects::Head(_));
                    if waits_for_head && self.poll_late(context).is_ready() {
                        return Poll::Ready(Ok(()));
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Where a body in chunks is (RFC 9112, section 7.1), read strictly: no extensions, no bare line ends.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    part: Part,
    /// Of the line that is being read.
    line: Vec<u8>,
    trailer_bytes: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Size,
    Data(u64),
    /// The line end behind a chunk.
    DataEnd,
    Trailer,
    Over,
}

impl Chunks {
    fn is_over(&self) -> bool {
        self.part == Part::Over
    }

    /// How many of these bytes belong to the body.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_over() {
            if let Part::Data(left) = &mut self.part {
                let length = usize::try_from(*left).unwrap_or(usize::MAX);
                let length = length.min(bytes.len() - taken);
                *left -= length as u64;
                taken += length;
                if *left == 0 {
                    self.part = Part::DataEnd;
                }
                continue;
            }
            self.line.push(bytes[taken]);
            taken += 1;
            self.after_byte()?;
        }
        Ok(taken)
    }

    fn after_byte(&mut self) -> Result<(), &'static str> {
        let limit = match self.part {
            Part::Size => MAX_SIZE_LINE_BYTES,
            Part::DataEnd => 2,
            Part::Trailer => MAX_TRAILER_BYTES - self.trailer_bytes,
            Part::Data(_) | Part::Over => 0,
        };
        let Some(line) = self.line.strip_suffix(b"\n") else {
            let goes_on = self.line.len() < limit;
            return goes_on
                .then_some(())
                .ok_or("a line among the chunks is too long");
        };
        let line = line
            .strip_suffix(b"\r")
            .ok_or("a line among the chunks ends in a bare LF")?;
        if line.contains(&b'\r') {
            return Err("a CR stands within a line among the chunks");
        }
        self.part = match self.part {
            Part::Size => match size(line)? {
                0 => Part::Trailer,
                length => Part::Data(length),
            },
            Part::DataEnd if line.is_empty() => Part::Size,
            Part::DataEnd | Part::Data(_) => return Err("a chunk is longer than its size says"),
            Part::Trailer if !line.is_empty() => Part::Trailer,
            Part::Trailer | Part::Over => Part::Over,
        };
        self.trailer_bytes += self.line.len();
        if self.part != Part::Trailer {
            self.trailer_bytes = 0;
        }
        self.line.clear();
        Ok(())
    }
}

fn size(line: &[u8]) -> Result<u64, &'static str> {
    let plain = !line.is_empty() && line.iter().all(u8::is_ascii_hexdigit);
    std::str::from_utf8(line)
        .ok()
        .filter(|_| plain)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or("the size of a chunk is no number")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
