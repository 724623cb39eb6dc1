//! The stub DNS: names that a rule names have an address that leads back here; nothing is ever asked of anybody else, so
//! nothing travels in a question.

use std::{collections::HashSet, net::Ipv4Addr, time::Instant};

use simple_dns::{
    CLASS, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
    rdata::{A, RData},
};

use crate::destination::{Denial, HostName, NameError};

/// Bytes of a question that are looked at; resolvers send less than 512 (RFC 1035, section 4.2.1).
pub(crate) const MAX_QUESTION_BYTES: usize = 1024;
/// How long a resolver may keep an answer, seconds. Names keep their address longer than that.
const TTL_SECONDS: u32 = 60;
/// The fixed part of a message (RFC 1035, section 4.1.1).
const HEADER_BYTES: usize = 12;
/// Additional records that come with a question: EDNS alone (RFC 6891), a cookie or a signature beside it.
const MAX_ADDITIONAL: u16 = 2;
/// Refused names that are remembered as told.
const MAX_TOLD: usize = 256;

/// What is answered, and what of it is to be recorded.
#[derive(Debug)]
pub(crate) struct Answered {
    pub bytes: Vec<u8>,
    /// The name that was refused, as it was written, and why.
    pub refused: Option<(String, Denial)>,
}

/// Answers one question; nothing where what came is no question. `judge` decides about a name, `address_of` gives it an address.
pub(crate) fn answer(
    message: &[u8],
    judge: impl FnOnce(&HostName) -> Result<(), Denial>,
    address_of: impl FnOnce(&HostName) -> Ipv4Addr,
) -> Option<Answered> {
    let header = message.first_chunk::<HEADER_BYTES>()?;
    let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let id = number(0);
    if header[2] & 0x80 != 0 {
        return None;
    }
    // Before the message is parsed: it says itself for how many records room is made.
    let is_plain = (number(4), number(6), number(8)) == (1, 0, 0) && number(10) <= MAX_ADDITIONAL;
    let parsed = Packet::parse(message)
        .ok()
        .filter(|_| is_plain && message.len() <= MAX_QUESTION_BYTES);
    let Some(question) = parsed.as_ref().and_then(|packet| packet.questions.first()) else {
        return reply(id, None, RCODE::FormatError, None, None);
    };
    let is_query = parsed.as_ref().map(Packet::opcode) == Some(OPCODE::StandardQuery);
    let is_internet = question.qclass == QCLASS::CLASS(CLASS::IN);
    if !is_query || !is_internet {
        return reply(id, Some(question), RCODE::NotImplemented, None, None);
    }
    let written = written(question);
    let judged = name(question).and_then(|name| judge(&name).map(|()| name));
    match (judged, question.qtype) {
        (Err(denial), _) => reply(
            id,
            Some(question),
            RCODE::NameError,
            None,
            Some((written, denial)),
        ),
        (Ok(name), QTYPE::TYPE(TYPE::A)) => reply(
            id,
            Some(question),
            RCODE::NoError,
            Some(address_of(&name)),
            None,
        ),
        // What resolvers ask beside it and take an empty answer for.
        (Ok(_), QTYPE::TYPE(TYPE::AAAA | TYPE::HTTPS | TYPE::SVCB)) => {
            reply(id, Some(question), RCODE::NoError, None, None)
        }
        (Ok(_), _) => reply(
            id,
            Some(question),
            RCODE::Refused,
            None,
            Some((written, Denial::Unsupported("a record of DNS other than A"))),
        ),
    }
}

/// Refuses a question without looking at it.
pub(crate) fn refuse(message: &[u8]) -> Option<Vec<u8>> {
    let [first, second, ..] = *message.first_chunk::<HEADER_BYTES>()?;
    let id = u16::from_be_bytes([first, second]);
    reply(id, None, RCODE::Refused, None, None).map(|answered| answered.bytes)
}

fn name(question: &Question<'_>) -> Result<HostName, Denial> {
    let mut text = Vec::new();
    for label in question.qname.as_bytes() {
        // A dot within a label, or a letter that only a mapping makes plain, is another name than it seems.
        if !label
            .iter()
            .all(|byte| byte.is_ascii_graphic() && *byte != b'.')
        {
            return Err(Denial::BadName(NameError::Form(written(question))));
        }
        if !text.is_empty() {
            text.push(b'.');
        }
        text.extend_from_slice(label);
    }
    Ok(HostName::parse(&text)?)
}

fn written(question: &Question<'_>) -> String {
    let labels: Vec<_> = question
        .qname
        .as_bytes()
        .map(|label| label.escape_ascii().to_string())
        .collect();
    labels.join(".")
}

fn reply(
    id: u16,
    question: Option<&Question<'_>>,
    code: RCODE,
    address: Option<Ipv4Addr>,
    refused: Option<(String, Denial)>,
) -> Option<Answered> {
    let mut packet = Packet::new_reply(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::RECURSION_AVAILABLE);
    *packet.rcode_mut() = code;
    if let Some(question) = question {
        packet.questions.push(question.clone());
        if let Some(address) = address {
            packet.answers.push(ResourceRecord::new(
                question.qname.clone(),
                CLASS::IN,
                TTL_SECONDS,
                RData::A(A {
                    address: address.to_bits(),
                }),
            ));
        }
    }
    let bytes = packet.build_bytes_vec_compressed().ok()?;
    Some(Answered { bytes, refused })
}

/// How many questions may be asked: a bucket that fills with time.
#[derive(Debug)]
pub(crate) struct Budget {
    per_second: f64,
    burst: f64,
    left: f64,
    filled: Instant,
}

impl Budget {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Budget {
            per_second: f64::from(per_second),
            burst: f64::from(burst),
            left: f64::from(burst),
            filled: Instant::now(),
        }
    }

    /// Takes one, if one is there.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Denial> {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.burst);
        self.filled = now;
        if self.left < 1.0 {
            return Err(Denial::TooMany {
                what: "questions to its DNS at once",
                limit: self.burst as u64,
            });
        }
        self.left -= 1.0;
        Ok(())
    }
}

/// Which refusals were recorded lately.
#[derive(Debug, Default)]
pub(crate) struct Told(HashSet<String>);

impl Told {
    /// Whether this was not told yet, or so long ago that it is forgotten.
    pub(crate) fn is_news(&mut self, written: &str) -> bool {
        if self.0.contains(written) {
            return false;
        }
        if self.0.len() >= MAX_TOLD {
            self.0.clear();
        }
        self.0.insert(written.to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
