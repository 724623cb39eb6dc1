//! An answer on its way back: passed on piece by piece as it comes, counted, watched, and cut where a cap is passed.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{
    exchange::{Ending, Exchange},
    refusal::first_party_error,
    usage::{Scanner, Tail},
};

/// An answer that could not be passed on to its end; the connection is cut, so that the client does not take it for whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the provider's answer broke off")]
    Upstream(#[source] hyper::Error),
    #[error("the relay ended the answer: {0}")]
    Cut(String),
}

/// The body of an answer.
pub(crate) struct Metered {
    inner: Incoming,
    scanner: Scanner,
    exchange: Exchange,
    stall: Pin<Box<Sleep>>,
    stall_timeout: Duration,
    /// The clock of the stall runs: the provider was asked for more and has not answered.
    waiting: bool,
    state: State,
}

enum State {
    Open,
    /// The relay's own last word is next.
    Ending(Tail, &'static str, String),
    Ended,
}

impl Metered {
    pub(crate) fn new(
        inner: Incoming,
        scanner: Scanner,
        exchange: Exchange,
        stall_timeout: Duration,
    ) -> Self {
        let mut metered = Metered {
            inner,
            scanner,
            exchange,
            stall: Box::pin(tokio::time::sleep(stall_timeout)),
            stall_timeout,
            waiting: false,
            state: State::Open,
        };
        if metered.inner.is_end_stream() {
            metered.completed();
        }
        metered
    }

    fn completed(&mut self) {
        self.scanner.finish();
        self.exchange.observe(self.scanner.seen());
        self.ended(Ending::Complete);
    }

    fn poll_open(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.waiting = false;
                    // Trailers are of the connection to the provider.
                    if let Ok(data) = frame.into_data() {
                        self.take(&data);
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.ended(Ending::UpstreamBroken);
                    return Poll::Ready(Some(Err(Broken::Upstream(error))));
                }
                Poll::Ready(None) => {
                    self.completed();
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    ready!(self.poll_stall(context));
                    let seconds = self.stall_timeout.as_secs_f64();
                    self.end(
                        Ending::Stalled,
                        "response_stalled",
                        "api_error",
                        format!(
                            "the provider sent nothing for {seconds} s; the relay ended the answer"
                        ),
                    );
                    return self.poll_ending();
                }
            }
        }
    }

    /// Ready once nothing has come for the whole timeout since the first time that something was wanted.
    fn poll_stall(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.waiting {
            self.waiting = true;
            self.stall
                .as_mut()
                .reset(Instant::now() + self.stall_timeout);
        }
        self.stall.as_mut().poll(context)
    }

    fn take(&mut self, data: &Bytes) {
        self.scanner.push(data);
        self.exchange.passed_on(data.len());
        // An answer of a certain length is not asked for more after its last byte.
        if self.inner.is_end_stream() {
            return self.completed();
        }
        let seen = self.scanner.seen();
        // An answer that has said its last number is not shorter for being cut.
        if let Some(denial) = self.exchange.observe(seen)
            && !seen.output_known
        {
            self.exchange.stopped_by(&denial);
            self.end(
                Ending::CapReached,
                denial.rule(),
                "rate_limit_error",
                denial.sentence(),
            );
        }
    }

    fn end(&mut self, ending: Ending, rule: &'static str, kind: &'static str, why: String) {
        self.exchange.record.ending = ending;
        self.exchange.record.denied = Some(rule);
        self.state = State::Ending(self.scanner.tail(), kind, why);
    }

    fn poll_ending(&mut self) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Ending(Tail::Event, kind, why) => {
                let error = first_party_error(kind, &why);
                // The empty line ends what the provider left unended.
                let event = format!("\n\nevent: error\ndata: {error}\n\n");
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(event)))))
            }
            State::Ending(Tail::Frame, _, why) => Poll::Ready(Some(
                exception(&why).map(Frame::data).ok_or(Broken::Cut(why)),
            )),
            State::Ending(Tail::Abort, _, why) => Poll::Ready(Some(Err(Broken::Cut(why)))),
            State::Open | State::Ended => Poll::Ready(None),
        }
    }

    fn ended(&mut self, ending: Ending) {
        self.exchange.record.ending = ending;
        self.state = State::Ended;
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.state {
            State::Open => self.poll_open(context),
            State::Ending(..) => self.poll_ending(),
            State::Ended => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        if self.scanner.is_stream() {
            SizeHint::default()
        } else {
            self.inner.size_hint()
        }
    }
}

/// A frame that tells a client of Bedrock of an error in mid stream.
fn exception(why: &str) -> Option<Bytes> {
    let text = |value: &'static str| HeaderValue::String(value.into());
    let payload = serde_json::json!({ "message": why }).to_string();
    let message = Message::new(payload.into_bytes())
        .add_header(Header::new(":message-type", text("exception")))
        .add_header(Header::new(
            ":exception-type",
            text("modelStreamErrorException"),
        ))
        .add_header(Header::new(":content-type", text("application/json")));
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).ok()?;
    Some(Bytes::from(bytes))
}
