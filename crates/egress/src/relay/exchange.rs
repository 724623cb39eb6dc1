//! One request under way: what it is charged, and the record that it leaves however it ends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::Method;
use model::SessionId;
use tokio::sync::OwnedSemaphorePermit;

use crate::{Recording, Ticket, Unrecorded};

use super::{
    account::Spent,
    ledger::{Booking, Used},
    money::Usd,
    prices::Rates,
    refusal::Denial,
    session::SessionRelay,
    usage::{Seen, Tokens, reckoned},
};

/// Told of each request. A sandbox may make requests as fast as it likes, refused ones too: who writes them down decides how
/// many.
pub trait Observer: Send + Sync {
    /// One request of this session passed every check and is about to go to the provider.
    ///
    /// # Errors
    /// When that could not be made durable: the request does not go then.
    fn request_begins<'a>(&'a self, session: SessionId, record: &'a RequestRecord)
    -> Recording<'a>;

    /// One request of this session has ended. Called from within the relay: it must be quick and must not block. `ticket`:
    /// that of its beginning; none where it was refused before.
    fn request_ended(&self, session: SessionId, ticket: Option<Ticket>, record: &RequestRecord);
}

/// What is known of a request: nothing of its content. Answers of the relay to a client that only looks whether it is
/// there leave none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// The method, or `other`.
    pub method: &'static str,
    /// The path with its variable parts named, or `other` for one that is not relayed.
    pub shape: &'static str,
    /// The model asked for, once it passed.
    pub model: Option<String>,
    /// Whether a stream was asked for in the body.
    pub stream: bool,
    /// The status that the client got.
    pub status: Option<u16>,
    /// What the request was charged.
    pub tokens: Tokens,
    /// What that costs; `None` where the model's price is not known, or the request costs nothing by its kind.
    pub cost: Option<Usd>,
    /// A part of the charge is reckoned from bytes: the provider's number was not seen.
    pub reckoned: bool,
    /// Bytes of the request's body.
    pub bytes_up: u64,
    /// Bytes of the answer's body that were passed on.
    pub bytes_down: u64,
    /// From the request's headers to the last byte of the answer.
    pub duration: Duration,
    /// How it ended.
    pub ending: Ending,
    /// The rule of the relay that refused or cut it.
    pub denied: Option<&'static str>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With the provider's whole answer, be it an error.
    Complete,
    /// The relay answered instead.
    Denied,
    /// The client went away before the end.
    ClientGone,
    /// The provider's answer broke off.
    UpstreamBroken,
    /// The provider's answer stopped coming.
    Stalled,
    /// The session passed a cap while the answer came.
    CapReached,
}

impl RequestRecord {
    pub(crate) fn new(method: &Method) -> Self {
        RequestRecord {
            method: method_name(method),
            shape: "other",
            model: None,
            stream: false,
            status: None,
            tokens: Tokens::default(),
            cost: None,
            reckoned: false,
            bytes_up: 0,
            bytes_down: 0,
            duration: Duration::ZERO,
            ending: Ending::ClientGone,
            denied: None,
        }
    }

    pub(crate) fn deny(&mut self, denial: &Denial) {
        self.status = Some(denial.status().as_u16());
        self.ending = Ending::Denied;
        self.denied = Some(denial.rule());
    }
}

fn method_name(method: &Method) -> &'static str {
    [
        "POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE",
    ]
    .into_iter()
    .find(|known| method.as_str() == *known)
    .unwrap_or("other")
}

/// A request that was counted and is on its way. Dropping it settles the charge and leaves the record.
pub(crate) struct Exchange {
    session: Arc<SessionRelay>,
    _slot: OwnedSemaphorePermit,
    started: Instant,
    pub(crate) record: RequestRecord,
    ticket: Option<Ticket>,
    model: String,
    billed: bool,
    max_tokens: Option<u64>,
    rates: Option<Rates>,
    booking: Booking,
    cost: Usd,
}

/// What decides an exchange's charge.
pub(crate) struct Terms {
    pub model: String,
    /// Whether the answer costs tokens.
    pub billed: bool,
    /// What the request limits its output to.
    pub max_tokens: Option<u64>,
    /// What they cost, where that is known.
    pub rates: Option<Rates>,
}

impl Terms {
    /// What the request may cost at most, so far as that can be told beforehand: its input is reckoned from the body. One
    /// that does not limit its output may say anything.
    fn estimate(&self, bytes_up: u64) -> Spent {
        if !self.billed {
            return Spent::default();
        }
        let input = reckoned(bytes_up);
        let output_tokens = self.max_tokens.unwrap_or(u64::MAX);
        let cost = self.rates.map(|rates| rates.ceiling(input, output_tokens));
        Spent {
            requests: 0,
            output_tokens,
            tokens: input.saturating_add(output_tokens),
            cost: cost.unwrap_or_default(),
        }
    }
}

impl Exchange {
    /// Counts the request. Until the provider says its numbers, the input is reckoned from the body.
    pub(crate) fn begin(
        session: Arc<SessionRelay>,
        slot: OwnedSemaphorePermit,
        started: Instant,
        record: RequestRecord,
        terms: Terms,
    ) -> Result<Self, Denial> {
        let estimate = terms.estimate(record.bytes_up);
        let booking = session.begin(&terms.model, record.bytes_up, estimate)?;
        let mut exchange = Exchange {
            session,
            _slot: slot,
            started,
            record,
            ticket: None,
            model: terms.model,
            billed: terms.billed,
            max_tokens: terms.max_tokens,
            rates: terms.rates,
            booking,
            cost: Usd::ZERO,
        };
        exchange.observe(&Seen::default());
        Ok(exchange)
    }

    /// Puts on record that the request is about to go out.
    pub(crate) async fn announce(&mut self) -> Result<(), Denial> {
        let announced = self
            .session
            .observer
            .request_begins(self.session.session, &self.record);
        match announced.await {
            Ok(ticket) => self.ticket = Some(ticket),
            Err(Unrecorded::TooMany { per_minute }) => {
                return Err(Denial::RateLimited { per_minute });
            }
            Err(error @ Unrecorded::Failed(_)) => {
                tracing::error!(%error, "no request goes to the provider");
                return Err(Denial::AuditUnavailable);
            }
        }
        Ok(())
    }

    /// Charges what is known now. Says which cap the session is past with it.
    pub(crate) fn observe(&mut self, seen: &Seen) -> Option<Denial> {
        let tokens = self.charge(seen);
        let cost = match self.rates {
            Some(rates) if self.billed => rates.cost(&tokens, seen.web_searches),
            Some(_) | None => Usd::ZERO,
        };
        let passed = self.session.charge(
            &self.model,
            &self.booking,
            (self.record.tokens, self.cost),
            (tokens, cost),
        );
        self.record.tokens = tokens;
        self.cost = cost;
        self.record.reckoned = self.billed && !(seen.input_known && seen.output_known);
        passed.filter(|_| self.billed)
    }

    /// The provider refused or was not reached: the request costs nothing.
    pub(crate) fn costs_nothing(&mut self) {
        self.billed = false;
        self.observe(&Seen::default());
    }

    /// An allowance that is used up ends the answer.
    pub(crate) fn stopped_by(&self, denial: &Denial) {
        self.session.note_stop(denial);
    }

    pub(crate) fn passed_on(&mut self, bytes: usize) {
        self.record.bytes_down += bytes as u64;
        self.session.count_down(bytes as u64);
    }

    fn charge(&self, seen: &Seen) -> Tokens {
        if !self.billed {
            return Tokens::default();
        }
        let mut charge = seen.tokens;
        if !seen.input_known {
            charge.input = charge.input.max(reckoned(self.record.bytes_up));
        }
        if !seen.output_known {
            let limit = self.max_tokens.unwrap_or(u64::MAX);
            charge.output = charge.output.max(reckoned(seen.text_bytes).min(limit));
        }
        charge
    }
}

impl Exchange {
    fn settle(&mut self) {
        self.record.cost = self.rates.filter(|_| self.billed).map(|_| self.cost);
        let unpriced = self.billed && self.rates.is_none();
        self.session.leave(
            &self.booking,
            Used {
                requests: 1,
                denied: u64::from(self.record.ending == Ending::Denied),
                unpriced: u64::from(unpriced),
                tokens: self.record.tokens,
                cost: self.cost,
                bytes_up: self.record.bytes_up,
                bytes_down: self.record.bytes_down,
            },
        );
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.settle();
        self.record.duration = self.started.elapsed();
        self.session
            .observer
            .request_ended(self.session.session, self.ticket, &self.record);
    }
}
